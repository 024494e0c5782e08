"""The page of `longtail inspect`: an Inspection as one self-contained HTML file, with pictures of the copies."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

from longtail.data.audit.duplicates import DuplicateGroup
from longtail.data.audit.inspection import Inspection, printable
from longtail.data.dataset import ImageData, Severity
from longtail.errors import LongtailError
from longtail.files import output_path, write_atomically
from longtail.formatting import listing, percent
from longtail.report.page import environment
from longtail.report.pictures import Picture, webp_uri

GALLERIES, COPIES, NAMES = 24, 6, 200
"""Groups of copies that are shown with pictures, pictures of a group, and images that a finding names."""


def write_audit(inspection: Inspection, out: str | Path, data: ImageData) -> Path:
    """Write the page of an inspection.

    Args:
        inspection: From :func:`~longtail.data.audit.inspection.inspect_data`.
        out: The HTML file; its folder is made, and the file appears complete or not at all.
        data: The source, for the pictures.

    Returns:
        The path of the file.

    Raises:
        LongtailError: The file cannot be written.
    """
    target = output_path(out)
    write_atomically(target, render_audit(inspection, data).encode())
    return target


def render_audit(inspection: Inspection, data: ImageData) -> str:
    """Render the page as text; groups of copies under several labels come first, then those in several splits."""
    templates = environment()
    templates.filters["printable"] = printable
    groups = sorted(inspection.duplicates, key=lambda group: (-len(group.labels), -len(group.splits)))
    tally = Counter(finding.severity for finding in inspection.findings)
    words = [f"{tally[kind]:,} {kind}{'s' * (tally[kind] > 1)}" for kind in get_args(Severity) if tally[kind]]
    sample = "" if inspection.checked == inspection.total else f" of {inspection.total:,}, evenly spread,"
    train = inspection.counts["train"]
    return templates.get_template("audit.html.j2").render(
        inspection=inspection,
        lead=f"{inspection.checked:,} images{sample} were decoded: {listing(words or ['nothing looks wrong'])}.",
        facts=_facts(inspection),
        listed=NAMES,
        order=sorted(range(len(train)), key=lambda index: -train[index]),
        group_of={index: name for name, members in inspection.groups.items() for index in members},
        galleries=[_gallery(group, data) for group in groups[:GALLERIES]],
        hidden=max(0, len(groups) - GALLERIES),
    )


def _facts(inspection: Inspection) -> list[tuple[str, str]]:
    """The figures of the strip under the title."""
    facts = [("Classes", f"{len(inspection.classes):,}")]
    facts += [(f"{split.capitalize()} images", f"{sum(counts):,}") for split, counts in inspection.counts.items()]
    facts.append(("Imbalance ratio", f"{inspection.imbalance_ratio:,.4g}"))
    if (sizes := inspection.sizes) is not None:
        (width, height), extremes = sizes["median"], (sizes["smallest"], sizes["largest"])
        facts.append(("Median size", f"{width} × {height}"))
        facts.append(("Smallest, largest", ", ".join(f"{width} × {height}" for width, height in extremes)))
    modes = ", ".join(f"{number:,} {mode}" for mode, number in inspection.modes.items())
    return [*facts, ("Modes", modes or "none")]


def _gallery(group: DuplicateGroup, data: ImageData) -> tuple[str, list[Picture], int]:
    """Title, pictures and number of further copies; one copy of every label and split is shown before a second."""
    words = ["Exact copies" if group.kind == "exact" else "Look alike"]
    words += [f"in {' and '.join(group.splits)}"] * (len(group.splits) > 1)
    words += ["under several labels"] * (len(group.labels) > 1)
    firsts = {(copy.label, copy.split): copy for copy in reversed(group.images)}.values()
    shown = sorted(group.images, key=lambda copy: not any(copy is first for first in firsts))[:COPIES]
    pictures = []
    for copy in shown:
        name, caption = printable(copy.name), f"{printable(copy.label)}, {copy.split}"
        if copy.likeness is not None and copy.likeness < 1:
            caption += f", {percent(copy.likeness, 0)} like the first"
        try:
            pictures.append(Picture(webp_uri(data.splits[copy.split].image(copy.index)), caption, name, name))
        except LongtailError:  # gone since it was looked at: the page says so in its place
            pictures.append(Picture("", f"{caption}, no longer readable", name, name))
    return ", ".join(words), pictures, len(group.images) - len(shown)
