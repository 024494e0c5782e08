"""Exact and near copies of images within a source, and their effect on labels and splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from longtail.data.audit.near_copies import MAX_PAIRS, PixelCheck, near_groups
from longtail.data.audit.probe import Probe
from longtail.data.dataset import Finding, ImageData, Severity

_SHOWN = 3
_SEE = "see whether they show the same thing, photographed or saved twice"


@dataclass(frozen=True)
class Copy:
    """One image of a group.

    Attributes:
        name: Its path below the source's folder, or split and row.
        split: Name of its split.
        index: Its row in the split.
        label: Its class name.
        likeness: For a near copy, its similarity to the first of its group, at most 1.
    """

    name: str
    split: str
    index: int
    label: str
    likeness: float | None = None


@dataclass(frozen=True)
class DuplicateGroup:
    """A group of images that are copies of each other.

    Attributes:
        kind: ``"exact"``: all pixels agree. ``"near"``: they look alike, and at least two differ in a pixel; whether
            they show the same thing is left to the user.
        images: The copies, at least two.
    """

    kind: Literal["exact", "near"]
    images: tuple[Copy, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Distinct classes, in order of appearance."""
        return tuple(dict.fromkeys(image.label for image in self.images))

    @property
    def splits(self) -> tuple[str, ...]:
        """Distinct splits, in order of appearance."""
        return tuple(dict.fromkeys(image.split for image in self.images))


def find_duplicates(
    data: ImageData, probes: Sequence[Probe], progress: Callable[[int, str], object] = lambda _done, _note: None
) -> tuple[tuple[DuplicateGroup, ...], bool]:
    """Group images with the same pixels, and those that look nearly the same.

    Pairs whose hashes are near are compared by their pixels; see :class:`PixelCheck`. A group
    of near copies contains its exact copies, which are groups of their own as well. Images without detail (one color,
    or nearly) are exact copies or none.

    Args:
        data: The source.
        probes: Facts about its images; unreadable ones are skipped.
        progress: Called with the number of searched bands, of :data:`~longtail.data.audit.near_copies.BANDS`, and a
            note on the compared pairs.

    Returns:
        The groups, exact ones first, each in the order of the source; and whether there were more pairs with similar
        hashes than are compared by their pixels, at which the search ends.

    Example:
        >>> from longtail.data.dataset import Split
        >>> from longtail.data.audit.probe import probe_all
        >>> noise = np.random.default_rng(0).integers(0, 255, (2, 16, 16), dtype=np.uint8)
        >>> data = ImageData("mine", ("cat", "lynx"), {"train": Split.from_arrays(noise[[0, 1, 0]], [0, 0, 1])})
        >>> [(group.kind, group.labels) for group in find_duplicates(data, list(probe_all(data)))[0]]
        [('exact', ('cat', 'lynx'))]
    """
    exact: dict[bytes, list[Probe]] = defaultdict(list)
    for probe in probes:
        if probe.pixels:
            exact[probe.pixels].append(probe)
    distinct = [same for same in exact.values() if same[0].look]
    looks = np.frombuffer(b"".join(same[0].look for same in distinct), dtype=np.uint64).reshape(-1, 4)
    check = PixelCheck([(data.splits[same[0].split], same[0].index) for same in distinct])
    first = near_groups(
        looks, confirm=check, progress=lambda bands: progress(bands, f"{check.compared:,} pairs compared")
    )
    groups = [
        DuplicateGroup("exact", tuple(_copy(data, probe) for probe in same)) for same in exact.values() if len(same) > 1
    ]
    members = np.flatnonzero(np.bincount(first, minlength=len(first))[first] > 1)
    near: dict[int, list[Copy]] = defaultdict(list)
    for position, value in zip(members.tolist(), check.likeness(first[members], members).tolist(), strict=True):
        near[int(first[position])] += [_copy(data, probe, round(value, 3)) for probe in distinct[position]]
    groups += [DuplicateGroup("near", tuple(copies)) for copies in near.values()]
    return tuple(groups), check.is_full


def _copy(data: ImageData, probe: Probe, likeness: float | None = None) -> Copy:
    return Copy(probe.name, probe.split, probe.index, data.classes[probe.label], likeness)


