"""Intervals of a difference between two models: over seeds, and over the images that both were tested on.

A measured difference is uncertain for two reasons. Other **test images** would give another figure for the same
models; another **seed** would give other models. The two are kept apart, since neither can stand for the other:

- over images (:func:`images_interval`): what would these models, averaged over their seeds, differ by on other images
  like these? The images are the sample, the models are fixed. One seed is enough.
- over seeds (:func:`seeds_interval`, :func:`welch_interval`): what would other seeds differ by on these images? The
  seeds are the sample, the images are fixed. Fewer than three say next to nothing: with two, Student's interval reaches
  9 deviations to either side and holds zero even where each of the two seeds is evidence over the images.

A :class:`Difference` has both intervals and the rule for evidence, which requires both. Neither is an interval for
another seed on other images at once, which would be up to 1.4 times as wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean, stdev, variance
from typing import Literal

import numpy as np
import numpy.typing as npt

from longtail.counts import FloatArray, IntArray
from longtail.evaluation.intervals import LEVEL, Z, class_sample_sizes

Ends = tuple[float, float]
Holds = Literal["images and seeds", "images", "seeds", "neither"]

EVIDENCE = 0.005
"""A difference below half a percentage point, of either sign, is not evidence."""
ENOUGH_SEEDS = 3
"""Least number of seeds to judge a difference over seeds too."""


@dataclass(frozen=True)
class Difference:
    """The difference of one configuration to another, with the intervals that decide whether it is evidence.

    It is evidence if it is at least :data:`EVIDENCE` and no known interval contains zero. So with one or two seeds the
    test images decide alone, and from three on the seeds have to agree. If only one of two intervals excludes zero,
    :attr:`holds` says which, so that a verdict from fewer seeds is never withdrawn without a reason.

    Attributes:
        mean: Mean difference between partners, or the difference of the means.
        std: Deviation over seeds; None for a single seed.
        n: Pairs of runs, or runs on the side that has fewer.
        images: Interval over the test images, if there is one.
        seeds: Interval over seeds, None for fewer than :data:`ENOUGH_SEEDS`.

    Example:
        >>> two = Difference.of([0.03, 0.05], images=(0.02, 0.06))
        >>> two.is_evidence, two.holds
        (True, 'images')
        >>> three = Difference.of([0.03, 0.05, -0.01], images=(0.003, 0.043))
        >>> three.is_evidence, three.holds, [round(end, 3) for end in three.interval]
        (False, 'images', [-0.053, 0.099])
    """

    mean: float
    std: float | None
    n: int
    images: Ends | None = None
    seeds: Ends | None = None

    @classmethod
    def of(cls, gains: Sequence[float], images: Ends | None = None) -> Difference:
        """Combine the differences of partners, one per seed; from three on with Student's interval.

        Args:
            gains: At least one.
            images: Interval of their mean over the test images.
        """
        mean, std, n = fmean(gains), stdev(gains) if len(gains) > 1 else None, len(gains)
        seeds = seeds_interval(mean, std, n) if std is not None and n >= ENOUGH_SEEDS else None
        return cls(mean, std, n, images, seeds)

    @property
    def interval(self) -> Ends | None:
        """The outer ends of the known intervals: contains zero if one of them does."""
        intervals = [interval for interval in (self.images, self.seeds) if interval is not None]
        return (min(low for low, _ in intervals), max(high for _, high in intervals)) if intervals else None

    @property
    def holds(self) -> Holds | None:
        """Tell which intervals exclude zero; None without any interval."""
        if self.interval is None:
            return None
        images, seeds = (interval is not None and _excludes_zero(interval) for interval in (self.images, self.seeds))
        if images and seeds:
            return "images and seeds"
        return "images" if images else "seeds" if seeds else "neither"

    @property
    def is_evidence(self) -> bool:
        """Whether it is at least half a point and no known interval contains zero; False without any interval.

        Every verdict of the package is made here.
        """
        interval = self.interval
        return interval is not None and self.is_large and _excludes_zero(interval)

    @property
    def is_large(self) -> bool:
        """Whether it is at least half a point, up to rounding.

        Example:
            >>> Difference(0.105 - 0.1, None, 1).is_large, Difference(0.1049 - 0.1, None, 1).is_large
            (True, False)
        """
        return round(abs(self.mean), 9) >= EVIDENCE

    def to_the_best_of(self, values: int) -> Difference:
        """Return it with wider intervals, which allow for the best of several values having been picked by its result.

        By Tukey's studentized range, as Games and Howell apply it to differences that each have their own variance: of
        equal values the best is ahead of some other by chance, the further the more values there are. All differences
        to the best hold at once with 95%. Seeds without partners are taken to have the freedom of the smaller side,
        which is cautious.

        Args:
            values: Number of values, the best one included; for two, the intervals stay.

        Example:
            >>> wider = Difference(0.03, None, 1, images=(0.01, 0.05)).to_the_best_of(5)
            >>> [round(end, 3) for end in wider.images]
            [0.002, 0.058]
            >>> seeds = Difference(0.03, 0.01, 3, seeds=(0.005, 0.055))
            >>> seeds.is_evidence, seeds.to_the_best_of(5).is_evidence
            (True, False)
        """

        def widen(interval: Ends | None, freedom: float) -> Ends | None:
            if interval is None:
                return None
            factor = studentized_range(values, freedom) / t_quantile(freedom)
            low, high = (self.mean + factor * (end - self.mean) for end in interval)
            return low, high

        return replace(self, images=widen(self.images, math.inf), seeds=widen(self.seeds, self.n - 1))

    @property
    def is_none(self) -> bool:
        """Whether every known interval lies within half a point of zero.

        Example:
            >>> Difference(0.001, None, 1, images=(-0.002, 0.004)).is_none, Difference(0.001, None, 1).is_none
            (True, False)
        """
        interval = self.interval
        return interval is not None and max(abs(interval[0]), abs(interval[1])) < EVIDENCE


def _excludes_zero(interval: Ends) -> bool:
    return interval[0] > 0 or interval[1] < 0


@cache
def studentized_range(values: int, freedom: float = math.inf) -> float:
    """Standard errors of a difference that the largest of all differences among several equal values stays below.

    With 95%. Tukey, The problem of multiple comparisons, 1953; Games and Howell, Pairwise multiple comparison
    procedures with unequal n's and/or variances, Journal of Educational Statistics 1, 1976.

    Args:
        values: Number of values, at least 2.
        freedom: Degrees of freedom of the standard error.

    Example:
        >>> [round(studentized_range(values), 2) for values in (2, 3, 10)]
        [1.96, 2.34, 3.16]
        >>> round(studentized_range(2, 2), 2) == round(t_quantile(2), 2)
        True
    """
    from scipy import stats

    return float(stats.studentized_range.ppf(LEVEL, values, freedom)) / math.sqrt(2)


def t_quantile(freedom: float) -> float:
    """Two-sided Student t quantile: the standard errors on either side of a mean in its interval.

    Args:
        freedom: Degrees of freedom, above 0; a fraction may occur.

    Example:
        >>> [round(t_quantile(freedom), 3) for freedom in (1, 2, 1e9)]
        [12.706, 4.303, 1.96]
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def seeds_interval(mean: float, std: float, n: int) -> Ends:
    """Student's interval of a mean; of differences between partners it is the paired t-interval.

    Args:
        mean: Mean of the numbers.
        std: Their sample standard deviation.
        n: Number of them, at least two.

    Example:
        >>> [round(end, 4) for end in seeds_interval(0.03, 0.01, 3)]
        [0.0052, 0.0548]
    """
    half = t_quantile(n - 1) * std / n**0.5
    return mean - half, mean + half


