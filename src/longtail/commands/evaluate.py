"""longtail evaluate: the figures of a run on its own split or on another source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.console import Console

from longtail.commands import output
from longtail.commands.arguments import Columns, last_names
from longtail.config.options import EngineName
from longtail.device import is_main_of_run


def evaluate(
    run: Annotated[str, "RUN"],
    source: Annotated[str, "SOURCE"] | None = None,
    *,
    split: Annotated[str, "NAME"] = "test",
    columns: Columns,
    moved_to: Annotated[str, "SOURCE"] | None = None,
    engine: EngineName | None = None,
    classes: bool = False,
    no_adjustment: bool = False,
    coverage: bool = False,
    json: bool = False,
) -> None:
    """Evaluate a RUN on its own test split, or on another SOURCE.

    Args:
        run: RUN folder
        source: another SOURCE, of which the test split is used
        split: split to evaluate on
        columns: options that name the columns of SOURCE, a table
        moved_to: new SOURCE of the RUN, if its images have moved
        engine: what runs the network on a CPU; that of the RUN when not given
        classes: also print each class with its intervals, commonest first
        no_adjustment: evaluate the model as it was trained
        coverage: also print coverage against accuracy, by confidence
        json: print all metrics as JSON
    """
    from longtail.console import Reporter
    from longtail.experiments.evaluate import evaluate_run
    from longtail.run.model_files import load_info

    summary = evaluate_run(
        Path(run),
        source,
        split=split,
        **last_names(columns),
        adjustment=not no_adjustment,
        coverage=coverage,
        moved_to=moved_to,
        engine=engine,
        reporter=Reporter(),
    )
    if not is_main_of_run():
        return
    if json:
        output.print_json(summary)
        return
    adjusted = load_info(run).adjustment is not None and not no_adjustment
    suffix = ", adjusted (--no-adjustment leaves that out)" if adjusted else ""
    output.print_line(f"{run} on {source or 'its own source'}, {split}{suffix}", style="italic")
    row, rows = summary.pop("sure", None), summary.pop("coverage", None)
    summary.pop("seen", None)  # already reported in a note
    Console().print(output.summary_table(summary, split))
    if classes:
        Console().print(output.class_table(summary, split=split, limit=None))
    if row:
        output.print_line(f"sure from a confidence of {row['threshold']:.4f} on; {output.IN_BRACKETS}", style="italic")
        Console().print(output.selective_table(row))
    if rows:
        output.print_line(
            "% of the images with at least that confidence, and beneath % of them that is right; " + output.IN_BRACKETS,
            style="italic",
        )
        Console().print(output.coverage_table(rows))
