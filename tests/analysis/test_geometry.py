"""Geometry of features on inputs whose answer is known by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from longtail.analysis import geometry
from longtail.analysis.geometry import alignment, class_geometry, class_means, neural_collapse, uniformity


def simplex(classes: int) -> np.ndarray:
    """Corners of a regular simplex around the origin, all pairs at the cosine -1 / (C - 1)."""
    return np.eye(classes) - 1 / classes


def test_means_of_an_absent_class_are_nan_and_order_does_not_matter() -> None:
    features = np.array([[4.0, 0], [1, 1], [0, 2]])
    means, images = class_means(features, np.array([2, 0, 2]), 4)
    assert images.tolist() == [1, 0, 2, 0]
    assert means[0].tolist() == [1, 1]
    assert means[2].tolist() == [2, 1]
    assert np.isnan(means[[1, 3]]).all()


def test_a_perfect_simplex_is_collapsed_in_every_measure() -> None:
    corners = simplex(5)
    labels = np.repeat(np.arange(5), [2, 3, 7, 1, 4])
    measured = neural_collapse(corners[labels] + 10.0, labels, 5, weight=3 * corners)
    assert [measured.within_between, measured.nc1] == pytest.approx([0, 0], abs=1e-20)
    assert [measured.equinorm, measured.equiangularity] == pytest.approx([0, 0], abs=1e-7)
    assert measured.simplex_deviation == pytest.approx(0, abs=1e-9)
    assert measured.duality == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float16])
def test_numbers_that_hold_no_mean_are_widened(kind: type) -> None:
    features, labels = np.array([[0, 3], [2, 250], [9, 1], [11, 255]], dtype=kind), [0, 0, 1, 1]
    wide = features.astype(np.float64)
    for measure in (class_geometry, neural_collapse, alignment):
        assert repr(measure(features, labels, 2)) == repr(measure(wide, labels, 2))
    assert uniformity(features.tolist()) == uniformity(wide)
    far = np.full((4, 2), 60_000, dtype=np.float16) * np.array([[1], [1], [-1], [-1]], dtype=np.float16)
    assert class_geometry(far, labels, 2).nearest_distance.tolist() == pytest.approx(
        [np.sqrt(8.0) * 60_000] * 2, rel=1e-3
    )


@pytest.mark.parametrize(
    ("labels", "words"),
    [([0, 1, 2, 3], r"label 3 is outside 0\.\.2"), ([0, -1, 0, 0], "label -1"), ([0], r"\(4, 2\) and \(1,\)")],
)
def test_what_does_not_fit_is_said(labels: list[int], words: str) -> None:
    for measure in (class_means, class_geometry, alignment, neural_collapse):
        with pytest.raises(ValueError, match=words):
            measure(np.zeros((4, 2)), labels, 3)


def test_variances_within_and_between_classes() -> None:
    # Two classes at -3 and +3 on a line, each with deviations +-1: S_W = 2 (divided by n - 1). The means scatter by 9,
    # of which (1 - 1 / 2) * 2 / 2 = 0.5 is the noise of means of two images.
    features = np.array([[-4.0], [-2.0], [2.0], [4.0]])
    measured = neural_collapse(features, np.array([0, 0, 1, 1]), 2)
    assert measured.within_between == pytest.approx(2 / 8.5)
    assert measured.nc1 == pytest.approx(2 / 9 / 2)
    assert measured.simplex_deviation == pytest.approx(0)  # two means around their center are opposite


def test_nc1_counts_a_direction_by_how_much_classes_differ_in_it() -> None:
    """Against the formula of the paper with the matrices written out."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 6)
    means = rng.normal(size=(4, 5)) * [4, 2, 1, 1, 1]
    features = means[labels] + rng.normal(size=(24, 5))
    class_means = np.stack([features[labels == c].mean(0) for c in range(4)])
    within = np.mean([np.cov(features[labels == c].T) for c in range(4)], axis=0)
    centered = class_means - class_means.mean(0)
    between = centered.T @ centered / 4
    measured = neural_collapse(features, labels, 4)
    assert measured.nc1 == pytest.approx(np.trace(within @ np.linalg.pinv(between)) / 4)
    noise = (1 - 1 / 4) * np.trace(within) / 6
    assert measured.within_between == pytest.approx(np.trace(within) / (np.trace(between) - noise))
    cosines = [
        centered[a] @ centered[b] / np.linalg.norm(centered[a]) / np.linalg.norm(centered[b])
        for a, b in itertools.permutations(range(4), 2)
    ]
    assert measured.equiangularity == pytest.approx(np.std(cosines))
    assert measured.simplex_deviation == pytest.approx(np.mean(np.abs(np.array(cosines) + 1 / 3)))


def test_few_images_a_class_do_not_make_classes_look_apart() -> None:
    """Means of variance 4 and images of variance 1 around them: the ratio is 1 / 4 however many images there are."""
    rng = np.random.default_rng(5)
    means = rng.normal(size=(400, 8)) * 2
    measured = {}
    for images in (2, 50):
        labels = np.repeat(np.arange(400), images)
        measured[images] = neural_collapse(means[labels] + rng.normal(size=(400 * images, 8)), labels, 400)
    assert measured[2].within_between == pytest.approx(0.25, rel=0.08)  # without the correction: 0.22
    assert measured[2].within_between == pytest.approx(measured[50].within_between, rel=0.08)
    # A long tail: half the classes have a single image, of unknown variance.
    labels = np.concatenate([np.repeat(np.arange(200), 20), np.arange(200, 400)])
    tail = neural_collapse(means[labels] + rng.normal(size=(len(labels), 8)), labels, 400)
    assert tail.within_between == pytest.approx(0.25, rel=0.1)


