"""Choose the strength of a post-hoc adjustment on the logits of a validation split, and on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from longtail.counts import FEW_IMAGES
from longtail.errors import LongtailError, UsageError
from longtail.evaluation.posthoc import (
    TEMPERATURES,
    Adjustment,
    fit_temperature,
    logit_adjustment,
    prior_shares,
    tau_normalization,
)
from longtail.evaluation.selective import coverage_at, coverage_curve, threshold_for_accuracy, threshold_for_coverage
from longtail.evaluation.summary import harmonic_mean
from longtail.models.heads import linear_map
from longtail.run.model_files import ModelInfo

Method: TypeAlias = Literal["logit-adjustment", "tau-norm", "none"]
MetricName: TypeAlias = Literal["balanced_accuracy", "accuracy", "harmonic_mean"]
_GRID: Final[dict[str, tuple[float, ...]]] = {
    "logit-adjustment": tuple(step / 10 for step in range(21)),
    "tau-norm": tuple(step / 10 for step in range(11)),
    "none": (0.0,),
}


@dataclass(frozen=True, kw_only=True)
class AdjustmentOptions:
    """The options of an adjustment, or how they are chosen.

    Attributes:
        method: The method, next to the temperature.
        tau: Its strength; None chooses it.
        temperature: 1 leaves the confidences alone; None fits it.
        metric: The figure that the strength is chosen by.
        coverage: Also choose the threshold of "not sure" that keeps this share of the images, in (0, 1].
        accuracy: Or the one that keeps most images while this share of them is right, in (0, 1].
    """

    method: Method = "logit-adjustment"
    tau: float | None = None
    temperature: float | None = None
    metric: MetricName = "balanced_accuracy"
    coverage: float | None = None
    accuracy: float | None = None

    def __post_init__(self) -> None:
        share = "must be above 0 and at most 1."
        for is_valid, message in (
            (self.tau is None or 0 <= self.tau < float("inf"), "--tau must be auto or a number of 0 or more."),
            (
                self.temperature is None or 0 < self.temperature < float("inf"),
                "--temperature must be auto, none or a number above 0.",
            ),
            (self.coverage is None or 0 < self.coverage <= 1, f"--threshold-coverage {share}"),
            (self.accuracy is None or 0 < self.accuracy <= 1, f"--threshold-accuracy {share}"),
            (
                self.coverage is None or self.accuracy is None,
                "--threshold-coverage and --threshold-accuracy choose the same threshold: give one.",
            ),
            (
                self.method != "none" or self.tau is None,
                "--tau is the strength of a method: leave it out, or name another --method than none.",
            ),
        ):
            if not is_valid:
                raise UsageError(message)


def choose(info: ModelInfo, head: nn.Module, logits: Tensor, labels: Tensor, options: AdjustmentOptions) -> ModelInfo:
    """Return the model's information with the adjustment, and the threshold on request, that suit validation data.

    Logit adjustment fits the temperature to the network's own probabilities first, so that its strength has a meaning;
    tau-normalization, whose strength does not depend on the temperature, fits it last. The strength is the smallest
    of those on a grid with the best figure: 0 to 2 for logit adjustment, 0 to 1 for tau-normalization, in tenths.

    Args:
        info: The model's information; an adjustment that it has is replaced.
        head: The classifier; tau-normalization reads its weights.
        logits: The network's logits of the validation images (N, C), N > 0.
        labels: Their classes (N,).
        options: Method, strength and threshold, or how they are chosen.

    Raises:
        LongtailError: Tau-normalization of a cosine classifier, or a threshold that no confidence reaches.

    Example:
        >>> from longtail.models.heads import LinearHead
        >>> from longtail.run.model_files import ModelSpec, Preprocessing
        >>> looks = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> info = ModelInfo(ModelSpec("plain-cnn", "linear"), ("cat", "lynx"), (90, 10), looks)
        >>> logits, labels = torch.tensor([[3.0, 0.0], [1.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1, 0])
        >>> chosen = choose(info, LinearHead(4, 2), logits, labels, AdjustmentOptions(temperature=1.0)).adjustment
        >>> chosen.chosen["tau"], chosen.chosen["tried"]["balanced_accuracy"][:6]
        (0.5, [0.5, 0.5, 0.5, 0.5, 0.5, 1.0])
    """
    make = _maker(info, head, options)

    def fitted(tau: float) -> tuple[float, str]:
        given = options.temperature
        return (given, "given") if given is not None else _temperature(make(tau, 1.0), info, logits, labels)

    if options.method == "tau-norm":
        tau, tried = _strength(lambda value: make(value, 1.0), logits, labels, options)
        temperature, source = fitted(tau)
    else:
        temperature, source = fitted(0.0)
        tau, tried = _strength(lambda value: make(value, temperature), logits, labels, options)
    adjustment = make(tau, temperature)
    threshold, threshold_facts = _threshold(adjustment, logits, labels, options)
    facts: dict[str, Any] = {
        "method": options.method,
        "tau": tau,
        "tau_from": "validation" if len(tried["tau"]) > 1 else "given",
        "temperature": temperature,
        "temperature_from": source,
        "metric": options.metric,
        "tried": tried,
        "validation_images": len(labels),
        "classes_with_few_validation_images": int((_images(info, labels) < FEW_IMAGES).sum()),
        "threshold": threshold_facts,
    }
    return replace(info, adjustment=replace(adjustment, chosen=facts), threshold=threshold)


def confidences(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probability of the predicted class, float32 (N,), and whether it is the right one, bool (N,).

    Example:
        >>> confidences(torch.tensor([[0.0, 0.0], [0.0, 9.0]]), torch.tensor([1, 1]))[1].tolist()
        [False, True]
    """
    confidence, prediction = scores.softmax(dim=1).max(dim=1)
    return confidence, prediction == labels


def _maker(info: ModelInfo, head: nn.Module, options: AdjustmentOptions) -> Callable[[float, float], Adjustment]:
    """Return the adjustment as a function of its strength and its temperature."""
    if options.method != "tau-norm":
        return lambda tau, temperature: logit_adjustment(
            info.counts, tau, temperature=temperature, scale=info.logit_scale, prior=info.prior
        )
    weight, bias = linear_map(head)
    if bias is None:
        raise LongtailError(
            "a cosine classifier has no lengths of weights to normalize: use --method logit-adjustment."
        )
    return lambda tau, temperature: tau_normalization(weight, bias, tau, temperature=temperature)


def _strength(
    make: Callable[[float], Adjustment], logits: Tensor, labels: Tensor, options: AdjustmentOptions
) -> tuple[float, dict[str, list[float]]]:
    grid = _GRID[options.method] if options.tau is None else (options.tau,)
    values = [_figure(make(tau).apply(logits), labels, options.metric) for tau in grid]
    return grid[int(np.argmax(values))], {"tau": list(grid), options.metric: values}  # argmax: the first of the best


def _figure(scores: Tensor, labels: Tensor, metric: MetricName) -> float:
    right = scores.argmax(dim=1) == labels
    if metric == "accuracy":
        return float(right.double().mean())
    classes = scores.shape[1]
    recall = torch.bincount(labels[right], minlength=classes).double() / torch.bincount(labels, minlength=classes)
    return float(recall.nanmean() if metric == "balanced_accuracy" else harmonic_mean(recall))


def _temperature(adjustment: Adjustment, info: ModelInfo, logits: Tensor, labels: Tensor) -> tuple[float, str]:
    """Fit the temperature under the class prior that the scores assume; 1 where the images have no best one."""
    shares = torch.from_numpy(prior_shares(adjustment.prior, info.counts))
    weight = shares / _images(info, labels).clamp_min(1)
    temperature = fit_temperature(adjustment.apply(logits), labels, weight=weight[labels])
    lowest, highest = TEMPERATURES
    if lowest * 1.001 < temperature < highest * 0.999:
        return temperature, "validation"
    return 1.0, "kept: there is no best one"


def _images(info: ModelInfo, labels: Tensor) -> Tensor:
    return torch.bincount(labels, minlength=len(info.classes))


def _threshold(
    adjustment: Adjustment, logits: Tensor, labels: Tensor, options: AdjustmentOptions
) -> tuple[float | None, dict[str, Any] | None]:
    if options.coverage is None and options.accuracy is None:
        return None, None
    confidence, right = (values.numpy() for values in confidences(adjustment.apply(logits), labels))
    curve = coverage_curve(confidence, right)
    if options.coverage is not None:
        threshold: float | None = threshold_for_coverage(curve, options.coverage)
    else:
        threshold = threshold_for_accuracy(curve, options.accuracy or 1.0)
    if threshold is None:
        raise LongtailError(
            f"--threshold-accuracy {options.accuracy} is more than any confidence gives: at best "
            f"{curve.accuracy.max():.3f} of the validation images kept are right; ask for less."
        )
    asked = {"coverage": options.coverage} if options.coverage is not None else {"accuracy": options.accuracy}
    return threshold, {"asked": asked, "validation": dict(coverage_at(confidence, right, threshold))}
