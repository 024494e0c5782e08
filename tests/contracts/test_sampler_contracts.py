"""What every sampler must do, whichever its strategy: one list of names, so that a new one is right by construction."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from longtail.data.samplers import (
    SAMPLERS,
    STRATEGIES,
    EpochSampler,
    LongTailSampler,
    build_sampler,
    class_probabilities,
)

COUNTS = (60, 0, 25, 10, 4, 1)
WORLDS = (1, 2, 3, 8)

every_sampler = pytest.mark.parametrize("name", SAMPLERS)
every_strategy = pytest.mark.parametrize("name", STRATEGIES)


def labels_of(counts: tuple[int, ...]) -> np.ndarray:
    """Shuffled labels with these counts: class order and image order are unrelated, as in real data."""
    labels = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(7).shuffle(labels)
    return labels


LABELS = labels_of(COUNTS)


def make(name: str, **options: int) -> EpochSampler:
    return build_sampler(name, LABELS, COUNTS, **{"seed": 3, **options})


def interleave(shares: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(shares, dim=1).flatten()


@every_sampler
def test_indices_are_valid_and_iteration_yields_them(name):
    sampler = make(name)
    indices = sampler.indices()
    assert indices.dtype == torch.int64
    assert indices.shape == (len(LABELS),) == (len(sampler),)
    assert indices.min() >= 0
    assert indices.max() < len(LABELS)
    assert list(sampler) == indices.tolist()


@every_sampler
def test_a_class_without_images_is_never_drawn(name):
    sampler = make(name)
    drawn = np.concatenate([LABELS[_of_epoch(sampler, epoch)] for epoch in range(50)])
    assert not (drawn == COUNTS.index(0)).any()
    assert set(drawn) == {0, 2, 3, 4, 5}


@every_sampler
def test_the_same_seed_and_epoch_give_the_same_draw_and_others_another(name):
    first = _of_epoch(make(name), 5)
    assert torch.equal(first, _of_epoch(make(name), 5))
    assert not torch.equal(first, _of_epoch(make(name), 6))
    assert not torch.equal(first, _of_epoch(make(name, seed=4), 5))


@every_sampler
@pytest.mark.parametrize("world_size", WORLDS)
def test_ranks_share_one_draw_with_equal_lengths(name, world_size):
    all_indices = make(name).indices()
    shares = [make(name, rank=rank, world_size=world_size).indices() for rank in range(world_size)]
    assert {len(share) for share in shares} == {math.ceil(len(LABELS) / world_size)}
    together = interleave(shares)
    assert torch.equal(together[: len(all_indices)], all_indices)
    assert len(together) - len(all_indices) < world_size


@every_sampler
def test_the_batches_of_all_ranks_together_are_the_global_batch(name):
    all_indices = make(name).indices()
    shares = [make(name, rank=rank, world_size=2).indices() for rank in range(2)]
    for step in range(len(all_indices) // 16):
        batch = torch.cat([share[step * 8 : (step + 1) * 8] for share in shares])
        assert sorted(batch.tolist()) == sorted(all_indices[step * 16 : (step + 1) * 16].tolist())


@every_sampler
def test_it_resumes_in_the_middle_of_an_epoch_from_plain_numbers(name):
    sampler = make(name, world_size=2, rank=1)
    sampler.set_epoch(4)
    all_indices = list(sampler)
    sampler.advance(17)
    state = json.loads(json.dumps(sampler.state_dict()))
    resumed = make(name, seed=99, world_size=2, rank=1)
    resumed.load_state_dict(state)
    assert list(resumed) == list(sampler) == all_indices[17:]
    assert len(resumed) == len(all_indices)
    assert torch.equal(_of_epoch(resumed, 5), _of_epoch(sampler, 5))
    assert resumed.position == 0


@every_sampler
def test_it_resumes_with_another_number_of_ranks(name):
    all_indices = make(name).indices()
    before = make(name, world_size=2)
    before.advance(20)
    after = [make(name, rank=rank, world_size=4) for rank in range(4)]
    for sampler in after:
        sampler.load_state_dict(before.state_dict())
    rest = interleave([torch.tensor(list(sampler)) for sampler in after])
    assert torch.equal(rest, all_indices[40:])


@every_sampler
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(name):
    sampler = make(name, world_size=4)
    good = make(name).state_dict()
    for bad, message in [
        ({**good, "position": 3}, "resume with 1 processes"),
        ({**good, "position": 4000}, "same data"),
        ({"epoch": 1}, "must have"),
        ({**good, "progress": 2.0}, "progress"),
    ]:
        with pytest.raises(ValueError, match=message):
            sampler.load_state_dict(bad)
    assert sampler.state_dict() == make(name, world_size=4).state_dict()


@every_sampler
def test_advance_stays_within_the_epoch(name):
    sampler = make(name)
    sampler.advance(len(sampler))
    assert list(sampler) == []
    for step in (1, -1):
        with pytest.raises(ValueError, match="cannot advance"):
            sampler.advance(step)


@every_sampler
def test_num_samples_and_rounding(name):
    shares = [make(name, num_samples=50, rank=rank, world_size=3).indices() for rank in range(3)]
    assert [len(share) for share in shares] == [17, 17, 17]
    assert torch.equal(interleave(shares)[:50], make(name, num_samples=50).indices())


@every_sampler
def test_more_ranks_than_images(name):
    shares = [build_sampler(name, [0, 1, 1], 2, rank=rank, world_size=7).indices() for rank in range(7)]
    assert [len(share) for share in shares] == [1] * 7
    assert all(0 <= int(share) < 3 for share in shares)


@every_sampler
def test_a_long_draw_is_the_same_however_it_is_shared(name):
    """Longer than one internal block, so that what happens at the block's border is tested."""
    labels = np.arange(150_001) % 7
    all_indices = build_sampler(name, labels, 7).indices()
    shares = [build_sampler(name, labels, 7, rank=rank, world_size=3) for rank in range(3)]
    assert torch.equal(interleave([share.indices() for share in shares])[:150_001], all_indices)
    single = build_sampler(name, labels, 7)
    single.advance(70_000)
    assert torch.equal(torch.tensor(list(single)), all_indices[70_000:])


