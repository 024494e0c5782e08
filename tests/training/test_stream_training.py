"""Training from a stream: stopped and resumed to the same weights, by two processes as by one; what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ctrl_c import CtrlC
from safetensors.torch import load_file
from streams import COUNTS, write_stream

from longtail.config.schema import RunConfig
from longtail.console import Interrupted, Reporter
from longtail.errors import LongtailError
from longtail.experiments.evaluate import evaluate_run
from longtail.report.page import write_report
from longtail.training.launch import resume_run, start_run

WORKER = Path(__file__).with_name("stream_worker.py")
TOTAL = (64, 40, 24, 12, 4)  # 144 images: 18 for each of 8 lanes
Build = Callable[..., RunConfig]


def options(shards: Path, **stage: Any) -> dict[str, Any]:
    """Two epochs of 9 batches of 16 images."""
    data = {"source": f"stream:{shards}", "imbalance_ratio": None, "validation_fraction": 0.0, "stream_buffer": 60}
    data |= {"augmentation": "crop-flip", "workers": 1}
    return {"data": data, "stage1": {"epochs": 2, "batch_size": 16, "optimizer": {"lr": 0.05}} | stage}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream") / "shards", TOTAL, fewest=8)


def same(first: Path, second: Path, tolerance: float = 0.0) -> None:
    left, right = (load_file(run / "model.safetensors") for run in (first, second))
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def straight(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[RunConfig], Path]:
    """Runs that were never stopped, by their sampler."""
    runs: dict[str, Path] = {}

    def run(config: RunConfig) -> Path:
        name = config.stage1.sampler
        if name not in runs:
            out = tmp_path_factory.mktemp("straight") / name
            start_run(config, out, Reporter(quiet=True))
            runs[name] = out
        return runs[name]

    return run


@pytest.mark.parametrize(
    ("sampler", "epoch", "step"), [("shuffle", 1, 4), ("effective-number", 0, 5), ("shuffle", 1, 0)]
)
def test_an_interrupted_run_ends_with_the_same_weights(
    sampler: str,
    epoch: int,
    step: int,
    shards: Path,
    small_config: Build,
    quiet: Reporter,
    tmp_path: Path,
    straight: Callable[[RunConfig], Path],
) -> None:
    config = small_config(**options(shards, sampler=sampler))
    whole = straight(config)
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", quiet, callbacks=[CtrlC(1, epoch, step)])
    resume_run(config, tmp_path / "run", quiet)
    same(tmp_path / "run", whole)
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (whole, tmp_path / "run")]
    assert metrics[0]["draws"] == metrics[1]["draws"]


def test_a_run_says_what_it_saw_of_each_class(
    shards: Path, small_config: Build, straight: Callable[[RunConfig], Path]
) -> None:
    run = straight(small_config(**options(shards, sampler="shuffle")))
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["draws"]["stage1"] == {"images": [*TOTAL], "draws": [2 * each for each in TOTAL], "seen": [*TOTAL]}
    write_report([run], run / "report.html")
    assert "144 of 144 images, of each class between 100% and 100%" in (run / "report.html").read_text()
    assert evaluate_run(run)["accuracy"] == pytest.approx(metrics["test"]["accuracy"])
    assert (run / "predictions.parquet").is_file()
    assert not (run / "splits.csv").exists()


def test_two_processes_train_as_one(
    shards: Path,
    small_config: Build,
    tmp_path: Path,
    straight: Callable[[RunConfig], Path],
    launch_two: Callable[..., None],
) -> None:
    """Stopped and resumed: every image once an epoch, the same number of steps, the same weights."""
    config = small_config(**options(shards, sampler="shuffle"))
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(asdict(config)))
    launch_two(WORKER, str(file), str(tmp_path / "two"))
    same(straight(config), tmp_path / "two", tolerance=1e-5)
    steps = [json.loads((tmp_path / f"steps-{rank}.json").read_text()) for rank in (0, 1)]
    assert steps == [18, 18]
    draws = [json.loads((run / "metrics.json").read_text())["draws"] for run in (straight(config), tmp_path / "two")]
    assert draws[0] == draws[1]


def test_a_stream_holds_out_its_test_images(small_config: Build, quiet: Reporter, tmp_path: Path) -> None:
    shards = write_stream(tmp_path / "shards", COUNTS, test=False)
    overrides = options(shards)
    overrides["data"] |= {"validation_fraction": 0.1}
    metrics = start_run(small_config(**overrides), tmp_path / "run", quiet)
    assert metrics["test"]["num_images"] == 29
    assert metrics["validation"]["num_images"] > 0
    assert sum(metrics["train_counts"]) + 29 + metrics["validation"]["num_images"] == sum(COUNTS)
    assert evaluate_run(tmp_path / "run")["accuracy"] == pytest.approx(metrics["test"]["accuracy"])


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"stage1": {"train": "classifier", "cached_views": 1}}, "features"),
        ({"stage2": {"epochs": 1, "cached_views": 2}}, "features"),
        ({"stage1": {"mixing": "cmo"}}, "CMO"),
        ({"data": {"folds": 3, "fold": 0}}, "streamed"),
        ({"data": {"imbalance_ratio": 20}}, "streamed"),
        ({"data": {"group_column": "camera"}}, "streamed"),
        ({"data": {"skip_unreadable": True}}, "streamed"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(
    overrides: dict[str, Any], word: str, shards: Path, small_config: Build, quiet: Reporter, tmp_path: Path
) -> None:
    from longtail.config.options import merge

    config = small_config(**merge(options(shards), overrides))
    with pytest.raises(LongtailError, match=word):
        start_run(config, tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()
