"""Grids on a Ray cluster of two nodes: the same bits, and nothing lost when a node or a process is."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray_nodes import ray_nodes, when
from rich.console import Console
from safetensors.torch import load_file
from small_grid import SMALL, fake_run, spec, starts_of, waiting_command

from longtail.console import Interrupted, Reporter
from longtail.errors import LongtailError
from longtail.experiments.grid_plan import Grid, PlannedRun, plan_grid, state_of
from longtail.experiments.grid_ray import RayPool, choose_resources, ray_pool
from longtail.experiments.grid_runner import Begun, run_grid
from longtail.run.layout import CHECKPOINT_FOLDER, log_file

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'longtail[ray]'")
pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_nodes(2, cores=2) as cluster:
        yield cluster


def run_waiting(grid: Grid, terminal: io.StringIO | None = None) -> tuple[dict[Path, str], str]:
    """Run a grid of processes that wait, and return the problems and what was said, also while it runs."""
    terminal = terminal or io.StringIO()
    reporter = Reporter(Console(file=terminal, width=200))
    with ray_pool("", reporter, command=waiting_command) as pool:
        problems = run_grid(grid, reporter, pool=pool)
    return problems, terminal.getvalue()


def have_begun(grid: Grid) -> bool:
    return all(starts_of(run) for run in grid.runs)


def node_of(process: int, cluster: Any) -> Any:
    """Return the node that a process of Ray runs on; on this machine it is a descendant of its node's raylet."""
    ancestors = {each.pid for each in psutil.Process(process).parents()}
    return next(node for node in cluster.worker_nodes if node.all_processes["raylet"][0].process.pid in ancestors)


def test_runs_have_the_bits_that_they_have_without_a_cluster(cluster: Any, tmp_path: Path) -> None:
    there, here = (plan_grid(spec(tmp_path / name, epochs=1)) for name in ("there", "here"))
    with ray_pool("", Reporter(quiet=True)) as pool:
        assert run_grid(there, Reporter(quiet=True), pool=pool) == {}
    assert run_grid(here, Reporter(quiet=True), jobs=2) == {}
    for one, other in zip(there.runs, here.runs, strict=True):
        left, right = (load_file(run.folder / "model.safetensors") for run in (one, other))
        assert left.keys() == right.keys()
        assert all(left[name].equal(right[name]) for name in left)
        assert (one.folder / "predictions.parquet").read_bytes() == (other.folder / "predictions.parquet").read_bytes()


@pytest.mark.parametrize("lost", ["node", "worker"])
def test_what_is_lost_goes_on_elsewhere(lost: str, cluster: Any, tmp_path: Path) -> None:
    grid, on_it, terminal = plan_grid(spec(tmp_path)), list[PlannedRun](), io.StringIO()

    def are_shown() -> bool:  # a process may begin before the news of it leave its machine, and would be lost with it
        return have_begun(grid) and terminal.getvalue().count(": training on ") == len(grid.runs)

    def lose() -> None:
        (process,) = starts_of(grid.runs[0])
        if lost == "node":
            node = node_of(process, cluster)
            on_it.extend(run for run in grid.runs if node_of(*starts_of(run), cluster) is node)
            cluster.remove_node(node, allow_graceful=False)
        else:
            on_it.append(grid.runs[0])
            os.kill(process, signal.SIGKILL)

    def goes_on() -> bool:  # and says so: news of a run may come after those of its end
        return all(len(starts_of(run)) == 2 for run in on_it) and terminal.getvalue().count("going on") >= len(on_it)

    with when((are_shown, lose), (goes_on, (tmp_path / "go").touch)) as done:
        problems, _ = run_waiting(grid, terminal)
    if lost == "node":
        cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)  # from the main thread alone
    assert (done, problems) == ([0, 1], {})
    assert [state_of(run) for run in grid.runs] == ["finished", "finished"]
    assert [len(starts_of(run)) for run in grid.runs] == [2 if run in on_it else 1 for run in grid.runs]


