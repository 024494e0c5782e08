"""Predictor: a trained run in Python, from images of any kind to labels and calibrated probabilities."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from longtail.errors import LongtailError, UsageError
from longtail.models import LongTailModel
from longtail.predict.hub import local_run
from longtail.predict.images import Item, Loaded, as_items, read_batches
from longtail.predict.priors import read_prior, with_prior
from longtail.run.model_files import load_run
from longtail.run.model_info import ModelInfo

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        name: The path, or ``image 0`` for the first of several images without one.
        label: The likeliest class; None where the image could not be read.
        confidence: Its probability, in [0, 1].
        top: The likeliest classes and their probabilities, likeliest first.
        sure: Whether the confidence reaches the run's threshold; None where it has none.
        problem: Why the image could not be read, or empty.
    """

    name: str
    label: str | None = None
    confidence: float = 0.0
    top: tuple[tuple[str, float], ...] = ()
    sure: bool | None = None
    problem: str = ""


class Predictor:
    """A model in evaluation mode, with all that turns an image into probabilities; made by :func:`load`.

    Its parameters no longer require gradients.

    Args:
        model: The network, on the device where it will run.
        info: Its information: classes, preprocessing, scale or adjustment, threshold.
    """

    def __init__(self, model: LongTailModel, info: ModelInfo) -> None:
        self.model = model.eval().requires_grad_(False)
        self.info = info

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str],
        *,
        device: torch.device | str = "cpu",
        prior: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Self:
        """Read a run; see :func:`load`. ``say`` is called with the classes that a prior file leaves out."""
        model, info = load_run(local_run(run), device=device)
        return cls(model, info if prior is None else with_prior(info, read_prior(prior, info, say)))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the columns of :meth:`probabilities`."""
        return self.info.classes

    def predict(
        self, images: object, *, top_k: int = 5, batch_size: int = 64, workers: int | None = None
    ) -> list[Prediction]:
        """Classify images and return one prediction for each, also for those that could not be read.

        Args:
            images: A folder, file, pattern or table, as :func:`longtail.predict.images.find_images` takes it; a
                Pillow image; a uint8 array (H, W), (H, W, 3) or (N, H, W, 3), RGB; or an iterable of paths, Pillow
                images and arrays.
            top_k: How many classes to name per image.
            batch_size: Images per forward pass.
            workers: Threads that decode; by default as many as there are cores.

        Raises:
            LongtailError: Nothing of that name, or no image in it.
        """
        return list(self.stream(as_items(images), top_k=top_k, batch_size=batch_size, workers=workers))

    def probabilities(self, images: object, *, batch_size: int = 64, workers: int | None = None) -> FloatArray:
        """Return the probabilities of all classes, float32 (N, C), for images as in :meth:`predict`.

        Raises:
            LongtailError: As there, or an image that cannot be read.
        """
        parts = [np.empty((0, len(self.classes)), dtype=np.float32)]
        for batch, values in self._batches(as_items(images), batch_size, workers):
            for one in batch:
                if one.pixels is None:
                    raise LongtailError(one.problem)
            parts.append(values)
        return np.concatenate(parts)

    def stream(
        self, items: Iterable[Item], *, top_k: int = 5, batch_size: int = 64, workers: int | None = None
    ) -> Iterator[Prediction]:
        """Yield predictions while images are read, in constant memory; arguments as for :meth:`predict`."""
        if top_k < 1 or batch_size < 1:
            raise UsageError(f"top_k and batch_size must be at least 1; they are {top_k} and {batch_size}.")
        for batch, values in self._batches(items, batch_size, workers):
            rows = iter(values)
            for one in batch:
                unread = one.pixels is None
                yield Prediction(one.name, problem=one.problem) if unread else self._said(one.name, next(rows), top_k)

    def _batches(
        self, items: Iterable[Item], batch_size: int, workers: int | None
    ) -> Iterator[tuple[list[Loaded], FloatArray]]:
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}.")
        for batch in read_batches(items, self.info.preprocessing, batch_size=batch_size, workers=workers):
            yield batch, self._forward([one.pixels for one in batch if one.pixels is not None])

    @torch.inference_mode()
    def _forward(self, squares: list[npt.NDArray[np.uint8]]) -> FloatArray:
        if not squares:
            return np.empty((0, len(self.classes)), dtype=np.float32)
        images = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).to(next(self.model.parameters()).device)
        result: FloatArray = probabilities(self.model, self.info, images).cpu().numpy()
        return result

    def _said(self, name: str, values: FloatArray, top_k: int) -> Prediction:
        best = np.argsort(-values, kind="stable")[:top_k]
        top = tuple((self.classes[index], float(values[index])) for index in best)
        label, confidence = top[0]
        threshold = self.info.threshold
        return Prediction(name, label, confidence, top, None if threshold is None else confidence >= threshold)


def load(run: str | os.PathLike[str], *, device: torch.device | str = "cpu", prior: str | None = None) -> Predictor:
    """Read a trained run, ready to classify images; also as ``longtail.load``.

    Args:
        run: The RUN folder of ``longtail train``, or ``hf:OWNER/NAME`` for one that ``longtail push`` has uploaded.
        device: Where the network runs.
        prior: The mix of classes to expect: ``uniform``, ``train``, or a file of shares; None leaves the run's own.

    Raises:
        LongtailError: No such run, one that has not finished, or damaged files.

    Example:
        >>> load("nowhere")
        Traceback (most recent call last):
        ...
        longtail.errors.LongtailError: There is no run 'nowhere': name the folder that `longtail train` wrote.
    """
    return Predictor.load(run, device=device, prior=prior)


def probabilities(model: LongTailModel, info: ModelInfo, images: torch.Tensor) -> torch.Tensor:
    """Return class probabilities, float32 (N, C), for uint8 images of shape (N, 3, size, size) on the model's device.

    Args:
        model: A model in evaluation mode.
        info: Its information: normalisation and what is done to its logits.
        images: Images brought to the network's size.
    """
    return torch.softmax(info.scores(model(info.preprocessing.normalise(images))), dim=1)
