"""Configurations and runs for a section: those it shows, those its sentence names, and differences to the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from longtail.analysis.columns import AnalyzedSplit
from longtail.analysis.norms import is_cosine
from longtail.compare.differences import Between, Measure, difference_between, difference_text
from longtail.compare.seeds import MeanStd
from longtail.compare.table import Comparison, Row
from longtail.counts import GROUP_NAMES, FloatArray, GroupName, IntArray
from longtail.evaluation.metrics import Mask, group_masks
from longtail.formatting import listing, percent
from longtail.report.plots import GROUP_LABELS, GROUP_SYMBOLS
from longtail.report.section import Key
from longtail.run.result import RunResult
from longtail.run.tables import Predictions

T = TypeVar("T")

JUDGED = "balanced_accuracy"
"""The figure by which a configuration or value is called best; a validation split may be as long-tailed as training."""


@dataclass(frozen=True, eq=False)
class FirstRun(Generic[T]):
    """A configuration and the first of its runs that has some content, which is the one that is drawn.

    Attributes:
        row: The configuration.
        run: The run.
        seeds: Number of runs of the configuration with such content.
        content: The content.
        split: Split that was measured, where there are several.
    """

    row: Row
    run: RunResult
    seeds: int
    content: T
    split: str = ""

    @property
    def label(self) -> str:
        """Name of the configuration."""
        return self.row.label

    def measured(self, values: Mapping[str, FloatArray], **options: Any) -> Measured:
        """Add values to draw; further options are those of :class:`Measured`."""
        return Measured(self.row, self.run, self.seeds, values, self.split, **options)


def first_runs(comparison: Comparison, read: Callable[[RunResult], T | None]) -> list[FirstRun[T]]:
    """Select the first run of each configuration that ``read`` returns something for."""
    first = []
    for row in comparison.final:
        contents = [(run, content) for run in row.runs if (content := read(run)) is not None]
        if contents:
            run, content = contents[0]
            first.append(FirstRun(row, run, len(contents), content))
    return first


@dataclass(frozen=True, eq=False)
class Measured(FirstRun[Mapping[str, FloatArray]]):
    """A run with the values that are drawn of it.

    Attributes:
        content: The values by name: shape (C,), one for each class; or (E, G), for each epoch and group.
        stage: Stage of each epoch, shape (E,); empty where values belong to classes.
        notes: A line of hover text for each class, or None.
    """

    stage: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    notes: Sequence[str] | None = None

    @property
    def has_cosine_head(self) -> bool:
        """Whether the classifier sees only the direction of features; such values compare with each other only."""
        model = self.run.config.get("model")
        return isinstance(model, dict) and is_cosine(str(model.get("head")))

    @property
    def values(self) -> Mapping[str, FloatArray]:
        """The values by name."""
        return self.content

    @property
    def groups(self) -> list[GroupName]:
        """The shot groups that have classes, the largest classes first."""
        return [name for name in GROUP_NAMES if name in self.run.group_of]

    @property
    def end(self) -> int:
        """The last epoch of the first stage, as an index."""
        return int(np.flatnonzero(self.stage == self.stage[0])[-1])

    def has(self, key: str) -> bool:
        """Whether any of the values of this name is finite."""
        return key in self.values and bool(np.isfinite(self.values[key]).any())


def analyzed_splits(comparison: Comparison) -> list[FirstRun[AnalyzedSplit]]:
    """The configurations with an analyzed run, all on one split, ``"test"`` where all have one."""
    first = first_runs(comparison, lambda run: run.analysis)
    name = "test" if all(each.content.test for each in first) else "train"
    return [
        FirstRun(each.row, each.run, each.seeds, split, name)
        for each in first
        if (split := each.content.split(name)) is not None
    ]


def analyzed(comparison: Comparison) -> list[Measured]:
    """The configurations with an analyzed run, with what was measured of each class."""
    return [each.measured(vars(each.content.classes)) for each in analyzed_splits(comparison)]


ABSENT = {
    "analysis": "Not analyzed, and so not in the sections on features: {}. longtail analyze RUN adds it.",
    "dynamics": "Without recorded gradients, and so not in the sections on them: {}; --training.record_dynamics true "
    "records them while it trains.",
}
"""Parts of a run that some sections need, with the note on configurations that lack them."""


def absent_notes(comparison: Comparison) -> list[str]:
    """List the configurations that some sections leave out, and the remedy; nothing where those show all or none."""
    notes = []
    for part, note in ABSENT.items():
        without = [row.label for row in comparison.final if all(getattr(run, part) is None for run in row.runs)]
        if 0 < len(without) < len(comparison.final):
            notes.append(note.format(listing(without)))
    return notes


def group_keys(run: RunResult) -> tuple[Key, ...]:
    """The legend of the shot groups that have classes."""
    return tuple(Key(name, GROUP_SYMBOLS[name], GROUP_LABELS[name]) for name in GROUP_NAMES if name in run.group_of)


LINES = ("line", "dotted", "dashdot")
"""Strokes in the legend, in the order of the dashes of :func:`longtail.report.plots.run_style`."""


def run_keys(rows: Sequence[Row]) -> tuple[Key, ...]:
    """The legend of a figure that has one line a configuration."""
    return tuple(Key(f"run{row.color % 8}", LINES[row.color // 8 % 3], row.label) for row in rows)


def against_first(
    rows: Sequence[Row],
    split: str | None,
    value: Measure,
    *,
    words: Callable[[float], str] = percent,
    between: Between | None = None,
) -> str:
    """Put a fraction of each configuration in words, with the difference to the first in points.

    ``22.0% under ce; 40.1% under gcl, 18.1 points higher``; empty where nothing was measured.

    Args:
        rows: The configurations.
        split: The split they were measured on.
        value: The fraction of a run.
        words: Format of the value.
        between: Gives the interval over the test images; without it, fewer than three seeds are not judged.
    """
    parts: list[str] = []
    for row in spoken(rows):
        over_seeds = MeanStd.of([value(run) for run in row.runs])
        if over_seeds is None:
            continue
        text = f"{words(over_seeds.mean)} under {row.label}"
        if parts and row is not rows[0]:
            change = difference_between(row.runs, rows[0].runs, split, value, between)
            if change and len(rows) > NAMED:  # the best of them was picked by its result
                change = change.to_the_best_of(len(rows))
            text += f", {difference_text(change)}"
        parts.append(text)
    return "; ".join(parts)


NAMED = 5
"""Of more configurations than this a sentence speaks of the first and the best only."""


def named(panels: Sequence[T], row_of: Callable[[T], Row]) -> list[T]:
    """Select the panels, runs or other stand-ins of configurations that a sentence names.

    These are all of a few; else the first, and the one best on few-shot classes, or on the average class where there is
    no such group.

    Args:
        panels: One for each configuration.
        row_of: The configuration of one of them.
    """
    if len(panels) <= NAMED:
        return list(panels)

    def reached(panel: T) -> float:
        values = row_of(panel).values
        value = values["few"] or values["balanced_accuracy"]
        return value.mean if value else 0.0

    return [panels[0], max(panels[1:], key=reached)]


def spoken(rows: Sequence[Row]) -> list[Row]:
    """Select the configurations that a sentence names, by :func:`named`."""
    return named(rows, lambda row: row)


def seed_note(seeds: Iterable[int]) -> str:
    """Say that of several seeds only one is drawn; empty where there is one of each.

    Args:
        seeds: Number of runs of each configuration.

    Example:
        >>> seed_note([1, 3]), seed_note([1, 1])
        (' Of several seeds the first is drawn.', '')
    """
    return " Of several seeds the first is drawn." if any(count > 1 for count in seeds) else ""


def side_by_side(panels: int) -> str:
    """The layout of a section with one panel a configuration: no line of them is left with a single one for long.

    Example:
        >>> [side_by_side(panels) for panels in (1, 2, 3, 4, 9)]
        ['one', 'two', 'three', 'two', 'three']
    """
    return {1: "one", 2: "two", 4: "two"}.get(panels, "three")


Part = Literal["all", "many", "medium", "few"]
PARTS: tuple[Part, ...] = ("all", *GROUP_NAMES)
PART_LABELS: dict[Part, str] = {part: "All images" if part == "all" else GROUP_LABELS[part] for part in PARTS}


def predicted_rows(comparison: Comparison) -> list[Row]:
    """The configurations with a run that kept its predictions of the test split; none where that is not compared."""
    return [row for row in comparison.final if comparison.split == "test" and known_predictions(row)]


def known_predictions(row: Row) -> list[tuple[RunResult, Predictions]]:
    """The runs of a configuration that kept their predictions, with them."""
    return [(run, run.predictions) for run in row.runs if run.predictions is not None and run.predictions.label.size]


def pooled_predictions(row: Row) -> tuple[IntArray, IntArray]:
    """Labels and predicted classes of the test images of all seeds of a configuration, one seed after another."""
    predictions = [each for _, each in known_predictions(row)]
    label = np.concatenate([each.label for each in predictions])
    return label, np.concatenate([each.prediction for each in predictions])


def part_masks(run: RunResult, predictions: Predictions) -> dict[Part, Mask]:
    """Mask the test images of each part, by their true class; shape (N,)."""
    groups = group_masks(predictions.label, run.group_of)
    return dict([("all", np.ones(len(predictions.label), dtype=bool)), *groups.items()])


def smallest_group(run: RunResult) -> GroupName:
    """The shot group with the fewest training images a class that has classes at all."""
    return next(name for name in reversed(GROUP_NAMES) if name in run.group_of)


MOST_BANDS = 4
"""Bands of more configurations than this would hide each other."""
BAND_SENTENCE = "Bands are 95% intervals over the test images."


def has_bands(rows: Sequence[Row]) -> bool:
    """Whether a figure of these configurations has bands: few configurations, tested on images that stand alone."""
    tested = [run.test for row in rows for run in row.runs]
    return len(rows) <= MOST_BANDS and all(metrics is not None and metrics.unit == "image" for metrics in tested)