@every_sampler
def test_it_drives_a_data_loader(name):
    sampler = make(name)
    batches = list(DataLoader(list(range(len(LABELS))), batch_size=16, sampler=sampler))
    assert torch.equal(torch.cat(batches), sampler.indices())


@every_sampler
def test_labels_of_any_kind_give_the_same_draw(name):
    expected = make(name).indices()
    for labels in (LABELS.tolist(), torch.from_numpy(LABELS), LABELS.astype(np.uint8)):
        assert torch.equal(build_sampler(name, labels, len(COUNTS), seed=3).indices(), expected)


@every_strategy
@pytest.mark.parametrize("progress", [0.0, 0.3])
def test_empirical_frequencies_agree_with_the_class_probabilities(name, progress):
    draws = 200_000
    sampler = LongTailSampler(LABELS, COUNTS, strategy=name, num_samples=draws, seed=11)
    sampler.progress = progress
    rows = sampler.indices().numpy()
    chances = class_probabilities(COUNTS, name, progress=progress).numpy()
    frequencies = np.bincount(LABELS[rows], minlength=len(COUNTS)) / draws
    assert np.all(np.abs(frequencies - chances) <= 5 * np.sqrt(chances * (1 - chances) / draws))
    image_chances = (chances / np.maximum(COUNTS, 1))[LABELS]
    image_frequencies = np.bincount(rows, minlength=len(LABELS)) / draws
    assert np.all(np.abs(image_frequencies - image_chances) <= 5 * np.sqrt(image_chances / draws))


@every_strategy
def test_the_order_of_classes_does_not_matter(name):
    order = [3, 5, 0, 2, 1, 4]
    chances = class_probabilities(COUNTS, name, progress=0.4)
    permuted = class_probabilities([COUNTS[i] for i in order], name, progress=0.4)
    torch.testing.assert_close(permuted, chances[order], rtol=1e-12, atol=0)


@every_strategy
def test_equal_counts_give_equal_probabilities(name):
    torch.testing.assert_close(class_probabilities([9, 9, 9], name), torch.full((3,), 1 / 3, dtype=torch.float64))


@every_strategy
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_probabilities_are_a_distribution_over_the_classes_that_have_images(name, progress):
    chances = class_probabilities((10**7, 3, 0, 1), name, progress=progress)
    assert chances.dtype == torch.float64
    assert float(chances.sum()) == pytest.approx(1, abs=1e-12)
    assert chances[2] == 0
    assert (chances[[0, 1, 3]] > 0).all()
    assert chances[0] >= chances[1] >= chances[3]


def _of_epoch(sampler: EpochSampler, epoch: int) -> torch.Tensor:
    sampler.set_epoch(epoch)
    return sampler.indices()
