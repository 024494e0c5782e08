"""write_audit: an Inspection as one self-contained HTML page, with the pictures of what it found."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longtail.counts import GROUP_NAMES, GroupName
from longtail.data.audit.duplicates import Copy, DuplicateGroup
from longtail.data.audit.inspection import Inspection
from longtail.data.audit.terminal import printable
from longtail.data.dataset import Finding, ImageData, Severity
from longtail.errors import LongtailError
from longtail.files import output_path, write_atomically
from longtail.report.page import environment
from longtail.report.plots.palette import GROUP_LABELS, THEME
from longtail.text import listing, percent
from longtail.version import __version__

SHOWN_GROUPS = 24
"""So many groups of copies are shown with pictures, those with several labels or splits first."""
_SHOWN_COPIES = 6
_SHOWN_NAMES = 200
_SIDE = 96  # pixels of a picture's longer side
_WORDS: dict[Severity, str] = {"error": "Error", "warning": "Warning", "note": "Note"}


@dataclass(frozen=True)
class ClassRow:
    """One class of the histogram: its group, images by split, and the length of its bar in percent."""

    name: str
    group: GroupName
    label: str
    counts: tuple[int, ...]
    width: float


@dataclass(frozen=True)
class Thumbnail:
    """A picture of a group with what stands under it."""

    uri: str
    name: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """A group of copies with pictures of its first images."""

    title: str
    pictures: tuple[Thumbnail, ...]
    more: int


def write_audit(found: Inspection, out: str | Path, data: ImageData) -> Path:
    """Write the page of an inspection.

    Args:
        found: From :func:`~longtail.data.audit.inspection.inspect_data`.
        out: The HTML file; its folder is made, and the file appears complete or not at all.
        data: The source, for the pictures.

    Returns:
        The path of the file.

    Raises:
        LongtailError: The file cannot be written.
    """
    target = output_path(out)
    write_atomically(target, render_audit(found, data).encode())
    return target


def render_audit(found: Inspection, data: ImageData) -> str:
    """The page as text."""
    pages = environment()
    pages.filters["printable"] = printable
    worth_seeing = sorted(found.duplicates, key=lambda group: (-len(group.labels), -len(group.splits)))
    return pages.get_template("audit.html.j2").render(
        title=found.source,
        lead=_lead(found),
        facts=_facts(found),
        findings=[(finding, _WORDS[finding.severity], _names(finding)) for finding in found.findings],
        splits=list(found.counts),
        groups=[(name, GROUP_LABELS[name], len(found.groups[name])) for name in GROUP_NAMES],
        classes=_classes(found),
        galleries=[_gallery(group, data) for group in worth_seeing[:SHOWN_GROUPS]],
        hidden=max(0, len(found.duplicates) - SHOWN_GROUPS),
        theme=THEME,
        version=__version__,
    )


def _lead(found: Inspection) -> str:
    numbers = Counter(finding.severity for finding in found.findings)
    words = [f"{numbers[kind]:,} {kind}{'s' * (numbers[kind] > 1)}" for kind in _WORDS if numbers[kind]]
    sample = "" if found.checked == found.total else f" of {found.total:,}, evenly spread,"
    return f"{found.checked:,} images{sample} were decoded: {listing(words) if words else 'nothing looks wrong'}."


def _facts(found: Inspection) -> list[tuple[str, str]]:
    """The figures of the strip under the title."""
    facts = [("Classes", f"{len(found.classes):,}")]
    facts += [(f"{split.capitalize()} images", f"{sum(counts):,}") for split, counts in found.counts.items()]
    facts.append(("Imbalance ratio", f"{found.imbalance_ratio:,.4g}"))
    if found.sizes:
        smallest, median, largest = (
            f"{w} × {h}" for w, h in (found.sizes[k] for k in ("smallest", "median", "largest"))
        )
        facts += [("Median size", median), ("Smallest, largest", f"{smallest}, {largest}")]
    facts.append(("Modes", ", ".join(f"{number:,} {mode}" for mode, number in found.modes.items()) or "none"))
    return facts


def _names(finding: Finding) -> list[str]:
    """The images of a finding that its message does not name in full."""
    names = [printable(name) for name in finding.images[:_SHOWN_NAMES]]
    hidden = len(finding.images) - len(names)
    return names + ([f"and {hidden:,} more; --json lists them all"] if hidden else [])


def _classes(found: Inspection) -> list[ClassRow]:
    train = found.counts["train"]
    group_of = {row: name for name, rows in found.groups.items() for row in rows}
    order = sorted(range(len(train)), key=lambda row: -train[row])
    return [
        ClassRow(
            printable(found.classes[row]),
            group_of[row],
            GROUP_LABELS[group_of[row]],
            tuple(counts[row] for counts in found.counts.values()),
            round(100 * train[row] / max(train), 2),
        )
        for row in order
    ]


def _gallery(group: DuplicateGroup, data: ImageData) -> Gallery:
    clash = "several labels" if len(group.labels) > 1 else ""
    leak = " and ".join(group.splits) if len(group.splits) > 1 else ""
    what = "Exact copies" if group.kind == "exact" else "Look alike"
    title = ", ".join(filter(None, (what, leak and f"in {leak}", clash and f"under {clash}")))
    shown = _spread(group.images)
    return Gallery(title, tuple(_thumbnail(copy, data) for copy in shown), len(group.images) - len(shown))


def _spread(copies: Sequence[Copy]) -> list[Copy]:
    """The first images, but one of every label and split before a second of any."""
    seen: set[tuple[str, str]] = set()
    fresh = [copy for copy in copies if (place := (copy.label, copy.split)) not in seen and not seen.add(place)]  # type: ignore[func-returns-value]
    return [*fresh, *(copy for copy in copies if copy not in fresh)][:_SHOWN_COPIES]


def _thumbnail(copy: Copy, data: ImageData) -> Thumbnail:
    caption = f"{printable(copy.label)}, {copy.split}"
    if copy.likeness is not None and copy.likeness < 1:
        caption += f", {percent(copy.likeness, 0)} like the first"
    try:
        image = data.splits[copy.split].image(copy.index)
    except LongtailError:  # gone since it was looked at: the page says so in its place
        return Thumbnail("", printable(copy.name), f"{caption}, no longer readable")
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return Thumbnail(
        f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", printable(copy.name), caption
    )
