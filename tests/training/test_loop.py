"""The loop: a run against a loop that anybody could have written, step for step, and what an epoch depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from small_stage import cpu, make_stage, one_epoch
from torch.utils._python_dispatch import TorchDispatchMode

from longtail.config.schema import RunConfig
from longtail.config.stage import LossConfig, OptimizerConfig, StageConfig
from longtail.console import Interrupted, Reporter
from longtail.counts import ClassCounts
from longtail.data.loading.workers import Decoder, decode_all
from longtail.data.samplers import ShuffleSampler
from longtail.data.square import Square
from longtail.device import step_seed
from longtail.models.model import build_model
from longtail.training.launch import start_run
from longtail.training.loop import Callback, Meter, Progress, StageRun, train_epoch
from longtail.training.prepared_data import prepare_data
from longtail.training.split_evaluation import evaluate

FACTORS = [1.0, 1.0, 0.1, 0.01]  # of the learning rate, by epoch


# Few steps for the deep one: a difference in the last bit of a pixel grows about tenfold at each of its first steps.
@pytest.mark.parametrize(
    ("network", "epochs", "batch_size", "lr"), [("plain-cnn", 4, 32, 0.05), ("resnet20", 1, 256, 1e-3)]
)
def test_a_run_without_augmentation_is_the_plain_loop(
    small_config: Callable[..., RunConfig],
    quiet: Reporter,
    tmp_path: Path,
    network: str,
    epochs: int,
    batch_size: int,
    lr: float,
) -> None:
    """Pixels, order of images, learning rates, weight decay, momentum, the short last batch, batch norm, accuracy."""
    config = small_config(
        data={"augmentation": "none"},
        model={"name": network},
        stage1={
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": {"lr": lr, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": {"name": "multistep", "milestones": [2, 3], "factors": [0.1, 0.01]},
        },
    )
    accuracy = start_run(config, tmp_path / "run", quiet)["test"]["accuracy"]
    trained = load_file(tmp_path / "run" / "model.safetensors")
    plain, expected = plain_run(config)
    assert all(torch.allclose(trained[key], plain[key], rtol=1e-3, atol=1e-4) for key in plain)
    assert accuracy == pytest.approx(expected, abs=0.003)  # rounding may turn an undecided image or two


def plain_run(config: RunConfig) -> tuple[dict[str, torch.Tensor], float]:
    """Written from PyTorch's documentation; of ours it takes the pixels, the first weights and the order of images."""
    prepared = prepare_data(config.data)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.data.mean, config.data.std))
    images, labels = {}, {}
    for name in ("train", "test"):
        split = prepared.data.splits[name]
        images[name] = (decode_all(Decoder(split, Square(config.data.image_size))) / 255 - mean) / std
        labels[name] = torch.tensor(split.labels)
    torch.manual_seed(step_seed(config.training.seed, 0))
    model = build_model(config.model.name, prepared.counts.num_classes, in_size=config.data.image_size)
    order = ShuffleSampler(labels["train"], seed=step_seed(config.training.seed, 1, 2))
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, weight_decay=5e-4)
    for epoch, factor in enumerate(FACTORS[: config.stage1.epochs]):
        optimizer.param_groups[0]["lr"] = config.stage1.optimizer.lr * factor
        order.set_epoch(epoch)
        for rows in torch.tensor(list(order)).split(config.stage1.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(images["train"][rows]), labels["train"][rows]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        right = (model(images["test"]).argmax(1) == labels["test"]).float().mean().item()
    return model.state_dict(), right


def test_accumulation_gives_the_gradient_of_the_whole_batch() -> None:
    stage = StageConfig(epochs=1, batch_size=8, optimizer=OptimizerConfig(lr=0.01))
    whole, parts = one_epoch(stage, cpu()), one_epoch(stage, cpu(accumulation=3))
    assert all(torch.allclose(whole[key], parts[key], atol=1e-6) for key in whole)
    assert any(not torch.equal(whole[key], parts[key]) for key in whole)


def test_clipping_bounds_the_step() -> None:
    stage = StageConfig(epochs=1, batch_size=24, optimizer=OptimizerConfig(lr=1.0, momentum=0.0, weight_decay=0.0))
    torch.manual_seed(0)
    start = build_model("plain-cnn", 3, "linear").state_dict()
    moved = one_epoch(stage, cpu(clip_norm=0.01))
    step = torch.cat([(moved[key] - start[key]).flatten() for key in start]).norm()
    assert step.item() == pytest.approx(0.01, rel=1e-3)


def test_muon_turns_a_gradient_into_a_step_of_equal_singular_values() -> None:
    options = {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0}
    torch.manual_seed(0)
    start = build_model("plain-cnn", 3, "linear").state_dict()
    after = one_epoch(StageConfig(epochs=1, batch_size=24, optimizer=OptimizerConfig("muon", **options)), cpu())
    moved = {key: after[key] - start[key] for key in start}
    kernels = [values.flatten(1) for values in moved.values() if values.ndim == 4]
    for kernel in kernels:
        lengths = torch.linalg.svdvals(kernel)
        assert lengths.min() > 0.5 * lengths.max()
    biases = [values for values in moved.values() if values.ndim == 1]
    assert kernels
    assert all(values.abs().max().item() == pytest.approx(0.01, rel=0.01) for values in biases)  # as AdamW's first
    head = moved["head.weight"]
    assert torch.linalg.svdvals(head).min() < 0.5 * torch.linalg.svdvals(head).max()  # AdamW's, too


def test_what_muon_leaves_is_trained_by_sgd_at_its_own_rate() -> None:
    torch.manual_seed(0)
    start = build_model("plain-cnn", 3, "linear").state_dict()
    joint = OptimizerConfig("muon", lr=0.01, sgd_lr=0.2)
    plain = OptimizerConfig("sgd", lr=0.2)
    after, expected = (
        one_epoch(StageConfig(epochs=1, batch_size=24, optimizer=each), cpu()) for each in (joint, plain)
    )
    for key in start:
        assert torch.equal(after[key], expected[key]) is (start[key].ndim == 1 or key.startswith("head.")), key


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"channels_last": False}])
def test_options_of_speed_stay_near_the_plain_path(options: dict[str, Any]) -> None:
    stage = StageConfig(epochs=1, batch_size=8, optimizer=OptimizerConfig(lr=0.05))
    torch.manual_seed(0)
    start = build_model("plain-cnn", 3, "linear").state_dict()
    plain, other = one_epoch(stage, cpu()), one_epoch(stage, cpu(**options))
    moved = max((plain[key] - start[key]).abs().max().item() for key in plain)
    apart = max((plain[key] - other[key]).abs().max().item() for key in plain)
    assert apart < 0.3 * moved


