"""Adjust a finished run: choose on its validation split, store it in model.json, then measure the effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from longtail.config.options import EngineName, NotNegative, Positive, Share
from longtail.console import Reporter
from longtail.counts import FEW_IMAGES, GROUP_NAMES
from longtail.data.dataset import Split
from longtail.errors import LongtailError, UsageError
from longtail.evaluation import posthoc, selective
from longtail.evaluation.metrics import harmonic_mean
from longtail.evaluation.significance import Difference, matched_gain
from longtail.evaluation.tallies import EvaluationMetrics, summarize
from longtail.experiments.finished_run import FinishedRun, open_run
from longtail.models.heads import linear_map
from longtail.run.model_files import ModelInfo, load_info, save_info
from longtail.run.result import remove_adjusted, write_adjusted
from longtail.training.split_evaluation import Evaluation, cluster_numbers, collect_logits, with_group_intervals
from longtail.training.stages import trained_prior

Method: TypeAlias = Literal["logit-adjustment", "tau-norm", "none"]
MetricName: TypeAlias = Literal["balanced_accuracy", "accuracy", "harmonic_mean"]
_MOST_TENTHS: Final = {"logit-adjustment": 20, "tau-norm": 10, "none": 0}
"""The end of the grid of strengths, which begins at zero."""
CHANGES = ("accuracy", "balanced_accuracy", "many", "medium", "few")
FIGURES = (*CHANGES, "harmonic_mean", "nll", "ece")


@dataclass(frozen=True, kw_only=True)
class AdjustmentOptions:
    """The options of an adjustment, or how they are chosen.

    Attributes:
        method: The method, next to the temperature.
        tau: Its strength; None chooses it.
        temperature: 1 leaves the confidences alone; None fits it.
        metric: The figure that the strength is chosen by.
        coverage: Also choose the threshold of "not sure" that keeps this share of the images.
        accuracy: Or the one that keeps most images while this share of them is right.
    """

    method: Method = "logit-adjustment"
    tau: NotNegative | None = None
    temperature: Positive | None = None
    metric: MetricName = "balanced_accuracy"
    coverage: Share | None = None
    accuracy: Share | None = None

    def __post_init__(self) -> None:
        if self.coverage is not None and self.accuracy is not None:
            raise UsageError("--threshold-coverage and --threshold-accuracy choose the same threshold: give one.")
        if self.method == "none" and self.tau is not None:
            raise UsageError("--tau is the strength of a method: leave it out, or name another --method than none.")


def adjust_run(
    run: Path,
    options: AdjustmentOptions,
    *,
    moved_to: str | None = None,
    engine: EngineName | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Choose an adjustment on a run's validation split and write it into its ``model.json``.

    An adjustment that it had is replaced. The test split is read after the file is written, so that it cannot
    influence the choice; its figures are for information. All figures after the adjustment go to ``adjusted.json``.

    Args:
        run: RUN folder of a finished run.
        options: Method, strength and threshold, or how they are chosen.
        moved_to: New SOURCE of the run, if its images have moved.
        engine: What runs the network, as ``training.engine``; what the run recorded when None.
        reporter: Shows notes on the images, and the progress of the network; silent when None.

    Returns:
        ``chosen``, the facts that model.json keeps of the choice; ``assumes``, the class prior that the probabilities
        now assume, in words; ``threshold``; and for the splits ``validation`` and ``test`` the images of each class,
        the figures ``before`` and ``after`` with their intervals, their difference ``change`` on the same images, and
        ``sure``, the coverage at the threshold; None for a run without a test split.

    Raises:
        LongtailError: The images or classes are not those of the run, it has no validation split, or the options
            cannot be met. Nothing is written then.
    """
    reporter, opened = reporter or Reporter(quiet=True), open_run(run, moved_to, engine)
    images = opened.images(reporter.say, must_be_same=True)
    validation, test = images.split("validation"), images.split("test")
    if validation is None or not len(validation):
        raise LongtailError(
            f"{run} has no validation images, and an adjustment is chosen on nothing else: train again with "
            "--data.validation_fraction 0.1."
        )
    splits = {"validation": validation} | ({"test": test} if test is not None and len(test) else {})
    features = opened.features(splits, reporter)

    def logits_and_labels(name: str) -> tuple[Tensor, Tensor]:
        return collect_logits(opened.engine, *features.single_pass(name), num_images=len(splits[name]))

    chosen_on = logits_and_labels("validation")
    # A model.json of an older version does not name the prior.
    info = replace(opened.info, prior=trained_prior(opened.config, opened.counts))
    adjusted = choose(info, opened.model.head, *chosen_on, options)
    if opened.engine.is_main:
        save_info(adjusted, run)
    assert adjusted.adjustment is not None
    figures = {"validation": _figures(opened, adjusted, validation, *chosen_on), "test": None}
    if "test" in splits:
        figures["test"] = _figures(opened, adjusted, splits["test"], *logits_and_labels("test"))
    if opened.engine.is_main:
        write_adjusted(run, adjusted.adjustment, {name: split and split["after"] for name, split in figures.items()})
    for split in filter(None, figures.values()):  # figures of single classes are in adjusted.json only
        for side in ("before", "after"):
            split[side] = {name: split[side][name] for name in (*FIGURES, "intervals")}
    return {
        "chosen": dict(adjusted.adjustment.chosen),
        "assumes": describe_prior(adjusted),
        "threshold": adjusted.threshold,
        **figures,
    }


