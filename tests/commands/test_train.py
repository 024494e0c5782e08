"""``longtail train``: what a RUN folder holds, that it can be repeated, and that options reach the configuration."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from command_line import requested
from PIL import Image
from safetensors.torch import load_file

from longtail.compare.comparison import compare_runs
from longtail.config.schema import DataConfig, RunConfig
from longtail.console import Reporter
from longtail.experiments.grid_plan import Grid, state_of
from longtail.run.checkpoint import remove_checkpoints
from longtail.training.launch import start_run
from longtail.training.prepared_data import prepare_data

Call = Callable[..., Any]
SUMMARY = {
    "num_images",
    "accuracy",
    "balanced_accuracy",
    "many",
    "medium",
    "few",
    "worst_class",
    "harmonic_mean",
    "nll",
    "ece",
    "per_class",
}
FRACTIONS = SUMMARY - {"num_images", "nll", "per_class"}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def same_weights(run: Path, other: Path) -> bool:
    first, second = weights(run), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def saved(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
    return values


def metrics(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return values


def resolved(*words: str) -> RunConfig:
    return requested("digits", "--out", "x", *words)


# --- the RUN folder ---------------------------------------------------------------------------------------------------


def test_the_folder_holds_what_is_promised_and_nothing_half_written(finished: Any) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert names == {
        "config.yaml",
        "metrics.json",
        "history.csv",
        "predictions.parquet",
        "examples.parquet",
        "model.safetensors",
        "model.json",
        "report.html",
        "confusion.csv",
        "splits.csv",
        "stage1",
    }
    assert {path.name for path in (finished.folder / "stage1").iterdir()} == {"model.safetensors", "model.json"}


def test_the_result_is_on_stdout_and_the_progress_on_stderr_in_plain_lines(finished: Any) -> None:
    lines = finished.out.splitlines()
    test = json.loads((finished.folder / "metrics.json").read_text())["test"]
    accuracy, low, high = (f"{share * 100:.1f}" for share in (test["accuracy"], *test["intervals"]["accuracy"]))
    assert lines[0].startswith(f"test accuracy {accuracy}% ({low}–{high}), balanced accuracy ")
    assert lines[1:] == [f"report: {finished.folder / 'report.html'}"]
    assert [line.split(":")[0] for line in finished.err.splitlines()] == [
        "network",
        "stage 1",
        "stage 2",
        "digits",
        "stage 1 done",
        "stage 2 done",
    ]
    assert "\x1b" not in finished.out + finished.err


def test_config_is_fully_resolved(finished: Any) -> None:
    config = saved(finished.folder)
    assert config["recipe"] == "cifar-lt/gcl"
    assert config["data"]["source"] == "digits"
    assert config["data"]["imbalance_ratio"] == 20
    assert config["model"] == {
        "name": "plain-cnn",
        "head": "cosine",
        "pretrained": False,
        "weights": "",
        "trainable": [],
        "adapter": "none",
        "adapter_rank": 8,
        "standardize": False,
        "tau": 0.0,
    }
    assert config["stage1"]["loss"] == {"name": "gcl", "options": {"scale": 30.0, "noise": 0.5, "margin": 0.0}}
    assert config["training"]["seed"] == 3


def test_metrics_have_every_promised_key(finished: Any) -> None:
    figures = metrics(finished.folder)
    assert {"test", "validation", "seeds", "data_hash", "versions", "hardware", "seconds", "stages"} <= figures.keys()
    for split in ("test", "validation"):
        summary = figures[split]
        assert summary.keys() == SUMMARY | {"intervals"}
        assert all(summary[key] is None or 0 <= summary[key] <= 1 for key in FRACTIONS)
        assert math.isfinite(summary["nll"])
        assert [row["name"] for row in summary["per_class"]] == [str(digit) for digit in range(10)]
        assert {"name", "train_count", "recall", "precision", "f1"} <= summary["per_class"][0].keys()
    assert [row["train_count"] for row in figures["test"]["per_class"]] == figures["train_counts"]
    assert figures["test"]["num_images"] == 359
    assert figures["seeds"] == {"seed": 3, "subset_seed": 0, "split_seed": 0}
    assert figures["data_hash"].startswith("sha256:")
    assert figures["versions"]["torch"] == torch.__version__
    assert figures["hardware"]["processes"] == 1
    assert figures["seconds"]["total"] > 0
    assert figures["stages"].keys() == {"stage1", "stage2"}


def test_an_empty_group_is_null_not_zero(finished: Any) -> None:
    figures = metrics(finished.folder)
    assert figures["groups"]["few"] == []
    assert figures["test"]["few"] is None
    assert figures["test"]["many"] is not None
    assert figures["test"]["medium"] is not None


def test_history_has_a_row_for_every_epoch(finished: Any) -> None:
    with (finished.folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["stage"], row["epoch"]) for row in rows] == [("1", "1"), ("1", "2"), ("2", "1")]
    assert all(float(row["train_loss"]) > 0 for row in rows)
    measured = [row["epoch"] for row in rows if row["validation_loss"]]
    assert measured == ["2", "1"]  # the end of each stage; ten epochs are not reached


def test_predictions_are_those_the_metrics_are_made_of(finished: Any) -> None:
    table = pq.read_table(finished.folder / "predictions.parquet")
    rows = table.to_pandas() if hasattr(table, "to_pandas") else None
    assert rows is not None
    assert list(rows["index"]) == list(range(359))
    assert set(table.column_names) >= {
        "index",
        "path",
        "label",
        "prediction",
        "confidence",
        "probability_true",
        "top5",
        "top5_probabilities",
    }
    names = metrics(finished.folder)["classes"]
    for column in ("label", "prediction"):
        assert list(rows[f"{column}_name"]) == [names[index] for index in rows[column]]
    right = (rows["label"] == rows["prediction"]).mean()
    assert right == pytest.approx(metrics(finished.folder)["test"]["accuracy"])


def test_model_json_says_how_to_use_the_weights(finished: Any) -> None:
    info = json.loads((finished.folder / "model.json").read_text())
    assert info["classes"] == [str(digit) for digit in range(10)]
    assert info["counts"] == metrics(finished.folder)["train_counts"]
    assert info["preprocessing"]["size"] == 8
    assert info["versions"]["torch"] == torch.__version__


def test_the_report_is_one_page_about_this_run(finished: Any) -> None:
    page = (finished.folder / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "cifar-lt/gcl" in page


# --- repeating a run --------------------------------------------------------------------------------------------------


def test_training_from_config_yaml_gives_the_same_weights(cli: Call, finished: Any, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert cli("train", "--config", finished.folder / "config.yaml", "--out", again).status == 0
    assert same_weights(finished.folder, again)
    assert (again / "config.yaml").read_text() == (finished.folder / "config.yaml").read_text()
    first, second = metrics(finished.folder), metrics(again)
    assert first["test"] == second["test"]
    assert first["data_hash"] == second["data_hash"]


def test_another_seed_gives_other_weights_on_the_same_images(cli: Call, finished: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    words = ("--config", finished.folder / "config.yaml", "--out", other, "--seed", 4, "--stage2.epochs", 0, "--quiet")
    done = cli("train", *words)
    assert (done.status, done.err) == (0, "")
    assert not same_weights(finished.folder, other)
    assert metrics(other)["data_hash"] == metrics(finished.folder)["data_hash"]
    assert metrics(other)["seeds"]["seed"] == 4


def test_a_run_that_exists_is_not_touched(cli: Call, finished: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    complaint = cli(*finished.words).complaint
    assert all(word in complaint for word in ("finished run", "--out"))
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before


def test_a_folder_of_something_else_is_not_touched_either(train: Call, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    assert "empty" in train("digits").complaint
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


def test_an_empty_folder_and_missing_parents_are_fine(train: Call, make_folder: Call, tmp_path: Path) -> None:
    source = make_folder({"cat": 5, "dog": 5})
    (tmp_path / "run").mkdir()
    assert train(source).status == 0
    assert train(source, out="a/b/c").status == 0
    assert (tmp_path / "a" / "b" / "c" / "metrics.json").is_file()


def test_a_complete_run_has_nothing_to_resume(cli: Call, finished: Any) -> None:
    done = cli("train", "--resume", finished.folder)
    assert done.status == 0
    assert "complete already" in done.err


def test_a_finished_run_keeps_its_checkpoints_on_request(cli: Call, finished: Any, tmp_path: Path) -> None:
    run, files = tmp_path / "run", {"last.safetensors", "previous.safetensors"}
    words = [str(run) if word == str(finished.folder) else word for word in finished.words]
    assert cli(*words, "--keep-checkpoints").status == 0
    assert {path.name for path in (run / "checkpoint").iterdir()} == files
    assert cli("train", "--resume", run).status == 0
    assert {path.name for path in (run / "checkpoint").iterdir()} == files


def test_stopped_between_its_figures_and_its_report_a_run_needs_no_checkpoint(
    cli: Call, finished: Any, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    (run / "report.html").unlink()
    (run / "checkpoint").mkdir()
    done = cli("train", "--resume", run)
    assert (done.status, done.out.splitlines()[0]) == (0, finished.out.splitlines()[0])
    assert (run / "report.html").is_file()
    assert not (run / "checkpoint").exists()


def test_the_confusion_matrix_is_that_of_the_predictions(finished: Any) -> None:
    rows = list(csv.reader((finished.folder / "confusion.csv").read_text().splitlines()))
    table = pq.read_table(finished.folder / "predictions.parquet", columns=["label", "prediction"]).to_pydict()
    pairs = Counter(zip(table["label"], table["prediction"], strict=True))
    assert rows[0][1:] == [row[0] for row in rows[1:]] == [str(digit) for digit in range(10)]
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == [
        [pairs[true, predicted] for predicted in range(10)] for true in range(10)
    ]


# --- options ----------------------------------------------------------------------------------------------------------


def test_epochs_scale_the_whole_schedule() -> None:
    config = resolved("--recipe", "cifar-lt/gcl", "--epochs", "100")
    assert (config.stage1.epochs, config.stage2.epochs) == (100, 15)
    assert config.stage1.schedule.milestones == [80, 90]
    assert config.stage1.schedule.warmup_epochs == 5


def test_the_batch_size_is_that_of_both_stages_and_a_stage_s_own_wins() -> None:
    config = resolved("--recipe", "cifar-lt/gcl", "--batch-size", "32")
    assert (config.stage1.batch_size, config.stage2.batch_size) == (32, 32)
    config = resolved("--recipe", "cifar-lt/gcl", "--stage2.batch_size", "16", "--batch-size=32")
    assert (config.stage1.batch_size, config.stage2.batch_size) == (32, 16)


def test_an_option_given_beside_epochs_wins() -> None:
    config = resolved("--recipe", "cifar-lt/gcl", "--epochs", "100", "--stage2.epochs", "7")
    assert (config.stage1.epochs, config.stage2.epochs) == (100, 7)


def test_short_flags_and_any_option_reach_the_configuration() -> None:
    config = resolved(
        "--recipe=cifar-lt/ce",
        "--seed=5",
        "--imbalance-ratio",
        "1e2",
        "--group-column",
        "film",
        "--data.imbalance_profile",
        "step",
        "--stage1.optimizer.lr=0.3",
        "--data.mean",
        "[0.1, 0.2, 0.3]",
        "--training.clip_norm",
        "1",
        "--stage1.loss.options.label_smoothing",
        "0.1",
        "--model.name",
        "timm:resnet18",
    )
    assert config.training.seed == 5
    assert (config.data.imbalance_ratio, config.data.imbalance_profile) == (100, "step")
    assert config.data.group_column == "film"
    assert config.data.mean == [0.1, 0.2, 0.3]
    assert config.stage1.optimizer.lr == 0.3
    assert config.stage1.loss.options == {"label_smoothing": 0.1}
    assert config.training.clip_norm == 1
    assert config.model.name == "timm:resnet18"


def test_one_option_of_a_loss_leaves_the_others_of_the_recipe() -> None:
    config = resolved("--recipe", "cifar-lt/gcl", "--stage1.loss.options.noise", "0.3")
    assert config.stage1.loss.options == {"scale": 30.0, "noise": 0.3, "margin": 0.0}


def test_another_loss_starts_with_its_own_options() -> None:
    config = resolved("--recipe", "cifar-lt/gcl", "--stage1.loss.name", "kps")
    assert (config.stage1.loss.name, config.stage1.loss.options) == ("kps", {})
    assert config.stage2.loss.name == "gcl"
    assert config.stage2.loss.options["focal_gamma"] == 1


def test_an_option_for_another_loss_counts_even_where_the_recipes_loss_has_the_same_value() -> None:
    config = resolved("--recipe", "cifar-lt/gcl", "--stage1.loss.name=kps", "--stage1.loss.options.scale", "30")
    assert config.stage1.loss.options == {"scale": 30}


def test_another_loss_trains_with_the_classifier_it_is_defined_on(train: Call, tmp_path: Path) -> None:
    options = ("--stage1.loss.name", "balanced-softmax", "--stage2.epochs", 0, "--imbalance-ratio", 50)
    assert train("digits", *options, recipe="cifar-lt/gcl").status == 0
    assert saved(tmp_path / "run")["model"]["head"] == "linear"
    assert saved(tmp_path / "run")["stage1"]["loss"] == {"name": "balanced-softmax", "options": {}}


def test_a_configuration_over_a_recipe_and_options_over_both(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("stage1: {epochs: 7, optimizer: {lr: 0.5}}\nmodel: {name: resnet20}\n")
    config = resolved("--recipe", "cifar-lt/ce", "--config", str(file), "--stage1.optimizer.lr", "0.25")
    assert (config.recipe, config.stage1.epochs, config.stage1.optimizer.lr) == ("cifar-lt/ce", 7, 0.25)
    assert (config.model.name, config.stage1.optimizer.momentum) == ("resnet20", 0.9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stage1: {epohcs: 3}", "'stage1.epochs'"),
        ("stage1: {epochs: many}", "stage1.epochs "),
        ("stage1: 3", "stage1 "),
        ("model: {head: round}", "model.head "),
        ("stage1: {loss: {options: 5}}", "stage1.loss.options "),
        ("a: [", "YAML"),
        ("just words", "configuration"),
        ("", "configuration"),
    ],
)
def test_a_configuration_file_that_cannot_be_used_is_named(cli: Call, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    complaint = cli("train", "digits", "--config", file, "--out", tmp_path / "run").complaint
    assert words in complaint
    assert str(file) in complaint
    assert not (tmp_path / "run").exists()


def test_a_configuration_file_that_is_missing_is_named(cli: Call, tmp_path: Path) -> None:
    assert "nope.yaml" in cli("train", "digits", "--config", "nope.yaml", "--out", tmp_path).complaint


@pytest.mark.parametrize("profile", ["exponential", "step"])
def test_the_imbalance_ratio_cuts_a_seeded_subset_and_empties_no_class(
    train: Call, tmp_path: Path, profile: str
) -> None:
    options = ("--imbalance-ratio", 20, "--data.imbalance_profile", profile)
    assert train("digits", *options).status == 0
    counts = metrics(tmp_path / "run")["train_counts"]
    assert min(counts) >= 1
    assert max(counts) / min(counts) == pytest.approx(20, rel=0.1)


def test_the_subset_goes_into_the_hash(train: Call, tmp_path: Path) -> None:
    assert train("digits", "--imbalance-ratio", 50, "--data.subset_seed", 1).status == 0
    data = DataConfig(source="digits", imbalance_ratio=50, subset_seed=1, validation_fraction=0.0)
    assert metrics(tmp_path / "run")["data_hash"] == prepare_data(data).data_hash
    assert prepare_data(data).data_hash != prepare_data(replace(data, subset_seed=2)).data_hash


# --- splits -----------------------------------------------------------------------------------------------------------


def test_a_source_without_a_test_split_gets_one_held_out_and_is_told(
    train: Call, make_folder: Call, tmp_path: Path
) -> None:
    done = train(make_folder({"cat": 10, "dog": 5}))
    assert done.status == 0
    assert all(word in done.err for word in ("3 images", "--data.test_fraction"))
    figures = metrics(tmp_path / "run")
    assert figures["test"]["num_images"] == 3
    assert figures["train_counts"] == [8, 4]
    assert any("held out" in note for note in figures["notes"])


def test_a_run_may_do_without_a_test_split(
    train: Call, cli: Call, make_folder: Call, tmp_path: Path, real_report: None
) -> None:
    done = train(make_folder({"cat": 6, "dog": 3}), "--data.test_fraction", 0)
    assert done.status == 0, done.err
    assert metrics(tmp_path / "run")["test"] is None
    assert not (tmp_path / "run" / "predictions.parquet").exists()
    assert "'test'" in cli("evaluate", tmp_path / "run").complaint


def write_films(folder: Path, films: int) -> Path:
    """Each film shows one animal on four nearly equal pictures."""
    lines = ["path,label,film"]
    for film in range(films):
        for frame in range(4):
            name = f"{film}-{frame}.png"
            Image.fromarray(np.full((8, 8, 3), film * 9 + frame, np.uint8)).save(folder / name)
            lines.append(f"{name},{'cat' if film % 2 else 'dog'},film{film}")
    (folder / "films.csv").write_text("\n".join(lines) + "\n")
    return folder / "films.csv"


def test_rows_of_a_group_stay_on_one_side_of_every_split(train: Call, tmp_path: Path) -> None:
    source = write_films(tmp_path, 12)
    options = ("--group-column", "film", "--data.validation_fraction", 0.2)
    done = train(f"csv:{source}", *options)
    assert done.status == 0, done.err
    table = pq.read_table(tmp_path / "run" / "predictions.parquet")
    paths, groups = (table.column(name).to_pylist() for name in ("path", "group"))
    assert len(set(zip((path.split("-")[0] for path in paths), groups, strict=True))) == len(set(groups)) > 1
    frames: dict[str, int] = {}
    for path in paths:
        assert "/" not in path  # below the folder of the table, wherever that is
        film = path.split("-")[0]
        frames[film] = frames.get(film, 0) + 1
    assert frames
    assert set(frames.values()) == {4}
    figures = metrics(tmp_path / "run")
    assert figures["validation"]["num_images"] % 4 == 0
    assert sum(figures["train_counts"]) % 4 == 0
    assert saved(tmp_path / "run")["data"]["group_column"] == "film"


def test_a_misspelled_group_column_is_refused_even_where_nothing_is_held_out(train: Call, tmp_path: Path) -> None:
    source = write_films(tmp_path, 4)
    complaint = train(f"csv:{source}", "--group-column", "flim", "--data.test_fraction", 0).complaint
    assert "'film'" in complaint
    assert not (tmp_path / "run").exists()


Cli = Callable[..., Any]


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the folds in this process, which saves the start of others."""

    def run_all(grid: Grid, _: Reporter) -> dict[Path, str]:
        for run in grid.runs:
            if state_of(run) != "finished":
                start_run(run.config, run.folder, Reporter(quiet=True))
                remove_checkpoints(run.folder)  # as the command does
        return {}

    monkeypatch.setattr("longtail.experiments.folds.run_grid", run_all)


