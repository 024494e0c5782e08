"""The classifiers of the portfolio: what is tried on stored features, and the stages that train what was chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
import torch

from longtail.config.auto import feature_schedule
from longtail.config.options import Metric
from longtail.config.schema import RunConfig
from longtail.config.stage import LossConfig, OptimizerConfig, ScheduleConfig, StageConfig
from longtail.counts import ClassCounts
from longtail.losses import loss_class, resolve_auto
from longtail.models.heads import StandardizedHead
from longtail.models.model import LongTailModel
from longtail.run.portfolio import Portfolio
from longtail.training.parallel_heads import HeadPlan

FEW_FEATURES: Final = 256
"""As tables and small networks have; most networks give more, in which classes lie apart."""
_FULL_BATCH: Final = 250  # images; with fewer of few features, all are in one batch
_INVERSE_PENALTIES: Final = {0.3: 1.0, 0.1: 0.1, 1.0: 10.0}  # C of logistic regression, by rate
RETRAINING: Final = 4  # stage 2 has that part of the epochs and of the learning rate of stage 1
# The simpler ones first, and of these the one that is consistent for the balanced error. The last entry holds options
# of the loss in a second stage, if there is one.
_METHODS: Final[tuple[tuple[str, str, dict[str, Any], dict[str, Any] | None], ...]] = (
    ("logit-adjustment", "logit-adjustment", {}, None),
    ("weighted", "weighted", {}, None),
    ("cross-entropy", "cross-entropy", {}, None),
    ("cosine cross-entropy", "cross-entropy", {"scale": 30.0}, None),
    ("ldam-drw", "ldam", {"deferred_reweighting": 0.8}, None),
    ("kps", "kps", {"adjust_gradients_from": None}, None),
    ("kps-ga", "kps", {}, None),
    ("fbl", "fbl", {"strength": "auto"}, None),
    ("gcl", "gcl", {}, None),
    ("agcl", "agcl", {}, None),
    ("gcl, retrained", "gcl", {}, {"scale": 20.0, "margin": 0.1, "focal_gamma": 1.0}),
    ("agcl, retrained", "agcl", {}, {"focal_gamma": 1.0}),
)


@dataclass(frozen=True)
class Candidate:
    """A classifier to try.

    Attributes:
        name: What it is called.
        plan: How it is trained.
        retraining: How its second stage trains it, on class-balanced draws; None for one stage.
    """

    name: str
    plan: HeadPlan
    retraining: HeadPlan | None = None


def candidates(num_features: int, images: int, head: str = "auto") -> list[Candidate]:
    """Return what is tried, the simpler ones first, each with more and with less regularization.

    A step of Adam moves every weight by the learning rate, and thus a logit of standardized features, or the direction
    of a cosine classifier's weight, by that times the root of their number: the rates are divided by it. More
    regularization is a lower rate, by which the classifier stays nearer to its start, and for linear ones also a weight
    decay that forgets in 250 steps.

    Classes overlap in few features. There linear classifiers have an L2 penalty instead, as logistic
    regression, of 1 / (C N) with C of 1, 0.1 and 10, and class weights come first: they tell where the boundary lies,
    which they hardly do where classes can be separated [1].

    References:
        [1] Byrd, Lipton, What is the effect of importance weighting in deep learning?, ICML 2019.

    Args:
        num_features: Feature size D.
        images: Training images N.
        head: The kind of classifier, ``linear`` or ``cosine``; any where ``auto``.

    Example:
        >>> tried = candidates(1280, 2_500)
        >>> len(tried), tried[0].name, tried[0].plan.head, tried[-1].retraining.options["focal_gamma"]
        (28, 'logit-adjustment', 'linear', 1.0)
    """
    result = []
    few = num_features <= FEW_FEATURES
    rates = {"cosine": (0.1, 0.01), "linear": tuple(_INVERSE_PENALTIES) if few else (0.1, 0.03, 0.3)}
    for name, loss, options, second in sorted(_METHODS, key=lambda method: few and method[0] != "weighted"):
        kind = "cosine" if name.startswith("cosine") else loss_class(loss).head
        for rate in rates[kind]:
            lr = float(rate / np.sqrt(num_features))
            plan = HeadPlan(loss, kind, lr, options=resolve_auto(loss, options, on_features=True))
            if kind == "linear" and few:
                plan = replace(plan, optimizer="adam", weight_decay=1 / (_INVERSE_PENALTIES[rate] * images))
            elif rate == 0.03:
                plan = replace(plan, weight_decay=0.004 / lr)
            retraining = None if second is None else replace(plan, lr=plan.lr / RETRAINING, options=second)
            result.append(Candidate(name, plan, retraining))
    return [each for each in result if head in ("auto", each.plan.head)]


def usual_schedule(
    num_features: int, images: int, epochs: int | None = None, batch_size: int | None = None
) -> tuple[int, int]:
    """Return the epochs and the batch size of a classifier on stored features.

    Where both features and images are few, all images are one batch: a mean weighted by class favors common classes in
    a small one, and the steps cost nothing.

    Args:
        num_features: Feature size D.
        images: Training images N.
        epochs: Taken where given; the batches are then small.
        batch_size: Taken where given.

    Example:
        >>> usual_schedule(4, 50), usual_schedule(4, 50, epochs=10), usual_schedule(1280, 50)
        ((400, 50), (10, 16), (100, 16))
    """
    few = num_features <= FEW_FEATURES and images < _FULL_BATCH and not (epochs or batch_size)
    usual = (400, images) if few else feature_schedule(images)
    return epochs or usual[0], batch_size or usual[1]


def usual_candidate(num_features: int, images: int, head: str = "auto", metric: Metric = "balanced") -> Candidate:
    """Return the classifier that is trained where none can be chosen: the first of the candidates that fits.

    For ``accuracy``, for which classes are not to be balanced, it is the first with cross-entropy; for other metrics,
    the first with another loss.

    Args:
        num_features: Feature size D.
        images: Training images N.
        head: The kind of classifier, as for :func:`candidates`.
        metric: What it is for.

    Example:
        >>> [usual_candidate(1280, 50, metric=metric).name for metric in ("balanced", "accuracy")]
        ['logit-adjustment', 'cross-entropy']
        >>> [usual_candidate(1280, 50, "cosine", metric).name for metric in ("balanced", "accuracy")]
        ['ldam-drw', 'cosine cross-entropy']
    """
    tried = candidates(num_features, images, head)
    return next(each for each in tried if (each.plan.loss == "cross-entropy") == (metric == "accuracy"))


def classifier_of(portfolio: Portfolio, num_features: int, images: int, head: str = "auto") -> Candidate:
    """Return the chosen classifier; the usual one where nothing could be tried.

    Args:
        portfolio: The choice.
        num_features: Feature size D.
        images: Training images N.
        head: The kind of classifier, as for :func:`candidates`.

    Example:
        >>> from longtail.run.portfolio import NOTHING_TRIED
        >>> [classifier_of(NOTHING_TRIED, 1280, 50, head).name for head in ("auto", "cosine")]
        ['logit-adjustment', 'ldam-drw']
    """
    if not portfolio.candidates:
        return usual_candidate(num_features, images, head, portfolio.metric)
    choice, tried = portfolio.choice, candidates(num_features, images, head)
    return next(each for each in tried if (each.name, each.plan.lr) == (choice.name, choice.lr))


def stages_of(candidate: Candidate, epochs: int, batch_size: int) -> list[StageConfig]:
    """Return the stages that train a classifier on stored features, one or two.

    Args:
        candidate: The classifier.
        epochs: Epochs of the first stage.
        batch_size: Images per step.

    Example:
        >>> first, second = stages_of(candidates(1280, 2_500)[-1], epochs=40, batch_size=64)
        >>> first.epochs, second.epochs, second.sampler
        (40, 10, 'class-balanced')
    """

    def stage(plan: HeadPlan, epochs: int) -> StageConfig:
        return StageConfig(
            epochs=epochs,
            batch_size=batch_size,
            train="classifier",
            cached_views=1,
            loss=LossConfig(plan.loss, dict(plan.options)),
            optimizer=OptimizerConfig(plan.optimizer, lr=plan.lr, weight_decay=plan.weight_decay),
            schedule=ScheduleConfig("cosine"),
        )

    stages = [stage(candidate.plan, epochs)]
    if candidate.retraining is not None:
        second = stage(candidate.retraining, max(1, epochs // RETRAINING))
        stages.append(replace(second, sampler="class-balanced"))
    return stages


def with_classifier(config: RunConfig, candidate: Candidate, tau: float = 0.0) -> RunConfig:
    """Return the configuration of a run that trains a classifier on stored features.

    Args:
        config: The configuration that left it to be chosen.
        candidate: The classifier.
        tau: Strength of the logit adjustment that it gets.

    Example:
        >>> with_classifier(RunConfig(), usual_candidate(1280, 50)).stage1.loss.name
        'logit-adjustment'
    """
    stages = [
        *stages_of(candidate, config.stage1.epochs, config.stage1.batch_size),
        StageConfig(train="classifier"),
    ]
    first, second = (replace(stage, cached_views=config.stage1.cached_views) for stage in stages[:2])
    model = replace(config.model, head=candidate.plan.head, standardize=True, tau=tau)
    return replace(config, model=model, stage1=first, stage2=second)


def adjust_head(model: LongTailModel, tau: float, counts: ClassCounts, scale: float) -> None:
    """Make logit adjustment a part of a model's standardized head: ``-tau log pi_j / S`` is added to its logits.

    Source: Menon et al., Long-tail learning via logit adjustment, ICLR 2021, equation 9.

    Args:
        model: Changed in place; what an earlier call has set is replaced.
        tau: Strength.
        counts: Training images per class.
        scale: Factor S of the logits before softmax.

    Example:
        >>> from longtail.models import build_model
        >>> model = build_model("plain-cnn", 2, "standardized-cosine")
        >>> adjust_head(model, 1.0, ClassCounts([75, 25]), scale=1.0)
        >>> model.head.offset.exp().tolist()
        [1.3333..., 4.0...]
    """
    head = cast("StandardizedHead", model.head)
    head.offset.copy_(torch.from_numpy(-tau / scale * np.log(counts.prior)))
