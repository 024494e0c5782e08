"""What each command does: calls the library and shows the result. The same functions serve Python users' scripts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from longtail.errors import LongtailError
from longtail.training.config import RunConfig

EXIT_INTERRUPTED = 130
DEMO_RECIPES = ("demo/ce", "demo/gcl")


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


def train_command(config: RunConfig, out: str, *, quiet: bool = False) -> int:
    """Train into a new folder, then write the report; return the exit status."""
    from longtail.training.progress import Reporter
    from longtail.training.run import start_run

    return _finish_training(lambda reporter: start_run(config, Path(out), reporter), out, Reporter(quiet=quiet))


def resume_command(run: str, *, quiet: bool = False) -> int:
    """Continue a run from its last checkpoint; return the exit status."""
    from longtail.training.progress import Reporter
    from longtail.training.run import resume_run

    folder = Path(run)
    reporter = Reporter(quiet=quiet)
    if (folder / "metrics.json").is_file() and (folder / "report.html").is_file():
        reporter.say(f"{run} is complete already; nothing to do.")
        return 0
    config = saved_config(folder)
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


def evaluate_command(run: str, source: str | None = None, *, split: str = "test", json: bool = False) -> None:
    """Evaluate a finished run on its own split or on another source."""
    from longtail.training.evaluate_run import evaluate_run

    summary = evaluate_run(Path(run), source, split=split)
    if json:
        _print_json(summary)
    else:
        Console().print(summary_table(summary, f"{run} on {source or 'its own source'}, {split}"))


def predict_command(run: str, images: str, out: str, *, top_k: int = 5, batch_size: int = 64) -> None:
    """Classify images into a CSV file."""
    from longtail.inference.predict import predict_images

    predict_images(run, images, out, top_k=top_k, batch_size=batch_size)


def compare_command(runs: Sequence[str], *, csv: str | None = None) -> None:
    """Print the comparison of several runs."""
    from longtail.report.compare import compare_runs

    comparison = compare_runs([Path(run) for run in runs])
    comparison.render(Console())
    if csv is not None:
        comparison.to_csv(Path(csv))


def report_command(runs: Sequence[str], out: str) -> None:
    """Write the page about several runs and print its path."""
    from longtail.report.page import write_report

    Console().print(f"report: {write_report([Path(run) for run in runs], Path(out))}", highlight=False, soft_wrap=True)


def recipes_command(name: str | None = None) -> None:
    """List the recipes, or print one in full."""
    from longtail.training.recipe import flatten, list_recipes, load_recipe

    console = Console()
    if name is None:
        table = Table("recipe", "method", "paper", box=None, header_style="bold", pad_edge=False)
        for known in list_recipes():
            recipe = load_recipe(known)
            table.add_row(known, recipe.description, recipe.paper)
        console.print(table)
        return
    recipe = load_recipe(name)
    console.print(f"# {recipe.name}: {recipe.description}", style="bold", highlight=False, soft_wrap=True)
    if recipe.paper:
        console.print(f"# {recipe.paper}", highlight=False, soft_wrap=True)
    values = {key: value for key, value in flatten(recipe.config).items() if key != "recipe"}
    width = max(len(f"{key}: {json.dumps(value)}") for key, value in values.items())
    for key, value in values.items():
        line = f"{key}: {json.dumps(value)}"
        console.print(f"{line:<{min(width, 60)}}  # {recipe.source_of(key)}", highlight=False, markup=False,
                      soft_wrap=True)  # fmt: skip


def demo_command(out: str = "runs/demo", *, epochs: int | None = None) -> int:
    """Train two classifiers on long-tailed digits, compare them and write a report; return the exit status."""
    from longtail.report.compare import compare_runs
    from longtail.report.page import write_report
    from longtail.training.recipe import base_config, config_from_dict, merge

    folders = [Path(out) / recipe.split("/")[1] for recipe in DEMO_RECIPES]
    for recipe, folder in zip(DEMO_RECIPES, folders, strict=True):
        if folder.exists():
            shutil.rmtree(folder)
        config = config_from_dict(merge(base_config(recipe, epochs=epochs), {"data": {"source": "mnist5k"}}))
        Console(stderr=True).print(f"\n[bold]{recipe}[/bold]")
        status = train_command(config, str(folder))
        if status:
            return status
    console = Console()
    compare_runs(folders).render(console)
    page = write_report(folders, Path(out) / "report.html")
    console.print(f"\nreport: {page}", highlight=False, soft_wrap=True)
    return 0


def summary_table(summary: dict[str, Any], title: str) -> Table:
    """Lay the main figures of a summary out as a table; an empty group reads n/a."""
    table = Table("figure", "value", title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for key, value in summary.items():
        if key == "per_class":
            continue
        if key in {"num_images", "nll"}:
            shown = str(value) if isinstance(value, int) else f"{value:.4f}"
        else:
            shown = "n/a" if value is None else f"{value * 100:.2f} %"
        table.add_row(key.replace("_", " "), shown)
    return table


def _finish_training(work: Any, out: str, reporter: Any) -> int:
    from longtail.training.interrupt import Interrupted
    from longtail.training.run import describe

    try:
        metrics = work(reporter)
    except Interrupted:
        reporter.say(f"stopped; the checkpoint is saved. Continue with: longtail train --resume {out}")
        return EXIT_INTERRUPTED
    if _is_main_process():
        from longtail.report.page import write_report

        page = write_report([Path(out)], Path(out) / "report.html")
        if metrics["test"] is not None:
            Console().print(f"test {describe(metrics['test'])}", highlight=False, soft_wrap=True)
        Console().print(f"report: {page}", highlight=False, soft_wrap=True)
    return 0


def _is_main_process() -> bool:
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def _print_json(values: Any) -> None:
    Console().print_json(json.dumps(values, ensure_ascii=False, allow_nan=False))
