"""Judgment of answers to images that were held out: metrics under the best logit adjustment, and their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtail.config.options import Metric
from longtail.counts import ClassCounts, FloatArray, IntArray
from longtail.evaluation.metrics import Groups

TAUS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Strengths of logit adjustment after training; the best is found on images that were held out."""
ONE_ERROR: Final = 1.0
"""Standard errors by which a simpler choice may be behind the best [1].

[1] Breiman, Friedman, Olshen, Stone, Classification and Regression Trees, 1984, section 3.4.3.
"""
_REPLICATES: Final = 200  # of the bootstrap


@dataclass(frozen=True)
class HeldOut:
    """Images that were held out, and what answers to them are judged by.

    The Bayesian bootstrap [1] gives each unit a random weight: answers of two classifiers to the same images are
    compared under the same weights.

    References:
        [1] Rubin, The Bayesian bootstrap, Annals of Statistics 9(1), 1981.

    Attributes:
        truth: Class indices, shape (M,).
        counts: Training images per class.
        groups: Class indices of the shot groups.
        metric: What the adjustment is best for.
        draws: Weights (R, M) of the images in each replicate of the bootstrap.
    """

    truth: IntArray
    counts: ClassCounts
    groups: Groups
    metric: Metric
    draws: FloatArray

    def judge(self, logits: Tensor, taus: Sequence[float] = TAUS) -> Judgment:
        """Judge answers under the adjustment that is best for the metric.

        The weakest of the adjustments within a standard error of the best is taken: each moves answers from common to
        rare classes, and costs accuracy.

        Args:
            logits: Shape (M, C), scaled as before softmax.
            taus: Strengths of the adjustment, rising.
        """
        log_prior = torch.from_numpy(np.log(self.counts.prior)).float()
        answers = {tau: (logits - tau * log_prior).argmax(dim=1).numpy() for tau in taus}
        values = {tau: self.figures(answer) for tau, answer in answers.items()}
        best = max(taus, key=lambda strength: (round(float(values[strength][self.metric]), 9), -strength))
        judgments = [
            Judgment(tau, values, self.figures(answers[tau], self.draws), self.metric)
            for tau in taus[: taus.index(best) + 1]
        ]
        _, chosen = compare(judgments, within=ONE_ERROR)
        return judgments[chosen]

    def figures(self, answers: IntArray, weights: FloatArray | None = None) -> dict[str, Any]:
        """Return the metrics and the mean recall of each shot group: a value, or one for each row of weights (R, M)."""
        size, truth = self.counts.num_classes, self.truth
        draws = np.ones((1, len(truth))) if weights is None else weights

        def sums(classes: IntArray, values: npt.NDArray[np.float64]) -> FloatArray:
            return np.stack([np.bincount(classes, row, minlength=size) for row in values])

        right = sums(truth, draws * (truth == answers))
        total, predicted = sums(truth, draws), sums(answers, draws)
        with np.errstate(invalid="ignore"):
            recall, f1 = right / total, 2 * right / (total + predicted)
        tested = np.bincount(truth, minlength=size) > 0
        means: dict[str, Any] = {
            name: recall[:, members].mean(axis=1) if len(members) else np.full(len(draws), np.nan)
            for name, classes in self.groups.items()
            for members in [[index for index in classes if tested[index]]]
        }
        values: dict[str, Any] = {
            "accuracy": right.sum(axis=1) / total.sum(axis=1),
            "balanced": recall[:, tested].mean(axis=1),
            "macro-f1": f1[:, tested].mean(axis=1),
            "worst-group": np.nanmin(np.stack(list(means.values())), axis=0),
        } | means
        return values if weights is not None else {name: value[0] for name, value in values.items()}


@dataclass(frozen=True)
class Judgment:
    """The figures of answers to held-out images.

    Attributes:
        tau: The strength of logit adjustment that is taken: the weakest that is as good as the best for the metric.
        values: Figures by name, under each strength.
        replicates: Figures by name in each replicate of the bootstrap, (R,), under that strength.
        metric: What was judged by.
    """

    tau: float
    values: dict[float, dict[str, Any]]
    replicates: dict[str, Any]
    metric: Metric

    @property
    def figures(self) -> dict[str, Any]:
        """Figures by name under the strength that is taken."""
        return self.values[self.tau]

    @property
    def score(self) -> float:
        """The metric under the strength that is taken."""
        return float(self.figures[self.metric])

    def interval(self, name: str) -> tuple[float, float]:
        """The 95% interval of a figure."""
        low, high = np.quantile(self.replicates[name], (0.025, 0.975))
        return float(low), float(high)


def bootstrap_draws(rows: IntArray, units: IntArray | None, seed: int) -> FloatArray:
    """Return weights (R, M) of rows for the bootstrap, those of a unit alike.

    Args:
        rows: Numbers of the images, shape (M,).
        units: Numbers of the units of all images, shape (N,); None if each image is one.
        seed: Seed of the weights.

    Example:
        >>> draws = bootstrap_draws(np.arange(3), np.array([7, 7, 9]), seed=0)
        >>> draws.shape, bool((draws[:, 0] == draws[:, 1]).all())
        ((200, 3), True)
    """
    _, unit = np.unique(rows if units is None else units[rows], return_inverse=True)
    drawn = np.random.default_rng(seed).exponential(size=(_REPLICATES, int(unit.max()) + 1))
    return np.asarray(drawn[:, unit])


def compare(judgments: Sequence[Judgment], within: float = 0.25) -> tuple[list[tuple[float, float]], int]:
    """Compare answers that were judged on the same draws.

    Args:
        judgments: Those of the simpler or cheaper candidates first.
        within: Standard errors of the difference: a candidate that is behind the best by no more is as good.

    Returns:
        How far each is behind the best with the standard error of that difference, and the position of the one to
        take: the first of those as good as the best.
    """
    metric = judgments[0].metric
    best = max(judgments, key=lambda each: each.score)
    behind = [
        (best.score - each.score, float(np.std(best.replicates[metric] - each.replicates[metric])))
        for each in judgments
    ]
    return behind, next(place for place, (gap, error) in enumerate(behind) if gap <= within * error)
