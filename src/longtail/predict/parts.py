"""Parts: predictions in finished Parquet files, each of which says what it was made of, and tables made of them."""

from __future__ import annotations

import dataclasses
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from longtail.errors import LATER, LongtailError, first_line
from longtail.files import cannot_write, is_stream, writing
from longtail.predict.images import LEFT_OUT
from longtail.predict.shards import Shard
from longtail.predict.table import PROBLEM, RAW_PATH, Format, column_type, open_table
from longtail.remote import Place
from longtail.validation import require_format, validate

FORMAT: Final = 1
POSITION: Final = "position"
KEY: Final = "key"
_ENTRY: Final = b"longtail"  # of the schema's metadata: the job of a part
_WINDOW = 8_192  # rows sorted at a time
_REMEDY = "delete it and repeat the command that wrote it"


@dataclass(frozen=True)
class Job:
    """What predictions depend on: rows of one job may stand in one table, those of another may not.

    Attributes:
        images: Absolute path of what was named; of a table also its size in bytes and its time of change.
        model: Hash of the files of the model.
        options: Options that change a row: ``column``, ``top_k``, ``prior``.
        columns: Columns of the table, ``path`` first.
        is_table: Whether the images are rows of a table, where a path may be repeated.
        shard: The shard of the images, if they are divided.
        format: Format of the parts.
    """

    images: tuple[str | int, ...]
    model: str
    options: dict[str, Any]
    columns: tuple[str, ...]
    is_table: bool = False
    shard: Shard | None = None
    format: int = FORMAT

    @property
    def schema(self) -> pa.Schema:
        """Columns of a part: those of the table, then the problem of an image, its place and key, and its raw path."""
        more = [(PROBLEM, pa.string()), (POSITION, pa.int64()), (KEY, pa.uint64()), (RAW_PATH, pa.binary())]
        columns = [(name, column_type(name)) for name in self.columns]
        return pa.schema([*columns, *more], metadata={_ENTRY: self.text})

    @property
    def text(self) -> str:
        """The job as JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    def differences(self, other: Job) -> list[str]:
        """Return in words what differs in another job.

        Example:
            >>> job = Job(("/photos",), "5a", {"top_k": 5}, ("path",))
            >>> job.differences(dataclasses.replace(job, model="77", options={"top_k": 1}))
            ['model', 'options']
        """
        names = {"images": "images", "model": "model", "options": "options", "columns": "options", "shard": "shard"}
        mine, theirs = json.loads(self.text), json.loads(other.text)
        return list(dict.fromkeys(word for name, word in names.items() if mine[name] != theirs[name]))


_JOB: Final = TypeAdapter(Job)


@dataclass(frozen=True)
class Part:
    """A finished part.

    Attributes:
        path: Its file.
        job: What it was made of.
        rows: Number of images, including those that could not be read.
        bad: Number of those that could not be read.
        first: Position of its first image in the listing.
        later: Number of those in ``bad`` that a store did not give, and may give later.
        repeats: Rows that are left out, in order, as another part has their images; see :func:`without_repeats`.
    """

    path: Place
    job: Job
    rows: int
    bad: int
    first: int
    later: int = 0
    repeats: tuple[int, ...] = ()

    @property
    def identity(self) -> str:
        """The column that tells its images apart: their place in a table, else the key of their path."""
        return POSITION if self.job.is_table else KEY

    def batches(self, size: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some of its columns in batches of up to ``size`` rows, without the repeats."""
        repeats, start = np.array(self.repeats, dtype=np.int64), 0
        with _opened(self.path) as file:
            for batch in file.iter_batches(size, columns=columns, use_threads=False):
                first, end = np.searchsorted(repeats, [start, start + len(batch)])
                keep = np.ones(len(batch), dtype=bool)
                keep[repeats[first:end] - start] = False
                start += len(batch)
                if keep.any():
                    yield batch.filter(pa.array(keep))


def read_part(path: Place) -> Part | None:
    """Read what a part says about itself; None for a Parquet file of something else.

    Raises:
        LongtailError: It is damaged, or of a newer version.
    """
    with _opened(path) as file:
        data = (file.schema_arrow.metadata or {}).get(_ENTRY)
        if data is None:
            return None
        try:
            entries = json.loads(data)
        except (ValueError, RecursionError):
            entries = None
        if not isinstance(entries, dict):
            raise LongtailError(f"{path} does not say in JSON what it is a part of: {_REMEDY}.")
        require_format(str(path), entries.get("format"), FORMAT)
        job = validate(_JOB, data, str(path), _REMEDY)
        if not file.schema_arrow.equals(job.schema):
            raise LongtailError(f"{path} lacks columns of a part of predictions: {_REMEDY}.")
        rows, bad, first, later = file.metadata.num_rows, 0, 0, 0
        for number, batch in enumerate(file.iter_batches(_WINDOW, columns=[PROBLEM, POSITION])):
            bad += len(batch) - batch[PROBLEM].null_count
            later += int(_ends_with(batch, LATER).sum())
            first = batch[POSITION][0].as_py() if number == 0 and len(batch) else first
    return Part(path, job, rows, bad, first, later)


