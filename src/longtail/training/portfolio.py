"""A portfolio of classifiers on stored features: tried in cross-validation on the training images, the best chosen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from longtail.config.auto import feature_schedule
from longtail.config.options import Metric
from longtail.counts import ClassCounts, IntArray
from longtail.data.splits import fold_numbers
from longtail.device import seeded
from longtail.errors import LongtailError
from longtail.evaluation.metrics import Groups
from longtail.losses import build_loss
from longtail.models.heads import standardization
from longtail.run.portfolio import CandidateResult, Portfolio
from longtail.training.candidates import RETRAINING, Candidate, candidates
from longtail.training.judgment import ONE_ERROR, HeldOut, Judgment, bootstrap_draws, compare
from longtail.training.parallel_heads import HeadPlan, Weights, train_heads

_SMALL: Final = 1_000  # images; with fewer, one fold says too little to drop a candidate by it
_FOLDS: Final = (5, 3)  # of fewer images and of more: a rare class loses a fifth of its images rather than a third
_PER_CLASS: Final = 6  # images of two classes at least
_FINALISTS: Final = 8
_FEWEST_ROWS: Final = 30
_QUICK: Final = ("logit-adjustment", "kps")  # candidates that features are judged by
LONGEST_CHOICE: Final = 1800.0
"""Seconds; a choice that takes longer is not made where no time limit says how long it may take."""


def seconds_to_choose(images: int, features: int, classes: int, head: str = "auto") -> float:
    """Estimate the seconds of a choice on two cores: a step takes as long as the weights of all candidates are many.

    Measured: 11 s for 2,547 x 1,280 features of 23 classes, and 59 s for 25,000 x 1,280 of 121. On one core 62 s for
    464 x 1,280 of 33 classes, which all candidates see in five folds.

    Example:
        >>> [round(seconds_to_choose(images, 1280, 33)) for images in (464, 2_500, 25_000)]
        [68, 17, 16]
    """
    epochs, batch_size = feature_schedule(images)
    tried = len(candidates(features, images, head))
    whole = tried * number_of_folds(images) if images < _SMALL else tried / 2 + _FINALISTS * number_of_folds(images)
    return 2.6e-8 * whole * epochs * -(-images // batch_size) * features * classes


def steps_to_choose(images: int, epochs: int, batch_size: int, head: str = "auto") -> int:
    """Count the steps of a choice, those of second stages included: how often ``tick`` is called at most.

    Example:
        >>> steps_to_choose(640, epochs=8, batch_size=64), steps_to_choose(6400, epochs=8, batch_size=64)
        (180, 2700)
    """
    lengths = (epochs,) if images < _SMALL else (max(1, epochs // 2), epochs)
    kinds = 2 if head == "auto" else 1  # linear and cosine classifiers train one after the other
    return -(-images // batch_size) * sum(kinds * length + max(1, length // RETRAINING) for length in lengths)


def number_of_folds(images: int) -> int:
    """Return the number of folds of the cross-validation: five below 1,000 images, else three.

    Example:
        >>> number_of_folds(999), number_of_folds(1_000)
        (5, 3)
    """
    return _FOLDS[images >= _SMALL]


def can_choose(labels: IntArray, counts: ClassCounts, units: IntArray | None = None, seed: int = 0) -> bool:
    """Whether enough can be held out: there are 30 images, two classes have six, and units fill the folds.

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
    if sizes.sum() < _FEWEST_ROWS or (sizes >= _PER_CLASS).sum() < 2:
        return None
    folds = number_of_folds(len(labels))
    try:
        numbers = fold_numbers(labels, folds, seed=seed, units=units, num_classes=counts.num_classes)
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
    within: float = math.inf,
    tick: Callable[[], object] = lambda: None,
) -> Portfolio:
    """Try all candidates in stratified cross-validation on the training images, and choose one.

    Successive halving: on the first fold all train for half of the epochs, and the best eight go on to all three folds.
    Below 1,000 images one fold says too little: all are tried on all of five. Each is judged by its answers to images
    that were held out, with the weakest logit adjustment that is as good as the best there. Among those within a
    standard error of the best, the simplest is chosen [3].

    References:
        [1] Jamieson, Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, AISTATS 2016.
        [2] Rubin, The Bayesian bootstrap, Annals of Statistics 9(1), 1981: the uncertainty of the figures.
        [3] Breiman, Friedman, Olshen, Stone, Classification and Regression Trees, 1984, section 3.4.3: the rule of one
            standard error, here of the difference to the best.

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
        within: Seconds; where the first round shows that these are not enough, fewer candidates go on.
        tick: Called after each step, see :func:`steps_to_choose`; may raise to leave.

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
    epochs, batch_size, folds = epochs or usual[0], batch_size or usual[1], number_of_folds(len(labels))
    trial = _Trial.on(features, labels, counts, groups, metric, batch_size, seed, units, tick)
    first = max(1, epochs // 2)
    tried = candidates(features.shape[1], len(labels), head)
    kept, early = list(range(len(tried))), list[Judged]()
    if len(labels) >= _SMALL:
        early = trial.run(tried, first, folds=1)
        spent = time.perf_counter() - begun
        each = spent * folds * epochs / (len(tried) * first)  # seconds of a finalist
        finalists = _FINALISTS if math.isinf(within) else min(max(int((within - spent) / each), 1), _FINALISTS)
        kept = sorted(sorted(kept, key=lambda number: -early[number].result.score)[:finalists])
    dropped = sorted(set(range(len(early))) - set(kept), key=lambda number: -early[number].result.score)
    final = trial.run([tried[number] for number in kept], epochs, folds)
    results, chosen = _rank(final)
    before = {(each.result.name, each.result.lr): each.result for each in early}
    if early:  # both rounds
        results = [replace(each, seconds=each.seconds + before[each.name, each.lr].seconds) for each in results]
    return Portfolio(
        metric=metric,
        folds=folds,
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
) -> Judgment:
    """Judge features by the best of a few quick classifiers on them, in cross-validation.

    Features of the same images from other networks, or of other sizes, are judged on the same folds and the same draws
    of the bootstrap, so that :func:`~longtail.training.judgment.compare` can tell small differences apart.

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
        >>> judge_features(rows, labels, ClassCounts([20] * 3), {"few": [0, 1, 2]}).score
        1.0
    """
    epochs, batch_size = feature_schedule(len(labels))
    trial = _Trial.on(features, labels, counts, groups, metric, batch_size, seed, units, stop)
    quick = [each for each in candidates(features.shape[1], len(labels)) if each.name in _QUICK]
    judged = trial.run(quick, max(1, epochs // 2), number_of_folds(len(labels)))
    return max((each.judgment for each in judged), key=lambda judgment: judgment.score)


def judge_candidate(
    candidate: Candidate,
    features: Tensor,
    labels: Tensor,
    counts: ClassCounts,
    groups: Groups,
    held_out: IntArray,
    *,
    epochs: int,
    batch_size: int,
    metric: Metric = "balanced",
    units: IntArray | None = None,
    seed: int = 0,
    stop: Callable[[], object] = lambda: None,
) -> Judgment:
    """Train a classifier without some images, and judge its answers to these.

    Args:
        candidate: The classifier.
        features: float32 (N, D), of all training images.
        labels: int64 (N,).
        counts: Training images per class.
        groups: Class indices of the shot groups.
        held_out: Rows that are judged, rising.
        epochs: Epochs of its first stage.
        batch_size: Images per step.
        metric: What to judge by, see :func:`choose_classifier`.
        units: Numbers of the images that are drawn together by the bootstrap, shape (N,); None if each image is one.
        seed: Seed of order, noise and the bootstrap.
        stop: Called after each step; may raise to leave.
    """
    numbers = np.ones(len(labels), dtype=np.int64)
    numbers[held_out] = 0
    trial = _Trial.on(features, labels, counts, groups, metric, batch_size, seed, units, stop, numbers)
    return trial.run([candidate], epochs, folds=1)[0].judgment


@dataclass(frozen=True)
class Judged:
    """A candidate with its figures on held-out images, and what these follow from."""

    result: CandidateResult
    judgment: Judgment


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
        numbers: IntArray | None = None,
    ) -> _Trial:
        """Standardize features and, unless the fold of each is given, divide them into folds."""
        numbers = _folds(labels.numpy(), counts, units, seed) if numbers is None else numbers
        if numbers is None:
            raise LongtailError(
                f"there are too few images to choose a classifier by cross-validation: name a loss, or add images "
                f"until two classes have {_PER_CLASS}."
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
        masks = torch.from_numpy(np.stack([self.numbers != fold for fold in range(folds)]))
        weights: dict[int, Weights] = {}
        seconds = np.zeros(len(tried))

        def train(plans: Mapping[int, HeadPlan], **options: Any) -> None:
            """Train plans of one shape together, each under the number of its candidate."""
            begun = time.perf_counter()
            trained = train_heads(
                list(plans.values()),
                features=self.features,
                labels=self.labels,
                counts=self.counts,
                batch_size=self.batch_size,
                seed=self.seed,
                folds=masks,
                tick=self.stop,
                **options,
            )
            weights.update(zip(plans, trained, strict=True))
            seconds[list(plans)] += (time.perf_counter() - begun) / len(plans)

        for head in sorted({each.plan.head for each in tried}):
            train({number: each.plan for number, each in enumerate(tried) if each.plan.head == head}, epochs=epochs)
        second = {number: each.retraining for number, each in enumerate(tried) if each.retraining is not None}
        if second:
            rebalanced = 1 / torch.from_numpy(self.counts.at_least_one).float()[self.labels]
            start = [weights[number] for number in second]
            train(second, epochs=max(1, epochs // RETRAINING), row_weights=rebalanced, start=start)
        held = [np.flatnonzero(self.numbers == fold) for fold in range(folds)]
        rows = np.concatenate(held)
        draws = bootstrap_draws(rows, self.units, self.seed)
        out = HeldOut(self.labels.numpy()[rows], self.counts, self.groups, self.metric, draws)
        return [self._judge(each, weights[number], held, out, seconds[number]) for number, each in enumerate(tried)]

    def _judge(
        self, candidate: Candidate, weights: Weights, held: Sequence[IntArray], out: HeldOut, seconds: float
    ) -> Judged:
        """Judge what a candidate answers to the images that each fold holds out.

        Args:
            candidate: What was trained.
            weights: Its weights on each fold.
            held: The rows that each fold holds out.
            out: The same of all folds.
            seconds: Its share of the time of what was trained together.
        """
        last = candidate.retraining or candidate.plan
        scale = build_loss(last.loss, self.counts, last.options).logit_scale
        judgment = out.judge(
            torch.cat([scale * weights.logits(fold, self.features[part]) for fold, part in enumerate(held)])
        )
        plan, figures = candidate.plan, judgment.figures
        result = CandidateResult(
            name=candidate.name,
            loss=plan.loss,
            head="cosine" if plan.head == "cosine" else "linear",
            options=dict(plan.options),
            lr=plan.lr,
            weight_decay=plan.weight_decay,
            retrained=candidate.retraining is not None,
            tau=judgment.tau,
            folds=len(held),
            score=judgment.score,
            interval=judgment.interval(self.metric),
            accuracy=float(figures["accuracy"]),
            accuracy_interval=judgment.interval("accuracy"),
            balanced_accuracy=float(figures["balanced"]),
            balanced_interval=judgment.interval("balanced"),
            groups={name: float(figures[name]) for name in self.groups if not np.isnan(figures[name])},
            adjustments=tuple(
                (tau, float(each["accuracy"]), float(each["balanced"])) for tau, each in judgment.values.items()
            ),
            seconds=float(seconds),
        )
        return Judged(result, judgment)


def _rank(final: Sequence[Judged]) -> tuple[list[CandidateResult], int]:
    """Return the finalists, the best first, and the position of the one to take; the simpler ones are given first."""
    behind, chosen = compare([each.judgment for each in final], within=ONE_ERROR)
    results = [
        replace(each.result, behind=gap, behind_error=error) for each, (gap, error) in zip(final, behind, strict=True)
    ]
    ordered = sorted(results, key=lambda result: -result.score)
    return ordered, ordered.index(results[chosen])