def welch_interval(first: Sequence[float], second: Sequence[float]) -> Ends | None:
    """Interval of the difference of two means without partners; None where a side has no deviation of its own.

    Welch, The generalization of Student's problem when several different population variances are involved,
    Biometrika 34, 1947.

    Args:
        first: Numbers of one side, at least two.
        second: Numbers of the other.

    Example:
        >>> [round(end, 3) for end in welch_interval([2.0, 4.0], [1.0, 1.0])]
        [-10.706, 14.706]
        >>> welch_interval([2.0, 4.0], [1.0]) is None
        True
    """
    if min(len(first), len(second)) < 2:
        return None
    errors = [variance(side) / len(side) for side in (first, second)]
    weights = [error**2 / (len(side) - 1) for error, side in zip(errors, (first, second), strict=True)]
    half = t_quantile(sum(errors) ** 2 / sum(weights)) * sum(errors) ** 0.5 if sum(weights) > 0 else 0.0
    mean = fmean(first) - fmean(second)
    return mean - half, mean + half


def images_interval(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    classes: npt.ArrayLike | None = None,
    *,
    cluster: IntArray | None = None,
    prior: npt.ArrayLike | None = None,
) -> Ends | None:
    """Interval of the difference between the shares that two models have right, both given the same images.

    What counts is by how much the two differ on each image. Of several seeds that is the difference of the shares of
    seeds that are right, ``d_i = mean_s a_is - mean_s b_is``: more seeds bring no more images, but the chance in each
    is averaged. A mean over classes is the mean of their differences, each class with the variance of its own
    images. As in :func:`longtail.evaluation.intervals.mean_intervals` the first two moments of ``d`` in a class are
    drawn towards those of all by the weight of one image, else a class of one image would not vary. The variance gives
    the number of pairs of one single share that the mean is worth, and the interval is the adjusted one of that number:
    Agresti and Min, Simple improved confidence intervals for comparing matched proportions, Statistics in Medicine 24,
    2005, which is this in terms of moments where ``d`` is -1, 0 or 1, as with one seed. It speaks of these models on
    other images and knows nothing of other seeds.

    Args:
        first: Whether the first model is right, shape (N,), or (S, N) for S seeds, which are averaged.
        second: The same for the second model on the same images; the number of seeds may differ.
        classes: Class of each image, shape (N,), for a mean over classes; one mean over all images when not given.
        cluster: Number of the cluster of each image, shape (N,), if images form clusters; they then count by the
            effective sample size of their differences, see :func:`longtail.evaluation.intervals.class_sample_sizes`.
        prior: Weight of each class in the mean over classes, in the order of their numbers, one for every class that
            has images; all the same when not given.

    Returns:
        Low and high end of first minus second; None without images.

    Example:
        >>> first, second = [True] * 30 + [False] * 70, [False] * 20 + [True] * 10 + [False] * 70
        >>> [round(end, 3) for end in images_interval(first, second)]
        [0.116, 0.276]
        >>> other = [False] * 20 + [True] * 30 + [False] * 50  # another seed, as good on other images
        >>> [round(end, 3) for end in images_interval([first, other], [second, second])]
        [0.145, 0.247]
    """
    gain = _over_seeds(first) - _over_seeds(second)
    if not gain.size:
        return None
    where = np.zeros(gain.size, dtype=np.int64) if classes is None else np.unique(classes, return_inverse=True)[1]
    images: FloatArray = np.bincount(where).astype(np.float64)
    mean, square = (np.bincount(where, weights=part) / images for part in (gain, gain**2))
    sizes = images if cluster is None else class_sample_sizes(where, gain, cluster)
    share = np.ones(len(images)) if prior is None else np.asarray(prior, dtype=np.float64)
    share = share / share.sum()
    total = float(sizes.sum())
    toward = mean.mean() * total / (total + 2), (square.mean() * total + 1) / (total + 2)
    drawn = [(part * sizes + aim) / (sizes + 1) for part, aim in zip((mean, square), toward, strict=True)]
    variances = (drawn[1] - drawn[0] ** 2) / sizes / (1 - sizes / (sizes + 1) ** 2)
    measured, first_moment, second_moment = (float(share @ part) for part in (mean, *drawn))
    # The effective number of pairs of a mean of this variance, and the adjusted interval of that number.
    pairs = (second_moment - first_moment**2) / float(share**2 @ variances)
    middle, square_mean = first_moment * pairs / (pairs + 2), (second_moment * pairs + 1) / (pairs + 2)
    half = Z * ((square_mean - middle**2) / (pairs + 2)) ** 0.5
    low, high = max(middle - half, -1.0), min(middle + half, 1.0)
    return min(low, measured), max(high, measured)


