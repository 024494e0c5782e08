"""longtail train: from a source to a RUN folder, or on from its checkpoint."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from longtail.commands import output
from longtail.commands.arguments import SHORT, RunOptions, option_flag
from longtail.config.options import Count, flatten, merge, nested
from longtail.config.schema import RunConfig
from longtail.console import Interrupted, Reporter
from longtail.device import is_first_process, is_main_of_run
from longtail.errors import LongtailError, UnreadableImageError, UsageError, resume_hint
from longtail.run import layout

if TYPE_CHECKING:
    from longtail.data.dataset import ImageData


AUTO = "auto"
"""The value of ``--resume`` that begins a run or continues it, whichever the folder asks for."""

SHOWN = (
    "recipe",
    "mode",
    "model.name",
    "data.image_size",
    "data.fit",
    "data.validation_fraction",
    "data.skip_unreadable",
    "stage1.loss.name",
    "stage1.optimizer.lr",
    "training.device",
)
"""Options of a run that ``longtail train --help`` explains, besides those with a short flag."""


def train(
    source: Annotated[str, "SOURCE"] = "",
    *,
    out: Annotated[str, "RUN"] | None = None,
    resume: Annotated[str, "RUN"] | None = None,
    moved_to: Annotated[str, "SOURCE"] | None = None,
    config: Annotated[str, "FILE"] | None = None,
    epochs: Count | None = None,
    batch_size: Count | None = None,
    time_limit: Annotated[str, "TIME"] | None = None,
    dry_run: bool = False,
    download: bool = False,
    quiet: bool = False,
    options: Annotated[Mapping[str, Any], RunOptions(shown=SHOWN)],
) -> int:
    """Train a classifier into a RUN folder.

    Usage:
        longtail train SOURCE --out RUN [--recipe NAME] [--mode linear|finetune|lora|scratch]
            [--time-limit 10m] [--metric balanced|accuracy|macro-f1|worst-group] [--download] [--dry-run]
            [--imbalance-ratio 100] [--epochs N] [--batch-size N] [--seed N] [--folds N] [--any.option VALUE]
        longtail train --resume RUN [--moved-to SOURCE]
        longtail train SOURCE --resume auto --out RUN [the options of the first start]

    Args:
        source: SOURCE, see 'longtail inspect --help'
        out: RUN folder to make
        resume: continue a stopped run; 'auto' begins --out or, where these options have begun it, continues it
        moved_to: new SOURCE of the resumed RUN, if its images have moved
        config: options in a file, such as the configuration of another run
        epochs: epochs of the first stage; the rest scales with it
        batch_size: images per step, in stages 1 and 2
        time_limit: time for the whole command, such as 10m or 1h30m; image size, network and classifier follow from it
        dry_run: print what would be compared and trained, and how long it would take
        download: compare pretrained networks too that have to be fetched
        quiet: print errors and the result only
        options: options of the run by dotted name
    """
    from longtail.config.build import seconds_of

    begun = time.monotonic()
    if resume is not None and resume != AUTO:
        given: dict[str, object] = {"source": source, "out": out, "config": config, "epochs": epochs}
        given |= {"batch_size": batch_size, "time_limit": time_limit, "dry_run": dry_run, "download": download}
        # An option of the run is there only if it was given, whatever its value.
        other = next((name for name, value in given.items() if value), next(iter(options), None))
        if other is not None:
            word = repr(source) if other == "source" else SHORT.get(other, option_flag(other))
            raise UsageError(
                f"--resume RUN continues with the images and options of the run: leave {word} out, or write --resume "
                "auto --out RUN."
            )
        return resume_command(resume, moved_to=moved_to, quiet=quiet)
    if resume == AUTO and out is None:
        raise UsageError("--resume auto needs --out RUN, the folder to begin or to continue.")
    if moved_to is not None:
        raise UsageError("--moved-to is only for --resume RUN: add --resume, or leave --moved-to out.")
    if out is None and not dry_run:
        raise UsageError("--out RUN is required.")
    may_continue = resume == AUTO and out is not None and (Path(out) / layout.CONFIG_FILE).is_file()
    if out is not None and not may_continue:
        layout.refuse_existing(Path(out))  # before any image is looked at
    if time_limit is not None:
        options = {**options, "training.time_limit": seconds_of(time_limit, "--time-limit")}
    run, images = requested_run(
        source, config=config, epochs=epochs, batch_size=batch_size, options=options, download=download
    )
    if run.training.time_limit is not None and run.data.is_cross_validation:
        raise UsageError("--time-limit is for one run: leave it or --folds out.")
    if "training.metric" in options and not run.is_open:
        raise UsageError(
            "--metric is what a classifier is chosen by, and here none is chosen: leave it out, or leave out what "
            "names the classifier (--recipe, --stage1.loss.name, another --mode than linear)."
        )
    if out is None or dry_run:
        return dry_run_command(run, source=images)
    # A precision that was not asked for is chosen by the machine, and this may be another one.
    by_machine = {"training.precision"} - options.keys() if config is None else set()
    if resume != AUTO:
        return train_command(run, out, source=images, quiet=quiet, begun=begun)
    # The lock of a process on a machine that was lost may be held a while longer.
    with _lock(out, quiet=quiet, patience=seconds_of(run.training.timeout, "--training.timeout") / 2):
        if continues_run(run, out, ignored=by_machine):
            return resume_command(out, quiet=quiet)
        return train_command(run, out, source=images, quiet=quiet, begun=begun)


def dry_run_command(config: RunConfig, *, source: ImageData | None = None) -> int:
    """Print what would be compared and trained, and how long that would take; return the exit status."""
    from longtail.models.timm import require_weights
    from longtail.training.dry_run import describe_plan

    if config.model.pretrained and not config.model.weights:
        require_weights(config.model.name, adapters=config.model.adapter != "none")
    for line in [*output.outline(config), *describe_plan(config, Reporter(), source)]:
        output.print_line(line)
    return 0


def requested_run(
    source: str = "",
    *,
    config: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    options: Mapping[str, Any],
    download: bool = False,
) -> tuple[RunConfig, ImageData | None]:
    """Return the configuration that the arguments of ``longtail train`` ask for; see there.

    With it comes the source, where it was read for an automatic choice: what is chosen and what is trained on are of
    one listing, also where files are moved in between.

    Raises:
        LongtailError: The file cannot be used, the images cannot be read, or the options do not fit together.
    """
    from longtail.config.build import read_config_file
    from longtail.config.resolve import draft, is_automatic, resolve

    given = dict(options) | ({"data.source": source} if source else {})
    file = None if config is None else read_config_file(config)
    first = draft(given, file=file)
    if not first.data.source:
        raise UsageError("SOURCE is required: longtail train SOURCE --out RUN.")
    facts, images = None, None
    named, ask = merge({} if file is None else dict(file.values), nested(given)), output.ask_on_terminal()
    if is_automatic(given.get("recipe", ""), file):
        from longtail.training.prepared_data import inspect_environment  # seconds of import, with torch

        facts, images = inspect_environment(first, given=flatten(named), download=download, ask=ask)
    run = resolve(given, file=file, epochs=epochs, batch_size=batch_size, facts=facts)
    is_named = bool(download or {"name", "weights"} & named.get("model", {}).keys())
    if facts is not None and facts.hub and run.model.pretrained and not is_named:
        from longtail.models.candidate_networks import may_fetch

        if not may_fetch(run.model.name, ask):
            raise LongtailError(
                f"--mode {run.mode} needs the weights of {run.model.name!r}, which are not on this machine: --download "
                "fetches them, or name another network with --model.name."
            )
    return run, images


def continues_run(config: RunConfig, out: str, *, ignored: Collection[str] = ()) -> bool:
    """Whether a folder holds a run with the same options, to be continued; the first process decides for all.

    One that is not finished goes on with the options of speed that are asked for now.

    Args:
        config: What is asked for, resolved.
        out: The folder.
        ignored: Options that may differ, by their dotted names.

    Raises:
        LongtailError: The folder holds something else, or a run with other options, the first of which is named.
    """
    from longtail.run.origin import continued, first_difference
    from longtail.training.engine import Engine, others_answering

    folder = Path(out)

    def decide() -> bool:
        if not (folder / layout.CONFIG_FILE).is_file():
            layout.refuse_existing(folder)
            return False
        difference = first_difference(folder, config, ignored=ignored)
        if difference is not None:
            option, before, now = difference
            raise LongtailError(
                f"{out} was started with --{option} {before!r}, and this command has {now!r}: repeat the options of "
                "the first start, or choose another --out."
            )
        if not (folder / layout.METRICS_FILE).is_file():
            layout.write_config(folder, continued(folder, config))
        return True

    with others_answering(config.training.timeout):
        return Engine(config.training).from_main(decide)


def train_command(
    config: RunConfig, out: str, *, source: ImageData | None = None, quiet: bool = False, begun: float | None = None
) -> int:
    """Train into a new folder, then write the report; return the exit status."""
    from longtail.experiments.folds import start_folds
    from longtail.models.timm import require_weights
    from longtail.training.launch import start_run

    if config.model.pretrained and not config.model.weights:  # before an image is read
        require_weights(config.model.name, adapters=config.model.adapter != "none")
    reporter = Reporter(quiet=quiet)
    start = start_folds if config.data.is_cross_validation else partial(start_run, begun=begun)
    with _lock(out, quiet=quiet):
        return _finish_training(partial(start, config, Path(out), reporter, source=source), config, out, reporter)


def resume_command(run: str, *, moved_to: str | None = None, quiet: bool = False) -> int:
    """Continue a run from its last checkpoint; return the exit status."""
    from longtail.config.resolve import complete

    config = complete(layout.read_config(Path(run)))  # one of an earlier version may leave values to the machine
    with _lock(run, quiet=quiet):
        return _resume(config, run, moved_to, Reporter(quiet=quiet))


def _resume(config: RunConfig, run: str, moved_to: str | None, reporter: Reporter) -> int:
    from longtail.config.build import with_options
    from longtail.data.sources.registry import absolute_source
    from longtail.experiments.finished_run import require_source
    from longtail.experiments.folds import train_folds
    from longtail.training.launch import resume_run

    folder = Path(run)
    in_folds = config.data.is_cross_validation
    of_a_model = () if in_folds else (layout.WEIGHTS_FILE, layout.MODEL_FILE)
    needed = (layout.METRICS_FILE, *of_a_model, layout.REPORT_FILE)
    missing = [name for name in needed if not (folder / name).is_file()]
    if not missing:
        _remove_checkpoints(folder, config)
        if is_first_process():
            reporter.say(f"{run} is complete already; nothing to do.")
        return 0
    if missing == [layout.REPORT_FILE] and not in_folds:  # stopped between its figures and its report
        from longtail.run.result import read_metrics

        return _show_result(read_metrics(folder).plain(), config, run)
    if moved_to is not None and in_folds:
        raise UsageError(f"--moved-to is for a single run: link {config.data.source!r} to the new place instead.")
    if moved_to is not None:
        config = with_options(config, {"data.source": absolute_source(moved_to)})
    require_source(folder, config.data)
    work = train_folds if in_folds else partial(resume_run, moved=moved_to is not None)
    return _finish_training(partial(work, config, folder, reporter), config, run, reporter)


def _lock(run: str, *, quiet: bool, patience: float = 0.0) -> AbstractContextManager[None]:
    """The lock of a run, which its main process holds."""
    from longtail.run.lock import training_lock

    if not is_main_of_run():
        return nullcontext()
    return training_lock(Path(run), Reporter(quiet=quiet).say, patience=patience)


def _show_folds(out: str, metrics: Mapping[str, Any]) -> None:
    """Print the figures over all folds."""
    folds, judged = len(metrics["folds"]), metrics["test"]["num_images"]
    never: dict[str, int] = metrics.get("never_judged", {})
    of = f"{judged:,} of {judged + sum(never.values()):,} images, each" if never else "each image"
    output.print_line(f"{out}: {folds} folds, {of} judged by a model that was not trained on it", style="italic")
    for note in metrics["notes"]:
        output.print_line(f"note: {note}")
    Console().print(output.summary_table(metrics["test"]))
    Console().print(output.class_table(metrics["test"]))
    output.print_line(
        f"These are figures of {folds} models. For one to use, train on all images: the same command without --folds."
    )


def _finish_training(work: Callable[[], dict[str, Any]], config: RunConfig, out: str, reporter: Reporter) -> int:
    """Print an outline, train, and show the result; return the exit status."""
    import torch

    from longtail.training.engine import others_answering

    for line in output.outline(config):
        reporter.say(line)
    try:
        with others_answering(config.training.timeout):
            metrics = work()
    except Interrupted:
        if is_main_of_run():  # also where --quiet was asked for
            kept = (
                "the checkpoint is saved"
                if any(Path(out).rglob(layout.CHECKPOINT_FOLDER))
                else "nothing is trained yet"
            )
            sys.stderr.write(f"stopped; {kept}. Continue with: {resume_hint(out)}\n")
        return output.EXIT_INTERRUPTED
    except torch.OutOfMemoryError as error:
        raise LongtailError(
            "the device is out of memory: train with --training.accumulation 2 or more, or a smaller --batch-size; "
            "in a grid, with fewer --jobs."
        ) from error
    except UnreadableImageError as error:
        has_begun = (Path(out) / layout.CONFIG_FILE).is_file()
        remedies = [f"then continue with: {resume_hint(out)}"] if has_begun else []
        if error.is_damage:
            remedy = f"longtail inspect {shlex.quote(config.data.source)} names all such images"
            skip = "--data.skip_unreadable true"
            again = f"or train into a new --out with {skip} ({remedy})"
            remedies.append(again if has_begun else f"{remedy}, and {skip} trains without them")
        raise LongtailError("; ".join([str(error).rstrip("."), *remedies]) + ".") from error
    except (OSError, LongtailError) as error:
        if output.is_disk_full(error) and (Path(out) / layout.CONFIG_FILE).is_file():
            raise LongtailError(
                f"no space left on the device of {out} while training; what was saved before is whole: "
                f"free some space, then continue with: {resume_hint(out)}"
            ) from error
        raise
    return _show_result(metrics, config, out)


def _show_result(metrics: Mapping[str, Any], config: RunConfig, out: str) -> int:
    """Print the result of a trained run, write its report and remove its checkpoints; return the exit status."""
    from longtail.report.page import write_report
    from longtail.training.artifacts import describe

    if not is_main_of_run():
        return 0
    if metrics["test"] is not None:
        output.print_line(f"test {describe(metrics['test'])}; {output.IN_BRACKETS}")
        if not config.data.is_cross_validation:  # the table of folds has notes of its own
            for note in output.interval_notes(metrics["test"]):
                output.print_line(f"note: {note}")
    folder = Path(out)
    try:
        page = write_report([folder], folder / layout.REPORT_FILE)
    except (OSError, LongtailError) as error:  # what fails now loses nothing
        why = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        raise LongtailError(
            f"the run in {out} is complete, but its report could not be written ({why}): fix that, then write it "
            f"with: {resume_hint(out)}"
        ) from error
    output.print_line(f"report: {page}")
    _remove_checkpoints(folder, config)
    if config.data.is_cross_validation:
        _show_folds(out, metrics)
    return 0


def _remove_checkpoints(run: Path, config: RunConfig) -> None:
    """Remove the checkpoints of a complete run, unless --keep-checkpoints was given."""
    if not config.training.keep_checkpoints:
        from longtail.run.checkpoint import remove_checkpoints

        remove_checkpoints(run)
