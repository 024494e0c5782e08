"""predict_images: any number of images, or a shard of them, into a CSV, TSV or Parquet file."""

from __future__ import annotations

import hashlib
import os
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from rich.console import Console

from longtail.config.options import EngineName
from longtail.console import Reporter
from longtail.data.decode import is_unread_path
from longtail.errors import LATER, LongtailError, UsageError
from longtail.files import REPLACED, is_stream, output_place
from longtail.models.inference_engine import WORTHWHILE
from longtail.predict.hub import local_run
from longtail.predict.images import Images, Item, LeftOut, count_words, escaped, find_images, require_listed
from longtail.predict.part_folder import PartFolder
from longtail.predict.parts import (
    Job,
    Part,
    count_doubles,
    read_part,
    rows_of,
    skipped_path,
    without_repeats,
    write_part,
    write_tables,
)
from longtail.predict.predictor import Prediction, as_columns, column_names, load
from longtail.predict.shards import Shard, parse_shard, path_key
from longtail.predict.table import PROBLEM, Format, open_table, path_columns, table_format
from longtail.remote import Place, RemotePath, is_url, local_path
from longtail.run.layout import MODEL_FILE, WEIGHTS_FILE, refuse_swapped
from longtail.run.model_files import ModelInfo

WARNINGS: Final = ("skipped: ", "not fetched: ")
"""Beginnings of the lines of a report that say what is missing."""
_MOST_FILES_SHOWN = 20
_MOST_FAILED = 50  # images in a row that a store does not give
_SECONDS_BETWEEN_LINES = 60.0  # of progress, where there is no terminal to draw a bar on


@dataclass
class PredictionReport:
    """The outcome of predicting a set of images.

    Attributes:
        out: The table.
        predicted: Number of rows that this command added.
        skipped: Number of files that it could not read, including those in ``unread`` and ``later``.
        later: Number of images that a store or a disk did not give; the same command tries them again.
        unread: Files in formats that are not read at all, by suffix.
        left_out: Counts of other files and folders that are not in the table.
        doubles: Rows that repeat the name of an earlier row, if a table named the images.
        replaced: Whether an earlier table of that name was replaced.
        earlier: Number of files that an earlier, unfinished command processed.
        problems: Path and problem of the first of the files that could not be read, without those in ``unread``; all
            are in ``FILE.skipped.csv``. For a stream, which has no such file, all of them.
        listed_in: Where all files that could not be read are listed, if there are any and there is such a file.
        seconds: Duration.
    """

    out: Place
    predicted: int = 0
    skipped: int = 0
    later: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    left_out: LeftOut = field(default_factory=LeftOut)
    doubles: int = 0
    replaced: bool = False
    earlier: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    listed_in: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        """Return one line: how many images were predicted, were not given by a store, and were skipped."""
        unreadable = self.skipped - self.later
        tail = f", {unreadable:,} unreadable skipped" if unreadable else ""
        tail += f", {self.later:,} not fetched" if self.later else ""
        return f"{self.predicted:,} predicted{tail}: {self.out}{REPLACED if self.replaced else ''}"

    @property
    def not_fetched(self) -> str:
        """The clause on ``later``."""
        return f"not fetched: {self.later:,} image{'s' * (self.later != 1)} that a store or a disk did not give"

    def count(self, batch: Sequence[Prediction]) -> None:
        """Add the images of a batch."""
        bad = [(image.name, image.problem) for image in batch if image.label is None]
        self.predicted += len(batch) - len(bad)
        self.skipped += len(bad)
        self.later += sum(problem.endswith(LATER) for _, problem in bad)
        self.unread.update(Path(name).suffix.lower() for name, _ in bad if is_unread_path(name))
        if is_stream(self.out):
            self.problems += bad
        else:
            unreadable = [(name, problem) for name, problem in bad if not is_unread_path(name)]
            self.problems += unreadable[: max(0, _MOST_FILES_SHOWN - len(self.problems))]

    def lines(self) -> Iterator[str]:
        """Yield the problems, the counts and the speed; of a stream all problems."""
        for _, problem in self.problems:
            yield f"skipped: {problem}"
        unread = self.unread.total()
        if not is_stream(self.out) and (hidden := self.skipped - len(self.problems) - unread) > 0:
            yield f"skipped: {hidden:,} more"
        if unread:
            words = count_words(self.unread)
            yield f"skipped: {unread:,} in formats that are not read ({words}): convert them to JPEG or PNG"
        if self.later:
            remedy = "the same command tries them again, and only them"
            yield f"{self.not_fetched}; {'predict them again' if is_stream(self.out) else remedy}"
        if self.listed_in:
            yield f"all skipped files are listed in {self.listed_in}"
        if str(self.left_out):
            yield f"left out: {self.left_out}"
        if self.doubles:
            yield f"note: {self.doubles:,} rows repeat the image of an earlier row"
        rate = (self.predicted + self.skipped) / max(self.seconds, 1e-9)
        yield f"{self.seconds:.1f} s, {rate:,.0f} images/s"
        yield str(self)


