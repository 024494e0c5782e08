"""Comparison: folding over seeds, pairing, names of rows, notes that keep a reader from a wrong conclusion."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from longtail.compare.comparison import compare_runs
from longtail.compare.differences import difference_text
from longtail.compare.seeds import json_options
from longtail.compare.table import HEADINGS, Comparison, print_table, write_csv
from longtail.errors import LongtailError
from longtail.evaluation.posthoc import Adjustment
from longtail.evaluation.significance import Difference, seeds_interval
from longtail.report.page import render_report
from longtail.report.sections.provenance import provenance
from longtail.run.model_files import load_info, save_info


def accuracy(folder):
    return json.loads((folder / "metrics.json").read_text())["test"]["accuracy"]


def rewrite(folder, **changes):
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | changes))
    return folder


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


def test_differences_are_paired_by_seed(make_run):
    base = [make_run(f"ce{seed}", seed=seed) for seed in range(3)]
    ours = [make_run(f"gcl{seed}", recipe="cifar-lt/gcl", seed=seed, slope=0.5) for seed in (2, 1, 0)]
    difference = compare_runs([*base, *ours]).rows[1].differences["accuracy"]
    pairs = [accuracy(a) - accuracy(b) for a, b in zip(ours[::-1], base, strict=True)]
    assert difference.mean == pytest.approx(statistics.fmean(pairs))
    assert difference.std == pytest.approx(statistics.stdev(pairs))


def test_without_common_seeds_the_means_are_subtracted(make_run):
    base = [make_run(f"ce{seed}", seed=seed) for seed in (0, 1)]
    ours = [make_run(f"gcl{seed}", recipe="cifar-lt/gcl", seed=seed, slope=0.5) for seed in (5, 6)]
    difference = compare_runs([*base, *ours]).rows[1].differences["accuracy"]
    means = [statistics.fmean(map(accuracy, group)) for group in (ours, base)]
    spread = [statistics.variance(map(accuracy, group)) for group in (ours, base)]
    assert difference.mean == pytest.approx(means[0] - means[1])
    assert difference.std == pytest.approx(sum(spread) ** 0.5)


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


def test_the_first_stage_gets_its_own_row_on_request(make_run):
    folders = [make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl", stages=2)]
    rows = compare_runs(folders, stages=True).rows
    assert [row.stage for row in rows] == [None, None, 1]
    assert rows[2].values["accuracy"].mean != rows[1].values["accuracy"].mean
    assert len(compare_runs(folders).rows) == 2
    assert len(compare_runs(folders, stages=True).final) == 2


def test_a_group_that_is_empty_is_none_and_prints_as_not_available(make_run):
    comparison = compare_runs([make_run("ce", counts=(300, 200, 150))])
    assert comparison.rows[0].values["few"] is None
    console = Console(width=120, file=io.StringIO())
    print_table(comparison, console)
    assert "n/a" in console.file.getvalue()


def test_rendering_shows_values_and_differences(make_run):
    comparison = compare_runs([make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl", slope=0.4)])
    console = Console(width=120, file=io.StringIO())
    print_table(comparison, console)
    text = console.file.getvalue()
    assert f"{100 * comparison.rows[0].values['accuracy'].mean:.1f}" in text
    assert f"+{100 * comparison.rows[1].differences['accuracy'].mean:.1f}" in text
    assert "cifar-lt/gcl" in text


def test_folded_seeds_fit_a_terminal_of_eighty_columns(make_run):
    comparison = compare_runs([make_run("ce"), make_run("ce1", seed=1), make_run("ce2", seed=2)])
    console = Console(width=80, file=io.StringIO())
    print_table(comparison, console)
    text = console.file.getvalue()
    assert "ECE" in text
    assert text.count("±") == len(HEADINGS)
    assert "…" not in text


def test_figures_before_an_adjustment_are_said_to_be_so(make_run, untrained_run, tmp_path):
    folders = [make_run("a", seed=0), make_run("b", seed=1), make_run("c", recipe="cifar-lt/gcl")]
    assert not any("adjustment" in note for note in compare_runs(folders).notes)
    info = load_info(untrained_run(tmp_path / "model"))
    for folder, method in ((folders[1], "logit-adjustment"), (folders[2], "none")):
        save_info(replace(info, adjustment=Adjustment((1.0,) * 3, (0.0,) * 3, {"method": method})), folder)
    comparison = compare_runs(folders)
    (note,) = [note for note in comparison.notes if "adjustment" in note]
    for part in ("1 of the 2 runs of cifar-lt/ce (logit-adjustment)", "cifar-lt/gcl (temperature)"):
        assert part in note
    assert "logit-adjustment" in dict(provenance(comparison.rows)["runs"][1]["facts"])["Adjusted"]
    (folders[2] / "model.json").write_text("{")
    with pytest.raises(LongtailError, match=r"model\.json"):
        compare_runs(folders)


def test_csv_holds_fractions_deviations_and_notes(make_run, tmp_path):
    comparison = compare_runs([make_run("ce"), make_run("ce1", seed=1), make_run("gcl", recipe="cifar-lt/gcl")])
    with write_csv([comparison], tmp_path / "new" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["cifar-lt/ce", "cifar-lt/gcl"]
    assert rows[0]["seeds"] == "0 1"
    for key in HEADINGS:
        assert 0 <= float(rows[0][key]) <= 1
    assert float(rows[0]["accuracy_std"]) > 0
    assert rows[1]["accuracy_std"] == ""
    assert "3 seeds" in rows[0]["notes"]


def test_an_unwritable_csv_is_named(make_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LongtailError, match="written"):
        write_csv([compare_runs([make_run("ce")])], tmp_path / "file" / "table.csv")


def test_other_classes_are_refused(make_run):
    with pytest.raises(LongtailError, match="classes"):
        compare_runs([make_run("ce"), make_run("gcl", names=list("abcdef"))])


def test_other_test_images_are_flagged(make_run):
    comparison = compare_runs([make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl", per_class_test=10)])
    assert any("tested on" in note for note in comparison.notes)


def test_other_training_images_are_flagged(make_run):
    comparison = compare_runs([make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl", data_hash="sha256:ffff")])
    assert any("trained on" in note for note in comparison.notes)
    assert not any("tested on" in note for note in comparison.notes)


def test_a_repeated_seed_is_flagged(make_run):
    notes = compare_runs([make_run("a", seed=0), make_run("b", seed=1, stored_seed=0)]).notes
    assert any("same seed" in note for note in notes)


def test_three_seeds_on_the_same_data_need_no_note(make_run):
    folders = [make_run(f"{r}{s}", recipe=f"cifar-lt/{r}", seed=s) for r in ("ce", "kps") for s in range(3)]
    assert compare_runs(folders).notes == ()


def test_validation_is_compared_where_no_run_has_a_test_split(make_run):
    folder = make_run("ce")
    test = json.loads((folder / "metrics.json").read_text())["test"]
    rewrite(folder, test=None, validation=test)
    comparison = compare_runs([folder])
    assert comparison.split == "validation"
    assert comparison.rows[0].values["accuracy"].mean == test["accuracy"]
    assert any("validation" in note for note in comparison.notes)


def test_runs_that_were_never_evaluated_give_empty_rows(make_run):
    comparison = compare_runs([make_run("ce", test=False)])
    assert comparison.split is None
    assert set(comparison.rows[0].values.values()) == {None}
    print_table(comparison, Console(file=io.StringIO()))


def test_nothing_and_the_same_folder_twice_are_refused(make_run):
    with pytest.raises(LongtailError, match="RUN"):
        compare_runs([])
    folder = make_run("ce")
    with pytest.raises(LongtailError, match="twice"):
        compare_runs([folder, folder / ".." / "ce"])


def test_flatten_keeps_lists_and_empty_tables_whole():
    assert json_options({"a": {"b": [1, 2]}, "c": {}}) == {"a.b": "[1, 2]", "c": "{}"}


def spread(mean, std, n, images=None):
    return Difference(mean, std, n, images=images, seeds=seeds_interval(mean, std, n))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Difference(0.0049, None, 1), ["+0.5", "one seed"]),
        (Difference(-0.1, 0.011, 2), ["−10.0", "2 seeds"]),
        (spread(-0.0045, 0.0001, 3), ["no difference", "−0.4"]),
        (spread(0.0049, 0.001, 30), ["no clear", "+0.5 to +0.5", "half"]),
        # Student's quantile with 2 degrees of freedom is 4.303: an end at 0.02 - 4.303 * 0.01 / sqrt(3) = -0.0048.
        (spread(0.02, 0.01, 3), ["no clear", "+2.0", "95%", "−0.5 to +4.5"]),
        (spread(0.02, 0.008, 3), ["2.0 points higher", "over seeds"]),
        (Difference(-0.2, None, 1, images=(-0.3, -0.1)), ["20.0 points lower", "over images"]),
        (Difference(-0.2, 0.1, 2, images=(-0.3, -0.1)), ["20.0 points lower", "over images"]),
        (spread(0.02, 0.008, 3, images=(0.01, 0.03)), ["2.0 points higher", "images", "seeds"]),
        (spread(0.02, 0.01, 3, images=(0.01, 0.03)), ["no clear", "not over", "−0.5 to +4.5"]),
        (spread(0.02, 0.008, 3, images=(-0.01, 0.05)), ["no clear", "not over", "−1.0 to +5.0"]),
    ],
)
def test_a_difference_claims_no_more_than_it_shows(change, words):
    text = difference_text(change)
    assert all(word in text for word in words)
    assert ("higher" in text or "lower" in text) == change.is_evidence


def printed(comparison: Comparison, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(comparison, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_and_its_csv_have_both_ends(make_run: Callable[..., Path], tmp_path: Path) -> None:
    comparison = compare_runs([make_run("a", recipe="x/ce"), make_run("b", recipe="x/gcl", seed=1)])
    low, high = comparison.rows[1].intervals["few"] or (0, 0)
    assert f"{100 * low:.1f}–{100 * high:.1f}" in printed(comparison)
    assert max(map(len, printed(comparison, width=80).splitlines())) <= 80
    with write_csv([comparison], tmp_path / "table.csv").open() as file:
        row = list(csv.DictReader(file))[1]
    assert (float(row["few_low"]), float(row["few_high"])) == pytest.approx((low, high), abs=1e-6)
    assert row["ece_low"] == ""


def test_more_seeds_do_not_make_an_interval_narrower(make_run: Callable[..., Path]) -> None:
    folders = [make_run(f"s{seed}", seed=seed) for seed in range(3)]
    widths = [high - low for low, high in (compare_runs([f]).rows[0].intervals["few"] or (0, 0) for f in folders)]
    low, high = compare_runs(folders).rows[0].intervals["few"] or (0, 0)
    assert high - low == pytest.approx(sum(widths) / 3)


def test_intervals_that_do_not_know_of_groups_are_said_to_be_too_narrow(make_run: Callable[..., Path]) -> None:
    folder = make_run("run")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("data:\n", "data:\n  group_column: film\n"))
    assert any("one film" in note and "too narrow" in note for note in compare_runs([folder]).notes)


def test_stored_intervals_are_shown_and_not_computed_again(make_run: Callable[..., Path]) -> None:
    folder = make_run("run")
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["test"]["intervals"] = {
        "level": 0.95, "unit": "film", "correlation": 0.5, "accuracy": [0.125, 0.875], "few": None,
    }  # fmt: skip
    metrics["test"]["per_class"][0]["recall_interval"] = [0.0625, 0.9375]
    path.write_text(json.dumps(metrics))
    comparison = compare_runs([folder])
    assert "12.5–87.5" in printed(comparison)
    page = render_report(comparison)
    assert "12.5–87.5" in page
    assert "6.2–93.8" in page
    assert any("one film" in note for note in comparison.notes)
