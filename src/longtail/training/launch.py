"""Start a run in a new folder, or continue one from its last checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.data.dataset import ImageData
from longtail.errors import LongtailError
from longtail.run import checkpoint
from longtail.run.layout import SEARCH_FILE, WEIGHTS_FILE, refuse_existing, remove_config, write_config
from longtail.training.automatic_experiment import AutomaticExperiment
from longtail.training.engine import Engine
from longtail.training.experiment import Experiment
from longtail.training.loop import Callback


def start_run(
    config: RunConfig,
    out: Path,
    reporter: Reporter,
    *,
    source: ImageData | None = None,
    callbacks: Sequence[Callback] = (),
    begun: float | None = None,
) -> dict[str, Any]:
    """Train into a new folder and return the metrics.

    Args:
        config: Everything the run is made from, see :func:`longtail.config.resolve.resolve`.
        out: The RUN folder.
        reporter: Messages and progress bars for the user.
        source: The source of the images, where it has been read already.
        callbacks: Called before those of the run itself.
        begun: Reading of ``time.monotonic`` from which the time limit counts; now when not given.

    Raises:
        LongtailError: The folder holds something already.
    """
    refuse_existing(out)
    engine = Engine(config.training)
    was_there = out.exists()
    engine.wait()  # every process has looked at the folder before the first one writes to it
    if engine.is_main:
        write_config(out, config)
    try:
        experiment = _kind(config)(config, out, reporter, engine, source=source, callbacks=callbacks, begun=begun)
    except BaseException:  # nothing is trained yet: leave no trace, so that the same command works once it is fixed
        if engine.is_main:
            remove_config(out)
            (out / SEARCH_FILE).unlink(missing_ok=True)
            if not was_there:
                with suppress(OSError):  # somebody else has put a file there: leave it
                    out.rmdir()
        raise
    return experiment.run()


def resume_run(
    config: RunConfig, out: Path, reporter: Reporter, *, moved: bool = False, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Continue a run from its last checkpoint, from the start where it has none yet, and return the metrics.

    Args:
        config: The configuration of the run, completed where an earlier version wrote it.
        out: The RUN folder.
        reporter: Messages and progress bars for the user.
        moved: Whether the source of the configuration is a new path, which is stored once the images prove the same.
        callbacks: Called before those of the run itself.

    Raises:
        LongtailError: The run is finished, or its checkpoint does not fit.
    """
    state = checkpoint.load_checkpoint(out)
    if state is None and (out / WEIGHTS_FILE).is_file():
        raise LongtailError(
            f"{out} holds a trained model and no checkpoint to continue from, as a finished run removes it: train into "
            "a new --out."
        )
    experiment = _kind(config)(config, out, reporter, Engine(config.training), state=state, callbacks=callbacks)
    if moved and experiment.engine.is_main:
        write_config(out, experiment.config)
    return experiment.run()


def _kind(config: RunConfig) -> type[Experiment]:
    return AutomaticExperiment if config.is_open or config.training.time_limit is not None else Experiment
