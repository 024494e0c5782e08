"""A finished run opened for further work: its model and configuration, and its images, divided as for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from longtail.config.build import with_options
from longtail.config.options import EngineName
from longtail.config.schema import DataConfig, RunConfig
from longtail.console import Reporter
from longtail.counts import ClassCounts, GroupName, IntArray
from longtail.data.class_names import match_classes, require_known
from longtail.data.dataset import Split
from longtail.data.loading.loaders import SinglePassLoader
from longtail.data.loading.workers import Decoder
from longtail.data.sources.builtin import NAMES
from longtail.data.sources.registry import absolute_source, source_path
from longtail.errors import LongtailError, listed
from longtail.models.inference_engine import WORTHWHILE, openvino_problem
from longtail.models.model import LongTailModel
from longtail.run.layout import read_config
from longtail.run.model_files import ModelInfo, load_run
from longtail.run.result import RunMetrics, read_metrics
from longtail.run.split_record import FoundSplits, find_splits, read_splits
from longtail.training.engine import Engine
from longtail.training.forward_pass import ImageInputs
from longtail.training.frozen_features import FeatureStore
from longtail.training.prepared_data import PreparedData, make_transform, prepare_data, read_source


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A finished run; made by :func:`open_run`.

    Attributes:
        folder: The RUN folder.
        model: Its network, in evaluation mode on the CPU.
        info: Its ``model.json``.
        config: Its configuration; the source is the new one if the images have moved.
        metrics: Its ``metrics.json``; None if that cannot be read.
    """

    folder: Path
    model: LongTailModel
    info: ModelInfo
    config: RunConfig
    metrics: RunMetrics | None

    @cached_property
    def engine(self) -> Engine:
        """Device, precision, processes and what runs the network, as in training."""
        return Engine(self.config.training)

    @cached_property
    def counts(self) -> ClassCounts:
        """Training images of each class."""
        return ClassCounts(self.info.counts, self.info.classes)

    @cached_property
    def groups(self) -> Mapping[GroupName, IntArray]:
        """Class indices of the shot groups."""
        data = self.config.data
        return self.counts.groups(many=data.many, few=data.few, by=data.groups)

    @property
    def recorded_engine(self) -> str:
        """What computed the features of the run, with its version; empty if it has none."""
        return "" if self.metrics is None else str(self.metrics.hardware.get("engine", ""))

    @property
    def data_hash(self) -> str | None:
        """The hash of the images that the run was made with; None without a readable ``metrics.json``."""
        return None if self.metrics is None else self.metrics.data_hash or None

    def features(self, splits: Mapping[str, Split], reporter: Reporter, source: str = "") -> FeatureStore:
        """Return what passes splits through the network once: from stored features where no stage trained the backbone.

        Args:
            splits: The images, by the name of their split.
            reporter: Shows the progress of computing features, and tells what runs the network.
            source: SOURCE of the images, for the list of the cache; the run's own when not given.
        """
        device, data = self.engine.device, self.config.data
        decoders = {name: Decoder(split, self.info.preprocessing.square) for name, split in splits.items()}
        by_openvino = self.recorded_engine.startswith("openvino") and self.config.training.engine == "auto"
        if by_openvino and device.type == "cpu" and openvino_problem():
            reporter.say(
                "note: OpenVINO computed the features of this run and cannot be used here "
                f"({openvino_problem()}): PyTorch computes them again."
            )
        # Augmentation decides the size of training images alone, and these have their size already.
        transform = make_transform(replace(data, augmentation="none"))
        return FeatureStore(
            engine=self.engine,
            model=self.model.to(device),
            inputs={
                name: ImageInputs(SinglePassLoader(decoder, device, data.workers), transform)
                for name, decoder in decoders.items()
            },
            decoders=decoders,
            reporter=reporter,
            seconds={"features": 0.0},
            data=replace(data, source=source or data.source),
            fixed=self.config.is_on_features,
            passes=WORTHWHILE if by_openvino else 0,  # few images too, so that it finds the features stored then
        )

    def images(self, say: Callable[[str], object] = lambda _: None, *, must_be_same: bool = False) -> PreparedData:
        """Read the source of the run again and divide it as for training.

        ``RUN/splits.csv`` records the split of each image. Images not in it are left out, so that no training image is
        tested on. A run of an older version has no such file: its source is divided again with the same seeds.

        Args:
            say: Called with notes on the images, one sentence at a time.
            must_be_same: Refuse other images than those that the run was made with; else they are a note.

        Returns:
            The splits of the run, with the classes and the training counts of its model. A split may have labels beyond
            the number of classes, of classes that the model does not know, unless ``must_be_same``.

        Raises:
            LongtailError: The source is missing, a class in it has been renamed, or the images are not the same.
        """
        data, recorded = self.config.data, None
        require_source(self.folder, data)
        record = read_splits(self.folder)
        if record is None:
            prepared = prepare_data(data, classes=self.info.classes)
        else:
            source = match_classes(read_source(data), self.info.classes)
            recorded = find_splits(source, record)
            unknown = source.classes[len(self.info.classes) :]
            if recorded.emptied and unknown:
                raise LongtailError(
                    f"{data.source!r} has no image left of {listed(recorded.emptied)}, and images of "
                    f"{listed(unknown)}, which {self.folder} does not know: give classes their old names back, or "
                    "train again."
                )
            prepared = PreparedData(replace(source, splits=recorded.splits), self.counts, {}, (), source, {})
        prepared = replace(prepared, counts=self.counts, groups=dict(self.groups))
        for split in prepared.data.splits.values() if must_be_same else ():
            require_known(prepared.data, split, self.info.classes)
        if self.data_hash not in (None, prepared.data_hash):
            difference = _difference(data.source, recorded)
            if must_be_same:
                raise LongtailError(f"{difference}: put them back, or train the run again.")
            say(f"note: {difference}.")
        if recorded is not None and recorded.added:
            added = "1 image is" if recorded.added == 1 else f"{recorded.added:,} images are"
            say(f"note: {added} new in {data.source!r} since the run was made, and left out.")
        return prepared


