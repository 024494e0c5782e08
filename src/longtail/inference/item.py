"""Item: one image to be classified, wherever it comes from, and its pixels or what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from longtail.data.images import read_square, to_rgb, to_uint8
from longtail.errors import LongtailError
from longtail.inference.info import Preprocessing

Picture: TypeAlias = str | bytes | Image.Image | npt.NDArray[np.uint8]


class Item(NamedTuple):
    """One image to be classified.

    Attributes:
        name: What results call it: a path, as a rule.
        source: Path, encoded bytes, Pillow image, or uint8 array (H, W), (H, W, 1) or (H, W, 3).
        problem: What is wrong with it already, or empty.
    """

    name: str
    source: Picture
    problem: str = ""


class Loaded(NamedTuple):
    """One image: its pixels, or why there are none.

    Attributes:
        name: What results call it.
        pixels: uint8 (size, size, 3), or None.
        problem: The sentence that says what is wrong with it, or empty.
    """

    name: str
    pixels: npt.NDArray[np.uint8] | None
    problem: str = ""


def read_item(item: Item, preprocessing: Preprocessing) -> Loaded:
    """Bring an image to the square that the network takes; one that cannot be read gives its problem instead.

    Example:
        >>> square = Preprocessing(size=2, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> read_item(Item("grey", np.full((4, 6), 9, np.uint8)), square).pixels.shape
        (2, 2, 3)
        >>> read_item(Item("a.png", b"no image"), square).problem
        "'a.png' is not an image that can be read: remove or re-export it."
    """
    if item.problem:
        return Loaded(item.name, None, item.problem)
    size, resize, interpolation = preprocessing.size, preprocessing.resize, preprocessing.interpolation
    source = item.source
    try:
        if isinstance(source, np.ndarray):
            source = _picture(source)
        if isinstance(source, Image.Image):
            return Loaded(item.name, to_uint8(to_rgb(source), resize, size, interpolation))
        what = Path(source) if isinstance(source, str) else source
        return Loaded(item.name, read_square(what, item.name, resize=resize, size=size, interpolation=interpolation))
    except LongtailError as error:
        return Loaded(item.name, None, str(error))


def _picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if flat.dtype != np.uint8 or not (flat.ndim == 2 or (flat.ndim == 3 and flat.shape[2] == 3)) or not flat.size:
        raise LongtailError(
            f"an array of {pixels.dtype} of shape {pixels.shape} is no image: give uint8 of shape (H, W, 3) or (H, W)."
        )
    return Image.fromarray(np.ascontiguousarray(flat))
