"""Evaluation of a split: sums for the metrics, one row per image for the predictions file, intervals of both kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from longtail.counts import ClassCounts, IntArray
from longtail.data.splits import group_numbers, groups_of
from longtail.device import float64_device
from longtail.evaluation.intervals import effective_sample_size
from longtail.evaluation.metrics import Groups, Summary, add_intervals
from longtail.training.engine import Engine
from longtail.training.forward_pass import BatchOutputs, Inputs, forward_pass

if TYPE_CHECKING:
    from longtail.data.dataset import Split

TOP = 5


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a split and, on request, the prediction for each image.

    Attributes:
        summary: The plain numbers of ``metrics.json``.
        predictions: Columns by name, in row order; empty where not asked for.
    """

    summary: Summary
    predictions: dict[str, Any]


def evaluate(
    engine: Engine,
    model: nn.Module,
    inputs: Inputs[Any],
    *,
    num_images: int,
    counts: ClassCounts,
    groups: Groups,
    scores: Callable[[Tensor], Tensor],
    keep_predictions: bool = False,
) -> Evaluation:
    """Evaluate a model on a whole split.

    Each process takes every R-th row, none twice, so nothing has to be dropped and the sums are exact.

    Args:
        engine: Device, precision, processes.
        model: The network; its mode is restored afterwards.
        inputs: Inputs of the split.
        num_images: Rows of the split.
        counts: *Training* images per class.
        groups: Class indices of the shot groups.
        scores: Turns the network's logits (N, C) into what softmax makes probabilities of.
        keep_predictions: Also return one row per image.
    """
    from longtail.evaluation.tallies import EvaluationMetrics, summarize  # seconds of import: training begins without

    def measure(batches: Iterator[BatchOutputs]) -> tuple[EvaluationMetrics, list[dict[str, Tensor]]]:
        # Looking at the labels of each batch would wait for the device; they are the split's own.
        metric = EvaluationMetrics(counts.num_classes, validate_args=False).to(float64_device(engine.device))
        predictions: list[dict[str, Tensor]] = []
        for logits, _, labels, rows in batches:
            adjusted = scores(logits)
            metric.update(adjusted, labels)
            if keep_predictions:
                predictions.append(predict_rows(adjusted, labels, rows))
        return metric, predictions

    every_rth = torch.arange(engine.rank, num_images, engine.world_size)
    metric, predictions = forward_pass(engine, model, inputs, every_rth, measure)
    summary = summarize(metric, counts, groups)
    return Evaluation(summary, _gather(engine, predictions) if keep_predictions else {})


def collect_logits(engine: Engine, model: nn.Module, inputs: Inputs[Any], *, num_images: int) -> tuple[Tensor, Tensor]:
    """Return the network's logits, float32 (N, C), and the labels (N,) of a whole split, in row order, on the CPU.

    For what has to see a split as a whole, such as choosing a temperature. Each process computes all of it.

    Args:
        engine: Device and precision.
        model: The network; its mode is restored afterwards.
        inputs: Inputs of the split.
        num_images: Rows of the split, N.
    """
    parts = forward_pass(
        engine,
        model,
        inputs,
        torch.arange(num_images),
        lambda batches: [(batch.logits.cpu(), batch.labels.cpu()) for batch in batches],
    )
    logits, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return logits, labels


def predict_rows(scores: Tensor, labels: Tensor, rows: Tensor) -> dict[str, Tensor]:
    """Return the columns of the predictions of a batch.

    Args:
        scores: Logits, adjusted and scaled: softmax gives the probabilities, (N, C).
        labels: int64 (N,).
        rows: int64 (N,), the row of each image in its split.
    """
    log_probabilities = scores.log_softmax(dim=1)
    # As the metric has it: of several classes with the same score, which bfloat16 makes of close ones, the first.
    prediction = log_probabilities.max(dim=1).indices
    top = log_probabilities.topk(min(TOP, scores.shape[1]), dim=1).indices
    classes = top.gather(1, (top != prediction[:, None]).int().argsort(dim=1, stable=True))
    classes[:, 0] = prediction  # where more classes are equal than are kept
    # To the last bit what a threshold was chosen from: the exponential of a logarithm may fall short of it.
    probabilities = scores.softmax(dim=1).gather(1, classes)
    return {
        "index": rows,
        "label": labels,
        "prediction": prediction,
        "confidence": probabilities[:, 0],
        "probability_true": log_probabilities.gather(1, labels[:, None])[:, 0].exp(),
        "top5": classes,
        "top5_probabilities": probabilities,
    }


def _gather(engine: Engine, batches: list[dict[str, Tensor]]) -> dict[str, Any]:
    """Join the columns of all batches of all processes, in row order."""
    # They leave the device here, all at once: to fetch those of each batch would wait for it.
    ours = {name: torch.cat([part[name] for part in batches]).cpu().numpy() for name in (batches[0] if batches else ())}
    parts = [part for part in engine.gather(ours) if part]
    if not parts:
        return {}
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(joined["index"], kind="stable")
    return {name: values[order] for name, values in joined.items()}


def cluster_numbers(split: Split, column: str | None) -> IntArray | None:
    """Return for each image the number of the group it belongs to; None where the split has no such column.

    Args:
        split: The images.
        column: The column whose values hold images together, or None.
    """
    if column is None or not split.has_column(column):
        return None
    return group_numbers(groups_of(split, column))


def with_group_intervals(evaluation: Evaluation, split: Split, column: str | None) -> Evaluation:
    """Return an evaluation with intervals that count images of one group as far as they tell different things.

    Args:
        evaluation: With its predictions.
        split: The images evaluated.
        column: The column whose values hold images together; without one, or where the split has no such column, the
            evaluation is returned as it is.
    """
    numbers = cluster_numbers(split, column)
    if column is None or numbers is None or not evaluation.predictions:
        return evaluation
    columns, size = evaluation.predictions, len(evaluation.summary["per_class"])
    label, prediction = columns["label"], columns["prediction"]
    worth = effective_sample_size(label, prediction, numbers[columns["index"]], size, unit=column)
    right, images, predicted = (
        np.bincount(values, minlength=size).astype(float) for values in (label[label == prediction], label, prediction)
    )
    return replace(evaluation, summary=add_intervals(evaluation.summary, right, images, predicted, worth))


def prediction_table(
    evaluation: Evaluation, split: Split, classes: Sequence[str], *, group_column: str | None = None
) -> dict[str, Any]:
    """Return the columns of ``predictions.parquet``: predictions, image paths and class names.

    Args:
        evaluation: With its predictions.
        split: The evaluated split.
        classes: Class names by index, C.
        group_column: The column that groups images; it becomes the column ``group``, null where empty.
    """
    columns = dict(evaluation.predictions)
    index, label, prediction = (columns.pop(name) for name in ("index", "label", "prediction"))
    names, paths = np.asarray(classes, dtype=object), split.places()
    groups = {}
    if group_column is not None and split.has_column(group_column):
        names_of_groups = groups_of(split, group_column)
        groups = {"group": [names_of_groups[row] or None for row in index.tolist()]}
    return {
        "index": index,
        "path": [paths[row] for row in index],
        "label": label,
        "prediction": prediction,
        "label_name": names[label],
        "prediction_name": names[prediction],
        **{name: list(values) if values.ndim > 1 else values for name, values in columns.items()},
        **groups,
    }
