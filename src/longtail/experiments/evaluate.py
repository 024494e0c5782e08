"""Evaluate a finished run again: on a split of its own source, or on another source with the same class names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from longtail.config.schema import RunConfig
from longtail.counts import ClassCounts, IntArray
from longtail.data.class_names import match_classes, require_known
from longtail.data.dataset import SPLIT_NAMES, ImageData, Split
from longtail.data.image_hashes import count_shared
from longtail.data.loading.loaders import Loader, SinglePassLoader
from longtail.data.loading.workers import Decoder
from longtail.data.sources.columns import Columns
from longtail.data.sources.paths import PACKAGED_SOURCES, absolute_source, source_path
from longtail.data.sources.registry import load_source
from longtail.data.sources.table_splits import split_name
from longtail.errors import LongtailError, UsageError, nearest
from longtail.evaluation.groups import Groups
from longtail.evaluation.selective import SelectiveSummary, coverage_curve, selective_summary, threshold_for_coverage
from longtail.experiments.own_images import OwnImages, own_images, run_config
from longtail.run.model_files import load_run, refuse_swapped
from longtail.run.model_info import ModelInfo
from longtail.training.agreement import require_agreement
from longtail.training.clustered_intervals import units, with_group_intervals
from longtail.training.engine import Engine
from longtail.training.evaluate import Evaluation, evaluate
from longtail.training.experiment import make_engine
from longtail.training.stages import make_transform

_SEEN = {"train": "were trained on", "validation": "were in the validation split"}
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Shares of the images for which the coverage table says how many of those kept are right."""


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
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Evaluate a run, with the adjustment and the threshold that its model.json holds.

    Args:
        run: RUN folder of a finished run.
        source: Another SOURCE, whose classes are matched by name; the run's own when None.
        split: Split to evaluate on; another source with one split only is taken whole.
        label_column: The column of the other source that holds the class, where it is not found by its name.
        image_column: The column that holds the image, likewise.
        split_column: The column that says train, validation or test, where it is not found by its name.
        adjustment: False evaluates the model as it was trained.
        coverage: Also return how many images are kept, and how many of them are right, at some thresholds.
        moved_to: New SOURCE of the run, if its images have moved.
        say: Called with what the user should know about the images, one sentence at a time.

    Returns:
        What ``metrics.json`` holds for a split; where the model has a threshold, also ``sure``, what it keeps; with
        ``coverage`` a list of the same for other thresholds; and for another source ``seen``, the number of its images
        in the training and in the validation split of the run, None if unknown.

    Raises:
        UsageError: There is no such split.
        LongtailError: The run or its images are missing, or a class name is unknown to the model.
    """
    split = _split_name(split)
    if source is not None:
        refuse_swapped(run, source)
    model, info = load_run(run)
    config = run_config(run, moved_to)
    counts = ClassCounts(info.counts, info.classes)
    seen: dict[str, Any] = {}
    if source is None:
        Columns(image_column, label_column, split_column).refuse("the run's own source is read as it was trained on")
        own = own_images(run, config, info)
        if moved_to is not None:
            own.require_same()
        rows = _own_split(own, config.data.source, split, say)
    else:
        data = load_source(source, label_column=label_column, image_column=image_column, split_column=split_column)
        data = match_classes(data, info.classes)
        for finding in data.findings:
            if finding.kind != "class-untrained":  # the model was trained on another source
                say(f"note: {finding}")
        rows = _foreign_split(data, split, info.classes, say)
        seen = {"seen": _seen(run, config, info, source, rows, say)}
    info = info if adjustment else info.unadjusted()
    engine = make_engine(config)
    require_agreement(engine, lambda: {"images": rows.fingerprint()})
    groups = counts.groups(many=config.data.many, few=config.data.few, by=config.data.groups)
    result = evaluate(
        engine, model.to(engine.device), split_loader(rows, config, info, engine), make_transform(config.data),
        num_images=len(rows), counts=counts, groups=groups, scores=info.scores,
        keep_predictions=coverage or info.threshold is not None or config.data.group_column is not None,
    )  # fmt: skip
    column = config.data.group_column
    result = with_group_intervals(result, rows, column)
    sure = _certainty(result, groups, units(rows, column), info.threshold, coverage=coverage)
    return dict(result.summary) | seen | sure


def _split_name(word: str) -> str:
    name = split_name(word)
    if name is None:
        raise UsageError(f"there is no split {word!r}.{nearest(word, SPLIT_NAMES)}")
    return name


def _certainty(
    result: Evaluation, groups: Groups, unit: IntArray | None, threshold: float | None, *, coverage: bool
) -> dict[str, Any]:
    if not result.predictions:
        return {}
    said = result.predictions
    right = said["prediction"] == said["label"]
    together = None if unit is None else unit[said["index"]]

    def at(value: float) -> SelectiveSummary:
        return selective_summary(said["confidence"], right, said["label"], groups, value, cluster=together)

    found: dict[str, Any] = {} if threshold is None else {"sure": at(threshold)}
    if coverage:
        curve = coverage_curve(said["confidence"], right)
        found["coverage"] = [at(threshold_for_coverage(curve, share)) for share in COVERAGES]
    return found


def split_loader(rows: Split, config: RunConfig, info: ModelInfo, engine: Engine) -> Loader:
    """Return a loader for a single pass of a split through the network of a run."""
    size = info.preprocessing
    decoder = Decoder(rows, size.resize, size.size, size.interpolation)
    return SinglePassLoader(decoder, engine.device, config.data.workers)


def _own_split(own: OwnImages, source: str, name: str, say: Callable[[str], object]) -> Split:
    for note in (own.difference and f"{own.difference}.", *own.notes):
        if note:
            say(f"note: {note}")
    rows = own.split(name)
    if rows is None:
        raise UsageError(f"{source!r} has no split {name!r}.{nearest(name, own.prepared.data.splits)}")
    return rows


def _foreign_split(data: ImageData, name: str, classes: tuple[str, ...], say: Callable[[str], object]) -> Split:
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


def _seen(
    run: Path, config: RunConfig, info: ModelInfo, source: str, rows: Split, say: Callable[[str], object]
) -> dict[str, int] | None:
    """Count the images that the run was trained on, and those it was validated on."""
    try:
        if not _at_hand(config.data.source, source):
            raise LongtailError(f"its own source, {config.data.source!r}, is not on this machine.")
        own = own_images(run, config, info).prepared
        seen = {name: 0 if (split := own.split(name)) is None else count_shared(rows, split) for name in _SEEN}
    except LongtailError as error:
        say(f"note: whether {run} was trained on some of these images is not known: {error}")
        return None
    for name, count in seen.items():
        if count:
            say(
                f"note: {count:,} of these {len(rows):,} images {_SEEN[name]}: the figures are not for new images only."
            )
    return seen


def _at_hand(own: str, other: str) -> bool:
    """Whether a run's own source can be read without fetching it."""
    path = source_path(own)
    return (path is not None and path.exists()) or own in (*PACKAGED_SOURCES, absolute_source(other))