def duplicate_findings(
    groups: Sequence[DuplicateGroup], *, divided: bool, columns: bool = False, unchecked: bool = False
) -> list[Finding]:
    """Report copies with several labels, copies across splits, copies that merely count double, and unchecked pairs.

    Args:
        groups: From :func:`find_duplicates`.
        divided: Whether the source has a test split; without one, copies may still end up on both sides.
        columns: Whether its rows have columns other than image and label, which may group images.
        unchecked: Whether :func:`find_duplicates` left pairs uncompared.

    Example:
        >>> group = DuplicateGroup("exact", (Copy("a.png", "train", 0, "cat"), Copy("b.png", "test", 0, "cat")))
        >>> [str(finding) for finding in duplicate_findings([group], divided=True)]
        ["1 test image is an exact copy of a train image ('a.png' = 'b.png'): take it out of one of them, or the
        figures are flattered."]
    """
    findings = []
    for kind in ("exact", "near"):
        of_kind = [group for group in groups if group.kind == kind]
        clashing = [group for group in of_kind if len(group.labels) > 1]
        leaking = [group for group in of_kind if len(group.splits) > 1]
        inside = [group for group in of_kind if len(group.labels) == 1 and len(group.splits) == 1]
        if clashing:
            copies = "exact copies" if kind == "exact" else "images that look alike"
            number, have = f"{len(clashing):,} group{'s' * (len(clashing) > 1)}", "have" if len(clashing) > 1 else "has"
            message = f"{number} of {copies} {have} more than one label ({_examples(clashing, labels=True)})"
            near = f"{_SEE}; if so, one label is wrong"
            remedy = "keep the right label and remove the others" if kind == "exact" else near
            findings.append(Finding("warning", message, remedy, f"{kind}-copies-across-labels", _names(clashing)))
        findings += _leaks(kind, leaking, columns=columns)
        findings += [_surplus(kind, inside, divided=divided, columns=columns)] if inside else []
    if unchecked:
        message = f"more than {MAX_PAIRS:,} pairs of images may look alike, and the others were not compared"
        remedy = "look at fewer images at a time, --max-images"
        findings.append(Finding("note", message, remedy, "near-copies-unchecked"))
    return findings


def _leaks(kind: str, groups: Sequence[DuplicateGroup], *, columns: bool) -> list[Finding]:
    findings = []
    for split, other in (("test", "train"), ("validation", "train"), ("test", "validation")):
        across = [group for group in groups if {split, other} <= set(group.splits)]
        number = sum(image.split == split for group in across for image in group.images)
        if not number:
            continue
        if kind == "exact":
            each = f"image{'s are each' if number > 1 else ' is'} an exact copy of"
            remedy = f"take {'them' if number > 1 else 'it'} out of one of them, or the figures are flattered"
        else:
            each = f"image{'s each look' if number > 1 else ' looks'} like"
            remedy = (
                f"{_SEE}; if so, the figures are flattered until they are on one side of the split: {_share(columns)}"
            )
        message = f"{number:,} {split} {each} a {other} image ({_examples(across)})"
        findings.append(Finding("warning", message, remedy, f"{kind}-copies-across-splits", _names(across)))
    return findings


def _surplus(kind: str, groups: Sequence[DuplicateGroup], *, divided: bool, columns: bool) -> Finding:
    number = sum(len(group.images) for group in groups)
    in_groups = f"{len(groups):,} group{'s' * (len(groups) > 1)}"
    are_copies = "are exact copies" if kind == "exact" else "look alike"
    message = f"{number:,} images in {in_groups} {are_copies} within one class and split ({_examples(groups)})"
    severity: Severity = "note" if divided else "warning"
    if kind == "near":
        remedy = f"{_SEE}; if so, "
        remedy += "mind that they weigh double" if divided else f"keep them on one side of the split: {_share(columns)}"
    elif divided:
        remedy = "keep one of each, or mind that they weigh double"
    else:
        remedy = f"keep one copy, or {_share(columns)}, before images are held out to test on"
    return Finding(severity, message, remedy, f"{kind}-copies", _names(groups))


def _share(columns: bool) -> str:
    """Advise how to declare which images belong together."""
    if columns:
        return "name what they share with --group-column"
    return "list the images in a CSV with a column for what they share (--group-column)"


def _examples(groups: Sequence[DuplicateGroup], *, labels: bool = False) -> str:
    """Describe the first groups, each by two images that show what is wrong with it."""
    pairs = []
    for group in groups[:_SHOWN]:
        first, *rest = group.images
        differ = (image for image in rest if (image.label != first.label if labels else image.split != first.split))
        pair = (first, next(differ, rest[0]))
        names = [f"{image.name!r} in {image.label!r}" if labels else repr(image.name) for image in pair]
        pairs.append((" = " if group.kind == "exact" else " ~ ").join(names))
    more = len(groups) - len(pairs)
    return "; ".join(pairs) + (f"; {more:,} more" if more else "")


def _names(groups: Sequence[DuplicateGroup]) -> tuple[str, ...]:
    return tuple(image.name for group in groups for image in group.images)
