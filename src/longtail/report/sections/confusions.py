"""The section on confusions: where the errors of each shot group go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import plotly.graph_objects as go

from longtail.analysis.confusions import ConfusedPairs, Destinations, confused_pairs, destinations
from longtail.compare.differences import Counted, counted_between
from longtail.compare.table import Comparison, Row
from longtail.counts import GROUP_NAMES, GroupName, IntArray
from longtail.evaluation.groups import Mask, group_masks
from longtail.report.captions import named
from longtail.report.plots.canvas import blank, clip
from longtail.report.plots.palette import GROUP_COLORS, GROUP_LABELS, RULE
from longtail.report.section import Drawing, Key, Section
from longtail.report.sections.hardest import Picture, data_uri
from longtail.report.select import against_first, known_predictions, predicted_rows
from longtail.run.result import ExampleImage, Predictions, RunResult
from longtail.text import class_word, listing, percent, sentence_case


def confusions_section(comparison: Comparison) -> Section | None:
    """Where errors go, by group; None where no run kept its predictions."""
    rows = predicted_rows(comparison)
    if not rows:
        return None
    pooled = [_pooled(row) for row in rows]
    drawings = [_drawing(name, rows, pooled) for name in GROUP_NAMES if any(one.images[_at(name)] for one in pooled)]
    legend = [
        Key("rule", "square", "Right"),
        *(Key(name, "square", f"Taken for {_other(name)}") for name in GROUP_NAMES),
    ]
    pairs = top_pairs(rows)
    data: dict[str, object] = {"pairs": pairs, "labels": GROUP_LABELS, "seeds": any(len(row.runs) > 1 for row in rows)}
    sentence = f"{_group_sentence(rows, 'test', pooled[0])} {pair_sentence(pairs)}".strip()
    return Section("confusions", "What errors are taken for", sentence, "three", tuple(legend), tuple(drawings),
                   "pairs.html.j2" if pairs else "", data)  # fmt: skip


def destination_bars(labels: Sequence[str], found: Sequence[Destinations], group: GroupName) -> go.Figure:
    """One stacked bar a configuration: images of a group that are right, or taken for a class of each group.

    Args:
        labels: Name of each configuration.
        found: What :func:`longtail.analysis.confusions.destinations` says of each.
        group: The group whose images are shown.

    Example:
        >>> found = destinations(np.array([0, 1]), np.array([0, 0]), ["many", "few"])
        >>> [float(trace.x[0]) for trace in destination_bars(["ce"], [found], "few").data]
        [0.0, 1.0, 0.0, 0.0]
    """
    figure, row = blank(56 * len(labels) + 4, left=2), _at(group)
    places = [-index for index in range(len(labels))]
    segments = [("right", RULE, [one.right[row] for one in found])]
    segments += [
        (f"taken for {_other(name)}", GROUP_COLORS[name], [one.wrong[row, _at(name)] for one in found])
        for name in GROUP_NAMES
    ]
    for what, colour, shares in segments:
        figure.add_bar(
            x=np.nan_to_num(shares), y=places, orientation="h", width=0.26, name=what,
            marker={"color": colour, "line": {"width": 0}}, text=[clip(label) for label in labels],
            textposition="none", hovertemplate=f"%{{text}}<br>{what}: %{{x:.1%}}<extra></extra>",
        )  # fmt: skip
    for label, one, place in zip(labels, found, places, strict=True):
        text = {"y": place, "yshift": 17, "showarrow": False, "font": {"size": 13}}
        figure.add_annotation(x=0, xanchor="left", xshift=-2, text=clip(label, 26), **text)
        shown = percent(float(one.right[row]), unit=False) if one.images[row] else "n/a"
        figure.add_annotation(x=1, xanchor="right", xshift=2, text=f"<b>{shown}</b>", **text)
    figure.update_layout(barmode="stack", margin={"t": 0, "r": 2, "b": 4})
    figure.update_xaxes(visible=False, range=[0, 1], fixedrange=True)
    return figure.update_yaxes(visible=False, range=[places[-1] - 0.3, 0.75], fixedrange=True)


def _pooled(row: Row) -> Destinations:
    """The destinations of the images of all seeds together; shares of the same test images average to the same."""
    found = [_destinations(run, predictions) for run, predictions in known_predictions(row)]
    images = reduce(np.add, [one.images for one in found])
    with np.errstate(invalid="ignore"):
        right = sum(np.nan_to_num(one.right) * one.images for one in found) / images
        wrong = sum(np.nan_to_num(one.wrong) * one.images[:, None] for one in found) / images[:, None]
    return Destinations(images, right, wrong, found[0].others)


def _destinations(run: RunResult, predictions: Predictions) -> Destinations:
    return destinations(predictions.label, predictions.prediction, run.group_of)


def _drawing(name: GroupName, rows: Sequence[Row], pooled: Sequence[Destinations]) -> Drawing:
    labels, row = [one.label for one in rows], _at(name)
    said = []
    for label, one in zip(labels, pooled, strict=True):
        parts = [f"{percent(float(one.wrong[row, _at(other)]))} taken for {_other(other)}" for other in GROUP_NAMES]
        said.append(f"{label} {percent(float(one.right[row]))} right, {listing(parts)}")
    alt = f"Stacked bars of what {GROUP_LABELS[name].lower()} test images are taken for: {'; '.join(said)}."
    images = max(int(one.images[row]) // len(known_predictions(each)) for one, each in zip(pooled, rows, strict=True))
    title = f"{GROUP_LABELS[name]}, {images:,} test image{'' if images == 1 else 's'}"
    return Drawing(f"destinations-{name}", title, alt, destination_bars(labels, pooled, name))


def _group_sentence(rows: Sequence[Row], split: str, first: Destinations) -> str:
    """Where the errors on few-shot images go; on the smallest group that has images and a larger one beside it."""
    sizes = [rows[0].runs[0].group_of.count(name) for name in GROUP_NAMES]
    present = [name for name, size in zip(GROUP_NAMES, sizes, strict=True) if size]
    tail, head = present[-1], present[0]
    if len(present) < 2 or not first.images[_at(tail)]:
        return "All classes are in one shot group, so errors cannot go from one group to another."
    known = [one for row in rows for one in known_predictions(row)]
    shares = {run.folder: _share(_destinations(run, found), tail, head) for run, found in known}
    said = against_first(
        rows, split, lambda run: shares.get(run.folder), between=counted_between(_errors_to(tail, head))
    )
    if not said:
        return f"No {GROUP_LABELS[tail].lower()} image is classified wrongly."
    chance, larger = percent(float(first.others[_at(tail), _at(head)])), GROUP_LABELS[head].lower()
    return (
        f"Of {GROUP_LABELS[tail].lower()} images classified wrongly, this share is taken for {larger} classes: {said}. "
        f"Of all other classes, {chance} are {larger}."
    )


def _errors_to(tail: GroupName, head: GroupName) -> Counted:
    """Of each test image whether it was taken for a class of ``head``; errors on images of ``tail`` count."""

    def counted(run: RunResult, found: Predictions) -> tuple[Mask, Mask]:
        wrong = group_masks(found.label, run.group_of)[tail] & (found.label != found.prediction)
        return group_masks(found.prediction, run.group_of)[head], wrong

    return counted


def _share(found: Destinations, tail: GroupName, head: GroupName) -> float | None:
    share = float(found.of_errors[_at(tail), _at(head)])
    return None if np.isnan(share) else share


def _other(name: GroupName) -> str:
    return f"another {GROUP_LABELS[name].lower()} class"


def _at(name: GroupName) -> int:
    return GROUP_NAMES.index(name)


PAIRS = 8


PICTURES = 3


@dataclass(frozen=True)
class PairShare:
    """How often one configuration takes a class for another: images of all its seeds, and their share of the class."""

    label: str
    images: int
    share: float

    @property
    def text(self) -> str:
        """The share as written in the page."""
        return percent(self.share)


@dataclass(frozen=True)
class ListedPair:
    """A pair of classes as the list shows it, with pictures of the error and of the class it is taken for."""

    name: str
    group: GroupName
    count: int
    taken_for: str
    taken_group: GroupName
    taken_count: int
    shares: tuple[PairShare, ...]
    errors: tuple[Picture, ...]
    models: tuple[Picture, ...]


def top_pairs(rows: Sequence[Row], limit: int = PAIRS) -> tuple[ListedPair, ...]:
    """The pairs of classes that the configurations confuse most, by the mean number of images over them.

    Args:
        rows: Configurations whose runs kept their predictions.
        limit: How many pairs.
    """
    size = len(rows[0].runs[0].counts)
    found = [_pairs(row, size) for row in rows]
    keys = [one.label * size + one.prediction for one in found]
    union, where = np.unique(np.concatenate(keys), return_inverse=True)
    # Seeds are pooled within a configuration; each configuration then counts the same.
    weight = np.concatenate(
        [
            one.images / sum(run.predictions is not None for run in row.runs)
            for row, one in zip(rows, found, strict=True)
        ]
    )
    total = np.bincount(where, weights=weight, minlength=len(union))
    order = np.lexsort((union, -total.round(6)))[:limit]
    return tuple(_listed(int(key) // size, int(key) % size, rows, found, keys) for key in union[order])


def _listed(
    label: int, taken: int, rows: Sequence[Row], found: Sequence[ConfusedPairs], keys: Sequence[IntArray]
) -> ListedPair:
    run = rows[0].runs[0]
    key = label * len(run.counts) + taken
    shares = []
    for row, pairs, mine in named(list(zip(rows, found, keys, strict=True)), lambda one: one[0]):
        place = np.flatnonzero(mine == key)
        images, share = (int(pairs.images[place[0]]), float(pairs.share[place[0]])) if place.size else (0, 0.0)
        shares.append(PairShare(row.label, images, share))
    names, runs = run.counts.names, [one for row in rows for one in row.runs]
    return ListedPair(
        class_word(names[label]), run.group_of[label], run.counts[label],
        class_word(names[taken]), run.group_of[taken], run.counts[taken], tuple(shares),
        _error_pictures(rows, label, taken), _class_pictures(runs, taken),
    )  # fmt: skip


def _error_pictures(rows: Sequence[Row], label: int, taken: int) -> tuple[Picture, ...]:
    """Test images of ``label`` taken for ``taken``, the surest first and each once: several may err on the same."""
    found = [
        (one, row.label)
        for row in rows
        for run in row.runs
        for one in run.examples
        if one.role == "error" and (one.label, one.prediction) == (label, taken)
    ]
    kept: dict[bytes, tuple[ExampleImage, str]] = {}
    for one, under in sorted(found, key=lambda each: -each[0].confidence):
        kept.setdefault(one.image, (one, under))
    names = rows[0].runs[0].counts.names
    alt = f"{class_word(names[label])}, taken for {class_word(names[taken])}"
    return tuple(
        Picture(data_uri(one.image), percent(one.confidence), f"{alt} at {percent(one.confidence)} under {under}")
        for one, under in list(kept.values())[:PICTURES]
    )


def _class_pictures(runs: Sequence[RunResult], index: int) -> tuple[Picture, ...]:
    """Training images of a class; where no run kept any, test images of it that some run got wrong."""
    name = class_word(runs[0].counts.names[index])
    for role, words in (("train", "training image"), ("error", "test image")):
        images = dict.fromkeys(
            one.image for run in runs for one in run.examples if one.role == role and one.label == index
        )
        if images:
            kept = list(images)[:PICTURES]
            return tuple(Picture(data_uri(image), "", f"{words} of {name}") for image in kept)
    return ()


def _pairs(row: Row, size: int) -> ConfusedPairs:
    found = [predictions for _, predictions in known_predictions(row)]
    return confused_pairs(
        np.concatenate([one.label for one in found]), np.concatenate([one.prediction for one in found]), size
    )


def pair_sentence(pairs: Sequence[ListedPair]) -> str:
    """The pair confused most, on average over the configurations, and how often each of them does.

    Example:
        >>> pair = ListedPair("otter", "few", 9, "seal", "few", 8, (PairShare("ce", 4, 0.4),), (), ())
        >>> pair_sentence([pair])
        'otter is taken for seal most often: 40.0% of its images (4) under ce.'
    """
    if not pairs:
        return "No image is classified wrongly."
    first = pairs[0]
    mean = " on average over the configurations" if len(first.shares) > 1 else ""
    of = [" of its images", *[""] * (len(first.shares) - 1)]
    shares = listing(
        [f"{one.text}{words} ({one.images:,}) under {one.label}" for words, one in zip(of, first.shares, strict=True)]
    )
    return f"{sentence_case(first.name)} is taken for {first.taken_for} most often{mean}: {shares}."
