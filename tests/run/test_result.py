"""RunResult reads what training writes, and says in one sentence what is wrong with a folder that is not one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from longtail.errors import LongtailError
from longtail.evaluation.intervals import wilson
from longtail.run import read


def test_reads_every_file_of_a_run(make_run):
    run = read(make_run("gcl", recipe="cifar-lt/gcl", stages=2, epochs=6))
    assert run.recipe == "cifar-lt/gcl"
    assert run.counts.counts == (300, 120, 60, 30, 12, 5)
    assert run.group_of == ("many", "many", "medium", "medium", "few", "few")
    assert run.seed == 0
    assert run.validation is None
    assert set(run.stages) == {1, 2}
    assert run.predictions.label.shape == (120,)
    assert {example.role for example in run.examples} == {"train", "error"}


def test_per_class_recall_agrees_with_the_predictions(make_run):
    run = read(make_run("ce"))
    predictions = run.predictions
    counted = [(predictions.prediction[predictions.label == j] == j).mean() for j in range(6)]
    np.testing.assert_allclose(run.test.recalls, counted)


def test_epochs_run_on_over_both_stages(make_run):
    history = read(make_run("gcl", stages=2, epochs=6)).history
    assert [(row.stage, row.epoch) for row in history] == [*((1, n) for n in range(1, 7)), *((2, n) for n in (1, 2, 3))]
    assert history[0].validation_loss is None


def test_a_run_without_a_test_split_has_no_test_metrics(make_run):
    run = read(make_run("ce", test=False))
    assert run.test is None
    assert run.predictions is None


def test_empty_groups_and_untested_classes_stay_unknown(make_run):
    folder = make_run("ce", counts=(300, 200))
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["test"]["per_class"][1].update(recall=None, test_count=0)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    run = read(folder)
    assert run.test["few"] is None
    assert np.isnan(run.test.recalls[1])


def test_groups_are_those_of_the_run_not_of_the_default_thresholds(make_run):
    folder = make_run("ce", counts=(300, 200, 150))
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["groups"] = {"many": [0], "medium": [1], "few": [2]}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert read(folder).group_of == ("many", "medium", "few")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(LongtailError, match=r"no run .*nowhere"):
        read(tmp_path / "nowhere")


def test_an_unfinished_run_says_how_to_finish(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(LongtailError, match="--resume"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", "{", "JSON"),
        ("metrics.json", "[]", "object"),
        ("metrics.json", '{"format": 9}', "update longtail"),
        ("metrics.json", '{"format": 1}', "'classes'"),
        ("config.yaml", "a: [", "YAML"),
        ("config.yaml", "7", "configuration"),
        ("history.csv", "stage,epoch,train_loss\n1,1,high\n", "be read"),
    ],
)
def test_a_broken_file_is_named_with_a_remedy(make_run, name, content, message):
    folder = make_run("ce")
    (folder / name).write_text(content)
    with pytest.raises(LongtailError, match=message) as caught:
        read(folder)
    assert name in str(caught.value)


@pytest.mark.parametrize("is_finished", [True, False])
def test_broken_metrics_are_made_anew_only_where_a_checkpoint_is_left(make_run, is_finished):
    folder = make_run("ce")
    (folder / "metrics.json").write_text("{")
    (folder / "model.safetensors").touch()
    if not is_finished:
        (folder / "checkpoint").mkdir()
    with pytest.raises(LongtailError, match="copy" if is_finished else "--resume"):
        read(folder)


def test_a_broken_parquet_file_is_named(make_run):
    folder = make_run("ce")
    (folder / "predictions.parquet").write_bytes(b"no parquet")
    with pytest.raises(LongtailError, match=r"predictions\.parquet .*read"):
        _ = read(folder).predictions


@pytest.mark.parametrize("name", ["history.csv", "predictions.parquet", "examples.parquet"])
def test_optional_files_may_be_missing(make_run, name):
    folder = make_run("ce")
    (folder / name).unlink()
    run = read(folder)
    assert (run.history, run.predictions, run.examples) != (None, None, None)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_figures_that_leave_classes_out_are_one_sentence(make_run, split):
    folder = make_run("ce")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics[split] = metrics["test"] | {"per_class": metrics["test"]["per_class"][:-1]}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(LongtailError, match=r"metrics\.json: .*5 classes"):
        read(folder)


def test_a_run_of_an_older_version_gets_its_intervals_from_its_classes(make_run: Callable[..., Path]) -> None:
    folder = make_run("old")
    assert "intervals" not in json.loads((folder / "metrics.json").read_text())["test"]
    test = read(folder).test
    assert test is not None
    first = test.per_class[0]
    assert first.recall_interval == pytest.approx(tuple(wilson(round((first.recall or 0) * 20), 20)))
    for name in ("accuracy", "balanced_accuracy", "many", "few", "worst_class"):
        low, high = test.intervals[name]
        assert low <= (test[name] or 0) <= high
