"""What a finished run says of itself: the values of ``metrics.json`` and of ``model.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from longtail.config.schema import RunConfig, StageConfig
from longtail.models.model import LongTailModel
from longtail.run.environment import versions
from longtail.run.model_info import ModelInfo, ModelSpec, Preprocessing
from longtail.run.write import throughput
from longtail.training.assumed_prior import assumed_prior
from longtail.training.evaluate import Evaluation
from longtail.training.prepare import PreparedData

FORMAT = 1


def run_metrics(
    config: RunConfig,
    prepared: PreparedData,
    stages: Mapping[int, StageConfig],
    *,
    found: Mapping[str, Evaluation],
    stage_results: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float],
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the values of ``metrics.json``: figures first, then all that they follow from.

    Args:
        config: The resolved configuration.
        prepared: The data.
        stages: The stages that were trained, by number.
        found: The evaluation of each split after the last stage.
        stage_results: Figures after each stage.
        history: One row an epoch.
        seconds: What took how long beside the epochs.
        machine: Hardware and processes.
    """
    whole = {
        f"stage{index}": round(sum(row["seconds"] for row in history if row["stage"] == index), 3) for index in (1, 2)
    } | {name: round(value, 3) for name, value in seconds.items()}
    return {
        "format": FORMAT,
        "recipe": config.recipe,
        "classes": list(prepared.counts.names),
        "train_counts": list(prepared.counts),
        "groups": {name: [int(i) for i in rows] for name, rows in prepared.groups.items()},
        "test": found["test"].summary if "test" in found else None,
        "validation": found["validation"].summary if "validation" in found else None,
        "stages": stage_results,
        "losses": {f"stage{index}": {"name": stage.loss.name} | stage.loss.options for index, stage in stages.items()},
        "seeds": {
            "seed": config.training.seed, "subset_seed": config.data.subset_seed, "split_seed": config.data.split_seed,
        },
        "data_hash": prepared.data_hash,
        "notes": list(prepared.notes),
        "unreadable": prepared.unreadable,
        "versions": versions(),
        "hardware": dict(machine),
        "seconds": {"total": round(sum(whole.values()), 3)} | whole,
        "throughput": {f"stage{index}": throughput(history, index) for index in stages},
    }  # fmt: skip


def main_figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a summary without those of single classes.

    Example:
        >>> main_figures({"accuracy": 0.5, "per_class": []})
        {'accuracy': 0.5}
    """
    return {key: value for key, value in summary.items() if key != "per_class"}


def model_info(
    config: RunConfig, prepared: PreparedData, model: LongTailModel, stage: StageConfig, scale: float
) -> ModelInfo:
    """Return what ``model.json`` says of a model after a stage.

    Args:
        config: The resolved configuration.
        prepared: The data.
        model: The network.
        stage: The last stage that it went through.
        scale: What its logits are multiplied by before softmax.
    """
    data = config.data
    return ModelInfo(
        model=ModelSpec(name=config.model.name, head=model.head_name),
        classes=prepared.counts.names,
        counts=prepared.counts.counts,
        preprocessing=Preprocessing(
            size=data.image_size,
            resize=data.resize,
            mean=tuple(data.mean),
            std=tuple(data.std),
            interpolation=data.interpolation,
        ),
        logit_scale=scale,
        prior=assumed_prior(stage, prepared.counts),
        recipe=config.recipe,
        versions=versions(),
    )