def matched_gain(
    label: IntArray, first: npt.ArrayLike, second: npt.ArrayLike, *, balanced: bool, cluster: IntArray | None = None
) -> tuple[float, Ends] | None:
    """The gain in accuracy of one model over another on the same images, with its interval over images.

    Args:
        label: True class of each image, shape (N,).
        first: Whether the first model is right, shape (N,), or (S, N) for S seeds.
        second: The same for the second model.
        balanced: Weight every class the same, instead of every image.
        cluster: Number of the cluster of each image, as for :func:`images_interval`.

    Returns:
        None without images.

    Example:
        >>> gain, _ = matched_gain(np.array([0, 0, 0, 1]), [True] * 4, [True, True, True, False], balanced=True)
        >>> gain
        0.5
    """
    gain, images = _over_seeds(first) - _over_seeds(second), np.bincount(label)
    tested = images > 0
    # With as many images of each class the two accuracies are one figure, which gets one interval.
    alike = np.unique(images[tested]).size == 1
    interval = images_interval(first, second, label if alike or balanced else None, cluster=cluster)
    if interval is None:
        return None
    by_class = np.bincount(label, weights=gain)[tested] / images[tested]
    return float(by_class.mean() if balanced else gain.mean()), interval


def _over_seeds(right: npt.ArrayLike) -> FloatArray:
    """Return the share of seeds that classify each image correctly, shape (N,)."""
    shares = np.asarray(right, dtype=np.float64)
    return np.asarray(shares.mean(axis=0)) if shares.ndim == 2 else shares


