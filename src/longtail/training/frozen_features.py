"""Frozen features: those of every image, computed once by the backbone, and the classifier that trains on them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from longtail.config.schema import DataConfig
from longtail.console import Reporter
from longtail.data.image_hashes import image_hashes
from longtail.data.loading.cache import scaling
from longtail.data.loading.cache_folder import Contents
from longtail.data.loading.loaders import LabeledRows, count_batches, split_rows
from longtail.data.loading.workers import Decoder
from longtail.data.transforms.augmentation import BatchTransform
from longtail.device import memory_budget
from longtail.errors import LongtailError
from longtail.models.heads import classify
from longtail.models.inference_engine import FORMAT, ChosenEngine, compile_backbone, engine_for, engine_version
from longtail.models.model import LongTailModel, weight_bytes
from longtail.models.preprocessing import Preprocessing
from longtail.training.backbone_pass import BATCH, backbone_pass
from longtail.training.engine import LocalEngine
from longtail.training.feature_files import any_stored, short_hash, views_on_disk
from longtail.training.forward_pass import ImageInputs, Inputs

Trial = Callable[[int], int]
"""Computes the features of the first images, as many as given, without storing them; returns their number."""


class FeatureRows(NamedTuple):
    """Images of one step by their numbers, whose features are drawn once it is known which view is shown.

    Attributes:
        numbers: int64 (N,), the row of each image, on the training device.
        labels: int64 (N,), on the training device.
        rows: int64 (N,), the same as ``numbers``, on the CPU.
    """

    numbers: Tensor
    labels: Tensor
    rows: Tensor


class StoredFeatures(LabeledRows):
    """Features of V augmented views of each image: the inputs of a stage that trains the classifier alone.

    A frozen backbone in evaluation mode gives the same feature for the same pixels at any time, so training on stored
    features is training through the backbone, with one difference: an image shows V views instead of a new one at
    every draw.

    Args:
        features: float32 (V, N, D), on the training device.
        labels: int64 (N,), on the training device.

    Example:
        >>> stored = StoredFeatures(torch.arange(6.0).view(2, 3, 1), torch.tensor([0, 1, 1]))
        >>> batch = next(stored.batches(torch.tensor([2, 0]), 2))
        >>> batch.labels.tolist(), stored.augment(batch, torch.Generator().manual_seed(0)).shape
        ([1, 0], torch.Size([2, 1]))
    """

    waited = 0.0  # never blocks
    large_batch = BATCH

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self.features = features
        self.labels = labels

    def batches(self, rows: Tensor, batch_size: int) -> Iterator[FeatureRows]:
        """Yield the given rows in order, ``batch_size`` at a time."""
        # All rows go to the device at once: sending those of each step would wait for the step before.
        numbers = split_rows(rows.to(self.features.device), batch_size)
        for part, index in zip(split_rows(rows, batch_size), numbers, strict=True):
            yield FeatureRows(index, self.labels[index], part)

    def augment(self, batch: FeatureRows, generator: torch.Generator, *, rank: int = 0, world_size: int = 1) -> Tensor:
        """Draw one view of each image and return its features (N, D)."""
        if len(self.features) == 1:  # nothing to draw: a step on features alone is short enough to notice
            return self.normalize(batch)
        total = batch.numbers.shape[0] * world_size
        view = torch.randint(len(self.features), (total,), generator=generator)[rank::world_size]
        return self.features[view.to(batch.numbers.device, non_blocking=True), batch.numbers]

    def normalize(self, batch: FeatureRows) -> Tensor:
        """Return the features (N, D) of the first view of each image: what evaluation sees."""
        return self.features[0, batch.numbers]


class Classifier(nn.Module):
    """The head of a model, called as the whole model is, but on features.

    Example:
        >>> from longtail.models import build_model
        >>> logits, features = Classifier(build_model("plain-cnn", 10))(torch.zeros(2, 64), return_features=True)
        >>> logits.shape, features.shape
        (torch.Size([2, 10]), torch.Size([2, 64]))
    """

    def __init__(self, model: LongTailModel) -> None:
        super().__init__()
        self.head = model.head

    def forward(self, features: Tensor, *, return_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (N, C), or these and the features (N, D) as the head's weights meet them."""
        return classify(self.head, features) if return_features else cast("Tensor", self.head(features))