@pytest.mark.usefixtures("_here")
def test_folds_end_in_one_table_with_intervals_and_can_be_resumed(train: Cli, cli: Cli, tmp_path: Path) -> None:
    words = ("digits", "--folds", 2, "--imbalance-ratio", 50)
    done = train(*words, out="cv")
    assert done.status == 0, done.err
    assert "95% interval" in done.out
    assert "2 folds" in done.out
    assert "untouched" in done.out
    assert "without --folds" in done.out
    assert (tmp_path / "cv" / "fold-1" / "model.safetensors").is_file()
    assert "exists already" in train(*words, out="cv").complaint
    assert "complete already" in cli("train", "--resume", tmp_path / "cv").err
    (tmp_path / "cv" / "metrics.json").unlink()
    again = cli("train", "--resume", tmp_path / "cv")
    assert again.status == 0, again.err
    assert (tmp_path / "cv" / "metrics.json").is_file()
    assert "fold-0" in cli("evaluate", tmp_path / "cv").complaint


@pytest.mark.usefixtures("_here")
def test_the_table_says_how_many_images_are_judged(train: Cli, cli: Cli, make_folder: Cli, tmp_path: Path) -> None:
    places = make_folder({"ant": 6, "bee": 6, "cat": 2})
    lines = ["path,label,haul"]
    for name, hauls in (("ant", "zzxyxy"), ("bee", "xyxyxy"), ("cat", "zz")):  # all cats are in haul z
        lines += [f"{places}/{name}/{number}.png,{name},{haul}" for number, haul in enumerate(hauls)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    done = train(f"csv:{tmp_path / 't.csv'}", "--folds", 2, "--group-column", "haul", out="cv")
    assert done.status == 0, done.err
    assert "2 folds, 10 of 14 images" in done.out
    assert "4 of 14 images" in done.out
    assert "'ant' 2, 'cat' 2 (" in done.out
    metrics = json.loads((tmp_path / "cv" / "metrics.json").read_text())
    assert metrics["never_judged"] == {"ant": 2, "cat": 2}
    assert any("4 of 14" in note for note in compare_runs([tmp_path / "cv"]).notes)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--folds", "1"], "--data.folds "),
        (["--folds", "-2"], "--folds "),
        (["--data.fold", "0"], "--data.fold 0"),
        (["--folds", "3", "--data.fold", "3"], "--data.fold 3"),
        (["--folds", "5000"], "5000 folds"),
    ],
)
def test_folds_that_make_no_sense(train: Cli, tmp_path: Path, options: list[str], sentence: str) -> None:
    assert sentence in train("digits", *options).complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["ten", "-5m", "0", "1.5h", ""])
