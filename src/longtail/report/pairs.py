"""The pairs of classes that are confused most, with pictures of the error and of the class it is taken for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longtail.analysis.confusions import ConfusedPairs, confused_pairs
from longtail.counts import GroupName, IntArray
from longtail.report.compare import Row
from longtail.report.findings import named
from longtail.report.hardest import Picture, data_uri
from longtail.report.predicted import known_predictions
from longtail.report.runs import ExampleImage, RunResult
from longtail.report.text import class_word, listing, percent, sentence_case

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
