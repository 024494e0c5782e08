"""The classifiers that were tried on stored features: accuracy against balanced accuracy of each, and the choice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import plotly.graph_objects as go
from scipy.special import expit, logit

from longtail.compare.table import Comparison
from longtail.config.options import Metric
from longtail.counts import GROUP_NAMES, FloatArray, GroupName
from longtail.evaluation.intervals import LEVEL_TEXT
from longtail.formatting import figure_text, interval_text, percent
from longtail.report.builders import Measure
from longtail.report.configurations import FirstRun, first_runs, seed_note, side_by_side
from longtail.report.label_places import GAP, PLACES, place_labels
from longtail.report.plots import INK, MUTED, THEME, blank, clip
from longtail.report.section import Cell, Drawing, Key, Section, Table, read_aloud
from longtail.run.portfolio import METRIC_WORDS, CandidateResult, Portfolio
from longtail.run.result import Ends

CHOSEN, OTHER, GRAY = (THEME[name][0] for name in ("run1", "run2", "run0"))
ACCURACY: Final = Measure("accuracy", "portfolio", "Accuracy", ".1%")
BALANCED: Final = Measure("balanced", "portfolio", "Balanced accuracy", ".1%")
HEIGHT: Final = 460
NAMED: Final = 8
"""Finalists that are named in the figure, besides the two ends; more would hide each other, and hovering names them."""
FAR: Final = 0.25
"""Of what the finalists take up on an axis: candidates dropped early that are farther outside are not drawn."""
_LEAST_SHARE: Final = 0.005  # of right answers, where none or all are right: log-odds are finite
AREAS: Final[dict[str, tuple[float, float]]] = {"one": (680, 400), "two": (450, 400), "three": (265, 400)}
"""Pixels of the points of a figure for each layout of the section; places for the names are found in these."""
SHORT: Final[dict[Metric, str]] = {
    "balanced": "Balanced",
    "accuracy": "Accuracy",
    "macro-f1": "Macro F1",
    "worst-group": "Worst group",
}
"""Headings of the metrics."""


def build(comparison: Comparison) -> Section | None:
    """Draw the candidates of each configuration; None where no classifier was chosen from a portfolio."""
    shown = first_runs(comparison, lambda run: run.portfolio if run.portfolio and run.portfolio.candidates else None)
    if not shown:
        return None
    titles = [_title(each) for each in shown] if len(comparison.final) > 1 else [""]
    trials = [each.content for each in shown]
    limits = ACCURACY.ends(_extent(trials, 0)), BALANCED.ends(_extent(trials, 1))
    layout, drawings = side_by_side(len(shown)), []
    for position, (title, portfolio) in enumerate(zip(titles, trials, strict=True)):
        columns = Columns.of([portfolio])
        rows = [columns.row(portfolio, each) for each in portfolio.finalists]
        alt = read_aloud("Points of accuracy against balanced accuracy in %", columns.heads, rows, labels=2)
        drawings.append(Drawing(f"portfolio-{position}", title, alt, _figure(portfolio, limits, AREAS[layout])))
    sentences = [verdict(portfolio, title) for title, portfolio in zip(titles, trials, strict=True)]
    sentences.append(_explanation(trials) + seed_note(each.seeds for each in shown))
    return Section(
        "portfolio",
        "Classifier",
        " ".join(sentences),
        layout,
        _legend(trials),
        tuple(drawings),
        table=_table(titles, trials),
    )


def _title(each: FirstRun[Portfolio]) -> str:
    return f"{each.label}, seed {each.run.seed}" if len(each.row.runs) > 1 else each.label


def dropped(portfolio: Portfolio) -> list[CandidateResult]:
    """The candidates dropped early, with their figures moved to where those of the finalists are.

    They were judged on other images and after a shorter training. What the finalists gained or lost since under the
    same logit adjustment, in the mean and in log-odds, is added, so that no figure reaches 100% by being moved. Figures
    that were kept for the chosen adjustment alone count where it has stayed the same.

    Args:
        portfolio: All candidates, and the first round of the finalists.
    """
    pairs = list(zip(portfolio.first_round, portfolio.finalists, strict=True))
    stayed = [(before, after) for before, after in pairs if before.tau == after.tau]
    score = _mean_change((before.score, after.score) for before, after in stayed)
    groups = {
        name: _mean_change((b.groups[name], a.groups[name]) for b, a in stayed if name in b.groups)
        for name in portfolio.choice.groups
        if any(name in before.groups for before, _ in pairs)
    }
    moved = []
    for each in portfolio.candidates[len(portfolio.finalists) :]:
        # Accuracy and balanced accuracy of each finalist in both rounds, under the adjustment of this candidate.
        both = [(_under(each.tau, before), _under(each.tau, after)) for before, after in pairs]
        known = [(before, after) for before, after in both if before and after]
        accuracy = _moved(each.accuracy, _mean_change((before[0], after[0]) for before, after in known))
        balanced = _moved(each.balanced_accuracy, _mean_change((before[1], after[1]) for before, after in known))
        by_metric = {"accuracy": accuracy, "balanced": balanced}
        moved.append(
            replace(
                each,
                score=by_metric.get(portfolio.metric, _moved(each.score, score)),
                accuracy=accuracy,
                balanced_accuracy=balanced,
                groups={name: _moved(value, groups[name]) for name, value in each.groups.items() if name in groups},
            )
        )
    return moved


def _under(tau: float, candidate: CandidateResult) -> tuple[float, float] | None:
    """Return accuracy and balanced accuracy under a strength of adjustment, where that was tried."""
    return next(((accuracy, balanced) for each, accuracy, balanced in candidate.adjustments if each == tau), None)


def _mean_change(figures: Iterable[tuple[float, float]]) -> float:
    """Return the mean change of figures before and after in log-odds; 0 where there are none."""
    changes = [_log_odds(after) - _log_odds(before) for before, after in figures]
    return float(np.mean(changes)) if changes else 0.0


def _log_odds(share: float) -> float:
    return float(logit(np.clip(share, _LEAST_SHARE, 1 - _LEAST_SHARE)))


def _moved(share: float, change: float) -> float:
    return float(expit(_log_odds(share) + change)) if change else share


def _extent(portfolios: Sequence[Portfolio], axis: int) -> Iterator[list[float]]:
    """What an axis has to hold: the points that are drawn, whiskers and lines; 0 is accuracy, 1 balanced accuracy."""
    for portfolio in portfolios:
        yield [_place(each)[axis] for each in _drawn(portfolio)]
        yield _of_finalists(portfolio, axis)


def _of_finalists(portfolio: Portfolio, axis: int) -> list[float]:
    """The ends of whiskers and lines of the finalists along an axis."""
    ends = [end for each in portfolio.finalists for end in (each.accuracy_interval, each.balanced_interval)[axis]]
    return ends + [point[axis] for each in portfolio.finalists for point in _trade(portfolio, each)]


def _drawn(portfolio: Portfolio) -> list[CandidateResult]:
    """The candidates dropped early that are not far outside of what the finalists take up."""
    low, high = np.array([[min(ends), max(ends)] for ends in (_of_finalists(portfolio, axis) for axis in (0, 1))]).T
    reach = FAR * (high - low)
    left, right = low - reach, high + reach
    return [each for each in dropped(portfolio) if np.all((left <= _place(each)) & (_place(each) <= right))]


def _place(candidate: CandidateResult) -> tuple[float, float]:
    return candidate.accuracy, candidate.balanced_accuracy


def _figure(portfolio: Portfolio, limits: tuple[Ends, Ends], area: tuple[float, float]) -> go.Figure:
    """Accuracy across, balanced accuracy up: those dropped, the finalists with their adjustments, the two ends."""
    figure = blank(HEIGHT, left=60)
    choice, other = portfolio.choice, portfolio.other_end
    colors = {_key(choice): CHOSEN} if other is None else {_key(other): OTHER} | {_key(choice): CHOSEN}
    for each in sorted(portfolio.finalists, key=lambda finalist: _key(finalist) in colors):
        x, y = zip(*_trade(portfolio, each), strict=True)
        color = colors.get(_key(each), GRAY)
        line, faint = {"color": color, "width": 1.5}, 0.35 if color == GRAY else 1.0
        figure.add_scatter(x=x, y=y, mode="lines", line=line, opacity=faint, name="adjustments", hoverinfo="skip")
    _add_points(figure, portfolio, _drawn(portfolio), "dropped", GRAY, size=6, opacity=0.45)
    rest = [each for each in portfolio.finalists if each is not choice]
    ends = [choice, *([other] if other else [])]
    named = rest[:NAMED]
    places = _label_places([*ends, *named], portfolio, limits, area)
    _add_points(figure, portfolio, rest, "finalists", INK, whiskers=GRAY, size=8)
    font, unnamed = {"size": 12, "color": MUTED}, len(rest) - len(named)
    texts = [clip(_name(portfolio, each)) for each in named] + [""] * unnamed
    positions = places[len(ends) :] + [next(iter(PLACES))] * unnamed
    figure.data[-1].update(mode="markers+text", text=texts, textposition=positions, textfont=font)
    if other is not None:
        _add_points(figure, portfolio, [other], "other end", OTHER, symbol="triangle-up", size=14)
    _add_points(figure, portfolio, [choice], "chosen", CHOSEN, whiskers=CHOSEN, symbol="diamond", size=15)
    for each, color, place in zip(ends, (CHOSEN, OTHER), places, strict=False):
        # Not a text of the trace: those are hidden on a narrow screen.
        _add_name(figure, each, _name(portfolio, each), color, place)
    figure.update_xaxes(ACCURACY.axis_options(limits[0], ACCURACY.title), showgrid=True)
    return figure.update_yaxes(BALANCED.axis_options(limits[1], BALANCED.title))


def _key(candidate: CandidateResult) -> tuple[str, float]:
    return candidate.name, candidate.lr


def _name(portfolio: Portfolio, candidate: CandidateResult) -> str:
    """The name in the figure, with the learning rate where another finalist has the same name."""
    is_shared = sum(each.name == candidate.name for each in portfolio.finalists) > 1
    return f"{candidate.name}, lr {candidate.lr:.2g}" if is_shared else candidate.name


def _trade(portfolio: Portfolio, finalist: CandidateResult) -> list[tuple[float, float]]:
    """Accuracy and balanced accuracy of a finalist, from its own adjustment to the one that is best for the other."""
    swapped = portfolio.metric == "accuracy"
    own = _place(finalist)
    points = sorted((accuracy, balanced) for _, accuracy, balanced in finalist.adjustments)
    return [own, *(point for point in (reversed(points) if swapped else points) if point[swapped] > own[swapped])]


def _label_places(
    labeled: Sequence[CandidateResult], portfolio: Portfolio, limits: tuple[Ends, Ends], area: tuple[float, float]
) -> list[str]:
    """Find a place for the name of each of the candidates."""
    low, high = np.array(limits).T

    def pixels(*place: float) -> FloatArray:
        return np.asarray((np.array(place) - low) / (high - low) * area)

    points = np.array([pixels(*_place(each)) for each in labeled])
    marks = np.array([pixels(*place) for place in {*map(_place, portfolio.finalists), *map(_place, labeled)}])
    whiskers = []
    for each in portfolio.finalists:
        (left, right), (bottom, top) = each.accuracy_interval, each.balanced_interval
        whiskers.append([*pixels(left, each.balanced_accuracy), *pixels(right, each.balanced_accuracy)])
        whiskers.append([*pixels(each.accuracy, bottom), *pixels(each.accuracy, top)])
    names = [_name(portfolio, each) for each in labeled]
    return place_labels(points, names, np.hstack([marks - GAP, marks + GAP]), whiskers, area)


def _add_name(figure: go.Figure, candidate: CandidateResult, name: str, color: str, place: str) -> None:
    """Write the name of a candidate in one of the places of :func:`place_labels`."""
    across, up = PLACES[place]
    figure.add_annotation(
        x=candidate.accuracy,
        y=candidate.balanced_accuracy,
        text=f"<b>{clip(name)}</b>",
        font={"size": 13, "color": color},
        showarrow=False,
        xanchor={1: "left", 0: "center", -1: "right"}[across],
        yanchor={1: "bottom", 0: "middle", -1: "top"}[up],
        xshift=across * GAP,
        yshift=up * GAP,
    )


def _add_points(
    figure: go.Figure,
    portfolio: Portfolio,
    candidates: Sequence[CandidateResult],
    name: str,
    color: str,
    *,
    whiskers: str = "",
    **marker: str | float,
) -> None:
    """Draw points with their hover text, and whiskers of a color where one is given."""
    across, up = (np.array([_place(each)[axis] for each in candidates]) for axis in (0, 1))
    bars = {}
    for axis, values in (("x", across), ("y", up)) if whiskers and candidates else ():
        ends = np.array([each.accuracy_interval if axis == "x" else each.balanced_interval for each in candidates])
        reach = {"symmetric": False, "array": ends[:, 1] - values, "arrayminus": values - ends[:, 0]}
        bars[f"error_{axis}"] = reach | {"color": whiskers, "thickness": 1, "width": 0}
    figure.add_scatter(
        x=across,
        y=up,
        mode="markers",
        name=name,
        marker={"color": color, **marker},
        hovertext=[_hover(portfolio, each) for each in candidates],
        hovertemplate="%{hovertext}<extra></extra>",
        **bars,
    )


def _hover(portfolio: Portfolio, each: CandidateResult) -> str:
    about = "" if each.folds == portfolio.folds else "about "
    groups = ", ".join(f"{name} {percent(value)}" for name, value in each.groups.items())
    penalty = "L2 penalty" if each.optimizer == "adam" else "weight decay"
    lines = [
        f"<b>{clip(each.name)}</b>, tau {each.tau:g}",
        f"Accuracy {about}{percent(each.accuracy)}, balanced {about}{percent(each.balanced_accuracy)}",
        f"Groups {about}{groups}" if groups else "",
        f"{each.head.capitalize()} head, learning rate {each.lr:.2g}, {penalty} {each.weight_decay:.2g}",
        f"{each.folds} of {portfolio.folds} folds, {each.seconds:.1f} s",
    ]
    return "<br>".join(filter(None, lines))


def _other_word(portfolio: Portfolio) -> str:
    return "Highest balanced accuracy" if portfolio.metric == "accuracy" else "Most accurate"


def _legend(portfolios: Sequence[Portfolio]) -> tuple[Key, ...]:
    keys = [
        Key("run1", "diamond", "Chosen"),
        Key("ink", "circle", "Tried on all folds"),
        Key("run0", "circle", "Dropped after one fold"),
        Key("run0", "line", "The same with another adjustment"),
    ]
    others = {_other_word(each): None for each in portfolios if each.other_end}
    keys[1:1] = [Key("run2", "triangle-up", word) for word in others]
    return tuple(keys)


@dataclass(frozen=True)
class Columns:
    """The columns of the table that not every portfolio has.

    Attributes:
        metrics: What was compared, then balanced accuracy and accuracy.
        groups: Shot groups that have images.
    """

    metrics: tuple[Metric, ...]
    groups: tuple[GroupName, ...]

    @classmethod
    def of(cls, portfolios: Sequence[Portfolio]) -> Columns:
        """Collect the columns that any of the portfolios needs."""
        metrics: list[Metric] = [*(each.metric for each in portfolios), "balanced", "accuracy"]
        groups = [name for name in GROUP_NAMES if any(name in each.choice.groups for each in portfolios)]
        return cls(tuple(dict.fromkeys(metrics)), tuple(groups))

    @property
    def heads(self) -> tuple[str, ...]:
        """Headings of the whole table."""
        figures = [*(SHORT[metric] for metric in self.metrics), *(name.capitalize() for name in self.groups)]
        return ("Classifier", "Head", *figures, "Behind", "Learning rate", "Folds", "Seconds")

    def row(self, portfolio: Portfolio, each: CandidateResult) -> tuple[Cell, ...]:
        """The figures of a candidate; those of one dropped early are estimates, without intervals."""
        figures: dict[Metric, tuple[float, Ends]] = {
            portfolio.metric: (each.score, each.interval),
            "balanced": (each.balanced_accuracy, each.balanced_interval),
            "accuracy": (each.accuracy, each.accuracy_interval),
        }
        about = "" if each.folds == portfolio.folds else "\u2248 "
        cells: list[Cell] = [
            (about + percent(figures[metric][0], unit=False), "" if about else interval_text(figures[metric][1]))
            if metric in figures
            else "n/a"
            for metric in self.metrics
        ]
        cells += [
            about + percent(each.groups[name], unit=False) if name in each.groups else "n/a" for name in self.groups
        ]
        name = f"{each.title} (chosen)" if each is portfolio.choice else each.title
        return (name, each.head, *cells, _behind(each), f"{each.lr:.2g}", f"{each.folds}", f"{each.seconds:.1f}")


def _table(titles: Sequence[str], portfolios: Sequence[Portfolio]) -> Table:
    """All candidates, the best first; in front of them the configuration where there are several."""
    columns, several = Columns.of(portfolios), len(portfolios) > 1
    rows = [
        (*([title] if several else []), *columns.row(portfolio, each))
        for title, portfolio in zip(titles, portfolios, strict=True)
        for each in (*portfolio.finalists, *dropped(portfolio))
    ]
    caption = (
        f"Figures in % on images held out; small: the {LEVEL_TEXT} interval. Behind: points behind the best on the "
        "same images, \u00b1 standard error. \u2248: dropped after one fold, and moved by what the finalists "
        "changed under the same adjustment."
    )
    heads = (*(["Configuration"] if several else []), *columns.heads)
    return Table(caption, heads, tuple(rows), labels=2 + several, folded=f"All {len(rows)} candidates")


def verdict(portfolio: Portfolio, title: str = "") -> str:
    """Say what was compared, what was chosen and why, and what the other end of the trade would give.

    Args:
        portfolio: The candidates and the choice.
        title: Configuration and seed, where there are several.
    """
    choice, best, finalists = portfolio.choice, portfolio.candidates[0], len(portfolio.finalists)
    text = (
        f"{title + ': ' if title else ''}{len(portfolio.candidates)} classifiers on the stored features were compared "
        f"by {METRIC_WORDS[portfolio.metric]}, in {portfolio.procedure} on {portfolio.images:,} "
        "training images"
    )
    if finalists < len(portfolio.candidates):
        text += f"; the best {finalists} of the first fold were tried on all"
    text += f". Chosen: {choice.title}, "
    if choice is best:
        text += f"the highest with {figure_text(choice.score, choice.interval)}."
    else:
        text += f"with {figure_text(choice.score, choice.interval)}: {_behind(choice)} points behind {best.title}, too "
        text += "little to tell them apart, and simpler."
    other = portfolio.other_end
    if other is None:
        return f"{text} No other has a higher {'balanced ' * (portfolio.metric == 'accuracy')}accuracy."
    figures = [
        f"{percent(value)} {word}, {percent(abs(value - before), unit=False)} points "
        f"{'higher' if value > before else 'lower'}"
        for word, value, before in (
            ("accuracy", other.accuracy, choice.accuracy),
            ("balanced accuracy", other.balanced_accuracy, choice.balanced_accuracy),
        )
    ]
    if portfolio.other_metric == "balanced":
        figures.reverse()
    end = f"{other.name}, tau {other.tau:g}"
    return f"{text} The other end (--metric {portfolio.other_metric}) is {end}: {', and '.join(figures)}."


def _behind(each: CandidateResult) -> str:
    """The difference from the best with its standard error, in points."""
    points = percent(each.behind, unit=False)
    return f"{points} \u00b1 {percent(each.behind_error, unit=False)}" if each.behind_error else points


def _explanation(portfolios: Sequence[Portfolio]) -> str:
    """What the figures show, and what they are not."""
    text = (
        f"Whiskers are {LEVEL_TEXT} intervals over the images held out; tau is the strength of the logit adjustment "
        "after training."
    )
    if any(dropped(each) for each in portfolios):
        text += " Those dropped early stand about where all folds would put them."
    if far := sum(len(dropped(each)) - len(_drawn(each)) for each in portfolios):
        text += f" {far} of them {'is' if far == 1 else 'are'} too far off for the figure, and in the table."
    return f"{text} The highest of several flatters itself: what to expect is in the results on test images."
