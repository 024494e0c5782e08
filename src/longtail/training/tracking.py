"""The epochs of a run in an experiment tracker too, through the trackers of accelerate."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import Any

from filelock import FileLock

from longtail.config.options import flatten
from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.data.sources.registry import last_name
from longtail.errors import LongtailError, first_line
from longtail.run.checkpoint import Tracker, read_tracker, write_tracker
from longtail.run.layout import CONFIG_FILE, HISTORY_FILE, TENSORBOARD_FOLDER
from longtail.training.loop import Callback, StageRun

RUN_NAMES = {"mlflow": "info.run_id", "wandb": "id", "trackio": "name"}
"""The attribute of a tracker's run under which the tracker finds it again; TensorBoard needs none."""


class Tracking(Callback):
    """Logs a run to its tracker; to be used in a ``with`` statement, which ends the tracker's run in any case.

    A resumed run continues in the same run of the tracker, whose name is stored in ``tracker.json`` of the RUN folder.
    The options are logged with the first epoch, by which time everything is chosen, and the first stage shortened where
    its first steps were too slow. A tracker that cannot be reached before training is an error. One that fails later is
    reported, and the run continues without it.

    Args:
        config: The run.
        out: The RUN folder.
        reporter: Messages for the user.
        is_main: Whether this is the process that logs.

    Attributes:
        config: The run as it is trained; to be replaced where something was chosen or shortened.

    Raises:
        LongtailError: The tracker is not installed.

    Example:
        >>> with Tracking(RunConfig(), Path("run"), Reporter(quiet=True), is_main=True) as tracking:
        ...     tracking.log({"train_loss": 1.5}, step=1)  # no tracker: nothing happens
    """

    def __init__(self, config: RunConfig, out: Path, reporter: Reporter, *, is_main: bool) -> None:
        self.config = config
        self.name = config.training.tracker if is_main else "none"
        self.out = out
        self.reporter = reporter
        self._tracker: Any = None
        self._knows_options = False
        if self.name == "none":
            return
        from accelerate.tracking import get_available_trackers

        if self.name not in map(str, get_available_trackers()):
            raise LongtailError(
                f'the tracker {self.name} is not installed: python -m pip install "longtail[{self.name}]", or train '
                "without it."
            )

    def __enter__(self) -> Tracking:
        if self.name == "none":
            return self
        stored = read_tracker(self.out)
        saved = stored.run if stored is not None and stored.tracker == self.name else None
        # They are logged with the first row, and MLflow takes no other values for them.
        self._knows_options = saved is not None and (self.out / HISTORY_FILE).is_file()
        # Runs of a grid start together, and the first makes the project that the others would make as well.
        home = os.path.expanduser("~")  # noqa: PTH111  # without an error where there is none, as in a container
        project = f"{home} {self.name} {self.config.training.tracker_project}"
        lock = f"longtail-{hashlib.sha256(project.encode()).hexdigest()[:16]}.lock"
        try:
            self._tracker = self._new_tracker(saved or "")
            with FileLock(Path(tempfile.gettempdir()) / lock):
                self._tracker.start()
        except Exception as error:
            raise LongtailError(
                f"the tracker {self.name} cannot be started ({first_line(error)}): see that it can be reached, or set "
                f"training.tracker to none (in {CONFIG_FILE}, where the run was started already)."
            ) from error
        attribute = RUN_NAMES.get(self.name)
        name = "" if attribute is None else str(attrgetter(attribute)(self._tracker.tracker))
        write_tracker(self.out, Tracker(tracker=self.name, run=name))
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()

    def on_epoch_end(self, stage: StageRun, row: dict[str, Any]) -> None:
        """Log the line of an epoch; before the first one, the options of the run."""
        if not self._knows_options:
            self._knows_options = True
            self._send("store_init_configuration", hyperparameters(self.config))
        before = sum(each.epochs for number, each in self.config.stages.items() if number < stage.index)
        self.log(row, step=before + row["epoch"])

    def on_run_end(self, metrics: dict[str, Any]) -> None:
        """Log the figures of the finished run."""
        self.log(final_figures(metrics), step=sum(stage.epochs for stage in self.config.stages.values()))

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Log the numbers among some values.

        Args:
            values: Figures by name; anything but numbers, such as a figure that was not measured, is left out.
            step: Epochs of all stages up to now.
        """
        self._send(
            "log", {key: float(value) for key, value in values.items() if isinstance(value, int | float)}, step=step
        )

    def _send(self, method: str, values: Mapping[str, Any], **options: Any) -> None:
        if self._tracker is None:
            return
        try:
            getattr(self._tracker, method)(values, **options)
        except Exception as error:
            self._say_failed(error)
            self._finish()

    def _finish(self) -> None:
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            try:
                tracker.finish()
            except Exception as error:
                self._say_failed(error)

    def _say_failed(self, error: Exception) -> None:
        self.reporter.say(
            f"note: the tracker {self.name} failed ({first_line(error)}); the run continues without it, and "
            f"{HISTORY_FILE} keeps every epoch."
        )

    def _new_tracker(self, saved: str) -> Any:
        from accelerate import tracking

        project = self.config.training.tracker_project
        title = "/".join(self.out.resolve().parts[-2:])  # the folder of a grid's run is only called after its seed
        if self.name == "tensorboard":
            return tracking.TensorBoardTracker(TENSORBOARD_FOLDER, self.out)
        if self.name == "mlflow":
            # Standard output is for results.
            os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
            return tracking.MLflowTracker(project, run_id=saved or None, run_name=title)
        if self.name == "wandb":
            # Under the id of a run that exists, "allow" continues it.
            return tracking.WandBTracker(project, name=title, dir=str(self.out), id=saved or None, resume="allow")
        return tracking.TrackioTracker(project, name=saved or title, resume="allow" if saved else "never")


def hyperparameters(config: RunConfig) -> dict[str, bool | int | float | str]:
    """Every option of a run by its dotted name, in the types that all trackers take; others as JSON.

    Paths of images and weights are cut to the last component: others who read the tracker should not see the rest.

    Example:
        >>> options = hyperparameters(RunConfig())
        >>> options["stage1.epochs"], options["data.mean"], options["training.clip_norm"]
        (1, '[0.5, 0.5, 0.5]', 'null')
    """
    values = flatten(asdict(config))
    values |= {key: last_name(values[key]) for key in ("data.source", "model.weights")}
    return {
        key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for key, value in values.items()
    }


def final_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a finished run by ``SPLIT_NAME``, those of groups included.

    Example:
        >>> final_figures({"test": {"accuracy": 0.5, "few": 0.1, "per_class": []}, "validation": None})
        {'test_accuracy': 0.5, 'test_few': 0.1}
    """
    return {
        f"{name}_{key}": value
        for name in ("test", "validation")
        for key, value in (metrics[name] or {}).items()
        if key not in {"per_class", "intervals"}
    }
