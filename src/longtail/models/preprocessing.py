"""Preprocessing: how an image becomes the input of a network at test time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Final, TypeAlias

from pydantic import Field
from torch import Tensor

from longtail.data.square import Fit, Interpolation, Square
from longtail.data.transforms.augmentation import BatchTransform

MAX_SIDE: Final = 4096
"""Of the input in pixels: a file from a stranger cannot make us allocate more."""
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Side: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SIDE)]


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of an image at test time.

    Attributes:
        size: Height and width of the input.
        mean: Mean that is subtracted from each of red, green and blue, on a scale of 0 to 1.
        std: What each of them is then divided by.
        resize: The shorter side before the center crop; None means ``size``.
        interpolation: How pixels in between are made up when an image is scaled.
        fit: How an image that is not square becomes one, see :class:`~longtail.data.square.Square`; files of older
            versions do not say, and mean ``crop``.
    """

    size: Side
    mean: Annotated[tuple[Finite, ...], Field(min_length=3, max_length=3)]
    std: Annotated[tuple[Positive, ...], Field(min_length=3, max_length=3)]
    resize: Side | None = None
    interpolation: Interpolation = "bicubic"
    fit: Fit = "crop"

    def at(self, size: int | None) -> Preprocessing:
        """Return the same for another image size, with the same share cut out; unchanged for None.

        Example:
            >>> Preprocessing(224, (0.5,) * 3, (0.5,) * 3, resize=256).at(112).resize
            128
        """
        side = size or self.size
        return replace(self, size=side, resize=self.resize and round(side * self.resize / self.size))

    @property
    def square(self) -> Square:
        """The square that an image is brought to before it is normalized."""
        return Square(self.size, self.resize, self.interpolation, self.fit)

    def normalize(self, images: Tensor) -> Tensor:
        """Return the network's input, float32, for uint8 images of shape (N, 3, H, W): what training did.

        Example:
            >>> import torch
            >>> white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
            >>> Preprocessing(size=1, mean=(0.5,) * 3, std=(0.25,) * 3).normalize(white).flatten().tolist()
            [2.0, 2.0, 2.0]
        """
        return BatchTransform(self.mean, self.std).normalize(images)
