"""Draw what more pixels and more views buy, from the rows of ``presentation.py``.

python benchmarks/presentation_picture.py --csv docs/results/presentation.csv --out docs/images/presentation.png
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from longtail.report.plots import INK, MUTED, THEME, blank

COLORS = tuple(THEME[name][0] for name in ("many", "few", "medium"))
WIDTH, HEIGHT = 900, 460  # in pixels


def main() -> int:
    """Draw the curve of each set."""
    flags = _flags()
    with flags.csv.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["judged"] == "test" and row["fit"] == "crop"]
    curves(rows).write_image(flags.out, width=WIDTH, height=HEIGHT, scale=2)
    return 0


def points(rows: list[dict[str, str]], classifier: str) -> dict[int, list[float]]:
    """Return balanced accuracy in % at each size, one a row."""
    found: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row["views"] == "0" and row["classifier"].startswith(classifier):
            found[int(row["size"])].append(100 * float(row["balanced_accuracy"]))
    return dict(sorted(found.items()))


def curves(rows: list[dict[str, str]]) -> go.Figure:
    """Draw balanced accuracy against the size, a line for each set and classifier."""
    figure = blank(HEIGHT, left=60)
    for color, name in zip(COLORS, dict.fromkeys(row["set"] for row in rows), strict=False):
        ours = [row for row in rows if row["set"] == name]
        chosen, plain = points(ours, "portfolio"), points(ours, "logistic")
        best = {size: max(values) for size, values in plain.items()}
        means = {size: float(np.mean(values)) for size, values in chosen.items()}
        spread = [np.std(values, ddof=1) if len(values) > 1 else 0 for values in chosen.values()]
        figure.add_scatter(
            x=list(means),
            y=list(means.values()),
            error_y={"array": spread, "thickness": 1.5},
            mode="lines+markers",
            line={"color": color, "width": 2.5},
            marker={"size": 9},
        )
        figure.add_scatter(
            x=list(best),
            y=list(best.values()),
            mode="lines+markers",
            line={"color": color, "dash": "dot"},
            marker={"size": 5},
        )
        size, end = list((means or best).items())[-1]
        below = {} if means else {"yshift": -14}  # a dotted line alone, that others may run across
        place = {"x": size, "y": end, "xanchor": "left", "xshift": 12} | below
        figure.add_annotation(text=name, showarrow=False, font={"color": color, "size": 14}, **place)
    times = {int(row["size"]): 1000 / float(row["images_per_second"]) for row in rows if row["set"] == rows[0]["set"]}
    sizes = sorted({int(row["size"]) for row in rows})
    words = [f"{size} px<br>{times[size]:.0f} ms" if size in times else f"{size} px" for size in sizes]
    ticks = {"tickvals": sizes, "ticktext": words}
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white", margin={"t": 40, "r": 120, "b": 70})
    figure.update_xaxes(title=f"Side of the input, and one core's time for an image ({rows[0]['set']})", **ticks)
    figure.update_yaxes(title="Balanced accuracy", ticksuffix="%")
    corner = {"xref": "paper", "yref": "paper", "x": 0, "y": 1.09, "xanchor": "left", "showarrow": False}
    legend = (
        "line: the chosen classifier, with the deviation of the seeds; dots: balanced logistic regression, the better C"
    )
    figure.add_annotation(text=legend, font={"color": MUTED, "size": 12.5}, **corner)
    return figure.update_layout(font={"color": INK})


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=Path("docs/results/presentation.csv"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/presentation.png"))
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
