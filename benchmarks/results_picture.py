"""Draw the groups of every run of a file of rows: what each method gives its many-, medium- and few-shot classes.

python benchmarks/results_picture.py docs/results/fish4knowledge-linear.csv --out docs/images/results-fish.png
python benchmarks/results_picture.py docs/results/cifar100-lt-100.csv --out docs/images/results-cifar100.png
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import plotly.graph_objects as go

from longtail.report.plots import INK, MUTED, THEME, blank

FIGURES = {"many": "many", "medium": "medium", "few": "few", "balanced_accuracy": "balanced"}
COLORS = {name: THEME[name][0] for name in ("many", "medium", "few")} | {"balanced_accuracy": INK}
WIDTH, ROW_HEIGHT, MARGIN = 900, 34, 110  # in pixels


def main() -> int:
    """Draw the rows of a file."""
    flags = _flags()
    with flags.csv.open(newline="") as stream:
        runs = finished(list(csv.DictReader(stream)))
    groups(runs).write_image(flags.out, width=WIDTH, height=MARGIN + ROW_HEIGHT * len(runs), scale=2)
    return 0


def finished(rows: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Return the last stage of every run, a row a seed, with the best balanced accuracy first.

    Example:
        >>> rows = [{"run": "crt", "stage": stage, "balanced_accuracy": value} for stage, value in ("10", "21")]
        >>> finished(rows)
        {'crt': [{'run': 'crt', 'stage': '2', 'balanced_accuracy': '1'}]}
    """
    runs: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        runs[row["run"]].append(row)
    last = {
        run: [row for row in each if row["stage"] == max(row["stage"] for row in each)] for run, each in runs.items()
    }
    return dict(sorted(last.items(), key=lambda item: -mean(_values(item[1], "balanced_accuracy"))))


def _values(rows: list[dict[str, str]], figure: str) -> list[float]:
    return [100 * float(row[figure]) for row in rows]


def groups(runs: dict[str, list[dict[str, str]]]) -> go.Figure:
    """Draw a line for each run, with a mark for each group, and the deviation over its seeds."""
    height = MARGIN + ROW_HEIGHT * len(runs)
    figure = blank(height, left=150)
    for run, rows in runs.items():
        ends = [mean(_values(rows, name)) for name in ("many", "medium", "few")]
        line = {"color": THEME["rule"][0], "width": 3}
        figure.add_scatter(x=[min(ends), max(ends)], y=[run, run], mode="lines", line=line)
    for name in FIGURES:
        values = [_values(rows, name) for rows in runs.values()]
        spread = {"array": [stdev(each) if len(each) > 1 else 0 for each in values], "thickness": 1.5, "width": 3}
        marker = {"color": COLORS[name], "size": 11, "symbol": "diamond" if name == "balanced_accuracy" else "circle"}
        x = [mean(each) for each in values]
        figure.add_scatter(x=x, y=list(runs), mode="markers", marker=marker, error_x=spread | {"color": COLORS[name]})
    words = "   ".join(f"<span style='color:{COLORS[name]}'><b>{word}</b></span>" for name, word in FIGURES.items())
    corner = {"xref": "paper", "yref": "paper", "x": 0, "y": 1, "yshift": 34, "xanchor": "left", "showarrow": False}
    note = f"<span style='color:{MUTED}'>   mean and standard deviation over seeds, where there are several</span>"
    figure.add_annotation(text=words + note, font={"size": 14}, **corner)
    figure.update_xaxes(title="accuracy on the test images", ticksuffix="%", range=[-2, 102])
    figure.update_yaxes(autorange="reversed", tickfont={"color": INK, "size": 13}, ticklabelstandoff=8)
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white", margin={"t": 50, "b": 60, "r": 30})
    return figure.update_layout(font={"color": INK}, showlegend=False)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, metavar="FILE", help="rows, as collect_results.py writes them")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the picture")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
