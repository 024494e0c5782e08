"""longtail evaluate: the figures of a run on its own split or on another source."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from longtail.commands.terminal import (
    IN_BRACKETS,
    as_dict,
    class_table,
    coverage_table,
    print_json,
    print_line,
    summary_table,
    sure_table,
)

GRAMMAR = "RUN [SOURCE] [--split NAME] [--moved-to SOURCE] [--classes] [--no-adjustment] [--coverage] [--json]"


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument("run", type=str, help="RUN folder")
    parser.add_argument("source", type=str, nargs="?", default=None, help="another SOURCE; its test split is used")
    parser.add_argument("--split", type=str, default="test", help="split to evaluate on")
    parser.add_argument("--label-column", type=str | None, default=None, help="column of the label in SOURCE")
    parser.add_argument("--image-column", type=str | None, default=None, help="column of the image in SOURCE")
    parser.add_argument(
        "--split-column", type=str | None, default=None, help="column in SOURCE that says train, validation or test"
    )
    parser.add_argument(
        "--moved-to", type=str | None, default=None, help="new SOURCE of the RUN, if its images have moved"
    )
    parser.add_argument("--classes", action="store_true", help="also each class with its intervals, commonest first")
    parser.add_argument("--no-adjustment", action="store_true", help="the model as it was trained")
    parser.add_argument("--coverage", action="store_true", help="also coverage against accuracy, by confidence")
    parser.add_argument("--json", action="store_true", help="print all metrics as JSON")


def run(flags: Namespace) -> None:
    """Evaluate a RUN on its own test split, or on another SOURCE."""
    evaluate_command(**as_dict(flags))


def evaluate_command(
    run: str,
    source: str | None = None,
    *,
    split: str = "test",
    label_column: str | None = None,
    image_column: str | None = None,
    split_column: str | None = None,
    moved_to: str | None = None,
    classes: bool = False,
    no_adjustment: bool = False,
    coverage: bool = False,
    json: bool = False,
) -> None:
    """Evaluate a finished run on its own split or on another source."""
    from longtail.console import Reporter
    from longtail.experiments.evaluate import evaluate_run
    from longtail.run.model_info import load_info
    from longtail.training.engine import is_main_process

    summary = evaluate_run(
        Path(run), source, split=split, label_column=label_column, image_column=image_column,
        split_column=split_column, adjustment=not no_adjustment, coverage=coverage, moved_to=moved_to,
        say=Reporter().say,
    )  # fmt: skip
    if not is_main_process():
        return
    if json:
        print_json(summary)
        return
    adjusted = load_info(run).adjustment is not None and not no_adjustment
    suffix = ", adjusted (--no-adjustment leaves that out)" if adjusted else ""
    print_line(f"{run} on {source or 'its own source'}, {split}{suffix}", style="italic")
    sure, rows = summary.pop("sure", None), summary.pop("coverage", None)
    summary.pop("seen", None)  # already reported in a note
    Console().print(summary_table(summary))
    if classes:
        Console().print(class_table(summary, limit=None))
    if sure:
        print_line(f"sure from a confidence of {sure['threshold']:.4f} on; {IN_BRACKETS}", style="italic")
        Console().print(sure_table(sure))
    if rows:
        print_line(
            "% of the images with at least that confidence, and beneath % of them that is right; " + IN_BRACKETS,
            style="italic",
        )
        Console().print(coverage_table(rows))
