"""Output of the commands: where it goes, lines and JSON, tables of figures, the summary of a run."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.prompt import Confirm
from rich.table import Table
from rich.text import Text

from longtail.config.schema import Choice, RunConfig
from longtail.config.stage import StageConfig
from longtail.errors import LongtailError, UsageError
from longtail.files import DISK_FULL, REPLACED, cannot_write, descriptor_of, is_stream, output_path, system_errors
from longtail.formatting import duration_text, figure_text, interval_text, percent
from longtail.remote import Place, local_path

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


IN_BRACKETS = "95% intervals in brackets"


def plain_table(*headings: str, right: Sequence[str] = ()) -> Table:
    """Return a table without lines, with headings on the left and then on the right of their columns."""
    table = Table(*headings, box=None, header_style="bold", pad_edge=False)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def summary_table(summary: Mapping[str, Any], split: str = "test") -> Group:
    """Lay the main figures of a summary out as a table, with their intervals; an empty group reads n/a.

    Notes on the intervals stand below the table.
    """
    intervals = summary.get("intervals") or {}
    table = plain_table("figure", "value", *([f"{percent(intervals['level'], 0)} interval"] if intervals else []))
    for key, value in summary.items():
        if key in {"per_class", "intervals"}:
            continue
        if key in {"num_images", "nll"}:
            shown = "n/a" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"
        else:
            shown = percent(value, 2)
        table.add_row(key.replace("_", " "), shown, *([interval_text(intervals.get(key))] if intervals else []))
    return Group(table, *(Text(f"note: {note}") for note in interval_notes(summary, split)))


def interval_notes(summary: Mapping[str, Any], split: str = "test") -> list[str]:
    """Return notes on the figures: what the intervals allow for, and how many classes have hardly any images.

    Example:
        >>> rows = [{"test_count": count} for count in (0, 3, 50)]
        >>> interval_notes({"per_class": rows, "intervals": {"unit": "trajectory", "correlation": 0.75}})
        ['Images of one trajectory are right or wrong together (correlation 0.75); the intervals allow for it.',
         '1 of 2 tested classes has fewer than 5 test images.']
    """
    from longtail.counts import FEW_IMAGES

    notes, intervals = [], summary.get("intervals") or {}
    if intervals.get("correlation") is not None:
        notes.append(
            f"Images of one {intervals['unit']} are right or wrong together (correlation "
            f"{intervals['correlation']:.2f}); the intervals allow for it."
        )
    tested = [row["test_count"] for row in summary.get("per_class") or [] if row["test_count"]]
    small = sum(count < FEW_IMAGES for count in tested)
    if small:
        have = "has" if small == 1 else "have"
        notes.append(f"{small} of {len(tested)} tested classes {have} fewer than {FEW_IMAGES} {split} images.")
    return notes


def class_table(summary: Mapping[str, Any], *, split: str = "test", limit: int | None = 40) -> Table:
    """Lay the classes out, those with the lowest recall first; a class with hardly any test images is marked *.

    Args:
        summary: Figures of a split, as in ``metrics.json``.
        split: Its name.
        limit: Classes to list; None lists all of them, untested ones too, those with most training images first.
    """
    from longtail.counts import FEW_IMAGES

    rows = sorted(
        (row for row in summary["per_class"] if limit is None or row["recall"] is not None),
        key=lambda row: -row["train_count"] if limit is None else (row["recall"], row["test_count"]),
    )
    table = plain_table("class", right=("train", "test", "recall", "95% interval", "precision", "95% interval"))
    for row in rows[:limit]:
        mark = " *" if 0 < row["test_count"] < FEW_IMAGES else ""
        cells = [str(row["train_count"]), str(row["test_count"])]
        for name in ("recall", "precision"):
            cells += [percent(row[name], unit=False), interval_text(row.get(f"{name}_interval"))]
        table.add_row(Text(row["name"] + mark), *cells)
    captions = [f"The {limit} of lowest recall out of {len(rows)}."] if limit is not None and len(rows) > limit else []
    if any(0 < row["test_count"] < FEW_IMAGES for row in rows[:limit]):
        captions.append(f"* fewer than {FEW_IMAGES} {split} images: the figure says next to nothing.")
    table.caption, table.caption_justify = " ".join(captions) or None, "left"
    return table


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or the one it was raised from, says that no space is left.

    Example:
        >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device")), is_disk_full(OSError("denied"))
        (True, False)
    """
    return any(each.errno in DISK_FULL or "No space left" in str(each) for each in system_errors(error))


