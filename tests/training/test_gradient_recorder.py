"""What a run records of its gradients: the sums of a plain autograd computation, whatever the batch goes through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ctrl_c import CtrlC
from safetensors.torch import load_file
from torch.nn import functional

from longtail.analysis.dynamics import BINS, EDGES
from longtail.config.schema import RunConfig, TrainingConfig
from longtail.config.stage import StageConfig
from longtail.console import Interrupted, Reporter
from longtail.counts import ClassCounts
from longtail.data.loading.loaders import ResidentLoader
from longtail.data.transforms.augmentation import BatchTransform
from longtail.losses import CrossEntropyLoss, GCLLoss
from longtail.losses.base import LongTailLoss
from longtail.models.model import build_model
from longtail.run.dynamics import epoch_columns
from longtail.training.engine import Engine
from longtail.training.forward_pass import ImageInputs
from longtail.training.gradient_recorder import GradientRecorder
from longtail.training.launch import resume_run, start_run
from longtail.training.loop import train_epoch
from longtail.training.stages import build_stage

Build = Callable[..., RunConfig]
CPU = torch.device("cpu")
COUNTS = [50, 10, 5, 1]


def batch(seed: int = 0, images: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, 4, generator=generator), torch.randint(0, 3, (images,), generator=generator)


def recorded(loss: LongTailLoss, logits: torch.Tensor, target: torch.Tensor, parts: int = 1) -> dict[str, Any]:
    recorder = GradientRecorder(loss, CPU)
    for some, labels in zip(logits.tensor_split(parts), target.tensor_split(parts), strict=True):
        values, share = some.clone().requires_grad_(), len(some) / len(logits)
        recorder.on_logits(values, labels, share)
        backward(loss(values, labels) * share)
    return epoch_columns(recorder.sums, recorder.scale)


def expected(logits: torch.Tensor, target: torch.Tensor) -> dict[str, Any]:
    """The same of a cross-entropy, image by image, without a hook and without a mean."""
    values = logits.clone().requires_grad_()
    backward(functional.cross_entropy(values, target, reduction="sum"))
    assert values.grad is not None
    label = target if target.ndim == 1 else target.argmax(1)
    gradient, probability = values.grad.numpy(), logits.softmax(1)[torch.arange(len(label)), label].numpy()
    images = np.bincount(label.numpy(), minlength=4)
    label_gradient = np.bincount(label.numpy(), np.abs(gradient[np.arange(len(label)), label.numpy()]), minlength=4)
    histogram = np.array([np.histogram(probability[label.numpy() == name], EDGES)[0] for name in range(4)])
    return {
        "images": images,
        "positive": np.maximum(-gradient, 0).sum(0),
        "negative": np.maximum(gradient, 0).sum(0),
        "gradient": label_gradient / np.where(images, images, np.nan),
        "p_histogram": histogram,
    }


def backward(loss: torch.Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def assert_same(measured: dict[str, Any], reference: dict[str, Any]) -> None:
    assert measured.keys() == reference.keys()
    for name in measured:
        np.testing.assert_allclose(measured[name], reference[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("parts", [1, 5])
def test_hard_targets(parts: int) -> None:
    logits, target = batch()
    measured = recorded(CrossEntropyLoss(COUNTS), logits, target, parts)
    assert_same(measured, expected(logits, target))
    assert measured["positive"][3] == 0  # a class without images is never raised
    assert np.isnan(measured["gradient"][3])
    probability = logits.softmax(1)[torch.arange(12), target].double()
    mean = [float((1 - probability)[target == name].mean()) for name in range(3)]
    np.testing.assert_allclose(measured["gradient"][:3], mean, rtol=1e-5)  # 1 - p_y


@pytest.mark.parametrize("parts", [1, 3])
def test_mixed_targets(parts: int) -> None:
    logits, target = batch()
    mixed = 0.7 * functional.one_hot(target, 4) + 0.3 * functional.one_hot(target.flip(0), 4)
    assert_same(recorded(CrossEntropyLoss(COUNTS), logits, mixed, parts), expected(logits, mixed))


def test_cosines_are_measured_as_softmax_sees_them() -> None:
    """GCL without noise is cross-entropy on 30 cosines: the same gradients and probabilities, not 30 times as large."""
    logits, target = batch()
    cosines = logits / 30
    assert_same(recorded(GCLLoss(COUNTS, noise=0.0), cosines, target), expected(logits, target))


def test_probabilities_are_those_without_noise_and_gradients_those_with(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = GCLLoss(COUNTS, noise=0.5, scale=30.0)
    monkeypatch.setattr(loss, "sample_noise", torch.ones_like)
    logits, target = batch()
    measured = recorded(loss, logits / 30, target)
    clouded = logits - 30 * 0.5 * loss.get_buffer("_tail_weight")
    np.testing.assert_array_equal(measured["p_histogram"], expected(logits, target)["p_histogram"])
    np.testing.assert_allclose(measured["negative"], expected(clouded, target)["negative"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", "mps"])  # the sums of the second one are on the processor
def test_batches_of_other_sizes_and_many_steps_add_up(device: str) -> None:
    """More steps than are kept before they are added, the last batch smaller than the others."""
    loss = CrossEntropyLoss(COUNTS)
    recorder = GradientRecorder(loss, torch.device(device))
    parts = [batch(seed, 12 if seed < 59 else 5) for seed in range(60)]
    for logits, target in parts:
        values = logits.clone().requires_grad_()
        recorder.on_logits(values, target)
        backward(loss(values, target))
    logits, target = (torch.cat(each) for each in zip(*parts, strict=True))
    assert_same(epoch_columns(recorder.sums, 1.0), expected(logits, target))


def test_the_scale_of_a_float16_loss_is_undone() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loss = CrossEntropyLoss(COUNTS)
    recorder = GradientRecorder(loss, CPU, scaler=scaler)
    logits, target = batch()
    values = logits.clone().requires_grad_()
    recorder.on_logits(values, target)
    backward(scaler.scale(loss(values, target)))
    assert_same(epoch_columns(recorder.sums, 1.0), expected(logits, target))


def test_a_sum_of_losses_is_not_taken_as_a_mean() -> None:
    loss = CrossEntropyLoss(COUNTS, reduction="sum")
    recorder = GradientRecorder(loss, CPU)
    logits, target = batch()
    values = logits.clone().requires_grad_()
    recorder.on_logits(values, target, 0.5)
    backward(loss(values, target) * 0.5)
    assert_same(epoch_columns(recorder.sums, 1.0), expected(logits, target))


# --- whole runs ------------------------------------------------------------------------------------------------------

TWO_STAGES = {
    "data": {"augmentation": "crop-flip"},
    "training": {"precision": "fp32", "record_dynamics": True},
    "stage1": {"epochs": 2, "mixing": "mixup", "batch_size": 64},
    "stage2": {"epochs": 1, "batch_size": 64, "cached_views": 1, "mixing": "feature-mixup"},
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded run that was never stopped."""
    from longtail.config.build import build
    from longtail.config.options import merge
    from longtail.config.recipes import base_config
    from longtail.config.resolve import complete

    tiny = {
        "data": {"source": "digits", "imbalance_ratio": 10, "image_size": 16},
        "model": {"name": "plain-cnn"},
        "stage1": {"optimizer": {"lr": 0.02}},
    }
    out = tmp_path_factory.mktemp("straight") / "run"
    config = complete(build(merge(merge(base_config("cifar-lt/gcl"), tiny), TWO_STAGES)))
    start_run(config, out, Reporter(quiet=True))
    return out


