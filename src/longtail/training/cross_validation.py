"""Cross-validation of classifiers on stored features: the folds, and what classifiers answer to images held out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from longtail.config.options import Metric
from longtail.counts import ClassCounts, IntArray
from longtail.data.splits import fold_numbers
from longtail.device import seeded
from longtail.errors import LongtailError
from longtail.evaluation.metrics import Groups
from longtail.losses import build_loss
from longtail.models.heads import standardization
from longtail.run.portfolio import CandidateResult
from longtail.training.candidates import FEW_FEATURES, RETRAINING, Candidate
from longtail.training.judgment import HeldOut, Judgment, bootstrap_draws
from longtail.training.parallel_heads import HeadPlan, Weights, train_heads

SMALL: Final = 1_000
"""Images; with fewer, one fold says too little to drop a candidate by it."""
_FOLDS: Final = (5, 3)  # of fewer images and of more: a rare class loses a fifth of its images rather than a third
_REPEATS: Final = 3  # where few images have few features
_PER_CLASS: Final = 6  # images of two classes at least
_FEWEST_ROWS: Final = 30


def number_of_folds(images: int) -> int:
    """Return the number of folds of the cross-validation: five below 1,000 images, else three.

    Example:
        >>> number_of_folds(999), number_of_folds(1_000)
        (5, 3)
    """
    return _FOLDS[images >= SMALL]


def number_of_repeats(features: int, images: int) -> int:
    """Return how many times rows are divided into folds: more than once where luck matters and it takes seconds."""
    return _REPEATS if images < SMALL and features <= FEW_FEATURES else 1


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
    return _folds(labels, counts, units, [seed]) is not None


def _folds(labels: IntArray, counts: ClassCounts, units: IntArray | None, seeds: Sequence[int]) -> IntArray | None:
    """Return the fold of each row, (R, N), see :func:`fold_numbers`; None if too little can be held out."""
    sizes = counts.array
    if sizes.sum() < _FEWEST_ROWS or (sizes >= _PER_CLASS).sum() < 2:
        return None
    folds = number_of_folds(len(labels))
    try:
        numbers = np.stack(
            [fold_numbers(labels, folds, seed=seed, units=units, num_classes=counts.num_classes) for seed in seeds]
        )
    except LongtailError:  # fewer units than folds
        return None
    return numbers if len(np.unique(labels[numbers[0] >= 0])) >= 2 else None


@dataclass(frozen=True)
class Judged:
    """A candidate with its figures on held-out images, and what these follow from."""

    result: CandidateResult
    judgment: Judgment


@dataclass(frozen=True)
class Samples:
    """The labeled features that classifiers are tried on.

    Attributes:
        features: float32 (N, D).
        labels: int64 (N,).
        counts: Images per class.
        groups: Class indices of the shot groups.
        metric: What to judge by: ``balanced`` accuracy, ``accuracy``, ``macro-f1``, or the mean recall of the
            ``worst-group``.
        units: Numbers of the images that stay together in one fold and in the bootstrap, shape (N,); None if each image
            is one.
        seed: Seed of folds, order, noise and the bootstrap.
    """

    features: Tensor
    labels: Tensor
    counts: ClassCounts
    groups: Groups
    metric: Metric = "balanced"
    units: IntArray | None = None
    seed: int = 0

    def divided(self, repeats: int = 1) -> IntArray:
        """Divide the images into folds, and return the fold of each, shape (``repeats``, N).

        Raises:
            LongtailError: There are too few images, see :func:`can_choose`.
        """
        seeds = [self.seed + 1_000 * repeat for repeat in range(repeats)]
        numbers = _folds(self.labels.numpy(), self.counts, self.units, seeds)
        if numbers is None:
            raise LongtailError(
                f"there are too few images to choose a classifier by cross-validation: name a loss, or add images "
                f"until two classes have {_PER_CLASS}."
            )
        return numbers

    def standardized(self) -> Samples:
        """Return them with features of mean 0 and deviation 1.

        Raises:
            LongtailError: A feature is not finite.
        """
        if not self.features.isfinite().all():
            raise LongtailError("some features are not finite numbers: look at the images that they come from.")
        mean, deviation = standardization(self.features)
        return replace(self, features=(self.features - mean) / deviation)


@dataclass(frozen=True)
class Trial:
    """What candidates are tried on.

    Attributes:
        samples: Standardized.
        numbers: The fold of each image, shape (R, N) for R repeats; -1 for images in no fold.
        batch_size: Images per step.
        stop: Called after each step; may raise to leave.
    """

    samples: Samples
    numbers: IntArray
    batch_size: int
    stop: Callable[[], object]

    def run(self, tried: Sequence[Candidate], epochs: int, folds: int) -> list[Judged]:
        """Train candidates on the first folds of each repeat, and judge each on what these hold out."""
        with seeded(self.samples.features.device, self.samples.seed):
            return self._run(tried, epochs, folds)

    def _run(self, tried: Sequence[Candidate], epochs: int, folds: int) -> list[Judged]:
        samples = self.samples
        held_out = np.stack([row == fold for row in self.numbers for fold in range(folds)])
        masks = torch.from_numpy(~held_out)
        weights: dict[int, Weights] = {}
        seconds = np.zeros(len(tried))

        def train(plans: Mapping[int, HeadPlan], **options: Any) -> None:
            """Train plans of one shape together, each under the number of its candidate."""
            begun = time.perf_counter()
            trained = train_heads(
                list(plans.values()),
                features=samples.features,
                labels=samples.labels,
                counts=samples.counts,
                batch_size=self.batch_size,
                seed=samples.seed,
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
            rebalanced = 1 / torch.from_numpy(samples.counts.at_least_one).float()[samples.labels]
            start = [weights[number] for number in second]
            train(second, epochs=max(1, epochs // RETRAINING), row_weights=rebalanced, start=start)
        held = [np.flatnonzero(rows) for rows in held_out]
        rows = np.concatenate(held)
        draws = bootstrap_draws(rows, samples.units, samples.seed)
        out = HeldOut(samples.labels.numpy()[rows], samples.counts, samples.groups, samples.metric, draws)
        return [
            self._judge(each, weights[number], held, out, folds, seconds[number]) for number, each in enumerate(tried)
        ]

    def _judge(
        self, candidate: Candidate, weights: Weights, held: Sequence[IntArray], out: HeldOut, folds: int, seconds: float
    ) -> Judged:
        """Judge what a candidate answers to the images that each fold holds out.

        Args:
            candidate: What was trained.
            weights: Its weights on each fold.
            held: The rows that each fold holds out.
            out: The same of all folds.
            folds: Folds of each repeat.
            seconds: Its share of the time of what was trained together.
        """
        last, samples = candidate.retraining or candidate.plan, self.samples
        scale = build_loss(last.loss, samples.counts, last.options).logit_scale
        judgment = out.judge(
            torch.cat([scale * weights.logits(fold, samples.features[part]) for fold, part in enumerate(held)])
        )
        plan, figures = candidate.plan, judgment.figures
        result = CandidateResult(
            name=candidate.name,
            loss=plan.loss,
            head=plan.head,
            options=dict(plan.options),
            lr=plan.lr,
            weight_decay=plan.weight_decay,
            optimizer=plan.optimizer,
            retrained=candidate.retraining is not None,
            tau=judgment.tau,
            folds=folds,
            score=judgment.score,
            interval=judgment.interval(samples.metric),
            accuracy=float(figures["accuracy"]),
            accuracy_interval=judgment.interval("accuracy"),
            balanced_accuracy=float(figures["balanced"]),
            balanced_interval=judgment.interval("balanced"),
            groups={name: float(figures[name]) for name in samples.groups if not np.isnan(figures[name])},
            adjustments=tuple(
                (tau, float(each["accuracy"]), float(each["balanced"])) for tau, each in judgment.values.items()
            ),
            seconds=float(seconds),
        )
        return Judged(result, judgment)
