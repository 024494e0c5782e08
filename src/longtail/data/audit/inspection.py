"""The audit of a source: class counts, shot groups, image sizes, copies, and findings with remedies; its printout."""

from __future__ import annotations

import re
import time
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from rich.table import Table
from rich.text import Text

from longtail.console import Reporter
from longtail.counts import FEW_IMAGES, ClassCounts, GroupName
from longtail.data.audit.duplicates import DuplicateGroup, duplicate_findings, find_duplicates
from longtail.data.audit.near_copies import BANDS
from longtail.data.audit.probe import NARROW, UNREADABLE, Mark, Probe, probe_all
from longtail.data.dataset import Finding, ImageData, Severity
from longtail.data.decode import max_pixels
from longtail.data.sources.registry import load_source
from longtail.errors import OwnRangeWarning, UsageError, listed

if TYPE_CHECKING:
    from rich.console import Console

_WORST_FIRST = ("error", "warning", "note")
_NEARLY_BALANCED = 2.0
_ENOUGH_TO_HOLD_OUT = 5  # images of a class; of fewer, a tenth rounds to none
_TINY = 1 / 4  # of the median shorter side
_LONG, _MANY_LONG = 1.5, 1 / 4  # the longer side over the shorter, and the share of such images that is worth a note
_SHOWN_ERRORS = 20

