"""RunResult: what one finished run left in its folder, validated and typed; ``metrics.json`` and ``adjusted.json``."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from longtail.analysis.columns import Analysis
from longtail.counts import FEW_IMAGES, ClassCounts, FloatArray, GroupName, IntArray
from longtail.errors import LongtailError
from longtail.evaluation.metrics import add_intervals
from longtail.evaluation.posthoc import Adjustment
from longtail.files import remove, write_json
from longtail.run import layout
from longtail.run.analysis import read_analysis
from longtail.run.dynamics import Dynamics, read_dynamics
from longtail.run.model_files import load_info
from longtail.run.portfolio import Portfolio, read_portfolio
from longtail.run.search import Search, read_search
from longtail.run.tables import EpochRow, ExampleImage, Predictions, read_examples, read_history, read_predictions
from longtail.validation import read_json

METRICS_FORMAT: Final = 1
ADJUSTED_FORMAT: Final = 1

Ends: TypeAlias = tuple[float, float]
Count: TypeAlias = Annotated[int, Field(ge=0, le=2**53)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1.001)]
"""A fraction in [0, 1], with room for rounding."""
ShareEnds: TypeAlias = tuple[Share, Share]


class _Part(BaseModel):
    """A part of a file: finite numbers, and entries of other versions are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class ClassResult(_Part):
    """The figures of one class; recall, precision and f1 are fractions in [0, 1], None where not measured."""

    name: str
    train_count: Count
    test_count: Count = 0
    group: GroupName
    recall: Share | None = None
    precision: Share | None = None
    f1: Share | None = None
    recall_interval: ShareEnds | None = None
    precision_interval: ShareEnds | None = None
    f1_interval: ShareEnds | None = None

    @property
    def is_small(self) -> bool:
        """Whether it has test images, but so few that its figures say next to nothing."""
        return 0 < self.test_count < FEW_IMAGES


class _Intervals(_Part):
    """The 95% interval of each figure, and what they count as independent of each other."""

    unit: str = "image"
    level: Share | None = None
    correlation: float | None = None
    accuracy: ShareEnds | None = None
    balanced_accuracy: ShareEnds | None = None
    many: ShareEnds | None = None
    medium: ShareEnds | None = None
    few: ShareEnds | None = None
    worst_class: ShareEnds | None = None


class Metrics(_Part):
    """One evaluation of a split: its figures, None where a group is empty, and the classes, if kept."""

    num_images: Count = 0
    accuracy: Share | None = None
    balanced_accuracy: Share | None = None
    many: Share | None = None
    medium: Share | None = None
    few: Share | None = None
    worst_class: Share | None = None
    harmonic_mean: Share | None = None
    nll: float | None = None
    ece: Share | None = None
    interval_table: _Intervals | None = Field(None, alias="intervals")
    per_class: tuple[ClassResult, ...] = ()

    def __getitem__(self, name: str) -> float | None:
        """The figure of that name, None where it was not measured."""
        return cast("float | None", getattr(self, name, None))

    @property
    def intervals(self) -> Mapping[str, Ends]:
        """The 95% interval of each figure that has one."""
        intervals = dict(self.interval_table or ())
        return {name: cast("Ends", intervals[name]) for name in _FIGURES if intervals.get(name) is not None}

    @property
    def unit(self) -> str:
        """The unit of the intervals: ``image``, or the column of the data that holds images together."""
        return self.interval_table.unit if self.interval_table is not None else "image"

    @property
    def small(self) -> int:
        """Number of classes that have hardly any test images."""
        return sum(row.is_small for row in self.per_class)

    @property
    def recalls(self) -> FloatArray:
        """Recall per class, shape (C,), NaN where the split holds no image of the class."""
        values = [row.recall if row.recall is not None else math.nan for row in self.per_class]
        return np.array(values, dtype=np.float64)

    def completed(self) -> Metrics:
        """Return the same with the number of images and the intervals, which an older version did not keep."""
        if not self.per_class:
            return self
        images = np.array([float(row.test_count) for row in self.per_class])
        update: dict[str, Any] = {"num_images": self.num_images or int(images.sum())}
        if self.interval_table is None:
            right = np.array([row.recall or 0.0 for row in self.per_class]) * images
            # Of precision only the share is kept, not of how many.
            summary = add_intervals(self.model_dump(), right, images, np.zeros_like(images))
            intervals = [{"recall_interval": row["recall_interval"]} for row in summary["per_class"]]
            rows = tuple(row.model_copy(update=each) for row, each in zip(self.per_class, intervals, strict=True))
            update |= {"interval_table": _Intervals.model_validate(summary["intervals"]), "per_class": rows}
        return self.model_copy(update=update)


_FIGURES: Final = tuple(name for name in _Intervals.model_fields if name not in {"unit", "level", "correlation"})


