"""mixup, Remix, CutMix and CMO against their equations, with the randomness held still or measured."""

from __future__ import annotations

import pytest
import torch

from longtail.data.transforms import mixing
from longtail.data.transforms.mixing import beta_sample, cmo, cutmix, label_probabilities, mixup, remix

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def constant_images(values: list[float], size: int = 16) -> torch.Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, size, size).contiguous()


@pytest.fixture
def held(monkeypatch):
    """Fix lam and make image i's partner image i + 1."""

    def hold(share: float) -> None:
        monkeypatch.setattr(mixing, "beta_sample", lambda alpha, device, generator=None: torch.tensor(share))
        monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.arange(count).roll(-1))

    return hold


def test_mixup_blends_images_and_labels_alike(held):
    held(0.75)
    mixed, target = mixup(constant_images([0.0, 1.0]), torch.tensor([0, 2]), 3, 1.0)
    torch.testing.assert_close(mixed, constant_images([0.25, 0.75]))
    assert target.tolist() == [[0.75, 0.0, 0.25], [0.25, 0.0, 0.75]]


def test_mixup_takes_uint8_in_its_own_range(held):
    held(0.5)
    mixed, _ = mixup(constant_images([0, 255]).to(torch.uint8), torch.tensor([0, 1]), 2, 1.0)
    assert mixed.dtype == torch.float32
    assert mixed.unique().tolist() == [127.5]


def test_mixing_twice_takes_probabilities(held):
    held(0.5)
    images, target = mixup(constant_images([0.0, 1.0]), torch.tensor([0, 1]), 2, 1.0)
    _, again = mixup(images, target, 2, 1.0)
    assert again.tolist() == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("share", "first_row"),
    [(0.3, [0.0, 1.0]), (0.7, [0.7, 0.3])],
    ids=["head below tau loses its label", "head above tau keeps its share"],
)
def test_remix_follows_equation_9(held, share, first_row):
    held(share)
    # Rows: head meets tail, tail meets head.
    _, target = remix(constant_images([0.0, 1.0]), torch.tensor([0, 1]), [90, 10], 1.0, kappa=3, tau=0.5)
    assert target[0].tolist() == pytest.approx(first_row)
    # The tail image has the share of `keep`; it takes the whole label where the head's share, 1 - keep, is below tau.
    assert target[1].tolist() == pytest.approx([0.0, 1.0] if share > 0.5 else [1 - share, share])


def test_remix_blends_images_as_mixup_does():
    images, labels = torch.rand(8, 3, 4, 4), torch.arange(8) % 2
    ours, _ = remix(images, labels, [90, 10], 0.4, generator(5))
    plain, _ = mixup(images, labels, 2, 0.4, generator(5))
    assert torch.equal(ours, plain)


def test_remix_of_alike_classes_or_without_tau_is_mixup():
    images, labels = torch.rand(8, 3, 4, 4), torch.arange(8) % 2
    expected = mixup(images, labels, 2, 1.0, generator(5))[1]
    assert torch.equal(remix(images, labels, [20, 10], 1.0, generator(5), kappa=3)[1], expected)
    assert torch.equal(remix(images, labels, [900, 0], 1.0, generator(5), tau=0.0)[1], expected)


def test_cutmix_labels_follow_the_area_that_is_covered():
    for seed in range(30):
        mixed, target = cutmix(constant_images([0.0, 1.0, 1.0]), torch.tensor([0, 1, 1]), 2, 1.0, generator(seed))
        assert set(mixed.unique().tolist()) <= {0.0, 1.0}
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), target[:, 1])


def test_cutmix_pastes_one_rectangle_of_the_expected_size():
    images = constant_images([0.0, 1.0], size=32)
    areas, expected = [], []
    for seed in range(300):
        mixed, target = cutmix(images, torch.tensor([0, 1]), 2, 1.0, generator(seed))
        changed = (mixed[0, 0] != images[0, 0]).float()
        rows, columns = changed.amax(dim=1), changed.amax(dim=0)
        assert torch.equal(changed, rows[:, None] * columns)
        swapped = bool(changed.any())
        areas.append(float(target[0, 1]))
        expected.append(float(rows.sum() * columns.sum() / 1024) if swapped else 0.0)
    assert areas == pytest.approx(expected, abs=1e-6)
    # Half the permutations of two images change nothing. lam is uniform: the sides are sqrt(1 - lam), 2/3 on average,
    # and a side s centerd at random and clipped covers s - s^2 / 4, so the area's mean is E[(s - s^2/4)^2].
    side = torch.rand(1_000_000, generator=generator()).sqrt()
    mean = float((side - side.square() / 4).square().mean()) / 2
    assert sum(areas) / len(areas) == pytest.approx(mean, abs=0.05)