@dataclass
class FeatureStore:
    """The features of a run's splits, computed when they are first asked for.

    Draws follow from the seeds, so that a resumed run trains on the same features. If no stage trains the backbone,
    those of an image follow from it and not from the images next to it, so that another choice of images reuses what
    was computed before.

    Attributes:
        engine: Device, precision, processes.
        model: The network; its backbone is frozen when features are asked for. Its head is not used.
        inputs: Images by split, augmented as in training.
        decoders: Decoders of those images, by split.
        reporter: Messages and progress bars for the user.
        seconds: The time it takes is added to ``features``.
        data: The source, and whether features of a fixed backbone are stored on disk for the next run.
        fixed: No stage trains the backbone: its features are the same in every run, so they are of no seed in
            particular, and seeds, stages and methods share them.
        passes: Number of images that will be passed through the backbone, which decides what runs it; those of the
            splits once when 0.
        before: Called before features are computed with their number, and with a function that computes those of the
            first images of the split for a trial. Not where several processes compute together.
    """

    engine: LocalEngine
    model: LongTailModel
    inputs: Mapping[str, ImageInputs]
    decoders: Mapping[str, Decoder]
    reporter: Reporter
    seconds: dict[str, float]
    data: DataConfig
    fixed: bool
    passes: int = 0
    before: Callable[[int, Trial], object] = lambda *_: None
    _hashes: dict[str, list[bytes]] = field(default_factory=dict, init=False)  # a source's bytes are read once
    _plain: dict[str, StoredFeatures] = field(default_factory=dict, init=False)
    _said: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.passes = self.passes or sum(len(decoder.split) for decoder in self.decoders.values())

    @cached_property
    def _side(self) -> int:
        """Side in pixels of what the network takes."""
        name, decoder = next(iter(self.decoders.items()))
        return self.inputs[name].transform.output_side(decoder.square.size)

    @cached_property
    def network(self) -> LongTailModel:
        """The network on the engine of the run, compiled when it is first asked for: its backbone must be final."""
        config, transform = self.engine.config, next(iter(self.inputs.values())).transform
        return compile_backbone(
            self.model,
            Preprocessing(self._side, transform.mean, transform.std),
            images=self.passes,
            engine=config.engine,
            precision="bf16" if config.precision == "bf16" else "fp32",
            store=self.fixed and self.data.cache,
            say=self.reporter.say,
        )

    def _warn(self, text: str) -> None:
        """Say a note, which each part of each view may repeat, once."""
        if text not in self._said:
            self._said.add(text)
            self.reporter.say(f"note: {text}")

    @property
    def runs_on(self) -> ChosenEngine | None:
        """What the features so far are of; None if there are none."""
        return self._engine if "network" in vars(self) or self.seconds["features"] else None

    @property
    def _engine(self) -> ChosenEngine:
        """What runs the network; before it is compiled, what is meant to run it."""
        if "network" not in vars(self):
            return engine_for(self.engine.config.engine, self.engine.device, images=self.passes, side=self._side)
        return "openvino" if self.network.takes_pixels else "torch"

    def single_pass(self, name: str) -> tuple[nn.Module, Inputs[Any]]:
        """Return what to pass a split through once, and what to pass: the head and features, where they are fixed."""
        if self.fixed:
            return Classifier(self.model), self.plain(name)
        return self.network, replace(self.inputs[name], raw=self.network.takes_pixels)

    def views(self, index: int, count: int, seed: int, stop: Callable[[], object] = lambda: None) -> StoredFeatures:
        """Return the features of ``count`` augmented views of the training images.

        Args:
            index: Number of the stage that trains on them.
            count: V, at least 1.
            seed: Seed of the run.
            stop: Called after each part of :data:`BATCH` images of a view; may raise to leave.

        Raises:
            LongtailError: V times N features do not fit the memory.
        """
        words = (4,) if self.fixed else (seed, index, 4)
        seeds = [(*words, view) for view in range(count)]
        return self._compute("train", self.inputs["train"], seeds, f"stage {index}: features", stop)

    def plain(self, name: str, stop: Callable[[], object] = lambda: None) -> StoredFeatures:
        """Return the features of a split without augmentation; computed once.

        Args:
            name: Of the split.
            stop: Called after each part of :data:`BATCH` images; may raise to leave.
        """
        if name not in self._plain:
            first = -1 if name == "train" else 0  # of the same images as the augmented views, which begin at 0
            self._plain[name] = self._compute(
                name, self._unchanged(name), [(0,)], f"features of {name}", stop, first_view=first
            )
        return self._plain[name]

    def trial(self, name: str) -> Trial:
        """Return a function that passes the first images of a split through the backbone, to measure how fast it is."""
        return self._trial(name, self._unchanged(name), [(0,)])

    def _unchanged(self, name: str) -> ImageInputs:
        images = self.inputs[name]
        return ImageInputs(images.loader, BatchTransform(images.transform.mean, images.transform.std))

    def _trial(self, name: str, inputs: ImageInputs, seeds: Sequence[tuple[int, ...]]) -> Trial:
        count = len(self.decoders[name].split)

        def try_some(images: int) -> int:
            rows = torch.arange(min(images, count))
            backbone_pass(self.engine, self.network, inputs, rows, [0] * count if self.fixed else (), seeds)
            return len(rows) * len(seeds)

        return try_some

    def _compute(
        self,
        name: str,
        inputs: ImageInputs,
        seeds: Sequence[tuple[int, ...]],
        title: str,
        stop: Callable[[], object] = lambda: None,
        first_view: int = 0,
    ) -> StoredFeatures:
        """Pass every image of a split through the backbone once for each seed, each time augmented anew."""
        begun, engine, split = time.perf_counter(), self.engine, self.decoders[name].split
        views, count = len(seeds), len(split)
        needed = 4 * views * count * self.model.num_features
        if needed > memory_budget(engine.device):
            raise LongtailError(
                f"features of {views} views of {count} images take {needed / 1e9:.1f} GB, more than half of the free "
                "memory: lower cached_views of the stage (--stage1.cached_views, --stage2.cached_views), or set it to "
                "0 to train through the backbone."
            )

        def begin(missing: int) -> None:
            if engine.world_size == 1:
                self.before(missing, self._trial(name, inputs, seeds))

        # Several processes compute together: none can wait for what another has on disk.
        is_stored = self.fixed and self.data.cache and engine.world_size == 1
        keys = self._keys(name, inputs.transform, seeds) if is_stored else []
        if not any_stored(keys):
            meant, _ = self._engine, self.network
            if is_stored and self._engine != meant:  # OpenVINO does not run it: PyTorch's features may be there
                keys = self._keys(name, inputs.transform, seeds)
            if not any_stored(keys):
                begin(views * count)  # as early as possible: hashing 30,000 small files takes a second
        if self.fixed and name not in self._hashes:
            self._hashes[name] = image_hashes(split)
        hashes = self._hashes.get(name, [])
        image_seeds = [int.from_bytes(digest[:8]) for digest in hashes]

        with self.reporter.bar(title, views * count_batches(count, BATCH * engine.world_size)) as bar:

            def tick() -> None:
                bar.tick()
                stop()

            def compute(rows: Tensor, chosen: Sequence[int]) -> list[Tensor]:
                words = [seeds[view] for view in chosen]
                return backbone_pass(engine, self.network, inputs, rows, image_seeds, words, tick)

            if is_stored:
                features = torch.empty(views, count, self.model.num_features)
                contents = Contents("features", self.data.source, self.model.name, count, first_view)
                views_on_disk(keys, hashes, features, compute, contents, self._warn, begin)
            else:
                features = torch.stack(compute(torch.arange(count), range(views)))
        labels = torch.from_numpy(split.labels.copy())
        self.seconds["features"] += time.perf_counter() - begun
        return StoredFeatures(features.to(engine.device), labels.to(engine.device))

    def _keys(self, name: str, transform: BatchTransform, seeds: Sequence[tuple[int, ...]]) -> list[str]:
        """Hash what the features of an image follow from for each view: decoding, transform, arithmetic, weights."""
        config, decoding = self.engine.config, scaling(self.decoders[name])
        version = f"{engine_version('openvino')} {FORMAT}" if self._engine == "openvino" else torch.__version__
        arithmetic = f"{self.engine.device.type} {config.precision} {config.channels_last} {version}"
        digest = hashlib.sha256(f"{decoding} {transform!r} {arithmetic} {self.model.name}".encode())
        for part in weight_bytes(self.model.backbone):
            digest.update(part)
        return [short_hash(f"{digest.hexdigest()} {words}".encode()) for words in seeds]
