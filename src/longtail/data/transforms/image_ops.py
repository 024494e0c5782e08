"""The elementary image changes that augmentation policies are made of, each on a whole uint8 batch at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def blend(images: Tensor, other: Tensor, magnitude: Tensor) -> Tensor:
    """Move images towards ``other`` (negative magnitude) or away from it (positive), cut off at 0 and 255.

    Args:
        images: uint8 (N, C, H, W).
        other: What is left at magnitude -1, of a shape that broadcasts to that of the images, in [0, 255].
        magnitude: float32 (N,), at least -1; 0 changes nothing.

    Example:
        >>> grey = torch.full((2, 3, 1, 1), 100, dtype=torch.uint8)
        >>> blend(grey, torch.zeros(1), torch.tensor([-0.5, 0.5]))[:, 0].flatten().tolist()
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
    """Change the saturation of uint8 images (N, 3, H, W) by 1 + magnitude (N,); -1 leaves grey.

    Example:
        >>> red = torch.tensor([200, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
        >>> color(red, torch.tensor([-1.0])).flatten().tolist()
        [59, 59, 59]
    """
    return blend(images, _luma(images), magnitude)


def contrast(images: Tensor, magnitude: Tensor) -> Tensor:
    """Change the distance of uint8 images (N, 3, H, W) from their mean grey by 1 + magnitude (N,).

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

    Nothing here waits for the device.

    Example:
        >>> ramp = torch.tensor([10, 11, 12, 13], dtype=torch.uint8).repeat_interleave(256)
        >>> equalize(ramp.view(1, 1, 32, 32)).unique().tolist()
        [0, 85, 171, 255]
    """
    values = images.flatten(2).flatten(0, 1).long()
    channels, pixels = values.shape
    histogram = torch.zeros(channels, 256, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(1, values, torch.ones_like(values))
    brightest = histogram.gather(1, values.amax(dim=1, keepdim=True))
    step = (pixels - brightest) // 255
    width = step.clamp(min=1)
    below = histogram.cumsum(1) - histogram  # pixels that are darker than each value
    table = ((below + step // 2) // width).clamp_(max=255)
    spread = torch.where(step > 0, table.gather(1, values), values)
    return spread.to(torch.uint8).view_as(images)


def invert(images: Tensor) -> Tensor:
    """Return the negative of uint8 images.

    Example:
        >>> invert(torch.tensor([0, 55], dtype=torch.uint8))
        tensor([255, 200], dtype=torch.uint8)
    """
    return 255 - images


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Take each pixel from the nearest place that an affine map names; what lies outside the image is 0.

    Args:
        images: uint8 (N, C, H, W).
        matrices: float32 (N, 2, 3): from (column, row, 1) of the result to column and row of the source, in pixels
            from the centre of the image; on the CPU, or on the device of the images.

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
    """Grey of RGB (ITU-R 601), cut to whole numbers: uint8 (N, 1, H, W)."""
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).to(torch.uint8).unsqueeze(1)
