"""predict_images: predict any number of images with a trained run, row by row into a CSV, TSV or Parquet file."""

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

from longtail.config.schema import EngineName
from longtail.console import Reporter
from longtail.data.decode import is_unread_path
from longtail.errors import UsageError
from longtail.files import REPLACED, is_stream, output_path
from longtail.models.inference_engine import WORTHWHILE
from longtail.predict.hub import local_run
from longtail.predict.images import Images, LeftOut, count_words, find_images
from longtail.predict.journal import Format, Journal, Row, table_format
from longtail.predict.predictor import Prediction, load
from longtail.run.layout import MODEL_FILE, WEIGHTS_FILE, refuse_swapped

_MOST_FILES_SHOWN = 20
_SECONDS_BETWEEN_LINES = 60.0  # of progress, where there is no terminal to draw a bar on


@dataclass
class PredictionReport:
    """The outcome of predicting a set of images.

    Attributes:
        out: The table.
        predicted: Number of rows that this command added.
        skipped: Number of files that it could not read, including those in ``unread``.
        unread: Files in formats that are not read at all, by suffix.
        left_out: Counts of other files and folders that are not in the table.
        doubles: Rows that repeat the name of an earlier row, if a table named the images.
        replaced: Whether an earlier table of that name was replaced.
        earlier: Number of files that an earlier, unfinished command processed.
        problems: Path and problem of the first of the files that could not be read, without those in ``unread``; all
            are in ``FILE.skipped.csv``. For a stream, which has no such file, all of them.
        seconds: Duration.
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


def predict_images(
    run_dir: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    top_k: int = 5,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    engine: EngineName = "auto",
    prior: str | None = None,
    image_column: str | None = None,
    restart: bool = False,
    format: Format | None = None,  # noqa: A002 - as on the command line
    workers: int | None = None,
    console: Console | None = None,
) -> PredictionReport:
    """Predict the class of images and write one row for each, in constant memory.

    The columns are ``path``, ``prediction`` (the class name), ``confidence`` (its probability), ``sure`` (yes or no,
    where the run has a threshold), and for the ``top_k`` likeliest classes ``label_1``, ``probability_1``,
    ``label_2``, and so on. Rows go to ``out`` with ``.part`` at its end, batch by batch; the same call continues
    such a file. An image that cannot be read gets no row; the console names it, and ``out`` with ``.skipped.csv`` at
    its end lists all of them. To a stream, such as a pipe or ``-``, the standard output, rows go as they are made.

    Args:
        run_dir: The RUN folder of ``longtail train``, or ``hf:OWNER/NAME``.
        images: As for :func:`longtail.predict.images.find_images`.
        out: The table, called ``.csv``, ``.tsv`` or ``.parquet``, or a stream; a file is replaced if it exists.
        top_k: Number of classes to list per image; all C where there are fewer.
        batch_size: Images per forward pass.
        device: Device of the network.
        engine: What runs it, as for :class:`~longtail.predict.predictor.Predictor`.
        prior: The class prior to expect, as for :func:`longtail.predict.predictor.load`.
        image_column: The column of a table that holds the images, where it is not found by its name.
        restart: Start over even if an unfinished file exists.
        format: Format of the table, if its suffix does not tell; CSV when not given.
        workers: Threads that decode images; by default as many as there are cores.
        console: Console for progress and skipped files; None shows nothing.

    Returns:
        The number of rows, and the files that were skipped.

    Raises:
        UsageError: Images and run are swapped, or an unknown suffix.
        LongtailError: No such run, no image found, a table that cannot be written, or an unfinished one of another
            command.
    """
    if top_k < 1 or batch_size < 1:
        raise UsageError(f"top_k and batch_size must be at least 1; they are {top_k} and {batch_size}.")
    path = output_path(out)
    to_stream = is_stream(path)
    report = PredictionReport(path, replaced=path.is_file() and not to_stream)
    kind = table_format(path, format)
    refuse_swapped(run_dir, images)
    listing, run = find_images(images, image_column=image_column), local_run(run_dir)
    reporter = Reporter(console or Console(quiet=True), plain_seconds=_SECONDS_BETWEEN_LINES)
    predictor = load(run, device=device, prior=prior, engine=engine, say=lambda text: reporter.say(f"note: {text}"))
    top_k = min(top_k, len(predictor.classes))
    ranked = [f"{name}_{rank}" for rank in range(1, top_k + 1) for name in ("label", "probability")]
    columns = ["path", "prediction", "confidence", *([] if predictor.info.threshold is None else ["sure"]), *ranked]
    expected = predictor.info.scores(torch.zeros(1, len(predictor.classes))).tolist() if prior else None
    settings = _settings(run, images, listing, column=image_column, top_k=top_k, prior=expected)
    begun = time.perf_counter()
    table = Journal(path, columns, settings=settings, format=kind, restart=restart, count_doubles=listing.is_table)
    total = listing.total
    if total is None and reporter.console.is_terminal:
        total = sum(1 for _ in listing.items(LeftOut()))  # seconds for a million files, so that the bar has an end
    most = WORTHWHILE // predictor.info.preprocessing.size**2 + 1
    number = sum(1 for _ in islice(listing.items(LeftOut()), most + table.count)) if total is None else total
    with table, reporter.bar("predict", total) as bar:
        report.earlier = table.count
        if table.count:
            reporter.say(f"continuing after {table.count:,} files of an earlier command")
            bar.update(table.count)
        items = listing.items(report.left_out)
        if listing.is_table:  # its order is fixed, and a name may be repeated
            items = islice(items, table.count, None)
        elif table.count:
            items = (item for item in items if not table.has(item.name))
        predictions = predictor.stream(
            items, top_k=top_k, batch_size=batch_size, workers=workers, total=number - table.count
        )
        while batch := list(islice(predictions, batch_size)):
            table.add([_row(prediction, len(columns)) for prediction in batch])
            _count(report, batch, to_stream=to_stream)
            rate = (bar.done + len(batch) - report.earlier) / (time.perf_counter() - begun)
            bar.update(bar.done + len(batch), f"({rate:,.0f} images/s)")
        report.seconds = time.perf_counter() - begun
        table.finish()
        report.doubles = table.doubles
    for text in _lines(report, table.skipped_path):
        reporter.say(text, style="yellow" if text.startswith("skipped: ") else None)
    return report


def _settings(run: str, images: str | Path, listing: Images, **options: object) -> dict[str, object]:
    """Return the images, model and options that the rows of a table depend on.

    Images count by the absolute path that named them, a table also by its size and time.
    """
    identity: list[object] = [os.path.abspath(images)]  # noqa: PTH100 - the same words mean others in another folder
    if listing.is_table:
        status = os.stat(images)  # noqa: PTH116
        identity += [status.st_size, status.st_mtime_ns]
    digests = []
    for name in (MODEL_FILE, WEIGHTS_FILE):
        with Path(run, name).open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return {"images": identity, "model": hashlib.sha256(b"".join(digests)).hexdigest(), **options}


def _row(prediction: Prediction, columns: int) -> Row:
    if prediction.label is None:
        return [prediction.name, *[""] * (columns - 1), prediction.problem]
    row: list[str | float] = [prediction.name, prediction.label, round(prediction.confidence, 6)]
    row += [] if prediction.sure is None else ["yes" if prediction.sure else "no"]
    for label, probability in prediction.top:
        row += [label, round(probability, 6)]
    return [*row, ""]


def _count(report: PredictionReport, batch: Sequence[Prediction], *, to_stream: bool) -> None:
    bad = [(image.name, image.problem) for image in batch if image.label is None]
    report.predicted += len(batch) - len(bad)
    report.skipped += len(bad)
    report.unread.update(Path(name).suffix.lower() for name, _ in bad if is_unread_path(name))
    if to_stream:
        report.problems += bad
    else:
        unreadable = [(name, problem) for name, problem in bad if not is_unread_path(name)]
        report.problems += unreadable[: max(0, _MOST_FILES_SHOWN - len(report.problems))]


def _lines(report: PredictionReport, skipped_path: Path | None) -> Iterator[str]:
    """Yield the problems, the counts and the speed; without ``skipped_path`` the problems are all there."""
    for _, problem in report.problems:
        yield f"skipped: {problem}"
    unread = report.unread.total()
    if skipped_path is not None and (hidden := report.skipped - len(report.problems) - unread) > 0:
        yield f"skipped: {hidden:,} more"
    if unread:
        words = count_words(report.unread)
        yield f"skipped: {unread:,} in formats that are not read ({words}): convert them to JPEG or PNG"
    if skipped_path is not None and skipped_path.exists():
        yield f"all skipped files are listed in {skipped_path}"
    if str(report.left_out):
        yield f"left out: {report.left_out}"
    if report.doubles:
        yield f"note: {report.doubles:,} rows repeat the image of an earlier row"
    rate = (report.predicted + report.skipped) / max(report.seconds, 1e-9)
    yield f"{report.seconds:.1f} s, {rate:,.0f} images/s"
    yield str(report)
