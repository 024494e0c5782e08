"""RunResult: what one finished run left in its folder, read into typed values."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from longtail.analysis.columns import Analysis
from longtail.counts import FEW_IMAGES, GROUP_NAMES, ClassCounts, GroupName
from longtail.data.splits import group_numbers
from longtail.errors import LongtailError, resume_hint
from longtail.evaluation.summary import add_intervals
from longtail.run.analysis import read_analysis
from longtail.run.dynamics import Dynamics, read_dynamics
from longtail.run.folder import EXAMPLES_FILE, HISTORY_FILE, METRICS_FILE, PREDICTIONS_FILE
from longtail.run.read import Table, Value, read_adjustment, read_config, read_history, read_metrics, read_parquet

if TYPE_CHECKING:
    from longtail.evaluation.summary import Summary

Ends: TypeAlias = tuple[float, float]

SCALARS = (
    "accuracy", "balanced_accuracy", "many", "medium", "few", "worst_class", "harmonic_mean", "nll", "ece",
)  # fmt: skip


@dataclass(frozen=True)
class ClassResult:
    """How one class did; recall, precision and f1 are fractions in [0, 1], None where nothing could be measured."""

    name: str
    train_count: int
    test_count: int
    group: GroupName
    recall: float | None
    precision: float | None
    f1: float | None
    interval: Ends | None = None

    @property
    def is_small(self) -> bool:
        """Whether it has test images, but so few that its figures say next to nothing."""
        return 0 < self.test_count < FEW_IMAGES


@dataclass(frozen=True)
class Metrics:
    """One evaluation of a split: the scalars of ``SCALARS`` (None where a group is empty) and the classes, if kept.

    ``intervals`` holds the 95% interval of a scalar where there is one, and ``unit`` what they count as independent of
    each other: ``image``, or the column of the data that holds images together.
    """

    num_images: int
    scalars: Mapping[str, float | None]
    per_class: tuple[ClassResult, ...] = ()
    intervals: Mapping[str, Ends] = field(default_factory=dict)
    unit: str = "image"

    def __getitem__(self, name: str) -> float | None:
        """The scalar of that name, None where it was not measured."""
        return self.scalars.get(name)

    @property
    def small(self) -> int:
        """How many classes have hardly any test images."""
        return sum(row.is_small for row in self.per_class)

    @property
    def recalls(self) -> npt.NDArray[np.float64]:
        """Recall per class, shape (C,), NaN where the split holds no image of the class."""
        values = [row.recall if row.recall is not None else math.nan for row in self.per_class]
        return np.array(values, dtype=np.float64)


@dataclass(frozen=True)
class Epoch:
    """One row of ``history.csv``; ``step`` counts epochs over all stages from 1, None marks what was not measured."""

    stage: int
    step: int
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class Predictions:
    """``predictions.parquet``: labels and predictions of the test split, each of shape (N,).

    ``group`` is the group of each image, None if images are independent or the run did not keep it; ``images`` is a
    hash of labels and paths in order, equal for runs tested on the same images; ``paths`` are the files, empty where an
    older version kept none.
    """

    label: npt.NDArray[np.int64]
    prediction: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    group: npt.NDArray[np.int64] | None = None
    images: str = ""
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExampleImage:
    """One small picture of ``examples.parquet``: a training image, or a test image classified wrongly.

    ``path`` is the file it was made from, empty where an older version kept none.
    """

    label: int
    role: str
    image: bytes
    prediction: int
    confidence: float
    path: str = ""


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
        never_judged: For a cross-validation, the number of images by class that no fold tested; else empty.
        adjustment: What ``longtail adjust`` did since, by name; none of the figures know of it. Empty where nothing.
    """

    folder: Path
    recipe: str
    config: Table
    counts: ClassCounts
    group_of: tuple[GroupName, ...]
    test: Metrics | None
    validation: Metrics | None
    stages: Mapping[int, Metrics]
    history: tuple[Epoch, ...]
    seeds: Mapping[str, int]
    data_hash: str
    versions: Table
    hardware: Table
    seconds: Table
    adjustment: str = ""
    never_judged: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | Path) -> RunResult:
        """Read the run in ``folder``.

        Args:
            folder: A RUN folder with ``metrics.json`` and ``config.yaml``; the other files are optional.

        Raises:
            LongtailError: The folder is no finished run, or a file in it is broken or of a newer format.
        """
        root = Path(folder)
        if root.is_file():
            raise LongtailError(f"{root} is a file, not a run: name the --out folder of a finished 'longtail train'.")
        if not root.is_dir():
            raise LongtailError(f"there is no run folder {root}; give the --out folder of a finished 'longtail train'.")
        metrics = read_metrics(root)
        try:
            return _build(root, metrics)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, LongtailError):
                raise
            what = f"has no {error}" if isinstance(error, KeyError) else f"cannot be understood ({error})"
            raise LongtailError(
                f"{root / METRICS_FILE} {what}; delete it and write it again with: {resume_hint(root)}"
            ) from error

    def metrics(self, split: str) -> Metrics | None:
        """The metrics of ``"test"`` or ``"validation"``."""
        return self.test if split == "test" else self.validation

    @property
    def seed(self) -> int | None:
        """The training seed."""
        return self.seeds.get("seed")

    @cached_property
    def predictions(self) -> Predictions | None:
        """The test predictions, None where the run has no ``predictions.parquet``."""
        names = ["label", "prediction", "confidence"]
        table = read_parquet(self.folder / PREDICTIONS_FILE, names, optional=["path", "group"])
        if table is None:
            return None
        label, prediction, confidence = (table[name].to_numpy() for name in names)
        group = group_numbers(table["group"].to_pylist()) if "group" in table.column_names else None
        paths = table["path"].to_pylist() if "path" in table.column_names else []
        label = label.astype(np.int64)
        images = _images_hash(label, paths)
        sure = confidence.astype(np.float64)
        return Predictions(label, prediction.astype(np.int64), sure, group, images, tuple(map(str, paths)))

    @cached_property
    def examples(self) -> tuple[ExampleImage, ...]:
        """The example images, empty where the run has no ``examples.parquet``."""
        names = ["class", "role", "image", "prediction", "confidence"]
        table = read_parquet(self.folder / EXAMPLES_FILE, names, optional=["path"])
        if table is None:
            return ()
        files = table["path"].to_pylist() if "path" in table.column_names else [""] * len(table)
        rows = zip(*(table[name].to_pylist() for name in names), map(str, files), strict=True)
        return tuple(ExampleImage(*row) for row in rows)

    @cached_property
    def analysis(self) -> Analysis | None:
        """What ``longtail analyse`` measured of the model, None where it was not asked to."""
        return read_analysis(self.folder, len(self.counts))

    @cached_property
    def dynamics(self) -> Dynamics | None:
        """The gradients that were recorded in training, None where the run was not asked to."""
        return read_dynamics(self.folder, len(self.counts))

    def was_tested_as(self, other: RunResult) -> bool:
        """Whether both may have been tested on the same images: nothing that both recorded differs."""
        if self.predictions is not None and other.predictions is not None:
            return self.predictions.images == other.predictions.images
        counts = [[row.test_count for row in run.test.per_class] for run in (self, other) if run.test is not None]
        return not all(counts) or all(row == counts[0] for row in counts)


