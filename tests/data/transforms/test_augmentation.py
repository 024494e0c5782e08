"""Batch augmentation against torchvision's per-image transforms: the same pixels, the same distribution."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.data.transforms.augmentation import BatchTransform, draw_boxes, horizontal_flip, random_crop, resized_crop
from longtail.device import prepare_torchvision


def pictures(count: int, size: int = 8) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("padding", [1, 4])
def test_a_crop_is_the_window_of_the_padded_image(padding: int) -> None:
    images = pictures(20)
    offsets = torch.randint(0, 2 * padding + 1, (20, 2), generator=torch.Generator().manual_seed(2))
    cropped = random_crop(images, offsets, padding=padding)
    for image, (top, left), result in zip(images, offsets.tolist(), cropped, strict=True):
        expected = F.pad(image, (padding,) * 4)[:, top : top + 8, left : left + 8]
        assert torch.equal(result, expected)


def test_a_flip_mirrors_only_the_chosen_images() -> None:
    images, mask = pictures(4), torch.tensor([True, False, True, False])
    flipped = horizontal_flip(images, mask)
    assert torch.equal(flipped[mask], images[mask].flip(-1))
    assert torch.equal(flipped[~mask], images[~mask])


def test_crop_and_flip_have_torchvisions_distribution() -> None:
    """Where a marked pixel lands, over many draws, against RandomCrop and RandomHorizontalFlip."""
    prepare_torchvision()
    from torchvision.transforms import v2

    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[:, 2, 1] = 255
    many = 6000
    ours = BatchTransform((0.0,) * 3, (1.0,) * 3, augmentation="crop-flip", crop_padding=2)
    batch = ours.augment(image.expand(many, -1, -1, -1), torch.Generator().manual_seed(3))[:, 0]
    torch.manual_seed(3)
    theirs = v2.Compose([v2.RandomCrop(8, padding=2), v2.RandomHorizontalFlip()])
    other = torch.stack([theirs(image)[0] for _ in range(many)]).float() / 255
    here, there = batch.mean(0), other.mean(0)
    # Each place is a proportion of 6,000 draws; five standard errors of the difference of two of them.
    bound = 5 * (here * (1 - here) / many + there * (1 - there) / many).sqrt() + 5 / many
    assert ((here - there).abs() <= bound).all()
    assert (here > 0).sum() == (there > 0).sum() == 40  # five rows, four columns and their mirror images


def test_inception_boxes_have_the_area_and_ratio_of_torchvision() -> None:
    boxes = draw_boxes(4000, (64, 64), torch.Generator().manual_seed(0))
    width, height = boxes[:, 2] * 64, boxes[:, 3] * 64
    area, ratio = width * height / 64**2, width / height
    prepare_torchvision()
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.zeros(3, 64, 64)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    their_area = theirs[:, 2] * theirs[:, 3] / 64**2
    for quantile in (0.1, 0.5, 0.9):
        assert area.quantile(quantile).item() == pytest.approx(their_area.float().quantile(quantile).item(), abs=0.03)
    assert area.min() > 0.07
    assert ratio.min() > 0.70
    assert ratio.max() < 1.43
    assert (boxes[:, 0].abs() + boxes[:, 2] <= 1 + 1e-5).all()
    assert (boxes[:, 1].abs() + boxes[:, 3] <= 1 + 1e-5).all()


def test_a_box_of_known_place_is_cut_where_it_lies() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[:, :, 4:, :4] = 1.0  # the lower left quarter
    box = torch.tensor([[-0.5, 0.5, 0.5, 0.5]])
    assert torch.equal(resized_crop(image, box, size=4), torch.ones(1, 1, 4, 4))


def test_a_resized_crop_is_that_of_the_general_grid() -> None:
    images = torch.rand(16, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    boxes = draw_boxes(16, (40, 56), torch.Generator().manual_seed(1))
    theta = torch.zeros(16, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2], theta[:, 1, 1], theta[:, 1, 2] = boxes[:, 2], boxes[:, 0], boxes[:, 3], boxes[:, 1]
    grid = F.affine_grid(theta, [16, 3, 24, 24], align_corners=False)
    expected = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(resized_crop(images, boxes, size=24), expected, rtol=0, atol=1e-4)


def test_normalization_is_torchvisions() -> None:
    prepare_torchvision()
    from torchvision.transforms.v2 import functional

    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    images = pictures(5)
    expected = functional.normalize(images.float() / 255, list(mean), list(std))
    torch.testing.assert_close(BatchTransform(mean, std).normalize(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "flip", "crop", "crop-flip", "random-resized-crop"])
def test_two_processes_together_see_what_one_sees(kind: str) -> None:
    transform = BatchTransform((0.5,) * 3, (0.2,) * 3, augmentation=kind, crop_padding=2, size=8)  # type: ignore[arg-type]
    images = pictures(10)
    whole = transform.augment(images, torch.Generator().manual_seed(7))
    for rank in (0, 1):
        share = transform.augment(images[rank::2], torch.Generator().manual_seed(7), rank=rank, world_size=2)
        assert torch.equal(share, whole[rank::2])


def test_ratio_is_log_uniform_around_one() -> None:
    boxes = draw_boxes(4000, (256, 256), torch.Generator().manual_seed(5))
    logs = (boxes[:, 2] / boxes[:, 3]).log()
    assert abs(logs.mean().item()) < 0.02
    assert logs.abs().max().item() < math.log(4 / 3) + 0.05