def reset_run(run: Path) -> bool:
    """Remove adjustment and threshold from a run's ``model.json``, and their figures; return whether it had any.

    Raises:
        LongtailError: There is no such file, or it cannot be read or written.
    """
    info = load_info(run)
    plain = info.unadjusted()
    if plain != info:
        save_info(plain, run)
    remove_adjusted(run)  # also where an earlier reset was stopped before it removed them
    return plain != info


def describe_prior(info: ModelInfo) -> str:
    """Describe the class prior that the probabilities of an adjusted model assume.

    Example:
        >>> from longtail.evaluation import posthoc
        >>> from longtail.models.preprocessing import Preprocessing
        >>> from longtail.run.model_files import ModelSpec
        >>> looks = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> info = ModelInfo(ModelSpec("plain-cnn", "linear"), ("cat", "lynx"), (90, 10), looks)
        >>> describe_prior(info), describe_prior(replace(info, prior="uniform"))
        ('the mix of the training images', 'all classes alike')
        >>> adjustment = replace(posthoc.logit_adjustment(info.counts, 0.5), chosen={"tau": 0.5})
        >>> describe_prior(replace(info, adjustment=adjustment))
        'the training frequencies to the power 0.5'
    """
    prior = info.prior if info.adjustment is None else info.adjustment.prior
    if isinstance(prior, str):
        return {"train": "the mix of the training images", "uniform": "all classes alike"}[prior]
    tau = 0.0 if info.adjustment is None else float(info.adjustment.chosen["tau"])
    power = (1.0 if info.prior == "train" else 0.0) - tau
    return f"the training frequencies to the power {power:.3g}"