def print_line(text: str, style: str | None = None) -> None:
    """Print a line as it is: no colors guessed, no [markup], never wrapped."""
    Console().print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def print_json(values: Any) -> None:
    """Print values as JSON, with letters that the stream may not know as escapes."""
    console, is_known = Console(), True
    try:
        json.dumps(values, ensure_ascii=False).encode(console.encoding)
    except UnicodeEncodeError:
        is_known = False
    console.print_json(data=values, allow_nan=False, ensure_ascii=not is_known)


def fail(message: str, status: int = EXIT_FAILED) -> int:
    """Print an error in one line, and return the exit status."""
    sys.stderr.write(f"longtail: {' '.join(message.splitlines())}\n")
    return status


PARTS = ("overall", "many", "medium", "few")


def selective_table(summary: Mapping[str, Any]) -> Table:
    """Lay out coverage and accuracy at one threshold, of all images and of each group.

    Args:
        summary: As :func:`longtail.evaluation.selective.selective_summary` returns it.
    """
    table = plain_table("images", "sure of", "right of those")
    for part in PARTS:
        figures = summary[part]
        cells = (figure_text(figures[name], figures[f"{name}_interval"]) for name in ("coverage", "accuracy"))
        table.add_row(part, *cells)
    return table


def coverage_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out coverage, and accuracy below it, at several thresholds, of all images and of each group.

    Args:
        rows: As :func:`longtail.evaluation.selective.selective_summary` returns them.
    """
    table = plain_table("from", *PARTS)
    for row in rows:
        for start, name in ((f"{row['threshold']:.4f}", "coverage"), ("", "accuracy")):
            cells = (figure_text(row[part][name], row[part][f"{name}_interval"], unit=False) for part in PARTS)
            table.add_row(start, *cells, end_section=name == "accuracy")
    return table


_FITS = {"crop": "", "pad": " (padded)", "stretch": " (stretched)"}
_TRAINED = {"all": "all weights", "classifier": "the classifier", "scales": "one scale per class"}


def outline(config: RunConfig) -> list[str]:
    r"""Summarize what is trained: the automatic choices with their reasons, else network and stages, a line each.

    Args:
        config: The configuration of the run.

    Example:
        >>> print(*outline(RunConfig()), sep="\n")
        network: resnet32 from nothing, auto classifier, 32 pixels, ...
        stage 1: 1 epoch of all weights, loss cross-entropy, batches of 64, sgd at 0.1, constant
    """
    if config.reasons:
        return [each if isinstance(each, str) else _sentence(each, config) for each in config.reasons]
    model = config.model
    named = {"recipe": config.recipe, "mode": config.mode}
    origin = ", ".join(f"{word} {name}" for word, name in named.items() if name)
    weights = f"from {model.weights}" if model.weights else "pretrained" if model.pretrained else "from nothing"
    adapters = ", with adapters" if model.adapter != "none" else ""
    network = (
        f"network: {model.name} {weights}{adapters}, {model.head} classifier, {config.data.image_size} pixels"
        f"{_FITS[config.data.fit]}, {config.training.precision}"
    )
    stages = [f"stage {number}: {_stage(stage)}" for number, stage in config.stages.items()]
    return [network + (f" ({origin})" if origin else ""), *stages]


def _sentence(choice: Choice, config: RunConfig) -> str:
    """Say what an automatic choice is in the end, and why."""
    from longtail.config.recipes import list_recipes, load_recipe

    first, second, model, search = config.stage1, config.stage2, config.model, config.search
    reason = choice.reason or "yours"
    if choice.option == "model.name":
        weights = "" if model.pretrained or config.mode == "scratch" else ", without pretrained weights"
        chosen = f"backbone: {_any_of(search.networks) or model.name}{weights}"
        reason = _how_compared(config) if search.networks else reason
    elif choice.option == "data.image_size":
        chosen = f"image size: {_any_of(search.sizes) or config.data.image_size} pixels"
        if search.fits and not search.sizes:
            chosen += f" ({reason})"
        chosen += f", {_any_of(search.fits)}" if search.fits else _FITS[config.data.fit]
        reason = _how_compared(config) if search.sizes or search.fits else reason
    elif choice.option == "mode":
        tried = [
            "linear",
            "all of the network",
            *([f"{search.from_nothing} from nothing"] if search.from_nothing else []),
        ]
        chosen = f"training: {_any_of(tried) if search.finetuning else choice.value}"
        reason = "compared on training images held out, where the time allows" if search.finetuning else reason
    elif choice.option == "recipe":
        recipe = load_recipe(config.recipe).config if config.recipe in list_recipes() else None
        is_published = recipe is None or recipe["stage1"]["loss"]["name"] == first.loss.name
        chosen = f"recipe: {config.recipe}{'' if is_published else f' with the loss {first.loss.name}'}"
    elif choice.option == "stage1.epochs":
        retrained = f" and {second.epochs} of the classifier alone" if second.epochs else ""
        chosen = f"length: {first.epochs} epoch{'s' * (first.epochs != 1)}{retrained}, batches of {first.batch_size}"
    else:
        chosen = f"{choice.option}: {choice.value}"
    return f"{chosen} ({reason})"


def _how_compared(config: RunConfig) -> str:
    """Say what networks, sizes and fits are compared on, and within which time."""
    limit = config.training.time_limit
    within = "" if limit is None else f", as far as a limit of {duration_text(limit)} allows"
    return f"compared on at most {config.search.images:,} training images{within}"


def _any_of(values: Sequence[str] | Sequence[int]) -> str:
    """List what is still to be compared: "96, 128 or 160"."""
    *others, last = map(str, values or [""])
    return f"{', '.join(others)} or {last}" if others else last


def _stage(stage: StageConfig) -> str:
    words = [
        f"{stage.epochs} epoch{'s' * (stage.epochs != 1)} of {_TRAINED[stage.train]}",
        f"loss {stage.loss.name}",
        f"batches of {stage.batch_size}",
        f"{stage.optimizer.name} at {stage.optimizer.lr:g}"
        + (f", sgd at {stage.optimizer.sgd_lr:g}" if stage.optimizer.sgd_lr is not None else ""),
        stage.schedule.name,
    ]
    words += [f"{stage.sampler} draws"] if stage.sampler != "shuffle" else []
    if stage.mixing != "none":
        words.append(stage.mixing + (f" in the first {stage.mixing_until:.0%}" if stage.mixing_until < 1 else ""))
    words += [f"images of {', '.join(map(str, stage.image_sizes))} pixels in turn"] if stage.image_sizes else []
    return ", ".join(words + ([f"{stage.cached_views} stored views"] if stage.cached_views else []))


def outlines(runs: Mapping[str, RunConfig]) -> list[str]:
    """Summarize what the runs of a grid train, each line once if it is the same for all of them.

    Args:
        runs: Configurations by the name of the run.

    Example:
        >>> mode = Choice("mode", "linear", "there is no GPU")
        >>> outlines({"ce": RunConfig(reasons=[mode, Choice("mixing", "none")]), "gcl": RunConfig(reasons=[mode])})
        ['training: linear (there is no GPU)', 'ce: mixing: none (yours)']
    """
    summaries = {name: outline(config) for name, config in runs.items()}
    owners = {
        line: [name for name, lines in summaries.items() if line in lines]
        for line in dict.fromkeys(line for lines in summaries.values() for line in lines)
    }
    return [line if len(names) == len(runs) else f"{', '.join(names)}: {line}" for line, names in owners.items()]


def ask_on_terminal() -> Callable[[str], bool] | None:
    """Return a function that asks the user a question, to be answered with yes or no; None without a terminal."""
    console = Console(stderr=True)
    if not (console.is_terminal and sys.stdin.isatty()):
        return None
    return partial(Confirm.ask, console=console, default=False)


PAGE = (".html", ".htm")


@dataclass(frozen=True)
class Destination:
    """The file or stream that a command writes to.

    Attributes:
        path: The file or stream; a stream is written to directly and never replaced.
        replaces: Whether a file of that name was there when the command began.
    """

    path: Path
    replaces: bool = False

    def __str__(self) -> str:
        """Return the path, and whether an earlier file was replaced."""
        return f"{self.path}{REPLACED if self.replaces else ''}"

    @property
    def takes_standard_output(self) -> bool:
        """Whether the content goes to the standard output."""
        if not is_stream(self.path):
            return False
        number = descriptor_of(self.path)
        try:
            return os.path.samestat(self.path.stat() if number is None else os.fstat(number), os.fstat(1))
        except OSError:
            return False


def messages_apart(file: Destination | None) -> AbstractContextManager[object]:
    """Print to the standard error within, if the standard output takes the content of a file."""
    return redirect_stdout(sys.stderr) if file is not None and file.takes_standard_output else nullcontext()


def destination(
    out: str, suffixes: Sequence[str], *, option: str = "--out", example: str, inputs: Sequence[str] = ()
) -> Destination:
    """Check an output path given by the user.

    Args:
        out: The path as given; ``-`` is the standard output.
        suffixes: The allowed suffixes, each with its dot; a name without a suffix is accepted too.
        option: The option it was given with.
        example: A file name to suggest.
        inputs: Input files of the command, which must not be overwritten.

    Raises:
        UsageError: Another suffix, or one of the inputs.
        LongtailError: A folder, a disk, or a path without write permission.

    Example:
        >>> destination("a.xlsx", [".csv", ".parquet"], example="a.csv")
        Traceback (most recent call last):
        longtail.errors.UsageError: --out a.xlsx: this file type cannot be written; name it .csv or .parquet.
    """
    if not out:
        raise UsageError(f"{option} needs the name of a file, such as {example}.")
    path = output_path(out)
    if is_stream(path):
        if descriptor_of(path) is None and stat.S_ISBLK(path.stat().st_mode):
            raise LongtailError(f"{out} is a disk: name a file with {option}.")
        return Destination(path)
    if path.is_dir() or out.endswith(os.sep):
        raise LongtailError(f"{out} is a folder: name the file to write, {option} {path / example}.")
    if path.suffix and path.suffix.lower() not in suffixes:
        listed = " or ".join(filter(None, [", ".join(suffixes[:-1]), suffixes[-1]]))
        raise UsageError(f"{option} {out}: this file type cannot be written; name it {listed}.")
    refuse_inputs(path, inputs, f"{option} {out}")
    # Raised now, not after everything has been computed.
    nearest = next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())
    if nearest != path.absolute() and not nearest.is_dir():
        raise cannot_write(path, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    # An earlier file is replaced by a new one, which is written next to it.
    folder = nearest if nearest.is_dir() else nearest.resolve().parent
    if not (os.access(nearest, os.W_OK) and os.access(folder, os.W_OK)):
        raise cannot_write(path, OSError(errno.EACCES, os.strerror(errno.EACCES)))
    return Destination(path, replaces=path.exists())


def refuse_inputs(path: Place, inputs: Sequence[str], words: str) -> None:
    """Refuse to write a file that is an input of the command.

    Args:
        path: The file to write; a remote one is none of them.
        inputs: The inputs as given, files, their ``file://`` URLs or something else.
        words: What would write it.

    Raises:
        UsageError: It is one of them.
    """
    for word in inputs:
        file = Path(local_path(word))
        if isinstance(path, Path) and path.exists() and file.is_file() and path.samefile(file):
            raise UsageError(f"{words} would overwrite {word!r}, an input of this command: name another file.")


def refuse_terminal(path: Path, kind: str) -> None:
    """Refuse to write binary data to a terminal.

    Raises:
        UsageError: The path is a terminal.

    Example:
        >>> refuse_terminal(Path("model.onnx"), "ONNX")
    """
    number, is_terminal = descriptor_of(path), False
    if number is not None:
        is_terminal = os.isatty(number)
    elif is_stream(path) and stat.S_ISCHR(path.stat().st_mode):
        with path.open("wb") as device:
            is_terminal = device.isatty()
    if is_terminal:
        raise UsageError(f"{path} is a terminal, and {kind} is not text: name a file, or redirect it with > or |.")


def refuse_stream(out: str, option: str) -> None:
    """Refuse a stream where a folder is needed.

    Raises:
        UsageError: It is a stream.

    Example:
        >>> refuse_stream("-", "--figures")
        Traceback (most recent call last):
        longtail.errors.UsageError: --figures - is a stream: name a folder.
    """
    if is_stream(output_path(out)):
        raise UsageError(f"{option} {out} is a stream: name a folder.")
