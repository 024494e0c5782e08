"""How far a difference between two models may be off: intervals over seeds, and over images that both were given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, variance

import numpy as np
import numpy.typing as npt

from longtail.evaluation.intervals import LEVEL

Ends = tuple[float, float]
Shares = npt.NDArray[np.float64]


def t_reach(freedom: float, *, level: float = LEVEL) -> float:
    """So many standard errors lie on either side of a mean in Student's interval.

    Args:
        freedom: Degrees of freedom, above 0; a fraction may occur.
        level: How often such intervals hold the true value.

    Example:
        >>> [round(t_reach(freedom), 3) for freedom in (1, 2, 1e9)]
        [12.706, 4.303, 1.96]
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def seeds_interval(mean: float, std: float, n: int) -> Ends:
    """Student's interval of a mean; of differences between partners it is the paired t-interval.

    Args:
        mean: Of the numbers.
        std: Their sample standard deviation.
        n: How many there are, at least two.

    Example:
        >>> [round(end, 4) for end in seeds_interval(0.03, 0.01, 3)]
        [0.0052, 0.0548]
    """
    half = t_reach(n - 1) * std / n**0.5
    return mean - half, mean + half


def welch_interval(one: Sequence[float], two: Sequence[float]) -> Ends | None:
    """Interval of the difference of two means without partners; None where a side has no deviation of its own.

    Welch, The generalization of Student's problem when several different population variances are involved,
    Biometrika 34, 1947.

    Args:
        one: Numbers of one side, at least two.
        two: Of the other.

    Example:
        >>> [round(end, 3) for end in welch_interval([2.0, 4.0], [1.0, 1.0])]
        [-10.706, 14.706]
        >>> welch_interval([2.0, 4.0], [1.0]) is None
        True
    """
    if min(len(one), len(two)) < 2:
        return None
    errors = [variance(side) / len(side) for side in (one, two)]
    weights = [error**2 / (len(side) - 1) for error, side in zip(errors, (one, two), strict=True)]
    half = t_reach(sum(errors) ** 2 / sum(weights)) * sum(errors) ** 0.5 if sum(weights) > 0 else 0.0
    mean = fmean(one) - fmean(two)
    return mean - half, mean + half


def images_interval(one: npt.ArrayLike, two: npt.ArrayLike, classes: npt.ArrayLike | None = None) -> Ends | None:
    """Interval of the difference between the shares that two models have right, both given the same images.

    What counts is how many images only one of the two has right. A mean over classes is the mean of their differences,
    each class with the variance of its own images. As in :func:`longtail.evaluation.intervals.mean_intervals` the
    shares of a class are drawn towards those of all by one image's worth, else a class of one image would not vary.
    The variance says how many pairs of one single share the mean is worth, and the adjusted interval of so many matched
    pairs is given: Agresti and Min, Simple improved confidence intervals for comparing matched proportions, Statistics
    in Medicine 24, 2005. It speaks of these two models on other images and knows nothing of other seeds.

    Args:
        one: Whether the first model is right, shape (N,).
        two: The second, on the same images.
        classes: Class of each image, shape (N,), for a mean over classes; one mean over all images when not given.

    Returns:
        Low and high end of first minus second; None where there is no image.

    Example:
        >>> one, two = [True] * 30 + [False] * 70, [False] * 20 + [True] * 10 + [False] * 70
        >>> [round(end, 3) for end in images_interval(one, two)]
        [0.116, 0.276]
    """
    first, second = np.asarray(one, dtype=bool), np.asarray(two, dtype=bool)
    if not first.size:
        return None
    where = np.zeros(first.size, dtype=np.int64) if classes is None else np.unique(classes, return_inverse=True)[1]
    images: Shares = np.bincount(where).astype(np.float64)
    won, lost = first & ~second, second & ~first
    gain, loss = (np.bincount(where, weights=side).astype(np.float64) for side in (won, lost))
    up, down = ((side + _toward(side, images)) / (images + 1) for side in (gain, loss))
    spread = (up + down - (up - down) ** 2) / images / (1 - images / (images + 1) ** 2)
    return _matched_pairs(float(((gain - loss) / images).mean()), up, down, float(spread.sum()) / len(images) ** 2)