def test_cmo_pastes_the_second_batch():
    background, tail = constant_images([0.0] * 4), constant_images([1.0] * 4)
    mixed, target = cmo(background, torch.tensor([0, 1, 0, 1]), tail, torch.tensor([2, 2, 3, 3]), 4, 1.0, generator(1))
    pasted = mixed.mean(dim=(1, 2, 3))
    assert 0 < pasted[0] < 1
    torch.testing.assert_close(target[:, 2] + target[:, 3], pasted)
    torch.testing.assert_close(target[:, 0] + target[:, 1], 1 - pasted)
    assert target[0, 3] == target[3, 2] == 0


def test_cut_methods_keep_the_dtype():
    images = constant_images([0, 255]).to(torch.uint8)
    labels = torch.tensor([0, 1])
    assert cutmix(images, labels, 2, 1.0, generator())[0].dtype == torch.uint8
    assert cmo(images, labels, images, labels, 2, 1.0, generator())[0].dtype == torch.uint8


@pytest.mark.parametrize("name", ["mixup", "cutmix", "remix", "cmo"])
def test_every_mix_is_seeded_sums_to_one_and_leaves_its_input_alone(name):
    images, labels = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    before = images.clone()

    def run(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        if name == "remix":
            return remix(images, labels, [50, 10, 2], 1.0, generator(seed))
        if name == "cmo":
            return cmo(images, labels, images.flip(0), labels.flip(0), 3, 1.0, generator(seed))
        return getattr(mixing, name)(images, labels, 3, 1.0, generator(seed))

    torch.manual_seed(0)
    first = run(4)
    torch.manual_seed(1)
    second = run(4)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], run(5)[0])
    torch.testing.assert_close(first[1].sum(dim=1), torch.ones(6))
    assert (first[1] >= 0).all()
    assert torch.equal(images, before)


def test_a_batch_of_one_is_mixed_with_itself():
    images, labels = torch.rand(1, 3, 8, 8), torch.tensor([1])
    for mix in (mixup, cutmix):
        mixed, target = mix(images, labels, 2, 1.0, generator())
        torch.testing.assert_close(mixed, images)
        torch.testing.assert_close(target, torch.tensor([[0.0, 1.0]]))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_beta_samples_have_the_moments_of_a_beta_distribution(alpha):
    source = generator(9)
    samples = torch.stack([beta_sample(alpha, CPU, source) for _ in range(4000)]).double()
    variance = 1 / (4 * (2 * alpha + 1))
    assert float(samples.mean()) == pytest.approx(0.5, abs=5 * (variance / 4000) ** 0.5)
    assert float(samples.var()) == pytest.approx(variance, rel=0.1)


def test_a_tiny_alpha_gives_no_nan():
    source = generator(2)
    samples = torch.stack([beta_sample(1e-4, CPU, source) for _ in range(200)])
    assert samples.isfinite().all()
    assert 0.3 < float(samples.mean()) < 0.7


def test_bad_input_is_refused():
    images, labels = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="alpha"):
        mixup(images, labels, 2, 0.0)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        mixup(images[0], labels, 2, 1.0)
    with pytest.raises(ValueError, match="N labels"):
        cutmix(images, torch.tensor([0]), 2, 1.0)
    with pytest.raises(ValueError, match="kappa"):
        remix(images, labels, [2, 1], 1.0, kappa=0.5)
    with pytest.raises(ValueError, match="once"):
        remix(images, label_probabilities(labels, 2), [2, 1], 1.0)
    with pytest.raises(ValueError, match="like"):
        cmo(images, labels, images[:1], labels[:1], 2, 1.0)
    with pytest.raises(ValueError, match="probabilities"):
        label_probabilities(torch.ones(2, 3), 2)