def paired_means_interval(
    first: npt.ArrayLike,
    counts_first: npt.ArrayLike,
    second: npt.ArrayLike,
    counts_second: npt.ArrayLike,
    *,
    most: float = math.inf,
    cluster: IntArray | None = None,
) -> Ends | None:
    """Interval of the difference of two means over parts of the same images, as of a share of each model's errors.

    Each mean is ``sum(x) / sum(w)``, to which an image contributes ``(x - mean) w / sum(w)``; equal contributions to
    both cancel (the delta method, on matched images). Contributions are averaged over seeds and added up over the
    images of a cluster. Half an image's (or cluster's) weight is added on each side, as by Agresti and Min, since a few
    images that are all alike would not vary.

    Args:
        first: A number of each image under the first model, shape (N,), or (S, N) for S seeds; in [0, 1] for a share.
        counts_first: Whether the image counts for it, the same shape.
        second: The same under the second model.
        counts_second: The same.
        most: The largest possible difference, 1 for shares.
        cluster: Number of the cluster of each image, shape (N,), where images form clusters.

    Returns:
        Low and high end of first minus second; None where one counts fewer than two images or clusters.

    Example:
        >>> wrong, other = [True] * 40, [True] * 20 + [False] * 20
        >>> interval = paired_means_interval([1.0] * 40, wrong, [0.0] * 10 + [1.0] * 30, other)
        >>> [round(end, 2) for end in interval]
        [0.25, 0.75]
    """
    units, means, contributions = [], [], []
    for value, weight in ((first, counts_first), (second, counts_second)):
        number, counted = (np.atleast_2d(np.asarray(part, dtype=np.float64)) for part in (value, weight))
        units.append(_independent_units(counted, cluster))
        if units[-1].min() < 2:
            return None
        images = counted.sum(axis=1)
        mean = (number * counted).sum(axis=1) / images
        means.append(float(mean.mean()))
        contributions.append(((number - mean[:, None]) * counted / images[:, None]).mean(axis=0))
    difference = contributions[0] - contributions[1]
    if cluster is not None:
        difference = np.bincount(cluster, weights=difference)
    variance_of_means = float((difference**2).sum()) + sum(float((0.5 / (each + 2) ** 2).mean()) for each in units)
    half = t_quantile(float(min(each.min() for each in units)) - 1) * variance_of_means**0.5
    return max(means[0] - means[1] - half, -most), min(means[0] - means[1] + half, most)


def _independent_units(counted: FloatArray, cluster: IntArray | None) -> FloatArray:
    """Count the images, or clusters, of each seed that enter its mean, shape (S,)."""
    if cluster is None:
        return np.asarray(counted.sum(axis=1))
    return np.array([float(np.unique(cluster[row > 0]).size) for row in counted])


def unpaired_interval(first: float, first_ends: Sequence[float], second: float, second_ends: Sequence[float]) -> Ends:
    """Interval of the difference of two shares from the interval of each, where the images cannot be matched.

    Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine 17, 1998,
    method 10. On the same images it is wider than need be, as two models mostly fail on the same ones.

    Args:
        first: The first share.
        first_ends: Low and high end of it.
        second: The second share.
        second_ends: Low and high end of it.

    Example:
        >>> [round(end, 2) for end in unpaired_interval(0.5, (0.4, 0.6), 0.2, (0.1, 0.4))]
        [0.08, 0.44]
    """
    mean = first - second
    low = np.hypot(first - first_ends[0], second_ends[1] - second)
    high = np.hypot(first_ends[1] - first, second - second_ends[0])
    return float(mean - low), float(mean + high)