_ODD: Mapping[Mark, tuple[Severity, str, str]] = {
    "one colour": ("warning", "of one color only", "remove what shows nothing"),
    "narrow": (
        "warning",
        f"more than {NARROW:g} times as long as wide",
        "crop them, or train with --data.fit pad: without it the center square alone is kept",
    ),
    "misnamed": ("note", "of another format than the name says", "rename: other programs may refuse to read it"),
    "deep": ("note", "of more than 8 bits a channel", "see that it looks right when scaled to 8 bits"),
    "own range": (
        "warning",
        "of floating-point or 32-bit values, each scaled to 8 bits by its own range",
        "convert them to 8 or 16 bits with one range for all",
    ),
    "print": ("note", "in colors for print or video", "see that it looks right as RGB, or convert it yourself"),
    "transparent": ("note", "with transparent parts", "mind that white is laid under them"),
    "animated": ("note", "with several frames or pages", "mind that only the first is taken"),
}
_COLORS: Mapping[GroupName, str] = {"many": "cyan", "medium": "yellow", "few": "magenta"}
_MARKS: Mapping[Severity, tuple[str, str]] = {
    "error": ("✗", "red"),
    "warning": ("!", "yellow"),
    "note": ("·", "cyan"),
}
_NAME = 30  # characters of a class name at most
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Sizes(TypedDict):
    """Image sizes as (width, height): smallest and largest by area, and the median of each side."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]


@dataclass(frozen=True)
class Inspection:
    """The result of an audit of a source.

    Attributes:
        source: SOURCE as the user typed it.
        classes: Class names, shape (C,).
        counts: Number of images per class, by split.
        imbalance_ratio: Imbalance ratio of the training split, with an empty class counted as one image.
        groups: Class indices of the shot groups, from the training counts.
        checked: Number of decoded images.
        total: Number of images.
        seconds: Duration of decoding.
        sizes: Image sizes; None if no image could be read.
        modes: Number of images by Pillow mode.
        unreadable: Images that cannot be decoded: paths, or rows of a table.
        duplicates: Groups of images that are copies of each other.
        findings: Problems and notes, worst first.
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
        """Return plain dicts, lists and numbers for JSON."""
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
    """Read a source, decode its images, and report its classes, sizes, copies and problems.

    Args:
        spec: As for :func:`~longtail.data.sources.registry.load_source`.
        label_column: As for :func:`~longtail.data.sources.registry.load_source`.
        image_column: As for :func:`~longtail.data.sources.registry.load_source`.
        split_column: As for :func:`~longtail.data.sources.registry.load_source`.
        max_images: Approximate largest number of images to decode, evenly spread over the source; None decodes all.
        many: Shot-group threshold, see :meth:`~longtail.counts.ClassCounts.groups`.
        few: Shot-group threshold, see :meth:`~longtail.counts.ClassCounts.groups`.

    Raises:
        LongtailError: The source cannot be read at all.

    Example:
        >>> audit = inspect_source("digits", max_images=100)
        >>> audit.sizes["median"], round(audit.imbalance_ratio, 2), [finding.kind for finding in audit.findings]
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
    reporter: Reporter | None = None,
) -> Inspection:
    """Audit a source that was read already; see :func:`inspect_source`.

    Args:
        data: The source.
        max_images: As for :func:`inspect_source`.
        many: As for :func:`inspect_source`.
        few: As for :func:`inspect_source`.
        reporter: Shows how far it is; silent when not given.

    Raises:
        LongtailError: ``max_images`` is below 1, or LONGTAIL_MAX_PIXELS is not a number.
    """
    max_pixels()  # raise once instead of for every image
    if max_images is not None and max_images < 1:
        raise UsageError(
            f"max_images is a number of images, at least 1, got {max_images}.", options={"max_images": "--max-images"}
        )
    reporter = Reporter(quiet=True) if reporter is None else reporter
    counts, total, start = data.counts(), sum(map(len, data.splits.values())), time.perf_counter()
    with warnings.catch_warnings(), reporter.bar("inspect", min(total, max_images or total)) as bar:
        warnings.simplefilter("ignore", OwnRangeWarning)  # reported as a finding, with the file names
        probes = list(probe_all(data, max_images, bar.tick))
    seconds = time.perf_counter() - start
    with reporter.bar("near copies", BANDS) as bar:
        copies, unchecked = find_duplicates(data, probes, bar.update)
    divided = bool(len(data.splits.get("test", ())))
    columns = set(data.splits["train"].rows.column_names) > {"image", "label"}
    findings = image_findings(probes)
    findings += duplicate_findings(copies, divided=divided, columns=columns, unchecked=unchecked)
    findings += [*class_findings(data), *data.findings]
    return Inspection(
        source=data.source,
        classes=data.classes,
        counts={name: data.counts(name).counts for name in data.splits if len(data.splits[name])},
        imbalance_ratio=counts.imbalance_ratio,
        groups={name: tuple(rows.tolist()) for name, rows in counts.groups(many=many, few=few).items()},
        checked=len(probes),
        total=total,
        seconds=seconds,
        sizes=_sizes([probe.size for probe in probes if probe.size]),
        modes=dict(Counter(probe.mode for probe in probes if probe.mode).most_common()),
        unreadable=tuple(data.splits[probe.split].path(probe.index) for probe in probes if probe.error),
        duplicates=copies,
        findings=tuple(sorted(findings, key=lambda finding: _WORST_FIRST.index(finding.severity))),
    )


def _sizes(sizes: Sequence[tuple[int, int]]) -> Sizes | None:
    if not sizes:
        return None
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    width, height = (int(np.median([size[side] for size in sizes])) for side in (0, 1))
    return {"smallest": by_area[0], "median": (width, height), "largest": by_area[-1]}


def image_findings(probes: Sequence[Probe]) -> list[Finding]:
    """Name the images that cannot be used, and those with unusual properties.

    Args:
        probes: From :func:`~longtail.data.audit.probe.probe_all`.
    """
    findings = _broken_findings([probe for probe in probes if probe.error])
    for mark, (severity, description, remedy) in _ODD.items():
        names = [probe.name for probe in probes if mark in probe.marks]
        if names:
            kind = mark.replace(" ", "-")
            findings.append(Finding.about(names, "image", description, severity, remedy, kind))
    sizes = [min(probe.size) for probe in probes if probe.size]
    limit = float(np.median(sizes)) * _TINY if sizes else 0.0
    long = [probe.name for probe in probes if probe.size and max(probe.size) > _LONG * min(probe.size)]
    if len(long) > _MANY_LONG * len(sizes):
        description = f"more than {_LONG:g} times as long as wide"
        remedy = "compare --data.fit pad with crop, the default, which cuts a third and more off them"
        findings.append(Finding.about(long, "image", description, "note", remedy, "long"))
    tiny = [probe.name for probe in probes if probe.size and min(probe.size) < limit]
    if tiny:
        description = f"under {limit:.0f} pixels wide or high, a quarter of the usual"
        remedy = "see whether it is a thumbnail or an icon"
        findings.append(Finding.about(tiny, "image", description, "warning", remedy, "tiny"))
    return findings


def class_findings(data: ImageData) -> list[Finding]:
    """Name the classes too small to train, validate or test on, and class names that look alike."""
    counts = data.counts()
    alone = "add images; with one, nothing can be held out to validate on"
    findings = _sized(counts, 0, 0, "no training image", "add images, or remove the class", "class-empty")
    findings += _sized(counts, 1, 1, "one training image", alone, "class-of-one")
    if not len(data.splits.get("validation", ())):
        few = f"under {_ENOUGH_TO_HOLD_OUT} training images, too few to validate on"
        remedy = "add images; a tenth held out for validation has none of {them}"
        findings += _sized(counts, 2, _ENOUGH_TO_HOLD_OUT - 1, few, remedy, "class-too-small-to-validate")
    alike: dict[str, list[str]] = defaultdict(list)
    for name in counts.names:
        letters = unicodedata.normalize("NFKC", name).casefold()
        alike[re.sub(r"[\W_]+", "", letters) or name].append(name)
    for names in alike.values():
        if len(names) > 1:
            message = f"{listed(names)} differ only in case, spaces or punctuation"
            findings.append(Finding("warning", message, "merge them if they mean one class", "classes-alike"))
    if len(data.splits.get("test", ())):
        tested, few = data.counts("test"), f"under {FEW_IMAGES} test images"
        unknown = "add some: nothing is known of them otherwise"
        wide = "add some, or mind how wide the intervals of their figures are"
        findings += _sized(tested, 0, 0, "no test image", unknown, "class-untested", "note")
        findings += _sized(tested, 1, FEW_IMAGES - 1, few, wide, "class-hardly-tested", "note")
    else:
        remedy = "keep some images apart as one, to have numbers to trust"
        findings.append(Finding("note", "there is no test split", remedy, "no-test-split"))
    if counts.imbalance_ratio < _NEARLY_BALANCED:
        message = f"the classes are nearly balanced (ratio {counts.imbalance_ratio:.2f})"
        remedy = "expect plain cross-entropy to do as well, or cut --imbalance-ratio"
        findings.append(Finding("note", message, remedy, "balanced"))
    return findings


def _broken_findings(broken: Sequence[Probe]) -> list[Finding]:
    findings = []
    for probe in broken[:_SHOWN_ERRORS]:
        message, _, remedy = probe.error.rpartition(": ")
        findings.append(Finding("error", message, remedy.rstrip("."), UNREADABLE, (probe.name,)))
    if len(broken) > _SHOWN_ERRORS:
        rest = tuple(probe.name for probe in broken[_SHOWN_ERRORS:])
        message = f"{len(rest):,} more images cannot be read"
        findings.append(Finding("error", message, "see them all with --json", UNREADABLE, rest))
    return findings


def _sized(
    counts: ClassCounts, low: int, high: int, description: str, remedy: str, kind: str, severity: Severity = "warning"
) -> list[Finding]:
    """Return a finding that names the classes with ``low`` to ``high`` images, if any."""
    names = [name for name, count in zip(counts.names, counts, strict=True) if low <= count <= high]
    if not names:
        return []
    have, them = ("has", "it") if len(names) == 1 else ("have", "them")
    return [Finding(severity, f"{listed(names)} {have} {description}", remedy.format(them=them), kind)]


def render(inspection: Inspection, console: Console, *, max_rows: int = 40) -> None:
    """Print an inspection: bars by class (largest first), ratio, groups, image sizes and modes, findings.

    Args:
        inspection: From :func:`~longtail.data.audit.inspection.inspect_source`.
        console: Console to print on.
        max_rows: With more classes than this, a bar stands for several classes of neighboring size.
    """
    names = min(_NAME, max(len(printable(name)) for name in inspection.classes) + 6)  # "+ 123" behind some
    numbers = sum(max(len(name), len(f"{max(counts):,}")) + 2 for name, counts in inspection.counts.items())
    other_columns = names + numbers + len("  medium  ")
    console.print(_table(inspection, max_rows, bar_width=max(8, min(48, console.width - other_columns))))
    for line in _facts(inspection):
        console.print(Text(line))
    for finding in inspection.findings:
        mark, color = _MARKS[finding.severity]
        console.print(Text.assemble((f"{mark} {finding.severity}: ", color), printable(str(finding))))


def bar(value: float, top: float, width: int) -> str:
    """Draw a horizontal bar in eighths of a character; any value above zero is visible.

    Example:
        >>> bar(5, 10, 8), bar(0, 10, 8), bar(0.001, 10, 8)
        ('████', '', '▏')
    """
    eighths = max(round(8 * width * value / top), 1) if value > 0 else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def printable(text: str) -> str:
    r"""Escape control characters and line breaks, which file and class names may contain.

    Example:
        >>> print(printable("a\nb é"))
        a\nb é
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _table(inspection: Inspection, max_rows: int, bar_width: int) -> Table:
    train = np.array(inspection.counts["train"])
    step = -(-len(train) // max_rows)  # classes of a bar: one if they fit
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", overflow="ellipsis", no_wrap=True, max_width=_NAME)
    for name in inspection.counts:
        table.add_column(name, justify="right")
    table.add_column("group")
    table.add_column("")
    for group, members in inspection.groups.items():
        order = sorted(members, key=lambda label: -train[label])
        for rows in (order[start : start + step] for start in range(0, len(order), step)):
            cells = [_number(np.array(counts)[rows]) for counts in inspection.counts.values()]
            bars = bar(float(train[rows].mean()), float(train.max()), bar_width)
            title = printable(inspection.classes[rows[0]]) + (f" + {len(rows) - 1}" if len(rows) > 1 else "")
            table.add_row(Text(title), *cells, *(Text(text, style=_COLORS[group]) for text in (group, bars)))
    return table


def _number(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _facts(inspection: Inspection) -> list[str]:
    totals = ", ".join(f"{sum(counts):,} {name}" for name, counts in inspection.counts.items())
    groups = ", ".join(f"{len(rows)} {name}" for name, rows in inspection.groups.items())
    lines = [
        f"{inspection.source}: {len(inspection.classes)} classes; images: {totals}",
        f"imbalance ratio {inspection.imbalance_ratio:.4g}; classes by shot: {groups}",
    ]
    if inspection.sizes:
        sizes = inspection.sizes
        smallest, median, largest = (f"{w}x{h}" for w, h in (sizes["smallest"], sizes["median"], sizes["largest"]))
        size = smallest if smallest == largest else f"{smallest} to {largest}, median {median}"
        modes = ", ".join(f"{count:,} {mode}" for mode, count in inspection.modes.items())
        lines.append(f"size {size}; modes: {modes}")
    part = "" if inspection.checked == inspection.total else f" of {inspection.total:,} (a sample)"
    rate = f"{inspection.checked / max(inspection.seconds, 1e-9):,.0f} images/s"
    lines.append(f"{inspection.checked:,} images decoded{part} at {rate}, {len(inspection.unreadable):,} unreadable")
    kinds = Counter(group.kind for group in inspection.duplicates)
    lines.append(f"groups of exact copies: {kinds['exact']:,}; of images that look alike: {kinds['near']:,}")
    return lines
