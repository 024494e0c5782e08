"""Predictor: a trained run in Python, from images of any kind to labels and calibrated probabilities."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from longtail.config.options import EngineName
from longtail.data.decode import is_unread_path
from longtail.data.loading.workers import read_ahead
from longtail.data.square import square_of
from longtail.device import cores
from longtail.errors import LongtailError, UsageError
from longtail.models import LongTailModel
from longtail.models.inference_engine import check_engine, compile_backbone, is_worthwhile
from longtail.models.preprocessing import Preprocessing
from longtail.predict.hub import local_run
from longtail.predict.images import Item, as_items, batch_items, escaped
from longtail.predict.target_prior import read_prior, with_prior
from longtail.remote import TRIES, is_url, read_url
from longtail.run.model_files import ModelInfo, load_run

FloatArray = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
NUMBERS = ("confidence", "probability_")
"""Starts of the names of columns that hold numbers; the others hold text."""


def read_item(item: Item, preprocessing: Preprocessing) -> Item:
    """Decode an image to the square that the network takes, uint8 (size, size, 3), its new ``source``.

    An image that cannot be read comes back with its ``problem`` instead.

    Example:
        >>> square = Preprocessing(size=2, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> read_item(Item("gray", np.full((4, 6), 9, np.uint8)), square).source.shape
        (2, 2, 3)
        >>> read_item(Item("a.png", b"no image"), square).problem
        "'a.png' is not an image that can be read: remove or re-export it."
    """
    if item.problem:
        return item
    is_remote = isinstance(item.source, str) and is_url(item.source) and not is_unread_path(item.name)
    problem = ""
    for _ in range(TRIES if is_remote else 1):  # what is fetched may have been cut off
        try:
            source = read_url(str(item.source)) if is_remote else item.source
        except LongtailError as error:
            return item._replace(problem=str(error))
        try:
            return item._replace(source=square_of(source, preprocessing.square, item.name))
        except LongtailError as error:
            problem = str(error)
    return item._replace(problem=problem)


def read_batches(
    items: Iterable[Item], preprocessing: Preprocessing, *, batch_size: int, workers: int | None = None
) -> Iterator[list[Item]]:
    """Decode images in threads and yield them in order, ``batch_size`` at a time; two batches are read ahead.

    Each is an item as :func:`read_item` returns it.

    Args:
        items: The images.
        preprocessing: The size and interpolation of the network's input.
        batch_size: Images in a batch; the last one may be shorter.
        workers: Threads; by default as many as there are cores.
    """
    read = partial(read_item, preprocessing=preprocessing)
    images = read_ahead(read, items, threads=workers or cores(), ahead=2 * batch_size)
    while batch := list(islice(images, batch_size)):
        yield batch


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

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


def column_names(top_k: int, *, with_sure: bool) -> list[str]:
    """Return the columns of a table of predictions.

    Example:
        >>> column_names(1, with_sure=False)
        ['path', 'prediction', 'confidence', 'label_1', 'probability_1']
    """
    ranked = [f"{name}_{rank}" for rank in range(1, top_k + 1) for name in ("label", "probability")]
    return ["path", "prediction", "confidence", *(["sure"] if with_sure else []), *ranked]


def as_columns(predictions: Sequence[Prediction], columns: Sequence[str]) -> dict[str, list[Any]]:
    """Lay predictions out by column, and the problem of each; probabilities have six decimals.

    An image that could not be read has a problem and None everywhere else, any other None as its problem.

    Example:
        >>> rows = [Prediction("a.png", "cat", 0.9, (("cat", 0.9),)), Prediction("b.png", problem="is no image.")]
        >>> as_columns(rows, ["path", "probability_1"])
        {'path': ['a.png', 'b.png'], 'probability_1': [0.9, None], 'problem': [None, 'is no image.']}
    """
    values: dict[str, list[Any]] = {
        "path": [row.name for row in predictions],
        "prediction": [row.label for row in predictions],
        "confidence": [None if row.label is None else round(row.confidence, 6) for row in predictions],
        "sure": [None if row.sure is None else "yes" if row.sure else "no" for row in predictions],
    }
    for rank in range(1, sum(name.startswith("probability_") for name in columns) + 1):
        top = [row.top[rank - 1] if row.top else (None, None) for row in predictions]
        values[f"label_{rank}"] = [label for label, _ in top]
        values[f"probability_{rank}"] = [None if value is None else round(value, 6) for _, value in top]
    return {name: values[name] for name in columns} | {"problem": [escaped(row.problem) or None for row in predictions]}


class Predictor:
    """A trained run with its preprocessing and adjustment, in evaluation mode; also made by :func:`load`.

    Its parameters no longer require gradients. It is a callable class on batches, as ``map_batches`` of Ray Data takes
    one: see :meth:`__call__`.

    Args:
        run: The RUN folder of ``longtail train``, or ``hf:OWNER/NAME`` for one that ``longtail push`` has uploaded.
        device: Device of the network.
        prior: The class prior to expect: ``uniform``, ``train``, or a file of shares; None leaves the run's own.
        engine: What runs the network; ``auto`` takes OpenVINO on a CPU, if it is installed, for images of
            :data:`~longtail.models.inference_engine.WORTHWHILE` pixels: once as many are expected, or were given to it.
        say: Called with one sentence on the classes that a file of shares leaves out, or on what runs the network,
            unless it is PyTorch as asked for.
        top_k: Classes to name per image of a batch that it is called with.
        batch_size: Images of such a batch per forward pass.
        workers: Threads that decode them; by default as many as there are cores.

    Raises:
        LongtailError: No such run, one that has not finished, or damaged files; or the engine is not installed.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        *,
        device: torch.device | str = "cpu",
        prior: str | None = None,
        engine: EngineName = "auto",
        say: Callable[[str], object] | None = None,
        top_k: int = 5,
        batch_size: int = 64,
        workers: int | None = None,
    ) -> None:
        model, info = load_run(local_run(run), device=device)
        check_engine(engine, next(model.parameters()).device)
        if prior is not None:
            info = with_prior(info, read_prior(prior, info, say))
        self._prepare(model, info, engine, say)
        _check_sizes(top_k, batch_size)
        self._top_k, self._batch_size, self._workers = top_k, batch_size, workers

    @classmethod
    def of(
        cls,
        model: LongTailModel,
        info: ModelInfo,
        *,
        engine: EngineName = "torch",
        say: Callable[[str], object] | None = None,
    ) -> Self:
        """Return a predictor of a network in memory.

        Args:
            model: The network, on the device where it will run.
            info: Its information: classes, preprocessing, scale or adjustment, threshold.
            engine: What runs the network.
            say: As for the class.
        """
        predictor = cls.__new__(cls)
        predictor._prepare(model, info, engine, say)
        return predictor

    def _prepare(
        self, model: LongTailModel, info: ModelInfo, engine: EngineName, say: Callable[[str], object] | None
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.info = info
        self._engine: EngineName = engine
        self._say = say or (lambda _: None)
        self._is_settled = False  # whether the engine is chosen for good
        self._count = 0  # images given to the network, or expected
        self._top_k, self._batch_size, self._workers = 5, 64, None

    def __call__(self, batch: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Classify a batch of rows, as ``ray.data.Dataset.map_batches`` gives it: arrays of N entries by column.

        Args:
            batch: A column ``image`` (uint8 arrays (H, W, 3) or (H, W), encoded bytes, or Pillow images), ``bytes``
                (encoded) or ``path``; the first of these that is there is read. Others may be anything.

        Returns:
            The other columns, and ``path``, as they were; then ``prediction``, ``confidence``, ``sure`` if the run has
            a threshold, ``label_1``, ``probability_1``, and so on, and ``problem``: None, or why the image could not be
            read. Then its labels are None and its numbers NaN.

        Raises:
            UsageError: No column of images.
        """
        items = batch_items(batch)
        names = column_names(min(self._top_k, len(self.classes)), with_sure=self.info.threshold is not None)
        options: Any = {"top_k": self._top_k, "batch_size": self._batch_size, "workers": self._workers}
        columns = as_columns(list(self.stream(items, **options)), names)
        del columns["path"]
        kept = {name: values for name, values in batch.items() if name not in {"image", "bytes"}}
        arrays = {
            name: np.array(values, dtype=np.float64 if name.startswith(NUMBERS) else object)
            for name, values in columns.items()
        }
        return kept | arrays

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
            top_k: Number of classes to name per image.
            batch_size: Images per forward pass.
            workers: Threads that decode; by default as many as there are cores.

        Raises:
            LongtailError: Nothing of that name, or no image in it.
        """
        total = _length(images)
        return list(self.stream(as_items(images), top_k=top_k, batch_size=batch_size, workers=workers, total=total))

    def probabilities(self, images: object, *, batch_size: int = 64, workers: int | None = None) -> FloatArray:
        """Return the probabilities of all classes, float32 (N, C), for images as in :meth:`predict`.

        Raises:
            LongtailError: As there, or an image that cannot be read.
        """
        parts = [np.empty((0, len(self.classes)), dtype=np.float32)]
        for batch, values in self._batches(as_items(images), batch_size, workers, _length(images)):
            for image in batch:
                if image.problem:
                    raise LongtailError(image.problem)
            parts.append(values)
        return np.concatenate(parts)

    def stream(
        self,
        items: Iterable[Item],
        *,
        top_k: int = 5,
        batch_size: int = 64,
        workers: int | None = None,
        total: int = 0,
    ) -> Iterator[Prediction]:
        """Yield predictions while images are read, in constant memory.

        Args:
            items: The images.
            top_k: As for :meth:`predict`.
            batch_size: As for :meth:`predict`.
            workers: As for :meth:`predict`.
            total: Number of images, if it is known: what runs the network is chosen by it.
        """
        _check_sizes(top_k, batch_size)
        for batch, values in self._batches(items, batch_size, workers, total):
            rows = iter(values)
            for image in batch:
                if image.problem:
                    yield Prediction(image.name, problem=image.problem)
                    continue
                row, threshold = next(rows), self.info.threshold
                best = np.argsort(-row, kind="stable")[:top_k]
                top = tuple((self.classes[index], float(row[index])) for index in best)
                label, confidence = top[0]
                sure = None if threshold is None else confidence >= threshold
                yield Prediction(image.name, label, confidence, top, sure)

    def _batches(
        self, items: Iterable[Item], batch_size: int, workers: int | None, total: int
    ) -> Iterator[tuple[list[Item], FloatArray]]:
        """Yield batches of images with the probabilities (N, C) of those that could be read."""
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}.")
        expected = self._count + total
        batches = read_batches(items, self.info.preprocessing, batch_size=batch_size, workers=workers)

        def prepared() -> Iterator[tuple[LongTailModel, list[Item]]]:
            for batch in batches:
                self._count += sum(not image.problem for image in batch)
                self._choose_engine(max(expected, self._count))
                yield self.model, batch

        def classified(work: tuple[LongTailModel, list[Item]]) -> tuple[list[Item], FloatArray]:
            model, batch = work
            pixels = [np.asarray(image.source) for image in batch if not image.problem]
            empty = np.empty((0, len(self.classes)), np.float32)
            return batch, self._classify(model, np.stack(pixels)) if pixels else empty

        work = prepared()
        for model, batch in work:
            if model.takes_pixels:  # of two batches at a time, so that no core waits at the end of one
                yield from read_ahead(classified, chain([(model, batch)], work), threads=2, ahead=2)
            else:
                yield classified((model, batch))

    def _choose_engine(self, images: int) -> None:
        """Compile the network, unless it is compiled or cannot be, if that is worthwhile for a number of images."""
        if self._is_settled:
            return
        look = self.info.preprocessing
        self.model = compile_backbone(self.model, look, images=images, engine=self._engine, say=self._say)
        self._is_settled = self._engine != "auto" or is_worthwhile(images, look.size)

    @torch.inference_mode()
    def _classify(self, model: LongTailModel, pixels: Pixels) -> FloatArray:
        """Return probabilities (N, C) for pixels (N, size, size, 3)."""
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(next(model.parameters()).device)
        if not model.takes_pixels:
            images = self.info.preprocessing.normalize(images)
        result: FloatArray = torch.softmax(self.info.scores(model(images)), dim=1).cpu().numpy()
        return result


def _check_sizes(top_k: int, batch_size: int) -> None:
    if top_k < 1 or batch_size < 1:
        raise UsageError(f"top_k and batch_size must be at least 1; they are {top_k} and {batch_size}.")


def _length(images: object) -> int:
    """Return the number of images that a caller gave, 0 where only reading tells."""
    return len(images) if isinstance(images, Sized) and not isinstance(images, str | os.PathLike) else 0


def load(
    run: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    prior: str | None = None,
    engine: EngineName = "auto",
    say: Callable[[str], object] | None = None,
) -> Predictor:
    """Read a trained run, ready to classify images; also as ``longtail.load``.

    Args:
        run: The RUN folder of ``longtail train``, or ``hf:OWNER/NAME`` for one that ``longtail push`` has uploaded.
        device: Device of the network.
        prior: The class prior to expect: ``uniform``, ``train``, or a file of shares; None leaves the run's own.
        engine: As for :class:`Predictor`.
        say: Called with one sentence on the classes that a file of shares leaves out, or on what runs the network.

    Raises:
        LongtailError: No such run, one that has not finished, or damaged files; or the engine is not installed.

    Example:
        >>> load("nowhere")
        Traceback (most recent call last):
        ...
        longtail.errors.LongtailError: There is no run 'nowhere': name the folder that `longtail train` wrote.
    """
    return Predictor(run, device=device, prior=prior, engine=engine, say=say)