def _figures(run: FinishedRun, adjusted: ModelInfo, rows: Split, logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Measure the effect of an adjustment on a split: images of each class, figures before and after, coverage.

    ``change`` has the difference of each figure of :data:`CHANGES` and its 95% interval over the images; None where
    the figure is None. ``sure`` is None without a threshold.
    """
    column = run.config.data.group_column
    label, cluster = labels.numpy(), cluster_numbers(rows, column)
    figures: dict[str, Any] = {"images": torch.bincount(labels, minlength=len(run.counts)).tolist()}
    right = {}
    for side, info in (("before", adjusted.unadjusted()), ("after", adjusted)):
        scores = info.scores(logits)
        metric = EvaluationMetrics(len(run.counts), sync_on_compute=False)  # each process has the logits of all images
        metric.update(scores, labels)
        prediction = scores.argmax(dim=1).numpy()
        predictions = {"label": label, "prediction": prediction, "index": np.arange(len(label))}
        evaluation = Evaluation(summarize(metric, run.counts, run.groups), predictions)
        figures[side] = with_group_intervals(evaluation, rows, column).summary
        right[side] = prediction == label
    figures |= {"change": {}, "sure": None}
    for name in CHANGES:  # on the same, matched images
        mask = np.isin(label, run.groups[name]) if name in GROUP_NAMES else np.ones(len(label), dtype=bool)
        gain = matched_gain(
            label[mask],
            right["after"][mask],
            right["before"][mask],
            balanced=name != "accuracy",
            cluster=None if cluster is None else cluster[mask],
        )
        figures["change"][name] = gain and {
            "mean": gain[0],
            "interval": list(gain[1]),
            "is_evidence": Difference(gain[0], None, 1, images=gain[1]).is_evidence,
        }
    if adjusted.threshold is not None:
        confidence, correct = (values.numpy() for values in confidences(scores, labels))
        figures["sure"] = selective.selective_summary(
            confidence.astype("float64"), correct, label, run.groups, adjusted.threshold, cluster=cluster
        )
    return figures


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
        >>> from longtail.models.preprocessing import Preprocessing
        >>> from longtail.run.model_files import ModelSpec
        >>> looks = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> info = ModelInfo(ModelSpec("plain-cnn", "linear"), ("cat", "lynx"), (90, 10), looks)
        >>> logits, labels = torch.tensor([[3.0, 0.0], [1.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1, 0])
        >>> chosen = choose(info, LinearHead(4, 2), logits, labels, AdjustmentOptions(temperature=1.0)).adjustment
        >>> chosen.chosen["tau"], chosen.chosen["tried"]["balanced_accuracy"][:6]
        (0.5, [0.5, 0.5, 0.5, 0.5, 0.5, 1.0])
    """
    make, images = _maker(info, head, options), torch.bincount(labels, minlength=len(info.classes))

    def fitted(tau: float) -> tuple[float, str]:
        """The temperature under the class prior that the scores assume; 1 where the images have no best one."""
        if options.temperature is not None:
            return options.temperature, "given"
        adjustment, (lowest, highest) = make(tau), posthoc.TEMPERATURES
        weight = torch.from_numpy(posthoc.prior_shares(adjustment.prior, info.counts)) / images.clamp_min(1)
        best = posthoc.fit_temperature(adjustment.apply(logits), labels, weight=weight[labels])
        is_within = lowest * 1.001 < best < highest * 0.999
        return (best, "validation") if is_within else (1.0, "kept: there is no best one")

    if options.method == "tau-norm":
        tau, tried = _strength(make, logits, labels, options)
        temperature, source = fitted(tau)
    else:
        temperature, source = fitted(0.0)
        tau, tried = _strength(partial(make, temperature=temperature), logits, labels, options)
    adjustment = make(tau, temperature=temperature)
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
        "classes_with_few_validation_images": int((images < FEW_IMAGES).sum()),
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


def _maker(info: ModelInfo, head: nn.Module, options: AdjustmentOptions) -> Callable[..., posthoc.Adjustment]:
    """Return the adjustment as a function of its strength and of its ``temperature``, 1 when not given."""
    if options.method != "tau-norm":
        return partial(posthoc.logit_adjustment, info.counts, scale=info.logit_scale, prior=info.prior)
    weight, bias = linear_map(head)
    if bias is None:
        raise LongtailError(
            "a cosine classifier has no lengths of weights to normalize: use --method logit-adjustment."
        )
    return partial(posthoc.tau_normalization, weight, bias)


def _strength(
    make: Callable[[float], posthoc.Adjustment], logits: Tensor, labels: Tensor, options: AdjustmentOptions
) -> tuple[float, dict[str, list[float]]]:
    grid = [step / 10 for step in range(_MOST_TENTHS[options.method] + 1)] if options.tau is None else [options.tau]
    values = [_figure(make(tau).apply(logits), labels, options.metric) for tau in grid]
    best = int(np.argmax(np.round(values, 9)))  # the first of those that are equally good
    return grid[best], {"tau": grid, options.metric: values}


def _figure(scores: Tensor, labels: Tensor, metric: MetricName) -> float:
    right = scores.argmax(dim=1) == labels
    if metric == "accuracy":
        return float(right.double().mean())
    classes = scores.shape[1]
    recall = torch.bincount(labels[right], minlength=classes).double() / torch.bincount(labels, minlength=classes)
    return float(recall.nanmean() if metric == "balanced_accuracy" else harmonic_mean(recall))


def _threshold(
    adjustment: posthoc.Adjustment, logits: Tensor, labels: Tensor, options: AdjustmentOptions
) -> tuple[float | None, dict[str, Any] | None]:
    confidence, right = (values.numpy() for values in confidences(adjustment.apply(logits), labels))
    curve = selective.coverage_curve(confidence, right)
    if options.coverage is not None:
        asked, threshold = {"coverage": options.coverage}, selective.threshold_for_coverage(curve, options.coverage)
    elif options.accuracy is None:
        return None, None
    elif (at_accuracy := selective.threshold_for_accuracy(curve, options.accuracy)) is not None:
        asked, threshold = {"accuracy": options.accuracy}, at_accuracy
    else:
        raise LongtailError(
            f"--threshold-accuracy {options.accuracy} is more than any confidence gives: at best "
            f"{curve.accuracy.max():.3f} of the validation images kept are right; ask for less."
        )
    return threshold, {"asked": asked, "validation": dict(selective.coverage_at(confidence, right, threshold))}
