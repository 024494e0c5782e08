"""Cost of recording the gradients: the same training steps with it and without, in turns; and the recording alone.

python benchmarks/dynamics.py --json docs/performance/dynamics.json
"""

from __future__ import annotations

import argparse

import torch
from common import Row, best_device, medians_of, parser, row, rows_to_json, show
from torch.nn import functional

from longtail import ClassCounts
from longtail.config.schema import TrainingConfig
from longtail.config.stage import LossConfig, OptimizerConfig, StageConfig
from longtail.data.loading.loaders import ResidentLoader
from longtail.data.transforms.augmentation import BatchTransform
from longtail.losses import CrossEntropyLoss
from longtail.models import build_model
from longtail.training.engine import Engine
from longtail.training.forward_pass import ImageInputs
from longtail.training.gradient_recorder import GradientRecorder
from longtail.training.loop import Callback, train_epoch
from longtail.training.stages import build_stage

SHAPES = ((128, 100), (512, 8142))
CLASSES = 100


def main() -> None:
    """Measure whole steps with and without recording, then the recording of logits of two shapes."""
    options = parser(__doc__ or "")
    options.add_argument("--steps", type=int, default=4, metavar="N", help="training steps in each turn")
    options.add_argument("--model", default="resnet32", help="the network of the whole steps")
    flags = options.parse_args()
    rows = [whole_step(flags, loss) for loss in ("cross-entropy", "gcl")]
    rows += [alone(flags, shape) for shape in SHAPES]
    show(rows)
    rows_to_json(flags.json, rows)


def whole_step(flags: argparse.Namespace, loss: str) -> Row:
    """A training step that records against the same step that does not."""
    engine = Engine(TrainingConfig(precision="auto"))
    count = 128 * flags.steps
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(count) % CLASSES
    torch.manual_seed(0)
    model = build_model(flags.model, CLASSES, "cosine" if loss == "gcl" else "linear").to(engine.device)
    model.to(memory_format=torch.channels_last)
    stage = StageConfig(epochs=1, batch_size=128, loss=LossConfig(loss), optimizer=OptimizerConfig(lr=0.01))
    work = build_stage(
        engine,
        stage,
        1,
        model=model,
        counts=ClassCounts.from_labels(labels.numpy(), CLASSES),
        inputs=ImageInputs(
            ResidentLoader(pixels, labels, engine.device),
            BatchTransform((0.5,) * 3, (0.25,) * 3, augmentation="crop-flip"),
        ),
    )
    recorder = GradientRecorder(work.loss, engine.device, scaler=engine.accelerator.scaler)

    def turn(callbacks: list[Callback]) -> None:
        work.callbacks = callbacks
        train_epoch(work, 0)
        recorder.start()

    seconds = medians_of({"ours": lambda: turn([recorder]), "other": lambda: turn([])}, flags.repeats, warmup=2)
    with_it, without = (seconds[side] * 1e3 / flags.steps for side in ("ours", "other"))
    name = f"recorded training step, {flags.model}, batch 128: {loss}"
    return row(name, with_it, without, "ms", higher_is_better=False)


def alone(flags: argparse.Namespace, shape: tuple[int, int]) -> Row:
    """Time that recording adds to a cross-entropy, forward and backward, against the cross-entropy."""
    device = best_device()
    logits = torch.randn(shape, device=device, requires_grad=True)
    target = torch.randint(shape[1], shape[:1], device=device)
    recorder = GradientRecorder(CrossEntropyLoss([1] * shape[1]), device)

    def step(*, recorded: bool) -> None:
        scores = logits * 1.0  # a tensor of its own, as a network gives it
        if recorded:
            recorder.on_logits(scores, target)
        functional.cross_entropy(scores, target).backward()  # type: ignore[no-untyped-call]
        logits.grad = None

    seconds = medians_of({"with": lambda: step(recorded=True), "other": lambda: step(recorded=False)}, flags.repeats)
    added = (seconds["with"] - seconds["other"]) * 1e3
    name = f"recording alone, {shape[0]} x {shape[1]}, against a cross-entropy"
    return row(name, added, seconds["other"] * 1e3, "ms", higher_is_better=False)


if __name__ == "__main__":
    main()
