"""The summary of a run that is printed before it starts."""

from __future__ import annotations

from collections.abc import Mapping

from longtail.config.check import check_stages
from longtail.config.schema import RunConfig, StageConfig

_PARTS = {"all": "all weights", "classifier": "the classifier", "scales": "one scale per class"}


def outline(config: RunConfig) -> list[str]:
    r"""Summarize what is trained: the automatic choices with their reasons, else network and stages, a line each.

    Args:
        config: The configuration of the run.

    Example:
        >>> print(*outline(RunConfig()), sep="\n")
        network: resnet32 from nothing, auto classifier, 32 pixels, ...
        stage 1: 1 epoch of all weights, loss cross-entropy, batches of 64, sgd at 0.1, constant
    """
    if config.reasons:
        return list(config.reasons)
    model = config.model
    named = {"recipe": config.recipe, "mode": config.mode}
    origin = ", ".join(f"{word} {name}" for word, name in named.items() if name)
    weights = f"from {model.weights}" if model.weights else "pretrained" if model.pretrained else "from nothing"
    adapters = ", with adapters" if model.adapter != "none" else ""
    network = (
        f"network: {model.name} {weights}{adapters}, {model.head} classifier, {config.data.image_size} pixels, "
        f"{config.training.precision}"
    )
    stages = [f"stage {number}: {_stage(stage)}" for number, stage in check_stages(config).items()]
    return [network + (f" ({origin})" if origin else ""), *stages]


def _stage(stage: StageConfig) -> str:
    words = [
        f"{stage.epochs} epoch{'s' * (stage.epochs != 1)} of {_PARTS[stage.train]}",
        f"loss {stage.loss.name}",
        f"batches of {stage.batch_size}",
        f"{stage.optimizer.name} at {stage.optimizer.lr:g}",
        stage.schedule.name,
    ]
    words += [f"{stage.sampler} draws"] if stage.sampler != "shuffle" else []
    words += [stage.mixing] if stage.mixing != "none" else []
    return ", ".join(words + ([f"{stage.cached_views} stored views"] if stage.cached_views else []))


def outlines(runs: Mapping[str, RunConfig]) -> list[str]:
    """Summarize what the runs of a grid train, each line once if it is the same for all of them.

    Args:
        runs: Configurations by the name of the run.

    Example:
        >>> ce, gcl = RunConfig(reasons=["training: linear", "recipe: ce"]), RunConfig(reasons=["training: linear"])
        >>> outlines({"ce": ce, "gcl": gcl})
        ['training: linear', 'ce: recipe: ce']
    """
    summaries = {name: outline(config) for name, config in runs.items()}
    owners = {
        line: [name for name, lines in summaries.items() if line in lines]
        for line in dict.fromkeys(line for lines in summaries.values() for line in lines)
    }
    return [line if len(names) == len(runs) else f"{', '.join(names)}: {line}" for line, names in owners.items()]