def predict_images(
    run_dir: str | Path,
    images: str | Path,
    out: str | Path | RemotePath,
    *,
    top_k: int = 5,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    engine: EngineName = "auto",
    prior: str | None = None,
    image_column: str | None = None,
    shard: Shard | str | None = None,
    restart: bool = False,
    format: Format | None = None,  # noqa: A002 - as on the command line
    workers: int | None = None,
    console: Console | None = None,
) -> PredictionReport:
    """Predict the class of images and write one row for each, in constant memory.

    The columns are ``path``, ``prediction`` (the class name), ``confidence`` (its probability), ``sure`` (yes or no,
    where the run has a threshold), and for the ``top_k`` likeliest classes ``label_1``, ``probability_1``,
    ``label_2``, and so on. Rows go to finished parts in the folder ``out`` with ``.parts`` at its end, of which the
    table is made; the same call continues them. An image that cannot be read gets no row; the console names it, and
    ``out`` with ``.skipped.csv`` at its end lists all of them. If a store did not give some, the parts stay, and the
    same call tries these again and makes the table anew. To a stream, such as a pipe or ``-``, the standard
    output, rows go as they are made.

    Args:
        run_dir: The RUN folder of ``longtail train``, or ``hf:OWNER/NAME``.
        images: As for :func:`longtail.predict.images.find_images`.
        out: The table, called ``.csv``, ``.tsv`` or ``.parquet``, or a stream; a file is replaced if it exists. It may
            be the URL of a remote one, such as ``s3://bucket/answers.csv``.
        top_k: Number of classes to list per image; all C where there are fewer.
        batch_size: Images per forward pass.
        device: Device of the network.
        engine: What runs the network, as for :class:`~longtail.predict.predictor.Predictor`.
        prior: The class prior to expect, as for :func:`longtail.predict.predictor.load`.
        image_column: The column of a table that holds the images, where it is not found by its name.
        shard: Predict only this shard, such as ``3/8``; ``out`` is then a part, a Parquet file for
            :func:`longtail.predict.merge.merge_parts`. If it is finished already, only new images are added.
        restart: Start over even if an unfinished or, of a shard, a finished file exists.
        format: Format of the table, if its suffix does not tell; CSV when not given.
        workers: Threads that decode images; by default as many as there are cores.
        console: Console for progress and skipped files; None shows nothing.

    Returns:
        The number of rows, and the files that were skipped.

    Raises:
        UsageError: Images and run are swapped, an unknown suffix, or no such shard.
        LongtailError: No such run, no image found, a table that cannot be written, an unfinished one of another
            command, or a store that has failed.
    """
    if top_k < 1 or batch_size < 1:
        raise UsageError(f"top_k and batch_size must be at least 1; they are {top_k} and {batch_size}.")
    path = output_place(out)
    kind = table_format(path, format)
    shard = parse_shard(shard) if isinstance(shard, str) else shard
    if shard is not None and (kind != "parquet" or is_stream(path)):
        raise UsageError(f"a shard is written to a Parquet file, not to {path}: name it .parquet.")
    report = PredictionReport(path, replaced=path.is_file() and not is_stream(path))
    refuse_swapped(run_dir, images)
    listing, run = find_images(images, image_column=image_column), local_run(run_dir)
    reporter = Reporter(console or Console(quiet=True), plain_seconds=_SECONDS_BETWEEN_LINES)
    predictor = load(run, device=device, prior=prior, engine=engine, say=lambda text: reporter.say(f"note: {text}"))
    job = job_of(run, predictor.info, images, listing, top_k=top_k, prior=prior, column=image_column, shard=shard)
    begun = time.perf_counter()
    with _target(path, job, kind, restart=restart) as (folder, write):
        report.earlier = 0 if folder is None else folder.count
        total, expected = _totals(listing, job, report.earlier, predictor.info, exact=reporter.console.is_terminal)
        with reporter.bar("predict", total) as bar:
            if report.earlier:
                reporter.say(f"continuing after {report.earlier:,} files of an earlier command")
                bar.update(report.earlier)
            chosen = Chosen(listing, job, report.left_out, folder, needs_all=shard is not None)
            stream = predictor.stream(
                chosen.items(), top_k=top_k, batch_size=batch_size, workers=workers, total=expected
            )
            for batch in until_store_fails(zip(stream, chosen.places(), strict=False), batch_size):
                write(part_rows(batch, job))
                report.count([prediction for prediction, _ in batch])
                rate = (bar.done + len(batch) - report.earlier) / (time.perf_counter() - begun)
                bar.update(bar.done + len(batch), f"({rate:,.0f} images/s)")
        report.seconds = time.perf_counter() - begun
        report.doubles = chosen.doubles if folder is None else _finish(folder, report, kind)
    if shard is not None and report.earlier and not report.predicted + report.skipped:
        reporter.say(f"note: {path} was finished already; --restart predicts its images again")
    for text in report.lines():
        reporter.say(text, style="yellow" if text.startswith(WARNINGS) else None)
    return report