def open_run(folder: str | Path, moved_to: str | None = None, engine: EngineName | None = None) -> FinishedRun:
    """Read the model and the configuration of a finished run.

    Args:
        folder: The RUN folder.
        moved_to: Its new SOURCE, if the images have moved.
        engine: What runs the network; when None, what its configuration asks for, and of ``auto`` what it was then, so
            that it finds the features stored then.

    Raises:
        LongtailError: No finished run, or one of its files is missing or damaged.
    """
    model, info = load_run(folder)
    config = read_config(Path(folder))
    options: dict[str, Any] = {} if moved_to is None else {"data.source": absolute_source(moved_to)}
    try:
        metrics = read_metrics(Path(folder))
    except LongtailError:  # figures are not needed to go on
        metrics = None
    opened = FinishedRun(Path(folder), model, info, with_options(config, options), metrics)
    if engine is None and config.training.engine == "auto" and opened.recorded_engine.startswith("torch"):
        engine = "torch"
    return (
        opened if engine is None else replace(opened, config=with_options(opened.config, {"training.engine": engine}))
    )


def require_source(run: Path, config: DataConfig) -> None:
    """Check that the path of a run's source exists.

    Raises:
        LongtailError: It does not; the message says how to name its new path.
    """
    path = source_path(config.source)
    if path is None and ":" not in config.source and config.source not in NAMES:
        path = Path(config.source).absolute()  # a plain path that does not exist
    if path is not None and not path.exists():
        raise LongtailError(
            f"the images of {run} are not where they were, {path} does not exist: name their new path with "
            "--moved-to SOURCE."
        )


def _difference(source: str, recorded: FoundSplits | None) -> str:
    if recorded is None or not recorded.missing:
        return f"the images of {source!r} are not those that the run was trained and tested on"
    gone = "; ".join(f"{len(names):,} {name} ({listed(names)})" for name, names in recorded.missing.items())
    return f"images of {source!r} that the run was trained and tested on are gone: {gone}"
