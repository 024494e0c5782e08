"""Pictures in a page: stored images as data addresses, chosen by class, with captions that can be told apart."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from longtail.compare.table import Row
from longtail.formatting import class_word, percent
from longtail.report.plots import shorten
from longtail.run.tables import ExampleImage

LIGHT_BYTES = 4_000
"""A larger PNG, as older versions stored pictures, is embedded as WebP."""
SIDE = 96
"""Pixels of the longer side of a picture that is stored anew."""


@dataclass(frozen=True)
class Picture:
    """An embedded image with what stands under it, what is read aloud for it, and the file it was made from."""

    uri: str
    caption: str
    alt: str
    file: str = ""


def data_uri(image: bytes, *, light: int = LIGHT_BYTES) -> str:
    """An image for ``src``: a WebP as stored, as is a PNG up to ``light`` bytes; a larger one 96 pixels a side as WebP.

    Example:
        >>> data_uri(b"RIFF"), data_uri(b"no image at all", light=4)
        ('data:image/webp;base64,UklGRg==', 'data:,')
    """
    if image.startswith(b"RIFF") or len(image) <= light:
        kind = "webp" if image.startswith(b"RIFF") else "png"
        return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return webp_uri(opened.convert("RGB"))
    except (UnidentifiedImageError, OSError):
        return "data:,"


def webp_uri(image: Image.Image) -> str:
    """A decoded image for ``src``, made small."""
    image.thumbnail((SIDE, SIDE))
    target = io.BytesIO()
    image.save(target, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(target.getvalue()).decode()}"


def short_names(names: Sequence[str], length: int = 24) -> list[str]:
    """Shorten class names to captions that can be told apart: those that would read the same stay whole.

    Example:
        >>> short_names(["Larus argentatus juvenile", "Larus argenteus", "Larus argentina juvenile"], 12)
        ['Larus argentatus juvenile', 'Larus…enteus', 'Larus argentina juvenile']
    """
    shortened = [shorten(name, length) for name in names]
    tally = Counter(shortened)
    return [text if tally[text] == 1 else name for text, name in zip(shortened, names, strict=True)]


def examples_of(rows: Sequence[Row], role: str, label: int) -> Iterator[tuple[Row, ExampleImage]]:
    """The stored pictures of a class in one role, ``train`` or ``error``, with the configuration that kept each."""
    for row in rows:
        for run in row.runs:
            yield from ((row, each) for each in run.examples if each.role == role and each.label == label)


def class_pictures(rows: Sequence[Row], label: int, limit: int) -> tuple[Picture, ...]:
    """Training images of a class; where no run kept any, test images of it that some run got wrong."""
    name = class_word(rows[0].runs[0].counts.names[label])
    for role, words in (("train", "training image"), ("error", "test image")):
        images = {each.image: each.path for _, each in examples_of(rows, role, label)}
        if images:
            shown = list(images.items())[:limit]
            return tuple(Picture(data_uri(image), "", f"{words} of {name}", file) for image, file in shown)
    return ()


def error_pictures(rows: Sequence[Row], label: int, limit: int, prediction: int | None = None) -> tuple[Picture, ...]:
    """Test images of a class that were taken for another, the surest first, each once, under that other class's name.

    Args:
        rows: Configurations; several may err on the same image.
        label: The class.
        limit: Number of pictures.
        prediction: Only images that were taken for this class.
    """
    names = rows[0].runs[0].counts.names
    captions = short_names(names)
    wrong = [
        (row, each)
        for row, each in examples_of(rows, "error", label)
        if each.prediction >= 0 and prediction in (None, each.prediction)
    ]
    surest: dict[bytes, tuple[Row, ExampleImage]] = {}
    for row, each in sorted(wrong, key=lambda pair: -pair[1].confidence):
        surest.setdefault(each.image, (row, each))
    return tuple(
        Picture(
            data_uri(each.image),
            class_word(captions[each.prediction]),
            f"{class_word(names[label])}, taken for {class_word(names[each.prediction])} at {percent(each.confidence)} "
            f"confidence under {row.label}",
            each.path,
        )
        for row, each in list(surest.values())[:limit]
    )
