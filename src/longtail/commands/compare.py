"""longtail compare: finished runs in one table, or a grid of runs trained first."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le
from rich.console import Console

from longtail.commands import output
from longtail.commands.arguments import COLUMNS, SHORT, RunOptions, usage
from longtail.config.options import Count, Nested
from longtail.console import Interrupted, Reporter
from longtail.device import processes
from longtail.errors import LongtailError, UsageError, as_usage
from longtail.run.layout import GRID_FILE, REPORT_FILE, TABLE_FILE, baseline_report, log_file

if TYPE_CHECKING:
    from longtail.experiments.grid_plan import Grid, PlannedRun


_OVER_A_FILE = ("training.tracker", "training.keep_checkpoints")
SHORT_OPTIONS = (*COLUMNS, "data.imbalance_ratio", *_OVER_A_FILE)


@dataclass(frozen=True)
class GridEngine:
    """What trains the runs of a grid: processes of this machine, or a Ray cluster.

    Attributes:
        jobs: Runs at once on this machine.
        ray: Address of the cluster, empty for one on this machine; None for none.
        run_cpus: Cores of a run on a cluster.
        run_gpus: Share of a GPU of a run on a cluster.
    """

    jobs: int | None = None
    ray: str | None = None
    run_cpus: int | None = None
    run_gpus: float | None = None

    @property
    def flags(self) -> dict[str, object]:
        """The options by their flags."""
        return {"--jobs": self.jobs, "--ray": self.ray, "--run-cpus": self.run_cpus, "--run-gpus": self.run_gpus}

    def check(self) -> None:
        """Check that the options go together.

        Raises:
            UsageError: They do not.
        """
        if self.ray is not None and self.jobs is not None:
            raise UsageError("--ray runs as many at once as the cluster has room for: leave --jobs out, or --ray.")
        for flag in ("--run-cpus", "--run-gpus"):
            if self.ray is None and self.flags[flag] is not None:
                raise UsageError(f"{flag} is for a cluster: add --ray.")

    def train(self, grid: Grid, reporter: Reporter) -> dict[Path, str]:
        """Train the runs of a grid that are not finished; see :func:`longtail.experiments.grid_runner.run_grid`."""
        from longtail.experiments.grid_ray import ray_pool
        from longtail.experiments.grid_runner import run_grid

        if self.ray is None:
            return run_grid(grid, reporter, jobs=self.jobs)
        with ray_pool(self.ray, reporter, cpus=self.run_cpus, gpus=self.run_gpus) as pool:
            return run_grid(grid, reporter, pool=pool)

    @property
    def words(self) -> str:
        """The options as they are typed again to continue."""
        given = (f"{flag} {value}".rstrip() for flag, value in self.flags.items() if value is not None)
        return "".join(f" {option}" for option in given if not option.startswith("--jobs"))


def compare(
    runs: Annotated[Sequence[str], "RUN ..."] = (),
    *,
    grid: Annotated[str, "FILE"] | None = None,
    recipe: Annotated[Sequence[str], "NAME"] = (),
    out: Annotated[str, "DIR"] | None = None,
    seeds: Count | None = None,
    epochs: Count | None = None,
    batch_size: Count | None = None,
    set: Annotated[Sequence[str], "KEY=VALUE"] = (),  # noqa: A002 - as it is typed
    jobs: Count | None = None,
    ray: Annotated[str, "[ADDRESS]"] | None = None,
    run_cpus: Count | None = None,
    run_gpus: Annotated[float, Ge(0), Le(1)] | None = None,
    baseline: Annotated[str, "NAME"] | None = None,
    csv: Annotated[str, "FILE.csv"] | None = None,
    options: Annotated[Mapping[str, Any], RunOptions(short=SHORT_OPTIONS, dotted=False)],
) -> int:
    """Compare runs in one table, or train a grid of runs first: groups, mean ± std, paired differences.

    Usage:
        longtail compare RUN RUN ... [--baseline NAME] [--csv FILE.csv]
        longtail compare SOURCE --recipe NAME --recipe NAME --out DIR
            [--seeds 3] [--epochs N] [--batch-size N] [--set KEY=VALUE] [--jobs N]
        longtail compare --grid FILE.yaml [--out DIR] [--jobs N]
        longtail compare --grid FILE.yaml --ray [ADDRESS] [--run-cpus N] [--run-gpus X]

    Args:
        runs: RUN folders to compare; with --recipe, the SOURCE
        grid: train the runs in this file first
        recipe: train this recipe first; repeat it
        out: folder of the trained runs
        seeds: runs of each recipe, with seeds from 0 up
        epochs: epochs of the first stage; the rest scales with it
        batch_size: images per step, in stages 1 and 2
        set: option of all runs
        jobs: runs trained at once; 1 on a CPU
        ray: train on a Ray cluster, each run a task; without ADDRESS on this machine
        run_cpus: cores of a run on a cluster
        run_gpus: share of a GPU of a run on a cluster, such as 0.25
        baseline: run that the others are compared with
        csv: also write the table here, or -
        options: options of all runs by dotted name
    """
    from longtail.compare.comparison import compare_runs
    from longtail.compare.table import print_table, write_csv
    from longtail.experiments.grid_plan import recipe_grid

    table = None if csv is None else output.destination(csv, (".csv",), option="--csv", example="table.csv")
    over = {name: value for name, value in options.items() if name in _OVER_A_FILE}
    settings = {name: value for name, value in options.items() if name not in _OVER_A_FILE}
    in_a_file = {"--recipe": recipe, "--seeds": seeds, "--epochs": epochs, "--batch-size": batch_size, "--set": set}
    given = [flag for flag, value in in_a_file.items() if value not in (None, ())] + [SHORT[name] for name in settings]
    engine = GridEngine(jobs, ray, run_cpus, run_gpus)
    asked: Nested = {name: value for name, value in (("out", out), ("baseline", baseline)) if value is not None}
    if grid is not None:
        if given or runs:
            word = given[0] if given else repr(runs[0])
            raise UsageError(f"--grid takes its runs from the file: leave {word} out, or write it there.")
        return grid_command(asked, over, table, grid=grid, engine=engine)
    if recipe:
        if len(runs) != 1:
            raise UsageError("--recipe trains on one SOURCE: longtail compare SOURCE --recipe NAME --out DIR.")
        values = recipe_grid(
            runs[0],
            recipe,
            seeds=seeds or 1,
            epochs=epochs,
            batch_size=batch_size,
            baseline=baseline or "",
            options=set,
        )
        return grid_command(asked | values | {"set": settings | values["set"]}, over, table, grid=None, engine=engine)
    given += [name for name, value in (("--out", out), *engine.flags.items()) if value is not None]
    given += [SHORT[name] for name in over]
    if given:
        raise UsageError(f"{given[0]} is for runs still to be trained: add --recipe NAME or --grid FILE.yaml.")
    if not runs:
        raise UsageError(f"RUN missing: {usage('longtail compare', compare).splitlines()[0]}")
    comparison = compare_runs([Path(run) for run in runs], baseline=baseline)
    with output.messages_apart(table):
        print_table(comparison, Console())
        if table is not None:
            write_csv([comparison], table.path)
            output.print_line(f"table: {table}")
    return 0


def grid_command(
    asked: Nested,
    over: Mapping[str, Any],
    table: output.Destination | None,
    *,
    grid: str | None,
    engine: GridEngine,
) -> int:
    """Train what a grid still lacks, then compare its runs; return the exit status.

    Args:
        asked: The grid, or what is asked for over that of the file.
        over: Options of all runs, over what a run sets itself.
        table: File to write the table to, if any.
        grid: The file of the grid, if any.
        engine: What trains the runs.

    Raises:
        UsageError: Options do not go together, or torchrun or accelerate has started several of this command.
        LongtailError: The grid cannot be planned, or a run failed.
    """
    from longtail.config.build import with_options
    from longtail.experiments.grid_plan import plan_grid, read_grid

    engine.check()
    if processes() > 1:
        raise UsageError("compare trains each run in a process of its own: start it once, without torchrun.")
    if "out" in asked:
        output.refuse_stream(asked["out"], "--out")
    values = (read_grid(grid) if grid is not None else {}) | asked
    settings = values.get("set") or {}
    if over and isinstance(settings, dict):  # plan_grid complains of anything else
        values["set"] = settings | dict(over)
    with nullcontext() if grid is not None else as_usage():  # what is wrong then stands in a file, or in the options
        planned = plan_grid(values, grid or "the grid")
    runs = tuple(replace(run, config=with_options(run.config, over)) for run in planned.runs)
    return _train_and_show(replace(planned, runs=runs), engine, table)


def _train_and_show(planned: Grid, engine: GridEngine, table: output.Destination | None) -> int:
    """Train the runs of a grid that are not finished, show all that are, and return the exit status."""
    reporter = Reporter()
    for line in output.outlines({run.name: run.config for run in planned.runs}):
        reporter.say(line)
    if any(run.config.is_open for run in planned.runs):
        reporter.say("each run chooses for itself what is left open, on its own training images")
    try:
        problems = engine.train(planned, reporter)
    except Interrupted:
        again = shlex.quote(str((planned.out / GRID_FILE).absolute()))
        sys.stderr.write(
            f"stopped; the checkpoints are saved. Continue with: longtail compare --grid {again}{engine.words}\n"
        )
        return output.EXIT_INTERRUPTED
    with output.messages_apart(table):
        _show_grid(planned, [run for run in planned.runs if run.folder not in problems], table)
    for run in planned.runs:
        if run.folder in problems:
            sys.stderr.write(f"failed: {run.title}: {problems[run.folder]} ({log_file(run.folder)})\n")
    if problems:
        raise LongtailError(f"{len(problems)} of {len(planned.runs)} runs failed; the same command tries them again.")
    return 0


def _show_grid(grid: Grid, finished: Sequence[PlannedRun], table: output.Destination | None) -> None:
    """Print and write the tables and pages of a grid: one of each baseline, which is one unless the data vary."""
    from longtail.compare.comparison import compare_runs
    from longtail.compare.table import print_table, write_csv
    from longtail.report.page import write_report

    comparisons = []
    baselines = list(dict.fromkeys(run.baseline for run in finished))
    for baseline in baselines:
        runs = [run for run in finished if run.baseline == baseline]
        folders, names = [run.folder for run in runs], [run.name for run in runs]
        first = baseline if baseline in names else names[0]
        if first != baseline:
            sys.stderr.write(f"note: {baseline} has no finished run, so that others are compared with {first}\n")
        comparisons.append(compare_runs(folders, names=names, baseline=first))
        print_table(comparisons[-1], Console())
        page = REPORT_FILE if len(baselines) == 1 else baseline_report(baseline)
        output.print_line(f"report: {write_report(folders, grid.out / page, names=names, baseline=first)}")
    if comparisons:
        write_csv(comparisons, grid.out / TABLE_FILE)
    if comparisons and table is not None:
        write_csv(comparisons, table.path)
        output.print_line(f"table: {table}")
