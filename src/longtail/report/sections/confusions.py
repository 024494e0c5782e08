"""Confusions: the pairs confused most, the confusion matrix, and the errors of each shot group."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import plotly.graph_objects as go
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from longtail.analysis.confusions import confused_pairs, destinations
from longtail.compare.table import Comparison, Row
from longtail.counts import GROUP_NAMES, FloatArray, IntArray
from longtail.formatting import class_word, listing, percent
from longtail.report.configurations import known_predictions, named, pooled_predictions, predicted_rows, spoken
from longtail.report.pictures import class_pictures, error_pictures, short_names
from longtail.report.plots import GROUND, GROUP_COLORS, GROUP_LABELS, INK, RULE, blank, clip, labeled_bars
from longtail.report.section import Drawing, Key, Section, Table, read_aloud

MATRIX_CLASSES = 300
"""Up to this number of classes the whole matrix is drawn."""
PAIRS, PICTURED, PICTURES = 50, 8, 3
"""Pairs of classes that are listed, those of them that have pictures, and pictures of each."""
Pairs = dict[tuple[int, int], list[tuple[int, float]]]
"""A class and another that it is taken for: how often under each configuration, and as a share of its images."""


def build(comparison: Comparison) -> Section | None:
    """The pairs of classes confused most and the matrix of all; None where no run kept its predictions."""
    rows = predicted_rows(comparison)
    if not rows:
        return None
    run, pairs = rows[0].runs[0], confused_pairs_of(rows)
    if not pairs:
        return Section("confusions", "Confusions", "No image is classified wrongly.")
    names, shown = [class_word(name) for name in run.counts.names], [rows.index(row) for row in spoken(rows)]
    gallery = []
    for label, prediction in list(pairs)[:PICTURED]:
        errors = error_pictures(rows, label, PICTURES, prediction)
        gallery.append((names[label], names[prediction], errors, class_pictures(rows, prediction, PICTURES)))
    sentence, drawings = "", []
    if len(names) <= MATRIX_CLASSES:
        sentence = (
            "Rows are true classes, columns what they are taken for; classes that are confused stand together. "
            "Draw a rectangle to zoom in, click twice to leave it."
        )
        matrices = [confusion_shares(rows[position]) for position in shown]
        order, labels = cluster(np.mean(matrices, axis=0)), short_names(run.counts.names, 16)
        for position, shares in zip(shown, matrices, strict=True):
            right = percent(float(np.nanmean(np.diagonal(shares))))
            alt = f"Confusion matrix of {len(names)} classes under {rows[position].label}, {right} right on average."
            figure = matrix_figure(shares[np.ix_(order, order)], [labels[index] for index in order])
            figure.update_layout(height=560 if len(shown) == 1 else 440)
            drawings.append(Drawing(f"matrix-{position}", rows[position].label, alt, figure))
    data: dict[str, object] = {"gallery": gallery}
    table, partial = _table(rows, pairs, shown, names), "confusions.html.j2"
    return Section("confusions", "Confusions", sentence, "two", (), tuple(drawings), partial, data, table)


def _table(rows: Sequence[Row], pairs: Pairs, shown: Sequence[int], names: Sequence[str]) -> Table:
    lines, group_of = [], rows[0].runs[0].group_of
    for pair, under in pairs.items():
        words = [word for index in pair for word in (names[index], group_of[index])]
        numbers = [(percent(under[position][1], unit=False), f"{under[position][0]:,}") for position in shown]
        lines.append((*words, *chain.from_iterable(numbers)))
    seeds = " of all seeds" if any(len(row.runs) > 1 for row in rows) else ""
    caption = (
        f"The {len(pairs)} pairs of classes confused most: share of the images of the class in %, and images{seeds}."
    )
    heads = chain.from_iterable((rows[position].label, "Images") for position in shown)
    return Table(caption, ("Class", "Group", "Taken for", "Group", *heads), tuple(lines), labels=4, folded="")


def confused_pairs_of(rows: Sequence[Row], limit: int = PAIRS) -> Pairs:
    """The pairs of classes that the configurations confuse most, by the mean number of images over them.

    Seeds are pooled within a configuration; each configuration then counts the same.

    Args:
        rows: Configurations whose runs kept their predictions.
        limit: Number of pairs.
    """
    tallies: list[dict[tuple[int, int], tuple[int, float]]] = []
    total: dict[tuple[int, int], float] = {}
    for row in rows:
        pairs = confused_pairs(*pooled_predictions(row), len(row.runs[0].counts))
        keys = zip(pairs.label.tolist(), pairs.prediction.tolist(), strict=True)
        tallies.append(dict(zip(keys, zip(pairs.images.tolist(), pairs.share.tolist(), strict=True), strict=True)))
        for pair, (images, _) in tallies[-1].items():
            total[pair] = total.get(pair, 0.0) + images / len(known_predictions(row))
    first = sorted(total, key=lambda pair: (-round(total[pair], 6), pair))[:limit]
    return {pair: [tally.get(pair, (0, 0.0)) for tally in tallies] for pair in first}


def confusion_shares(row: Row) -> FloatArray:
    """Share of each true class (row) that is taken for each class (column), (C, C); NaN for an untested class."""
    size = len(row.runs[0].counts)
    label, prediction = pooled_predictions(row)
    images = np.bincount(label * size + prediction, minlength=size * size).reshape(size, size)
    with np.errstate(invalid="ignore"):
        return np.asarray(images / images.sum(axis=1, keepdims=True), dtype=np.float64)


def cluster(shares: FloatArray) -> IntArray:
    """Order classes so that those taken for each other stand together, by average linkage.

    Args:
        shares: Share of each true class that is taken for each class, shape (C, C).

    Example:
        >>> shares = np.array([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
        >>> cluster(shares).tolist()
        [1, 2, 0]
    """
    if len(shares) < 3:
        return np.arange(len(shares))
    confused = np.nan_to_num(shares + shares.T)
    np.fill_diagonal(confused, 0.0)
    distance = 1.0 - confused / max(confused.max(), 1e-12)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return np.asarray(leaves_list(tree), dtype=np.int64)


def matrix_figure(shares: FloatArray, names: Sequence[str]) -> go.Figure:
    """A confusion matrix as a heat map whose darkest color is the largest share of errors.

    Args:
        shares: Share of each true class that is taken for each class, shape (C, C); NaN is drawn as nothing.
        names: Names of the classes, all different, length C.

    Example:
        >>> matrix_figure(np.array([[0.9, 0.1], [0.25, 0.75]]), ["cat", "dog"]).data[0].z.tolist()
        [[90, 10], [25, 75]]
    """
    errors = np.nan_to_num(shares - np.diag(np.diagonal(shares)))
    figure, ticks = blank(440, left=10), [clip(name, 60) for name in names]
    figure.add_heatmap(
        z=np.nan_to_num(100 * shares).round().astype(np.uint8),
        x=ticks,
        y=ticks,
        zmin=0,
        zmax=max(10.0, 100 * float(errors.max())),
        colorscale=[[0, GROUND], [1, INK]],
        showscale=False,
        hovertemplate="%{y}<br>taken for %{x}: %{z}%<extra></extra>",
    )
    axis = {"type": "category", "automargin": True, "showgrid": False, "tickfont": {"size": 10}, "tickangle": 0}
    figure.update_xaxes(**axis | {"tickangle": 90 if max(map(len, names)) > 4 else 0}, title="Taken for")
    return figure.update_yaxes(**axis, title="True class", autorange="reversed")


def group_destinations(comparison: Comparison) -> Section | None:
    """Draw the confusions between shot groups; None where no run kept its predictions."""
    rows = predicted_rows(comparison)
    if not rows:
        return None
    of_groups = [destinations(*pooled_predictions(row), row.runs[0].group_of) for row in rows]
    parts = {f"taken for another {label.lower()} class": GROUP_COLORS[name] for name, label in GROUP_LABELS.items()}
    drawings = []
    for position, name in enumerate(GROUP_NAMES):
        if not any(each.images[position] for each in of_groups):
            continue
        shares = np.array([[each.right[position], *each.wrong[position]] for each in of_groups])
        segments = list(zip(("right", *parts), (RULE, *parts.values()), shares.T, strict=True))
        cells = [[percent(None if np.isnan(share) else share) for share in line] for line in shares]
        labels = [row.label for row in rows]
        figure = labeled_bars(labels, [line[0].removesuffix("%") for line in cells], segments)
        lines = [(label, *line) for label, line in zip(labels, cells, strict=True)]
        alt = read_aloud(f"Stacked bars for {GROUP_LABELS[name].lower()} test images", ("", "right", *parts), lines)
        # Seeds are tested on the same images, so that several say no more of them than one.
        images = max(
            int(each.images[position]) // len(known_predictions(row)) for row, each in zip(rows, of_groups, strict=True)
        )
        title = f"{GROUP_LABELS[name]}, {images:,} test image{'' if images == 1 else 's'}"
        drawings.append(Drawing(f"destinations-{name}", title, alt, figure))
    sentence = "Shares are means over the classes of the group."
    present = [position for position, name in enumerate(GROUP_NAMES) if name in rows[0].runs[0].group_of]
    head, tail = present[0], present[-1]
    errors = [
        f"{percent(float(share))} under {row.label}"
        for row, each in named(list(zip(rows, of_groups, strict=True)), lambda pair: pair[0])
        if np.isfinite(share := each.of_errors[tail, head])
    ]
    if errors and head != tail:
        large, small = (GROUP_LABELS[GROUP_NAMES[position]].lower() for position in (head, tail))
        chance = percent(float(of_groups[0].others[tail, head]))
        sentence += f" Of the errors on {small} images, {listing(errors)} go to {large} classes, "
        sentence += f"which are {chance} of all other classes."
    legend = [Key("rule", "square", "Right")]
    legend += [Key(name, "square", words.capitalize()) for name, words in zip(GROUP_NAMES, parts, strict=True)]
    return Section("destinations", "Where errors go", sentence, "three", tuple(legend), tuple(drawings))
