"""Images that a source holds more than once, exactly or nearly, and what that does to labels and splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np

from longtail.data.image_data import Finding, ImageData, Severity
from longtail.data.perceptual import near_groups
from longtail.data.probing import Probe, name_of

_SHOWN = 3


@dataclass(frozen=True)
class Copy:
    """One image of a group.

    Attributes:
        name: Its path below the source's folder, or split and row.
        split: Where it is.
        index: Its row there.
        label: Its class name.
    """

    name: str
    split: str
    index: int
    label: str


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that are copies of each other.

    Attributes:
        kind: ``"exact"``: all pixels agree. ``"near"``: they look alike, and at least two differ in a pixel.
        images: Two or more.
    """

    kind: Literal["exact", "near"]
    images: tuple[Copy, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes they are in, in order of appearance."""
        return tuple(dict.fromkeys(image.label for image in self.images))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits they are in, likewise."""
        return tuple(dict.fromkeys(image.split for image in self.images))


def duplicate_groups(data: ImageData, probes: Sequence[Probe]) -> tuple[DuplicateGroup, ...]:
    """Group images with the same pixels, and those that look nearly the same.

    A group of near copies contains its exact copies, which are groups of their own as well. Images without detail
    (one colour, or nearly) are compared by their pixels alone.

    Args:
        data: The source.
        probes: What its images turned out to be; broken ones are passed over.

    Example:
        >>> from longtail.data.image_data import Split
        >>> from longtail.data.probing import probe_all
        >>> noise = np.random.default_rng(0).integers(0, 255, (2, 16, 16), dtype=np.uint8)
        >>> data = ImageData("mine", ("cat", "lynx"), {"train": Split.from_arrays(noise[[0, 1, 0]], [0, 0, 1])})
        >>> [(group.kind, group.labels) for group in duplicate_groups(data, list(probe_all(data)))]
        [('exact', ('cat', 'lynx'))]
    """
    exact: dict[bytes, list[Probe]] = defaultdict(list)
    for probe in probes:
        if probe.pixels:
            exact[probe.pixels].append(probe)
    distinct = [same for same in exact.values() if same[0].look]
    looks = np.frombuffer(b"".join(same[0].look for same in distinct), dtype=np.uint64).reshape(-1, 4)
    near: dict[int, list[list[Probe]]] = defaultdict(list)
    for first, same in zip(near_groups(looks).tolist(), distinct, strict=True):
        near[first].append(same)
    groups = [_group("exact", data, same) for same in exact.values() if len(same) > 1]
    groups += [_group("near", data, chain.from_iterable(alike)) for alike in near.values() if len(alike) > 1]
    return tuple(groups)


def _group(kind: Literal["exact", "near"], data: ImageData, probes: Iterable[Probe]) -> DuplicateGroup:
    return DuplicateGroup(
        kind, tuple(Copy(name_of(data, one), one.split, one.index, data.classes[one.label]) for one in probes)
    )


def duplicate_findings(groups: Sequence[DuplicateGroup], *, divided: bool, columns: bool = False) -> list[Finding]:
    """Say which copies contradict each other, which leak into the test, and which only weigh double.

    Args:
        groups: From :func:`duplicate_groups`.
        divided: Whether the source has a test split of its own; without one, copies may still end up on both sides.
        columns: Whether its rows have columns beside image and label, of which one may say what belongs together.

    Example:
        >>> group = DuplicateGroup("exact", (Copy("a.png", "train", 0, "cat"), Copy("b.png", "test", 0, "cat")))
        >>> [str(finding) for finding in duplicate_findings([group], divided=True)]
        ["1 test image is an exact copy of a train image ('a.png' = 'b.png'): take it out of one of them, or the
        figures are flattered."]
    """
    findings = []
    for kind in ("exact", "near"):
        some = [group for group in groups if group.kind == kind]
        clashing = [group for group in some if len(group.labels) > 1]
        leaking = [group for group in some if len(group.splits) > 1]
        inside = [group for group in some if len(group.labels) == 1 and len(group.splits) == 1]
        findings += [_clash(kind, clashing)] if clashing else []
        findings += _leaks(kind, leaking)
        findings += [_surplus(kind, inside, divided=divided, columns=columns)] if inside else []
    return findings


def _clash(kind: str, groups: Sequence[DuplicateGroup]) -> Finding:
    what = "exact copies" if kind == "exact" else "near copies"
    number = f"{len(groups):,} group{'s' * (len(groups) > 1)} of {what} {'have' if len(groups) > 1 else 'has'}"
    message = f"{number} more than one label ({_examples(groups, labels=True)})"
    remedy = "keep the right label and remove the others" if kind == "exact" else "look at them: one label may be wrong"
    return Finding("warning", message, remedy, f"{kind}-copies-across-labels", _names(groups))


def _leaks(kind: str, groups: Sequence[DuplicateGroup]) -> list[Finding]:
    findings = []
    for split, other in (("test", "train"), ("validation", "train"), ("test", "validation")):
        some = [group for group in groups if {split, other} <= set(group.splits)]
        number = sum(image.split == split for group in some for image in group.images)
        if not number:
            continue
        what = "an exact copy" if kind == "exact" else "a near copy"
        each = f"{split} image is {what}" if number == 1 else f"{split} images are each {what}"
        message = f"{number:,} {each} of a {other} image ({_examples(some)})"
        remedy = f"take {'it' if number == 1 else 'them'} out of one of them, or the figures are flattered"
        findings.append(Finding("warning", message, remedy, f"{kind}-copies-across-splits", _names(some)))
    return findings


def _surplus(kind: str, groups: Sequence[DuplicateGroup], *, divided: bool, columns: bool) -> Finding:
    number = sum(len(group.images) for group in groups)
    what = "exact copies" if kind == "exact" else "near copies"
    places = f"{len(groups):,} group{'s' * (len(groups) > 1)}"
    message = f"{number:,} images in {places} are {what} within one class and split ({_examples(groups)})"
    if divided:
        severity: Severity = "note"
        remedy = "keep one of each, or mind that they weigh double"
    else:
        severity = "warning"
        share = "name what they share with --group-column"
        if not columns:
            share = "list the images in a CSV with a column for what they share (--group-column)"
        remedy = f"keep one copy, or {share}, before images are held out to test on"
    return Finding(severity, message, remedy, f"{kind}-copies", _names(groups))


def _examples(groups: Sequence[DuplicateGroup], *, labels: bool = False) -> str:
    """The first groups by name; of a group, two images that show what is wrong with it."""
    pairs = [_pair(group, labels=labels) for group in groups[:_SHOWN]]
    more = len(groups) - len(pairs)
    return "; ".join(pairs) + (f"; {more:,} more" if more else "")


def _pair(group: DuplicateGroup, *, labels: bool) -> str:
    one, *rest = group.images
    other = next((image for image in rest if _key(image, labels) != _key(one, labels)), rest[0])
    first, second = (f"{image.name!r} in {image.label!r}" if labels else repr(image.name) for image in (one, other))
    return f"{first} {'=' if group.kind == 'exact' else '~'} {second}"


def _key(image: Copy, labels: bool) -> str:
    return image.label if labels else image.split


def _names(groups: Sequence[DuplicateGroup]) -> tuple[str, ...]:
    return tuple(image.name for group in groups for image in group.images)
