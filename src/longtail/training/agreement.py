"""Check before training that all processes of a run read the same images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict

from longtail.config.schema import EXECUTION, RunConfig, flatten
from longtail.errors import LongtailError
from longtail.training.engine import Engine
from longtail.training.prepare import PreparedData

_PLACES = frozenset(
    {"data.source", "model.weights"}
)  # paths may differ between hosts; the images are compared by their hash


def require_agreement(engine: Engine, facts: Callable[[], Mapping[str, str]]) -> None:
    """Check that all processes agree on some facts; every process has to call this, and all of them raise.

    Args:
        engine: The engine of this process.
        facts: Called if there are several processes; returns by name what has to be the same in all of them.

    Raises:
        LongtailError: A process failed to determine its facts (this one with its own error), or two differ.

    Example:
        >>> from longtail.config.schema import TrainingConfig
        >>> require_agreement(Engine(TrainingConfig(device="cpu")), lambda: {"classes": "ant, bee"})
    """
    if engine.world_size == 1:
        return
    own: Mapping[str, str] = {}
    problem: Exception | None = None
    try:
        own = facts()
    except (LongtailError, OSError) as error:
        problem = error
    everywhere = engine.gather_words({"problem": str(problem)} if problem else own)
    if problem is not None:
        raise problem
    for rank, table in enumerate(everywhere):
        if "problem" in table:
            raise LongtailError(f"process {rank} of {engine.world_size} failed: {table['problem']}")
    for name in own:
        if len({table.get(name) for table in everywhere}) > 1:
            raise LongtailError(
                f"the {engine.world_size} processes do not agree on the {name}: let all of them read the same "
                "source with the same options and versions."
            )


def run_facts(config: RunConfig, prepared: PreparedData) -> dict[str, str]:
    """Return hashes of what all processes of a run have to agree on: classes, images and configuration.

    Args:
        config: The resolved configuration.
        prepared: The data.
    """
    options = {
        key: value
        for key, value in flatten(asdict(config)).items()
        if key.rsplit(".", 1)[-1] not in EXECUTION and key not in _PLACES
    }
    counts = {name: prepared.data.counts(name).counts for name in prepared.data.splits}
    facts: dict[str, object] = {"classes": prepared.counts.names, "images of each class": counts}
    facts |= {"images": prepared.data_hash, "configuration": options}
    return {name: hashlib.sha256(json.dumps(value).encode()).hexdigest() for name, value in facts.items()}
