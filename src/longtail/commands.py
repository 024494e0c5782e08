"""What each command does: calls the library and shows the result. The same functions serve Python users' scripts."""

from __future__ import annotations

import errno
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from longtail.errors import LongtailError, resume_hint
from longtail.training.config import RunConfig, TrainingConfig

if TYPE_CHECKING:
    from longtail.training.grid import Grid, PlannedRun
    from longtail.training.progress import Reporter

EXIT_INTERRUPTED = 130
DEMO_RECIPES = ("demo/ce", "demo/gcl")
RUN_FILES = ("metrics.json", "model.safetensors", "model.json", "report.html")


def inspect_command(
    source: str,
    *,
    label_column: str | None = None,
    image_column: str | None = None,
    json: bool = False,
) -> None:
    """Show what a source holds."""
    from longtail.data.inspection import inspect_source, render

    found = inspect_source(source, label_column=label_column, image_column=image_column)
    if json:
        _print_json(found.to_dict())
    else:
        render(found, Console())


def prepare_command(
    source: str,
    out: str,
    *,
    size: int = 256,
    skip_bad: bool = False,
    label_column: str | None = None,
    image_column: str | None = None,
    quiet: bool = False,
) -> None:
    """Write the images of a source resized, and say how many they were and how fast that went."""
    from longtail.data.resized import write_resized
    from longtail.data.sources import load_source
    from longtail.training.progress import Reporter

    data = load_source(source, label_column=label_column, image_column=image_column)
    reporter = Reporter(quiet=quiet)
    for finding in data.findings:
        reporter.say(f"note: {finding.message}")
    begun = time.perf_counter()
    with reporter.bar("preparing", sum(map(len, data.splits.values()))) as bar:
        done = write_resized(data, Path(out), size, skip_bad=skip_bad, tick=bar.tick)
    seconds = time.perf_counter() - begun
    for problem in done.skipped:
        reporter.say(f"skipped: {problem}")
    images = sum(done.images.values())
    splits = ", ".join(f"{count:,} {name}" for name, count in done.images.items())
    skipped = f", {len(done.skipped):,} unreadable skipped" if done.skipped else ""
    _print(f"{out}: {images:,} images of {size} x {size} pixels ({splits}{skipped}), {images / seconds:.0f} images/s")
    _print(f"train on it: longtail train {shlex.quote(f'hf:{out}')} --recipe NAME --out RUN")


def train_command(config: RunConfig, out: str, *, quiet: bool = False) -> int:
    """Train into a new folder, then write the report; return the exit status."""
    from longtail.training.check import check_config
    from longtail.training.progress import Reporter
    from longtail.training.run import start_run

    check_config(config)
    return _finish_training(lambda reporter: start_run(config, Path(out), reporter), out, Reporter(quiet=quiet))


def resume_command(run: str, *, quiet: bool = False) -> int:
    """Continue a run from its last checkpoint; return the exit status."""
    from longtail.training.check import check_config
    from longtail.training.progress import Reporter
    from longtail.training.run import resume_run

    folder = Path(run)
    reporter = Reporter(quiet=quiet)
    config = saved_config(folder)
    if all((folder / name).is_file() for name in RUN_FILES):
        reporter.say(f"{run} is complete already; nothing to do.")
        return 0
    check_config(config)
    return _finish_training(lambda reporter: resume_run(config, folder, reporter), run, reporter)


def saved_config(run: Path) -> RunConfig:
    """Return the configuration of a run.

    Raises:
        LongtailError: The folder is no run.
    """
    from longtail.training.recipe import config_from_dict, read_config

    path = run / "config.yaml"
    if not path.is_file():
        raise LongtailError(f"{run} holds no config.yaml, so it is no RUN that was started; train into a new --out.")
    return config_from_dict(read_config(path), str(path))


def evaluate_command(
    run: str,
    source: str | None = None,
    *,
    split: str = "test",
    label_column: str | None = None,
    image_column: str | None = None,
    json: bool = False,
) -> None:
    """Evaluate a finished run on its own split or on another source."""
    from longtail.training.engine import is_main_process
    from longtail.training.evaluate_run import evaluate_run
    from longtail.training.progress import Reporter

    summary = evaluate_run(
        Path(run), source, split=split, label_column=label_column, image_column=image_column, say=Reporter().say
    )
    if not is_main_process():
        return
    if json:
        _print_json(summary)
    else:
        _print(f"{run} on {source or 'its own source'}, {split}", style="italic")
        Console().print(summary_table(summary))


