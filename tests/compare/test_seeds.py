"""Seeds: which runs become one row, and what the rows are called."""

from __future__ import annotations

import json
import statistics

import pytest
import yaml

from longtail.compare.comparison import compare_runs
from longtail.compare.seeds import json_options
from longtail.report.sections.provenance import provenance


def accuracy(folder):
    return json.loads((folder / "metrics.json").read_text())["test"]["accuracy"]


def test_runs_that_differ_only_in_seed_become_one_row(make_run):
    folders = [make_run(f"ce{seed}", seed=seed) for seed in range(3)]
    (row,) = compare_runs(folders).rows
    values = [accuracy(folder) for folder in folders]
    assert row.seeds == [0, 1, 2]
    assert row.values["accuracy"].n == 3
    assert row.values["accuracy"].mean == pytest.approx(statistics.fmean(values))
    assert row.values["accuracy"].std == pytest.approx(statistics.stdev(values))


def test_options_of_speed_do_not_part_runs_but_options_of_method_do(make_run):
    plain = make_run("one")
    fast = make_run("fast", seed=1)
    (fast / "config.yaml").write_text((fast / "config.yaml").read_text().replace("device: auto", "device: cpu"))
    other = make_run("other", options={"noise": 0.5})
    rows = compare_runs([plain, fast, other]).rows
    assert [len(row.runs) for row in rows] == [2, 1]


def test_rows_are_named_by_recipe_and_the_options_that_differ(make_run):
    runs = [
        make_run("ce"),
        make_run("a", recipe="cifar-lt/gcl", options={"noise": 0.5}),
        make_run("b", recipe="cifar-lt/gcl", options={"noise": 1.0}),
    ]
    comparison = compare_runs(runs)
    names = [row.name for row in comparison.rows]
    assert names[0] == "cifar-lt/ce"
    assert names[1:] == ["cifar-lt/gcl noise=0.5", "cifar-lt/gcl noise=1.0"]
    assert [row.label for row in comparison.rows] == [name.removeprefix("cifar-lt/") for name in names]


def test_one_source_in_two_places_is_one_configuration_and_no_path_is_shown(make_run):
    sources = (
        "parquet:photos",
        "parquet:/home/me/secret/photos",
        "parquet:/mnt/photos",
        "parquet:/home/me/other/photos",
    )
    hashes = ("sha256:a", "sha256:a", "sha256:a", "sha256:b")
    runs = [make_run(f"r{k}", seed=k, data_hash=each) for k, each in enumerate(hashes)]
    for run, source in zip(runs, sources, strict=True):
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["data"]["source"] = source
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    comparison = compare_runs(runs)
    assert [len(row.runs) for row in comparison.rows] == [3, 1]
    options = provenance(comparison.rows)
    assert "/home/me" not in str(options)
    alone = provenance(compare_runs(runs[1:2]).rows)
    assert dict(alone["shared"])["data.source"] == "parquet:photos"


def test_an_option_that_differs_between_the_stages_is_named_with_its_stage(make_run):
    runs = [make_run("a", options={"noise": 0.5}), make_run("b", options={"noise": 1.0})]
    config = yaml.safe_load((runs[1] / "config.yaml").read_text())
    config["stage2"]["loss"] = {"name": "ce", "options": {"scale": 30.0, "noise": 0.1}}
    (runs[1] / "config.yaml").write_text(yaml.safe_dump(config))
    assert compare_runs(runs).rows[1].name == "cifar-lt/ce stage1.noise=1.0 stage2.noise=0.1"


def test_flatten_keeps_lists_and_empty_tables_whole():
    assert json_options({"a": {"b": [1, 2]}, "c": {}}) == {"a.b": "[1, 2]", "c": "{}"}


def test_seeds_of_grouped_data_are_one_row_though_they_train_on_other_numbers_of_images(make_run):
    folders = [make_run(f"ce{split}") for split in range(3)]
    for split, folder in enumerate(folders):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["data"] |= {"group_column": "film", "split_seed": split}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics["train_counts"][0] += split
        metrics["data_hash"] = f"sha256:{split}"
        (folder / "metrics.json").write_text(json.dumps(metrics))
    comparison = compare_runs(folders)
    assert [len(row.runs) for row in comparison.rows] == [3]
    assert not any("same seed" in note for note in comparison.notes), "each has other images"
