"""Trackers, read back: what was asked of them is there, with its steps, also after a stop and after a failure."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ctrl_c import CtrlC

from longtail.config.build import with_options
from longtail.config.resolve import resolve
from longtail.config.schema import DataConfig, ModelConfig, RunConfig
from longtail.console import Interrupted, Reporter
from longtail.errors import LongtailError
from longtail.run.layout import read_config
from longtail.training import time_estimate
from longtail.training.launch import resume_run, start_run
from longtail.training.time_estimate import TooSlowError
from longtail.training.tracking import Tracking, hyperparameters

Build = Callable[..., RunConfig]
STAGES = {
    "data": {"validation_fraction": 0.1, "image_size": 8},
    "stage1": {"epochs": 3, "mixing": "none"},
    "stage2": {"epochs": 2, "mixing": "none"},
}


@pytest.fixture
def tracked(small_config: Build) -> Callable[[str], RunConfig]:
    """Three epochs and then two, measured on a validation split in the second, the third and the last."""
    return lambda name: small_config(
        "cifar-lt/gcl", **STAGES, training={"tracker": name, "tracker_project": "digits", "validate_every": 2}
    )


def stopped_and_resumed(config: RunConfig, out: Path, quiet: Reporter) -> Any:
    """Press Ctrl-C at the end of the second epoch of stage 1."""
    with pytest.raises(Interrupted):
        start_run(config, out, quiet, callbacks=[CtrlC(1, 2)])
    return resume_run(config, out, quiet)


def history(out: Path, column: str) -> dict[int, float]:
    lines = (out / "history.csv").read_text().splitlines()
    index = lines[0].split(",").index(column)
    cells = [line.split(",")[index] for line in lines[1:]]
    return {step: float(cell) for step, cell in enumerate(cells, start=1) if cell}


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    events = accumulator(str(folder))
    events.Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_tensorboard_holds_every_epoch_of_a_run_that_was_stopped(
    tracked: Callable[[str], RunConfig], quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    metrics = stopped_and_resumed(tracked("tensorboard"), out, quiet)
    logged = scalars(out / "tensorboard")
    for column in ("train_loss", "learning_rate", "validation_accuracy", "images_per_second"):
        assert logged[column] == pytest.approx(history(out, column), rel=1e-5)
    assert list(logged["train_loss"]) == [1, 2, 3, 4, 5]
    assert logged["test_accuracy"] == {5: pytest.approx(metrics["test"]["accuracy"])}
    assert logged["test_few"] == {5: pytest.approx(metrics["test"]["few"])}
    parameters = [path.read_text() for path in out.glob("tensorboard/*/hparams.yml")]
    assert len(parameters) == 1  # once, not again by the resumed run
    assert "stage1.loss.name: gcl" in parameters[0]


def test_the_tracker_is_closed_when_training_fails(
    small_config: Build, quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = pytest.importorskip("accelerate.tracking")
    pytest.importorskip("tensorboard")
    closed = []
    finish = tracking.TensorBoardTracker.finish
    monkeypatch.setattr(tracking.TensorBoardTracker, "finish", lambda self: (closed.append(True), finish(self)))
    config = small_config(stage1={"optimizer": {"lr": 1e9}}, training={"tracker": "tensorboard"})
    with pytest.raises(LongtailError, match=r"number|finite"):
        start_run(config, tmp_path / "run", quiet)
    assert closed == [True]


# --- MLflow -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real tracking server in a process of its own, with SQLite behind it."""
    pytest.importorskip("mlflow")
    pytest.importorskip("gunicorn")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "artifacts"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--gunicorn-opts",
        "--log-level warning",
    ]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # it would need more packages
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(address, process, folder / "server.log")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.fixture
def mlflow_client(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    mlflow.set_tracking_uri(mlflow_server)
    yield mlflow.MlflowClient(mlflow_server)
    while mlflow.active_run() is not None:
        mlflow.end_run()


def test_mlflow_holds_parameters_and_metrics_of_a_run_that_was_stopped(
    mlflow_client: Any,
    tracked: Callable[[str], RunConfig],
    quiet: Reporter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "ce" / "seed-0"
    metrics = stopped_and_resumed(tracked("mlflow"), out, quiet)
    experiment = mlflow_client.get_experiment_by_name("digits")
    (run,) = mlflow_client.search_runs([experiment.experiment_id])
    assert json.loads((out / "tracker.json").read_text()) == {"tracker": "mlflow", "run": run.info.run_id}
    assert (run.info.run_name, run.info.status) == ("ce/seed-0", "FINISHED")
    assert run.data.params["stage1.loss.name"] == "gcl"
    assert run.data.params["data.imbalance_ratio"] == "10.0"
    assert run.data.params["training.clip_norm"] == "null"
    for column in ("train_loss", "validation_balanced_accuracy"):
        logged = {m.step: m.value for m in mlflow_client.get_metric_history(run.info.run_id, column)}
        assert logged == pytest.approx(history(out, column))
    for name in ("accuracy", "many", "medium", "few"):
        assert run.data.metrics[f"test_{name}"] == pytest.approx(metrics["test"][name])
    assert capsys.readouterr().out == ""


def test_a_server_that_goes_away_costs_the_log_and_not_the_run(
    mlflow_client: Any, tracked: Callable[[str], RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.tracking import MLflowTracker
    from rich.console import Console

    def refuse(self: Any, values: Any, step: int) -> None:
        raise ConnectionError("the server has gone\nand more")

    monkeypatch.setattr(MLflowTracker, "log", refuse)
    console = Console(record=True, width=300, file=(tmp_path / "log").open("w"))
    metrics = start_run(tracked("mlflow"), tmp_path / "run", Reporter(console))
    assert metrics["test"]["accuracy"] > 0
    text = console.export_text()
    assert text.count("mlflow failed") == 1


def test_a_server_that_is_not_there_is_an_error_before_training(
    tracked: Callable[[str], RunConfig], quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("http://127.0.0.1:9")  # the discard port: nobody listens
    try:
        with pytest.raises(LongtailError, match=r"mlflow .*started"):
            start_run(tracked("mlflow"), tmp_path / "run", quiet)
    finally:
        mlflow.set_tracking_uri(before)
    assert not (tmp_path / "run" / "history.csv").exists()


# --- Weights & Biases, trackio: where they are installed --------------------------------------------------------------


def test_wandb_offline_goes_on_under_the_same_id(
    tracked: Callable[[str], RunConfig], quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = tmp_path / "run"
    stopped_and_resumed(tracked("wandb"), out, quiet)
    name = json.loads((out / "tracker.json").read_text())["run"]
    files = sorted((out / "wandb").glob(f"offline-run-*/run-{name}.wandb"))
    assert len(files) == 2
    assert b"train_loss" in files[0].read_bytes()
    assert b"test_few" in files[1].read_bytes()


def test_trackio_goes_on_under_the_same_name(
    tracked: Callable[[str], RunConfig], quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite3 = pytest.importorskip("sqlite3")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    out = tmp_path / "run"
    metrics = stopped_and_resumed(tracked("trackio"), out, quiet)
    name = json.loads((out / "tracker.json").read_text())["run"]
    with sqlite3.connect(tmp_path / "trackio" / "digits.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
    assert {row[0] for row in rows} == {name}
    logged = [(step, json.loads(values)) for _, step, values in rows]
    losses = {step: values["train_loss"] for step, values in logged if "train_loss" in values}
    assert losses == pytest.approx(history(out, "train_loss"))
    assert logged[-1][1]["test_few"] == pytest.approx(metrics["test"]["few"])


# --- none -------------------------------------------------------------------------------------------------------------


class FakeTracker:
    """Remembers what it was sent."""

    def __init__(self) -> None:
        self.options = list[dict[str, Any]]()
        self.steps = list[int]()

    def start(self) -> None: ...

    def finish(self) -> None: ...

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.options.append(values)

    def log(self, values: dict[str, float], step: int) -> None:
        self.steps.append(step)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTracker:
    tracker = FakeTracker()
    monkeypatch.setattr("accelerate.tracking._available_trackers", ["tensorboard"])
    monkeypatch.setattr(Tracking, "_new_tracker", lambda *_: tracker)
    return tracker


@pytest.mark.parametrize("is_late", [False, True])
def test_a_run_that_was_shortened_is_logged_as_it_is_trained(
    is_late: bool, fake: FakeTracker, quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_estimate, "measure_training_rate", lambda *_, **__: 1e6 if is_late else 60.0)
    monkeypatch.setattr(time_estimate.Pace, "on_step_end", Mock(side_effect=TooSlowError(60.0) if is_late else None))
    small = {"data.source": "digits", "model.name": "plain-cnn", "data.image_size": 8, "stage1.epochs": 20}
    config = resolve(small | {"training.time_limit": 90.0, "training.tracker": "tensorboard"})
    start_run(config, tmp_path / "run", quiet)
    epochs = read_config(tmp_path / "run").stage1.epochs
    assert epochs < 20
    assert [options["stage1.epochs"] for options in fake.options] == [epochs]
    assert fake.steps == [*range(1, epochs + 1), epochs]


def test_the_options_of_a_run_that_was_stopped_in_its_first_epoch_are_logged_once(
    fake: FakeTracker, tracked: Callable[[str], RunConfig], quiet: Reporter, tmp_path: Path
) -> None:
    config = tracked("tensorboard")
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", quiet, callbacks=[CtrlC(1, 0, step=1)])
    changed = with_options(config, {"data.workers": 1})
    resume_run(changed, tmp_path / "run", quiet)
    assert [options["data.workers"] for options in fake.options] == [1]


def test_no_home_is_needed(
    fake: FakeTracker,
    tracked: Callable[[str], RunConfig],
    quiet: Reporter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("Could not determine home directory.")))
    with Tracking(tracked("tensorboard"), tmp_path, quiet, is_main=True) as tracking:
        tracking.log({"train_loss": 1.0}, step=1)
    assert fake.steps == [1]


def test_a_tracker_that_is_not_installed_is_named_and_leaves_nothing(
    tracked: Callable[[str], RunConfig], quiet: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.tracking._available_trackers", [])
    with pytest.raises(LongtailError, match=r'"longtail\[mlflow\]"'):
        start_run(tracked("mlflow"), tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


def test_only_the_first_process_logs(tracked: Callable[[str], RunConfig], quiet: Reporter, tmp_path: Path) -> None:
    with Tracking(tracked("tensorboard"), tmp_path / "run", quiet, is_main=False) as tracking:
        tracking.log({"train_loss": 1.0}, step=1)
    assert not (tmp_path / "run").exists()


def test_a_tracker_is_not_told_the_folders_of_the_machine() -> None:
    config = RunConfig(
        data=DataConfig(source="folder:/home/me/photos"), model=ModelConfig(weights="/home/me/runs/first")
    )
    options = hyperparameters(config)
    assert (options["data.source"], options["model.weights"]) == ("folder:photos", "first")
