"""The options that a run was started with, next to those that are asked for now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from longtail.config.build import with_options
from longtail.config.options import flatten
from longtail.config.resolve import complete
from longtail.config.schema import EXECUTION, RunConfig
from longtail.run.layout import read_config
from longtail.run.portfolio import read_portfolio
from longtail.run.search import as_asked, read_search


class Difference(NamedTuple):
    """An option with two values.

    Attributes:
        option: Its dotted name.
        before: Its value in the run; None if it has none there.
        now: The value that is asked for; None if none is.
    """

    option: str
    before: Any
    now: Any


def with_execution(made: RunConfig, asked: RunConfig) -> RunConfig:
    """Return a configuration with those options of another one that only say where and how fast a run goes.

    Example:
        >>> made, asked = (with_options(RunConfig(), options) for options in ({"data.folds": 3}, {"data.workers": 2}))
        >>> config = with_execution(made, asked)
        >>> config.data.folds, config.data.workers
        (3, 2)
    """
    options = flatten(asdict(asked))
    of_execution = EXECUTION - {"reasons", "record_dynamics"}  # what was chosen stays; all epochs are recorded or none
    return with_options(made, {key: value for key, value in options.items() if key.rpartition(".")[2] in of_execution})


def continued(run: Path, asked: RunConfig) -> RunConfig:
    """Return the configuration that a run goes on with: its own, with what it has chosen, at the speed asked for now.

    Raises:
        LongtailError: The configuration of the run cannot be read.
    """
    return with_execution(complete(read_config(run)), asked)


def first_difference(run: Path, config: RunConfig, *, ignored: Collection[str] = ()) -> Difference | None:
    """Return the first option that differs from the run's, apart from those of speed; None where a run is the same.

    Choices that a run made for itself, such as its classifier, are compared as they were before: still open.

    Args:
        run: The RUN folder.
        config: What is asked for, resolved.
        ignored: Further options that may differ, by their dotted names.

    Raises:
        LongtailError: The configuration of the run cannot be read.
    """
    made = asdict(complete(read_config(run)))
    made = as_asked(made, read_portfolio(run), read_search(run))
    before, now = (flatten(options) for options in (made, asdict(config)))
    compared = [key for key in [*now, *before] if key.rpartition(".")[2] not in EXECUTION and key not in ignored]
    key = next((key for key in compared if before.get(key) != now.get(key)), None)
    return None if key is None else Difference(key, before.get(key), now.get(key))
