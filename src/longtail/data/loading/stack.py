"""stack_images: images as people hold them in Python, to one uint8 tensor of the size a network takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from longtail.data.decode import Interpolation, read_square, to_rgb, to_uint8
from longtail.errors import LongtailError

ImagesLike: TypeAlias = Sequence[str | os.PathLike[str] | Image.Image | npt.NDArray[Any]] | npt.NDArray[Any]


def stack_images(
    images: ImagesLike, *, size: int, resize: int | None = None, interpolation: Interpolation = "bicubic"
) -> Tensor:
    """Bring images to one square size: the shorter side is scaled, then the centre is cut out.

    Args:
        images: Paths, Pillow images and uint8 arrays (H, W) or (H, W, 3), mixed as you like; or one uint8 array
            (N, H, W) or (N, H, W, 3).
        size: Side of the square in pixels.
        resize: The shorter side before the cut; ``size`` when not given.
        interpolation: How pixels in between are made up.

    Returns:
        uint8 (N, 3, size, size).

    Raises:
        LongtailError: A file that is no readable image, or a value that is none of these.

    Example:
        >>> stack_images([Image.new("L", (40, 20)), np.zeros((8, 8), np.uint8)], size=16).shape
        torch.Size([2, 3, 16, 16])
    """
    read = partial(_square, size=size, resize=resize, interpolation=interpolation)
    with ThreadPoolExecutor() as pool:
        squares = list(pool.map(read, images))
    if not squares:
        return torch.zeros(0, 3, size, size, dtype=torch.uint8)
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def _square(image: Any, *, size: int, resize: int | None, interpolation: Interpolation) -> npt.NDArray[np.uint8]:
    if isinstance(image, str | os.PathLike):
        return read_square(image, resize=resize, size=size, interpolation=interpolation)
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not isinstance(image, Image.Image):
        raise LongtailError(
            f"an image is a path, a Pillow image or a uint8 array, not a {type(image).__name__}: convert it first."
        )
    return to_uint8(to_rgb(image), resize, size, interpolation)


def _from_array(pixels: npt.NDArray[Any]) -> Image.Image:
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise LongtailError(
            f"an image as an array is uint8 of shape (H, W) or (H, W, 3), not {pixels.dtype} of shape "
            f"{pixels.shape}: convert it, or leave backbone out if these are features."
        )
    return Image.fromarray(pixels)
