"""longtail analyze: what the model of a run learned, measured once for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from longtail.commands.output import destination, messages_apart, print_line, refuse_terminal
from longtail.config.options import EngineName, WholeNumber
from longtail.device import is_main_of_run
from longtail.errors import UsageError

if TYPE_CHECKING:
    from longtail.analysis.columns import Analysis

NO_PROJECTION = "none"


def analyze(
    runs: Annotated[Sequence[str], "RUN ..."],
    *,
    projection: Annotated[str, "pca,tsne|umap|none"] = "pca,tsne",
    seed: WholeNumber = 0,
    features: Annotated[str, "FILE"] | None = None,
    moved_to: Annotated[str, "SOURCE"] | None = None,
    engine: EngineName | None = None,
) -> None:
    """Measure what the model of a RUN learned: embedding, norms, angles and margins, for the report.

    Args:
        runs: RUN folders
        projection: layouts of the features in two dimensions, with commas: pca, tsne, umap; or none
        seed: seed of the images that are drawn, and of the projections
        features: also write the features of every image: .parquet, .npz or -
        moved_to: new SOURCE of the runs, if the images have moved
        engine: what runs the networks on a CPU; that of the RUN when not given
    """
    from longtail.console import Reporter
    from longtail.experiments.analyze import analyze_run

    words = [word.strip() for word in projection.split(",") if word.strip()]
    if NO_PROJECTION in words and len(words) > 1:
        raise UsageError("--projection none stands alone: leave it out, or leave the others out.")
    methods = [word for word in words if word != NO_PROJECTION]
    file = None
    if features is not None:
        if len(runs) > 1:
            raise UsageError(
                "--features writes the features of one run: name a single run, or repeat the command with another FILE."
            )
        file = destination(features, (".parquet", ".npz"), option="--features", example="features.parquet")
        refuse_terminal(file.path, "a table of features")
    with messages_apart(file):
        for name in runs:
            reporter = Reporter(quiet=not is_main_of_run())
            target = None if file is None else file.path
            analysis = analyze_run(
                name,
                projections=methods,
                seed=seed,
                features=target,
                moved_to=moved_to,
                engine=engine,
                reporter=reporter,
            )
            if is_main_of_run():
                print_line(f"{Path(name) / 'analysis'}: {_described(analysis)}")
                if file is not None:
                    print_line(f"features: {file}")


def _described(analysis: Analysis) -> str:
    """Describe the images that were measured.

    Example:
        >>> from longtail.analysis.columns import Analysis
        >>> _described(Analysis(None, None))
        'no images'
    """
    parts = []
    for name, split in (("training", analysis.train), ("test", analysis.test)):
        if split is not None:
            images, available = split.summary["images"], split.summary["of"]
            of = "" if images == available else f" of {available:,}"
            parts.append(f"{images:,}{of} {name} images")
    return " and ".join(parts) or "no images"