@pytest.mark.parametrize("mixing", ["mixup", "cutmix", "remix", "cmo"])
def test_every_mixing_trains_and_repeats(mixing: Any) -> None:
    stage = StageConfig(epochs=1, batch_size=8, mixing=mixing, optimizer=OptimizerConfig(lr=0.01))
    first, second = one_epoch(stage, cpu()), one_epoch(stage, cpu())
    assert all(torch.equal(first[key], second[key]) for key in first)
    plain = one_epoch(StageConfig(epochs=1, batch_size=8, optimizer=OptimizerConfig(lr=0.01)), cpu())
    assert not torch.equal(first["head.weight"], plain["head.weight"])


def test_a_part_of_the_epochs_mixes_images_or_trains_on_smaller_ones() -> None:
    stage = StageConfig(epochs=4, batch_size=24, mixing="mixup", mixing_until=0.5, image_sizes=[8, 12, 16, 16])
    torch.manual_seed(0)
    model = build_model("plain-cnn", 3, "linear")
    run = make_stage(stage, cpu(), model)
    sides, mixed = list[int](), list[bool]()
    model.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))
    run.callbacks = [SeesTargets(mixed)]
    for epoch in range(4):
        train_epoch(run, epoch)
    assert sides == [8, 12, 16, 16]
    assert mixed == [True, True, False, False]


