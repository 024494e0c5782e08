"""What was compared before a run: networks, image sizes and fits, each with its score and the minutes it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import plotly.graph_objects as go

from longtail.compare.table import Comparison
from longtail.evaluation.intervals import LEVEL_TEXT
from longtail.formatting import figure_text, interval_text, percent
from longtail.report.builders import Measure
from longtail.report.configurations import first_runs, seed_note, side_by_side
from longtail.report.plots import MUTED, THEME, blank, clip
from longtail.report.section import Cell, Drawing, Key, Section, Table, read_aloud
from longtail.run.portfolio import METRIC_WORDS
from longtail.run.result import Ends
from longtail.run.search import PresentationResult, Search, WholeNetworkResult

SCORE: Final = Measure("score", "search", "Score", ".1%")
MINUTES: Final = Measure("minutes", "search", "Minutes of a run", "g", include=(0.0,))
HEIGHT: Final = 380
HEADS: Final = ("Network", "Pixels", "Fit", "Score", "Behind", "Minutes")


def build(comparison: Comparison) -> Section | None:
    """Draw score against minutes; None where nothing was compared."""
    shown = first_runs(comparison, lambda run: run.search if run.search and run.search.tried else None)
    if not shown:
        return None
    titles = [each.label if len(comparison.final) > 1 else "" for each in shown]
    searches = [each.content for each in shown]
    limits = (
        MINUTES.ends([[each.minutes for each in search.tried] for search in searches]),
        SCORE.ends([[end for each in search.tried for end in each.interval or ()] for search in searches]),
    )
    layout, drawings = side_by_side(len(shown)), []
    for position, (title, search) in enumerate(zip(titles, searches, strict=True)):
        rows = [_row(search, each) for each in search.tried]
        alt = read_aloud("Points of score against minutes", HEADS, rows, labels=3)
        drawings.append(Drawing(f"search-{position}", title, alt, _figure(search, limits)))
    sentences = [verdict(search, title) for title, search in zip(titles, searches, strict=True)]
    sentences.append(
        f"Scores are of quick classifiers on a sample of the training images, cross-validated; whiskers are "
        f"{LEVEL_TEXT} intervals.{seed_note(each.seeds for each in shown)}"
    )
    keys = (Key("run1", "diamond", "Chosen"), Key("run0", "circle", "Compared"))
    return Section(
        "search",
        "Network and images",
        " ".join(sentences),
        layout,
        keys,
        tuple(drawings),
        table=_table(titles, searches),
    )


def _figure(search: Search, limits: Sequence[Ends]) -> go.Figure:
    figure = blank(HEIGHT, left=60)
    for name, marker, members in (
        ("compared", {"color": THEME["run0"][0], "size": 9}, [e for e in search.tried if e is not search.choice]),
        ("chosen", {"color": THEME["run1"][0], "size": 15, "symbol": "diamond"}, [search.choice]),
    ):
        scores = [each.score or 0.0 for each in members]
        ends = [each.interval or (score, score) for each, score in zip(members, scores, strict=True)]
        figure.add_scatter(
            x=[each.minutes for each in members],
            y=scores,
            mode="markers+text",
            name=name,
            marker=marker,
            text=[_short(search, each) for each in members],
            textposition="top right",
            textfont={"size": 12, "color": MUTED},
            hovertext=[f"<b>{clip(str(each.presentation))}</b>, about {each.minutes:.3g} minutes" for each in members],
            hovertemplate="%{hovertext}<extra></extra>",
            error_y={
                "symmetric": False,
                "array": [high - score for (_, high), score in zip(ends, scores, strict=True)],
                "arrayminus": [score - low for (low, _), score in zip(ends, scores, strict=True)],
                "color": marker["color"],
                "thickness": 1,
                "width": 0,
            },
        )
    figure.update_xaxes(MINUTES.axis_options(limits[0], MINUTES.title), showgrid=True)
    return figure.update_yaxes(SCORE.axis_options(limits[1], METRIC_WORDS[search.metric].capitalize()))


def _short(search: Search, each: PresentationResult) -> str:
    """What tells a presentation from the others."""
    networks = {other.presentation.network for other in search.tried}
    shown = each.presentation
    words = [shown.network.removeprefix("timm:")] if len(networks) > 1 else []
    words += [f"{shown.size} px"] + ([shown.fit] if shown.fit != "crop" else [])
    return clip(" ".join(words))


def _row(search: Search, each: PresentationResult) -> tuple[Cell, ...]:
    shown = each.presentation
    name = f"{shown.network} (chosen)" if each is search.choice else shown.network
    score: Cell = "not tried" if each.score is None else (percent(each.score, unit=False), interval_text(each.interval))
    behind = "" if each.behind is None else percent(each.behind, unit=False)
    if each.behind_error:
        behind += f" \u00b1 {percent(each.behind_error, unit=False)}"
    return (name, str(shown.size), shown.fit, score, behind, f"{each.minutes:.3g}")


def _table(titles: Sequence[str], searches: Sequence[Search]) -> Table:
    several = len(searches) > 1
    rows = [
        (*([title] if several else []), *_row(search, each))
        for title, search in zip(titles, searches, strict=True)
        for each in search.presentations
    ]
    caption = (
        f"Scores in %; small: the {LEVEL_TEXT} interval. Behind: points behind the best on the same images, \u00b1 "
        "standard error. Minutes: estimated for a whole run. Not tried: there was no time for it."
    )
    heads = (*(["Configuration"] if several else []), *HEADS)
    return Table(caption, heads, tuple(rows), labels=3 + several, folded=f"All {len(rows)}")


def verdict(search: Search, title: str = "") -> str:
    """Say what was chosen, what fine-tuning would have brought, and what more time would buy."""
    choice = search.choice
    text = (
        f"{title + ': ' if title else ''}{len(search.tried)} ways to show {search.images:,} training images to "
        f"a network were compared by {METRIC_WORDS[search.metric]}. Chosen: {choice.presentation}, "
        f"{figure_text(choice.score, choice.interval)}."
    )
    if choice.behind:
        text += (
            f" It is {percent(choice.behind, unit=False)} points behind the best, too little to tell them apart, and "
        )
        text += "faster."
    for trial in search.trials:
        text += f" {_trial(trial)}"
    more = search.more_time
    return f"{text} {more[:1].upper()}{more[1:]}" if more else text


def _trial(trial: WholeNetworkResult) -> str:
    gain = f"{100 * trial.gain:+.1f} \u00b1 {100 * trial.gain_error:.1f} points"
    return (
        f"Training all of {trial.presentation} ({trial.epochs:.3g} epochs) changed the score by {gain} on "
        f"{trial.images:,} training images held out, and was {'taken' if trial.taken else 'left out'}."
    )