def job_of(
    run: str,
    info: ModelInfo,
    images: str | Path,
    listing: Images,
    *,
    top_k: int,
    prior: str | None,
    column: str | None,
    shard: Shard | None = None,
) -> Job:
    """Return what predictions of these images by this model depend on.

    Images count by the absolute path that named them, a table also by its size and time; a model by its files, the
    prior that is expected by what it does to scores of zero.
    """
    where = local_path(os.fspath(images))  # the same words mean others in another folder
    identity: list[str | int] = [where if is_url(where) else escaped(os.path.abspath(where))]  # noqa: PTH100
    if listing.is_table:
        status = os.stat(where)  # noqa: PTH116
        identity += [status.st_size, status.st_mtime_ns]
    top_k = min(top_k, len(info.classes))
    return Job(
        images=tuple(identity),
        model=model_digest(run),
        options={
            "column": None if column is None else escaped(column),
            "top_k": top_k,
            "prior": info.scores(torch.zeros(1, len(info.classes))).tolist() if prior else None,
        },
        columns=tuple(column_names(top_k, with_sure=info.threshold is not None)),
        is_table=listing.is_table,
        shard=shard,
    )


def model_digest(run: str) -> str:
    """Return a hash of the files of a model, SHA-256 in hexadecimal digits."""
    digests = []
    for name in (MODEL_FILE, WEIGHTS_FILE):
        with Path(run, name).open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return hashlib.sha256(b"".join(digests)).hexdigest()


class Listed(NamedTuple):
    """What a listing says about an image.

    Attributes:
        position: Its place.
        key: Hash of its relative path.
        is_new: Whether no earlier command tried to get it from a store, in vain.
    """

    position: int
    key: int
    is_new: bool


def part_rows(batch: Sequence[tuple[Prediction, Listed]], job: Job) -> pa.Table:
    """Return predictions as rows of a part of a job."""
    predictions = [prediction for prediction, _ in batch]
    values = as_columns(predictions, job.columns) | path_columns([row.name for row in predictions])
    keys = pa.array([listed.key for _, listed in batch], pa.uint64())
    return pa.table(values | {"position": [listed.position for _, listed in batch], "key": keys}, schema=job.schema)


def until_store_fails(
    images: Iterable[tuple[Prediction, Listed]], size: int
) -> Iterator[list[tuple[Prediction, Listed]]]:
    """Yield images in batches as long as a store gives some now and then: else all that follow would be skipped.

    Those that an earlier command did not get do not count: what never comes, as from an archive, would end every
    command before it has reached the images behind it.

    Args:
        images: Predictions, and what the listing says about them.
        size: Of a batch; the last one may be smaller.

    Raises:
        LongtailError: It did not give many images in a row.
    """
    batch, failed = list[tuple[Prediction, Listed]](), 0
    for prediction, listed in images:
        batch.append((prediction, listed))
        failed = failed + listed.is_new if prediction.problem.endswith(LATER) else 0
        if len(batch) == size or failed == _MOST_FAILED:
            yield batch
            batch = []
        if failed == _MOST_FAILED:
            problem, _, _ = prediction.problem.rpartition(": ")
            raise LongtailError(
                f"{problem}, like the {failed - 1} images before it: restore the access to "
                "them and repeat the command; what is finished is kept."
            )
    if batch:
        yield batch