def tables(run: Path) -> dict[str, dict[str, Any]]:
    return {path.name: pq.read_table(path).to_pydict() for path in sorted((run / "dynamics").iterdir())}


def test_a_run_writes_one_file_an_epoch(straight: Path) -> None:
    measured = tables(straight)
    names = ["stage1-epoch0001.parquet", "stage1-epoch0002.parquet", "stage2-epoch0001.parquet"]
    assert list(measured) == names
    for name in names[:2]:
        table = measured[name]
        assert table["class"] == list(range(10))
        assert all(len(row) == BINS for row in table["p_histogram"])
        assert sum(map(sum, table["p_histogram"])) == sum(table["images"])
        # Each image pulls its own class up by as much as it pushes all others down: the sums agree over the classes.
        assert sum(table["positive"]) == pytest.approx(sum(table["negative"]), rel=1e-4)
    # Mixup pairs a batch with itself in another order, so that the larger share is of every image once.
    counts = json.loads((straight / "metrics.json").read_text())["train_counts"]
    assert measured[names[0]]["images"] == measured[names[1]]["images"] == counts
    assert measured[names[2]]["images"] != counts  # class-balanced draws


def test_recording_changes_nothing(straight: Path, small_config: Build, quiet: Reporter, tmp_path: Path) -> None:
    off = TWO_STAGES | {"training": {"precision": "fp32"}}
    start_run(small_config("cifar-lt/gcl", **off), tmp_path / "off", quiet)
    assert not (tmp_path / "off" / "dynamics").exists()
    on, without = (load_file(run / "model.safetensors") for run in (straight, tmp_path / "off"))
    assert on.keys() == without.keys()
    assert all(torch.equal(on[name], without[name]) for name in on)


def test_a_run_resumed_within_an_epoch_records_the_same(
    straight: Path, small_config: Build, quiet: Reporter, tmp_path: Path
) -> None:
    config = small_config("cifar-lt/gcl", **TWO_STAGES)
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", quiet, callbacks=[CtrlC(1, 1, 3)])
    resume_run(config, tmp_path / "run", quiet)
    measured, reference = tables(tmp_path / "run"), tables(straight)
    assert measured.keys() == reference.keys()
    for name, table in reference.items():
        assert measured[name]["p_histogram"] == table["p_histogram"]
        assert measured[name]["images"] == table["images"]
        for column in ("positive", "negative", "gradient"):
            np.testing.assert_allclose(measured[name][column], table[column], rtol=1e-5, err_msg=column)


def one_epoch(accumulation: int) -> dict[str, Any]:
    """Without batch normalization the network sees the same images in one part or in three."""
    pixels = torch.randint(0, 256, (21, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(21) % 3
    engine = Engine(TrainingConfig(device="cpu", precision="fp32", accumulation=accumulation))
    torch.manual_seed(0)
    work = build_stage(
        engine,
        StageConfig(epochs=1, batch_size=8),
        1,
        model=build_model("plain-cnn", 3, "linear"),
        counts=ClassCounts([7, 7, 7]),
        inputs=ImageInputs(ResidentLoader(pixels, labels, engine.device), BatchTransform((0.5,) * 3, (0.25,) * 3)),
    )
    recorder = GradientRecorder(work.loss, engine.device)
    work.callbacks = [recorder]
    train_epoch(work, 0)
    return epoch_columns(recorder.sums, recorder.scale)


def test_accumulated_parts_are_recorded_as_one_batch() -> None:
    whole, in_parts = one_epoch(1), one_epoch(3)
    assert whole["images"].tolist() == in_parts["images"].tolist() == [7, 7, 7]
    for column in ("positive", "negative", "gradient"):
        np.testing.assert_allclose(whole[column], in_parts[column], rtol=1e-3, err_msg=column)
