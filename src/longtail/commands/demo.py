"""longtail demo: two classifiers of real handwritten digits, and the report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

from rich.console import Console

from longtail.commands.output import print_line, refuse_stream
from longtail.commands.train import train_command
from longtail.config.options import Count
from longtail.errors import LongtailError
from longtail.run.layout import CONFIG_FILE, REPORT_FILE, read_config

DEMO_RECIPES = ("demo/ce", "demo/gcl")


def demo(*, out: Annotated[str, "DIR"] = "runs/demo", epochs: Count | None = None) -> int:
    """Train plain cross-entropy and Gaussian clouded logits on real handwritten digits, and report.

    Args:
        out: folder for the runs and the report; made anew
        epochs: epochs of stage 1
    """
    from longtail.compare.comparison import compare_runs
    from longtail.compare.table import print_table
    from longtail.config.resolve import resolve
    from longtail.report.page import write_report

    refuse_stream(out, "--out")
    folders = [Path(out) / recipe.split("/")[1] for recipe in DEMO_RECIPES]
    earlier = [folder for folder in folders if folder.exists()]
    for folder in earlier:  # all are looked at before the first is deleted
        if not (folder / CONFIG_FILE).is_file() or read_config(folder).recipe not in DEMO_RECIPES:
            raise LongtailError(f"{folder} exists already and is not a run of the demo: choose another --out.")
    for folder in earlier:
        shutil.rmtree(folder)
    for recipe, folder in zip(DEMO_RECIPES, folders, strict=True):
        config = resolve({"recipe": recipe, "data.source": "mnist5k"}, epochs=epochs)
        Console(stderr=True).print(f"\n[bold]{recipe}[/bold]")
        status = train_command(config, str(folder))
        if status:
            return status
    print_table(compare_runs(folders), Console())
    page = write_report(folders, Path(out) / REPORT_FILE)
    print_line(f"\nreport: {page}")
    return 0
