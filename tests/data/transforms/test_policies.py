"""Batch augmentation policies against torchvision's per-image classes: the same pixels, the same distribution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product

import pytest
import torch
from scipy import stats
from torch import Tensor

from longtail.data.transforms.augmentation import BatchTransform, cutout, draw_boxes, draw_pixels
from longtail.data.transforms.policies import (
    AUTO_AUGMENT_LEVELS,
    OPERATIONS,
    RAND_AUGMENT_LEVELS,
    Changes,
    apply_changes,
    draw_auto_augment,
    draw_rand_augment,
    magnitude_table,
)
from longtail.device import prepare_torchvision

prepare_torchvision()
from torchvision.transforms import RandomResizedCrop, autoaugment, v2  # noqa: E402

SIZE = (32, 32)
THEIR_NAMES = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
    "Invert",
)
SIGNED = THEIR_NAMES[1:10]
UNLIKELY = 1e-3  # a smaller p-value fails; seeds are fixed, so a test passes always or never
Key = tuple[int, float]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures() -> Tensor:
    """Noise, faint noise, gray noise, one flat image, one flat channel, and smooth ramps."""
    images = torch.randint(0, 256, (24, 3, *SIZE), generator=seeded(1), dtype=torch.uint8)
    images[4:12] = images[4:12] // 4 + 60
    images[12:16] = images[12:16, :1]
    images[16] = 7
    images[17, 0] = 9
    ramp = torch.arange(32).view(1, 1, 32) * torch.tensor([3, 5, 8]).view(3, 1, 1)
    images[18:] = ramp.to(torch.uint8)
    return images


def theirs(image: Tensor, name: str, magnitude: float) -> Tensor:
    changed: Tensor = autoaugment._apply_op(image, name, magnitude, autoaugment.InterpolationMode.NEAREST, None)
    return changed


@pytest.mark.parametrize("height", [32, 20])
@pytest.mark.parametrize("code", range(1, len(OPERATIONS)), ids=OPERATIONS[1:])
def test_a_change_is_torchvisions_at_all_strengths(code: int, height: int) -> None:
    images, name = pictures()[:, :, :height], THEIR_NAMES[code]
    levels = magnitude_table(RAND_AUGMENT_LEVELS, height, 32)[code, ::2].tolist()
    for magnitude in [*levels, *(-level for level in levels)] if name in SIGNED else levels:
        drawn = Changes(torch.full((len(images), 1), code), torch.full((len(images), 1), magnitude))
        expected = torch.stack([theirs(image, name, magnitude) for image in images])
        decided = decided_pixels(name, magnitude, height).expand_as(images)
        assert torch.equal(apply_changes(images, drawn)[decided], expected[decided]), magnitude
        assert decided.float().mean() > 0.7


def decided_pixels(name: str, magnitude: float, height: int) -> Tensor:
    """Where a sheared place does not lie just between two pixels, so that rounding errors choose no nearest one."""
    every = torch.ones(height, 32, dtype=torch.bool)
    if name not in {"ShearX", "ShearY"}:
        return every
    moved = (torch.arange(32) + 0.5) * magnitude
    clear = ((moved - moved.floor()) - 0.5).abs() > 1e-4
    return every & (clear[:height, None] if name == "ShearX" else clear)


@pytest.mark.parametrize("levels", [AUTO_AUGMENT_LEVELS, RAND_AUGMENT_LEVELS])
def test_magnitudes_are_torchvisions(levels: int) -> None:
    space = autoaugment.AutoAugment()._augmentation_space(levels, (32, 48))
    ours = magnitude_table(levels, 32, 48)
    for code, name in enumerate(THEIR_NAMES[1:], start=1):
        magnitudes, signed = space[name]
        assert torch.equal(ours[code], magnitudes.float().expand(levels)), name
        assert signed == (name in SIGNED)
    assert tuple(autoaugment.RandAugment()._augmentation_space(31, SIZE)) == THEIR_NAMES[:-1]


def test_images_of_a_batch_are_changed_each_in_its_own_way() -> None:
    images = pictures()
    drawn = draw_rand_augment(len(images), SIZE, seeded(2), operations=3, magnitude=20)
    together = apply_changes(images, drawn)
    alone = [
        apply_changes(images[i : i + 1], Changes(drawn.codes[i : i + 1], drawn.magnitudes[i : i + 1]))
        for i in range(len(images))
    ]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(images, pictures())  # what was given is left alone


# --- distributions ---------------------------------------------------------------------------------------------------


def outcomes(name: str, chance: float, magnitude: float) -> dict[Key, float]:
    """Probability of each (code, magnitude) that a step of a policy may come to."""
    code = THEIR_NAMES.index(name)
    result: Counter[Key] = Counter({(0, 0.0): 1 - chance})
    for sign in (1, -1) if name in SIGNED else (1,):
        result[code, sign * magnitude] += chance / (2 if name in SIGNED else 1)
    return result


def both(first: dict[Key, float], second: dict[Key, float], share: float) -> Counter[tuple[Key, Key]]:
    return Counter({(a, b): share * p * q for (a, p), (b, q) in product(first.items(), second.items())})


def auto_augment_expected() -> Counter[tuple[Key, Key]]:
    reference = autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy.CIFAR10)
    space = reference._augmentation_space(AUTO_AUGMENT_LEVELS, SIZE)

    def step(name: str, chance: float, level: int | None) -> dict[Key, float]:
        return outcomes(name, chance, 0.0 if level is None else float(space[name][0][level]))

    expected: Counter[tuple[Key, Key]] = Counter()
    for first, second in reference.policies:
        for key, chance in both(step(*first), step(*second), 1 / len(reference.policies)).items():
            expected[key] += chance
    return expected


def rand_augment_expected() -> Counter[tuple[Key, Key]]:
    step: Counter[Key] = Counter()
    for name, (magnitudes, _) in autoaugment.RandAugment()._augmentation_space(31, SIZE).items():
        step.update(outcomes(name, 1.0, float(magnitudes[9]) if magnitudes.ndim else 0.0))
    single = {key: chance / 14 for key, chance in step.items()}
    return both(single, single, 1.0)


@pytest.mark.parametrize(
    ("draw", "expected"),
    [(draw_auto_augment, auto_augment_expected), (draw_rand_augment, rand_augment_expected)],
    ids=["auto-augment", "rand-augment"],
)
def test_pairs_of_changes_have_torchvisions_frequencies(
    draw: Callable[..., Changes], expected: Callable[[], Counter[tuple[Key, Key]]]
) -> None:
    many = 100_000
    drawn = draw(many, SIZE, seeded(3))
    steps = [list(zip(drawn.codes[:, k].tolist(), drawn.magnitudes[:, k].tolist(), strict=True)) for k in (0, 1)]
    result = Counter(zip(*steps, strict=True))
    probable = {key: chance for key, chance in expected().items() if chance > 0}
    assert sum(probable.values()) == pytest.approx(1)
    assert result.keys() <= probable.keys()
    counts = [result[key] for key in probable]
    assert stats.chisquare(counts, [many * chance for chance in probable.values()]).pvalue > UNLIKELY


@pytest.mark.parametrize("policy", ["auto-augment", "rand-augment"])
def test_many_copies_of_one_image_look_like_torchvisions(policy: str) -> None:
    """Mean and contrast of each copy, two-sample: the shares of changes and what they do, in one figure."""
    many = 1500
    image = v2.functional.resize(pictures()[:1], [8, 8]).repeat_interleave(4, -1).repeat_interleave(4, -2)[0]
    transform = BatchTransform((0.0,) * 3, (1.0,) * 3, policy=policy)  # type: ignore[arg-type]
    ours = transform.augment(image.expand(many, -1, -1, -1), seeded(4)) * 255
    kind = {
        "auto-augment": autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy.CIFAR10),
        "rand-augment": autoaugment.RandAugment(),
    }[policy]
    torch.manual_seed(4)
    other = torch.stack([kind(image) for _ in range(many)]).float()
    for statistic in (lambda x: x.mean((1, 2, 3)), lambda x: x.std((1, 2, 3)), lambda x: x[:, 0].mean((1, 2))):
        here, there = statistic(ours), statistic(other)
        error = ((here.var() + there.var()) / many).sqrt()
        assert (here.mean() - there.mean()).abs() < 4 * error
        assert stats.ks_2samp(here.round(decimals=2), there.round(decimals=2)).pvalue > UNLIKELY


def crop_flip_counts(batch: Tensor) -> list[int]:
    """How often each of 81 offsets x 2 flips occurs, read from images whose pixels tell their own place."""
    row, column, next_column = (batch[:, 0, 8, 8], batch[:, 1, 8, 8], batch[:, 1, 8, 9])
    flipped = (next_column < column).long()
    top = row.long() - 1 - 4
    left = column.long() - 1 - 4 + flipped  # column 8 of a mirrored crop of 16 is its column 7
    return torch.bincount((top * 9 + left) * 2 + flipped, minlength=162).tolist()


def test_every_offset_and_flip_is_as_likely_as_torchvisions() -> None:
    steps = torch.arange(1, 17, dtype=torch.uint8)
    image = torch.stack([steps[:, None].expand(16, 16), steps.expand(16, 16), torch.zeros(16, 16, dtype=torch.uint8)])
    many = 162 * 30
    transform = BatchTransform((0.0,) * 3, (1.0,) * 3, augmentation="crop-flip", crop_padding=4)
    ours = crop_flip_counts((transform.augment(image.expand(many, -1, -1, -1), seeded(5)) * 255).round())
    torch.manual_seed(5)
    reference = v2.Compose([v2.RandomCrop(16, padding=4), v2.RandomHorizontalFlip()])
    other = crop_flip_counts(torch.stack([reference(image) for _ in range(many)]))
    assert len(ours) == len(other) == 162
    assert stats.chisquare(ours).pvalue > UNLIKELY
    assert stats.chisquare(other).pvalue > UNLIKELY
    assert stats.chi2_contingency([ours, other]).pvalue > UNLIKELY


def test_inception_boxes_are_distributed_as_torchvisions() -> None:
    many, side = 3000, 224
    boxes = draw_boxes(many, (side, side), seeded(6)).double()
    width, height = boxes[:, 2], boxes[:, 3]
    left, top = (boxes[:, 0] + 1 - width) / 2, (boxes[:, 1] + 1 - height) / 2
    image = torch.zeros(3, side, side)
    torch.manual_seed(6)
    drawn = torch.tensor([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(many)])
    their_top, their_left, their_height, their_width = (drawn.double() / side).unbind(1)
    pairs = {
        "area": (width * height, their_width * their_height),
        "log ratio": ((width / height).log(), (their_width / their_height).log()),
        "left": (left, their_left),
        "top": (top, their_top),
    }
    for name, (ours, other) in pairs.items():
        assert stats.ks_2samp(ours.round(decimals=6), other.round(decimals=6)).pvalue > UNLIKELY, name


# --- cutout and the whole transform ----------------------------------------------------------------------------------


def test_cutout_blanks_the_square_that_lies_in_the_image() -> None:
    images = torch.ones(50, 2, 9, 12)
    centers = draw_pixels(50, (9, 12), seeded(7))
    for side in (1, 4, 5, 30):
        blanked = cutout(images, centers, side=side)
        for result, (row, column) in zip(blanked, centers.tolist(), strict=True):
            expected = torch.ones(2, 9, 12)
            top, left = row - side // 2, column - side // 2
            expected[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
            assert torch.equal(result, expected)


def test_every_pixel_is_as_often_the_center_of_a_cutout() -> None:
    centers = draw_pixels(10_000, (8, 16), seeded(8))
    assert stats.chisquare(torch.bincount(centers[:, 0] * 16 + centers[:, 1], minlength=128)).pvalue > UNLIKELY


def test_cutout_comes_after_normalization_and_leaves_the_mean() -> None:
    transform = BatchTransform((0.2, 0.4, 0.6), (0.2,) * 3, cutout=4)
    white = torch.full((30, 3, 8, 8), 255, dtype=torch.uint8)
    images = transform.augment(white, seeded(9))
    hidden = (images == 0).sum((1, 2, 3))
    assert hidden.max() == 3 * 16
    assert hidden.min() >= 3 * 4  # a corner of the square stays in the image
    assert torch.equal(images[images != 0].unique(), transform.normalize(white[:1]).unique())


POLICIES: list[dict[str, object]] = [
    {"policy": "auto-augment"},
    {"policy": "rand-augment", "policy_operations": 3, "policy_magnitude": 15},
    {"cutout": 3},
    {"policy": "auto-augment", "cutout": 4},
]


@pytest.mark.parametrize("options", POLICIES, ids=str)
@pytest.mark.parametrize("augmentation", ["none", "crop-flip", "random-resized-crop"])
def test_two_processes_together_see_what_one_sees(augmentation: str, options: dict[str, object]) -> None:
    transform = BatchTransform((0.5,) * 3, (0.2,) * 3, augmentation=augmentation, crop_padding=2, **options)  # type: ignore[arg-type]
    images = pictures()
    whole = transform.augment(images, seeded(10))
    for rank in (0, 1):
        share = transform.augment(images[rank::2], seeded(10), rank=rank, world_size=2)
        assert torch.equal(share, whole[rank::2])
    plain = BatchTransform((0.5,) * 3, (0.2,) * 3, augmentation=augmentation, crop_padding=2)  # type: ignore[arg-type]
    assert not torch.equal(whole, plain.augment(images, seeded(10)))


def test_a_policy_follows_crop_and_flip_on_whole_gray_levels() -> None:
    options = {"augmentation": "random-resized-crop", "size": 24}
    images = pictures()
    generator = seeded(11)
    cropped = BatchTransform((0.0,) * 3, (1 / 255,) * 3, **options).augment(images, generator)  # type: ignore[arg-type]
    expected = apply_changes(cropped.round().to(torch.uint8), draw_auto_augment(len(images), (24, 24), generator))
    transform = BatchTransform((0.0,) * 3, (1 / 255,) * 3, policy="auto-augment", **options)  # type: ignore[arg-type]
    torch.testing.assert_close(transform.augment(images, seeded(11)), expected.float())


# A weighted sum of the pixels and the next number of the generator, taken before there were policies.
BEFORE = {
    "none": (12275.08144989668, 976413892),
    "flip": (12681.156375668594, 372560217),
    "crop": (-47855.33303071279, 1687674368),
    "crop-flip": (-47488.37687492836, 1127788727),
    "random-resized-crop": (15475.010315103413, 1681880500),
}


@pytest.mark.parametrize("augmentation", BEFORE)
def test_without_policy_and_cutout_nothing_has_changed(augmentation: str) -> None:
    images = torch.randint(0, 256, (12, 3, 8, 8), generator=seeded(1), dtype=torch.uint8)
    weights = (torch.arange(images.numel(), dtype=torch.float64) % 97).view_as(images)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    generator = seeded(7)
    transform = BatchTransform(mean, std, augmentation=augmentation, crop_padding=2, size=8)  # type: ignore[arg-type]
    total = (transform.augment(images, generator).double() * weights).sum().item()
    value, following = BEFORE[augmentation]
    assert total == pytest.approx(value, rel=1e-6)
    assert torch.randint(2**31, (1,), generator=generator).item() == following


def test_statistics_first_asked_for_in_an_evaluation_serve_training() -> None:
    transform = BatchTransform((0.123, 0.4, 0.5), (0.3,) * 3)
    images = torch.rand(2, 3, 4, 4) * 255
    with torch.inference_mode():
        transform.normalize(images)
    images.requires_grad_()
    transform.normalize(images).sum().backward()
    assert images.grad is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", POLICIES, ids=str)
def test_a_gpu_gives_the_same_images_and_is_not_waited_for(options: dict[str, object]) -> None:
    transform = BatchTransform((0.5,) * 3, (0.2,) * 3, augmentation="crop-flip", **options)  # type: ignore[arg-type]
    images = pictures()
    expected = transform.augment(images, seeded(12))
    there = images.cuda()
    transform.augment(there, seeded(12))  # the first call sends mean and std
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = transform.augment(there, seeded(12))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert ((result.cpu() - expected).abs() > 1e-4).float().mean() < 0.01
