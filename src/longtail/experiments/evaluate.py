"""Evaluate a finished run again: on a split of its own source, or on another source with the same class names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from longtail.config.options import EngineName
from longtail.console import Reporter
from longtail.counts import IntArray
from longtail.data.class_names import match_classes, require_known
from longtail.data.dataset import SPLIT_NAMES, ImageData, Split
from longtail.data.image_hashes import count_shared
from longtail.data.sources.builtin import PACKAGED
from longtail.data.sources.registry import absolute_source, load_source, source_path
from longtail.data.sources.table_columns import Columns
from longtail.data.sources.table_splits import split_name
from longtail.errors import LongtailError, UsageError, nearest
from longtail.evaluation.metrics import Groups
from longtail.evaluation.selective import SelectiveSummary, coverage_curve, selective_summary, threshold_for_coverage
from longtail.experiments.finished_run import FinishedRun, open_run
from longtail.run.layout import refuse_swapped
from longtail.training.split_evaluation import Evaluation, cluster_numbers, evaluate, with_group_intervals

Say = Callable[[str], object]
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Shares of the images that the coverage table has a row for."""


def evaluate_run(
    run: Path,
    source: str | None = None,
    *,
    split: str = "test",
    label_column: str | None = None,
    image_column: str | None = None,
    split_column: str | None = None,
    adjustment: bool = True,
    coverage: bool = False,
    moved_to: str | None = None,
    engine: EngineName | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Evaluate a run, with the adjustment and the threshold that its model.json holds.

    Args:
        run: RUN folder of a finished run.
        source: Another SOURCE, whose classes are matched by name; the run's own when None.
        split: Split to evaluate on; another source with one split only is taken whole.
        label_column: The column of the other source that holds the class, where it is not found by its name.
        image_column: The column that holds the image, where it is not found by its name.
        split_column: The column that says train, validation or test, where it is not found by its name.
        adjustment: False evaluates the model as it was trained.
        coverage: Also return the coverage and the accuracy of the images kept, at some thresholds.
        moved_to: New SOURCE of the run, if its images have moved.
        engine: What runs the network, as ``training.engine``; what the run recorded when None.
        reporter: Shows notes on the images, and the progress of the network; silent when None.

    Returns:
        The figures of a split, as in ``metrics.json``; where the model has a threshold, also ``sure``, the coverage
        at it; with ``coverage`` a list of the same for other thresholds; and for another source ``seen``, the number
        of its images in the training and in the validation split of the run, None if unknown.

    Raises:
        UsageError: The split is unknown.
        LongtailError: The run or its images are missing, or a class name is unknown to the model.
    """
    reporter = reporter or Reporter(quiet=True)
    say, name = reporter.say, split_name(split)
    if name is None:
        raise UsageError(f"unknown split {split!r}.{nearest(split, SPLIT_NAMES)}")
    if source is not None:
        refuse_swapped(run, source)
    opened = open_run(run, moved_to, engine)
    seen: dict[str, Any] = {}
    if source is None:
        Columns(image_column, label_column, split_column).refuse("the run's own source is read as it was trained on")
        rows = _own_split(opened, name, say, must_be_same=moved_to is not None)
    else:
        data = load_source(source, label_column=label_column, image_column=image_column, split_column=split_column)
        data = match_classes(data, opened.info.classes)
        for finding in data.findings:
            if finding.kind != "class-untrained":  # the model was trained on another source
                say(f"note: {finding}")
        rows = _foreign_split(data, name, opened.info.classes, say)
        seen = {"seen": _count_seen(opened, source, rows, say)}
    info = opened.info if adjustment else opened.info.unadjusted()
    column = opened.config.data.group_column
    rows = opened.engine.agree(lambda: rows, lambda split: {"images": split.fingerprint()})
    evaluation = evaluate(
        opened.engine,
        *opened.features({name: rows}, reporter, source or "").single_pass(name),
        num_images=len(rows),
        counts=opened.counts,
        groups=opened.groups,
        scores=info.scores,
        keep_predictions=coverage or info.threshold is not None or column is not None,
    )
    evaluation = with_group_intervals(evaluation, rows, column)
    selective = _selective(evaluation, opened.groups, cluster_numbers(rows, column), info.threshold, coverage=coverage)
    return dict(evaluation.summary) | seen | selective


def _selective(
    evaluation: Evaluation, groups: Groups, cluster: IntArray | None, threshold: float | None, *, coverage: bool
) -> dict[str, Any]:
    """Return ``sure`` and ``coverage``, each where it is asked for."""
    if not evaluation.predictions:
        return {}
    index, label, prediction, confidence = (
        evaluation.predictions[name] for name in ("index", "label", "prediction", "confidence")
    )
    right = prediction == label

    def at(value: float) -> SelectiveSummary:
        return selective_summary(
            confidence, right, label, groups, value, cluster=None if cluster is None else cluster[index]
        )

    selective: dict[str, Any] = {} if threshold is None else {"sure": at(threshold)}
    if coverage:
        curve = coverage_curve(confidence, right)
        selective["coverage"] = [at(threshold_for_coverage(curve, share)) for share in COVERAGES]
    return selective


def _own_split(run: FinishedRun, name: str, say: Say, *, must_be_same: bool) -> Split:
    prepared = run.images(say, must_be_same=must_be_same)
    rows = prepared.split(name)
    if rows is None:
        raise UsageError(f"{run.config.data.source!r} has no split {name!r}.{nearest(name, prepared.data.splits)}")
    require_known(prepared.data, rows, run.info.classes)
    return rows


def _foreign_split(data: ImageData, name: str, classes: tuple[str, ...], say: Say) -> Split:
    rows = data.splits.get(name)
    if rows is None:
        if len(data.splits) > 1:
            raise UsageError(f"{data.source!r} has no split {name!r}.{nearest(name, data.splits)}")
        rows = data.splits["train"]
        say(f"note: {data.source!r} is not divided into splits: all of its {len(rows)} images are evaluated.")
    if not len(rows):
        raise LongtailError(f"{data.source!r} has no images in its split {name!r}: add some, or name another --split.")
    require_known(data, rows, classes)
    return rows


def _count_seen(run: FinishedRun, source: str, rows: Split, say: Say) -> dict[str, int] | None:
    """Count the images that the run was trained on, and those it was validated on."""
    own_source = run.config.data.source
    try:
        path = source_path(own_source)
        is_here = (path is not None and path.exists()) or own_source in (*PACKAGED, absolute_source(source))
        if not is_here:
            raise LongtailError(f"its own source, {own_source!r}, is not on this machine.")
        prepared = run.images()
        seen = {
            name: 0 if (split := prepared.split(name)) is None else count_shared(rows, split)
            for name in ("train", "validation")
        }
    except LongtailError as error:
        say(f"note: whether {run.folder} was trained on some of these images is not known: {error}")
        return None
    for words, count in zip(("were trained on", "were in the validation split"), seen.values(), strict=True):
        if count:
            say(f"note: {count:,} of these {len(rows):,} images {words}: the figures are not for new images only.")
    return seen
