"""Grids: how their runs share the machine, and what is left when one fails or all are killed."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from rich.console import Console
from safetensors.torch import load_file
from small_grid import RUNS, SMALL, fake_run, spec

from longtail.__main__ import train_under_lock
from longtail.cli import main
from longtail.config.build import with_options
from longtail.config.schema import RunConfig
from longtail.console import Interrupted, Reporter
from longtail.experiments.grid_plan import Grid, PlannedRun, plan_grid, state_of
from longtail.experiments.grid_runner import default_jobs, run_grid
from longtail.experiments.grid_view import progress_of
from longtail.files import write_yaml
from longtail.run.layout import log_file
from longtail.run.lock import lock_file
from longtail.training.engine import LocalEngine
from longtail.training.launch import start_run

FINISH = "import pathlib, sys; pathlib.Path(sys.argv[1], 'metrics.json').write_text('{}')"


def python(code: str) -> Callable[[PlannedRun], list[str]]:
    return lambda run: [sys.executable, "-c", code, str(run.folder)]


@pytest.fixture
def reported() -> tuple[Reporter, Console]:
    console = Console(file=io.StringIO(), record=True, width=200)
    return Reporter(console), console


def test_every_run_is_trained_once_and_reported(tmp_path: Path, reported: tuple[Reporter, Console]) -> None:
    grid = plan_grid(spec(tmp_path, seeds=2))
    fake_run(grid.runs[1], "metrics.json")
    assert run_grid(grid, reported[0], command=python(FINISH)) == {}
    text = reported[1].export_text()
    assert "1 of 4 runs" in text
    assert "ce seed 1: training" not in text
    assert "4 of 4 runs" in text
    assert yaml.safe_load((tmp_path / "grid.yaml").read_text()) == grid.spec
    assert run_grid(grid, reported[0], command=python("raise SystemExit('trained again')")) == {}


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_runs_at_once_than_asked_for(jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = (
        "import os, pathlib, sys, time\nrun = pathlib.Path(sys.argv[1]); here = run.parent.parent / 'here'\n"
        "here.mkdir(exist_ok=True); mine = here / str(os.getpid()); mine.touch(); time.sleep(0.7)\n"
        "(run / 'seen').write_text(f\"{len(list(here.iterdir()))} {os.environ['OMP_NUM_THREADS']}\"); mine.unlink()\n"
    )
    grid = plan_grid(spec(tmp_path, seeds=2))
    run_grid(grid, Reporter(quiet=True), jobs=jobs, command=python(code))
    seen = [(run.folder / "seen").read_text().split() for run in grid.runs]
    assert max(int(count) for count, _ in seen) == jobs
    assert {threads for _, threads in seen} == {"1"}


def test_processes_divide_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("longtail.experiments.grid_process.cores", lambda: 8)
    code = "import os, pathlib, sys; pathlib.Path(sys.argv[1], 'n').write_text(os.environ.get('OMP_NUM_THREADS', ''))"
    for jobs, threads in ((2, "4"), (1, "")):
        grid = plan_grid(spec(tmp_path / str(jobs)))
        run_grid(grid, Reporter(quiet=True), jobs=jobs, command=python(code))
        assert (grid.runs[0].folder / "n").read_text() == threads


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; print('longtail: the loss is not a number.', file=sys.stderr); sys.exit(1)", "number"),
        ("raise ZeroDivisionError('by zero')", "ZeroDivisionError: "),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("raise SystemExit(3)", "status 3"),
    ],
)
def test_a_run_that_fails_says_why_and_stops_no_other(
    code: str, words: str, tmp_path: Path, reported: tuple[Reporter, Console]
) -> None:
    grid = plan_grid(spec(tmp_path))
    bad = grid.runs[0]
    problems = run_grid(grid, reported[0], command=lambda run: python(code if run is bad else FINISH)(run))
    assert problems.keys() == {bad.folder}
    assert words in problems[bad.folder]
    assert "ce seed 0: failed: " in reported[1].export_text()
    assert log_file(bad.folder) == tmp_path / "ce" / "seed-0.log"
    assert run_grid(grid, reported[0], command=python(FINISH)) == {}


def test_a_process_that_cannot_begin_stops_no_other(tmp_path: Path) -> None:
    grid = plan_grid(spec(tmp_path))
    bad = grid.runs[0]
    problems = run_grid(
        grid, Reporter(quiet=True), command=lambda run: ["/nowhere"] if run is bad else python(FINISH)(run)
    )
    assert problems.keys() == {bad.folder}
    assert "/nowhere" in problems[bad.folder]


def test_a_run_whose_log_cannot_be_read_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = plan_grid(spec(tmp_path))
    bad, read_bytes = grid.runs[0], Path.read_bytes

    def read(path: Path) -> bytes:
        if path == log_file(bad.folder):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    problems = run_grid(
        grid,
        Reporter(quiet=True),
        command=lambda run: python("raise SystemExit(3)" if run is bad else FINISH)(run),
    )
    assert problems.keys() == {bad.folder}
    assert "status 3" in problems[bad.folder]


WAIT = "import time; print('longtail: stopped', flush=True); time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_reaches_every_process(number: signal.Signals, tmp_path: Path) -> None:
    grid = plan_grid(spec(tmp_path, seeds=2))
    stop = threading.Timer(1.0, os.kill, (os.getpid(), number))
    stop.start()
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        run_grid(grid, Reporter(quiet=True), jobs=2, command=python(WAIT))
    assert time.monotonic() - begun < 30  # not the minute that the processes would take
    assert not grid.runs[2].folder.exists()


def test_a_second_ctrl_c_kills_what_does_not_listen(tmp_path: Path) -> None:
    deaf = "import signal, time, os, pathlib, sys\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    deaf += "pathlib.Path(sys.argv[1], 'pid').write_text(str(os.getpid())); time.sleep(60)"
    grid = plan_grid(spec(tmp_path, runs={"ce": RUNS["ce"]}))
    for delay in (1.5, 2.5):
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        run_grid(grid, Reporter(quiet=True), command=python(deaf))
    with pytest.raises(ProcessLookupError):
        os.kill(int((grid.runs[0].folder / "pid").read_text()), 0)


def test_small_runs_share_a_gpu_and_large_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    small = plan_grid(spec()).runs
    large = plan_grid(spec(set=SMALL | {"data.image_size": 224})).runs
    assert default_jobs(small) == 1  # on a CPU
    monkeypatch.setattr("longtail.training.engine.Engine", lambda _: LocalEngine(torch.device("cuda")))
    monkeypatch.setattr("longtail.experiments.grid_runner.accelerator_name", lambda _: "GPU")
    for free, jobs in ((80, 6), (40, 5), (24, 3), (16, 2), (4, 1)):
        monkeypatch.setattr("longtail.experiments.grid_runner.memory_budget", lambda _, half=free / 2: half * 2**30)
        assert default_jobs(small) == jobs
    assert default_jobs(large) == 1


def test_progress_is_read_from_the_history(tmp_path: Path) -> None:
    run = plan_grid(spec(tmp_path)).runs[1]
    assert progress_of(run) == "starting"
    run.folder.mkdir(parents=True)
    head = "stage,epoch,train_loss,seconds,images_per_second\n"
    (run.folder / "history.csv").write_text(head + "1,2,1.5,0.5,1234.5\n")
    assert progress_of(run) == "stage 1, epoch 2/2, loss 1.500, 1,234 images/s"
    is_open = replace(run, config=with_options(run.config, {"stage1.loss.name": "auto", "stage2.epochs": 0}))
    (run.folder / "history.csv").write_text(head + "2,3,1.5,0.5,1234.5\n")  # in a stage that it has chosen
    assert progress_of(is_open).startswith("stage 2, epoch 3, ")
    (run.folder / "history.csv").write_text("nonsense\n1")
    assert progress_of(run) == "starting"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_run_of_a_grid_trains_where_files_cannot_be_locked(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    monkeypatch.setattr("longtail.__main__._end_with_the_grid", lambda: None)
    assert train_under_lock(str(tmp_path / "run"), ["--version"]) == 0
    assert "cannot be locked" in capsys.readouterr().err


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    left, right = weights(first), weights(second)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def straight(tmp_path: Path) -> Callable[[RunConfig], Path]:
    """Train a configuration without a grid."""

    def train(config: RunConfig) -> Path:
        start_run(config, tmp_path / "straight", Reporter(quiet=True))
        return tmp_path / "straight"

    return train


def grid_process(grid: Grid, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "longtail", "compare", "--grid", str(grid.out / "grid.yaml"), "--jobs", "2"]
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    for _ in range(3000):
        if condition():
            return
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.02)
    raise AssertionError("nothing happened in a minute")


def test_a_grid_that_is_killed_goes_on_and_ends_with_the_same_weights(
    tmp_path: Path, straight: Callable[[RunConfig], Path], clean_environment: dict[str, str]
) -> None:
    """SIGKILL: the grid can tell nobody, and its processes have to notice by themselves."""
    grid = plan_grid(spec(tmp_path / "grid", epochs=12))
    grid.out.mkdir()
    write_yaml(grid.out / "grid.yaml", grid.spec)
    process = grid_process(grid, clean_environment)
    wait_for(lambda: any((run.folder / "checkpoint").exists() for run in grid.runs), process)
    process.kill()
    process.communicate()
    for run in grid.runs:  # released when its process is gone
        with FileLock(lock_file(run.folder), timeout=60):
            pass
    states = {run.name: state_of(run) for run in grid.runs}
    assert "started" in states.values()
    assert "finished" not in states.values()
    assert main(["compare", "--grid", str(grid.out / "grid.yaml"), "--jobs", "2"]) == 0
    assert [state_of(run) for run in grid.runs] == ["finished", "finished"]
    assert same(grid.runs[0].folder, straight(grid.runs[0].config))
    assert {"table.csv", "report.html", "grid.yaml"} <= {path.name for path in grid.out.iterdir()}


def test_a_grid_file_makes_the_same_grid_on_a_machine_of_another_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longtail import device

    for made in ("bf16", "fp32"):
        with monkeypatch.context() as machine:
            machine.setattr(device, "fast_precision", lambda _, made=made: made)
            grid = plan_grid(spec(tmp_path / made))
        other = "fp32" if made == "bf16" else "bf16"
        with monkeypatch.context() as machine:
            machine.setattr(device, "fast_precision", lambda _, other=other: other)
            again = plan_grid(grid.spec)
        assert {run.config.training.precision for run in grid.runs} == {made}
        assert again == grid
