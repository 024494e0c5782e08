"""Augmentation of whole batches of training images, from draws that all processes share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from longtail.data.transforms.policies import Changes, Policy, apply_changes, draw_auto_augment, draw_rand_augment

Augmentation = Literal["none", "flip", "crop", "crop-flip", "random-resized-crop"]


@dataclass(frozen=True)
class BatchTransform:
    """From uint8 images to the input of a network: augmentation, scaling to [0, 1], normalization.

    The order is crop, flip, policy, cutout, normalization. The random numbers of a step are drawn for the *global*
    batch and each process takes its own rows, so that one process and several see the same images.

    Args:
        mean: Per-channel mean of RGB in [0, 1].
        std: Per-channel standard deviation of RGB in [0, 1], positive.
        augmentation: Changes made by :meth:`augment`.
        crop_padding: Zero pixels around the image before a random crop.
        size: Side of the output of ``random-resized-crop`` in pixels.
        policy: Strong changes of color and shape that follow crop and flip.
        policy_operations: Changes per image of RandAugment.
        policy_magnitude: Strength of RandAugment's changes, 0 to 30.
        cutout: Side in pixels of the square that is blanked out of each image; 0 blanks none.

    Example:
        >>> transform = BatchTransform((0.5,) * 3, (0.5,) * 3, augmentation="crop-flip")
        >>> images = torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)
        >>> transform.augment(images, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 8, 8])
        >>> transform.normalize(images).max().item()
        1.0
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation = "none"
    crop_padding: int = 4
    size: int = 32
    policy: Policy = "none"
    policy_operations: int = 2
    policy_magnitude: int = 9
    cutout: int = 0

    @property
    def is_random(self) -> bool:
        """Whether :meth:`augment` changes images.

        Example:
            >>> BatchTransform((0.5,) * 3, (0.5,) * 3).is_random
            False
        """
        return self.augmentation != "none" or self.policy != "none" or self.cutout > 0

    def output_side(self, side: int) -> int:
        """Return the side in pixels of what comes out of images of a side.

        Example:
            >>> BatchTransform((0.5,) * 3, (0.5,) * 3, augmentation="random-resized-crop", size=224).output_side(256)
            224
        """
        return self.size if self.augmentation == "random-resized-crop" else side

    def augment(self, images: Tensor, generator: torch.Generator, *, rank: int = 0, world_size: int = 1) -> Tensor:
        """Augment and normalize uint8 images (N, 3, H, W) of this process into float32 of the same layout.

        Args:
            images: uint8 images of this process.
            generator: CPU generator, in the same state on every process.
            rank: Index of this process.
            world_size: Number of processes; global image ``i`` belongs to process ``i % world_size``.
        """
        return self.normalize(self.change(images, generator, rank=rank, world_size=world_size))

    def change(self, images: Tensor, generator: torch.Generator, *, rank: int = 0, world_size: int = 1) -> Tensor:
        """Augment uint8 images as :meth:`augment` does, without the normalization: uint8 or float in [0, 255]."""
        # Every process draws as many numbers as the largest share needs.
        total, of_rank = images.shape[0] * world_size, slice(rank, None, world_size)
        images = self._crop_and_flip(images, total, of_rank, generator)
        if self.policy != "none":
            images = self._apply_policy(images, total, of_rank, generator)
        if self.cutout:
            centers = draw_pixels(total, images.shape[-2:], generator)[of_rank]
            mean, _ = _statistics(self.mean, self.std, images.device)
            images = cutout(images.to(torch.float32), _sent(centers, images), side=self.cutout, fill=mean)
        return images

    def _crop_and_flip(self, images: Tensor, total: int, of_rank: slice, generator: torch.Generator) -> Tensor:
        if "crop" in self.augmentation and self.augmentation != "random-resized-crop":
            offsets = torch.randint(0, 2 * self.crop_padding + 1, (total, 2), generator=generator)[of_rank]
            images = random_crop(images, _sent(offsets, images), padding=self.crop_padding)
        if self.augmentation == "random-resized-crop":
            boxes = draw_boxes(total, images.shape[-2:], generator)[of_rank]
            images = resized_crop(images, _sent(boxes, images), size=self.size)
        if self.augmentation in {"flip", "crop-flip", "random-resized-crop"}:
            mask = (torch.rand(total, generator=generator) < 0.5)[of_rank]
            images = horizontal_flip(images, _sent(mask, images))
        return images

    def _apply_policy(self, images: Tensor, total: int, of_rank: slice, generator: torch.Generator) -> Tensor:
        size = (images.shape[-2], images.shape[-1])
        if self.policy == "auto-augment":
            drawn = draw_auto_augment(total, size, generator)
        else:
            drawn = draw_rand_augment(
                total, size, generator, operations=self.policy_operations, magnitude=self.policy_magnitude
            )
        whole = images.round().to(torch.uint8) if images.is_floating_point() else images  # of random-resized-crop
        return apply_changes(whole, Changes(drawn.codes[of_rank], drawn.magnitudes[of_rank]))

    def normalize(self, images: Tensor) -> Tensor:
        """Return float32 ``(images / 255 - mean) / std``; images uint8 or float in [0, 255], (N, 3, H, W)."""
        mean, std = _statistics(self.mean, self.std, images.device)
        return images.to(torch.float32).sub(mean).div(std)


