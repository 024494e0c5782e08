"""Configurations whose runs were analysed, the run of each that is drawn, and trends over classes as words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.analysis.columns import AnalysedSplit, Analysis
from longtail.analysis.norms import RankTrend, is_cosine, rank_trend
from longtail.compare.differences import Between, Measure, difference_between, difference_text
from longtail.compare.seeds import MeanStd
from longtail.compare.table import Comparison, Row
from longtail.counts import GROUP_NAMES, FloatArray, GroupName, IntArray
from longtail.evaluation.groups import Mask, group_masks
from longtail.evaluation.significance import Difference
from longtail.report.captions import named, spoken
from longtail.report.plots.canvas import epoch_axis
from longtail.report.plots.palette import GROUP_COLORS, GROUP_LABELS, GROUP_SYMBOLS
from longtail.report.section import Key
from longtail.run.dynamics import Dynamics
from longtail.run.result import Predictions, RunResult
from longtail.text import listing, number, percent

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """A configuration, the run of it that is drawn, and the values of that run.

    Attributes:
        row: The configuration.
        run: Its first run that has the values.
        seeds: How many of its runs have them.
        values: By name: shape (C,), a value for each class; or (E, G), for each epoch and group.
        split: Of the images that were measured, where there are several.
        stage: Of each epoch, shape (E,); empty where values belong to classes.
        notes: A line for each class one points at; None for none.
        kind: Values are compared between configurations of one kind only.
    """

    row: Row
    run: RunResult
    seeds: int
    values: Mapping[str, FloatArray]
    split: str = ""
    stage: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    notes: Sequence[str] | None = None
    kind: str = ""

    @property
    def label(self) -> str:
        """Name of the configuration."""
        return self.row.label

    @property
    def groups(self) -> list[GroupName]:
        """The shot groups that have classes, the largest classes first."""
        return [name for name in GROUP_NAMES if name in self.run.group_of]

    @property
    def end(self) -> int:
        """The last epoch of the first stage, as an index."""
        return int(np.flatnonzero(self.stage == self.stage[0])[-1])


def first_runs(comparison: Comparison, read: Callable[[RunResult], T | None]) -> list[tuple[Row, RunResult, T, int]]:
    """Of each configuration the first run that ``read`` gives something of, with that, and how many runs have it."""
    chosen = []
    for row in comparison.final:
        contents = [(run, content) for run in row.runs if (content := read(run)) is not None]
        if contents:
            chosen.append((row, *contents[0], len(contents)))
    return chosen


def analyzed(comparison: Comparison) -> list[Measured]:
    """The configurations with an analyzed run, each with its values for each class; all on one split."""
    chosen = first_runs(comparison, lambda run: run.analysis)
    name = "test" if all(analysis.test for _, _, analysis, _ in chosen) else "train"
    return [
        Measured(row, run, seeds, vars(split.classes), name, kind="cosine" if has_cosine_head(run) else "")
        for row, run, analysis, seeds in chosen
        if (split := analysis.split(name)) is not None
    ]


def has_cosine_head(run: RunResult) -> bool:
    """Whether the classifier of a run sees nothing of a feature but its direction."""
    model = run.config.get("model")
    return isinstance(model, dict) and is_cosine(str(model.get("head")))


@dataclass(frozen=True)
class Learned:
    """A configuration, and what of it is drawn.

    Attributes:
        row: The configuration.
        run: Its first run that was analysed.
        name: The split that is drawn, ``"test"`` where there is one.
        split: What was measured on it.
        seeds: How many runs of the configuration were analysed.
    """

    row: Row
    run: RunResult
    name: str
    split: AnalysedSplit
    seeds: int

    @property
    def is_cosine(self) -> bool:
        """Whether its classifier sees nothing of a feature but its direction."""
        model = self.run.config.get("model")
        return isinstance(model, dict) and is_cosine(str(model.get("head")))


def learned_rows(comparison: Comparison) -> list[Learned]:
    """The configurations with an analysed run, each with the first one; all on one split."""
    known = [(row, _analysed(row)) for row in comparison.final]
    found = [(row, runs) for row, runs in known if runs]
    name = "test" if all(analysis.test for _, runs in found for _, analysis in runs) else "train"
    return [
        Learned(row, runs[0][0], name, split, len(runs))
        for row, runs in found
        if (split := runs[0][1].split(name)) is not None
    ]


def _analysed(row: Row) -> list[tuple[RunResult, Analysis]]:
    return [(run, run.analysis) for run in row.runs if run.analysis is not None]


def absent_notes(comparison: Comparison) -> list[str]:
    """Which configurations some sections leave out, and how they get in; nothing where those show all or none."""
    rows, notes = comparison.final, []
    without = [row.label for row in rows if not _analysed(row)]
    if 0 < len(without) < len(rows):
        missing = listing(without)
        notes.append(f"Not analysed, and so not in the sections on features: {missing}. longtail analyse RUN adds it.")
    without = [row.label for row in rows if all(run.dynamics is None for run in row.runs)]
    if 0 < len(without) < len(rows):
        how = "--training.record_dynamics true records them while it trains"
        notes.append(f"Without recorded gradients, and so not in the sections on them: {listing(without)}; {how}.")
    return notes


def said_of(found: Sequence[Learned]) -> list[Learned]:
    """Those that a sentence names: all of a few, else the first and the one best on few-shot classes."""
    return named(found, lambda one: one.row)


def trend(one: Learned, values: npt.NDArray[np.floating]) -> RankTrend:
    """The rank correlation of something with the training images of its class."""
    return rank_trend(values, one.run.counts.array)


def trend_sentence(what: str, found: Sequence[tuple[str, RankTrend]]) -> str:
    """How something goes with the size of a class in each configuration, and that it does not where it does not.

    Example:
        >>> found = [("ce", RankTrend(0.8, 1e-9, 100)), ("fbl", RankTrend(0.1, 0.4, 100))]
        >>> print(trend_sentence("Feature norm", found))
        Feature norm rises with the number of training images under ce (rank correlation 0.80); there is no clear
        difference between large and small classes under fbl (0.10).
    """
    kinds: dict[str, list[str]] = {"rises": [], "falls": [], "no clear": [], "no": []}
    for label, one in found:
        if one.classes and np.isfinite(one.rho):
            none = "no" if one.is_none else "no clear"
            kind = none if not one.is_evidence else "rises" if one.rho > 0 else "falls"
            kinds[kind].append(f"under {label} ({number(one.rho)})")
    parts = [
        f"{kind} with the number of training images {listing(kinds[kind])}"
        for kind in ("rises", "falls")
        if kinds[kind]
    ]
    same = " and ".join(
        f"{kind} difference between large and small classes {listing(kinds[kind])}"
        for kind in ("no clear", "no")
        if kinds[kind]
    )
    if parts:
        text = f"{what} {' and '.join(parts)}" + (f"; there is {same}" if same else "")
    elif same:
        text = f"In {what[0].lower()}{what[1:]} there is {same}"
    else:
        return ""
    return text.replace(" (", " (rank correlation ", 1) + "."


def group_keys(run: RunResult) -> tuple[Key, ...]:
    """The legend of the shot groups that have classes."""
    return tuple(Key(name, GROUP_SYMBOLS[name], GROUP_LABELS[name]) for name in GROUP_NAMES if name in run.group_of)


def shared_range(found: Sequence[npt.NDArray[np.floating]], *, room: float = 0.06) -> list[float] | None:
    """The range of an axis that holds the finite values of all panels; None where there are none.

    Example:
        >>> shared_range([np.array([1.0, np.nan]), np.array([3.0])], room=0.5)
        [0.0, 4.0]
    """
    known = np.concatenate([values[np.isfinite(values)] for values in found]) if found else np.zeros(0)
    if not known.size:
        return None
    low, high = float(known.min()), float(known.max())
    pad = room * (high - low or abs(high) or 1.0)
    return [low - pad, high + pad]


LINES = ("line", "dotted", "dashdot")


"""Strokes in the legend, in the order of the dashes of :func:`longtail.report.plots.palette.run_style`."""


def run_keys(rows: Sequence[Row]) -> tuple[Key, ...]:
    """The legend of a figure that has one line a configuration."""
    return tuple(Key(f"run{row.color % 8}", LINES[row.color // 8 % 3], row.label) for row in rows)


def mean_of(row: Row, value: Measure) -> float | None:
    """The mean of a number over the runs of a configuration; None where none has it."""
    spread = MeanStd.of([value(run) for run in row.runs])
    return spread.mean if spread else None


def difference(
    row: Row, first: Row, split: str | None, value: Measure, between: Between | None = None
) -> Difference | None:
    """Difference to the first configuration; see :func:`longtail.compare.differences.difference_between`."""
    return difference_between(row.runs, first.runs, split, value, between)


def against_first(
    rows: Sequence[Row],
    split: str | None,
    value: Measure,
    *,
    words: Callable[[float], str] = percent,
    between: Between | None = None,
) -> str:
    """A fraction of each configuration in words, those after the first with their difference to it in points.

    ``22.0% under ce; 40.1% under gcl, 18.1 points higher``; empty where nothing was measured.

    Args:
        rows: The configurations.
        split: Where they were measured.
        value: The fraction of a run.
        words: How it is written.
        between: Gives the interval over the test images; without it, fewer than three seeds are not judged.
    """
    parts: list[str] = []
    for row in spoken(rows):
        mean = mean_of(row, value)
        if mean is None:
            continue
        text = f"{words(mean)} under {row.label}"
        if parts and row is not rows[0]:
            text += f", {difference_text(difference(row, rows[0], split, value, between))}"
        parts.append(text)
    return "; ".join(parts)


def seed_note(seeds: Iterable[int]) -> str:
    """Say that of several seeds only one is drawn; empty where there is one of each.

    Args:
        seeds: How many runs each configuration has.

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
    if comparison.split != "test":
        return []
    return [row for row in comparison.final if known_predictions(row)]


