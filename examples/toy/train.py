"""The toy: a small network with two features on long-tailed digits, one loss after another, all else equal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from longtail.config.stage import ScheduleConfig
from longtail.console import Bar, Reporter
from longtail.counts import ClassCounts, IntArray
from longtail.data.dataset import ImageData, Split
from longtail.data.loading.loaders import Batch, split_rows
from longtail.data.samplers import EpochSampler
from longtail.data.sources.registry import load_source
from longtail.data.square import Square
from longtail.data.subsets import long_tailed_counts, ranks_within_class
from longtail.errors import UsageError, nearest
from longtail.losses import LongTailLoss, build_loss
from longtail.models import CosineHead, build_head
from longtail.training.engine import LocalEngine
from longtail.training.loop import Callback, Progress, StageRun, train_epoch
from toy.losses import CONTENDERS, Contender, find_contender, scale_for
from toy.plane import Plane

CLASSES = 6
"""More than this many colors and sectors cannot be told apart at a glance."""
SIDES: Mapping[str, int] = {"digits": 8, "mnist5k": 14}
"""The sources, and the side of their images in pixels."""
LEARNING_RATE = 0.005
BATCH = 32


@dataclass(frozen=True)
class ToyResult:
    """The planes of all losses, trained on the same images.

    Attributes:
        source: Source of the images.
        counts: Training images per class, the same for every seed.
        planes: One for each seed, by the name of the loss.
        titles: Names for people, by the name of the loss.
        epochs: Epochs per training run.
    """

    source: str
    counts: ClassCounts
    planes: Mapping[str, tuple[Plane, ...]]
    titles: Mapping[str, str]
    epochs: int


def train_toy(
    losses: Sequence[str] = tuple(CONTENDERS),
    *,
    source: str = "digits",
    seed: int = 0,
    seeds: int = 3,
    epochs: int = 60,
    imbalance_ratio: float = 50.0,
    reporter: Reporter | None = None,
) -> ToyResult:
    """Train a small network with two features with each loss, and return the features of the test images.

    Within a seed every loss has the same images, the same initial weights and the same batches.

    Args:
        losses: Names of losses; see :func:`toy.losses.find_contender`.
        source: ``digits``, or ``mnist5k`` where its package is there.
        seed: First seed; it sets the choice of images, the weights and the batches.
        seeds: Number of seeds.
        epochs: Epochs per training run.
        imbalance_ratio: Imbalance ratio of the training images.
        reporter: Shows progress.

    Raises:
        LongtailError: An unknown loss or source, a loss named twice, or a number that is too small.

    Example:
        >>> result = train_toy(["ce"], seeds=1, epochs=1, reporter=Reporter(quiet=True))
        >>> result.counts.counts, result.planes["ce"][0].features.shape
        ((142, 64, 29, 13, 6, 2), (216, 2))
    """
    _check(losses, source, seed, seeds, epochs)
    made = {name: find_contender(name) for name in losses}
    data = load_source(source)
    planes: dict[str, list[Plane]] = {name: [] for name in losses}
    shown = reporter or Reporter()
    # The caller's random numbers stay as they were.
    with torch.random.fork_rng(devices=[]), shown.bar("toy", len(losses) * seeds * epochs) as bar:
        for current in range(seed, seed + seeds):
            images, labels, counts = _training_images(data, SIDES[source], imbalance_ratio, current)
            tested = _tensors(data.splits["test"], SIDES[source], _rows(data.splits["test"]))
            for name, contender in made.items():
                network = ToyNetwork(SIDES[source], contender, counts, seed=current)
                _train(network, images, labels, epochs, current, bar, f"{contender.title}, seed {current}")
                planes[name].append(network.plane(*tested))
    titles = {name: contender.title for name, contender in made.items()}
    return ToyResult(source, counts, {name: tuple(each) for name, each in planes.items()}, titles, epochs)


def _check(losses: Sequence[str], source: str, seed: int, seeds: int, epochs: int) -> None:
    if source not in SIDES:
        raise UsageError(f"the toy is drawn on small digits, not on {source!r}.{nearest(source, SIDES)}")
    if not losses:
        raise UsageError("the toy needs a loss: give --losses ce,gcl, for example.")
    twice = next((name for name in losses if list(losses).count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice!r} is named twice: name each loss once.")
    for name, value, least in (("seed", seed, 0), ("seeds", seeds, 1), ("epochs", epochs, 1)):
        if value < least:
            raise UsageError(f"--{name} must be at least {least}, got {value}.")


class ToyNetwork(nn.Module):
    """Two convolutions, 64 hidden units, two features, and the classifier that the loss is made for.

    Args:
        side: Height and width of the images.
        contender: The loss.
        counts: Training images per class, length C.
        seed: Seed of the initial weights.
    """

    def __init__(self, side: int, contender: Contender, counts: ClassCounts, *, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        pooled = side // 2 // 2
        first = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        last = [nn.Flatten(), nn.Linear(16 * pooled**2, 64), nn.ReLU(), nn.Linear(64, 2)]
        self.body = nn.Sequential(*first, *second, *last)
        self.loss = _loss(contender, counts)
        self.head = build_head(contender.head or self.loss.head, 2, len(counts))
        weight = cast("nn.Parameter", self.head.weight)
        weight.data.copy_(around_circle(counts))

    def forward(self, images: Tensor, *, return_features: bool = True) -> tuple[Tensor, Tensor]:
        """Logits (N, C) and features (N, 2) of images (N, 1, H, W)."""
        del return_features
        features = self.body(images)
        return self.head(features), features

    @torch.no_grad()
    def plane(self, images: Tensor, labels: Tensor) -> Plane:
        """Return the features of images, with the classifier."""
        features = self.eval()(images)[1].double().numpy()
        weight = cast("Tensor", self.head.weight).double().numpy()
        bias = getattr(self.head, "bias", None)
        offset = np.zeros(len(weight)) if bias is None else bias.double().numpy()
        return Plane(features, labels.numpy(), weight, offset, isinstance(self.head, CosineHead))


def around_circle(counts: ClassCounts) -> Tensor:
    """Return the initial weights of every run: evenly around the circle, small classes between large ones.

    Features of two numbers cannot cross the region of another class once they are trained, so that random directions
    would decide the outcome. Shape (C, 2), length 1.

    Example:
        >>> around_circle(ClassCounts([9, 8, 2, 1])).round().abs().tolist()
        [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]
    """
    rank = np.argsort(np.argsort(-counts.array, kind="stable"), kind="stable")
    half = math.ceil(len(counts) / 2)
    position = np.where(rank < half, 2 * rank, 2 * (rank - half) + 1)
    angle = torch.tensor(2 * np.pi * position / len(counts), dtype=torch.float32)
    return torch.stack([angle.sin(), angle.cos()], dim=1)


def _loss(contender: Contender, counts: ClassCounts) -> LongTailLoss:
    options = dict(contender.options)
    if options.get("scale") == "auto":
        options["scale"] = round(scale_for(len(counts)), 1)
    return build_loss(contender.loss, counts, options)


class Shuffled(EpochSampler):
    """Each image once an epoch, in orders drawn one after the other from one generator."""

    def __init__(self, num_images: int, seed: int) -> None:
        super().__init__(num_images, num_samples=None, seed=seed, rank=0, world_size=1)
        self.generator = torch.Generator().manual_seed(seed)

    def _draw(self, random: np.random.Generator, progress: float) -> Iterator[IntArray]:
        del random, progress
        yield torch.randperm(len(self), generator=self.generator).numpy()


class GrayInputs:
    """Gray images, ready for the network and not augmented in training."""

    waited, large_batch = 0.0, BATCH

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def batches(self, rows: Tensor, batch_size: int) -> Iterator[Batch]:
        """Yield the images of ``rows`` in order, ``batch_size`` at a time."""
        for part in split_rows(rows, batch_size):
            yield Batch(self.images[part], self.labels[part], part)

    def augment(self, batch: Batch, generator: torch.Generator, *, rank: int = 0, world_size: int = 1) -> Tensor:
        """Return the images."""
        del generator, rank, world_size
        return batch.images

    def normalize(self, batch: Batch) -> Tensor:
        """Return the images."""
        return batch.images


class WholeEpochs(Callback):
    """Update the progress of the loss at the start of each epoch only."""

    def on_step_begin(self, stage: StageRun, progress: Progress) -> None:
        """Set the progress that the epoch began with."""
        stage.loss.progress = progress.epoch / stage.epochs


def _train(network: ToyNetwork, images: Tensor, labels: Tensor, epochs: int, seed: int, bar: Bar, note: str) -> None:
    torch.manual_seed(seed)  # the noise of the losses
    stage = StageRun(
        engine=LocalEngine(torch.device("cpu")),
        model=network,
        network=network,
        loss=network.loss,
        criterion=network.loss,
        optimizer=torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, weight_decay=5e-4),
        inputs=GrayInputs(images, labels),
        sampler=Shuffled(len(labels), seed),
        batch_size=BATCH,
        epochs=epochs,
        learning_rate=partial(ScheduleConfig("cosine").learning_rate, LEARNING_RATE, epochs=epochs),
        seed=(seed,),
        callbacks=[WholeEpochs()],
    )
    for epoch in range(epochs):
        train_epoch(stage, epoch)
        bar.update(bar.done + 1, note)


def _training_images(data: ImageData, side: int, ratio: float, seed: int) -> tuple[Tensor, Tensor, ClassCounts]:
    split = data.splits["train"]
    rows = _rows(split)
    labels = split.labels[rows]
    available = ClassCounts.from_labels(labels, CLASSES).array.min()  # nearly balanced: the first digit is the largest
    keep = np.array(long_tailed_counts([available] * CLASSES, ratio))
    rows = rows[ranks_within_class(labels, seed=seed) < keep[labels]]
    images, labels = _tensors(split, side, rows)
    return images, labels, ClassCounts(keep, data.classes[:CLASSES])


def _rows(split: Split) -> IntArray:
    return np.flatnonzero(split.labels < CLASSES)


def _tensors(split: Split, side: int, rows: IntArray) -> tuple[Tensor, Tensor]:
    """Gray images (N, 1, H, W) with mean about 0 and deviation about 1, and their labels (N,)."""
    pixels = np.stack([split.pixels(int(row), Square(side))[..., 0] for row in rows])
    images = torch.from_numpy(pixels)[:, None].float().div(255)
    return (images - 0.3) / 0.35, torch.from_numpy(split.labels[rows])
