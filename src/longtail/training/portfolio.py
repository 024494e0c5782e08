"""A portfolio of classifiers on stored features: tried in cross-validation on the training images, the best chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtail.config.auto import feature_schedule
from longtail.config.schema import Metric
from longtail.counts import ClassCounts, FloatArray, IntArray
from longtail.data.splits import fold_numbers
from longtail.device import seeded
from longtail.errors import LongtailError
from longtail.evaluation.metrics import Groups
from longtail.losses import build_loss
from longtail.models.heads import standardization
from longtail.run.portfolio import CandidateResult, Portfolio
from longtail.training.candidates import RETRAINING, Candidate, candidates
from longtail.training.parallel_heads import Weights, train_heads

ROUNDS: Final = 2
FOLDS: Final = 3
TAUS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Strengths of logit adjustment after training; the best is found on images that were held out."""
_SMALL: Final = 1_000  # images; with fewer, one fold says too little to drop a candidate by it
_FINALISTS: Final = 8
_REPLICATES: Final = 200  # of the bootstrap
_FEWEST_ROWS: Final = 30
_QUICK: Final = ("logit-adjustment", "kps")  # candidates that features are judged by
LONGEST_CHOICE: Final = 1800.0
"""Seconds; a choice that takes longer is not made."""
_TIE: Final = 0.25
"""A candidate that is behind the best by less than this many standard errors of the difference is as good."""


def seconds_to_choose(images: int, features: int, classes: int) -> float:
    """Estimate the seconds of a choice on two cores, from a measured one; it grows with each of the three.

    Example:
        >>> round(seconds_to_choose(25_000, 1280, 121))
        77
    """
    return 2e-8 * images * features * classes


def can_choose(labels: IntArray, counts: ClassCounts, units: IntArray | None = None, seed: int = 0) -> bool:
    """Whether enough can be held out: there are 30 images, two classes have two per fold, and units fill the folds.

    Args:
        labels: Class indices, shape (N,).
        counts: Training images per class.
        units: Numbers of the images that stay together, shape (N,); None if each image is one.
        seed: Seed of the folds.

    Example:
        >>> labels = np.array([0] * 20 + [1] * 6 + [2] * 6)
        >>> can_choose(labels, ClassCounts([20, 6, 6])), can_choose(labels, ClassCounts([20, 6, 6]), labels)
        (True, False)
    """
    return _folds(labels, counts, units, seed) is not None


def _folds(labels: IntArray, counts: ClassCounts, units: IntArray | None, seed: int) -> IntArray | None:
    """Return the fold of each row, see :func:`fold_numbers`; None if too little can be held out."""
    sizes = counts.array
    if sizes.sum() < _FEWEST_ROWS or (sizes >= 2 * FOLDS).sum() < 2:
        return None
    try:
        numbers = fold_numbers(labels, FOLDS, seed=seed, units=units, num_classes=counts.num_classes)
    except LongtailError:  # fewer units than folds
        return None
    return numbers if len(np.unique(labels[numbers >= 0])) >= 2 else None