def test_a_time_limit_is_a_duration(cli: Call, text: str, tmp_path: Path) -> None:
    shown = cli("train", "digits", "--out", str(tmp_path / "run"), f"--time-limit={text}")
    assert shown.status == 2
    assert "--time-limit" in shown.complaint


def test_a_time_limit_is_for_one_run(cli: Call, tmp_path: Path) -> None:
    shown = cli("train", "digits", "--out", str(tmp_path / "run"), "--time-limit", "9m", "--folds", "3")
    assert shown.status == 2
    assert "--folds" in shown.complaint


def test_a_dry_run_prints_candidates_and_time_and_writes_nothing(
    cli: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    words = ["--mode", "linear", "--data.image_size", "32", "--imbalance-ratio", "10", "--folds", "3"]
    shown = cli("train", "digits", "--dry-run", "--out", str(out), *words)
    assert shown.status == 0
    assert "at 32 px" in shown.out
    assert "logit-adjustment" in shown.out
    assert "expected" in shown.out
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_network_that_is_trained_measures_its_steps(cli: Call) -> None:
    words = ["--recipe", "cifar-lt/ce", "--model.name", "plain-cnn", "--data.image_size", "8", "--epochs", "2"]
    shown = cli("train", "digits", "--dry-run", *words)
    assert shown.status == 0
    assert "2 passes" in shown.out
    assert "logit-adjustment" not in shown.out


def test_a_metric_without_anything_to_choose_is_refused(cli: Call, tmp_path: Path) -> None:
    words = ["--recipe", "cifar-lt/ce", "--metric", "accuracy"]
    assert "--metric" in cli("train", "digits", "--out", str(tmp_path / "run"), *words).complaint