@dataclass
class SeesTargets(Callback):
    """Notes whether the targets of each batch are mixed."""

    mixed: list[bool]

    def on_logits(self, logits: torch.Tensor, target: torch.Tensor, share: float) -> None:
        del logits, share
        self.mixed.append(target.ndim == 2)


class StopAfterOneStep(Callback):
    def on_step_end(self, stage: StageRun, progress: Progress) -> None:
        raise Interrupted


def test_a_step_depends_on_nothing_but_seed_epoch_and_step() -> None:
    """Steps 2 and 3 of an epoch are the same whether steps 0 and 1 were made in this process or not."""
    stage = StageConfig(epochs=1, batch_size=8, mixing="mixup", loss=LossConfig("feature-noise"))
    torch.manual_seed(0)
    model = build_model("plain-cnn", 3, "linear")
    train_epoch(make_stage(stage, cpu(), model), 0)
    torch.manual_seed(0)
    again = build_model("plain-cnn", 3, "linear")
    parts = make_stage(stage, cpu(), again)
    parts.callbacks = [StopAfterOneStep()]
    with pytest.raises(Interrupted):
        train_epoch(parts, 0)
    parts.callbacks = []
    torch.rand(100)  # somebody else uses the global generator
    train_epoch(parts, 0, 1)
    assert torch.equal(model.head.weight, again.head.weight)


def test_losses_see_the_progress_of_the_stage() -> None:
    torch.manual_seed(0)
    stage = make_stage(StageConfig(epochs=4, batch_size=8), cpu(), build_model("plain-cnn", 3, "linear"))
    seen: list[float] = []

    class Note(Callback):
        def on_step_end(self, stage: StageRun, progress: Progress) -> None:
            seen.append(stage.loss.progress)

    stage.callbacks = [Note()]
    train_epoch(stage, 2)
    assert seen == pytest.approx([0.5, 0.5 + 1 / 12, 0.5 + 2 / 12])


class Looks(TorchDispatchMode):
    """Counts how often a number of a tensor is fetched by the host, for which it has to wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mixing", ["none", "mixup", "cutmix", "remix", "cmo"])
def test_a_step_and_an_evaluation_look_at_no_number_on_the_device(mixing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtail.evaluation.tallies.summarize", lambda *_: {})  # it looks, once all is done
    stage = StageConfig(epochs=1, batch_size=8, mixing=mixing)
    model = build_model("plain-cnn", 3, "linear")
    work = make_stage(stage, cpu(), model)
    counts = ClassCounts([8, 8, 8])
    with Looks() as looks:
        assert torch.zeros(1).item() == 0
        assert looks.count == 1
        train_epoch(work, 0)
        assert looks.count == 3, "whether there was a NaN, and how long was waited, at the end of the epoch"
        evaluate(
            work.engine,
            model,
            work.inputs,
            num_images=24,
            counts=counts,
            groups=counts.groups(),
            scores=lambda logits: logits,
            keep_predictions=True,
        )
    assert looks.count == 3


@pytest.mark.parametrize("device", ["cpu", "mps"])  # the sums of the second one are on the processor
def test_looking_at_the_sums_of_an_epoch(device: str) -> None:
    meter = Meter(torch.device(device))
    assert meter.mean_loss is None
    for step, loss in enumerate((1.0, 3.0, float("nan"))):
        meter.add(torch.tensor(loss), torch.tensor(1), 2, step)
        if step == 1:
            meter.look()
    assert meter.mean_loss == 2.0  # as of the look
    assert not meter.has_nan
    meter.look()
    assert meter.has_nan
    assert meter.sums[3].item() == 3  # the third step