def test_classes_that_are_nothing_but_noise_have_no_ratio() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(50), 2)
    values = [neural_collapse(rng.normal(size=(100, 4)), labels, 50).within_between for _ in range(20)]
    assert any(math.isnan(value) for value in values)
    assert all(value > 2 for value in values if not math.isnan(value))


def test_absent_classes_leave_the_collapse_of_the_others_as_it_is() -> None:
    corners, labels = simplex(3), np.array([0, 0, 2, 2, 4, 4])
    weight = np.zeros((6, 3))
    weight[[0, 2, 4]] = corners
    measured = neural_collapse(corners[labels // 2], labels, 6, weight=weight)
    assert measured.simplex_deviation == pytest.approx(0, abs=1e-9)
    assert measured.duality == pytest.approx(0, abs=1e-9)


def test_a_classifier_unrelated_to_the_means_is_at_two_and_an_opposite_one_at_four() -> None:
    corners = simplex(3)
    labels = np.array([0, 1, 2])
    wide = np.hstack([corners, np.zeros((3, 3))])
    unrelated = np.hstack([np.zeros((3, 3)), corners])
    assert neural_collapse(wide, labels, 3, weight=unrelated).duality == pytest.approx(2)
    assert neural_collapse(wide, labels, 3, weight=-wide).duality == pytest.approx(4)


@pytest.mark.parametrize("labels", [[0, 0, 0], []])
def test_one_class_has_nothing_to_collapse_to(labels: list[int]) -> None:
    measured = neural_collapse(np.ones((len(labels), 2)), np.array(labels, dtype=np.int64), 3, weight=np.ones((3, 2)))
    assert all(math.isnan(value) for value in vars(measured).values())


def test_one_image_a_class_has_means_but_no_variance() -> None:
    measured = neural_collapse(simplex(3), np.arange(3), 3)
    assert math.isnan(measured.within_between)
    assert math.isnan(measured.nc1)
    assert measured.equinorm == pytest.approx(0)
    geometry_of = class_geometry(simplex(3), np.arange(3), 3)
    assert np.isnan(geometry_of.spread).all()
    assert np.isnan(geometry_of.ratio).all()
    assert geometry_of.nearest_distance == pytest.approx([math.sqrt(2)] * 3)


def test_identical_classes_are_at_no_distance() -> None:
    features = np.array([[0.0, 1], [0, -1], [1, 0], [-1, 0], [9, 9]])
    measured = class_geometry(features, np.array([0, 0, 1, 1, 2]), 3)
    assert measured.nearest[:2].tolist() == [1, 0]
    assert measured.nearest_distance[:2].tolist() == [0, 0]
    assert np.isinf(measured.ratio[:2]).all()
    assert math.isnan(measured.ratio[2])  # of one image


def test_spread_does_not_depend_on_how_many_images_a_class_has() -> None:
    """The same Gaussian cloud sampled 2 or 200 at a time: the mean of the estimates agrees."""
    rng = np.random.default_rng(1)
    few, many = np.repeat(np.arange(500), 2), np.repeat(np.arange(5), 200)
    small = class_geometry(rng.normal(size=(1000, 8)), few, 500).spread.mean()
    large = class_geometry(rng.normal(size=(1000, 8)), many, 5).spread.mean()
    assert small == pytest.approx(large, rel=0.03)


def test_nearest_matches_all_pairs_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "BLOCK", 7)
    features = np.random.default_rng(2).normal(size=(30, 4)).astype(np.float32)
    labels = np.delete(np.arange(31), 3)  # class 3 is absent
    distances = np.linalg.norm(features[:, None] - features[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    measured = class_geometry(features, labels, 31)
    assert measured.nearest[labels].tolist() == labels[distances.argmin(1)].tolist()
    assert measured.nearest_distance[labels] == pytest.approx(distances.min(1), rel=1e-6)
    assert measured.nearest[3] == -1
    corners, many = simplex(9).astype(np.float32), np.arange(9)
    assert neural_collapse(corners, many, 9).simplex_deviation == pytest.approx(0, abs=1e-6)


def test_uniformity_is_the_mean_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "BLOCK", 4)
    features = np.random.default_rng(3).normal(size=(11, 3))
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    pairs = [np.exp(-2 * np.sum((a - b) ** 2)) for a, b in itertools.combinations(units, 2)]
    assert uniformity(features) == pytest.approx(np.log(np.mean(pairs)))
    assert uniformity(5 * features) == pytest.approx(uniformity(features))  # length has no part in it
    assert uniformity(np.vstack([features, np.zeros(3)])) == pytest.approx(uniformity(features))


def test_uniformity_of_a_sample_is_near_that_of_all_and_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(4).normal(size=(900, 4))
    whole = uniformity(features)
    monkeypatch.setattr(geometry, "EXACT", 300)
    assert uniformity(features, seed=1) == pytest.approx(whole, rel=0.05)
    assert uniformity(features, seed=1) == uniformity(features, seed=1) != uniformity(features, seed=2)


def test_alignment_counts_every_class_alike() -> None:
    tight, loose = np.tile([[1.0, 0.0]], (50, 1)), np.array([[1.0, 0.0], [-1.0, 0.0]])
    labels = np.array([0] * 50 + [1] * 2 + [2])
    assert alignment(np.vstack([tight, loose, [[0.0, 3.0]]]), labels, 4) == pytest.approx((0 + 4) / 2)
    assert math.isnan(alignment(simplex(3), np.arange(3), 3))
    assert math.isnan(uniformity(np.ones((1, 2))))


def test_the_mean_of_many_float32_features_is_exact() -> None:
    features = np.full((200_000, 1), 0.1, np.float32)
    means, _ = class_means(features, np.zeros(len(features), np.int64), 1)
    assert means[0, 0] == pytest.approx(float(np.float32(0.1)), rel=1e-9)