class Draws(_Part):
    """What a stage saw of streamed images, by class: images that there are, draws, and different images drawn."""

    images: tuple[Count, ...]
    draws: tuple[Count, ...]
    seen: tuple[Count, ...]

    @property
    def words(self) -> str:
        """Which share of the images of each class was seen.

        Example:
            >>> Draws(images=(100, 10, 0), draws=(41, 39, 0), seen=(40, 10, 0)).words
            '50 of 110 images, of each class between 40% and 100%'
        """
        shares = [seen / images for seen, images in zip(self.seen, self.images, strict=False) if images] or [0.0]
        ends = f"between {min(shares):.0%} and {max(shares):.0%}"
        return f"{sum(self.seen):,} of {sum(self.images):,} images, of each class {ends}"


class RunMetrics(_Part):
    """The contents of ``metrics.json``."""

    format: int = METRICS_FORMAT
    recipe: str = ""
    classes: tuple[str, ...]
    train_counts: tuple[Count, ...]
    groups: dict[GroupName, tuple[Count, ...]] = {}
    test: Metrics | None = None
    validation: Metrics | None = None
    stages: dict[Annotated[str, Field(pattern="^stage[1-9]$")], dict[str, Metrics | None]] = {}
    seeds: dict[str, int | None] = {}
    data_hash: str = ""
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = {}
    hardware: dict[str, str | int | float | None] = {}
    seconds: dict[str, float | None] = {}
    draws: dict[str, Draws] = {}
    """What each stage saw, where the training images were streamed."""
    never_judged: dict[str, Count] = {}
    """For a cross-validation, the number of images by class that no fold tested."""
    folds: tuple[Metrics, ...] = ()

    @model_validator(mode="after")
    def _fits_the_classes(self) -> RunMetrics:
        ClassCounts(self.train_counts, self.classes)
        for split in (self.test, self.validation):
            if split is not None and split.per_class and len(split.per_class) != len(self.classes):
                raise ValueError(f"figures of {len(split.per_class)} classes do not fit {len(self.classes)} classes")
        if max((index for rows in self.groups.values() for index in rows), default=0) >= len(self.classes):
            raise ValueError(f"'groups' names a class beyond the {len(self.classes)} that there are")
        return self

    def plain(self, *, as_written: bool = False) -> dict[str, Any]:
        """Return plain values, with those that the file leaves out unless they are wanted as written."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=as_written)


class _Adjusted(_Part):
    """The contents of ``adjusted.json``."""

    adjustment: str
    validation: Metrics | None = None
    test: Metrics | None = None


def write_metrics(run: Path, metrics: Mapping[str, Any]) -> None:
    """Write ``metrics.json``, the last file of a run: its presence says that the run is complete.

    Raises:
        LongtailError: The file cannot be written; the one before stays.
    """
    write_json(run / layout.METRICS_FILE, {"format": METRICS_FORMAT, **metrics})


def read_metrics(run: Path) -> RunMetrics:
    """Read ``metrics.json``.

    Raises:
        LongtailError: It is missing, damaged, or of a newer format.
    """
    path = run / layout.METRICS_FILE
    if not path.is_file() and not (run / layout.CONFIG_FILE).is_file():
        raise LongtailError(f"{run} is not a run: name a folder that longtail train has made.")
    if not path.is_file():
        raise LongtailError(f"{run} has no {layout.METRICS_FILE}: {layout.restore_hint(run)}")
    return read_json(path, TypeAdapter(RunMetrics), layout.restore_hint(run).removesuffix("."), METRICS_FORMAT)


def write_adjusted(run: Path, adjustment: Adjustment, figures: Mapping[str, Any]) -> None:
    """Write the figures of each split after an adjustment to ``adjusted.json``, whole or not at all.

    Args:
        run: The RUN folder.
        adjustment: What they were measured with.
        figures: By split, ``validation`` and ``test``, what ``metrics.json`` holds for it; None without the split.

    Raises:
        LongtailError: The file cannot be written; the one before stays.
    """
    head = {"format": ADJUSTED_FORMAT, "adjustment": fingerprint(adjustment), "chosen": dict(adjustment.chosen)}
    write_json(run / layout.ADJUSTED_FILE, head | dict(figures))


def read_adjusted(run: Path, adjustment: Adjustment) -> dict[str, Any] | None:
    """Return the figures of a run after this very adjustment; None where there are none, or those of another one.

    Raises:
        LongtailError: The file is damaged or of a newer format.
    """
    path = run / layout.ADJUSTED_FILE
    if not path.is_file():
        return None
    figures = read_json(path, TypeAdapter(_Adjusted), "delete it and run `longtail adjust` again", ADJUSTED_FORMAT)
    if figures.adjustment != fingerprint(adjustment):
        return None
    return figures.model_dump(mode="json", by_alias=True)


def remove_adjusted(run: Path) -> None:
    """Remove ``adjusted.json``, together with the adjustment that its figures are of.

    Raises:
        LongtailError: The system refuses.
    """
    remove(run / layout.ADJUSTED_FILE, "remove it by hand")


def fingerprint(adjustment: Adjustment) -> str:
    """Tell an adjustment from others by what it does to the logits.

    Example:
        >>> from dataclasses import replace
        >>> first, second = Adjustment((1.0,), (0.0,)), Adjustment((1.0,), (0.5,))
        >>> fingerprint(first) == fingerprint(replace(first, chosen={"tau": 1}))
        True
        >>> fingerprint(first) == fingerprint(second)
        False
    """
    return hashlib.sha256(json.dumps([adjustment.gain, adjustment.offset]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunResult:
    """Everything the report and the comparison need of one run.

    Attributes:
        folder: Where it was read from.
        recipe: Name of the recipe, or the folder's name where the run had none.
        config: The resolved configuration, nested.
        counts: Training images per class, with the class names.
        group_of: The shot group of each class, length C.
        test: Metrics of the test split, None without one.
        validation: Metrics of the validation split, None without one.
        stages: Test metrics after each stage, by number, where the run kept them.
        history: The epochs in order.
        record: All of ``metrics.json``; seeds, versions and times are read there.
        adjustment: What ``longtail adjust`` did since, by name; none of the figures know of it. Empty where nothing.
    """

    folder: Path
    recipe: str
    config: layout.Table
    counts: ClassCounts
    group_of: tuple[GroupName, ...]
    test: Metrics | None
    validation: Metrics | None
    stages: Mapping[int, Metrics]
    history: tuple[EpochRow, ...]
    record: RunMetrics
    adjustment: str = ""

    def metrics(self, split: str | None) -> Metrics | None:
        """The metrics of ``"test"`` or ``"validation"``; None where there is no split to compare."""
        return {"test": self.test, "validation": self.validation}.get(split or "")

    @property
    def seed(self) -> int | None:
        """The training seed."""
        return self.record.seeds.get("seed")

    @cached_property
    def predictions(self) -> Predictions | None:
        """The test predictions, None where the run has no ``predictions.parquet``."""
        return read_predictions(self.folder, len(self.counts))

    @cached_property
    def examples(self) -> tuple[ExampleImage, ...]:
        """The example images, empty where the run has no ``examples.parquet``."""
        return read_examples(self.folder, len(self.counts))

    @cached_property
    def analysis(self) -> Analysis | None:
        """The measures of ``longtail analyze``; None where it was not asked to."""
        return read_analysis(self.folder, len(self.counts))

    @cached_property
    def dynamics(self) -> Dynamics | None:
        """The gradients that were recorded in training, None where the run was not asked to."""
        return read_dynamics(self.folder, len(self.counts))

    @cached_property
    def portfolio(self) -> Portfolio | None:
        """The classifiers that were tried and the choice; None where none was chosen."""
        return read_portfolio(self.folder)

    @cached_property
    def search(self) -> Search | None:
        """The networks, sizes and fits that were compared; None where none were."""
        return read_search(self.folder)

    @property
    def clusters(self) -> IntArray | None:
        """The cluster of each test image, shape (N,); None where images are independent or clusters were not kept."""
        if self.test is None or self.test.unit == "image" or self.predictions is None:
            return None
        return self.predictions.group

    def was_tested_as(self, other: RunResult) -> bool:
        """Whether both may have been tested on the same images: nothing that both recorded differs."""
        if self.predictions is not None and other.predictions is not None:
            return self.predictions.images == other.predictions.images
        counts = [[row.test_count for row in run.test.per_class] for run in (self, other) if run.test is not None]
        return not all(counts) or all(row == counts[0] for row in counts)


def read_run(folder: str | Path) -> RunResult:
    """Read the run in a folder, see :func:`longtail.run.read`."""
    root = layout.require_folder(folder)
    metrics = read_metrics(root)
    counts = ClassCounts(metrics.train_counts, metrics.classes)
    stored = {index: name for name, rows in metrics.groups.items() for index in rows}
    adjustment = load_info(root).adjustment if (root / layout.MODEL_FILE).is_file() else None
    method = "" if adjustment is None else str(adjustment.chosen.get("method", "post-hoc"))
    tested = {int(name.removeprefix("stage")): splits.get("test") for name, splits in metrics.stages.items()}
    return RunResult(
        folder=root,
        recipe=metrics.recipe or root.name,
        config=layout.read_options(root),
        counts=counts,
        group_of=tuple(stored.get(index, name) for index, name in enumerate(counts.group_of())),
        test=metrics.test and metrics.test.completed(),
        validation=metrics.validation and metrics.validation.completed(),
        stages={number: figures for number, figures in sorted(tested.items()) if figures is not None},
        history=read_history(root),
        record=metrics,
        adjustment="temperature" if method == "none" else method,
    )
