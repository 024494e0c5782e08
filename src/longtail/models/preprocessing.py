"""What a pretrained timm network expects to see: the size, scaling and normalisation it was trained with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args

from longtail.data.decode import Interpolation
from longtail.models.timm import TIMM_PREFIX, timm_module


@dataclass(frozen=True)
class Inputs:
    """How images become the input of a network.

    Attributes:
        size: Side of the square in pixels.
        resize: The shorter side before that square is cut out of the centre.
        mean: Per-channel mean of RGB in [0, 1].
        std: Per-channel standard deviation of RGB in [0, 1].
        interpolation: How pixels in between were made up when images were scaled.
    """

    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bicubic"

    def at(self, size: int | None) -> Inputs:
        """The same for images of another size, of which as large a share is cut out; unchanged for None.

        Example:
            >>> Inputs(224, 256, (0.5,) * 3, (0.5,) * 3).at(112).resize
            128
        """
        return self if size is None else replace(self, size=size, resize=round(size * self.resize / self.size))


def timm_inputs(name: str) -> Inputs | None:
    """Return what a ``timm:NAME`` network was trained on; None for any other network.

    Example:
        >>> timm_inputs("timm:resnet18").size, timm_inputs("resnet32")
        (224, None)
    """
    if not name.startswith(TIMM_PREFIX):
        return None
    known = timm_module().get_pretrained_cfg(name.removeprefix(TIMM_PREFIX).partition("+")[0])
    if known is None:
        return None
    size = int(known.input_size[-1])
    # A few networks name another kind, or "random" in training: timm's own choice for those is bicubic.
    interpolation: Any = known.interpolation if known.interpolation in get_args(Interpolation) else "bicubic"
    return Inputs(size, round(size / (known.crop_pct or 1)), tuple(known.mean), tuple(known.std), interpolation)