def predict_command(
    run: str, images: str, out: str, *, top_k: int = 5, batch_size: int = 64, device: str = "auto"
) -> None:
    """Classify images into a CSV file."""
    from longtail.inference.predict import predict_images
    from longtail.training.engine import Engine

    if Path(out).is_dir():
        raise LongtailError(f"{out} is a folder: name the file to write, --out {Path(out) / 'predictions.csv'}.")
    place = Engine(TrainingConfig(device="cpu" if device == "cpu" else "auto")).device
    console = Console(stderr=True)
    report = predict_images(run, images, out, top_k=top_k, batch_size=batch_size, device=place, console=console)
    if not report.predicted:
        raise LongtailError(f"none of the {len(report.skipped)} files in {images!r} is an image that can be read.")


def compare_command(runs: Sequence[str], *, baseline: str | None = None, csv: str | None = None) -> None:
    """Print the comparison of several runs."""
    from longtail.report.compare import compare_runs

    comparison = compare_runs([Path(run) for run in runs], baseline=baseline)
    comparison.render(Console())
    if csv is not None:
        comparison.to_csv(Path(csv))


def grid_command(
    source: str = "",
    *,
    grid: str | None = None,
    recipe: Sequence[str] = (),
    seeds: int | None = None,
    epochs: int | None = None,
    imbalance_ratio: float | None = None,
    set: Sequence[str] = (),  # noqa: A002 - the name of the option
    tracker: str | None = None,
    out: str | None = None,
    jobs: int | None = None,
    baseline: str | None = None,
    csv: str | None = None,
) -> int:
    """Train what a grid still lacks, then compare its runs; return the exit status."""
    from longtail.training.grid import plan_grid, read_grid, recipe_grid
    from longtail.training.grid_runner import log_of, run_grid
    from longtail.training.interrupt import Interrupted
    from longtail.training.progress import Reporter

    if grid is not None:
        values = read_grid(grid) | ({"baseline": baseline} if baseline is not None else {})
    else:
        cut = [] if imbalance_ratio is None else [f"data.imbalance_ratio={imbalance_ratio}"]
        values = recipe_grid(source, recipe, seeds=1 if seeds is None else seeds, epochs=epochs, baseline=baseline,
                             options=[*cut, *set])  # fmt: skip
    values |= {"out": out} if out is not None else {}
    options = values.get("set") or {}
    if tracker is not None and isinstance(options, dict):  # plan_grid complains of anything else
        values["set"] = options | {"training.tracker": tracker}
    planned = plan_grid(values, grid or "the grid")
    try:
        outcomes = run_grid(planned, Reporter(), jobs=jobs)
    except Interrupted:
        again = shlex.quote(str(planned.out / "grid.yaml"))
        sys.stderr.write(f"stopped; the checkpoints are saved. Continue with: longtail compare --grid {again}\n")
        return EXIT_INTERRUPTED
    failed = [outcome for outcome in outcomes if outcome.problem]
    _show_grid(planned, [outcome.run for outcome in outcomes if not outcome.problem], csv)
    for outcome in failed:
        sys.stderr.write(f"failed: {outcome.run.title}: {outcome.problem} ({log_of(outcome.run)})\n")
    if failed:
        raise LongtailError(f"{len(failed)} of {len(outcomes)} runs failed; the same command tries them again.")
    return 0


def _show_grid(grid: Grid, finished: Sequence[PlannedRun], csv: str | None) -> None:
    """Print and write the tables and pages of a grid: one of each baseline, which is one unless the data vary."""
    from longtail.report.compare import compare_runs, write_csv
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
        comparisons[-1].render(Console())
        page = "report.html" if len(baselines) == 1 else f"report-{baseline}.html"
        _print(f"report: {write_report(folders, grid.out / page, names=names, baseline=first)}")
    for path in [grid.out / "table.csv", *([Path(csv)] if csv is not None else [])] if comparisons else []:
        write_csv(comparisons, path)


def report_command(runs: Sequence[str], out: str) -> None:
    """Write the page about several runs and print its path."""
    from longtail.report.page import write_report

    if Path(out).is_dir():
        raise LongtailError(f"{out} is a folder: name the page to write, --out {Path(out) / 'report.html'}.")
    _print(f"report: {write_report([Path(run) for run in runs], Path(out))}")


