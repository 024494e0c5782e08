"""model_card: describe a run to people who did not train it, in the format of the Hugging Face hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from longtail.counts import FEW_IMAGES
from longtail.data.sources import last_name
from longtail.errors import LongtailError
from longtail.formatting import figure_text
from longtail.models.timm import TIMM_PREFIX
from longtail.run.folder import CONFIG_FILE, METRICS_FILE, MODEL_FILE, read_options
from longtail.run.model_files import ModelInfo, load_info
from longtail.run.result import read_adjusted, read_metrics

_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "many": "many-shot classes",
    "medium": "medium-shot classes",
    "few": "few-shot classes",
    "worst_class": "worst class",
}
_HUB_METRICS = ("accuracy", "balanced_accuracy")  # of the same name there
_MOST_CLASSES = 200  # rows of the table; nobody reads a card of thousands


def model_card(run: str | os.PathLike[str]) -> str:
    """Write the model card of a run from its files: metadata in YAML, then Markdown.

    Data, training counts, groups, figures with their intervals, intended use and limits. The figures are those of the
    model as it predicts: of an adjusted run from ``adjusted.json``, else from ``metrics.json``. Where an adjusted run
    has only those before the adjustment, the card says so and the metadata for machines leave them out. Of the source
    only the last name is shown, not the folders of the machine it lies on.

    Args:
        run: The RUN folder; ``metrics.json``, ``adjusted.json`` and ``config.yaml`` may be missing.

    Returns:
        The text of ``README.md``.

    Raises:
        LongtailError: ``model.json`` is missing or damaged, or one of the others is damaged.
    """
    folder = Path(run)
    info = load_info(folder)
    metrics = read_metrics(folder).plain() if (folder / METRICS_FILE).is_file() else {}
    adjusted = None if info.adjustment is None else read_adjusted(folder, info.adjustment)
    config = read_options(folder) if (folder / CONFIG_FILE).is_file() else {}
    return _render(info, metrics, adjusted, config)


def _render(
    info: ModelInfo, metrics: Mapping[str, Any], adjusted: Mapping[str, Any] | None, config: Mapping[str, Any]
) -> str:
    test = (metrics if adjusted is None else adjusted).get("test") or {}
    before_adjustment = info.adjustment is not None and adjusted is None
    source = last_name(str(config.get("data", {}).get("source", "")))
    intervals = test.get("intervals") or {}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # noqa: S701 - Markdown, whose own characters `cell` takes care of
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"cell": _cell, "percent": figure_text}
    return environment.get_template("card.md.j2").render(
        metadata=_metadata(info, {} if before_adjustment else test, source, config),
        info=info,
        before=before_adjustment,
        source=source,
        config=config,
        metrics=metrics,
        figures=[
            (words, test[name], intervals.get(name)) for name, words in _FIGURES.items() if test.get(name) is not None
        ],
        classes=_classes(info, test),
        hidden=max(0, len(info.classes) - _MOST_CLASSES),
        groups=metrics.get("groups", {}),
        test=test,
        images=sum(info.counts),
        title=source or info.model.name,
        few=FEW_IMAGES,
        assumes=info.prior if info.adjustment is None else info.adjustment.prior,
    )


def _metadata(info: ModelInfo, test: Mapping[str, Any], source: str, config: Mapping[str, Any]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    on_hub = source.removeprefix("hf:") if source.startswith("hf:") and "/" in source else None
    results = [
        EvalResult(
            task_type="image-classification",
            metric_type=name,
            metric_value=round(test[name], 6),
            dataset_type=on_hub or "imagefolder",
            dataset_name=source,
            dataset_split="test",
        )
        for name in _HUB_METRICS
        if test.get(name) is not None
    ]
    timm_name = info.model.name.removeprefix(TIMM_PREFIX).partition("+")[0]
    pretrained = info.model.name.startswith(TIMM_PREFIX) and config.get("model", {}).get("pretrained")
    return ModelCardData(
        library_name="longtail",
        pipeline_tag="image-classification",
        tags=["image-classification", "long-tailed", *([info.recipe] if info.recipe else [])],
        datasets=[on_hub] if on_hub else None,
        base_model=f"timm/{timm_name}" if pretrained else None,
        model_name=source or info.model.name,
        eval_results=results or None,
    ).to_yaml()


def _classes(info: ModelInfo, test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the class table, rarest last."""
    measured = test.get("per_class") or [{}] * len(info.classes)
    if len(measured) != len(info.classes):
        raise LongtailError(
            f"the figures are of {len(measured)} classes and {MODEL_FILE} of {len(info.classes)}: "
            "copy both from one run."
        )
    rows = [
        {
            "name": name,
            "count": count,
            "group": row.get("group") or "",
            "test": row.get("test_count"),
            "recall": row.get("recall"),
            "interval": row.get("recall_interval"),
        }
        for name, count, row in zip(info.classes, info.counts, measured, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["count"])[:_MOST_CLASSES]


def _cell(text: object) -> str:
    """Escape a text so that it stays in its cell of a table and has no markup."""
    words = " ".join(str(text).split())
    return "".join(f"\\{character}" if character in "\\`*_{}[]<>#|~" else character for character in words)
