"""Read the images of a finished run again, divided as before, with classes matched to the model by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from longtail.config.recipes import config_from_dict, read_config
from longtail.config.schema import DataConfig, RunConfig
from longtail.counts import ClassCounts
from longtail.data.class_names import match_classes, require_known
from longtail.data.dataset import Split
from longtail.data.sources.paths import NAMED_SOURCES, absolute_source, source_path
from longtail.errors import LongtailError, listed
from longtail.run.folder import CONFIG_FILE, METRICS_FILE, SPLITS_FILE
from longtail.run.model_info import ModelInfo
from longtail.run.splits import FoundSplits, SplitsRecord, find_splits, read_splits
from longtail.training.prepare import PreparedData, prepare_data, read_source


@dataclass(frozen=True, eq=False)
class OwnImages:
    """The current images of the source of a run.

    Attributes:
        prepared: The splits of the run, with the classes and the training counts of its model. A split may have labels
            beyond the number of classes, of classes that the model does not know; :meth:`split` refuses it.
        difference: How they differ from those that the run was made with, as a sentence; empty if they do not.
        notes: Other notes for the user, one sentence each.
        classes: Class names of the model.
    """

    prepared: PreparedData
    difference: str
    notes: tuple[str, ...]
    classes: tuple[str, ...]

    def split(self, name: str) -> Split | None:
        """Return a split by name, None where the run has none.

        Raises:
            LongtailError: It has images of a class that the model does not know.
        """
        split = self.prepared.split(name)
        if split is not None:
            require_known(self.prepared.data, split, self.classes)
        return split

    def require_same(self) -> None:
        """Check that the images are those that the run was made with.

        Raises:
            LongtailError: They differ.
        """
        for name in self.prepared.data.splits:
            self.split(name)
        if self.difference:
            raise LongtailError(f"{self.difference}: put them back, or train the run again.")


def run_config(run: Path, moved_to: str | None = None) -> RunConfig:
    """Return the configuration that a run was made from.

    Args:
        run: The RUN folder.
        moved_to: Its new SOURCE, if the images have moved.

    Raises:
        LongtailError: ``config.yaml`` is missing or no configuration.
    """
    config = config_from_dict(read_config(run / CONFIG_FILE), str(run / CONFIG_FILE))
    if moved_to is not None:
        config.data.source = absolute_source(moved_to)
    return config


def own_images(run: Path, config: RunConfig, info: ModelInfo) -> OwnImages:
    """Read the source of a run again and divide it as for training.

    ``RUN/splits.csv`` records the split of each image. Images not in it are left out, so that no training image is
    tested on. A run of an older version has no such file: its source is divided again with the same seeds.

    Args:
        run: The RUN folder.
        config: Its configuration.
        info: Its model's metadata.

    Raises:
        LongtailError: The source is missing, or a class in it has been renamed.
    """
    require_source(run, config.data)
    record = read_splits(run / SPLITS_FILE)
    if record is None:
        prepared, found = prepare_data(config.data, classes=info.classes), None
    else:
        prepared, found = _divided_as_recorded(run, config.data, info, record)
    counts = ClassCounts(info.counts, info.classes)
    groups = counts.groups(many=config.data.many, few=config.data.few, by=config.data.groups)
    prepared = replace(prepared, counts=counts, groups=groups)
    changed = data_hash(run) not in (None, prepared.data_hash)
    difference = _difference(config.data.source, found) if changed else ""
    notes = tuple(_notes(config.data.source, found))
    return OwnImages(prepared, difference, notes, info.classes)


def require_source(run: Path, config: DataConfig) -> None:
    """Check that the path of a run's source exists.

    Raises:
        LongtailError: It does not; the message says how to name its new path.
    """
    path = source_path(config.source)
    if path is None and ":" not in config.source and config.source not in NAMED_SOURCES:
        path = Path(config.source).absolute()  # a plain path that does not exist
    if path is not None and not path.exists():
        raise LongtailError(
            f"the images of {run} are not where they were, {path} does not exist: name their new path with "
            "--moved-to SOURCE."
        )


def data_hash(run: Path) -> str | None:
    """The hash of the images that a run was made with; None where its metrics.json is gone: evaluation does without."""
    try:
        return str(json.loads((run / METRICS_FILE).read_text(encoding="utf-8"))["data_hash"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _divided_as_recorded(
    run: Path, config: DataConfig, info: ModelInfo, record: SplitsRecord
) -> tuple[PreparedData, FoundSplits]:
    data = match_classes(read_source(config), info.classes)
    found, unknown = find_splits(data, record), data.classes[len(info.classes) :]
    if found.emptied and unknown:
        raise LongtailError(
            f"{config.source!r} has no image left of {listed(found.emptied)}, and images of {listed(unknown)}, which "
            f"{run} does not know: give classes their old names back, or train again."
        )
    divided = replace(data, splits=found.splits)
    return PreparedData(divided, ClassCounts(info.counts, info.classes), {}, (), data, {}), found


def _difference(source: str, found: FoundSplits | None) -> str:
    if found is None or not found.missing:
        return f"the images of {source!r} are not those that the run was trained and tested on"
    gone = "; ".join(f"{len(names):,} {name} ({listed(names)})" for name, names in found.missing.items())
    return f"images of {source!r} that the run was trained and tested on are gone: {gone}"


def _notes(source: str, found: FoundSplits | None) -> Iterator[str]:
    if found is not None and found.added:
        images = "1 image is" if found.added == 1 else f"{found.added:,} images are"
        yield f"{images} new in {source!r} since the run was made, and left out."
