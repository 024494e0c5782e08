"""`longtail evaluate`: the figures of a run again, on its own images and on others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from digit_photos import write_digits

Call = Callable[..., Any]


def test_evaluating_a_run_again_gives_what_metrics_json_says(cli: Call, finished: Any) -> None:
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    for split in ("test", "validation"):
        done = cli("evaluate", finished.folder, "--split", split, "--json")
        assert (done.status, done.err) == (0, "")
        again = json.loads(done.out)
        assert again["accuracy"] == metrics[split]["accuracy"]
        assert again["nll"] == pytest.approx(metrics[split]["nll"], rel=1e-5)
        assert again.keys() == metrics[split].keys()


def test_evaluate_prints_a_table_where_an_empty_group_is_not_a_zero(cli: Call, finished: Any) -> None:
    done = cli("evaluate", finished.folder, "--classes")
    assert done.status == 0
    counts = json.loads((finished.folder / "metrics.json").read_text())["train_counts"]
    classes = done.out[done.out.index("precision") :].splitlines()[1 : len(counts) + 1]
    assert [int(line.split()[1]) for line in classes] == sorted(counts, reverse=True)
    lines = {line.rsplit(maxsplit=1)[0].strip(): line for line in done.out.splitlines() if line.strip()}
    assert any("few" in line and "n/a" in line for line in done.out.splitlines())
    assert any(key.startswith("accuracy") for key in lines)
    assert str(finished.folder) in done.out


def test_evaluate_on_another_source_matches_classes_by_name(cli: Call, finished: Any, tmp_path: Path) -> None:
    """Three of the ten classes, so that the numbers of the labels differ from those of the model."""
    source = write_digits(tmp_path / "photos", classes=("2", "7", "9"))
    done = cli("evaluate", finished.folder, source, "--json")
    assert done.status == 0
    assert " 6 images" in done.err
    figures = json.loads(done.out)
    assert figures["num_images"] == 6
    assert [row["name"] for row in figures["per_class"] if row["test_count"]] == ["2", "7", "9"]
    assert figures["per_class"][0]["recall"] is None


def test_evaluate_on_digits_by_name_is_the_runs_own_test_split(cli: Call, finished: Any) -> None:
    unnamed, named = (json.loads(cli("evaluate", finished.folder, *words, "--json").out) for words in ([], ["digits"]))
    assert named.pop("seen") == {"train": 0, "validation": 0}
    assert unnamed == named


def test_evaluate_says_when_the_images_have_changed(cli: Call, train: Call, make_folder: Call, tmp_path: Path) -> None:
    source = make_folder({"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2})
    assert train(source).status == 0
    assert cli("evaluate", tmp_path / "run").err == ""
    shutil.copy(source / "test/cat/0.png", source / "test/cat/new.png")
    added = cli("evaluate", tmp_path / "run")
    assert (added.status, "1 image " in added.err) == (0, True)
    shutil.copy(source / "test/cat/1.png", source / "test/cat/0.png")
    (source / "test/cat/0.png").write_bytes((source / "test/cat/0.png").read_bytes() + b" ")
    assert "tested" in cli("evaluate", tmp_path / "run").err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["digits", "--split", "tset"], "'test'"),
        (["--split", "tset"], "'test'"),
        (["nowhere"], "neither"),
    ],
)
def test_evaluate_on_what_is_not_there(cli: Call, finished: Any, words: list[str], complaint: str) -> None:
    assert complaint in cli("evaluate", finished.folder, *words).complaint


def test_evaluate_refuses_a_class_the_model_does_not_know(cli: Call, finished: Any, make_folder: Call) -> None:
    complaint = cli("evaluate", finished.folder, make_folder({"1": 2, "cat": 2})).complaint
    assert "'cat'" in complaint


def test_evaluate_and_predict_need_a_finished_run(cli: Call, tmp_path: Path) -> None:
    assert "no run" in cli("evaluate", tmp_path / "nope").complaint
    assert "no run" in cli("predict", tmp_path / "nope", __file__, "--out", tmp_path / "o.csv").complaint
    (tmp_path / "config.yaml").write_text("recipe: cifar-lt/ce\n")
    assert f"--resume {tmp_path}" in cli("evaluate", tmp_path).complaint
