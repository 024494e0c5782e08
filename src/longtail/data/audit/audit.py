"""The audit of a source: class counts, shot groups, image sizes, copies, and what looks wrong with remedies."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np

from longtail.counts import GroupName
from longtail.data.audit.checks import class_findings, image_findings
from longtail.data.audit.duplicates import DuplicateGroup, duplicate_findings, find_duplicates, unchecked_findings
from longtail.data.audit.probe import probe_all
from longtail.data.dataset import Finding, ImageData
from longtail.data.decode import max_pixels
from longtail.data.sources.registry import load_source
from longtail.errors import OwnRangeWarning, UsageError

__all__ = ["Inspection", "Sizes", "inspect_data", "inspect_source"]

_WORST_FIRST = ("error", "warning", "note")


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
        seconds: How long that took.
        sizes: Their sizes; None if none could be read.
        modes: How many images there are of each Pillow mode.
        unreadable: Where the images lie that could not be decoded: paths, or rows of a table.
        duplicates: Images that are copies of each other.
        findings: What looks wrong, worst first.
    """

    source: str
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    imbalance_ratio: float
    groups: Mapping[GroupName, tuple[int, ...]]
    checked: int
    total: int
    seconds: float
    sizes: Sizes | None
    modes: Mapping[str, int]
    unreadable: tuple[str, ...]
    duplicates: tuple[DuplicateGroup, ...]
    findings: tuple[Finding, ...]

    @property
    def is_clean(self) -> bool:
        """Whether there is no error and no warning; notes do not count."""
        return all(finding.severity == "note" for finding in self.findings)

    def to_dict(self) -> dict[str, object]:
        """The same as plain dicts, lists and numbers, for JSON."""
        return asdict(self)


def inspect_source(
    spec: str,
    *,
    label_column: str | None = None,
    image_column: str | None = None,
    split_column: str | None = None,
    max_images: int | None = None,
    many: int = 100,
    few: int = 20,
) -> Inspection:
    """Read a source, decode its images, and say what is there and what looks wrong.

    Args:
        spec: As for :func:`~longtail.data.sources.registry.load_source`.
        label_column: Likewise.
        image_column: Likewise.
        split_column: The same for the column that says train, validation or test.
        max_images: Decode at most about this many, evenly spread over the source; None decodes all.
        many: Shot-group threshold, see :meth:`~longtail.counts.ClassCounts.groups`.
        few: Likewise.

    Raises:
        LongtailError: The source cannot be read at all.

    Example:
        >>> found = inspect_source("digits", max_images=100)
        >>> found.sizes["median"], round(found.imbalance_ratio, 2), [finding.kind for finding in found.findings]
        ((8, 8), 1.05, ['balanced'])
    """
    data = load_source(spec, label_column=label_column, image_column=image_column, split_column=split_column)
    return inspect_data(data, max_images=max_images, many=many, few=few)


def inspect_data(
    data: ImageData,
    *,
    max_images: int | None = None,
    many: int = 100,
    few: int = 20,
    tick: Callable[[], object] = lambda: None,
) -> Inspection:
    """The same of a source that was read already.

    Args:
        data: The source.
        max_images: As for :func:`inspect_source`.
        many: Likewise.
        few: Likewise.
        tick: Called once per image.

    Raises:
        LongtailError: ``max_images`` is below 1, or LONGTAIL_MAX_PIXELS no number.
    """
    max_pixels()  # complain once, not of every image
    if max_images is not None and max_images < 1:
        raise UsageError(
            f"max_images is a number of images, at least 1, got {max_images}.", options={"max_images": "--max-images"}
        )
    counts, start = data.counts(), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OwnRangeWarning)  # reported as a finding, with the file names
        probes = list(probe_all(data, max_images, tick))
    seconds = time.perf_counter() - start
    copies = find_duplicates(data, probes)
    divided = bool(len(data.splits.get("test", ())))
    columns = set(data.splits["train"].rows.column_names) > {"image", "label"}
    findings = [*image_findings(data, probes), *duplicate_findings(copies.groups, divided=divided, columns=columns)]
    findings += [*unchecked_findings(copies), *class_findings(data), *data.findings]
    return Inspection(
        source=data.source,
        classes=data.classes,
        counts={name: data.counts(name).counts for name in data.splits if len(data.splits[name])},
        imbalance_ratio=counts.imbalance_ratio,
        groups={name: tuple(rows.tolist()) for name, rows in counts.groups(many=many, few=few).items()},
        checked=len(probes),
        total=sum(map(len, data.splits.values())),
        seconds=seconds,
        sizes=_sizes([probe.size for probe in probes if probe.size]),
        modes=dict(Counter(probe.mode for probe in probes if probe.mode).most_common()),
        unreadable=tuple(data.splits[probe.split].path(probe.index) for probe in probes if probe.error),
        duplicates=copies.groups,
        findings=tuple(sorted(findings, key=lambda finding: _WORST_FIRST.index(finding.severity))),
    )


def _sizes(sizes: Sequence[tuple[int, int]]) -> Sizes | None:
    if not sizes:
        return None
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    width, height = (int(np.median([size[side] for size in sizes])) for side in (0, 1))
    return {"smallest": by_area[0], "median": (width, height), "largest": by_area[-1]}
