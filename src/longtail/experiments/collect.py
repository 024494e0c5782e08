"""One pass over images for the analysis: what a model says of each, its features, and its classifier as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from longtail.analysis.norms import is_cosine
from longtail.data.loading.loaders import Loader
from longtail.data.transforms.augmentation import Normalise
from longtail.models.heads import ScaledHead
from longtail.models.model import LongTailModel
from longtail.training.engine import Engine
from longtail.training.evaluate import largest_batch

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """What a model makes of the images of a split.

    Attributes:
        columns: By name, shape (N,): label, prediction, confidence, probability_true, margin and feature_norm.
        features: Shape (N, D).
    """

    columns: dict[str, npt.NDArray[Any]]
    features: Features

    @property
    def label(self) -> npt.NDArray[np.int64]:
        """Class indices, (N,)."""
        return self.columns["label"].astype(np.int64)

    def rows(self, rows: npt.NDArray[np.int64]) -> Seen:
        """Select images by row."""
        return Seen({name: values[rows] for name, values in self.columns.items()}, self.features[rows])


@dataclass(frozen=True)
class HeadArrays:
    """A head as arrays.

    Attributes:
        weight: Shape (C, D), times the learned scale of each class where there are any.
        bias: Shape (C,), likewise; None where the head has none.
        is_cosine: Whether it sees nothing of a feature but its direction.
    """

    weight: Features
    bias: Features | None
    is_cosine: bool

    @classmethod
    def of(cls, model: LongTailModel) -> HeadArrays:
        """Read the head of a model."""
        head: Any = model.head
        scales = head.scale_logits if isinstance(head, ScaledHead) else torch.ones(model.num_classes)
        inner: Any = head.head if isinstance(head, ScaledHead) else head
        bias: nn.Parameter | None = getattr(inner, "bias", None)
        scales = scales.detach().cpu().float()
        weight = inner.weight.detach().cpu().float() * scales[:, None]
        scaled = None if bias is None else (bias.detach().cpu().float() * scales).numpy()
        return cls(weight.numpy(), scaled, is_cosine(model.head_name))

    def sees(self, features: Features) -> Features:
        """Features (N, D) as it compares them: a cosine head without their length, which moves no decision of it."""
        if not self.is_cosine:
            return features
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        return np.asarray(features / np.where(norms > 0, norms, 1), dtype=np.float32)


def see(
    engine: Engine, model: LongTailModel, loader: Loader, transform: Normalise, *, num_images: int,
    scores: Callable[[Tensor], Tensor], done: Callable[[int], object] = lambda _: None,
) -> Seen:  # fmt: skip
    """Pass every image of a split through a model once, in order; each process sees all of them.

    Args:
        engine: Device and precision.
        model: The network, on the device.
        loader: Batches of uint8 images of the split.
        transform: Normalisation.
        num_images: Rows of the split, N.
        scores: Turns logits (N, C) into what softmax makes probabilities of.
        done: Called with the number of images that are through.
    """

    def measure(batch_size: int) -> list[dict[str, Tensor]]:
        kept = []
        with engine.inference(model):
            for batch in loader.batches(torch.arange(num_images), batch_size):
                images = engine.laid_out(transform.normalize(batch.images))
                logits, features = model(images, return_features=True)
                kept.append(_columns(scores(logits.float()), batch.labels, features.float()))
                done(int(batch.rows[-1]) + 1)
        return kept

    kept = largest_batch(measure, engine.config.evaluation_batch or loader.large_batch)
    columns = {name: torch.cat([part[name] for part in kept]).numpy() for name in kept[0]}
    return Seen(columns, columns.pop("features"))


def _columns(scores: Tensor, labels: Tensor, features: Tensor) -> dict[str, Tensor]:
    own = labels[:, None]
    probabilities = scores.softmax(dim=1)
    top = probabilities.max(dim=1)
    other = scores.scatter(1, own, -torch.inf).amax(dim=1)
    found = {
        "label": labels.int(), "prediction": top.indices.int(), "confidence": top.values,
        "probability_true": probabilities.gather(1, own)[:, 0], "margin": scores.gather(1, own)[:, 0] - other,
        "feature_norm": torch.linalg.vector_norm(features, dim=1), "features": features,
    }  # fmt: skip
    return {name: value.cpu() for name, value in found.items()}