def known_predictions(row: Row) -> list[tuple[RunResult, Predictions]]:
    """The runs of a configuration that kept their predictions, with them."""
    return [(run, run.predictions) for run in row.runs if run.predictions is not None and run.predictions.label.size]


def part_masks(run: RunResult, found: Predictions) -> dict[Part, Mask]:
    """Which of a run's test images each part holds, by their true class; shape (N,)."""
    masks: dict[Part, Mask] = {"all": np.ones(len(found.label), dtype=bool)}
    masks.update(group_masks(found.label, run.group_of).items())
    return masks


def smallest_group(run: RunResult) -> GroupName:
    """The shot group with the fewest training images a class that has classes at all."""
    return next(name for name in reversed(GROUP_NAMES) if name in run.group_of)


@dataclass(frozen=True)
class Recorded:
    """A configuration and the first of its runs that recorded its gradients."""

    row: Row
    run: RunResult
    dynamics: Dynamics

    @property
    def tail(self) -> GroupName:
        """The smallest group that the run has."""
        return next(name for name in reversed(GROUP_NAMES) if name in self.run.group_of)


def recorded_rows(comparison: Comparison) -> list[Recorded]:
    """The configurations of which a run recorded its gradients."""
    found = []
    for row in comparison.final:
        pairs = [(run, run.dynamics) for run in row.runs if run.dynamics is not None]
        found += [Recorded(row, run, dynamics) for run, dynamics in pairs[:1] if dynamics is not None]
    return found


