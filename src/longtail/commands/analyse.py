"""longtail analyse: what the model of a run learned, measured once for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from longtail.commands.destination import destination, messages_apart, refuse_terminal
from longtail.commands.terminal import as_dict, print_line
from longtail.errors import UsageError

if TYPE_CHECKING:
    from longtail.analysis.columns import Analysis

GRAMMAR = "RUN ... [--projection pca,tsne|umap|none] [--seed N] [--features FILE] [--moved-to SOURCE]"
NO_PROJECTION = "none"


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument("runs", type=str, nargs="+", help="RUN folders")
    parser.add_argument(
        "--projection", type=str, default="pca,tsne", metavar="NAME,...",
        help="how features are laid out in two dimensions: pca, tsne, umap, several of them with commas, or none",
    )  # fmt: skip
    parser.add_argument(
        "--moved-to", type=str | None, default=None, help="new SOURCE of the runs, if the images have moved"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the images that are drawn, and of the projections")
    parser.add_argument(
        "--features",
        type=str | None,
        default=None,
        metavar="FILE",
        help="also write the features of every image: .parquet, .npz or -",
    )


def run(flags: Namespace) -> None:
    """Measure what the model of a RUN learned: embedding, norms, angles and margins, for the report."""
    analyse_command(**as_dict(flags))


def analyse_command(
    runs: Sequence[str],
    *,
    projection: str = "pca,tsne",
    seed: int = 0,
    features: str | None = None,
    moved_to: str | None = None,
) -> None:
    """Write the analysis of finished runs, one after the other, and on request the features of a single one."""
    from longtail.console import Reporter
    from longtail.experiments.analyze import analyze_run
    from longtail.training.engine import is_main_process

    if seed < 0:
        raise UsageError(f"--seed takes 0 or a whole number above, got {seed}.")
    words = [word.strip() for word in projection.split(",") if word.strip()]
    if NO_PROJECTION in words and len(words) > 1:
        raise UsageError("--projection none stands alone: leave it out, or leave the others out.")
    methods = [word for word in words if word != NO_PROJECTION]
    if features is not None and len(runs) > 1:
        raise UsageError(
            "--features writes the features of one run: name a single run, or repeat the command with another FILE."
        )
    file = (
        None
        if features is None
        else destination(features, (".parquet", ".npz"), option="--features", example="features.parquet")
    )
    if file is not None:
        refuse_terminal(file.path, "a table of features")
    with messages_apart(file):
        for name in runs:
            reporter = Reporter(quiet=not is_main_process())
            target = None if file is None else file.path
            found = analyze_run(
                name, projections=methods, seed=seed, features=target, moved_to=moved_to, reporter=reporter
            )
            if is_main_process():
                print_line(f"{Path(name) / 'analysis'}: {_described(found)}")
                if file is not None:
                    print_line(f"features: {file}")


def _described(found: Analysis) -> str:
    """How many images were looked at, and one number that says what of.

    Example:
        >>> from longtail.analysis.columns import Analysis
        >>> _described(Analysis(None, None))
        'no images'
    """
    parts = []
    for name, split in (("training", found.train), ("test", found.test)):
        if split is not None:
            images, available = split.summary["images"], split.summary["of"]
            of = "" if images == available else f" of {available:,}"
            parts.append(f"{images:,}{of} {name} images")
    return " and ".join(parts) or "no images"