def list_parts(folder: Place, pattern: str = "part-*.parquet") -> list[Part]:
    """Read what the finished parts in a folder say about themselves, in the order of their names.

    Hidden files, which systems add, are none.

    Raises:
        LongtailError: One of them is damaged.
    """
    paths: list[Place] = [path for path in folder.glob(pattern) if not path.name.startswith(".")]
    parts = (read_part(path) for path in sorted(paths, key=str))
    return [part for part in parts if part is not None]


@contextmanager
def _opened(path: Place) -> Iterator[pq.ParquetFile]:
    """Open a part; what is damaged in it may be met only when its rows are read."""
    try:
        # PyArrow itself opens no file whose path is not UTF-8.
        with path.open("rb") if isinstance(path, Path) else path.open() as source, pq.ParquetFile(source) as file:
            yield file
    except FileNotFoundError as error:
        raise LongtailError(f"{path} was removed by another command: repeat this one.") from error
    except (OSError, pa.ArrowException) as error:
        raise LongtailError(f"{path} cannot be read as Parquet ({first_line(error)}): {_REMEDY}.") from error


def write_part(path: Place, job: Job, tables: Iterable[pa.Table]) -> None:
    """Write a part; it gets its name when it is whole.

    Raises:
        LongtailError: The system refuses to write.
    """
    with writing(path) as file, pq.ParquetWriter(file, job.schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table.cast(job.schema))


def identities(parts: Iterable[Part], *, done: bool = False) -> npt.NDArray[np.uint64]:
    """Return what tells the images of parts apart, sorted, uint64 (N,): keys of paths, or positions in a table.

    Args:
        parts: The parts.
        done: Leave out images that a store did not give, and folders that could not be listed: they are to be tried
            again.
    """
    images = array("Q")
    for part in parts:
        for batch in part.batches(_WINDOW, [part.identity, PROBLEM]):
            values = _identities(batch, part)
            images.frombytes(values[~_is_to_try_again(batch)].tobytes() if done else values.tobytes())
    sorted_images = np.frombuffer(images, dtype=np.uint64)  # the same eight bytes
    sorted_images.sort()
    return sorted_images


def _identities(batch: pa.RecordBatch, part: Part) -> npt.NDArray[np.uint64]:
    return np.asarray(batch[part.identity].to_numpy().astype(np.uint64))