def group_legend(rows: Sequence[Recorded]) -> list[Key]:
    """One line a group that any of the runs has."""
    return [Key(name, "line", GROUP_LABELS[name]) for name in GROUP_NAMES if any(name in r.run.group_of for r in rows)]


def add_line(
    figure: go.Figure, steps: npt.NDArray[np.int64], values: FloatArray, *, name: str, says: str, **style: object
) -> None:
    """Draw a value of each epoch; epochs where it is NaN are left out, and a single one is a point."""
    known = np.isfinite(values)
    if not known.any():
        return
    mode = "lines" if known.sum() > 1 else "markers"
    figure.add_scatter(
        x=steps[known].astype(np.int32), y=values[known].astype(np.float32), mode=mode, name=name,
        line={"width": 2, **style}, marker={"color": style.get("color"), "size": 7},
        hovertemplate=f"%{{fullData.name}}<br>epoch %{{x}}: {says}<extra></extra>",
    )  # fmt: skip


def add_group_lines(
    figure: go.Figure, dynamics: Dynamics, values: FloatArray, *, says: str, dash: str = "solid"
) -> None:
    """Draw a line for each group; ``values`` has shape (E, 3)."""
    for row, name in enumerate(GROUP_NAMES):
        style = {"color": GROUP_COLORS[name], "dash": dash}
        add_line(figure, dynamics.steps, values[:, row], name=GROUP_LABELS[name], says=says, **style)


def shared_epochs(figure: go.Figure, rows: Sequence[Recorded], last: int) -> go.Figure:
    """An axis of ``last`` epochs, the same in all panels, with the starts of stage 2 of these runs."""
    epoch_axis(figure, [start for one in rows if (start := one.dynamics.stage_2) is not None], last)
    return figure


def last_epoch(rows: Sequence[Recorded]) -> int:
    """The most epochs that any of the runs recorded."""
    return max(len(one.dynamics.stage) for one in rows)
