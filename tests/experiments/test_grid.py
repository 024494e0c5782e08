"""Grids: what a file plans, how its runs share the machine, and what is left when one fails or all are killed."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from filelock import FileLock
from rich.console import Console
from safetensors.torch import load_file

from longtail.cli import main
from longtail.config.schema import RunConfig
from longtail.console import Interrupted, Reporter
from longtail.errors import LongtailError
from longtail.experiments.grid_plan import Grid, GridSpec, PlannedRun, plan_grid, read_grid, recipe_grid, state_of
from longtail.experiments.grid_runner import default_jobs, progress_of, run_grid, train_command
from longtail.files import write_yaml
from longtail.run.layout import log_file
from longtail.training.engine import LocalEngine
from longtail.training.experiment import start_run

SMALL = {
    "data.imbalance_ratio": 10,
    "data.image_size": 8,
    "data.augmentation": "none",
    "data.workers": 0,
    "model.name": "plain-cnn",
    "stage1.optimizer.lr": 0.02,
    "training.device": "cpu",
}
RUNS = {"ce": {"recipe": "cifar-lt/ce"}, "gcl": {"recipe": "cifar-lt/gcl"}}


def spec(out: Path | str = "runs", **changes: Any) -> dict[str, Any]:
    return {"source": "digits", "out": str(out), "epochs": 2, "set": SMALL, "runs": RUNS} | changes


# --- what is planned --------------------------------------------------------------------------------------------------


def test_auto_is_chosen_once_and_written_out() -> None:
    auto = {"auto": {"recipe": "auto", "set": {"mode": "scratch"}}}
    planned = plan_grid(spec(runs=auto, epochs=None, set={"data.imbalance_ratio": 10, "stage1.batch_size": 32}))
    config = planned.runs[0].config
    assert (config.recipe, config.mode, config.model.name) == ("images/logit-adjustment", "scratch", "resnet32")
    assert (config.stage1.epochs, config.stage1.batch_size, config.data.image_size) == (100, 32, 32)
    assert planned.spec["runs"]["auto"]["recipe"] == "images/logit-adjustment"
    assert plan_grid(planned.spec).runs == planned.runs  # grid.yaml makes the same runs, whatever it sees next time
    short = plan_grid(spec(runs=auto, epochs=3, set={"data.imbalance_ratio": 10})).runs[0].config
    assert (short.stage1.epochs, short.stage1.batch_size) == (3, 64)
    with pytest.raises(LongtailError, match=r"model\.name.*vary"):
        plan_grid(spec(runs=auto, vary={"model.name": ["resnet20", "resnet32"]}))
    with pytest.raises(LongtailError, match=r"data\.imbalance_ratio.*vary"):
        plan_grid(spec(runs=auto, vary={"data.imbalance_ratio": [10, 1]}))  # nothing is rare in the images as they are


def test_a_file_becomes_runs_by_configuration_and_seed(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(
        """
        source: digits
        out: runs/grid
        seeds: [3, 5]
        epochs: 20
        baseline: gcl
        set: {data.few: 7, stage1.optimizer.lr: 0.3}
        runs:
          ce: {recipe: cifar-lt/ce}
          gcl: {recipe: cifar-lt/gcl, epochs: 40, set: {stage1.optimizer.lr: 0.2, stage1.loss.options.noise: 0.3}}
        """
    )
    grid = plan_grid(read_grid(file))
    assert [(run.name, run.seed) for run in grid.runs] == [("ce", 3), ("ce", 5), ("gcl", 3), ("gcl", 5)]
    assert grid.runs[3].folder == Path("runs/grid/gcl/seed-5")
    assert {run.baseline for run in grid.runs} == {"gcl"}
    ce, gcl = grid.runs[0].config, grid.runs[3].config
    assert (ce.stage1.epochs, gcl.stage1.epochs) == (20, 40)
    assert (ce.stage1.optimizer.lr, gcl.stage1.optimizer.lr) == (0.3, 0.2)
    assert (ce.data.few, gcl.data.few) == (7, 7)
    assert gcl.stage1.loss.options["noise"] == 0.3
    assert (ce.training.seed, gcl.training.seed) == (3, 5)
    assert (ce.model.head, gcl.model.head) == ("linear", "cosine")


def test_the_words_of_the_command_line_plan_the_same_as_a_file() -> None:
    words = recipe_grid(
        "digits",
        ["cifar-lt/ce", "cifar-lt/gcl"],
        seeds=2,
        epochs=4,
        baseline="cifar-lt/gcl",
        options=["data.few=7", "stage1.loss.options={scale: 9}"],
    )
    by_hand = {
        "source": "digits",
        "seeds": 2,
        "epochs": 4,
        "baseline": "gcl",
        "runs": RUNS,
        "set": {"data.few": 7, "stage1.loss.options": {"scale": 9}},
    }
    assert plan_grid(words | {"out": "x"}) == plan_grid(by_hand | {"out": "x"})
    both = recipe_grid("digits", ["cifar-lt/ce", "demo/ce"])["runs"]
    assert both == {"cifar-lt-ce": {"recipe": "cifar-lt/ce"}, "demo-ce": {"recipe": "demo/ce"}}


def test_varied_options_multiply_the_runs_and_the_resolved_grid_plans_them_again() -> None:
    vary = {"data.imbalance_ratio": [10, 5], "stage1.optimizer.lr": [0.1, 0.2]}
    grid = plan_grid(spec(vary=vary))
    assert len(grid.runs) == 8
    last = grid.runs[-1]
    assert last.name == "gcl-imbalance_ratio=5,lr=0.2"
    assert (last.config.data.imbalance_ratio, last.config.stage1.optimizer.lr) == (5, 0.2)
    assert plan_grid(yaml.safe_load(yaml.safe_dump(grid.spec))) == grid


@pytest.mark.parametrize(
    ("vary", "baseline", "expected"),
    [
        ({}, "", {"ce": "ce", "gcl": "ce"}),
        ({}, "gcl", {"ce": "gcl", "gcl": "gcl"}),
        # Other images: each is compared with the baseline on its own.
        (
            {"data.imbalance_ratio": [10, 5]},
            "gcl",
            {f"{name}-imbalance_ratio={r}": f"gcl-imbalance_ratio={r}" for name in RUNS for r in (10, 5)},
        ),
        # The same images: all are compared with one.
        (
            {"stage1.batch_size": [8, 9]},
            "",
            {f"{name}-batch_size={b}": "ce-batch_size=8" for name in RUNS for b in (8, 9)},
        ),
        (
            {"stage1.batch_size": [8, 9]},
            "gcl-batch_size=9",
            {f"{name}-batch_size={b}": "gcl-batch_size=9" for name in RUNS for b in (8, 9)},
        ),
    ],
)
def test_the_baseline_of_each_run(vary: dict[str, Any], baseline: str, expected: dict[str, str]) -> None:
    grid = plan_grid(spec(vary=vary, baseline=baseline))
    assert {run.name: run.baseline for run in grid.runs} == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sed": 3}, "'seeds'"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": [-1]}, "seeds"),
        ({"seeds": "many"}, "seeds"),
        ({"seeds": 10**9}, "fewer seeds"),
        ({"epochs": 0}, "epochs"),
        ({"vary": {"data.few": list(range(200)), "data.many": list(range(200))}}, "fewer seeds"),
        ({"runs": {"a": {"recipe": "a" * 200_000}}}, "unknown recipe"),
        ({"source": ""}, "run 'ce'.* images"),
        ({"out": ""}, "--out DIR"),
        ({"runs": {}}, "runs"),
        ({"baseline": "gc"}, "'gcl'"),
        ({"set": {"data.imbalance_rato": 3}}, "'data.imbalance_ratio'"),
        ({"set": {"data.few": "x"}}, "data.few"),
        ({"set": {"data.image_size": 0}}, "--data.image_size"),
        ({"set": {"training.seed": 3}}, "use seeds"),
        ({"vary": {"data.few": []}}, "data.few"),
        ({"vary": {"data.few": 3}}, "vary"),
        ({"vary": {"data.few": [1, 1]}}, "'ce-few=1'"),
        ({"runs": {"ce": {}}}, "run 'ce'"),
        ({"runs": {"ce": None}}, "runs.ce"),
        ({"runs": {"ce": "cifar-lt/ce"}}, "runs.ce"),
        ({"runs": {"ce": {"recip": "cifar-lt/ce"}}}, "'runs.ce.recipe'"),
        ({"runs": {"ce": {"recipe": "cifar-lt/cee"}}}, "'cifar-lt/ce'"),
        ({"runs": {"a/b": {"recipe": "cifar-lt/ce"}}}, "'a/b'"),
        ({"runs": {"ce": {"recipe": "cifar-lt/ce", "set": {"stage1.loss.options.x": 1}}}}, "'x'"),
    ],
)
def test_a_grid_that_cannot_be_planned_is_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match=re.escape(words)) as caught:
        plan_grid(spec(tmp_path / "out") | changes, "my.yaml")
    assert "my.yaml" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_grid_of_the_documentation_can_be_planned() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    example = page.split("longtail compare --grid grid.yaml")[1].split("```yaml\n")[1].split("```")[0]
    grid = plan_grid(yaml.safe_load(example), "docs/training.md")
    assert len({run.name for run in grid.runs}) == 6
    assert {run.seed for run in grid.runs} == {0, 1, 2}
    assert {run.baseline for run in grid.runs} == {"ce-lr=0.1"}
    assert len(yaml.safe_load(example).keys() ^ GridSpec.__dataclass_fields__.keys()) == 0


@pytest.mark.parametrize(("text", "words"), [(None, "read"), ("a: [", "YAML"), ("- 1", "grid")])
def test_a_file_that_is_not_a_grid(text: str | None, words: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(LongtailError, match=words):
        read_grid(tmp_path / "grid.yaml")


@pytest.mark.parametrize("options", [["novalue"], ["a=["]])
def test_a_set_that_is_not_an_option(options: list[str]) -> None:
    with pytest.raises(LongtailError, match="--set"):
        recipe_grid("digits", ["cifar-lt/ce"], options=options)


# --- what is there already --------------------------------------------------------------------------------------------


def fake_run(run: PlannedRun, *files: str) -> PlannedRun:
    write_yaml(run.folder / "config.yaml", asdict(run.config))
    for name in files:
        (run.folder / name).mkdir() if name == "checkpoint" else (run.folder / name).write_text("{}")
    return run


def test_a_run_is_new_started_or_finished(tmp_path: Path) -> None:
    run = plan_grid(spec(tmp_path)).runs[0]
    assert state_of(run) == "new"
    assert state_of(fake_run(run)) == "new"
    (run.folder / "checkpoint").mkdir()
    assert state_of(run) == "started"
    (run.folder / "metrics.json").write_text("{}")
    assert state_of(run) == "started"  # it was killed before its report, after which it drops its checkpoint
    (run.folder / "report.html").touch()
    assert state_of(run) == "finished"
    (run.folder / "report.html").unlink()
    (run.folder / "checkpoint").rmdir()
    assert state_of(run) == "finished"


def test_a_run_of_another_configuration_is_not_taken_for_this_one(tmp_path: Path) -> None:
    fake_run(plan_grid(spec(tmp_path)).runs[0], "metrics.json")
    fast = plan_grid(spec(tmp_path, set=SMALL | {"training.compile": True, "data.cache": False})).runs[0]
    assert state_of(fast) == "finished"
    other = plan_grid(spec(tmp_path, set=SMALL | {"stage1.batch_size": 7})).runs[0]
    with pytest.raises(LongtailError, match=r"--stage1\.batch_size 64.* 7: .*--out"):
        state_of(other)


def test_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    run = plan_grid(spec(tmp_path)).runs[0]
    run.folder.mkdir(parents=True)
    (run.folder / ".config.yaml.17.tmp").write_text("a kill left this")
    assert state_of(run) == "new"
    (run.folder / "photo.png").write_text("")
    with pytest.raises(LongtailError, match=r"photo\.png"):
        run_grid(plan_grid(spec(tmp_path)), Reporter(quiet=True))
    assert not (tmp_path / "grid.yaml").exists()


# --- how the runs share the machine; the processes here do not train --------------------------------------------------

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
    outcomes = run_grid(grid, reported[0], command=python(FINISH))
    assert [outcome.problem for outcome in outcomes] == [""] * 4
    text = reported[1].export_text()
    assert "1 of 4 runs" in text
    assert "ce seed 1: training" not in text
    assert "4 of 4 runs" in text
    assert yaml.safe_load((tmp_path / "grid.yaml").read_text()) == grid.spec
    again = run_grid(grid, reported[0], command=python("raise SystemExit('trained again')"))
    assert [outcome.problem for outcome in again] == [""] * 4


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
    monkeypatch.setattr("longtail.experiments.grid_runner.cores", lambda: 8)
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
    outcomes = run_grid(grid, reported[0], command=lambda run: python(code if run is bad else FINISH)(run))
    assert words in outcomes[0].problem
    assert outcomes[1].problem == ""
    assert "ce seed 0: failed: " in reported[1].export_text()
    assert log_file(bad.folder) == tmp_path / "ce" / "seed-0.log"
    again = run_grid(grid, reported[0], command=python(FINISH))
    assert [outcome.problem for outcome in again] == ["", ""]


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
    for free, jobs in ((80, 6), (40, 5), (24, 3), (16, 2), (4, 1)):
        monkeypatch.setattr("longtail.device.memory_budget", lambda _, half=free / 2: half * 2**30)
        assert default_jobs(small) == jobs
    assert default_jobs(large) == 1


def test_progress_is_read_from_the_history(tmp_path: Path) -> None:
    run = plan_grid(spec(tmp_path)).runs[1]
    assert progress_of(run) == "starting"
    run.folder.mkdir(parents=True)
    head = "stage,epoch,train_loss,seconds,images_per_second\n"
    (run.folder / "history.csv").write_text(head + "1,2,1.5,0.5,1234.5\n")
    assert progress_of(run) == "stage 1, epoch 2/2, loss 1.500, 1,234 images/s"


# --- the real thing ---------------------------------------------------------------------------------------------------


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
        with FileLock(train_command(run)[4], timeout=60):
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
