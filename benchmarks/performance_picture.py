"""Draw how many times as fast each kind of work is as the usual way, from the rows of the page on performance.

python benchmarks/performance_picture.py --out docs/images/performance.png
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go
from page import read_rows

from longtail.report.plots import INK, MUTED, THEME, blank

WIDTH, ROW_HEIGHT, MARGIN = 900, 46, 90  # in pixels
TICKS = (1, 2, 5, 10, 20)


class Bar(NamedTuple):
    """A row that is shown.

    Attributes:
        file: The file of rows.
        name: A pattern found in the name of the row.
        work: What is done.
        reference: What it is compared with.
    """

    file: str
    name: str
    work: str
    reference: str


BARS = (
    Bar("stage2.json", "cRT", "stage 2 on stored features", "stage 2 through the backbone"),
    Bar("streaming.json", "^prepared", "loading prepared photos", "decoding them"),
    Bar("features-bf16.json", "^predict .* small-jpegs", "predictions on a CPU, float32", "through PyTorch"),
    Bar(
        "features-bf16.json",
        r"^features of \d+ images of small-jpegs",
        "features on a CPU, bfloat16",
        "through PyTorch",
    ),
    Bar("finetuning-bf16.json", "held: against", "fine-tuning step, one core, bfloat16", "a plain PyTorch loop"),
    Bar(
        "training.json", "cross-entropy against the plain", "training step, ResNet-32, bfloat16", "a plain PyTorch loop"
    ),
    Bar("streaming.json", "^streaming", "loading photos", "a plain DataLoader"),
    Bar("ray_predict.json", "images/s$", "a million predictions, two Ray nodes of one core", "one process on one core"),
)


def main() -> int:
    """Draw the bars."""
    flags = _flags()
    gains = [gain(flags.rows, bar) for bar in BARS]
    bars(gains).write_image(flags.out, width=WIDTH, height=MARGIN + ROW_HEIGHT * len(BARS), scale=2)
    return 0


def gain(folder: Path, bar: Bar) -> float:
    """Return how many times as fast the row of a bar is as its reference."""
    (row,) = (row for row in read_rows(folder / bar.file) if re.search(bar.name, row["name"]))
    return float(row["ratio"])


def bars(gains: list[float]) -> go.Figure:
    """Draw a bar for each gain, on a logarithmic axis."""
    figure = blank(MARGIN + ROW_HEIGHT * len(gains), left=330)
    labels = [f"{bar.work}<br><span style='color:{MUTED}'>vs. {bar.reference}</span>" for bar in BARS]
    text = [f"<b>{gain:.1f} ×</b>" if gain < 10 else f"<b>{gain:.0f} ×</b>" for gain in gains]
    figure.add_bar(x=gains, y=labels, orientation="h", text=text, textposition="outside", marker_color=THEME["many"][0])
    figure.update_xaxes(
        type="log", range=[0, 1.48], tickvals=TICKS, ticktext=[f"{tick} ×" for tick in TICKS], title="times as fast"
    )
    figure.update_yaxes(autorange="reversed", ticklabelstandoff=8, tickfont={"color": INK, "size": 13})
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white", bargap=0.45, margin={"t": 20, "b": 60, "r": 30})
    return figure.update_layout(font={"color": INK}, showlegend=False)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=Path("docs/performance"), help="folder of the rows")
    parser.add_argument("--out", type=Path, default=Path("docs/images/performance.png"))
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
