"""AutoAugment and RandAugment on whole batches: all choices are drawn first, then images of one change go together."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from longtail.device import prepare_torchvision

Policy = Literal["none", "auto-augment", "rand-augment"]


def blend(images: Tensor, other: Tensor, magnitude: Tensor) -> Tensor:
    """Move images towards ``other`` (negative magnitude) or away from it (positive), cut off at 0 and 255.

    Args:
        images: uint8 (N, C, H, W).
        other: The result at magnitude -1, of a shape that broadcasts to that of the images, in [0, 255].
        magnitude: float32 (N,), at least -1; 0 changes nothing.

    Example:
        >>> gray = torch.full((2, 3, 1, 1), 100, dtype=torch.uint8)
        >>> blend(gray, torch.zeros(1), torch.tensor([-0.5, 0.5]))[:, 0].flatten().tolist()
        [50, 150]
    """
    weight = magnitude.view(-1, 1, 1, 1)
    return ((1 + weight) * images - weight * other).clamp_(0, 255).to(torch.uint8)


def brightness(images: Tensor, magnitude: Tensor) -> Tensor:
    """Multiply uint8 images (N, 3, H, W) by 1 + magnitude (N,).

    Example:
        >>> brightness(torch.full((1, 3, 1, 1), 100, dtype=torch.uint8), torch.tensor([0.9])).flatten().tolist()
        [190, 190, 190]
    """
    return blend(images, images.new_zeros(()), magnitude)


def color(images: Tensor, magnitude: Tensor) -> Tensor:
    """Change the saturation of uint8 images (N, 3, H, W) by 1 + magnitude (N,); -1 leaves gray.

    Example:
        >>> red = torch.tensor([200, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
        >>> color(red, torch.tensor([-1.0])).flatten().tolist()
        [59, 59, 59]
    """
    return blend(images, _luma(images), magnitude)


def contrast(images: Tensor, magnitude: Tensor) -> Tensor:
    """Change the distance of uint8 images (N, 3, H, W) from their mean gray by 1 + magnitude (N,).

    Example:
        >>> picture = torch.tensor([100, 200], dtype=torch.uint8).expand(1, 3, 1, 2)
        >>> contrast(picture, torch.tensor([-0.5]))[0, 0].tolist()
        [[124, 174]]
    """
    mean = _luma(images).to(torch.float32).mean(dim=(1, 2, 3), keepdim=True)
    return blend(images, mean, magnitude)


def sharpness(images: Tensor, magnitude: Tensor) -> Tensor:
    """Sharpen (positive magnitude, (N,)) or smooth (negative) uint8 images (N, 3, H, W); the border is left as it is.

    Images of two pixels or fewer on a side have no inside and come back unchanged.

    Example:
        >>> dot = torch.zeros(1, 3, 3, 3, dtype=torch.uint8)
        >>> dot[..., 1, 1] = 130
        >>> sharpness(dot, torch.tensor([-0.5]))[0, 0].tolist()
        [[0, 0, 0], [0, 90, 0], [0, 0, 0]]
    """
    if min(images.shape[-2:]) <= 2:
        return images
    whole = images.to(torch.int16)  # nine pixels of 255 and four more fit easily
    rows = whole[..., :-2, :] + whole[..., 1:-1, :] + whole[..., 2:, :]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * whole[..., 1:-1, 1:-1]
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = (total.to(torch.float32) / 13).round().to(torch.uint8)
    return blend(images, smooth, magnitude)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest ``bits`` (N,), from 1 to 8, of each byte of uint8 images (N, 3, H, W).

    Example:
        >>> posterize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8), torch.tensor([3.0])).flatten().tolist()
        [224, 224, 224]
    """
    mask = (256 - torch.pow(2.0, 8 - bits)).to(torch.uint8)
    return images & mask.view(-1, 1, 1, 1)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the values of uint8 images (N, 3, H, W) that reach ``threshold`` (N,), in [0, 255].

    Example:
        >>> solarize(torch.tensor([99, 100, 250], dtype=torch.uint8).view(1, 3, 1, 1), torch.tensor([100.0])).flatten()
        tensor([ 99, 155,   5], dtype=torch.uint8)
    """
    return torch.where(images >= threshold.view(-1, 1, 1, 1), 255 - images, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel of uint8 images (N, 3, H, W) to the full range; a channel of one value stays.

    Example:
        >>> autocontrast(torch.tensor([50, 100, 150], dtype=torch.uint8).expand(1, 1, 1, 3)).flatten().tolist()
        [0, 127, 255]
    """
    low = images.amin(dim=(2, 3), keepdim=True).to(torch.float32)
    high = images.amax(dim=(2, 3), keepdim=True).to(torch.float32)
    flat = low == high
    scale = torch.where(flat, 1.0, 255 / (high - low))
    return ((images - torch.where(flat, 0.0, low)) * scale).clamp_(0, 255).to(torch.uint8)


def equalize(images: Tensor) -> Tensor:
    """Spread the values of each channel of uint8 images (N, 3, H, W) evenly, by its histogram.

    It does not wait for the device.

    Example:
        >>> ramp = torch.tensor([10, 11, 12, 13], dtype=torch.uint8).repeat_interleave(256)
        >>> equalize(ramp.view(1, 1, 32, 32)).unique().tolist()
        [0, 85, 171, 255]
    """
    rows = images.flatten(2).flatten(0, 1)
    values = rows.long()
    channels, pixels = values.shape
    histogram = torch.zeros(channels, 256, dtype=torch.int32, device=images.device)
    histogram.scatter_add_(1, values, histogram.new_ones(1, 1).expand_as(values))
    brightest = histogram.gather(1, values.amax(dim=1, keepdim=True))
    step = (pixels - brightest) // 255
    width = step.clamp(min=1)
    below = histogram.cumsum(1) - histogram  # pixels that are darker than each value
    table = ((below + step // 2) // width).clamp_(max=255).to(torch.uint8)
    return torch.where(step > 0, table.gather(1, values), rows).view_as(images)


def invert(images: Tensor) -> Tensor:
    """Return the negative of uint8 images.

    Example:
        >>> invert(torch.tensor([0, 55], dtype=torch.uint8))
        tensor([255, 200], dtype=torch.uint8)
    """
    return 255 - images


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Sample each pixel at the nearest point of an affine map; points outside the image are 0.

    Args:
        images: uint8 (N, C, H, W).
        matrices: float32 (N, 2, 3): from (column, row, 1) of the result to column and row of the source, in pixels
            from the center of the image; on the CPU, or on the device of the images.

    Example:
        >>> row = torch.tensor([1, 2, 3, 4], dtype=torch.uint8).view(1, 1, 1, 4)
        >>> warp(row, torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])).flatten().tolist()
        [2, 3, 4, 0]
    """
    height, width = images.shape[-2:]
    # PyTorch measures both axes in half images.
    units = [[1.0, height / width, 2 / width], [width / height, 1.0, 2 / height]]
    theta = (matrices * matrices.new_tensor(units)).to(images.device, non_blocking=True)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.to(torch.float32), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved.to(torch.uint8)


def _luma(images: Tensor) -> Tensor:
    """Gray of RGB (ITU-R 601), cut to whole numbers: uint8 (N, 1, H, W)."""
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).to(torch.uint8).unsqueeze(1)


# RandAugment draws from all of these but the last.
_NAMES = (
    "identity shear-x shear-y translate-x translate-y rotate brightness color contrast sharpness posterize solarize "
    "autocontrast equalize invert"
)
OPERATIONS = tuple(_NAMES.split())
_CODES = {name.replace("-", ""): code for code, name in enumerate(OPERATIONS)}
_SIGNED = torch.tensor([1 <= code <= 9 for code in range(len(OPERATIONS))])  # shear-x to sharpness
AUTO_AUGMENT_LEVELS = 10
RAND_AUGMENT_LEVELS = 31

Change = Callable[[Tensor, Tensor], Tensor]
# Code 1 to 5 move pixels and share one resampling; the others change values.
_MOVES = range(_CODES["shearx"], _CODES["rotate"] + 1)
_VALUE_CHANGES: tuple[Change, ...] = (
    brightness,
    color,
    contrast,
    sharpness,
    posterize,
    solarize,
    lambda images, _: autocontrast(images),
    lambda images, _: equalize(images),
    lambda images, _: invert(images),
)


class Changes(NamedTuple):
    """Changes of each image, in order of application.

    Attributes:
        codes: int64 (N, K), indices in :data:`OPERATIONS`.
        magnitudes: float32 (N, K), signed, in the unit of each operation: share of a pixel per pixel (shear), pixels
            (translate), degrees (rotate), change of a factor (brightness to sharpness), bits, threshold.
    """

    codes: Tensor
    magnitudes: Tensor


def draw_auto_augment(count: int, size: tuple[int, int], generator: torch.Generator) -> Changes:
    """Draw for each image one of the 25 pairs in the CIFAR-10 policy of AutoAugment, and which of its changes happen.

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
    """Draw for each image ``operations`` of the 14 changes of RandAugment, all at one level of strength.

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
    """Apply to each image its own changes.

    The draws stay on the CPU, so that grouping images by change never waits for a GPU.

    Args:
        images: uint8 (N, 3, H, W), on any device.
        changes: Changes of each image, on the CPU.

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
        # Groups: 0 is the identity, 1 are moves, 2 and up are the changes of values.
        groups = (codes - (_MOVES.stop - 2)).clamp(min=1) * (codes > 0)
        sizes = groups.bincount(minlength=2 + len(_VALUE_CHANGES)).tolist()
        rows = groups.argsort(stable=True)[sizes[0] :]
        if not len(rows):
            continue
        index = rows.to(images.device, non_blocking=True)
        strengths = torch.split(magnitudes[rows].to(images.device, non_blocking=True), sizes[1:])
        parts = torch.split(images[index], sizes[1:])
        changed = []
        if sizes[1]:
            moving = rows[: sizes[1]]
            changed.append(warp(parts[0], move_matrices(codes[moving], magnitudes[moving], images.shape[-2:])))
        for change, part, strength in zip(_VALUE_CHANGES, parts[1:], strengths[1:], strict=True):
            if len(part):
                changed.append(change(part, strength))
        images = images.index_copy(0, index, torch.cat(changed))
    return images


def move_matrices(codes: Tensor, magnitudes: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return the maps of :func:`~longtail.data.transforms.policies.warp` for shears, translations and rotations.

    A shear keeps the first row or column in place, a rotation the center; translations are by whole pixels.

    Args:
        codes: int64 (N,), indices of shears, translations and rotations in :data:`OPERATIONS`.
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
    ranges = dict.fromkeys(("shear-x", "shear-y"), (0.0, 0.3))  # of the magnitudes that grow evenly
    ranges |= dict.fromkeys(("brightness", "color", "contrast", "sharpness"), (0.0, 0.9))
    ranges |= {"translate-x": (0.0, widest * width), "translate-y": (0.0, widest * height)}
    ranges |= {"rotate": (0.0, 30.0), "solarize": (255.0, 0.0)}
    rows = {name: torch.linspace(first, last, levels) for name, (first, last) in ranges.items()}
    rows["posterize"] = 8 - (torch.arange(levels) * 4 / (levels - 1)).round()
    return torch.stack([rows.get(name, torch.zeros(levels)) for name in OPERATIONS])


@cache
def _cifar_policy() -> tuple[Tensor, Tensor, Tensor]:
    """Codes, probabilities and levels, 0 to 9, of the 25 pairs that AutoAugment learned on CIFAR-10, (25, 2) each."""
    prepare_torchvision()
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    pairs = AutoAugment(AutoAugmentPolicy.CIFAR10).policies
    codes = [[_CODES[name.lower()] for name, _, _ in pair] for pair in pairs]
    chances = [[chance for _, chance, _ in pair] for pair in pairs]
    levels = [[level or 0 for _, _, level in pair] for pair in pairs]
    return torch.tensor(codes), torch.tensor(chances), torch.tensor(levels)


def _signed(magnitudes: Tensor, codes: Tensor, negative: Tensor) -> Tensor:
    return torch.where(_SIGNED[codes] & negative, -magnitudes, magnitudes)
