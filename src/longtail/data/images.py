"""Decoding: any image file or bytes becomes an 8-bit RGB image, or an error that names the file and the remedy."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from longtail.errors import LongtailError

_COMMON = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff")
EXTENSIONS = frozenset((*_COMMON, ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".tga"))
MAX_PIXELS = 89_478_485  # Pillow's own limit: 256 MB as 8-bit RGB; anything larger is refused unread
# What Pillow's readers raise on damaged data; each reader has its own.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


def open_image(source: bytes | str | os.PathLike[str], name: str = "") -> Image.Image:
    """Open an image without decoding its pixels: size and mode are known, errors are clear.

    Args:
        source: The encoded bytes, or the path of a file.
        name: What to call it in an error; the path when not given.

    Raises:
        LongtailError: No such file, not an image, or more than ``MAX_PIXELS`` pixels.
    """
    label = name or ("image" if isinstance(source, bytes) else os.fspath(source))
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except FileNotFoundError:
        raise LongtailError(f"{label!r} does not exist: restore the file, or take it out of the source.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise LongtailError(f"{label!r} has more than {MAX_PIXELS:,} pixels: scale it down first.") from None
    except UnidentifiedImageError:
        raise LongtailError(f"{label!r} is not an image that can be read: remove or re-export it.") from None
    except _BROKEN as error:
        raise LongtailError(f"{label!r} cannot be opened ({error}): remove or re-export it.") from None
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width:,} x {image.height:,}"
        image.close()
        raise LongtailError(f"{label!r} is {size}, more than {MAX_PIXELS:,} pixels: scale it down first.")
    return image


def decode(source: bytes | str | os.PathLike[str], name: str = "") -> Image.Image:
    """Decode an image to 8-bit RGB, whatever its format.

    Grayscale, palette, CMYK and 1-bit images are converted; transparency is laid over white; 16-bit, 32-bit and
    floating-point images are scaled to 8 bits, not clipped; the EXIF orientation is applied; of an animation the
    first frame is taken.

    Args:
        source: The encoded bytes, or the path of a file.
        name: What to call it in an error; the path when not given.

    Returns:
        The image in mode ``"RGB"``.

    Raises:
        LongtailError: The file is missing, truncated, too large or not an image; the sentence names it.

    Example:
        >>> buffer = io.BytesIO()
        >>> Image.new("LA", (5, 4), (0, 0)).save(buffer, "PNG")  # black, but fully transparent
        >>> decode(buffer.getvalue()).getpixel((0, 0))
        (255, 255, 255)
    """
    label = name or ("image" if isinstance(source, bytes) else os.fspath(source))
    with open_image(source, name) as image:
        try:
            image.load()
            return to_rgb(_upright(image))
        except _BROKEN as error:
            raise LongtailError(f"{label!r} is damaged ({error}): remove it or fetch it again.") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any Pillow mode to ``"RGB"``; transparency is laid over white.

    Example:
        >>> to_rgb(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0))
        (255, 255, 255)
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def to_uint8(image: Image.Image, resize: int | None, size: int) -> npt.NDArray[np.uint8]:
    """Bring an RGB image to a square of one size: scale the shorter side, then crop the centre.

    An image that is ``size`` x ``size`` already is left alone. Scaling is bicubic with anti-aliasing.

    Args:
        image: An RGB image.
        resize: The shorter side after scaling, at least ``size``; None means ``size``.
        size: The side of the square that is kept.

    Returns:
        Array of shape (size, size, 3).

    Raises:
        ValueError: ``resize`` is smaller than ``size``.

    Example:
        >>> to_uint8(Image.new("RGB", (300, 200)), 64, 56).shape
        (56, 56, 3)
    """
    shorter = size if resize is None else resize
    if not 0 < size <= shorter:
        raise ValueError(f"resize={shorter} must be at least size={size}, and size at least 1.")
    if image.size != (size, size):
        # One step instead of two: only the pixels that survive the crop are computed, so that a panorama stays cheap.
        side = min(image.size) * size / shorter
        left, top = (image.width - side) / 2, (image.height - side) / 2
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return np.array(image, dtype=np.uint8)


def is_image_path(path: str | os.PathLike[str]) -> bool:
    """Tell by its name whether a file should be an image.

    Example:
        >>> is_image_path("a/IMG_1.JPG"), is_image_path("notes.txt"), is_image_path(".hidden.png")
        (True, False, False)
    """
    file = Path(path)
    return file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _BROKEN:  # a broken EXIF block says nothing about the pixels
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit or float values to 0..255: by the type's range, or the values' own where they exceed it."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    low, top = min(values.min(), 0.0), values.max()
    full = next((limit for limit in ranges if top <= limit and low >= 0), max(top - low, 1.0))
    return Image.fromarray(np.rint((values - low) / full * 255).astype(np.uint8))
