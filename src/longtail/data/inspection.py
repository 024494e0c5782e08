"""What a source holds and what looks wrong with it: class counts, shot groups, image sizes, findings with remedies."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np

from longtail.counts import ClassCounts, GroupName
from longtail.data.histogram import render
from longtail.data.image_data import Encoded, Finding, ImageData, Split
from longtail.data.images import decode, open_image
from longtail.data.sources import load_source
from longtail.errors import LongtailError

__all__ = ["Inspection", "Sizes", "inspect_source", "render"]

_NEARLY_BALANCED = 2.0
_BATCH = 256


class Sizes(TypedDict):
    """Image sizes as (width, height): the smallest and largest by area, and the median of each side."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]


@dataclass(frozen=True)
class Inspection:
    """The facts about a source, ready to be shown or stored.

    Attributes:
        source: What the user typed.
        classes: Class names, shape (C,).
        counts: Images per class for each split.
        imbalance_ratio: Of the training split; a class without images counts as one.
        groups: Class indices of the shot groups, from the training counts.
        checked: How many images were decoded.
        total: How many there are.
        sizes: Their sizes; None if none could be read.
        modes: How many images there are of each Pillow mode.
        unreadable: The names of all images that could not be decoded.
        findings: What looks wrong, worst first.
    """

    source: str
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    imbalance_ratio: float
    groups: Mapping[GroupName, tuple[int, ...]]
    checked: int
    total: int
    sizes: Sizes | None
    modes: Mapping[str, int]
    unreadable: tuple[str, ...]
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, object]:
        """The same as plain dicts, lists and numbers, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Probe:
    """What one image turned out to be."""

    name: str
    size: tuple[int, int] | None
    mode: str
    error: str


def inspect_source(
    spec: str,
    *,
    label_column: str | None = None,
    image_column: str | None = None,
    max_images: int | None = 20_000,
    many: int = 100,
    few: int = 20,
) -> Inspection:
    """Read a source, decode its images, and say what is there and what looks wrong.

    Args:
        spec: As for :func:`~longtail.data.sources.load_source`.
        label_column: Likewise.
        image_column: Likewise.
        max_images: Decode at most this many, evenly spread over the source; None decodes all.
        many: Shot-group threshold, see :meth:`~longtail.counts.ClassCounts.groups`.
        few: Likewise.

    Raises:
        LongtailError: The source cannot be read at all.

    Example:
        >>> found = inspect_source("digits", max_images=100)
        >>> found.sizes["median"], round(found.imbalance_ratio, 2), [finding.severity for finding in found.findings]
        ((8, 8), 1.05, ['note'])
    """
    data = load_source(spec, label_column=label_column, image_column=image_column)
    counts = data.counts()
    probes = list(_probe_all(data, max_images))
    broken = [probe for probe in probes if probe.error]
    groups = counts.groups(many=many, few=few)
    return Inspection(
        source=spec,
        classes=data.classes,
        counts={name: data.counts(name).counts for name in data.splits if len(data.splits[name])},
        imbalance_ratio=counts.imbalance_ratio,
        groups={name: tuple(rows.tolist()) for name, rows in groups.items()},
        checked=len(probes),
        total=sum(map(len, data.splits.values())),
        sizes=_sizes([probe.size for probe in probes if probe.size]),
        modes=dict(Counter(probe.mode for probe in probes if probe.mode).most_common()),
        unreadable=tuple(probe.name for probe in broken),
        findings=(*_broken_findings(broken), *_class_findings(counts), *data.findings, *_split_findings(data)),
    )


def _probe_all(data: ImageData, max_images: int | None) -> Iterator[_Probe]:
    total = sum(map(len, data.splits.values()))
    share = 1.0 if max_images is None else min(1.0, max_images / total)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for split in filter(len, data.splits.values()):
            chosen = np.unique(np.linspace(0, len(split) - 1, max(1, int(len(split) * share))).astype(np.int64))
            for start in range(0, len(chosen), _BATCH):  # a batch at a time, so that embedded images fit in memory
                yield from pool.map(_probe, *zip(*_named(split.select(chosen[start : start + _BATCH])), strict=True))


def _named(split: Split) -> Iterator[tuple[Encoded, str]]:
    for row, (_, stored) in zip(split.origin_rows, split.scan(), strict=True):
        yield stored, stored["path"] or f"row {row}"


def _probe(stored: Encoded, name: str) -> _Probe:
    source = stored["bytes"] if stored["bytes"] is not None else stored["path"]
    if source is None:
        return _Probe(name, None, "", f"{name!r} holds no image: remove the row")
    size, mode = None, ""
    try:
        with open_image(source, name) as image:
            size, mode = image.size, image.mode
        decode(source, name)
    except LongtailError as error:
        return _Probe(name, size, mode, str(error))
    return _Probe(name, size, mode, "")


def _sizes(sizes: Sequence[tuple[int, int]]) -> Sizes | None:
    if not sizes:
        return None
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    width, height = (int(np.median([size[side] for size in sizes])) for side in (0, 1))
    return {"smallest": by_area[0], "median": (width, height), "largest": by_area[-1]}


def _broken_findings(broken: Sequence[_Probe], shown: int = 20) -> list[Finding]:
    findings = []
    for probe in broken[:shown]:
        message, _, remedy = probe.error.rpartition(": ")
        findings.append(Finding("error", message, remedy.rstrip(".")))
    if len(broken) > shown:
        message = f"{len(broken) - shown} more images cannot be read"
        findings.append(Finding("error", message, "see them all with --json"))
    return findings


def _class_findings(counts: ClassCounts) -> list[Finding]:
    findings = []
    for number, what, remedy in (
        (0, "no training image", "add images, or remove the class"),
        (1, "one training image", "add images; with one, nothing can be held out to validate on"),
    ):
        names = [name for name, count in zip(counts.names, counts, strict=True) if count == number]
        if names:
            findings.append(Finding("warning", f"{_listed(names)} {_have(names)} {what}", remedy))
    for names in _lookalikes(counts.names):
        message = f"{_listed(names)} differ only in case, spaces or punctuation"
        findings.append(Finding("warning", message, "merge them if they mean one class"))
    if counts.imbalance_ratio < _NEARLY_BALANCED:
        message = f"the classes are nearly balanced (ratio {counts.imbalance_ratio:.2f})"
        findings.append(Finding("note", message, "expect plain cross-entropy to do as well, or cut --imbalance-ratio"))
    return findings


def _lookalikes(names: Sequence[str]) -> list[list[str]]:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[re.sub(r"[\W_]+", "", name.casefold()) or name].append(name)
    return [group for group in alike.values() if len(group) > 1]


def _split_findings(data: ImageData) -> list[Finding]:
    if "test" in data.splits:
        return []
    return [Finding("note", "there is no test split", "keep some images apart as one, to have numbers to trust")]


def _listed(names: Sequence[str], shown: int = 5) -> str:
    words = ", ".join(repr(name) for name in names[:shown])
    return words + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"
