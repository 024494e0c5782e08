"""The configuration that a command line asks for, without training it."""

from __future__ import annotations

from longtail.commands.arguments import parse
from longtail.commands.train import requested_run, train
from longtail.config.schema import RunConfig


def requested(*words: str) -> RunConfig:
    """Return the configuration of ``longtail train WORDS``."""
    values = parse("longtail train", train, words)
    assert isinstance(values, dict)
    for name in ("out", "resume", "moved_to", "quiet"):
        values.pop(name, None)
    return requested_run(**values)[0]
