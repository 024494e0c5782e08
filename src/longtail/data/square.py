"""Square: the pixels that a network is given of an image, and how any image is brought to them."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from longtail.data.decode import damage_named, max_pixels, opened, to_rgb, upright, upright_rgb
from longtail.errors import LongtailError

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Fit = Literal["crop", "pad", "stretch"]
_SPARE = 1.25  # how many times the pixels needed a side keeps when a JPEG is decoded at a fraction of its size
_RAW_HEADER = re.compile(rb"P([56])\n(\d{1,9}) (\d{1,9})\n255\n")  # of the pixels that this package itself stores


@dataclass(frozen=True)
class Square:
    """The square that an image is brought to, and the way there of an image that is not square.

    ``crop`` scales the shorter side to ``resize`` and keeps the center. ``pad`` scales the longer side to ``size``,
    puts the picture in the middle and fills the rest with one color, the mean of its first and last row and its first
    and last column. ``stretch`` scales both sides to ``size``. All three leave an image of ``size`` x ``size`` alone.

    Attributes:
        size: Side of the square in pixels, at least 1.
        resize: The shorter side after scaling where ``fit`` is ``crop``, at least ``size``; None means ``size``.
        interpolation: Filter for scaling.
        fit: ``crop``, ``pad`` or ``stretch``.

    Raises:
        ValueError: ``resize`` is smaller than ``size``, or ``size`` below 1.

    Example:
        >>> Square(224).shorter, Square(224, 256).shorter
        (224, 256)
    """

    size: int
    resize: int | None = None
    interpolation: Interpolation = "bicubic"
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        if not 0 < self.size <= self.shorter:
            raise ValueError(f"resize={self.shorter} must be at least size={self.size}, and size at least 1.")

    @property
    def shorter(self) -> int:
        """The shorter side of the image after scaling, where the center is cut out."""
        return self.size if self.resize is None else self.resize

    def scaled(self, width: float, height: float) -> tuple[int, int]:
        """Return width and height that a whole image is scaled to, before it is padded.

        Example:
            >>> Square(224, fit="pad").scaled(448, 100), Square(224, fit="stretch").scaled(448, 100)
            ((224, 50), (224, 224))
        """
        if self.fit != "pad":
            return self.size, self.size
        longer = max(width, height)  # rounded as by Pillow's ImageOps.pad, but never to nothing
        return max(1, round(width / longer * self.size)), max(1, round(height / longer * self.size))


def read_square(source: bytes | str | os.PathLike[str], square: Square, name: str = "") -> npt.NDArray[np.uint8]:
    r"""Decode an image to a square of one size; a large JPEG is decoded at a fraction of its size.

    Raw pixels behind a short header, as :meth:`~longtail.data.dataset.Split.from_arrays` and ``longtail prepare`` store
    them, are copied without a decoder.

    Args:
        source: The encoded bytes, or the path of a file.
        square: Its size, and how an image is brought to it.
        name: Its name in errors; the path when not given.

    Returns:
        Array of shape (size, size, 3).

    Raises:
        UnreadableImageError: As for :func:`~longtail.data.decode.decode`.

    Example:
        >>> read_square(b"P5\n2 1\n255\n" + bytes([7, 7]), Square(1)).tolist()
        [[[7, 7, 7]]]
    """
    raw = _raw_pixels(source) if isinstance(source, bytes) else None
    if raw is not None:
        return _square_of_raw(raw, square)
    with opened(source, name) as image:
        extent = shrink(image, square)
        image.load()
        if extent is None:
            return to_uint8(to_rgb(upright(image)), square)
        # Turned after scaling: until then the filling of a drafted JPEG is at the right and lower edges.
        return _padded(upright(_scaled(to_rgb(image), extent, square)), square.size)


def square_of(image: object, square: Square, name: str = "") -> npt.NDArray[np.uint8]:
    """Bring an image of any kind to a square, uint8 (size, size, 3).

    Args:
        image: A path, encoded bytes, a Pillow image, or a uint8 array (H, W), (H, W, 1) or (H, W, 3). A Pillow image is
            turned by its EXIF orientation, as a file is.
        square: Its size, and how an image is brought to it.
        name: As for :func:`read_square`.

    Raises:
        LongtailError: It is none of these, or cannot be decoded.
    """
    if isinstance(image, (bytes, str, os.PathLike)):
        return read_square(image, square, name)
    if isinstance(image, np.ndarray):
        pixels = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
        has_shape = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
        if pixels.dtype != np.uint8 or not has_shape or not pixels.size:
            raise LongtailError(
                f"an array of {image.dtype} of shape {image.shape} is not an image: give uint8 (H, W, 3) or (H, W)."
            )
        return to_uint8(to_rgb(Image.fromarray(np.ascontiguousarray(pixels))), square)
    if not isinstance(image, Image.Image):
        raise LongtailError(f"{type(image).__name__} is not an image: give paths, Pillow images or uint8 arrays.")
    with damage_named(name or getattr(image, "filename", "") or "image"):  # one of a file is decoded only now
        return to_uint8(upright_rgb(image), square)


def to_uint8(image: Image.Image, square: Square) -> npt.NDArray[np.uint8]:
    """Scale an RGB image and crop, pad or stretch it to the square.

    An image that is ``size`` x ``size`` already is left alone. Scaling is done with anti-aliasing.

    Args:
        image: An RGB image.
        square: As for :func:`read_square`.

    Returns:
        Array of shape (size, size, 3).

    Example:
        >>> to_uint8(Image.new("RGB", (300, 200)), Square(56, 64)).shape
        (56, 56, 3)
        >>> to_uint8(Image.new("RGB", (3, 1), "red"), Square(3, fit="pad"))[:, 0].tolist()
        [[255, 0, 0], [255, 0, 0], [255, 0, 0]]
    """
    corner = _whole_corner(image.size, square)
    if corner is None:
        image = _scaled(image, image.size, square)
    elif image.size != (square.size, square.size):
        left, top = corner
        image = image.crop((left, top, left + square.size, top + square.size))
    return _padded(image, square.size)


def shrink(image: Image.Image, square: Square) -> tuple[float, float] | None:
    """Let a JPEG be decoded at a half, a quarter or an eighth of its size.

    Each side keeps more pixels than it is scaled to, so that a resampling filter always takes the last step.

    Returns:
        Width and height of the picture within the decoded pixels, of which the last ones may be filling; None if the
        whole image is decoded.
    """
    if image.format not in {"JPEG", "MPO"}:
        return None
    before = image.size
    width, height = (square.shorter,) * 2 if square.fit == "crop" else square.scaled(*before)
    drafted = image.draft(None, (math.ceil(width * _SPARE), math.ceil(height * _SPARE)))
    if drafted is None:
        return None
    extent = drafted[1][2:]
    return None if extent == before else extent


def _scaled(image: Image.Image, extent: tuple[float, float], square: Square) -> Image.Image:
    (width, height), method = extent, Image.Resampling[square.interpolation.upper()]
    if square.fit != "crop":
        return image.resize(square.scaled(width, height), method, box=(0, 0, width, height))
    # One step instead of two: only pixels within the crop are computed, which keeps a panorama cheap.
    side = min(extent) * square.size / square.shorter
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((square.size, square.size), method, box=(left, top, left + side, top + side))


def _padded(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """Return the pixels of an RGB image, in the middle of a square of the mean color of its edges if it is smaller."""
    pixels = np.array(image, dtype=np.uint8)
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    top, left = round((size - height) / 2), round((size - width) / 2)  # as Pillow's ImageOps.pad
    result = np.empty((size, size, 3), dtype=np.uint8)
    result[:] = np.rint(edges.mean(axis=0))
    result[top : top + height, left : left + width] = pixels
    return result


def _whole_corner(shape: tuple[int, int], square: Square) -> tuple[int, int] | None:
    """Return left and top of the square if it can be cut out of an image of a shape without scaling, else None.

    Example:
        >>> square = Square(224, 256)
        >>> _whole_corner((256, 256), square), _whole_corner((256, 255), square), _whole_corner((224, 224), square)
        ((16, 16), None, (0, 0))
    """
    (width, height), size = shape, square.size
    if shape == (size, size):
        return 0, 0
    if square.fit != "crop":
        return None
    whole = min(shape) == square.shorter and (width - size) % 2 == 0 and (height - size) % 2 == 0
    return ((width - size) // 2, (height - size) // 2) if whole else None


def _square_of_raw(raw: npt.NDArray[np.uint8], square: Square) -> npt.NDArray[np.uint8]:
    height, width = raw.shape[:2]
    corner = _whole_corner((width, height), square)
    if corner is None:
        return to_uint8(to_rgb(Image.fromarray(raw)), square)
    left, top = corner
    cut = raw[top : top + square.size, left : left + square.size]
    return cut.copy() if raw.ndim == 3 else np.repeat(cut[..., None], 3, axis=2)


def _raw_pixels(data: bytes) -> npt.NDArray[np.uint8] | None:
    """Return the pixels of a PGM or PPM written by this package, (H, W) or (H, W, 3), read-only; else None."""
    header = _RAW_HEADER.match(data)
    if header is None:
        return None
    kind, width, height = (int(number) for number in header.groups())
    shape = (height, width) if kind == 5 else (height, width, 3)
    if not 0 < width * height <= max_pixels() or len(data) - header.end() != int(np.prod(shape)):
        return None  # left to Pillow's error
    return np.frombuffer(data, dtype=np.uint8, offset=header.end()).reshape(shape)
