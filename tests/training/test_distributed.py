"""Two processes against one: every image once an epoch, the same metrics, the same weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.errors import LongtailError, UsageError
from longtail.run.layout import read_config
from longtail.training.engine import LocalEngine
from longtail.training.launch import resume_run, start_run

WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, launch_two: Callable[..., None]) -> tuple[Path, Path]:
    """The same run by one process and by two; the network has no batch normalization."""
    from longtail.config.resolve import resolve

    folder = tmp_path_factory.mktemp("pair")
    config = resolve(
        {
            "data": {
                "source": "digits",
                "image_size": 16,
                "augmentation": "crop-flip",
                "validation_fraction": 0.0,
            },
            "model": {"name": "plain-cnn"},
            "training": {"precision": "fp32"},
            "stage1": {"epochs": 2, "batch_size": 64, "optimizer": {"lr": 0.02}, "loss": {"name": "fbl"}},
        }
    )
    start_run(config, folder / "one", Reporter(quiet=True))
    file = folder / "two.yaml"
    file.write_text(yaml.safe_dump(asdict(config)))
    launch_two(WORKER, str(file), str(folder / "two"), str(folder / "one"))
    return folder / "one", folder / "two"


def test_every_image_is_seen_once_an_epoch(pair: tuple[Path, Path]) -> None:
    shares = [json.loads((pair[1] / f"rows-{rank}.json").read_text()) for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1])
    half = len(shares[0]) // 2
    for epoch in (slice(0, half), slice(half, None)):
        seen = Counter(shares[0][epoch] + shares[1][epoch])
        assert sorted(seen) == list(range(1438))
        assert set(seen.values()) == {1}


def test_the_weights_are_those_of_one_process(pair: tuple[Path, Path]) -> None:
    first, second = (load_file(run / "model.safetensors") for run in pair)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=1e-5)


def test_two_processes_measure_what_one_does(pair: tuple[Path, Path]) -> None:
    first: dict[str, Any] = json.loads((pair[0] / "metrics.json").read_text())["test"]
    second: dict[str, Any] = json.loads((pair[1] / "evaluated.json").read_text())
    assert second["per_class"] == first["per_class"]
    for name in ("num_images", "accuracy", "balanced_accuracy", "many", "medium", "few", "worst_class"):
        assert second[name] == first[name]
    assert second["nll"] == pytest.approx(first["nll"], rel=1e-6)
    assert second["ece"] == pytest.approx(first["ece"], abs=1e-6)


def test_history_and_predictions_are_those_of_all_processes(pair: tuple[Path, Path]) -> None:
    import pyarrow.parquet as pq

    tables = [pq.read_table(run / "predictions.parquet") for run in pair]
    assert tables[1]["index"].to_pylist() == list(range(359))
    assert tables[1]["label"] == tables[0]["label"]
    rows = [(run / "history.csv").read_text().splitlines()[-1].split(",") for run in pair]
    assert float(rows[1][4]) == pytest.approx(float(rows[0][4]), rel=1e-4)
    hardware = json.loads((pair[1] / "metrics.json").read_text())["hardware"]
    assert hardware["processes"] == 2


def test_metrics_of_two_processes_describe_the_saved_model(pair: tuple[Path, Path]) -> None:
    """Each process has its own batch-norm statistics while training; the saved ones are measured."""
    run = pair[1].with_name("two-normalized")
    noted = json.loads((run / "metrics.json").read_text())["test"]
    again = json.loads((run / "evaluated.json").read_text())
    assert again["per_class"] == noted["per_class"]
    assert again["nll"] == pytest.approx(noted["nll"], rel=1e-6)


def test_an_adjustment_by_two_processes_counts_every_image_once(pair: tuple[Path, Path]) -> None:
    noted, adjusted = (
        json.loads((pair[1].with_name("two-normalized") / name).read_text())
        for name in ("metrics.json", "adjusted.json")
    )
    for split in ("validation", "test"):
        images = [row["test_count"] for row in noted[split]["per_class"]]
        assert [row["test_count"] for row in adjusted[split]["per_class"]] == images


def test_two_processes_stop_together_and_resume_to_the_same_weights(pair: tuple[Path, Path]) -> None:
    straight, stopped = (load_file(run / "model.safetensors") for run in (pair[1], pair[1].with_name("two-stopped")))
    assert all(torch.equal(straight[name], stopped[name]) for name in straight)


def test_one_process_continues_a_run_of_two_to_the_same_weights(pair: tuple[Path, Path]) -> None:
    run = pair[1].with_name("two-for-one")
    resume_run(read_config(run), run, Reporter(quiet=True))
    straight, continued = (load_file(each / "model.safetensors") for each in (pair[1], run))
    assert straight.keys() == continued.keys()
    for name in straight:
        torch.testing.assert_close(continued[name], straight[name], rtol=0, atol=1e-5)
    assert json.loads((run / "metrics.json").read_text())["hardware"]["processes"] == 1


def test_the_report_is_written_once(pair: tuple[Path, Path]) -> None:
    assert (pair[1] / "report.html").stat().st_size > 100_000


def test_a_batch_that_does_not_divide_is_refused(small_config: Callable[..., RunConfig]) -> None:
    engine = LocalEngine(torch.device("cpu"), small_config().training, world_size=2)
    assert engine.local_batch_size(64) == 32
    with pytest.raises(LongtailError, match="2 processes"):
        engine.local_batch_size(63)


@pytest.mark.parametrize(("source", "words"), [("photos", "classes"), ("absent", "not exist")])
def test_processes_that_read_other_images_end_with_one_sentence_each(
    pair: tuple[Path, Path], source: str, words: str
) -> None:
    folder = pair[1].parent / "disagreeing"
    for rank in (0, 1):
        status, complaint = json.loads((folder / f"rank-{rank}" / f"{source}.json").read_text())
        assert status == 1
        assert complaint.count("longtail: ") == 1
        assert words in complaint
    assert not (folder / f"run-{source}").exists()


def test_a_stopped_process_ends_the_others_after_the_timeout(pair: tuple[Path, Path]) -> None:
    for rank in (0, 1):
        status, complaint = json.loads((pair[1].with_name("waiting") / f"{rank}.json").read_text())
        assert status == 1
        assert complaint.count("longtail: ") == 1
        assert "--training.timeout" in complaint
        assert "Traceback" not in complaint


def test_a_timeout_is_a_duration(small_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(UsageError, match="--training"):
        small_config(training={"timeout": "soon"})