def choose_classifier(
    features: Tensor,
    labels: Tensor,
    counts: ClassCounts,
    groups: Groups,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    head: Literal["auto", "linear", "cosine"] = "auto",
    metric: Metric = "balanced",
    units: IntArray | None = None,
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
    stop: Callable[[], object] = lambda: None,
) -> Portfolio:
    """Try all candidates in stratified cross-validation on the training images, and choose one.

    Successive halving: on the first fold all train for half of the epochs, and the best eight go on to all three folds.
    Below 1,000 images one fold says too little, and all are tried on all. Each is judged by its answers to images that
    were held out, with the strength of logit adjustment that is best there.
    Among those that are as good as the best, the simplest is chosen.

    References:
        [1] Jamieson, Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, AISTATS 2016.
        [2] Rubin, The Bayesian bootstrap, Annals of Statistics 9(1), 1981: the uncertainty of the figures.

    Args:
        features: float32 (N, D), of the training images.
        labels: int64 (N,).
        counts: Training images per class.
        groups: Class indices of the shot groups.
        epochs: Epochs of each candidate; those of :func:`~longtail.config.auto.feature_schedule` when None.
        batch_size: Images per step, of the same.
        head: The kind of classifier to choose from; any where ``auto``.
        metric: What to compare: ``balanced`` accuracy, ``accuracy``, ``macro-f1``, or the mean recall of the
            ``worst-group``.
        units: Numbers of the images that stay together in one fold, shape (N,); None if each image is one.
        seed: Seed of folds, order and noise.
        tick: Called :data:`ROUNDS` times, after each round.
        stop: Called after each step; may raise to leave.

    Raises:
        LongtailError: There are too few images, see :func:`can_choose`.

    Example:
        >>> labels = torch.arange(60) % 3
        >>> rows = torch.nn.functional.one_hot(labels, 5) + 0.1 * torch.randn(60, 5)
        >>> chosen = choose_classifier(rows, labels, ClassCounts([20] * 3), {"few": [0, 1, 2]})
        >>> chosen.choice.balanced_accuracy
        1.0
    """
    begun = time.perf_counter()
    usual = feature_schedule(len(labels))
    epochs, batch_size = epochs or usual[0], batch_size or usual[1]
    trial = _Trial.on(features, labels, counts, groups, metric, batch_size, seed, units, stop)
    first = max(1, epochs // 2)
    tried = [each for each in candidates(features.shape[1]) if head in ("auto", each.plan.head)]
    kept, early = list(range(len(tried))), list[Judged]()
    if len(labels) >= _SMALL:
        early = trial.run(tried, first, folds=1)
        kept = sorted(sorted(kept, key=lambda number: -early[number].result.score)[:_FINALISTS])
    dropped = sorted(set(range(len(early))) - set(kept), key=lambda number: -early[number].result.score)
    tick()
    final = trial.run([tried[number] for number in kept], epochs, folds=FOLDS)
    tick()
    results, chosen = _rank(final)
    before = {(each.result.name, each.result.lr): each.result for each in early}
    return Portfolio(
        metric=metric,
        folds=FOLDS,
        seed=seed,
        images=int((trial.numbers >= 0).sum()),
        epochs=epochs,
        batch_size=batch_size,
        candidates=(*results, *(early[number].result for number in dropped)),
        first_round=tuple(before.get((each.name, each.lr), each) for each in results),
        chosen=chosen,
        seconds=round(time.perf_counter() - begun, 1),
    )


def judge_features(
    features: Tensor,
    labels: Tensor,
    counts: ClassCounts,
    groups: Groups,
    *,
    metric: Metric = "balanced",
    units: IntArray | None = None,
    seed: int = 0,
    stop: Callable[[], object] = lambda: None,
) -> Judged:
    """Judge features by the best of a few quick classifiers on them, in cross-validation.

    Features of the same images from other networks, or of other sizes, are judged on the same folds and the same draws
    of the bootstrap, so that :func:`compare` can tell small differences apart.

    Args:
        features: float32 (N, D).
        labels: int64 (N,).
        counts: Images per class.
        groups: Class indices of the shot groups.
        metric: What to judge by, see :func:`choose_classifier`.
        units: Numbers of the images that stay together in one fold, shape (N,); None if each image is one.
        seed: Seed of folds, order and noise.
        stop: Called after each step; may raise to leave.

    Raises:
        LongtailError: There are too few images, see :func:`can_choose`.

    Example:
        >>> labels = torch.arange(60) % 3
        >>> rows = torch.nn.functional.one_hot(labels, 5) + 0.1 * torch.randn(60, 5)
        >>> judge_features(rows, labels, ClassCounts([20] * 3), {"few": [0, 1, 2]}).result.score
        1.0
    """
    epochs, batch_size = feature_schedule(len(labels))
    trial = _Trial.on(features, labels, counts, groups, metric, batch_size, seed, units, stop)
    quick = [each for each in candidates(features.shape[1]) if each.name in _QUICK]
    return max(trial.run(quick, max(1, epochs // 2), FOLDS), key=lambda judged: judged.result.score)


@dataclass(frozen=True)
class Judged:
    """The figures of a candidate on held-out images.

    Attributes:
        result: Its figures.
        replicates: The metric of the choice in each replicate of the bootstrap, (R,).
    """

    result: CandidateResult
    replicates: FloatArray


@dataclass(frozen=True)
class _Trial:
    """Everything that candidates are tried on; see :func:`choose_classifier`."""

    features: Tensor
    labels: Tensor
    counts: ClassCounts
    groups: Groups
    numbers: IntArray
    metric: Metric
    batch_size: int
    seed: int
    units: IntArray | None
    stop: Callable[[], object]

    @classmethod
    def on(
        cls,
        features: Tensor,
        labels: Tensor,
        counts: ClassCounts,
        groups: Groups,
        metric: Metric,
        batch_size: int,
        seed: int,
        units: IntArray | None,
        stop: Callable[[], object],
    ) -> _Trial:
        """Standardize features and divide them into folds."""
        numbers = _folds(labels.numpy(), counts, units, seed)
        if numbers is None:
            raise LongtailError(
                f"there are too few images to choose a classifier by cross-validation: name a loss, or add images "
                f"until two classes have {2 * FOLDS}."
            )
        if not features.isfinite().all():
            raise LongtailError("some features are not finite numbers: look at the images that they come from.")
        mean, deviation = standardization(features)
        return cls(
            (features - mean) / deviation, labels, counts, groups, numbers, metric, batch_size, seed, units, stop
        )

    def run(self, tried: Sequence[Candidate], epochs: int, folds: int) -> list[Judged]:
        """Train candidates on the first folds, and judge each on what these hold out."""
        with seeded(self.features.device, self.seed):
            return self._run(tried, epochs, folds)

    def _run(self, tried: Sequence[Candidate], epochs: int, folds: int) -> list[Judged]:
        begun = time.perf_counter()
        masks = torch.from_numpy(np.stack([self.numbers != fold for fold in range(folds)]))
        train = partial(
            train_heads,
            features=self.features,
            labels=self.labels,
            counts=self.counts,
            batch_size=self.batch_size,
            seed=self.seed,
            folds=masks,
            tick=self.stop,
        )
        weights = train([each.plan for each in tried], epochs=epochs)
        second = [(number, each.retraining) for number, each in enumerate(tried) if each.retraining is not None]
        if second:
            rebalanced = 1 / torch.from_numpy(self.counts.at_least_one).float()[self.labels]
            retrained = train(
                [plan for _, plan in second],
                epochs=max(1, epochs // RETRAINING),
                row_weights=rebalanced,
                start=[weights[number] for number, _ in second],
            )
            for (number, _), changed in zip(second, retrained, strict=True):
                weights[number] = changed
        seconds = (time.perf_counter() - begun) / len(tried)
        held = [np.flatnonzero(self.numbers == fold) for fold in range(folds)]
        draws = self._draws(np.concatenate(held))
        return [self._judge(each, weights[number], held, draws, seconds) for number, each in enumerate(tried)]

    def _judge(
        self, candidate: Candidate, weights: Weights, held: Sequence[IntArray], draws: FloatArray, seconds: float
    ) -> Judged:
        """Predict what each fold holds out, under the adjustment that is best for the metric there.

        Args:
            candidate: What was trained.
            weights: Its weights on each fold.
            held: The rows that each fold holds out, M in all.
            draws: Weights (R, M) of those rows for the bootstrap, the same for all candidates.
            seconds: Its share of the time of the training.
        """
        last = candidate.retraining or candidate.plan
        scale = build_loss(last.loss, self.counts, last.options).logit_scale
        logits = torch.cat([scale * weights.logits(fold, self.features[part]) for fold, part in enumerate(held)])
        log_prior = torch.from_numpy(np.log(self.counts.prior)).float()
        answers = {tau: (logits - tau * log_prior).argmax(dim=1).numpy() for tau in TAUS}
        truth = self.labels.numpy()[np.concatenate(held)]
        figures = {tau: self.figures(truth, answer) for tau, answer in answers.items()}
        tau = max(TAUS, key=lambda strength: (round(float(figures[strength][self.metric]), 9), -strength))
        values = figures[tau]
        replicates = self.figures(truth, answers[tau], draws)
        interval = {name: _interval(replicates[name]) for name in (self.metric, "accuracy", "balanced")}
        plan = candidate.plan
        result = CandidateResult(
            name=candidate.name,
            loss=plan.loss,
            head="cosine" if plan.head == "cosine" else "linear",
            options=dict(plan.options),
            lr=plan.lr,
            weight_decay=plan.weight_decay,
            retrained=candidate.retraining is not None,
            tau=tau,
            folds=len(held),
            score=float(values[self.metric]),
            interval=interval[self.metric],
            accuracy=float(values["accuracy"]),
            accuracy_interval=interval["accuracy"],
            balanced_accuracy=float(values["balanced"]),
            balanced_interval=interval["balanced"],
            groups={name: float(values[name]) for name in self.groups if not np.isnan(values[name])},
            adjustments=tuple((t, float(each["accuracy"]), float(each["balanced"])) for t, each in figures.items()),
            seconds=round(seconds, 2),
        )
        return Judged(result, replicates[self.metric])

    def _draws(self, rows: IntArray) -> FloatArray:
        """Return weights (R, M) of the rows for the bootstrap, those of a unit alike."""
        units = rows if self.units is None else self.units[rows]
        _, unit = np.unique(units, return_inverse=True)
        drawn = np.random.default_rng(self.seed).exponential(size=(_REPLICATES, int(unit.max()) + 1))
        return np.asarray(drawn[:, unit])

    def figures(self, truth: IntArray, answers: IntArray, weights: FloatArray | None = None) -> dict[str, Any]:
        """Return the metrics and the mean recall of each shot group: a value, or one for each row of weights (R, M)."""
        size = self.counts.num_classes
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


def _interval(replicates: FloatArray) -> tuple[float, float]:
    low, high = np.quantile(replicates, (0.025, 0.975))
    return float(low), float(high)


def compare(judged: Sequence[Judged]) -> tuple[list[tuple[float, float]], int]:
    """Compare candidates that were judged on the same draws.

    Args:
        judged: The simpler or cheaper ones first.

    Returns:
        How far each is behind the best with the standard error of that difference, and the position of the one to
        take: the first of those as good as the best.
    """
    best = max(judged, key=lambda each: each.result.score)
    behind = [
        (float(best.result.score - each.result.score), float(np.std(best.replicates - each.replicates)))
        for each in judged
    ]
    return behind, next(place for place, (gap, error) in enumerate(behind) if gap <= _TIE * error)


def _rank(final: Sequence[Judged]) -> tuple[list[CandidateResult], int]:
    """Return the finalists, the best first, and the position of the one to take; the simpler ones are given first."""
    behind, chosen = compare(final)
    results = [
        replace(each.result, behind=gap, behind_error=error) for each, (gap, error) in zip(final, behind, strict=True)
    ]
    ordered = sorted(results, key=lambda result: -result.score)
    return ordered, ordered.index(results[chosen])