def _matched_pairs(mean: float, up: Shares, down: Shares, spread: float) -> Ends:
    """The adjusted interval for as many pairs as a mean of this variance is worth."""
    gain, loss = float(up.mean()), float(down.mean())
    pairs = (gain + loss - (gain - loss) ** 2) / spread
    gain, loss = (gain * pairs + 0.5) / (pairs + 2), (loss * pairs + 0.5) / (pairs + 2)
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * ((gain + loss - (gain - loss) ** 2) / (pairs + 2)) ** 0.5
    low, high = max(gain - loss - half, -1.0), min(gain - loss + half, 1.0)
    return min(low, mean), max(high, mean)


def _toward(part: Shares, images: Shares) -> float:
    """The mean share over classes, held off 0 by half an image of all."""
    total = float(images.sum())
    return (float((part / images).mean()) * total + 0.5) / (total + 2)


def means_interval(
    one: npt.ArrayLike, of_one: npt.ArrayLike, two: npt.ArrayLike, of_two: npt.ArrayLike, *, most: float = math.inf
) -> Ends | None:
    """Interval of the difference of two means over parts of the same images, as of a share of each model's errors.

    Each mean is ``sum(x) / sum(w)``, of which an image moves ``(x - mean) w / sum(w)``; an image that moves both alike
    moves nothing (the delta method, on matched images). Half an image's worth is added on each side, as by Agresti and
    Min, since a few images that are all alike would not vary.

    Args:
        one: A number of each image under the first model, shape (N,); in [0, 1] for a share.
        of_one: Whether the image counts for it, shape (N,).
        two: The same under the second model.
        of_two: Likewise.
        most: By how much two means can differ at most, 1 for shares.

    Returns:
        Low and high end of first minus second; None where either counts fewer than two images.

    Example:
        >>> wrong, other = [True] * 40, [True] * 20 + [False] * 20
        >>> ends = means_interval([1.0] * 40, wrong, [0.0] * 10 + [1.0] * 30, other)
        >>> [round(end, 2) for end in ends]
        [0.25, 0.75]
    """
    sides, moves = [(one, of_one), (two, of_two)], []
    counted = [np.asarray(weight, dtype=np.float64) for _, weight in sides]
    images = [float(weight.sum()) for weight in counted]
    if min(images) < 2:
        return None
    means = []
    for (value, _), weight, total in zip(sides, counted, images, strict=True):
        found = np.asarray(value, dtype=np.float64)
        means.append(float((found * weight).sum()) / total)
        moves.append((found - means[-1]) * weight / total)
    spread = float(((moves[0] - moves[1]) ** 2).sum()) + sum(0.5 / (total + 2) ** 2 for total in images)
    half = t_reach(min(images) - 1) * spread**0.5
    return max(means[0] - means[1] - half, -most), min(means[0] - means[1] + half, most)


def apart_interval(one: float, one_ends: Sequence[float], two: float, two_ends: Sequence[float]) -> Ends:
    """Interval of the difference of two shares from the interval of each, where the images cannot be matched.

    Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine 17, 1998,
    method 10. On the same images it is wider than need be, as two models mostly fail on the same ones.

    Args:
        one: The first share.
        one_ends: Low and high end of it.
        two: The second share.
        two_ends: Likewise.

    Example:
        >>> [round(end, 2) for end in apart_interval(0.5, (0.4, 0.6), 0.2, (0.1, 0.4))]
        [0.08, 0.44]
    """
    mean = one - two
    low = np.hypot(one - one_ends[0], two_ends[1] - two)
    high = np.hypot(one_ends[1] - one, two - two_ends[0])
    return float(mean - low), float(mean + high)
