"""Cross-validation: every image is judged once by a model new to it, and one table says what all folds come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longtail.compare.comparison import compare_runs
from longtail.config.schema import DataConfig, RunConfig
from longtail.console import Reporter
from longtail.errors import LongtailError
from longtail.experiments.folds import start_folds, train_folds
from longtail.experiments.grid_plan import Grid, state_of
from longtail.run.checkpoint import remove_checkpoints
from longtail.training.launch import start_run
from longtail.training.prepared_data import prepare_data

Build = Callable[..., RunConfig]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, quiet: Reporter) -> list[str]:
    """Folds are trained in this process, which saves the start of others; the names of those that were."""
    names: list[str] = []

    def run_all(grid: Grid, _: Reporter) -> dict[Path, str]:
        for run in grid.runs:
            if state_of(run) != "finished":
                start_run(run.config, run.folder, quiet)
                remove_checkpoints(run.folder)  # as the command does
                names.append(run.name)
        return {}

    monkeypatch.setattr("longtail.experiments.folds.run_grid", run_all)
    return names


def test_all_folds_together_judge_every_image_once(
    small_config: Build, trained: list[str], tmp_path: Path, quiet: Reporter
) -> None:
    config = small_config(data={"image_size": 8, "workers": 0, "folds": 2, "imbalance_ratio": 50})
    out = tmp_path / "cv"
    metrics = start_folds(config, out, quiet)
    assert trained == ["fold-0", "fold-1"]
    table = pq.read_table(out / "predictions.parquet")
    whole = len(prepare_data(DataConfig(source="digits", test_fraction=0, validation_fraction=0)).data.splits["train"])
    assert table["index"].to_pylist() == list(range(whole))
    parts = [json.loads((out / f"fold-{k}" / "metrics.json").read_text())["test"] for k in range(2)]
    test, sizes = metrics["test"], np.array([part["num_images"] for part in parts])
    assert test["num_images"] == sizes.sum() == whole
    for name in ("accuracy", "nll"):  # means over images are those of the folds, by their sizes
        assert test[name] == pytest.approx(np.average([part[name] for part in parts], weights=sizes), rel=1e-6)
    right = [
        sum(part["per_class"][j]["recall"] * part["per_class"][j]["test_count"] for part in parts) for j in range(10)
    ]
    assert [row["recall"] * row["test_count"] for row in test["per_class"]] == pytest.approx(right)
    assert test["intervals"]["accuracy"][0] < test["accuracy"] < test["intervals"]["accuracy"][1]
    assert [fold["accuracy"] for fold in metrics["folds"]] == [part["accuracy"] for part in parts]

    again = train_folds(config, out, quiet)  # finished folds stay as they are
    assert len(trained) == 2
    assert again == metrics
    assert compare_runs([out]).rows[0].values["accuracy"] is not None
    with pytest.raises(LongtailError, match="exists already"):
        start_folds(config, out, quiet)

    written = {name: pq.read_table(out / "fold-1" / f"{name}.parquet") for name in ("predictions", "examples")}
    damaged = {
        "index": pa.array([whole] * len(written["predictions"])),
        "top5": pa.array([[1] * (n % 3) for n in range(len(written["predictions"]))]),
        "label_name": pa.array([1] * len(written["predictions"])),
        "class": pa.array([99] * len(written["examples"])),
        "image": pa.array(["text"] * len(written["examples"])),
    }
    for column, values in damaged.items():
        name = "predictions" if column in written["predictions"].column_names else "examples"
        table, path = written[name], out / "fold-1" / f"{name}.parquet"
        pq.write_table(table.set_column(table.column_names.index(column), column, values), path)
        with pytest.raises(LongtailError, match=rf"{name}\.parquet.*{column}"):
            train_folds(config, out, quiet)
        pq.write_table(table, path)
    path = out / "fold-1" / "metrics.json"
    whole_file = json.loads(path.read_text())
    for damage in ({"test": None}, {"test": whole_file["test"] | {"nll": None}}):
        path.write_text(json.dumps(whole_file | damage))
        with pytest.raises(LongtailError, match=r"metrics\.json.*test"):
            train_folds(config, out, quiet)
    path.write_text(json.dumps(whole_file))
    assert train_folds(config, out, quiet) == metrics


def test_a_fold_that_fails_is_named_with_the_command_to_continue(
    small_config: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quiet: Reporter
) -> None:
    monkeypatch.setattr(
        "longtail.experiments.folds.run_grid",
        lambda grid, _: {run.folder: "no space left." for run in grid.runs if run.name == "fold-1"},
    )
    with pytest.raises(LongtailError, match=r"fold-1 .*--resume"):
        start_folds(small_config(data={"folds": 2}), tmp_path / "cv", quiet)
    assert not (tmp_path / "cv" / "metrics.json").exists()


def test_other_images_than_those_of_a_finished_fold_are_refused(
    small_config: Build, trained: list[str], tmp_path: Path, quiet: Reporter
) -> None:
    folder, config = tmp_path / "cv" / "fold-0", small_config(data={"folds": 2})
    folder.mkdir(parents=True)
    classes = [str(number) for number in range(10)]
    for made, word in (({"classes": classes[:9]}, "classes"), ({"classes": classes}, "images")):
        counts = [9] * len(made["classes"])
        (folder / "metrics.json").write_text(json.dumps(made | {"train_counts": counts, "data_hash": "sha256:other"}))
        with pytest.raises(LongtailError, match=f"the {word} of 'digits'"):
            train_folds(config, tmp_path / "cv", quiet)
    assert trained == []


def test_images_that_cannot_be_divided_leave_no_folder(small_config: Build, tmp_path: Path, quiet: Reporter) -> None:
    with pytest.raises(LongtailError, match="2000 folds"):
        start_folds(small_config(data={"folds": 2000}), tmp_path / "cv", quiet)
    assert not (tmp_path / "cv").exists()


def test_several_processes_are_refused(
    small_config: Build, tmp_path: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LongtailError, match="without torchrun"):
        start_folds(small_config(data={"folds": 2}), tmp_path / "cv", quiet)