def recipes_command(name: str | None = None) -> None:
    """List the recipes, one line each, or print one in full."""
    from longtail.training.recipe import flatten, list_recipes, load_recipe

    if name is None:
        known = [load_recipe(each) for each in list_recipes()]
        width = max(len(recipe.name) for recipe in known)
        for recipe in known:
            _print(f"{recipe.name:<{width}}  {recipe.description}")
        return
    recipe = load_recipe(name)
    _print(f"# {recipe.name}: {recipe.description}", style="bold")
    if recipe.paper:
        _print(f"# {recipe.paper}")
    values = {key: value for key, value in flatten(recipe.config).items() if key != "recipe"}
    lines = {key: f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()}
    width = min(max(map(len, lines.values())), 60)
    for key, line in lines.items():
        _print(f"{line:<{width}}  # {recipe.source_of(key)}")


def demo_command(out: str = "runs/demo", *, epochs: int | None = None) -> int:
    """Train two classifiers on long-tailed digits, compare them and write a report; return the exit status."""
    from longtail.report.compare import compare_runs
    from longtail.report.page import write_report
    from longtail.training.recipe import base_config, config_from_dict, merge

    folders = [Path(out) / recipe.split("/")[1] for recipe in DEMO_RECIPES]
    _make_way(folders)
    for recipe, folder in zip(DEMO_RECIPES, folders, strict=True):
        config = config_from_dict(merge(base_config(recipe, epochs=epochs), {"data": {"source": "mnist5k"}}))
        Console(stderr=True).print(f"\n[bold]{recipe}[/bold]")
        status = train_command(config, str(folder))
        if status:
            return status
    compare_runs(folders).render(Console())
    page = write_report(folders, Path(out) / "report.html")
    _print(f"\nreport: {page}")
    return 0


def summary_table(summary: dict[str, Any]) -> Table:
    """Lay the main figures of a summary out as a table; an empty group reads n/a."""
    table = Table("figure", "value", box=None, header_style="bold", pad_edge=False)
    for key, value in summary.items():
        if key == "per_class":
            continue
        if key in {"num_images", "nll"}:
            shown = str(value) if isinstance(value, int) else f"{value:.4f}"
        else:
            shown = "n/a" if value is None else f"{value * 100:.2f} %"
        table.add_row(key.replace("_", " "), shown)
    return table


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or the one it was raised from, says that no space is left.

    Example:
        >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device")), is_disk_full(OSError("denied"))
        (True, False)
    """
    if error is None:
        return False
    full = isinstance(error, OSError) and (error.errno == errno.ENOSPC or "No space left" in str(error))
    return full or is_disk_full(error.__cause__)


def _finish_training(work: Callable[[Reporter], dict[str, Any]], out: str, reporter: Reporter) -> int:
    import torch

    from longtail.training.engine import is_main_process
    from longtail.training.interrupt import Interrupted
    from longtail.training.progress import describe

    try:
        metrics = work(reporter)
    except Interrupted:
        if is_main_process():  # also where --quiet was asked for
            sys.stderr.write(f"stopped; the checkpoint is saved. Continue with: {resume_hint(out)}\n")
        return EXIT_INTERRUPTED
    except torch.OutOfMemoryError as error:
        raise LongtailError(
            "the device is out of memory: train with --training.accumulation 2 or more, or a smaller batch_size; "
            "in a grid, with fewer --jobs."
        ) from error
    except (OSError, LongtailError) as error:
        if is_disk_full(error) and (Path(out) / "config.yaml").is_file():
            raise LongtailError(
                f"no space left on the device of {out} while training; what was saved before is whole: "
                f"free some space, then continue with: {resume_hint(out)}"
            ) from error
        raise
    if is_main_process():
        from longtail.report.page import write_report

        page = write_report([Path(out)], Path(out) / "report.html")
        if metrics["test"] is not None:
            _print(f"test {describe(metrics['test'])}")
        _print(f"report: {page}")
    return 0


def _make_way(folders: Sequence[Path]) -> None:
    """Delete the runs of an earlier demo; refuse to delete anything else, and then delete nothing."""
    found = [folder for folder in folders if folder.exists()]
    for folder in found:
        if not (folder / "config.yaml").is_file() or saved_config(folder).recipe not in DEMO_RECIPES:
            raise LongtailError(f"{folder} exists already and is no run of the demo: choose another --out.")
    for folder in found:
        shutil.rmtree(folder)


def _print(text: str, style: str | None = None) -> None:
    """Print a line as it is: no colours guessed, no [markup], never wrapped."""
    Console().print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def _print_json(values: Any) -> None:
    Console().print_json(json.dumps(values, ensure_ascii=False, allow_nan=False))
