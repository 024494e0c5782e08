"""Adjust a finished run: choose on its validation split, store it in model.json, then measure the effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtail.counts import GROUP_NAMES, IntArray
from longtail.data.dataset import Split
from longtail.errors import LongtailError
from longtail.evaluation.groups import Groups
from longtail.evaluation.metrics import EvaluationMetrics, summarize
from longtail.evaluation.selective import SelectiveSummary, selective_summary
from longtail.evaluation.significance import Difference, matched_gain
from longtail.evaluation.summary import Summary
from longtail.experiments.finished_run import FinishedRun, open_run
from longtail.experiments.tune import AdjustmentOptions, choose, confidences
from longtail.run.model_files import ModelInfo, load_info, save_info
from longtail.run.result import remove_adjusted, write_adjusted
from longtail.training.evaluate import Evaluation, cluster_numbers, collect_logits, with_group_intervals
from longtail.training.stages import trained_prior

CHANGES = ("accuracy", "balanced_accuracy", "many", "medium", "few")
FIGURES = ("accuracy", "balanced_accuracy", "many", "medium", "few", "harmonic_mean", "nll", "ece")


class Change(TypedDict):
    """The change of a figure by an adjustment, on the same images, so they are matched."""

    mean: float
    interval: list[float]
    is_evidence: bool


class Figures(TypedDict):
    """The effect of an adjustment on a split: images of each class, figures before and after, coverage.

    ``change`` has the difference of each figure of :data:`CHANGES` and its 95% interval over the images; None where
    the figure is None. ``sure`` is None without a threshold.
    """

    images: list[int]
    before: Summary
    after: Summary
    change: dict[str, Change | None]
    sure: SelectiveSummary | None


def adjust_run(
    run: Path,
    options: AdjustmentOptions,
    *,
    moved_to: str | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Choose an adjustment on a run's validation split and write it into its ``model.json``.

    An adjustment that it had is replaced. The test split is read after the file is written, so that it cannot
    influence the choice; its figures are for information. All figures after the adjustment go to ``adjusted.json``.

    Args:
        run: RUN folder of a finished run.
        options: Method, strength and threshold, or how they are chosen.
        moved_to: New SOURCE of the run, if its images have moved.
        say: Called with notes on the images, one sentence at a time.

    Returns:
        ``chosen``, the facts that model.json keeps of the choice; ``assumes``, the class prior that the probabilities
        now assume, in words; ``threshold``; and for the splits ``validation`` and ``test`` the images of each class,
        the figures ``before`` and ``after`` with their intervals, their difference ``change`` on the same images, and
        ``sure``, the coverage at the threshold; None for a run without a test split.

    Raises:
        LongtailError: The images or classes are not those of the run, it has no validation split, or the options
            cannot be met. Nothing is written then.
    """
    opened = open_run(run, moved_to)
    images = opened.images()
    validation, test = images.split("validation"), images.split("test")
    if validation is None or not len(validation):
        raise LongtailError(
            f"{run} has no validation images, and an adjustment is chosen on nothing else: train again with "
            "--data.validation_fraction 0.1."
        )
    images.require_same()
    images.report_notes(say)
    engine = opened.engine
    opened.model.to(engine.device)

    def logits_and_labels(rows: Split) -> tuple[Tensor, Tensor]:
        return collect_logits(engine, opened.model, opened.inputs(rows), num_images=len(rows))

    chosen_on = logits_and_labels(validation)
    # A model.json of an older version does not name the prior.
    info = replace(opened.info, prior=trained_prior(opened.config, opened.counts))
    adjusted = choose(info, opened.model.head, *chosen_on, options)
    if engine.is_main:
        save_info(adjusted, run)
    assert adjusted.adjustment is not None
    figures = {
        "validation": _figures(opened, adjusted, validation, *chosen_on),
        "test": _figures(opened, adjusted, test, *logits_and_labels(test)) if test is not None and len(test) else None,
    }
    if engine.is_main:
        write_adjusted(run, adjusted.adjustment, {name: split and split["after"] for name, split in figures.items()})
    return {
        "chosen": dict(adjusted.adjustment.chosen),
        "assumes": describe_prior(adjusted),
        "threshold": adjusted.threshold,
        **{name: split and _without_classes(split) for name, split in figures.items()},
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
        >>> from longtail.evaluation.posthoc import logit_adjustment
        >>> from longtail.run.model_files import ModelSpec, Preprocessing
        >>> looks = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> info = ModelInfo(ModelSpec("plain-cnn", "linear"), ("cat", "lynx"), (90, 10), looks)
        >>> describe_prior(info), describe_prior(replace(info, prior="uniform"))
        ('the mix of the training images', 'all classes alike')
        >>> adjustment = replace(logit_adjustment(info.counts, 0.5), chosen={"tau": 0.5})
        >>> describe_prior(replace(info, adjustment=adjustment))
        'the training frequencies to the power 0.5'
    """
    prior = info.prior if info.adjustment is None else info.adjustment.prior
    if isinstance(prior, str):
        return {"train": "the mix of the training images", "uniform": "all classes alike"}[prior]
    tau = 0.0 if info.adjustment is None else float(info.adjustment.chosen["tau"])
    power = (1.0 if info.prior == "train" else 0.0) - tau
    return f"the training frequencies to the power {power:.3g}"


def _figures(run: FinishedRun, adjusted: ModelInfo, rows: Split, logits: Tensor, labels: Tensor) -> Figures:
    column = run.config.data.group_column
    label, cluster = labels.numpy(), cluster_numbers(rows, column)
    before, after = (info.scores(logits) for info in (adjusted.unadjusted(), adjusted))
    sure: SelectiveSummary | None = None
    if adjusted.threshold is not None:
        confidence, right = (values.numpy() for values in confidences(after, labels))
        sure = selective_summary(
            confidence.astype("float64"), right, label, run.groups, adjusted.threshold, cluster=cluster
        )

    def summary(scores: Tensor) -> Summary:
        metric = EvaluationMetrics(len(run.counts))
        metric.update(scores, labels)
        predictions = {"label": label, "prediction": scores.argmax(dim=1).numpy(), "index": np.arange(len(label))}
        evaluation = Evaluation(summarize(metric, run.counts, run.groups), predictions)
        return with_group_intervals(evaluation, rows, column).summary

    def right_of(scores: Tensor) -> npt.NDArray[np.bool_]:
        right: npt.NDArray[np.bool_] = (scores.argmax(dim=1) == labels).numpy()
        return right

    return {
        "images": torch.bincount(labels, minlength=len(run.counts)).tolist(),
        "before": summary(before),
        "after": summary(after),
        "change": _changes(label, right_of(after), right_of(before), run.groups, cluster),
        "sure": sure,
    }


def _changes(
    label: IntArray,
    after: npt.NDArray[np.bool_],
    before: npt.NDArray[np.bool_],
    groups: Groups,
    cluster: IntArray | None,
) -> dict[str, Change | None]:
    """Compare which predictions are right after and before, on the same images."""
    changes: dict[str, Change | None] = {}
    for name in CHANGES:
        mask = np.isin(label, groups[name]) if name in GROUP_NAMES else np.ones(len(label), dtype=bool)
        gain = matched_gain(
            label[mask],
            after[mask],
            before[mask],
            balanced=name != "accuracy",
            cluster=None if cluster is None else cluster[mask],
        )
        changes[name] = None
        if gain is not None:
            is_evidence = Difference(gain[0], None, 1, images=gain[1]).is_evidence
            changes[name] = {"mean": gain[0], "interval": list(gain[1]), "is_evidence": is_evidence}
    return changes


def _without_classes(figures: Figures) -> dict[str, Any]:
    """Return the figures that are shown side by side, without those of single classes."""
    sides: dict[str, dict[str, Any]] = {"before": dict(figures["before"]), "after": dict(figures["after"])}
    return dict(figures) | {
        side: {name: values[name] for name in (*FIGURES, "intervals")} for side, values in sides.items()
    }
