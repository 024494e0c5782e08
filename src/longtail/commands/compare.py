"""longtail compare: finished runs in one table, or a grid of runs trained first."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from longtail.commands.destination import Destination, destination, messages_apart, refuse_stream
from longtail.commands.terminal import EXIT_INTERRUPTED, EXIT_USAGE, as_dict, fail, print_line, spelt
from longtail.config.schema import Tracker
from longtail.errors import LongtailError, UsageError, as_usage
from longtail.run.folder import GRID_FILE, REPORT_FILE, log_file

if TYPE_CHECKING:
    from longtail.experiments.grid_plan import Grid, PlannedRun


GRAMMAR = """RUN RUN ... [--baseline NAME] [--csv FILE.csv]
       longtail compare SOURCE --recipe NAME --recipe NAME --out DIR
                      [--seeds 3] [--epochs N] [--batch-size N] [--set KEY=VALUE] [--jobs N]
       longtail compare --grid FILE.yaml [--out DIR] [--jobs N]"""


_COLUMNS = ("image_column", "label_column", "split_column")
_IN_A_FILE = (
    "seeds",
    "epochs",
    "batch_size",
    *_COLUMNS,
    "imbalance_ratio",
    "set",
)  # options that a grid file sets itself


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument("runs", type=str, nargs="*", help="RUN folders to compare; with --recipe, the SOURCE")
    parser.add_argument("--grid", type=str | None, default=None, metavar="FILE", help="train the runs in this file")
    parser.add_argument("--recipe", type=str, action="append", default=[], help="train this recipe first; repeat it")
    parser.add_argument("--seeds", type=int | None, default=None, help="runs of each recipe, with seeds from 0 up")
    parser.add_argument("--epochs", type=int | None, default=None, help="epochs of stage 1; the rest scales with it")
    parser.add_argument("--batch-size", type=int | None, default=None, help="images per step, in both stages")
    parser.add_argument("--image-column", type=str | None, default=None, help="column of the image in a table")
    parser.add_argument("--label-column", type=str | None, default=None, help="column of the label in a table")
    parser.add_argument("--split-column", type=str | None, default=None, help="column that says train or test")
    parser.add_argument("--imbalance-ratio", type=float | None, default=None, help="cut the training split to it")
    parser.add_argument("--set", type=str, action="append", default=[], metavar="KEY=VALUE", help="option of all runs")
    parser.add_argument("--tracker", type=Tracker | None, default=None, help="experiment tracker of all runs")
    parser.add_argument(
        "--keep-checkpoints", action="store_true", default=None, help="keep the checkpoints of finished runs"
    )
    parser.add_argument("--out", type=str | None, default=None, metavar="DIR", help="folder of the trained runs")
    parser.add_argument("--jobs", type=int | None, default=None, help="runs trained at once; 1 on a CPU")
    parser.add_argument("--baseline", type=str | None, default=None, metavar="NAME", help="what the others differ from")
    parser.add_argument(
        "--csv", type=str | None, default=None, metavar="FILE.csv", help="also write the table here; or -"
    )


def run(flags: Namespace) -> int:
    """Compare runs in one table, or train a grid of runs first: groups, mean ± std, paired differences."""
    if flags.grid is not None or flags.recipe:
        _check_grid_words(flags)
        return grid_command(flags.runs[0] if flags.runs else "", **as_dict(flags, without="runs"))
    to_train = (*_IN_A_FILE, "tracker", "keep_checkpoints", "out", "jobs")
    misplaced = next((spelt(name) for name in to_train if flags[name] not in (None, [])), None)
    if misplaced is not None:
        raise UsageError(f"{misplaced} is for runs still to be trained: add --recipe NAME or --grid FILE.yaml.")
    if not flags.runs:
        return fail(f"RUN missing: longtail compare {GRAMMAR.splitlines()[0]}", EXIT_USAGE)
    compare_command(flags.runs, baseline=flags.baseline, csv=flags.csv)
    return 0


def _check_grid_words(flags: Namespace) -> None:
    if flags.grid is None:
        if len(flags.runs) != 1:
            raise UsageError("--recipe trains on one SOURCE: longtail compare SOURCE --recipe NAME --out DIR.")
        return
    given = next((name for name in ("recipe", *_IN_A_FILE) if flags[name] not in (None, [])), None)
    if given is not None or flags.runs:
        word = spelt(given) if given is not None else repr(flags.runs[0])
        raise UsageError(f"--grid takes its runs from the file: leave {word} out, or write it there.")


def compare_command(runs: Sequence[str], *, baseline: str | None = None, csv: str | None = None) -> None:
    """Print the comparison of several runs."""
    from longtail.compare.comparison import compare_runs
    from longtail.compare.table import print_table, write_csv

    table = _table_file(csv)
    comparison = compare_runs([Path(run) for run in runs], baseline=baseline)
    with messages_apart(table):
        print_table(comparison, Console())
        if table is not None:
            write_csv([comparison], table.path)
            print_line(f"table: {table}")


def _table_file(csv: str | None) -> Destination | None:
    return None if csv is None else destination(csv, (".csv",), option="--csv", example="table.csv")


def grid_command(
    source: str = "",
    *,
    grid: str | None = None,
    recipe: Sequence[str] = (),
    seeds: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    imbalance_ratio: float | None = None,
    set: Sequence[str] = (),  # noqa: A002 - the name of the option
    tracker: Tracker | None = None,
    keep_checkpoints: bool | None = None,
    out: str | None = None,
    jobs: int | None = None,
    baseline: str | None = None,
    csv: str | None = None,
) -> int:
    """Train what a grid still lacks, then compare its runs; return the exit status."""
    from longtail.experiments.grid_plan import plan_grid, read_grid, recipe_grid

    table = _table_file(csv)
    if out is not None:
        refuse_stream(out, "--out")
    if grid is not None:
        values = read_grid(grid) | ({"baseline": baseline} if baseline is not None else {})
    else:
        short = [] if imbalance_ratio is None else [f"data.imbalance_ratio={imbalance_ratio}"]
        if batch_size is not None:
            short += [f"{stage}.batch_size={batch_size}" for stage in ("stage1", "stage2")]
        values = recipe_grid(
            source,
            recipe,
            seeds=1 if seeds is None else seeds,
            epochs=epochs,
            baseline=baseline,
            options=[*short, *set],
        )
        columns = dict(zip(_COLUMNS, (image_column, label_column, split_column), strict=True))
        values["set"] = {f"data.{key}": name for key, name in columns.items() if name is not None} | values["set"]
    values |= {"out": out} if out is not None else {}
    options = values.get("set") or {}
    wins = ({} if tracker is None else {"tracker": tracker}) | ({"keep_checkpoints": True} if keep_checkpoints else {})
    if wins and isinstance(options, dict):  # plan_grid complains of anything else
        values["set"] = options | {f"training.{name}": value for name, value in wins.items()}
    with nullcontext() if grid is not None else as_usage():  # what is wrong then stands in a file, or in the options
        planned = plan_grid(values, grid or "the grid")
    for run in planned.runs:  # over what a run says for itself
        run.config.training.tracker = tracker or run.config.training.tracker
        run.config.training.keep_checkpoints |= bool(keep_checkpoints)
    return _train_and_show(planned, jobs=jobs, table=table)


def _train_and_show(planned: Grid, *, jobs: int | None, table: Destination | None) -> int:
    """Train the runs of a grid that are not finished, show all that are, and return the exit status."""
    from longtail.config.outline import outlines
    from longtail.console import Reporter
    from longtail.experiments.grid_runner import run_grid
    from longtail.training.interrupt import Interrupted

    reporter = Reporter()
    for line in outlines({run.name: run.config for run in planned.runs}):
        reporter.say(line)
    try:
        outcomes = run_grid(planned, reporter, jobs=jobs)
    except Interrupted:
        again = shlex.quote(str(planned.out / GRID_FILE))
        sys.stderr.write(f"stopped; the checkpoints are saved. Continue with: longtail compare --grid {again}\n")
        return EXIT_INTERRUPTED
    failed = [outcome for outcome in outcomes if outcome.problem]
    with messages_apart(table):
        _show_grid(planned, [outcome.run for outcome in outcomes if not outcome.problem], table)
    for outcome in failed:
        sys.stderr.write(f"failed: {outcome.run.title}: {outcome.problem} ({log_file(outcome.run.folder)})\n")
    if failed:
        raise LongtailError(f"{len(failed)} of {len(outcomes)} runs failed; the same command tries them again.")
    return 0


def _show_grid(grid: Grid, finished: Sequence[PlannedRun], table: Destination | None) -> None:
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
        page = REPORT_FILE if len(baselines) == 1 else f"report-{baseline}.html"
        print_line(f"report: {write_report(folders, grid.out / page, names=names, baseline=first)}")
    for path in [grid.out / "table.csv", *([] if table is None else [table.path])] if comparisons else []:
        write_csv(comparisons, path)
    if table is not None and comparisons:
        print_line(f"table: {table}")
