"""What the audit has to say: of images that are broken or odd, and of classes too small or named alike."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from longtail.counts import FEW_IMAGES, ClassCounts
from longtail.data.audit.probe import NARROW, Mark, Probe, name_of
from longtail.data.dataset import Finding, ImageData, Severity

_NEARLY_BALANCED = 2.0
_ENOUGH_TO_HOLD_OUT = 5  # images of a class; of fewer, a tenth rounds to none
_TINY = 1 / 4  # of the median shorter side
_SHOWN_ERRORS = 20

_ODD: Mapping[Mark, tuple[Severity, str, str]] = {
    "one colour": ("warning", "of one colour only", "remove what shows nothing"),
    "narrow": (
        "warning",
        f"more than {NARROW:g} times as long as wide",
        "crop or pad: training keeps the centre square",
    ),
    "misnamed": ("note", "of another format than the name says", "rename: other programs may refuse to read it"),
    "deep": ("note", "of more than 8 bits a channel", "see that it looks right when scaled to 8 bits"),
    "own range": (
        "warning",
        "of floating-point or 32-bit values, each scaled to 8 bits by its own range",
        "convert them to 8 or 16 bits with one range for all",
    ),
    "print": ("note", "in colours for print or video", "see that it looks right as RGB, or convert it yourself"),
    "transparent": ("note", "with transparent parts", "mind that white is laid under them"),
    "animated": ("note", "with several frames or pages", "mind that only the first is taken"),
}


def image_findings(data: ImageData, probes: Sequence[Probe]) -> list[Finding]:
    """Name the images that cannot be used, and those that are not like others.

    Args:
        data: The source.
        probes: From :func:`~longtail.data.audit.probe.probe_all`.
    """
    findings = _broken_findings(data, [probe for probe in probes if probe.error])
    for mark, (severity, what, remedy) in _ODD.items():
        names = [name_of(data, probe) for probe in probes if mark in probe.marks]
        findings += [_odd(severity, names, what, remedy, mark.replace(" ", "-"))] if names else []
    sizes = [min(probe.size) for probe in probes if probe.size]
    limit = float(np.median(sizes)) * _TINY if sizes else 0.0
    tiny = [name_of(data, probe) for probe in probes if probe.size and min(probe.size) < limit]
    if tiny:
        what = f"under {limit:.0f} pixels wide or high, a quarter of the usual"
        findings.append(_odd("warning", tiny, what, "see whether it is a thumbnail or an icon", "tiny"))
    return findings


def class_findings(data: ImageData) -> list[Finding]:
    """Name the classes too small to train, to validate or to test on, and names that look alike."""
    counts = data.counts()
    findings = [finding for finding in (_size_finding(counts, low, high) for low, high in _sizes(data)) if finding]
    for names in _lookalikes(counts.names):
        message = f"{listed(names)} differ only in case, spaces or punctuation"
        findings.append(Finding("warning", message, "merge them if they mean one class", "classes-alike"))
    findings += _test_findings(data)
    if counts.imbalance_ratio < _NEARLY_BALANCED:
        message = f"the classes are nearly balanced (ratio {counts.imbalance_ratio:.2f})"
        remedy = "expect plain cross-entropy to do as well, or cut --imbalance-ratio"
        findings.append(Finding("note", message, remedy, "balanced"))
    return findings


def listed(names: Sequence[str], shown: int = 5) -> str:
    """The first names, quoted, and how many more there are.

    Example:
        >>> listed(["a", "b"]), listed("abcdefg")
        ("'a', 'b'", "'a', 'b', 'c', 'd', 'e' and 2 more")
    """
    words = ", ".join(repr(name) for name in names[:shown])
    return words + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


def _broken_findings(data: ImageData, broken: Sequence[Probe]) -> list[Finding]:
    findings = []
    for probe in broken[:_SHOWN_ERRORS]:
        message, _, remedy = probe.error.rpartition(": ")
        findings.append(Finding("error", message, remedy.rstrip("."), "unreadable", (name_of(data, probe),)))
    if len(broken) > _SHOWN_ERRORS:
        rest = tuple(name_of(data, probe) for probe in broken[_SHOWN_ERRORS:])
        findings.append(
            Finding(
                "error", f"{len(rest):,} more images cannot be read", "see them all with --json", "unreadable", rest
            )
        )
    return findings


def _odd(severity: Severity, names: Sequence[str], what: str, remedy: str, kind: str) -> Finding:
    number = f"{len(names):,} image{'s' * (len(names) > 1)}"
    return Finding(severity, f"{number} {what} ({listed(names)})", remedy, kind, tuple(names))


def _sizes(data: ImageData) -> list[tuple[int, int]]:
    """The ranges of class size worth a word; where the source brings a validation split, none need be held out."""
    return [(0, 0), (1, 1)] + ([] if len(data.splits.get("validation", ())) else [(2, _ENOUGH_TO_HOLD_OUT - 1)])


def _size_finding(counts: ClassCounts, low: int, high: int) -> Finding | None:
    names = [name for name, count in zip(counts.names, counts, strict=True) if low <= count <= high]
    if not names:
        return None
    have = "has" if len(names) == 1 else "have"
    what, remedy, kind = {
        0: ("no training image", "add images, or remove the class", "class-empty"),
        1: ("one training image", "add images; with one, nothing can be held out to validate on", "class-of-one"),
    }.get(
        high,
        (
            f"under {high + 1} training images, too few to validate on",
            f"add images; a tenth held out for validation has none of {'it' if len(names) == 1 else 'them'}",
            "class-too-small-to-validate",
        ),
    )
    return Finding("warning", f"{listed(names)} {have} {what}", remedy, kind)


def _test_findings(data: ImageData) -> list[Finding]:
    if not len(data.splits.get("test", ())):
        remedy = "keep some images apart as one, to have numbers to trust"
        return [Finding("note", "there is no test split", remedy, "no-test-split")]
    tested = data.counts("test")
    findings = []
    for words, kind, low, high, remedy in (
        ("no test image", "class-untested", 0, 0, "add some: nothing is known of them otherwise"),
        (f"under {FEW_IMAGES} test images", "class-hardly-tested", 1, FEW_IMAGES - 1,
         "add some, or mind how wide the intervals of their figures are"),
    ):  # fmt: skip
        names = [name for name, count in zip(tested.names, tested, strict=True) if low <= count <= high]
        if names:
            findings.append(
                Finding("note", f"{listed(names)} {'has' if len(names) == 1 else 'have'} {words}", remedy, kind)
            )
    return findings


def _lookalikes(names: Sequence[str]) -> list[list[str]]:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        letters = unicodedata.normalize("NFKC", name).casefold()
        alike[re.sub(r"[\W_]+", "", letters) or name].append(name)
    return [group for group in alike.values() if len(group) > 1]