def _images_hash(label: npt.NDArray[np.int64], paths: Sequence[str]) -> str:
    """Hash the tested images in order, without their common folder, which may have been moved between runs."""
    low, high = (min(paths), max(paths)) if paths else ("", "")
    alike = next((place for place, (one, two) in enumerate(zip(low, high, strict=False)) if one != two), len(low))
    shared = low.rfind("/", 0, alike) + 1
    names = "\n".join(path[shared:] for path in paths)
    return hashlib.sha256(label.tobytes() + names.encode(errors="surrogatepass")).hexdigest()[:16]


def _build(root: Path, metrics: Table) -> RunResult:
    classes = [str(name) for name in cast("list[Value]", metrics["classes"])]
    counts = ClassCounts(cast("list[int]", metrics["train_counts"]), classes)
    epochs = read_history(root / HISTORY_FILE)
    test, validation = _metrics(metrics.get("test")), _metrics(metrics.get("validation"))
    for rows in (split.per_class for split in (test, validation) if split is not None and split.per_class):
        if len(rows) != len(classes):
            raise ValueError(f"it has the figures of {len(rows)} classes, and names {len(classes)}")
    return RunResult(
        folder=root,
        recipe=str(metrics.get("recipe") or root.name),
        config=read_config(root),
        counts=counts,
        group_of=_group_of(metrics, counts),
        test=test,
        validation=validation,
        stages=_stages(_table(metrics.get("stages"))),
        history=tuple(Epoch(stage, step, values) for step, (stage, values) in enumerate(epochs, start=1)),
        seeds={
            name: int(cast("int", value)) for name, value in _table(metrics.get("seeds")).items() if value is not None
        },
        data_hash=str(metrics.get("data_hash") or ""),
        versions=_table(metrics.get("versions")),
        hardware=_table(metrics.get("hardware")),
        seconds=_table(metrics.get("seconds")),
        adjustment=read_adjustment(root),
        never_judged={name: int(cast("int", count)) for name, count in _table(metrics.get("never_judged")).items()},
    )