def test_a_training_that_is_lost_ends_with_the_weights_of_an_undisturbed_one(cluster: Any, tmp_path: Path) -> None:
    there, here = (plan_grid(spec(tmp_path / name, seeds=1, epochs=20)) for name in ("there", "here"))
    run, straight = there.runs[1], here.runs[1]

    def lose() -> None:
        command = str(run.folder)
        (process,) = (each for each in psutil.process_iter(["cmdline"]) if command in (each.info["cmdline"] or []))
        os.kill(process.ppid(), signal.SIGKILL)

    begun = (run.folder / CHECKPOINT_FOLDER).exists
    with when((begun, lose)) as done, ray_pool("", Reporter(quiet=True)) as pool:
        assert run_grid(there, Reporter(quiet=True), pool=pool) == {}
    assert done == [0]
    assert "resuming" in log_file(run.folder).read_text()
    assert run_grid(here, Reporter(quiet=True), jobs=1) == {}
    left, right = (load_file(each.folder / "model.safetensors") for each in (run, straight))
    assert left.keys() == right.keys()
    assert all(left[name].equal(right[name]) for name in left)


def test_a_lost_board_ends_no_grid(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, lost, asked, begun = plan_grid(spec(tmp_path)), list[bool](), list[bool](), RayPool.begun

    def recorded(pool: RayPool) -> Begun:
        asked.extend(lost)
        return begun(pool)

    monkeypatch.setattr(RayPool, "begun", recorded)
    with ray_pool("", Reporter(quiet=True), command=waiting_command) as pool:

        def lose() -> None:
            ray.kill(pool._board, no_restart=False)
            lost.append(True)

        with when((lambda: have_begun(grid), lose), (lambda: len(asked) > 10, (tmp_path / "go").touch)) as done:
            assert run_grid(grid, Reporter(quiet=True), pool=pool) == {}
        assert ray.get(pool._board.take.remote()) == []
    assert done == [0, 1]
    assert [state_of(run) for run in grid.runs] == ["finished", "finished"]


def test_ctrl_c_saves_every_run(cluster: Any, tmp_path: Path) -> None:
    grid = plan_grid(spec(tmp_path, seeds=3))  # more than there are cores
    begun = lambda: sum(bool(starts_of(run)) for run in grid.runs) == 4  # noqa: E731
    with when((begun, lambda: os.kill(os.getpid(), signal.SIGINT))), pytest.raises(Interrupted):
        run_waiting(grid)
    saved = [run for run in grid.runs if starts_of(run)]
    assert len(saved) == 4
    assert all((run.folder / "saved").exists() for run in saved)


def test_a_run_that_fails_says_why_and_a_finished_one_is_left_alone(cluster: Any, tmp_path: Path) -> None:
    grid = plan_grid(spec(tmp_path))
    fake_run(grid.runs[1], "metrics.json")
    fake_run(grid.runs[0])
    (grid.runs[0].folder / "begun").mkdir()  # in the way of the process
    problems, said = run_waiting(grid)
    assert problems.keys() == {grid.runs[0].folder}
    assert "Error" in problems[grid.runs[0].folder]
    assert "1 of 2 runs" in said


def test_what_no_machine_has_is_refused(cluster: Any, tmp_path: Path) -> None:
    grid = plan_grid(spec(tmp_path))
    pool = RayPool(ray, Reporter(quiet=True), cpus=64, can_grow=False)
    with pytest.raises(LongtailError, match="--run-cpus"):
        run_grid(grid, Reporter(quiet=True), pool=pool)


@pytest.mark.parametrize(
    ("machines", "device", "size", "gpus", "expected"),
    [
        ([{"CPU": 8.0}], "auto", 224, None, (1, 0.0)),
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 64.0}], "auto", 224, None, (8, 1.0)),
        ([{"CPU": 16.0, "GPU": 2.0}], "auto", 32, None, (2, 0.25)),
        ([{"CPU": 16.0, "GPU": 2.0}], "cpu", 32, None, (1, 0.0)),
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}], "auto", 32, 0.5, (2, 0.5)),
    ],
)
def test_resources_follow_the_machines(
    machines: list[dict[str, float]], device: str, size: int, gpus: float | None, expected: tuple[int, float]
) -> None:

    runs = plan_grid(spec(set=SMALL | {"data.image_size": size, "training.device": device})).runs
    chosen = choose_resources(runs, machines, None, gpus)
    assert (chosen.cpus, chosen.gpus) == expected
