"""AutoAugment and RandAugment on whole batches: first every choice is drawn, then images of one change go together."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from longtail.data.transforms import image_ops

Policy = Literal["none", "auto-augment", "rand-augment"]

# RandAugment draws from all of these but the last.
OPERATIONS = (
    "identity", "shear-x", "shear-y", "translate-x", "translate-y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize", "invert",
)  # fmt: skip
_CODES = {name: code for code, name in enumerate(OPERATIONS)}
_SIGNED = torch.tensor([1 <= code <= 9 for code in range(len(OPERATIONS))])  # shear-x to sharpness
AUTO_AUGMENT_LEVELS = 10
RAND_AUGMENT_LEVELS = 31

# The policy learned on CIFAR-10 ([1] below, its appendix): change, probability, level from 0 to 9.
_CIFAR_POLICY: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate-x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear-y", 0.5, 8), ("translate-y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear-y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate-x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate-y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("color", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate-y", 0.9, 9), ("translate-y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate-y", 0.7, 9), ("autocontrast", 0.9, 0)),
)

Change = Callable[[Tensor, Tensor], Tensor]
# Code 1 to 5 move pixels and share one resampling; the others change values.
_MOVES = range(_CODES["shear-x"], _CODES["rotate"] + 1)
_VALUE_CHANGES: tuple[Change, ...] = (
    image_ops.brightness,
    image_ops.color,
    image_ops.contrast,
    image_ops.sharpness,
    image_ops.posterize,
    image_ops.solarize,
    lambda images, _: image_ops.autocontrast(images),
    lambda images, _: image_ops.equalize(images),
    lambda images, _: image_ops.invert(images),
)


class Changes(NamedTuple):
    """What is to happen to each image, one change after the other.

    Attributes:
        codes: int64 (N, K), places in :data:`OPERATIONS`.
        magnitudes: float32 (N, K), signed, in the unit of each operation: share of a pixel per pixel (shear), pixels
            (translate), degrees (rotate), change of a factor (brightness to sharpness), bits, threshold.
    """

    codes: Tensor
    magnitudes: Tensor


def draw_auto_augment(count: int, size: tuple[int, int], generator: torch.Generator) -> Changes:
    """Draw one of the 25 pairs of AutoAugment's CIFAR-10 policy for each image, and which of its two changes happen.

    References:
        [1] Cubuk et al., AutoAugment: Learning Augmentation Strategies from Data, CVPR 2019, arXiv 1805.09501.

    Args:
        count: Number of images.
        size: Height and width of the images in pixels.
        generator: CPU generator.

    Example:
        >>> draw_auto_augment(4, (32, 32), torch.Generator().manual_seed(0)).codes.shape
        torch.Size([4, 2])
    """
    codes, chances, levels = _cifar_policy()
    pair = torch.randint(len(codes), (count,), generator=generator)
    happens = torch.rand(count, 2, generator=generator) < chances[pair]
    negative = torch.randint(2, (count, 2), generator=generator).bool()
    drawn = torch.where(happens, codes[pair], 0)
    return Changes(drawn, _signed(magnitude_table(AUTO_AUGMENT_LEVELS, *size)[drawn, levels[pair]], drawn, negative))


def draw_rand_augment(
    count: int, size: tuple[int, int], generator: torch.Generator, *, operations: int = 2, magnitude: int = 9
) -> Changes:
    """Draw ``operations`` of RandAugment's 14 changes for each image, all at one level of strength.

    References:
        [1] Cubuk et al., RandAugment: Practical automated data augmentation with a reduced search space, NeurIPS 2020,
            arXiv 1909.13719.

    Args:
        count: Number of images.
        size: Height and width of the images in pixels.
        generator: CPU generator.
        operations: Changes per image, K.
        magnitude: Level of strength, 0 to 30.

    Example:
        >>> draw_rand_augment(4, (32, 32), torch.Generator().manual_seed(0), operations=3).codes.shape
        torch.Size([4, 3])
    """
    codes = torch.randint(len(OPERATIONS) - 1, (count, operations), generator=generator)
    negative = torch.randint(2, (count, operations), generator=generator).bool()
    table = magnitude_table(RAND_AUGMENT_LEVELS, *size)
    return Changes(codes, _signed(table[codes, magnitude], codes, negative))


def apply_changes(images: Tensor, changes: Changes) -> Tensor:
    """Change each image in its own way.

    The draws stay on the CPU, so that sorting images by their change never waits for a GPU.

    Args:
        images: uint8 (N, 3, H, W), on any device.
        changes: What happens to each image, on the CPU.

    Returns:
        uint8 (N, 3, H, W).

    Example:
        >>> images = torch.tensor([10, 20], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
        >>> invert, nothing = OPERATIONS.index("invert"), OPERATIONS.index("identity")
        >>> changes = Changes(torch.tensor([[invert], [nothing]]), torch.zeros(2, 1))
        >>> apply_changes(images, changes)[:, 0].flatten().tolist()
        [245, 20]
    """
    for codes, magnitudes in zip(changes.codes.unbind(1), changes.magnitudes.unbind(1), strict=True):
        images = _apply_one_each(images, codes, magnitudes)
    return images


def _apply_one_each(images: Tensor, codes: Tensor, magnitudes: Tensor) -> Tensor:
    # Groups: 0 stays, 1 moves, 2 and up are the changes of values.
    groups = (codes - (_MOVES.stop - 2)).clamp(min=1) * (codes > 0)
    sizes = groups.bincount(minlength=2 + len(_VALUE_CHANGES)).tolist()
    rows = groups.argsort(stable=True)[sizes[0] :]
    if not len(rows):
        return images
    index = rows.to(images.device, non_blocking=True)
    strengths = torch.split(magnitudes[rows].to(images.device, non_blocking=True), sizes[1:])
    parts = torch.split(images[index], sizes[1:])
    changed = []
    if sizes[1]:
        moving = rows[: sizes[1]]
        changed.append(image_ops.warp(parts[0], move_matrices(codes[moving], magnitudes[moving], images.shape[-2:])))
    for change, part, strength in zip(_VALUE_CHANGES, parts[1:], strengths[1:], strict=True):
        if len(part):
            changed.append(change(part, strength))
    return images.index_copy(0, index, torch.cat(changed))


def move_matrices(codes: Tensor, magnitudes: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return the maps of :func:`~longtail.data.transforms.image_ops.warp` for shears, translations and rotations.

    A shear leaves the first row or column where it is, a rotation the centre; translations are by whole pixels.

    Args:
        codes: int64 (N,), each the place of a shear, a translation or a rotation in :data:`OPERATIONS`.
        magnitudes: float32 (N,).
        size: Height and width of the images in pixels.

    Returns:
        float32 (N, 2, 3).

    Example:
        >>> move_matrices(torch.tensor([OPERATIONS.index("translate-x")]), torch.tensor([3.7]), (32, 32))
        tensor([[[ 1.,  0., -3.],
                 [ 0.,  1.,  0.]]])
    """
    exact = magnitudes.double()  # rounded once, at the end
    shear_x, shear_y, shift_x, shift_y, degrees = (torch.where(codes == code, exact, 0.0) for code in _MOVES)
    height, width = size
    angle = torch.deg2rad(degrees)
    along_x = [angle.cos(), shear_x - angle.sin(), shear_x * (height / 2) - shift_x.trunc()]
    along_y = [shear_y + angle.sin(), angle.cos(), shear_y * (width / 2) - shift_y.trunc()]
    return torch.stack([*along_x, *along_y], dim=1).view(-1, 2, 3).float()


@cache
def magnitude_table(levels: int, height: int, width: int) -> Tensor:
    """Return the magnitude of each operation at each level, float32 (15, levels); 0 where an operation has none.

    Example:
        >>> magnitude_table(31, 32, 32)[OPERATIONS.index("rotate"), 9].item()
        9.0
    """
    widest = 150 / 331  # of an image: the authors of AutoAugment tuned translations on images of 331 pixels
    factor = torch.linspace(0.0, 0.9, levels)
    rows = {
        "shear-x": torch.linspace(0.0, 0.3, levels),
        "shear-y": torch.linspace(0.0, 0.3, levels),
        "translate-x": torch.linspace(0.0, widest * width, levels),
        "translate-y": torch.linspace(0.0, widest * height, levels),
        "rotate": torch.linspace(0.0, 30.0, levels),
        "brightness": factor,
        "color": factor,
        "contrast": factor,
        "sharpness": factor,
        "posterize": 8 - (torch.arange(levels) * 4 / (levels - 1)).round(),
        "solarize": torch.linspace(255.0, 0.0, levels),
    }
    return torch.stack([rows.get(name, torch.zeros(levels)) for name in OPERATIONS])


@cache
def _cifar_policy() -> tuple[Tensor, Tensor, Tensor]:
    """Codes, probabilities and levels of the 25 pairs, (25, 2) each."""
    codes = [[_CODES[name] for name, _, _ in pair] for pair in _CIFAR_POLICY]
    chances = [[chance for _, chance, _ in pair] for pair in _CIFAR_POLICY]
    levels = [[level for _, _, level in pair] for pair in _CIFAR_POLICY]
    return torch.tensor(codes), torch.tensor(chances), torch.tensor(levels)


def _signed(magnitudes: Tensor, codes: Tensor, negative: Tensor) -> Tensor:
    return torch.where(_SIGNED[codes] & negative, -magnitudes, magnitudes)
