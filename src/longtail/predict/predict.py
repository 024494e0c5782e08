"""predict_images: a trained run applied to any number of images, row by row into a CSV or Parquet file."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from longtail.data.decode import is_unread_path
from longtail.errors import UsageError
from longtail.files import REPLACED, is_stream, output_path
from longtail.predict.answers import Format, Row, table_format
from longtail.predict.hub import local_run
from longtail.predict.images import Images, Item, find_images
from longtail.predict.journal import Journal, StreamTable
from longtail.predict.listing import LeftOut, count_words
from longtail.predict.predictor import Prediction, Predictor
from longtail.run.folder import MODEL_FILE, WEIGHTS_FILE
from longtail.run.model_files import refuse_swapped

_MOST_FILES_SHOWN = 20
_SECONDS_BETWEEN_LINES = 60.0  # of progress, where there is no terminal to draw a bar on


@dataclass
class PredictionReport:
    """What became of a set of images.

    Attributes:
        out: The table.
        predicted: How many images have a row in it that this command has made.
        skipped: How many files it could not read, including those in ``unread``.
        unread: Files in formats that are not read at all, by suffix.
        left_out: Counts of other files and folders that are not in the table.
        doubles: Rows that repeat the name of an earlier row, if a table named the images.
        replaced: Whether an earlier table of that name was replaced.
        earlier: How many files an earlier, unfinished command had gone through.
        problems: Path and problem of the first of the files that could not be read, without those in ``unread``; all
            are in ``FILE.skipped.csv``. For a stream, which has no such file, all of them.
        seconds: How long it took.
    """

    out: Path
    predicted: int = 0
    skipped: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    left_out: LeftOut = field(default_factory=LeftOut)
    doubles: int = 0
    replaced: bool = False
    earlier: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        """Return one line: how many images were predicted and how many files were skipped."""
        tail = f", {self.skipped:,} unreadable skipped" if self.skipped else ""
        return f"{self.predicted:,} predicted{tail}: {self.out}{REPLACED if self.replaced else ''}"

    @property
    def images_per_second(self) -> float:
        """Files gone through per second, reading included."""
        return (self.predicted + self.skipped) / max(self.seconds, 1e-9)


def predict_images(
    run_dir: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    top_k: int = 5,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    prior: str | None = None,
    image_column: str | None = None,
    restart: bool = False,
    format: Format | None = None,  # noqa: A002 - as on the command line
    workers: int | None = None,
    console: Console | None = None,
) -> PredictionReport:
    """Predict the class of images and write one row for each, in constant memory however many there are.

    The columns are ``path``, ``prediction`` (the class name), ``confidence`` (its probability), ``sure`` (yes or no,
    where the run has a threshold), and for the ``top_k`` likeliest classes ``label_1``, ``probability_1``,
    ``label_2``, and so on. Rows go to ``out`` with ``.part`` at its end, batch by batch; the same call goes on with
    such a file. An image that cannot be read gets no row; the console names it, and ``out`` with ``.skipped.csv`` at
    its end lists all of them. To a stream, such as a pipe or ``-``, the standard output, rows go as they are made.

    Args:
        run_dir: The RUN folder of ``longtail train``, or ``hf:OWNER/NAME``.
        images: As for :func:`longtail.predict.images.find_images`.
        out: The table, called ``.csv``, ``.tsv`` or ``.parquet``, or a stream; a file is replaced if it exists.
        top_k: How many classes to list per image; all C where there are fewer.
        batch_size: Images per forward pass.
        device: Where the network runs.
        prior: The mix of classes to expect, as for :func:`longtail.predict.predictor.load`.
        image_column: The column of a table that holds the images, where it is not found by its name.
        restart: Begin anew even if an unfinished file is there.
        format: Format of the table, if its suffix does not tell; CSV when not given.
        workers: Threads that decode images; by default as many as there are cores.
        console: Where progress and skipped files are shown; None shows nothing.

    Returns:
        The number of rows, and the files that were skipped.

    Raises:
        UsageError: Images and run are swapped, or an unknown suffix.
        LongtailError: No such run, no image found, a table that cannot be written, or an unfinished one of another
            command.
    """
    if top_k < 1 or batch_size < 1:
        raise UsageError(f"top_k and batch_size must be at least 1; they are {top_k} and {batch_size}.")
    kind = table_format(output_path(out), format)
    refuse_swapped(run_dir, images)
    found, run = find_images(images, image_column=image_column), local_run(run_dir)
    console = console if console is not None else Console(quiet=True)
    predictor = Predictor.load(run, device=device, prior=prior, say=lambda text: _say(console, f"note: {text}"))
    top_k = min(top_k, len(predictor.classes))
    has_threshold = predictor.info.threshold is not None
    settings = {
        "images": _identity(images, found), "column": image_column, "model": _fingerprint(run), "top_k": top_k,
        "prior": predictor.info.scores(torch.zeros(1, len(predictor.classes))).tolist() if prior else None,
    }  # fmt: skip
    report = PredictionReport(output_path(out))
    report.replaced = report.out.is_file() and not is_stream(report.out)
    columns = _header(top_k, has_threshold=has_threshold)
    begun = time.perf_counter()
    table: Journal | StreamTable
    if is_stream(report.out):
        table = StreamTable(report.out, columns, format=kind, count_doubles=found.is_table)
    else:
        table = Journal(
            report.out, columns, settings=settings, format=kind, restart=restart, count_doubles=found.is_table
        )
    with table as journal, _Progress(console, found) as bar:
        report.earlier = journal.count
        if journal.count:
            _say(console, f"going on after {journal.count:,} files of an earlier command")
            bar.advance(journal.count)
        remaining = _remaining(found, journal, report.left_out)
        said = predictor.stream(remaining, top_k=top_k, batch_size=batch_size, workers=workers)
        while some := list(islice(said, batch_size)):
            journal.add([_row(one, len(columns), has_threshold=has_threshold) for one in some])
            _count(report, some)
            bar.advance(len(some))
        report.seconds = time.perf_counter() - begun
        journal.finish()
        report.doubles = journal.doubles
    _show(report, journal, console)
    return report


def _identity(images: str | Path, found: Images) -> list[object]:
    """What the images are: the words that named them, and of a table also its size and time."""
    status = os.stat(images) if found.is_table else None  # noqa: PTH116
    place = os.path.abspath(images)  # noqa: PTH100 - the same words mean other images in another folder
    return [place, *([status.st_size, status.st_mtime_ns] if status else [])]


def _fingerprint(run: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    for name in (MODEL_FILE, WEIGHTS_FILE):
        with Path(run, name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _remaining(found: Images, journal: Journal | StreamTable, left_out: LeftOut) -> Iterator[Item]:
    """What an earlier command has not gone through: the later rows of a table, or the names that are not there yet."""
    if not journal.count:
        return found.items(left_out)
    if found.is_table:
        return islice(found.items(left_out), journal.count, None)
    return (item for item in found.items(left_out) if not journal.has(item.name))


def _row(one: Prediction, columns: int, *, has_threshold: bool) -> Row:
    if one.label is None:
        return [one.name, *[""] * (columns - 1), one.problem]
    row: list[str | float] = [one.name, one.label, round(one.confidence, 6)]
    row += ["yes" if one.sure else "no"] if has_threshold else []
    for label, value in one.top:
        row += [label, round(value, 6)]
    return [*row, ""]


def _header(top_k: int, *, has_threshold: bool) -> list[str]:
    ranked = [f"{name}_{rank}" for rank in range(1, top_k + 1) for name in ("label", "probability")]
    return ["path", "prediction", "confidence", *(["sure"] if has_threshold else []), *ranked]


def _count(report: PredictionReport, some: Sequence[Prediction]) -> None:
    bad = [(one.name, one.problem) for one in some if one.label is None]
    report.predicted += len(some) - len(bad)
    report.skipped += len(bad)
    unread = [name for name, _ in bad if is_unread_path(name)]
    report.unread.update(Path(name).suffix.lower() for name in unread)
    if is_stream(report.out):
        report.problems += bad
    else:
        named_here = [(name, problem) for name, problem in bad if not is_unread_path(name)]
        report.problems += named_here[: max(0, _MOST_FILES_SHOWN - len(report.problems))]


class _Progress:
    """A bar on a terminal; elsewhere a line a minute."""

    def __init__(self, console: Console, found: Images) -> None:
        self._console = console
        self._count, self._first, self._begun = 0, 0, time.perf_counter()
        self._told = self._begun
        columns = ("{task.description}", "{task.completed:,}", "{task.fields[rate]}")
        texts = [TextColumn(column) for column in columns]
        self._bar = Progress(
            texts[0], BarColumn(), *texts[1:], TimeRemainingColumn(), console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        total = found.total
        if total is None and console.is_terminal:
            total = sum(1 for _ in found.items())  # seconds for a million files, so that an end can be foretold
        self._task = self._bar.add_task("predict", total=total, rate="")

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, files: int) -> None:
        """Say that so many more files are done."""
        self._count += files
        now = time.perf_counter()
        rate = f"{self._count / max(now - self._begun, 1e-9):,.0f} images/s"
        self._bar.update(self._task, advance=files, rate=rate)
        if not self._console.is_terminal and now - self._told > _SECONDS_BETWEEN_LINES:
            self._told = now
            _say(self._console, f"{self._count:,} files, {rate}")


def _show(report: PredictionReport, journal: Journal | StreamTable, console: Console) -> None:
    for _, problem in report.problems:
        console.print(f"skipped: {problem}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    unread = report.unread.total()
    hidden = report.skipped - len(report.problems) - (0 if is_stream(report.out) else unread)
    if hidden > 0:
        console.print(f"skipped: {hidden:,} more", style="yellow", highlight=False)
    if unread:
        console.print(
            f"skipped: {unread:,} in formats that are not read ({count_words(report.unread)}): convert them to JPEG "
            "or PNG",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
    if journal.skipped_path is not None and journal.skipped_path.exists():
        _say(console, f"all skipped files are listed in {journal.skipped_path}")
    if str(report.left_out):
        _say(console, f"left out: {report.left_out}")
    if report.doubles:
        _say(console, f"note: {report.doubles:,} rows repeat the image of an earlier row")
    _say(console, f"{report.seconds:.1f} s, {report.images_per_second:,.0f} images/s")
    _say(console, str(report))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
