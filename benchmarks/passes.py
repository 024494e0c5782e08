"""Accuracy against image passes, of runs that were validated on the way: rows, and a picture.

python benchmarks/passes.py runs/curve/*/seed-* --csv docs/results/passes.csv --out docs/images/passes.png

A run of a grid has the name that the grid gives it, that of the folder of its seeds. A pass takes each training image
through the network once; smaller images count by their pixels. What stage 2 passes through the frozen network counts as
well: once for each of its epochs, or once for each view that is stored.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from portfolio import add_rows

from longtail.config.schema import RunConfig
from longtail.config.stage import StageConfig, size_of_epoch
from longtail.report.plots import INK, MUTED, THEME, blank
from longtail.run import read
from longtail.run.layout import read_config

COLUMNS = ("name", "recipe", "seed", "source", "stage", "epoch", "passes", "balanced_accuracy")
COLORS = tuple(THEME[name][0] for name in ("many", "few", "medium"))
WIDTH, HEIGHT = 900, 460  # in pixels


def main() -> int:
    """Add the rows of the runs to a file, and draw all rows of it."""
    flags = _flags()
    rows = [row for folder in flags.runs for row in rows_of(folder)]
    if rows:
        add_rows(rows, flags.csv, COLUMNS, of=("name", "seed"))
    with flags.csv.open(newline="") as stream:
        curves(list(csv.DictReader(stream))).write_image(flags.out, width=WIDTH, height=HEIGHT, scale=2)
    return 0


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each epoch of a run after which the validation images were looked at."""
    run, config = read(folder), read_config(folder)
    for epoch in run.history:
        if epoch.validation_balanced_accuracy is None:
            continue
        passes = passes_until(config, epoch.stage, epoch.epoch)
        values = {
            "name": folder.parent.name,
            "recipe": run.recipe,
            "seed": config.training.seed,
            "source": Path(config.data.source).name,
        }
        values |= {"stage": epoch.stage, "epoch": epoch.epoch, "passes": round(passes, 2)}
        yield values | {"balanced_accuracy": round(epoch.validation_balanced_accuracy, 4)}


def passes_until(config: RunConfig, stage: int, epoch: int) -> float:
    """Return the image passes of a run until the end of an epoch.

    Example:
        >>> run = RunConfig(stage1=StageConfig(epochs=90, image_sizes=[16, 32, 32]), stage2=StageConfig(epochs=10))
        >>> [passes_until(run, *moment) for moment in ((1, 30), (1, 90), (2, 10))]
        [7.5, 67.5, 77.5]
    """
    before = sum(_whole(each, config) for number, each in config.stages.items() if number < stage)
    current, full = config.stages[stage], config.data.image_size
    if current.cached_views:
        return before + current.cached_views
    sides = (size_of_epoch(current.image_sizes, done, current.epochs) or full for done in range(epoch))
    return before + current.epoch_share * sum((side / full) ** 2 for side in sides)


def _whole(stage: StageConfig, config: RunConfig) -> float:
    return float(stage.cached_views) or stage.passes(config.data.image_size)


def curves(rows: list[dict[str, str]]) -> go.Figure:
    """Draw balanced accuracy against passes: a line a run, a color a name, a circle where stage 2 has ended."""
    figure = blank(HEIGHT, left=60)
    runs: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        runs[row["name"], row["seed"]].append(row)
    names = list(dict.fromkeys(name for name, _ in runs))
    for (name, _), points in runs.items():
        color = COLORS[names.index(name) % len(COLORS)]
        x = [float(row["passes"]) for row in points]
        y = [100 * float(row["balanced_accuracy"]) for row in points]
        figure.add_scatter(x=x, y=y, mode="lines", line={"color": color, "width": 2})
        figure.add_scatter(x=x[-1:], y=y[-1:], mode="markers", marker={"color": color, "size": 10})
    for name, color in zip(names, COLORS, strict=False):
        last = max((points for (of, _), points in runs.items() if of == name), key=len)[-1]
        place = {
            "x": float(last["passes"]),
            "y": 100 * float(last["balanced_accuracy"]),
            "xanchor": "left",
            "xshift": 10,
        }
        figure.add_annotation(text=f"<b>{name}</b>", showarrow=False, font={"color": color, "size": 14}, **place)
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white", margin={"t": 40, "r": 60, "b": 70})
    figure.update_xaxes(title="Passes over the training images (smaller ones by their pixels)", rangemode="tozero")
    figure.update_yaxes(title="Balanced accuracy on validation images", ticksuffix="%")
    corner = {"xref": "paper", "yref": "paper", "x": 0, "y": 1.09, "xanchor": "left", "showarrow": False}
    figure.add_annotation(text="a line for each seed; point: after stage 2", font={"color": MUTED}, **corner)
    return figure.update_layout(font={"color": INK}, showlegend=False)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument("--csv", type=Path, default=Path("docs/results/passes.csv"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/passes.png"))
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
