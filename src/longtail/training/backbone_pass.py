"""One pass of images through a frozen backbone, for one or several augmented views of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtail.data.loading.loaders import split_rows
from longtail.data.loading.workers import read_ahead
from longtail.data.transforms.augmentation import BatchTransform
from longtail.device import default_workers, forward_batch, step_seed
from longtail.models.model import LongTailModel
from longtail.models.resnet_cifar import fold_batch_norms
from longtail.training.engine import LocalEngine
from longtail.training.forward_pass import ImageInputs, largest_batch

FloatArray = npt.NDArray[np.float32]

BATCH = 256  # not the largest that fits: draws without hashes follow the batches, and must not depend on memory
SMALL_BATCH, PART = 64, 8  # images that are decoded, and augmented, at a time where draws do not follow the batches


@dataclass(frozen=True)
class Views:
    """Augmented views of images, with draws that follow from each image, or from the batch and its number.

    Attributes:
        transform: The augmentation.
        seeds: Seed words of each view.
        image_seeds: A number of each image by its row; empty where the draws are those of a batch.
        rank: Index of this process.
        world_size: Number of processes.
        batch: Images of this process that are drawn for together, where draws are those of a batch.
    """

    transform: BatchTransform
    seeds: Sequence[tuple[int, ...]]
    image_seeds: Sequence[int] = ()
    rank: int = 0
    world_size: int = 1
    batch: int = BATCH

    @property
    def follow_batches(self) -> bool:
        """Whether the draws are those of a batch."""
        return self.transform.is_random and not self.image_seeds

    def of_batch(self, images: Tensor, view: int, step: int) -> Tensor:
        """Augment a batch with draws that all processes share: those of single images take eight times as long."""
        shared = torch.Generator().manual_seed(step_seed(*self.seeds[view], step))
        return self.transform.change(images, shared, rank=self.rank, world_size=self.world_size)

    def of_each(self, images: Tensor, rows: Tensor, view: int) -> Tensor:
        """Augment each image with draws of its own."""
        if not self.transform.is_random:
            return images
        draws = [step_seed(*self.seeds[view], self.image_seeds[row]) for row in rows.tolist()]
        each = zip(torch.split(images, 1), draws, strict=True)
        return torch.cat([self.transform.change(image, torch.Generator().manual_seed(draw)) for image, draw in each])


class Part(NamedTuple):
    """Images of a batch that are augmented together.

    Attributes:
        view: Number of the view.
        step: Number of the batch.
        images: uint8 (N, 3, S, S).
        rows: int64 (N,), the row of each image in its split.
        out: float32 (N, D), to be filled with their features.
    """

    view: int
    step: int
    images: Tensor
    rows: Tensor
    out: FloatArray


def backbone_pass(
    engine: LocalEngine,
    model: LongTailModel,
    inputs: ImageInputs,
    rows: Tensor,
    image_seeds: Sequence[int] = (),
    seeds: Sequence[tuple[int, ...]] = ((0,),),
    tick: Callable[[], object] = lambda: None,
) -> list[Tensor]:
    """Compute the features (N, D) of some rows for each seed; each process computes those of every R-th image.

    Not by :func:`~longtail.training.forward_pass.forward_pass`: draws follow the batches, which have :data:`BATCH`
    images whatever fits the memory, and a batch is decoded once and passed through the backbone alone for every view.
    """
    # Every process needs as many rows as the others to exchange them; those beyond the end repeat the first ones.
    count = len(rows)
    padded = rows[torch.arange(-(-count // engine.world_size) * engine.world_size) % count]
    ours = padded[engine.rank :: engine.world_size]
    features = torch.empty(len(seeds), len(ours), model.num_features, device=engine.device)
    batch = max(1, BATCH // engine.world_size) if engine.is_exact else BATCH
    views = Views(inputs.transform, seeds, image_seeds, engine.rank, engine.world_size, batch)
    with engine.inference(model):
        if model.takes_pixels:
            backbone: Any = model.backbone
            backbone.stream(_stream(inputs, ours, views, features, tick))
        else:
            _pass_batches(engine, model, inputs, ours, views, features, tick)
    return [engine.interleave(part)[:count] for part in features]


def _stream(
    inputs: ImageInputs, rows: Tensor, views: Views, features: Tensor, tick: Callable[[], object]
) -> Iterator[tuple[Tensor, FloatArray]]:
    """Yield augmented images in parts, with their rows of the features (V, N, D); threads augment ahead."""
    filled, size = features.numpy(), views.batch if views.follow_batches else SMALL_BATCH

    def parts() -> Iterator[Part]:
        place = 0
        for step, batch in enumerate(inputs.batches(rows, size)):
            end = place + len(batch.rows)
            for view in range(len(views.seeds)):
                length = len(batch.rows) if views.follow_batches else PART
                images, numbers = (torch.split(values, length) for values in (batch.images, batch.rows))
                outs = np.split(filled[view, place:end], range(length, end - place, length))
                yield from (Part(view, step, *part) for part in zip(images, numbers, outs, strict=True))
                if end == len(rows) or end // views.batch > place // views.batch:
                    tick()
            place = end

    def augmented(part: Part) -> tuple[Tensor, FloatArray]:
        if views.follow_batches:
            return views.of_batch(part.images, part.view, part.step), part.out
        return views.of_each(part.images, part.rows, part.view), part.out

    if not views.transform.is_random:
        return map(augmented, parts())
    threads = default_workers()
    return read_ahead(augmented, parts(), threads=threads, ahead=2 * threads)


def _pass_batches(
    engine: LocalEngine,
    model: LongTailModel,
    inputs: ImageInputs,
    rows: Tensor,
    views: Views,
    features: Tensor,
    tick: Callable[[], object],
) -> None:
    """Fill the features (V, N, D) by PyTorch, as many images at a time as fit the memory."""
    backbone: Any = fold_batch_norms(model.backbone)
    targets = split_rows(torch.arange(len(rows)), views.batch)
    size = 0

    def through(images: Tensor, at_once: int) -> Tensor:
        nonlocal size
        parts = [
            backbone(engine.to_memory_format(inputs.transform.normalize(part))).float()
            for part in split_rows(images, at_once)
        ]
        size = at_once  # it fits: the next images begin here
        return torch.cat(parts)

    for step, (batch, target) in enumerate(zip(inputs.batches(rows, views.batch), targets, strict=True)):
        for view in range(len(views.seeds)):
            if views.follow_batches:
                images = views.of_batch(batch.images, view, step)
            else:
                images = views.of_each(batch.images, batch.rows, view)
            size = size or forward_batch(engine.device, images.shape[-1])
            features[view, target] = largest_batch(partial(through, images), size)
            tick()