def _table(value: Value) -> Table:
    return value if isinstance(value, dict) else {}


def _metrics(value: Value) -> Metrics | None:
    if not isinstance(value, dict):
        return None
    if "intervals" not in value and value.get("per_class"):  # from a version that kept none
        value = _with_intervals(value)
    scalars = {name: cast("float | None", value.get(name)) for name in SCALARS}
    kept = _table(value.get("intervals"))
    intervals = {name: _ends(kept[name]) for name in SCALARS if kept.get(name) is not None}
    classes = tuple(_class_result(cast("Table", row)) for row in cast("list[Value]", value.get("per_class") or []))
    num_images = value.get("num_images") or sum(row.test_count for row in classes)
    return Metrics(int(cast("int", num_images)), scalars, classes, intervals, str(kept.get("unit") or "image"))


def _with_intervals(value: Table) -> Table:
    rows = cast("list[Table]", value["per_class"])
    images = np.array([float(cast("float", row.get("test_count") or 0)) for row in rows])
    right = np.array([float(cast("float", row.get("recall") or 0)) for row in rows]) * images
    # Of precision only the share is kept, not of how many.
    return cast("Table", add_intervals(cast("Summary", value), right, images, np.zeros_like(images)))


def _ends(value: Value) -> Ends:
    low, high = cast("list[float]", value)
    return float(low), float(high)


def _class_result(row: Table) -> ClassResult:
    recall, precision, f1 = (cast("float | None", row.get(name)) for name in ("recall", "precision", "f1"))
    count = int(cast("int", row["train_count"]))
    tested = int(cast("int", row.get("test_count") or 0))
    group, kept = cast("GroupName", row["group"]), row.get("recall_interval")
    interval = None if kept is None else _ends(kept)
    return ClassResult(str(row["name"]), count, tested, group, recall, precision, f1, interval)


def _stages(table: Table) -> dict[int, Metrics]:
    found = {int(name.removeprefix("stage")): _metrics(_table(value).get("test")) for name, value in table.items()}
    return {number: metrics for number, metrics in sorted(found.items()) if metrics is not None}


def _group_of(metrics: Table, counts: ClassCounts) -> tuple[GroupName, ...]:
    groups = _table(metrics.get("groups"))
    result: list[GroupName] = list(counts.group_of())
    for name in GROUP_NAMES:
        for index in cast("list[int]", groups.get(name) or []):
            result[index] = name
    return tuple(result)
