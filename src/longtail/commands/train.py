"""longtail train: from a source to a RUN folder, or on from its checkpoint."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from longtail.commands.terminal import (
    EXIT_INTERRUPTED,
    IN_BRACKETS,
    class_table,
    interval_notes,
    is_disk_full,
    print_line,
    summary_table,
)
from longtail.commands.train_options import groups, run_config
from longtail.config.schema import RunConfig, Tracker
from longtail.errors import LongtailError, UnreadableImageError, UsageError, resume_hint
from longtail.run.folder import CHECKPOINT_FOLDER, CONFIG_FILE, METRICS_FILE, MODEL_FILE, REPORT_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    from longtail.console import Reporter


GRAMMAR = """SOURCE --out RUN [--recipe NAME] [--mode linear|finetune|lora|scratch]
                      [--imbalance-ratio 100] [--epochs N] [--batch-size N] [--seed N] [--folds N]
                      [--any.option VALUE]
       longtail train --resume RUN [--moved-to SOURCE]"""


RUN_FILES = (METRICS_FILE, WEIGHTS_FILE, MODEL_FILE, REPORT_FILE)


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument("source", type=str, nargs="?", default="", help="SOURCE, see 'longtail inspect --help'")
    parser.add_argument("--out", type=str | None, default=None, help="the RUN folder to make")
    parser.add_argument("--resume", type=str | None, default=None, metavar="RUN", help="continue a stopped run")
    parser.add_argument(
        "--moved-to", type=str | None, default=None, help="new SOURCE of the resumed RUN, if its images have moved"
    )
    parser.add_argument("--config", type=str | None, default=None, metavar="FILE", help="configuration of another run")
    parser.add_argument("--epochs", type=int | None, default=None, help="epochs of stage 1; the rest scales with it")
    parser.add_argument("--batch-size", type=int | None, default=None, help="images per step, in both stages")
    parser.add_argument("--imbalance-ratio", type=float | None, default=None, help="cut the training split to it")
    parser.add_argument("--image-column", type=str | None, default=None, help="column of the image in a table")
    parser.add_argument("--label-column", type=str | None, default=None, help="column of the label in a table")
    parser.add_argument("--split-column", type=str | None, default=None, help="column that says train or test")
    parser.add_argument("--group-column", type=str | None, default=None, help="rows that share it stay together")
    parser.add_argument("--folds", type=int | None, default=None, help="cross-validate: so many runs, one table")
    parser.add_argument("--seed", type=int | None, default=None, help="seed of weights, order, augmentation, noise")
    parser.add_argument("--tracker", type=Tracker | None, default=None, help="log to this experiment tracker too")
    parser.add_argument(
        "--keep-checkpoints", action="store_true", default=None, help="keep the checkpoints of the finished run"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors and the result")
    parser.add_class_arguments(RunConfig)
    hidden = groups()
    for action in parser._actions:
        # A group takes a file of options, as --config does for all of them; the reasons are written, never given.
        if action.dest in hidden or action.dest == "reasons":
            action.help = argparse.SUPPRESS


def run(flags: Namespace) -> int:
    """Train a classifier into a RUN folder."""
    if flags.resume is not None:
        if flags.source:
            raise UsageError(f"--resume goes on with the images of the run: leave {flags.source!r} out.")
        return resume_command(flags.resume, moved_to=flags.moved_to, quiet=flags.quiet)
    if flags.moved_to is not None:
        raise UsageError("--moved-to is only for --resume RUN: add --resume, or leave --moved-to out.")
    if flags.out is None:
        raise UsageError("say where the run goes: --out RUN.")
    return train_command(run_config(flags), flags.out, quiet=flags.quiet)


def _in_folds(config: RunConfig) -> bool:
    return config.data.folds > 0 and config.data.fold is None


def train_command(config: RunConfig, out: str, *, quiet: bool = False) -> int:
    """Train into a new folder, then write the report; return the exit status."""
    from longtail.config.check import check_config, check_weights
    from longtail.config.outline import outline
    from longtail.console import Reporter
    from longtail.run.folder import refuse_existing
    from longtail.training.experiment import start_run

    refuse_existing(Path(out))
    check_config(config)
    check_weights(config)
    reporter = Reporter(quiet=quiet)
    for line in outline(config):
        reporter.say(line)
    if _in_folds(config):
        from longtail.experiments.folds import start_folds

        status = _finish_training(lambda reporter: start_folds(config, Path(out), reporter), config, out, reporter)
        return status or _show_folds(Path(out))
    return _finish_training(lambda reporter: start_run(config, Path(out), reporter), config, out, reporter)


def resume_command(run: str, *, moved_to: str | None = None, quiet: bool = False) -> int:
    """Continue a run from its last checkpoint; return the exit status."""
    from longtail.config.check import check_config
    from longtail.config.outline import outline
    from longtail.console import Reporter
    from longtail.data.sources.paths import absolute_source
    from longtail.experiments.finished_run import require_source
    from longtail.training.experiment import resume_run

    folder = Path(run)
    reporter = Reporter(quiet=quiet)
    config = saved_config(folder)
    needed = (METRICS_FILE, REPORT_FILE) if _in_folds(config) else RUN_FILES
    if all((folder / name).is_file() for name in needed):
        _remove_checkpoints(folder, config)
        reporter.say(f"{run} is complete already; nothing to do.")
        return 0
    if all((folder / name).is_file() for name in RUN_FILES[:-1]):  # stopped between its figures and its report
        from longtail.run.read import read_metrics

        return _show_result(read_metrics(folder), config, run)
    check_config(config)
    if moved_to is not None and _in_folds(config):
        raise UsageError(f"--moved-to is for a single run: link {config.data.source!r} to the new place instead.")
    if moved_to is not None:
        config.data.source = absolute_source(moved_to)
    require_source(folder, config.data)
    for line in outline(config):
        reporter.say(line)
    if _in_folds(config):
        from longtail.experiments.folds import train_folds

        status = _finish_training(lambda reporter: train_folds(config, folder, reporter), config, run, reporter)
        return status or _show_folds(folder)
    return _finish_training(
        lambda reporter: resume_run(config, folder, reporter, moved=moved_to is not None), config, run, reporter
    )


def _show_folds(out: Path) -> int:
    """Print the figures over all folds; return the exit status."""
    from longtail.run.read import read_metrics

    metrics: dict[str, Any] = read_metrics(out)
    folds, judged = len(metrics["folds"]), metrics["test"]["num_images"]
    never: dict[str, int] = metrics.get("never_judged", {})
    of = f"{judged:,} of {judged + sum(never.values()):,} images, each" if never else "each image"
    print_line(f"{out}: {folds} folds, {of} judged by a model that was not trained on it", style="italic")
    for note in metrics["notes"]:
        print_line(f"note: {note}")
    Console().print(summary_table(metrics["test"]))
    Console().print(class_table(metrics["test"]))
    print_line(
        f"These are figures of {folds} models. For one to use, train on all images: the same command without --folds."
    )
    return 0


def saved_config(run: Path) -> RunConfig:
    """Return the configuration of a run.

    Raises:
        LongtailError: The folder is no run.
    """
    from longtail.config.recipes import config_from_dict, read_config

    path = run / CONFIG_FILE
    if not path.is_file():
        raise LongtailError(f"{run} holds no {CONFIG_FILE}, so it is no RUN that was started; train into a new --out.")
    return config_from_dict(read_config(path), str(path))


def _finish_training(
    work: Callable[[Reporter], dict[str, Any]], config: RunConfig, out: str, reporter: Reporter
) -> int:
    import torch

    from longtail.training.engine import is_main_process
    from longtail.training.interrupt import Interrupted

    try:
        metrics = work(reporter)
    except Interrupted:
        if is_main_process():  # also where --quiet was asked for
            sys.stderr.write(f"stopped; the checkpoint is saved. Continue with: {resume_hint(out)}\n")
        return EXIT_INTERRUPTED
    except torch.OutOfMemoryError as error:
        raise LongtailError(
            "the device is out of memory: train with --training.accumulation 2 or more, or a smaller --batch-size; "
            "in a grid, with fewer --jobs."
        ) from error
    except UnreadableImageError as error:
        raise LongtailError(f"{str(error).rstrip('.')}; {_without_the_image(config, out)}.") from error
    except (OSError, LongtailError) as error:
        if is_disk_full(error) and (Path(out) / CONFIG_FILE).is_file():
            raise LongtailError(
                f"no space left on the device of {out} while training; what was saved before is whole: "
                f"free some space, then continue with: {resume_hint(out)}"
            ) from error
        raise
    return _show_result(metrics, config, out)


def _show_result(metrics: Mapping[str, Any], config: RunConfig, out: str) -> int:
    """Print the result of a trained run, write its report and remove its checkpoints; return the exit status."""
    from longtail.training.engine import is_main_process
    from longtail.training.progress import describe

    if not is_main_process():
        return 0
    if metrics["test"] is not None:
        print_line(f"test {describe(metrics['test'])}; {IN_BRACKETS}")
        for note in [] if _in_folds(config) else interval_notes(metrics["test"]):  # the table of folds has its own
            print_line(f"note: {note}")
    print_line(f"report: {_write_page(out)}")
    _remove_checkpoints(Path(out), config)
    return 0


def _remove_checkpoints(run: Path, config: RunConfig) -> None:
    """Remove the checkpoints of a complete run, unless --keep-checkpoints was given."""
    if not config.training.keep_checkpoints:
        from longtail.run.checkpoint import remove_checkpoints

        remove_checkpoints(run / CHECKPOINT_FOLDER)


def _write_page(out: str) -> Path:
    """Write the report of a run that is complete already; what fails now loses nothing."""
    from longtail.report.page import write_report

    try:
        return write_report([Path(out)], Path(out) / REPORT_FILE)
    except (OSError, LongtailError) as error:
        why = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        raise LongtailError(
            f"the run in {out} is complete, but its report could not be written ({why}): mend that, then write it "
            f"with: {resume_hint(out)}"
        ) from error


def _without_the_image(config: RunConfig, out: str) -> str:
    """What else to do about an image that cannot be read: before training has begun, or once it has."""
    find = f"longtail inspect {shlex.quote(config.data.source)}"
    if (Path(out) / CONFIG_FILE).is_file():
        return (
            f"then continue with: {resume_hint(out)}, or train into a new --out with --data.skip_unreadable true "
            f"({find} names all such images)"
        )
    return f"{find} names all such images, and --data.skip_unreadable true trains without them"
