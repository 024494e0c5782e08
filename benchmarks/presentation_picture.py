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

Points = dict[int, list[tuple[float, float]]]


def main() -> int:
    """Draw the curve of each set."""
    flags = _flags()
    with flags.csv.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["judged"] == "test" and row["fit"] == "crop"]
    curves(rows).write_image(flags.out, width=WIDTH, height=HEIGHT, scale=2)
    return 0


def points(rows: list[dict[str, str]], classifier: str) -> Points:
    """Return milliseconds of an image and balanced accuracy in % of each size, one pair a seed."""
    found: Points = defaultdict(list)
    for row in rows:
        if row["views"] == "0" and row["classifier"].startswith(classifier):
            pair = 1000 / float(row["images_per_second"]), 100 * float(row["balanced_accuracy"])
            found[int(row["size"])].append(pair)
    return dict(sorted(found.items()))


def curves(rows: list[dict[str, str]]) -> go.Figure:
    """Draw balanced accuracy against the time of a feature, a line for each set and classifier."""
    figure = blank(HEIGHT, left=60)
    for color, name in zip(COLORS, dict.fromkeys(row["set"] for row in rows), strict=False):
        ours = [row for row in rows if row["set"] == name]
        chosen, plain = points(ours, "portfolio"), points(ours, "logistic")
        best = {size: max(balanced for _, balanced in pairs) for size, pairs in plain.items()}
        time = [np.mean([seconds for seconds, _ in pairs]) for pairs in chosen.values()]
        balanced = [np.array([value for _, value in pairs]) for pairs in chosen.values()]
        means = [values.mean() for values in balanced]
        figure.add_scatter(
            x=time,
            y=means,
            error_y={"array": [values.std(ddof=1) if len(values) > 1 else 0 for values in balanced], "thickness": 1.5},
            mode="lines+markers+text",
            line={"color": color, "width": 2.5},
            marker={"size": 9},
            text=[f"{size} px" for size in chosen],
            textposition="bottom right",
            textfont={"color": color, "size": 12},
        )
        figure.add_scatter(
            x=time, y=[best[size] for size in chosen], mode="lines", line={"color": color, "dash": "dot"}
        )
        figure.add_annotation(
            x=np.log10(time[-1]),
            y=means[-1],
            text=name,
            showarrow=False,
            xanchor="left",
            xshift=14,
            font={"color": color},
        )
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white", margin={"t": 40, "r": 120})
    figure.update_xaxes(title="Milliseconds of one core per image", type="log", tickvals=[1, 2, 4, 8, 16])
    figure.update_yaxes(title="Balanced accuracy", ticksuffix="%")
    corner = {"xref": "paper", "yref": "paper", "x": 0, "y": 1.09, "xanchor": "left", "showarrow": False}
    legend = (
        "line: the chosen classifier, mean and deviation of the seeds; dots: balanced logistic regression, the better C"
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
