"""The stored features of a run: which images, views and seeds they are of, and where they are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from longtail.data.augmentation import BatchTransform
from longtail.data.decoding import Decoder
from longtail.data.identity import image_hashes, scaling
from longtail.data.loaders import Loader, count_batches
from longtail.models.model import LongTailModel
from longtail.training.engine import Engine
from longtail.training.features import BATCH, CachedViews, compute_views, feature_key
from longtail.training.progress import Reporter


class FeatureStore:
    """Computes the features of a run's splits as they are asked for.

    Args:
        engine: Device, precision, processes.
        model: The network; its backbone is frozen when features are asked for.
        loaders: Batches of uint8 images by split.
        decoders: What those images are, by split.
        transform: Augmentation and normalisation in training.
        reporter: Tells the user what happens.
        seconds: What it takes is added to ``features``.
        fixed: No stage trains the backbone: its features are the same in every run, so they are of no seed in
            particular, and seeds, stages and methods share them.
        on_disk: Keep the features of a fixed backbone, for the next run.
        source: SOURCE of the images.
    """

    def __init__(
        self, engine: Engine, model: LongTailModel, loaders: Mapping[str, Loader], decoders: Mapping[str, Decoder],
        transform: BatchTransform, reporter: Reporter, seconds: dict[str, float], *, fixed: bool, on_disk: bool,
        source: str = "",
    ) -> None:  # fmt: skip
        self.engine, self.model, self.loaders, self.decoders = engine, model, loaders, decoders
        self.transform, self.reporter, self.seconds = transform, reporter, seconds
        self.fixed, self.on_disk, self.source = fixed, on_disk, source
        self._hashes: dict[str, list[bytes]] = {}  # a source's bytes are read once
        self._plain: dict[str, CachedViews] = {}

    def views(self, index: int, count: int, seed: int, stop: Callable[[], object]) -> CachedViews:
        """Features of ``count`` augmented views of the training images.

        Args:
            index: Number of the stage that trains on them.
            count: V.
            seed: Of the run.
            stop: Called between parts; may raise to leave.
        """
        words = () if self.fixed else (seed, index)
        parts = count_batches(len(self.decoders["train"].split), BATCH * self.engine.world_size)
        with self.reporter.bar(f"stage {index}: features", count * parts) as bar:

            def tick() -> None:
                bar.tick()
                stop()

            return self._compute("train", self.transform, count, (*words, 4), tick)

    def plain(self, name: str) -> CachedViews:
        """Features of a split as it is, which is only evaluated: computed once."""
        if name not in self._plain:
            transform = BatchTransform(self.transform.mean, self.transform.std)
            parts = count_batches(len(self.decoders[name].split), BATCH * self.engine.world_size)
            with self.reporter.bar(f"features of {name}", parts) as bar:
                self._plain[name] = self._compute(name, transform, 1, (), bar.tick)
        return self._plain[name]

    def _compute(
        self, name: str, transform: BatchTransform, views: int, seed: tuple[int, ...], tick: Callable[[], object]
    ) -> CachedViews:
        begun = time.perf_counter()
        decoder = self.decoders[name]
        if self.fixed and name not in self._hashes:
            self._hashes[name] = image_hashes(decoder.split)
        keep = self.fixed and self.on_disk
        key = feature_key(self.engine, self.model, scaling(decoder), transform) if keep else ""
        found = compute_views(
            self.engine, self.model, self.loaders[name], transform,
            torch.from_numpy(decoder.split.labels.copy()), views=views, seed=seed, key=key,
            hashes=self._hashes.get(name, ()), source=self.source, tick=tick,
            warn=lambda text: self.reporter.say(f"note: {text}"),
        )  # fmt: skip
        self.seconds["features"] += time.perf_counter() - begun
        return found
