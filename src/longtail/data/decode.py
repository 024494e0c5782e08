"""Decoding of image files and bytes to 8-bit RGB, with errors that name the file and the remedy."""

from __future__ import annotations

import errno
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from longtail.errors import LATER, LongtailError, OwnRangeWarning, UnreadableImageError, first_line


def _suffixes(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


EXTENSIONS = _suffixes("jpg jpeg jpe jfif png apng bmp dib gif webp tif tiff ppm pgm pbm pnm avif jp2 tga")
"""Of image files that are read."""
UNREAD_EXTENSIONS = _suffixes(
    "raw dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 raf pef srw x3f 3fr iiq kdc dcr mrw erf mef rwl gpr "
    "heic heif hif jxl svg psd psb xcf exr hdr dcm ico icns "
    "mp4 mov avi mkv m4v webm mts"
)
"""Of camera raw files, graphics and videos, which are reported as unread: a folder of them must not look empty."""
MAX_PIXELS = 89_478_485  # Pillow's own limit: 256 MB as 8-bit RGB; anything larger is refused unread
_DEEPEST = 65535.0  # the largest value of 16 bits
_SUBFILE_TYPE, _DNG_VERSION = 254, 50706  # tags of TIFF
_OF_THE_MACHINE = (
    "EIO ESTALE ETIMEDOUT ENOTCONN ECONNRESET ECONNABORTED EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH EREMOTEIO EBUSY "
    "EAGAIN EINTR EMFILE ENFILE ENOMEM"
)
"""Errors of disks, networks and memory. Pillow's own about damaged data have no number."""
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def open_image(source: bytes | str | os.PathLike[str], name: str = "") -> Image.Image:
    """Open an image without decoding its pixels.

    Args:
        source: The encoded bytes, or the path of a file.
        name: Its name in errors; the path when not given.

    Raises:
        UnreadableImageError: No such file, not an image, a format that is not read, or more than :func:`max_pixels`
            pixels.
    """
    label = _label(source, name)
    if not isinstance(source, bytes) and is_unread_path(source):  # of some, Pillow would read a small preview
        raise _unread(label)
    limit = max_pixels()
    if limit > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # the user asked for it, and Pillow would refuse first
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except FileNotFoundError:
        raise UnreadableImageError(
            f"{label!r} does not exist: restore the file, or take it out of the source."
        ) from None
    except _BOMB:
        raise _too_large(label, _size_in_header(source)) from None
    except UnidentifiedImageError:
        raise UnreadableImageError(f"{label!r} is not an image that can be read: remove or re-export it.") from None
    except Exception as error:  # each of Pillow's readers raises errors of its own on damaged data
        raise unreadable(error, label, "cannot be opened", "remove or re-export it.") from None
    if image.width * image.height > limit:
        image.close()
        raise _too_large(label, image.size)
    if isinstance(image, TiffImageFile):  # the first image may be a thumbnail, as in raw formats of cameras
        subfile_type = image.tag_v2.get(_SUBFILE_TYPE, 0)
        if _DNG_VERSION in image.tag_v2 or (isinstance(subfile_type, int) and subfile_type & 1):
            image.close()
            raise _unread(label)
    if image.format == "PNG" and "transparency" in image.info:
        image.info["transparency"] = _clear_value(image)
    return image


def max_pixels() -> int:
    """Return the largest number of pixels of an image: ``$LONGTAIL_MAX_PIXELS``, or :data:`MAX_PIXELS`.

    Raises:
        LongtailError: The variable is not a whole number of at least 1.

    Example:
        >>> max_pixels()
        89478485
    """
    text = os.environ.get("LONGTAIL_MAX_PIXELS", "").replace("_", "")
    if text and not (text.isdecimal() and int(text)):
        raise LongtailError(f"LONGTAIL_MAX_PIXELS={text} is not a number of pixels: set a whole number, or unset it.")
    return int(text) if text else MAX_PIXELS


def _size_in_header(source: bytes | str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return the size of an image that is too large for ``Image.open``, from Pillow's reader of its format, if any."""
    with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
        start = file.read(16)
        for reader, accepts in (Image.OPEN[kind] for kind in Image.ID):
            accepted = accepts is None or accepts(start)
            if accepted and not isinstance(accepted, str):  # a text is the reason why not
                file.seek(0)
                with suppress(Exception):  # of another format after all, or its first frame is as large
                    return reader(file, "").size
    return None


def _too_large(label: str, size: tuple[int, int] | None) -> UnreadableImageError:
    shape = "large" if size is None else f"{size[0]:,} x {size[1]:,}"
    remedy = "scale it down first, or set LONGTAIL_MAX_PIXELS."
    return UnreadableImageError(f"{label!r} is {shape}, more than {max_pixels():,} pixels: {remedy}")


def unreadable(error: Exception, label: str, problem: str, remedy: str) -> UnreadableImageError:
    """Say what is wrong with an image, or that the machine could not read it, which is no fault of the image.

    Args:
        error: Met on opening or decoding it.
        label: Its name.
        problem: What is wrong if it is the image's fault.
        remedy: What to do then, with a period.

    Example:
        >>> print(unreadable(OSError("image file is truncated"), "a.jpg", "is damaged", "fetch it again."))
        'a.jpg' is damaged (image file is truncated): fetch it again.
    """
    reason = getattr(error, "strerror", None) or first_line(error)
    if isinstance(error, MemoryError):
        return UnreadableImageError(f"{label!r} does not fit the memory: close other programs and {LATER}")
    if isinstance(error, OSError) and errno.errorcode.get(error.errno or 0) in _OF_THE_MACHINE.split():
        return UnreadableImageError(f"{label!r} cannot be read ({reason}): restore the access to it and {LATER}")
    if isinstance(error, PermissionError):
        return UnreadableImageError(f"{label!r} may not be read: allow it, or take it out of the source.")
    return UnreadableImageError(f"{label!r} {problem} ({reason}): {remedy}")


def _unread(label: str) -> UnreadableImageError:
    return UnreadableImageError(f"{label!r} is in a format that is not read: convert it to JPEG or PNG.")


def _clear_value(image: Image.Image) -> Any:
    """Return the transparent color of a PNG in 8-bit values; Pillow keeps the values of the file."""
    clear: Any = image.info["transparency"]
    tiles: Any = getattr(image, "tile", [])
    layout = str(tiles[0].args) if tiles else ""  # of the file's pixels
    if image.mode == "L" and isinstance(clear, int):
        return clear * {"L;2": 85, "L;4": 17}.get(layout, 1)
    if image.mode == "RGB" and layout == "RGB;16B":
        return tuple(value >> 8 for value in clear)
    return clear


def _label(source: bytes | str | os.PathLike[str], name: str) -> str:
    return name or ("image" if isinstance(source, bytes) else os.fspath(source))


def decode(source: bytes | str | os.PathLike[str], name: str = "") -> Image.Image:
    """Decode an image to 8-bit RGB, whatever its format.

    Grayscale, palette, CMYK and 1-bit images are converted; transparency is laid over white; 16-bit, 32-bit and
    floating-point images are scaled to 8 bits, not clipped (each by its own range if :func:`has_own_range`); the EXIF
    orientation is applied; of an animation the first frame is taken.

    Args:
        source: The encoded bytes, or the path of a file.
        name: Its name in errors; the path when not given.

    Returns:
        The image in mode ``"RGB"``.

    Raises:
        UnreadableImageError: The file is missing, truncated, too large or not an image; the sentence names it.

    Example:
        >>> buffer = io.BytesIO()
        >>> Image.new("LA", (5, 4), (0, 0)).save(buffer, "PNG")  # black, but fully transparent
        >>> decode(buffer.getvalue()).getpixel((0, 0))
        (255, 255, 255)
    """
    with opened(source, name) as image:
        return upright_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any Pillow mode to ``"RGB"``; transparency is laid over white.

    Example:
        >>> to_rgb(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0))
        (255, 255, 255)
    """
    if image.mode.startswith("I") or image.mode == "F":
        gray = _eight_bits(image)
        clear = image.info.get("transparency")  # the fully transparent value
        if isinstance(clear, int):
            gray.paste(255, mask=Image.fromarray(np.asarray(image) == clear))
        return gray.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in {"RGBA", "LA", "PA", "RGBa"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def has_own_range(image: Image.Image) -> bool:
    """Whether the values of an image have no fixed range, so that it is scaled to 8 bits by its own range.

    Example:
        >>> has_own_range(Image.new("F", (1, 1), 0.9)), has_own_range(Image.new("I", (1, 1), 65535))
        (True, False)
    """
    if image.mode != "I":
        return image.mode == "F"
    low, high = image.getextrema()
    return not 0 <= low <= high <= _DEEPEST  # type: ignore[operator]  # of one band


def is_image_path(path: str | os.PathLike[str]) -> bool:
    """Whether a file name has the extension of an image.

    Example:
        >>> is_image_path("a/IMG_1.JPG"), is_image_path("notes.txt"), is_image_path(".hidden.png")
        (True, False, False)
    """
    name = os.path.basename(path)  # noqa: PTH119 - no Path is made of each of a million
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")  # noqa: PTH122


def is_unread_path(path: str | os.PathLike[str]) -> bool:
    """Whether a file name has the extension of a photograph or video in a format that is not read.

    Example:
        >>> is_unread_path("a/IMG_1.HEIC"), is_unread_path("a/IMG_1.JPG"), is_unread_path("notes.txt")
        (True, False, False)
    """
    file = Path(path)
    return file.suffix.lower() in UNREAD_EXTENSIONS and not file.name.startswith(".")


@contextmanager
def opened(source: bytes | str | os.PathLike[str], name: str = "") -> Iterator[Image.Image]:
    r"""Open an image for a ``with`` block, and name it in the error if it turns out to be damaged.

    Args:
        source: As for :func:`open_image`.
        name: As for :func:`open_image`.

    Raises:
        UnreadableImageError: As for :func:`open_image`, or the block finds the image damaged.

    Example:
        >>> with opened(b"P5\n2 1\n255\n" + bytes([7, 7])) as image:
        ...     image.size, upright_rgb(image).mode
        ((2, 1), 'RGB')
    """
    with open_image(source, name) as image, damage_named(_label(source, name)):
        yield image


@contextmanager
def damage_named(label: str) -> Iterator[None]:
    """Name an open image in the error if the block finds it damaged.

    Raises:
        UnreadableImageError: It is damaged, or a part of it is larger than the whole.

    Example:
        >>> with damage_named("a.png"):
        ...     raise OSError("image file is truncated")
        Traceback (most recent call last):
        ...
        longtail.errors.UnreadableImageError: 'a.png' is damaged (image file is truncated): remove it or fetch it again.
    """
    try:
        yield
    except _BOMB:  # a part larger than the whole
        raise _too_large(label, None) from None
    except (LongtailError, Warning):  # a warning is an error where the user asked for that
        raise
    except Exception as error:
        raise unreadable(error, label, "is damaged", "remove it or fetch it again.") from None


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an open image in 8-bit RGB, turned by its EXIF orientation.

    Example:
        >>> upright_rgb(Image.new("L", (3, 2), 9)).getpixel((0, 0))
        (9, 9, 9)
    """
    image.load()
    return to_rgb(upright(image))


def upright(image: Image.Image) -> Image.Image:
    """Turn an image by its EXIF orientation.

    Example:
        >>> image = Image.new("RGB", (30, 10))
        >>> image.getexif()[0x0112] = 6  # the camera was held upright
        >>> upright(image).size
        (10, 30)
    """
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return image


@cache
def _say_own_range() -> None:
    """Warn once per process; other code may reset the warning filters, which would repeat it."""
    message = (
        "images of floating-point or 32-bit values are each scaled to 8 bits by their own range: "
        "convert them to 8 or 16 bits with one range for all, where brightness matters."
    )
    warnings.warn(message, OwnRangeWarning, stacklevel=2)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit or float values to 0..255: by the type's range, or the values' own where they exceed it."""
    if has_own_range(image):
        _say_own_range()
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    ranges = (1.0, 255.0, _DEEPEST) if image.mode == "F" else (_DEEPEST,)
    low, top = min(values.min(), 0.0), values.max()
    full = next((limit for limit in ranges if top <= limit and low >= 0), max(top - low, 1.0))
    return Image.fromarray(np.rint((values - low) / full * 255).astype(np.uint8))
