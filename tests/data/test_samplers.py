"""Sampling strategies against their formulas and the vectors, and what is particular to each sampler."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from longtail import ClassCounts
from longtail.data import class_probabilities
from longtail.data.samplers import (
    LongTailSampler,
    ShuffleSampler,
    _look_up,
    _lookup_table,
    build_sampler,
)
from longtail.errors import LongtailError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "methods.json").read_text(encoding="utf-8"))["cases"]
NAMES = {"balanced": "class-balanced", "effective_number": "effective-number", "cben": "cben"}


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{len(case['counts'])}-classes")
@pytest.mark.parametrize("key", NAMES)
def test_probabilities_agree_with_published_code(case, key):
    ours = class_probabilities(case["counts"], NAMES[key])
    published = torch.tensor(case["expected"][f"class_prob_{key}"], dtype=torch.float64)
    # The published CBEN rounds its b_j to float32, which moves the sixth digit; ours does not.
    torch.testing.assert_close(ours, published, rtol=1e-5 if key == "cben" else 1e-6, atol=0)


def test_each_strategy_is_its_formula():
    counts = [400, 100, 25]
    total = 525
    instance = np.array(counts) / total
    expected = {
        "instance": instance,
        "class-balanced": [1 / 3] * 3,
        "square-root": np.array([20, 10, 5]) / 35,
        "progressive": 0.75 * instance + 0.25 / 3,
    }
    for name, chances in expected.items():
        assert class_probabilities(counts, name, progress=0.25).tolist() == pytest.approx(list(chances))
    weights = [n * (1 - 0.99) / (1 - 0.99**n) for n in counts]
    ours = class_probabilities(counts, "effective-number", beta=0.99)
    assert ours.tolist() == pytest.approx([weight / sum(weights) for weight in weights])


def test_cben_raises_beta_towards_the_tail_only():
    plain, cben = (class_probabilities([1000, 100, 10], name) for name in ("effective-number", "cben"))
    assert cben[2] > plain[2]
    betas = 0.9999 + 1e-5 * np.array([0, 0.5, 1])
    weights = np.array([n * (1 - b) / (1 - b**n) for n, b in zip([1000, 100, 10], betas, strict=True)])
    assert cben.tolist() == pytest.approx((weights / weights.sum()).tolist(), rel=1e-9)


def test_progressive_goes_from_instance_to_class_balanced():
    counts = [90, 9, 0, 1]
    start, end = (class_probabilities(counts, "progressive", progress=t) for t in (0.0, 1.0))
    torch.testing.assert_close(start, class_probabilities(counts, "instance"))
    torch.testing.assert_close(end, class_probabilities(counts, "class-balanced"))


def test_progress_is_kept_by_a_draw_that_has_begun():
    sampler = LongTailSampler(np.repeat([0, 1], [95, 5]), 2, strategy="progressive", num_samples=4000)
    head = sampler.indices()
    sampler.progress = 1.0
    assert torch.equal(sampler.indices(), head)
    sampler.advance(1000)
    resumed = LongTailSampler(np.repeat([0, 1], [95, 5]), 2, strategy="progressive", num_samples=4000)
    resumed.load_state_dict(sampler.state_dict())
    resumed.progress = 1.0
    assert list(resumed) == head[1000:].tolist()
    sampler.set_epoch(1)
    assert 0.45 < float((sampler.indices() >= 95).double().mean()) < 0.55
    assert float((head >= 95).double().mean()) < 0.1


def test_progress_may_be_set_before_or_after_the_epoch():
    draws = []
    for progress_first in (True, False):
        sampler = LongTailSampler(np.repeat([0, 1], [95, 5]), 2, strategy="progressive")
        if progress_first:
            sampler.progress = 0.5
        sampler.set_epoch(2)
        sampler.progress = 0.5
        draws.append(sampler.indices())
    assert torch.equal(*draws)


def test_shuffle_takes_every_image_once_over_all_ranks():
    for world_size in (1, 2, 4):
        shares = [ShuffleSampler([0] * 12, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert sorted(index for share in shares for index in share) == list(range(12))
    shares = [list(ShuffleSampler([0] * 13, rank=rank, world_size=4)) for rank in range(4)]
    seen = np.bincount(np.concatenate(shares), minlength=13)
    assert seen.sum() == 16
    assert set(seen) == {1, 2}


def test_shuffle_is_uniform():
    firsts = []
    sampler = ShuffleSampler([0] * 5)
    for epoch in range(2000):
        sampler.set_epoch(epoch)
        firsts.append(next(iter(sampler)))
    assert np.all(np.abs(np.bincount(firsts, minlength=5) / 2000 - 0.2) < 5 * np.sqrt(0.16 / 2000))


def test_shuffle_refuses_more_samples_than_images():
    with pytest.raises(ValueError, match="exceeds the 3 images"):
        ShuffleSampler([0, 1, 1], num_samples=4)


@pytest.mark.parametrize(
    "chances",
    [
        [0.25] * 4,
        [0.0, 0.5, 0.0, 0.5, 0.0],
        [1 - 1e-7, *([1e-11] * 10_000)],
        np.random.default_rng(0).dirichlet(np.full(500, 0.05)).tolist(),
    ],
    ids=["equal", "with zeros", "one giant", "wild"],
)
def test_the_lookup_is_exactly_the_inverse_of_the_cumulative_distribution(chances):
    cumulative, buckets = _lookup_table(np.array(chances))
    uniform = np.concatenate([np.random.default_rng(1).random(20_000), [0.0, np.nextafter(1.0, 0.0)], cumulative[:-1]])
    uniform = np.unique(uniform[uniform < 1])
    classes = _look_up(uniform, cumulative, buckets)
    assert np.array_equal(classes, np.searchsorted(cumulative, uniform, side="right"))
    assert np.all(np.array(chances)[classes] > 0)


def test_class_counts_are_made_or_checked():
    sampler = LongTailSampler([0, 0, 3], 5)
    assert LongTailSampler([0, 0, 3], np.int64(5)).class_counts == sampler.class_counts
    assert sampler.class_counts.counts == (2, 0, 0, 1, 0)
    named = ClassCounts([2, 1], ["cat", "lynx"])
    assert LongTailSampler([0, 1, 0], named).class_counts is named
    with pytest.raises(ValueError, match="'lynx' has 2 labels"):
        LongTailSampler([0, 1, 0, 1], named)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 2], {}, "label 2 is outside 0..1"),
        ([0, -1], {}, "label -1 is outside 0..1"),
        ([0.5, 1.0], {}, "whole numbers"),
        ([[0, 1]], {}, "shape"),
        (np.array([], dtype=np.int64), {}, "one image"),
        ([0, 1], {"num_samples": 0}, "one draw"),
        ([0, 1], {"rank": 2, "world_size": 2}, r"rank .*0\.\.1"),
        ([0, 1], {"seed": -1}, "seed"),
        ([0, 1], {"beta": 1.0}, "beta"),
        ([0, 1], {"strategy": "cben", "beta": 0.99999}, "0.99999"),
    ],
)
def test_bad_input_is_refused(labels, options, message):
    with pytest.raises(ValueError, match=message):
        LongTailSampler(labels, 2, **options)


def test_bad_progress_and_epoch_are_refused():
    sampler = LongTailSampler([0, 1], 2)
    with pytest.raises(ValueError, match="progress"):
        sampler.progress = 1.1
    with pytest.raises(ValueError, match="progress"):
        class_probabilities([1, 1], "progressive", progress=-0.1)
    with pytest.raises(ValueError, match="epoch"):
        sampler.set_epoch(-1)


def test_a_wrong_name_gets_the_nearest_right_one():
    with pytest.raises(LongtailError, match="'class-balanced'"):
        class_probabilities([1, 1], "class_balanced")
    with pytest.raises(LongtailError, match="mean 'shuffle'"):
        build_sampler("shufle", [0, 1], 2)
    with pytest.raises(LongtailError, match="mean 'square-root'"):
        LongTailSampler([0, 1], 2, strategy="squareroot")


def test_samplers_import_with_torch_and_numpy_alone():
    code = """
import sys
for name in ("datasets", "PIL", "timm", "torchvision", "torchmetrics", "accelerate", "pandas", "pyarrow", "scipy",
             "sklearn", "plotly", "jinja2", "rich", "yaml", "safetensors", "mlxtend"):
    sys.modules[name] = None  # an import of it now fails
from longtail.data import LongTailSampler, ShuffleSampler, class_probabilities
import longtail.data.transforms.mixing
print(len(LongTailSampler([0, 1, 1], 2)))
"""
    paths = [str(Path(sys.modules["longtail"].__file__).parents[1]), *filter(None, sys.path)]
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "3"


def test_the_package_names_what_it_lacks():
    import longtail.data

    assert "class_probabilities" in dir(longtail.data)
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = longtail.data.nothing
