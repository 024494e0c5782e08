"""A portfolio of classifiers on stored features: tried in cross-validation on the training images, the best chosen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal

import numpy as np

from longtail.config.auto import feature_schedule
from longtail.counts import IntArray
from longtail.run.portfolio import CandidateResult, Portfolio
from longtail.training.candidates import RETRAINING, Candidate, candidates, usual_schedule
from longtail.training.cross_validation import SMALL, Judged, Samples, Trial, number_of_folds, number_of_repeats
from longtail.training.judgment import ONE_ERROR, Judgment, compare

_FINALISTS: Final = 8
_QUICK: Final = ("logit-adjustment", "kps")  # candidates that features are judged by
LONGEST_CHOICE: Final = 1800.0
"""Seconds; a choice that takes longer is not made where no time limit says how long it may take."""


def seconds_to_choose(
    images: int,
    features: int,
    classes: int,
    head: str = "auto",
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
) -> float:
    """Estimate the seconds of a choice on two cores: a step takes as long as the weights of all candidates are many.

    The logits and the steps themselves count where features are few.

    Measured: 11 s for 2,547 x 1,280 features of 23 classes, and 59 s for 25,000 x 1,280 of 121. On one core 62 s for
    464 x 1,280 of 33 classes, which all candidates see in five folds.

    Args:
        images: Training images.
        features: Feature size.
        classes: Number of classes.
        head: The kind of classifier to choose from; any where ``auto``.
        epochs: Of each candidate, see :func:`choose_classifier`.
        batch_size: Images per step, of the same.

    Example:
        >>> [round(seconds_to_choose(images, 1280, 33)) for images in (464, 2_500, 25_000)]
        [78, 24, 23]
    """
    epochs, batch_size = usual_schedule(features, images, epochs, batch_size)
    tried = len(candidates(features, images, head))
    folds = number_of_folds(images)
    whole = tried * folds * number_of_repeats(features, images) if images < SMALL else tried / 2 + _FINALISTS * folds
    steps = steps_to_choose(images, epochs, batch_size, head)
    return _seconds_of_training(whole * epochs * -(-images // batch_size), features, classes) + 0.004 * steps


def seconds_to_judge(images: int, features: int, classes: int) -> float:
    """Estimate the seconds of :func:`judge_features` on the machine of :func:`seconds_to_choose`.

    Example:
        >>> round(seconds_to_judge(2_000, 1280, 33)), round(seconds_to_judge(45_000, 1280, 8_142))
        (5, 1577)
    """
    epochs, batch_size = feature_schedule(images)
    steps = max(1, epochs // 2) * -(-images // batch_size)
    tried = len(_quick(features, images)) * number_of_folds(images)
    return _seconds_of_training(tried * steps, features, classes) + 2 * 0.004 * steps  # for each kind of classifier


def _seconds_of_training(steps: float, features: int, classes: int) -> float:
    """Estimate the seconds of the steps of single classifiers, which train together."""
    return 2.6e-8 * steps * (features + 128) * classes


def steps_to_choose(images: int, epochs: int, batch_size: int, head: str = "auto") -> int:
    """Count the steps of a choice, those of second stages included: how often ``tick`` is called at most.

    Example:
        >>> steps_to_choose(640, epochs=8, batch_size=64), steps_to_choose(6400, epochs=8, batch_size=64)
        (180, 2700)
    """
    lengths = (epochs,) if images < SMALL else (max(1, epochs // 2), epochs)
    kinds = 2 if head == "auto" else 1  # linear and cosine classifiers train one after the other
    return -(-images // batch_size) * sum(kinds * length + max(1, length // RETRAINING) for length in lengths)


def choose_classifier(
    samples: Samples,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    head: Literal["auto", "linear", "cosine"] = "auto",
    within: float = math.inf,
    tick: Callable[[], object] = lambda: None,
) -> Portfolio:
    """Try all candidates in stratified cross-validation on the training images, and choose one.

    Successive halving: on the first fold all train for half of the epochs, and the best eight go on to all three folds.
    Below 1,000 images one fold says too little: all are tried on all five folds, and with at most 256 features on three
    divisions into five. Each is judged by its answers to images that were held out, with the weakest logit adjustment
    that is as good as the best there. Among those within a standard error of the best, the simplest is chosen [3].

    References:
        [1] Jamieson, Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, AISTATS 2016.
        [2] Rubin, The Bayesian bootstrap, Annals of Statistics 9(1), 1981: the uncertainty of the figures.
        [3] Breiman, Friedman, Olshen, Stone, Classification and Regression Trees, 1984, section 3.4.3: the rule of one
            standard error, here of the difference to the best.

    Args:
        samples: Features of the training images.
        epochs: Epochs of each candidate; those of :func:`~longtail.training.candidates.usual_schedule` when None.
        batch_size: Images per step, of the same.
        head: The kind of classifier to choose from; any where ``auto``.
        within: Seconds; where the first round shows that these are not enough, fewer candidates go on.
        tick: Called after each step, see :func:`steps_to_choose`; may raise to leave.

    Raises:
        LongtailError: There are too few images, see :func:`~longtail.training.cross_validation.can_choose`.

    Example:
        >>> import torch
        >>> from longtail.counts import ClassCounts
        >>> labels = torch.arange(60) % 3
        >>> rows = torch.nn.functional.one_hot(labels, 5) + 0.1 * torch.randn(60, 5)
        >>> chosen = choose_classifier(Samples(rows, labels, ClassCounts([20] * 3), {"few": [0, 1, 2]}))
        >>> chosen.choice.balanced_accuracy
        1.0
    """
    begun = time.perf_counter()
    images, num_features = samples.features.shape
    epochs, batch_size = usual_schedule(num_features, images, epochs, batch_size)
    folds, repeats = number_of_folds(images), number_of_repeats(num_features, images)
    trial = Trial(samples.standardized(), samples.divided(repeats), batch_size, tick)
    first = max(1, epochs // 2)
    tried = candidates(num_features, images, head)
    kept, early = list(range(len(tried))), list[Judged]()
    if images >= SMALL:
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
        metric=samples.metric,
        folds=folds,
        repeats=repeats,
        seed=samples.seed,
        images=int((trial.numbers[0] >= 0).sum()),
        epochs=epochs,
        batch_size=batch_size,
        candidates=(*results, *(early[number].result for number in dropped)),
        first_round=tuple(before.get((each.name, each.lr), each) for each in results),
        chosen=chosen,
        seconds=round(time.perf_counter() - begun, 1),
    )


def judge_features(samples: Samples, stop: Callable[[], object] = lambda: None) -> Judgment:
    """Judge features by the best of a few quick classifiers on them, in cross-validation.

    Features of the same images from other networks, or of other sizes, are judged on the same folds and the same draws
    of the bootstrap, so that :func:`~longtail.training.judgment.compare` can tell small differences apart.

    Args:
        samples: The features.
        stop: Called after each step; may raise to leave.

    Raises:
        LongtailError: There are too few images, see :func:`~longtail.training.cross_validation.can_choose`.

    Example:
        >>> import torch
        >>> from longtail.counts import ClassCounts
        >>> labels = torch.arange(60) % 3
        >>> rows = torch.nn.functional.one_hot(labels, 5) + 0.1 * torch.randn(60, 5)
        >>> judge_features(Samples(rows, labels, ClassCounts([20] * 3), {"few": [0, 1, 2]})).score
        1.0
    """
    images, num_features = samples.features.shape
    epochs, batch_size = feature_schedule(images)
    trial = Trial(samples.standardized(), samples.divided(), batch_size, stop)
    judged = trial.run(_quick(num_features, images), max(1, epochs // 2), number_of_folds(images))
    return max((each.judgment for each in judged), key=lambda judgment: judgment.score)


def _quick(num_features: int, images: int) -> list[Candidate]:
    """Return the candidates that features are judged by."""
    return [each for each in candidates(num_features, images) if each.name in _QUICK]


def judge_candidate(
    candidate: Candidate,
    samples: Samples,
    held_out: IntArray,
    *,
    epochs: int,
    batch_size: int,
    stop: Callable[[], object] = lambda: None,
) -> Judgment:
    """Train a classifier without some images, and judge its answers to these.

    Args:
        candidate: The classifier.
        samples: Features of all training images.
        held_out: Rows that are judged, rising.
        epochs: Epochs of its first stage.
        batch_size: Images per step.
        stop: Called after each step; may raise to leave.
    """
    numbers = np.ones((1, len(samples.labels)), dtype=np.int64)
    numbers[:, held_out] = 0
    trial = Trial(samples.standardized(), numbers, batch_size, stop)
    return trial.run([candidate], epochs, folds=1)[0].judgment


def _rank(final: Sequence[Judged]) -> tuple[list[CandidateResult], int]:
    """Return the finalists, the best first, and the position of the one to take; the simpler ones are given first."""
    behind, chosen = compare([each.judgment for each in final], within=ONE_ERROR)
    results = [
        replace(each.result, behind=gap, behind_error=error) for each, (gap, error) in zip(final, behind, strict=True)
    ]
    ordered = sorted(results, key=lambda result: -result.score)
    return ordered, ordered.index(results[chosen])
