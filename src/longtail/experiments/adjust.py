"""Adjust a finished run: choose on its validation split, store it in model.json, then measure what it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtail.counts import GROUP_NAMES, ClassCounts, IntArray
from longtail.data.dataset import Split
from longtail.errors import LongtailError
from longtail.evaluation.groups import Groups
from longtail.evaluation.metrics import EvaluationMetrics, summarize
from longtail.evaluation.selective import SelectiveSummary, selective_summary
from longtail.evaluation.significance import Difference, matched_gain
from longtail.evaluation.summary import Summary
from longtail.experiments.evaluate import split_loader
from longtail.experiments.own_images import own_images, run_config
from longtail.experiments.tune import Wishes, choose, confidences
from longtail.run.adjusted import remove_adjusted, write_adjusted
from longtail.run.model_files import load_run
from longtail.run.model_info import ModelInfo, load_info, save_info
from longtail.training.assumed_prior import trained_prior
from longtail.training.clustered_intervals import units, with_group_intervals
from longtail.training.evaluate import Evaluation, collect_logits
from longtail.training.experiment import make_engine
from longtail.training.prepare import PreparedData
from longtail.training.stages import make_transform

CHANGES = ("accuracy", "balanced_accuracy", "many", "medium", "few")
FIGURES = ("accuracy", "balanced_accuracy", "many", "medium", "few", "harmonic_mean", "nll", "ece")


def adjust_run(
    run: Path, wishes: Wishes, *, moved_to: str | None = None, say: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """Choose an adjustment on a run's validation split and write it into its ``model.json``.

    An adjustment that it had is replaced. The test split is read after the file is written, so nothing in it can have
    a say; its figures are for information. All figures after the adjustment go to ``adjusted.json``.

    Args:
        run: RUN folder of a finished run.
        wishes: What is asked for.
        moved_to: New SOURCE of the run, if its images have moved.
        say: Called with what the user should know about the images, one sentence at a time.

    Returns:
        ``chosen``, the facts that model.json keeps of the choice; ``assumes``, the mix of classes that the
        probabilities now assume, in words; ``threshold``; and for the splits ``validation`` and ``test`` the images of
        each class, the figures ``before`` and ``after`` with their intervals, their difference ``change`` on the same
        images, and ``sure``, what the threshold keeps; None for a run without a test split.

    Raises:
        LongtailError: The images or classes are not those of the run, it has no validation split, or what is asked for
            cannot be had. Nothing is written then.
    """
    model, info = load_run(run)
    config = run_config(run, moved_to)
    # A file of an older version does not say it.
    info = replace(info, prior=trained_prior(config, ClassCounts(info.counts, info.classes)))
    own = own_images(run, config, info)
    validation, test = own.split("validation"), own.split("test")
    if validation is None or not len(validation):
        raise LongtailError(
            f"{run} has no validation images, and an adjustment is chosen on nothing else: train again with "
            "--data.validation_fraction 0.1."
        )
    own.require_same()
    for note in own.notes:
        say(f"note: {note}")
    engine = make_engine(config)
    model.to(engine.device)

    def measure(rows: Split) -> tuple[Tensor, Tensor]:
        loader = split_loader(rows, config, info, engine)
        return collect_logits(engine, model, loader, make_transform(config.data), num_images=len(rows))

    def figures(rows: Split, logits: Tensor, labels: Tensor) -> Figures:
        return _figures(info, adjusted, own.prepared, rows, config.data.group_column, logits, labels)

    seen = measure(validation)
    adjusted = choose(info, model.head, *seen, wishes)
    if engine.is_main:
        save_info(adjusted, run)
    assert adjusted.adjustment is not None
    found = {
        "validation": figures(validation, *seen),
        "test": figures(test, *measure(test)) if test is not None and len(test) else None,
    }
    if engine.is_main:
        after = {name: split and split["after"] for name, split in found.items()}
        write_adjusted(run, adjusted.adjustment, after)
    return {
        "chosen": dict(adjusted.adjustment.chosen),
        "assumes": describe_prior(adjusted),
        "threshold": adjusted.threshold,
        **{name: split and _in_short(split) for name, split in found.items()},
    }


def reset_run(run: Path) -> bool:
    """Take adjustment and threshold out of a run's ``model.json``, and their figures away; return whether it had any.

    Raises:
        LongtailError: There is no such file, or it cannot be read or written.
    """
    info = load_info(run)
    plain = info.unadjusted()
    if plain != info:
        save_info(plain, run)
    remove_adjusted(run)  # also where an earlier reset was stopped before it came to this
    return plain != info


def describe_prior(info: ModelInfo) -> str:
    """Say which mix of classes the probabilities of an adjusted model assume.

    Example:
        >>> from longtail.evaluation.posthoc import logit_adjustment
        >>> from longtail.run.model_info import ModelSpec, Preprocessing
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


