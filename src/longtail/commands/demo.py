"""longtail demo: two classifiers of real handwritten digits, and the report."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from longtail.commands.destination import refuse_stream
from longtail.commands.terminal import as_dict, print_line
from longtail.commands.train import saved_config, train_command
from longtail.errors import LongtailError
from longtail.run.folder import CONFIG_FILE, REPORT_FILE

GRAMMAR = "[--out FOLDER] [--epochs N]"


DEMO_RECIPES = ("demo/ce", "demo/gcl")


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument("--out", type=str, default="runs/demo", help="folder for the runs and the report; made anew")
    parser.add_argument("--epochs", type=int | None, default=None, help="epochs of stage 1")


def run(flags: Namespace) -> int:
    """Train plain cross-entropy and Gaussian clouded logits on real handwritten digits, and report."""
    return demo_command(**as_dict(flags))


def demo_command(out: str = "runs/demo", *, epochs: int | None = None) -> int:
    """Train two classifiers on long-tailed digits, compare them and write a report; return the exit status."""
    from longtail.compare.comparison import compare_runs
    from longtail.compare.table import print_table
    from longtail.config.nested import merge
    from longtail.config.recipes import base_config, config_from_dict
    from longtail.report.page import write_report

    refuse_stream(out, "--out")
    folders = [Path(out) / recipe.split("/")[1] for recipe in DEMO_RECIPES]
    _make_way(folders)
    for recipe, folder in zip(DEMO_RECIPES, folders, strict=True):
        config = config_from_dict(merge(base_config(recipe, epochs=epochs), {"data": {"source": "mnist5k"}}))
        Console(stderr=True).print(f"\n[bold]{recipe}[/bold]")
        status = train_command(config, str(folder))
        if status:
            return status
    print_table(compare_runs(folders), Console())
    page = write_report(folders, Path(out) / REPORT_FILE)
    print_line(f"\nreport: {page}")
    return 0


def _make_way(folders: Sequence[Path]) -> None:
    """Delete the runs of an earlier demo; refuse to delete anything else, and then delete nothing."""
    found = [folder for folder in folders if folder.exists()]
    for folder in found:
        if not (folder / CONFIG_FILE).is_file() or saved_config(folder).recipe not in DEMO_RECIPES:
            raise LongtailError(f"{folder} exists already and is no run of the demo: choose another --out.")
    for folder in found:
        shutil.rmtree(folder)