@cache
def _statistics(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in gray levels, (1, C, 1, 1), sent to the device once, since sending waits for it."""
    with torch.inference_mode(mode=False):  # they outlive the evaluation that may compute them first
        rows = torch.tensor([mean, std], dtype=torch.float32).view(2, 1, -1, 1, 1).to(device) * 255
    return rows[0], rows[1]


def _sent(drawn: Tensor, images: Tensor) -> Tensor:
    """Send draws to the device of the images without waiting for it."""
    return drawn.to(images.device, non_blocking=True)


def random_crop(images: Tensor, offsets: Tensor, *, padding: int) -> Tensor:
    """Crop each image at its own offset from a zero-padded copy; the size stays.

    Args:
        images: (N, C, H, W), any dtype.
        offsets: int64 (N, 2), row and column in ``[0, 2 * padding]``.
        padding: Zero pixels on every side.

    Example:
        >>> image = torch.arange(4.0).view(1, 1, 2, 2)
        >>> random_crop(image, torch.tensor([[2, 1]]), padding=1).flatten().tolist()
        [2.0, 3.0, 0.0, 0.0]
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = offsets[:, 0, None] + torch.arange(height, device=images.device)
    columns = offsets[:, 1, None] + torch.arange(width, device=images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    # Advanced indices on both sides of the channel slice put the channels last; move them back.
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def scaled(images: Tensor, side: int) -> Tensor:
    """Scale square images down to a side in pixels, with antialiasing; those of that side are returned as they are.

    Args:
        images: float (N, C, S, S).
        side: S of the result.

    Example:
        >>> scaled(torch.ones(1, 3, 32, 32), 20).shape
        torch.Size([1, 3, 20, 20])
    """
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)


def horizontal_flip(images: Tensor, mask: Tensor) -> Tensor:
    """Mirror the images where ``mask`` (N,) is true.

    Example:
        >>> horizontal_flip(torch.tensor([[[[1, 2]]], [[[1, 2]]]]), torch.tensor([True, False])).flatten().tolist()
        [2, 1, 1, 2]
    """
    return torch.where(mask.view(-1, 1, 1, 1), images.flip(-1), images)


def draw_pixels(count: int, size: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    """Draw one pixel of each image: int64 (count, 2), row and column.

    Example:
        >>> draw_pixels(5, (32, 32), torch.Generator().manual_seed(0)).shape
        torch.Size([5, 2])
    """
    return torch.stack([torch.randint(side, (count,), generator=generator) for side in size], dim=1)


def cutout(images: Tensor, centers: Tensor, *, side: int, fill: Tensor | float = 0.0) -> Tensor:
    """Set a square of each image to one color: the mean of the data set, which is 0 in a normalized image.

    The square may cross the border. With an even side it reaches one pixel further up and to the left of its center
    than down and to the right.

    References:
        [1] DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017, arXiv
            1708.04552.

    Args:
        images: float (N, C, H, W).
        centers: int64 (N, 2), row and column.
        side: Side of the square in pixels.
        fill: The color, a number or (1, C, 1, 1).

    Example:
        >>> cutout(torch.ones(1, 1, 3, 3), torch.tensor([[0, 1]]), side=2)[0, 0].tolist()
        [[0.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    height, width = images.shape[-2:]
    first = centers - side // 2
    down = torch.arange(height, device=images.device) - first[:, :1]
    along = torch.arange(width, device=images.device) - first[:, 1:]
    hidden_rows, hidden_columns = (down >= 0) & (down < side), (along >= 0) & (along < side)
    return torch.where(hidden_rows[:, None, :, None] & hidden_columns[:, None, None, :], fill, images)


def draw_boxes(count: int, size: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    """Draw crop boxes with an area of 8 to 100% and an aspect ratio of 3/4 to 4/3 (the Inception crop).

    Returns:
        float32 (count, 4): center x, center y, half width and half height in [-1, 1] coordinates.

    Example:
        >>> draw_boxes(5, (256, 256), torch.Generator().manual_seed(0)).shape
        torch.Size([5, 4])
    """
    height, width = size
    tries = 10  # as in torchvision: ten proposals, then the whole image
    area = (0.08 + 0.92 * torch.rand(count, tries, generator=generator)) * height * width
    ratio = torch.exp((2 * torch.rand(count, tries, generator=generator) - 1) * math.log(4 / 3))
    widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (widths <= width) & (heights <= height)
    first = torch.where(fits.any(1), fits.int().argmax(1), 0)
    pick = torch.arange(count)
    w = torch.where(fits.any(1), widths[pick, first], torch.tensor(float(width)))
    h = torch.where(fits.any(1), heights[pick, first], torch.tensor(float(height)))
    left = (torch.rand(count, generator=generator) * (width - w + 1)).floor().clamp(max=width - 1)
    top = (torch.rand(count, generator=generator) * (height - h + 1)).floor().clamp(max=height - 1)
    return torch.stack([(2 * left + w) / width - 1, (2 * top + h) / height - 1, w / width, h / height], dim=1)


def resized_crop(images: Tensor, boxes: Tensor, *, size: int) -> Tensor:
    """Cut each image to its box and resize it bilinearly to (size, size); returns float32.

    Args:
        images: (N, C, H, W), uint8 or float.
        boxes: (N, 4) from :func:`draw_boxes`.
        size: Side of the output in pixels.

    Example:
        >>> whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        >>> resized_crop(torch.ones(1, 3, 8, 8), whole, size=4).shape
        torch.Size([1, 3, 4, 4])
    """
    # The grid of torch.nn.functional.affine_grid for boxes along the axes, without its matrix product.
    centers = torch.linspace(-1, 1, size, device=images.device) * ((size - 1) / size)  # of the output's pixels
    columns, rows = (boxes[:, axis + 2, None] * centers + boxes[:, axis, None] for axis in (0, 1))
    shape = (len(boxes), size, size)
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=3)
    return F.grid_sample(images.to(torch.float32), grid, mode="bilinear", padding_mode="border", align_corners=False)
