"""One evaluation pass: every image once, sums for the metrics, and one row per image for the predictions file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from accelerate.utils import find_executable_batch_size, gather_object
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from longtail.counts import ClassCounts
from longtail.data.loading.loaders import Loader
from longtail.data.transforms.augmentation import Normalize
from longtail.errors import LongtailError
from longtail.evaluation.groups import Groups
from longtail.evaluation.summary import Summary
from longtail.training.engine import Engine

if TYPE_CHECKING:
    from longtail.data.dataset import Split
    from longtail.evaluation.metrics import EvaluationMetrics

TOP = 5
Result = TypeVar("Result")


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a split and, on request, what the model said of each image.

    Attributes:
        summary: The plain numbers of ``metrics.json``.
        predictions: Columns by name, in row order; empty where not asked for.
    """

    summary: Summary
    predictions: dict[str, Any]


def evaluate(
    engine: Engine,
    model: nn.Module,
    loader: Loader,
    transform: Normalize,
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
        loader: Batches of uint8 images of the split.
        transform: Normalisation.
        num_images: Rows of the split.
        counts: *Training* images per class.
        groups: Class indices of the shot groups.
        scores: Turns the network's logits (N, C) into what softmax makes probabilities of.
        keep_predictions: Also return one row per image.
    """
    from longtail.evaluation.metrics import EvaluationMetrics, summarize  # seconds of import: training begins without

    rows = torch.arange(engine.rank, num_images, engine.world_size)

    def measure(batch_size: int) -> tuple[EvaluationMetrics, list[dict[str, Tensor]]]:
        # Looking at the labels of each batch would wait for the device; they are the split's own.
        metric = EvaluationMetrics(counts.num_classes, validate_args=False).to(engine.device)
        kept: list[dict[str, Tensor]] = []
        with engine.inference(model):
            for batch in loader.batches(rows, batch_size):
                given = scores(model(engine.laid_out(transform.normalize(batch.images))).float())
                metric.update(given, batch.labels)
                if keep_predictions:
                    kept.append(_rows(given, batch.labels, batch.rows))
        return metric, kept

    metric, kept = largest_batch(measure, engine.config.evaluation_batch or loader.large_batch)
    summary = summarize(metric, counts, groups)
    return Evaluation(summary, _gather(engine, kept) if keep_predictions else {})


def collect_logits(
    engine: Engine, model: nn.Module, loader: Loader, transform: Normalize, *, num_images: int
) -> tuple[Tensor, Tensor]:
    """Return the network's logits, float32 (N, C), and the labels (N,) of a whole split, in row order, on the CPU.

    For what has to see a split as a whole, such as choosing a temperature. Each process computes all of it.

    Args:
        engine: Device and precision.
        model: The network; its mode is restored afterwards.
        loader: Batches of uint8 images of the split.
        transform: Normalisation.
        num_images: Rows of the split, N.
    """

    def measure(batch_size: int) -> list[tuple[Tensor, Tensor]]:
        with engine.inference(model):
            return [
                (model(engine.laid_out(transform.normalize(batch.images))).float().cpu(), batch.labels.cpu())
                for batch in loader.batches(torch.arange(num_images), batch_size)
            ]

    parts = largest_batch(measure, engine.config.evaluation_batch or loader.large_batch)
    logits, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return logits, labels


def largest_batch(work: Callable[[int], Result], first: int) -> Result:
    """Call ``work(batch_size)`` with ``first``, or with half of it, until it fits the memory.

    Raises:
        LongtailError: Not even one image fits.
    """
    size = first

    def halve() -> int:
        nonlocal size
        size //= 2
        if size == 0:
            raise LongtailError("one image does not fit the memory: use a smaller --data.image_size or network.")
        return size

    try:
        return work(size)
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
    # Only now, as the search begins with a collection of garbage that takes longer than evaluating features does.
    search: Callable[[], Result] = find_executable_batch_size(
        work, starting_batch_size=halve(), reduce_batch_size_fn=halve
    )
    return search()


def _rows(scores: Tensor, labels: Tensor, rows: Tensor) -> dict[str, Tensor]:
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


def _gather(engine: Engine, kept: list[dict[str, Tensor]]) -> dict[str, Any]:
    # They leave the device here, all at once: to fetch those of each batch would wait for it.
    own = [{name: torch.cat([part[name] for part in kept]).cpu().numpy() for name in kept[0]}] if kept else []
    parts = gather_object(own) if engine.world_size > 1 else own
    if not parts:
        return {}
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(joined["index"], kind="stable")
    return {name: values[order] for name, values in joined.items()}


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
    index = columns.pop("index")
    names, places = np.asarray(classes, dtype=object), split.places()
    groups = {}
    if group_column is not None and group_column in split.rows.column_names:
        values = split.column(group_column)
        groups = {"group": [None if values[row] in (None, "") else str(values[row]) for row in index.tolist()]}
    return {
        "index": index,
        "path": [places[row] for row in index],
        "label": columns.pop("label"),
        "prediction": columns.pop("prediction"),
        "label_name": names[evaluation.predictions["label"]],
        "prediction_name": names[evaluation.predictions["prediction"]],
        **columns,
        **{name: list(columns[name]) for name in ("top5", "top5_probabilities")},
        **groups,
    }