def _is_to_try_again(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    return _ends_with(batch, LATER) | _ends_with(batch, LEFT_OUT)


def _ends_with(batch: pa.RecordBatch, end: str) -> npt.NDArray[np.bool_]:
    # By the end of the sentence: so it is known of parts that earlier versions wrote, too.
    return np.asarray(pc.ends_with(batch[PROBLEM], end).fill_null(False).to_numpy(zero_copy_only=False))


def count_doubles(parts: Iterable[Part]) -> int:
    """Return how many images of parts repeat the path of another one."""
    keys = identities(dataclasses.replace(part, job=dataclasses.replace(part.job, is_table=False)) for part in parts)
    return len(keys) - len(np.unique(keys))


def without_repeats(parts: Sequence[Part], earlier: Set[Place] = frozenset()) -> list[Part]:
    """Return parts that have each image once: as it was predicted, where one of them had to try it again.

    Work is done twice where a cluster has lost a node, where a command ended before it had removed the parts of its
    table, or where two commands wrote at once.

    Args:
        parts: The parts.
        earlier: Paths of those that were there before a command that has listed all images. What they say is to be
            tried again is left out: it has been tried, or it is no longer listed, such as a folder whose images are.
            Where that command could not list a folder, it may not have come to all images, and nothing is left out.
    """
    new = [part for part in parts if earlier and part.bad and part.path not in earlier]
    if any(_ends_with(batch, LEFT_OUT).any() for part in new for batch in part.batches(_WINDOW, [PROBLEM])):
        earlier = frozenset()
    images = identities(parts)
    twice = np.unique(images[1:][images[1:] == images[:-1]])
    if not len(twice) and not any(part.bad for part in parts if part.path in earlier):
        return list(parts)
    done = np.intersect1d(twice, identities(parts, done=True))
    kept, result = set[int](), list[Part]()
    for part in parts:
        repeats, bad, later, start = list[int](), 0, 0, 0
        for batch in part.batches(_WINDOW, [part.identity, PROBLEM]):
            values, is_bad = _identities(batch, part), batch[PROBLEM].is_valid()
            is_later = _ends_with(batch, LATER)
            is_superseded = _is_to_try_again(batch) & (np.isin(values, done) | (part.path in earlier))
            for row in np.flatnonzero(np.isin(values, twice) | is_superseded).tolist():
                if is_superseded[row] or int(values[row]) in kept:
                    repeats.append(start + row)
                    bad += is_bad[row].as_py()
                    later += int(is_later[row])
                else:
                    kept.add(int(values[row]))
            start += len(batch)
        rows, bad, later = part.rows - len(repeats), part.bad - bad, part.later - later
        result.append(dataclasses.replace(part, rows=rows, bad=bad, later=later, repeats=tuple(repeats)))
    return result


def remove_repeats(parts: Sequence[Part], earlier: Set[Place] = frozenset()) -> int:
    """Write parts again without what :func:`without_repeats` leaves out, and return how many rows that was.

    Raises:
        LongtailError: The system refuses to write.
    """
    removed = 0
    for part in without_repeats(parts, earlier):
        if part.repeats:
            removed += len(part.repeats)
            batches = part.batches(_WINDOW, part.job.schema.names)
            write_part(part.path, part.job, (pa.Table.from_batches([batch]) for batch in batches))
    return removed


def rows_of(parts: Sequence[Part], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows of parts in the order of the listing, some columns of them, in constant memory.

    Parts that were made of another state of a folder may overlap anyhow: their rows come near their place.
    """
    names = list(dict.fromkeys([POSITION, *columns]))
    waiting = sorted(parts, key=lambda part: part.first, reverse=True)
    size = max(256, _WINDOW // max(1, len(parts)))
    active: list[_Reader] = []
    while waiting or active:
        nearest = [reader.position for reader in active] + [part.first for part in waiting[-1:]]
        limit = min(nearest) + _WINDOW
        while waiting and waiting[-1].first < limit:
            active.append(_Reader(waiting.pop(), names, size))
        tables = list(chain.from_iterable(reader.below(limit) for reader in active))
        active = [reader for reader in active if not reader.is_finished]
        if tables:
            yield pa.concat_tables(tables).sort_by(POSITION).select(columns)


class _Reader:
    """The rows of a part, up to a position at a time."""

    def __init__(self, part: Part, columns: Sequence[str], size: int) -> None:
        self._batches = part.batches(size, columns)
        self._next()

    def _next(self) -> None:
        batch = next(self._batches, None)
        self._rest = None if batch is None else pa.Table.from_batches([batch])

    @property
    def is_finished(self) -> bool:
        return self._rest is None

    @property
    def position(self) -> int:
        """That of the next row."""
        return 0 if self._rest is None else int(self._rest[POSITION][0].as_py())

    def below(self, limit: int) -> Iterator[pa.Table]:
        while self._rest is not None:
            is_below = pc.less(self._rest[POSITION], limit)
            yield self._rest.filter(is_below)
            rest = self._rest.filter(pc.invert(is_below))
            if len(rest):
                self._rest = rest
                return
            self._next()


def write_tables(parts: Sequence[Part], columns: Sequence[str], out: Place, format: Format) -> None:  # noqa: A002
    """Write the table of all images that could be read, and ``FILE.skipped.csv`` of the others, if there are any.

    Args:
        parts: Parts of one or more jobs with these columns.
        columns: Columns of the table.
        out: The table; a file of that name is replaced.
        format: Its format.

    Raises:
        LongtailError: The system refuses to write.
    """
    bad = [part for part in parts if part.bad]
    try:
        if not bad and not is_stream(out):
            skipped_path(out).unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(skipped_path(out), error) from error
    if bad and not is_stream(out):
        with open_table(skipped_path(out), ["path", PROBLEM], "csv") as write:
            for table in rows_of(bad, ["path", PROBLEM, RAW_PATH]):
                write(table.filter(pc.is_valid(table[PROBLEM])))
    with open_table(out, columns, format) as write:
        for table in rows_of(parts, [*columns, PROBLEM, RAW_PATH]):
            write(table.filter(pc.is_null(table[PROBLEM])))


def skipped_path(out: Place) -> Place:
    """Return the name of the list of images without a row: ``FILE.skipped.csv``."""
    return out.with_name(f"{out.name}.skipped.csv")