class Change(TypedDict):
    """The change of a figure by an adjustment, on the same images, so they are matched."""

    mean: float
    interval: list[float]
    is_evidence: bool


class Figures(TypedDict):
    """What a split says of an adjustment: images of each class, figures before and after, what the threshold keeps.

    ``change`` has the difference of each figure of :data:`CHANGES` and its 95% interval over the images; None where
    the figure is None.
    """

    images: list[int]
    before: Summary
    after: Summary
    change: dict[str, Change | None]
    sure: SelectiveSummary | None


def _figures(
    before: ModelInfo, after: ModelInfo, prepared: PreparedData, rows: Split, column: str | None,
    logits: Tensor, labels: Tensor,
) -> Figures:  # fmt: skip
    def summary(info: ModelInfo) -> Summary:
        scores = info.scores(logits)
        metric = EvaluationMetrics(len(info.classes))
        metric.update(scores, labels)
        said = {"label": labels, "prediction": scores.argmax(dim=1), "index": torch.arange(len(labels))}
        plain = Evaluation(
            summarize(metric, prepared.counts, prepared.groups), {name: each.numpy() for name, each in said.items()}
        )
        return with_group_intervals(plain, rows, column).summary

    sure: SelectiveSummary | None = None
    if after.threshold is not None:
        confidence, right = (values.numpy() for values in confidences(after.scores(logits), labels))
        sure = selective_summary(
            confidence.astype("float64"), right, labels.numpy(), prepared.groups, after.threshold,
            cluster=units(rows, column),
        )  # fmt: skip
    hits = [(info.scores(logits).argmax(dim=1) == labels).numpy() for info in (after, before.unadjusted())]
    return {
        "images": torch.bincount(labels, minlength=len(after.classes)).tolist(),
        "before": summary(before.unadjusted()),
        "after": summary(after),
        "change": _changes(labels.numpy(), hits, prepared.groups, units(rows, column)),
        "sure": sure,
    }


def _changes(
    label: IntArray, right: Sequence[npt.NDArray[np.bool_]], groups: Groups, units: IntArray | None
) -> dict[str, Change | None]:
    """The differences of the first side minus the second on the same images."""
    changes: dict[str, Change | None] = {}
    for name in CHANGES:
        in_group = np.isin(label, groups[name]) if name in GROUP_NAMES else np.ones(len(label), dtype=bool)
        one, two = (side[in_group] for side in right)
        gain = matched_gain(
            label[in_group], one, two, balanced=name != "accuracy", cluster=None if units is None else units[in_group]
        )
        changes[name] = None
        if gain is not None:
            evident = Difference(gain[0], None, 1, images=gain[1]).is_evidence
            changes[name] = {"mean": gain[0], "interval": list(gain[1]), "is_evidence": evident}
    return changes


def _in_short(found: Figures) -> dict[str, Any]:
    """The same with the figures that are shown side by side, without those of single classes."""
    sides: dict[str, dict[str, Any]] = {"before": dict(found["before"]), "after": dict(found["after"])}
    return dict(found) | {
        side: {name: values[name] for name in (*FIGURES, "intervals")} for side, values in sides.items()
    }