class Chosen:
    """The images of a listing that are of the shard and still to be done, with their places and keys.

    Args:
        listing: The listing.
        job: Its job.
        left_out: Counts what is left out.
        folder: What earlier commands have done; None for nothing.
        needs_all: Whether a folder that cannot be listed is an error, as where other commands do other shards: they
            take it for somebody else's.
    """

    def __init__(
        self, listing: Images, job: Job, left_out: LeftOut, folder: PartFolder | None, *, needs_all: bool
    ) -> None:
        self._listing, self._job, self._left_out, self._folder = listing, job, left_out, folder
        self._needs_all = needs_all
        self._places: deque[Listed] = deque()
        self._keys = array("Q")  # to count doubles

    def items(self) -> Iterator[Item]:
        """Yield them; :meth:`places` then knows where they are.

        Raises:
            LongtailError: A folder cannot be listed, and all images are needed.
        """
        for position, item in enumerate(self._listing.items(self._left_out)):
            if self._needs_all:
                require_listed(item)
            key = path_key(self._listing.relative(item.name))
            identity, folder = position if self._job.is_table else key, self._folder
            is_ours = self._job.shard is None or self._job.shard.has(key)
            if is_ours and (folder is None or not folder.has(identity)):
                self._places.append(Listed(position, key, folder is None or not folder.failed(identity)))
                yield item

    def places(self) -> Iterator[Listed]:
        """Yield what the listing says about each image that :meth:`items` has yielded, in turn."""
        while self._places:
            listed = self._places.popleft()
            if self._job.is_table:
                self._keys.append(listed.key)
            yield listed

    @property
    def doubles(self) -> int:
        """Number of images so far that repeat the name of an earlier one."""
        return len(self._keys) - len(np.unique(np.frombuffer(self._keys, dtype=np.uint64))) if self._keys else 0


@contextmanager
def _target(
    path: Place, job: Job, kind: Format, *, restart: bool
) -> Iterator[tuple[PartFolder | None, Callable[[pa.Table], None]]]:
    """Open what rows are written to: a folder of parts, or a stream, which gets those of images that could be read."""
    if is_stream(path):
        with open_table(path, job.columns, kind) as write:
            yield None, lambda table: write(table.filter(pc.is_null(table[PROBLEM])))
        return
    earlier = None if restart else _finished_shard(path, job)
    with PartFolder(path.with_name(f"{path.name}.parts"), job, restart=restart, earlier=earlier) as folder:
        yield folder, folder.add


def _finished_shard(path: Place, job: Job) -> Part | None:
    """Return an earlier output of the same shard, which only new images are added to."""
    part = read_part(path) if job.shard is not None and path.is_file() else None
    return part if part is not None and not job.differences(part.job) else None


def _totals(listing: Images, job: Job, earlier: int, info: ModelInfo, *, exact: bool) -> tuple[int | None, int]:
    """Return the number of images for a bar, None where it is not worth counting them, and about how many are to come.

    The second number chooses what runs the network, so that counting ends where it is large enough.
    """
    shards = 1 if job.shard is None else job.shard.count
    total = listing.total if shards == 1 else None
    if total is None and exact:
        names = (item.name for item in listing.items(LeftOut()))  # seconds for a million files
        has = (lambda _: True) if job.shard is None else job.shard.has
        total = sum(has(path_key(listing.relative(name))) for name in names)
    if total is not None:
        return total, total - earlier
    enough = shards * (WORTHWHILE // info.preprocessing.size**2 + 1 + earlier)
    return None, sum(1 for _ in islice(listing.items(LeftOut()), enough)) // shards - earlier


def _finish(folder: PartFolder, report: PredictionReport, kind: Format) -> int:
    """Make the table of the parts and return how many rows of a table repeat an image.

    The parts are removed, unless the same command can go on with them to try again what a store did not give.
    """
    folder.flush()
    parts, job = without_repeats(folder.parts, folder.earlier), folder.job
    if job.shard is None:
        write_tables(parts, job.columns, report.out, kind)
        report.listed_in = str(skipped_path(report.out)) if any(part.bad for part in parts) else ""
    else:
        is_new = [(part.path, part.repeats) for part in parts] != [(report.out, ())]
        report.replaced &= is_new
        if is_new:
            write_part(report.out, job, rows_of(parts, job.schema.names))
        report.listed_in = f"the column {PROBLEM} of {report.out}" if any(part.bad for part in parts) else ""
    doubles = count_doubles(parts) if job.is_table else 0
    if job.shard is not None or not any(part.later for part in parts):
        folder.remove()
    return doubles
