"""Tables of predictions, row by row: a journal that a killed command continues, then CSV, TSV or Parquet."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Self, TextIO, TypeAlias

import numpy as np

from longtail.errors import LongtailError, UsageError
from longtail.files import cannot_write, is_stream, writing

if sys.platform != "win32":
    import fcntl

Format: TypeAlias = Literal["csv", "tsv", "parquet"]
Row: TypeAlias = Sequence[str | float]
Write: TypeAlias = Callable[[Iterable[Row]], None]
SUFFIXES: Final[Mapping[str, Format]] = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
_ENCODING: Final[Mapping[str, Any]] = {"encoding": "utf-8", "errors": "surrogateescape"}  # of file names of any bytes
_ROWS_AT_ONCE = 10_000


def table_format(out: Path, requested: Format | None = None) -> Format:
    """Return the format of a table by its suffix, or the requested one if it has none.

    Raises:
        UsageError: An unknown suffix, or one of another format than requested.

    Example:
        >>> table_format(Path("a.parquet")), table_format(Path("/dev/stdout")), table_format(Path("a"), "tsv")
        ('parquet', 'csv', 'tsv')
    """
    suffix = out.suffix.lower()
    named = SUFFIXES.get(suffix)
    if named is None and suffix and not is_stream(out):
        raise UsageError(f"{out}: tables are not written as {suffix}; name it .csv, .tsv or .parquet.")
    if named is not None and requested not in {None, named}:
        raise UsageError(f"{out} is the name of a {named} file, and the format is {requested}: change one of the two.")
    return named or requested or "csv"


@contextmanager
def open_table(path: Path, columns: Sequence[str], format: Format) -> Iterator[Write]:  # noqa: A002
    """Open a table for writing rows: a file that is written completely or not at all, or a stream.

    The function that it gives appends rows; they have been handed to the file when the call returns.

    Raises:
        LongtailError: It cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.tsv"
        >>> with open_table(path, ["path", "confidence"], "tsv") as write:
        ...     write([("x.png", 0.5)])
        >>> path.read_text().split()
        ['path', 'confidence', 'x.png', '0.5']
    """
    writer = _parquet_writer if format == "parquet" else _text_writer
    with writing(path) as file, writer(file, columns, "\t" if format == "tsv" else ",") as write_portion:

        def write(rows: Iterable[Row]) -> None:
            rows = iter(rows)
            while portion := list(islice(rows, _ROWS_AT_ONCE)):
                write_portion(portion)

        yield write


@contextmanager
def _text_writer(file: BinaryIO, columns: Sequence[str], delimiter: str) -> Iterator[Write]:
    def write(rows: Iterable[Row]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=delimiter).writerows(rows)
        file.write(text.getvalue().encode(**_ENCODING))
        file.flush()

    write([columns])
    yield write


@contextmanager
def _parquet_writer(file: BinaryIO, columns: Sequence[str], _: str) -> Iterator[Write]:
    r"""Write rows as Parquet; bytes of a path that are not UTF-8 become ``\udc..`` escapes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def cells(name: str, values: Sequence[str | float]) -> list[str] | list[float]:
        if name in numbers:
            return [float(value) for value in values]
        return [str(value).encode("utf-8", "backslashreplace").decode() for value in values]

    def write(rows: Iterable[Row]) -> None:
        values = [cells(name, column) for name, column in zip(columns, zip(*rows, strict=True), strict=True)]
        writer.write_table(pa.table(values, schema=schema))

    numbers = {name for name in columns if name == "confidence" or name.startswith("probability_")}
    schema = pa.schema([(name, pa.float64() if name in numbers else pa.string()) for name in columns])
    writer = pq.ParquetWriter(file, schema, compression="zstd")
    yield write
    writer.close()  # not after an error: the file is thrown away then


class Journal:
    """The rows of a table while they are made, and the table itself at the end, as CSV, TSV or Parquet.

    The first line of ``FILE.part`` holds the settings, then comes a CSV with one more column, ``problem``, which is
    empty except for images that could not be read. A line that a kill has torn is dropped when the file is opened
    again. :meth:`finish` writes ``FILE`` and, where there were problems, ``FILE.skipped.csv``, each whole or not at
    all.

    To a stream rows go as they are made: nothing is continued then, and no file but the stream is written.

    Args:
        out: The table to be made.
        columns: Its columns; the first one names the image.
        settings: The settings that the rows depend on; rows made with others are never continued.
        format: Format of the table, if its suffix does not tell.
        restart: Discard an unfinished file instead of continuing it.
        count_doubles: Remember eight bytes per row to count :attr:`doubles`.

    Raises:
        LongtailError: The unfinished file belongs to another command, which may still be running, or it cannot be
            written.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp()) / "a.csv"
        >>> with Journal(out, ["path", "label"], settings={}) as journal:
        ...     journal.add([("x.png", "cat", "")])
        ...     journal.finish()
        >>> out.read_text().split()
        ['path,label', 'x.png,cat']
    """

    def __init__(
        self,
        out: Path,
        columns: Sequence[str],
        *,
        settings: Mapping[str, object],
        format: Format | None = None,  # noqa: A002
        restart: bool = False,
        count_doubles: bool = False,
    ) -> None:
        self.out, self.columns, self.format = out, list(columns), table_format(out, format)
        self.path = out.with_name(f"{out.name}.part")
        self.skipped_path = None if is_stream(out) else out.with_name(f"{out.name}.skipped.csv")
        self._settings = json.dumps(settings, sort_keys=True)
        self._earlier, self._added = array("Q"), array("Q") if count_doubles else None
        with ExitStack() as stack:
            if self.skipped_path is None:
                self._write = stack.enter_context(open_table(out, self.columns, self.format))
            else:
                try:
                    out.parent.mkdir(parents=True, exist_ok=True)
                    self._file: TextIO = self.path.open("a", newline="", **_ENCODING)
                    stack.callback(self._close)
                    self._open(restart=restart)
                except OSError as error:
                    raise cannot_write(out, error) from error
            self._stack = stack.pop_all()
        self.count = len(self._earlier)
        self._done = np.frombuffer(self._earlier, dtype=np.uint64)  # the same eight bytes
        self._done.sort()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file or the stream; the rows of an unfinished file stay."""
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def _close(self) -> None:
        with suppress(OSError):  # a full device has refused the same bytes before, and that was reported
            self._file.close()

    @property
    def doubles(self) -> int:
        """Number of rows that repeat the name of an earlier row."""
        if self._added is None:
            return 0
        names = np.concatenate([self._done, np.frombuffer(self._added, dtype=np.uint64)])
        return len(names) - len(np.unique(names))

    def has(self, name: str) -> bool:
        """Whether an earlier command has written the row of this name; eight bytes are kept for each."""
        digest = np.uint64(_digest(name))
        index = int(np.searchsorted(self._done, digest))
        return index < len(self._done) and bool(self._done[index] == digest)

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows, each with its problem at the end, and hand them to the system at once.

        A stream gets those of the images that could be read.
        """
        rows = list(rows)
        if self._added is not None:
            self._added.extend(_digest(str(row[0])) for row in rows)
        if self.skipped_path is None:
            self._write([row[:-1] for row in rows if not row[-1]])
            return
        try:
            self._writer.writerows(rows)
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.out, error) from error

    def finish(self) -> None:
        """Write the tables and remove the unfinished file, or complete the stream."""
        if self.skipped_path is None:
            self._stack.close()
            return
        if sys.platform == "win32":
            self._file.close()
        try:
            skipped = ((row[0], row[-1]) for row in self._rows() if row[-1])
            first = next(skipped, None)
            if first is None:
                self.skipped_path.unlink(missing_ok=True)
            else:
                with open_table(self.skipped_path, ["path", "problem"], "csv") as write:
                    write(chain([first], skipped))
            with open_table(self.out, self.columns, self.format) as write:
                write(row[:-1] for row in self._rows() if not row[-1])
            self.path.unlink()
            self._file.close()  # only now: until here no other command may continue it
        except OSError as error:
            raise cannot_write(self.out, error) from error

    def _open(self, *, restart: bool) -> None:
        """Continue the file or start it over; no other command may be writing it."""
        if sys.platform != "win32":
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LongtailError(
                    f"another command is writing {self.path}: wait for it, or name another --out."
                ) from None
            except OSError:  # a file system without locks
                pass
        resumed = not restart and self._recover()
        self._writer = csv.writer(self._file)
        if not resumed:
            self._file.truncate(0)
            self._file.write(f"{self._settings}\n")
            self._writer.writerow([*self.columns, "problem"])
            self._file.flush()

    def _recover(self) -> bool:
        """Load the names of completed rows and cut off a partial last line; False if the header is incomplete."""
        with self.path.open("rb") as file:
            first = file.readline()
            header = f"{self._settings}\n".encode()
            if header.startswith(first) and first != header:  # incomplete, or empty
                return False
            if first != header:
                raise LongtailError(
                    f"{self.path} is the unfinished table of another command (other images, model or options): repeat "
                    "that command, name another --out, or add --restart to throw it away."
                )
            whole = 0
            for row, end in _whole_rows(file, len(self.columns) + 1):
                if whole:
                    self._earlier.append(_digest(row[0]))
                whole = end
        os.truncate(self.path, whole or len(first))
        return bool(whole)

    def _rows(self) -> Iterator[list[str]]:
        with self.path.open("rb") as file:
            file.readline()
            yield from (row for row, _ in islice(_whole_rows(file, len(self.columns) + 1), 1, None))


def _whole_rows(file: BinaryIO, width: int) -> Iterator[tuple[list[str], int]]:
    """Yield each row of a CSV and the position after it, up to the first one that is not whole."""
    last, end = b"", file.tell()

    def lines() -> Iterator[str]:
        nonlocal last, end
        for last in file:
            end += len(last)
            yield last.decode(**_ENCODING)

    reader = csv.reader(lines(), strict=True)
    while True:
        try:
            row = next(reader, None)
        except csv.Error:  # the end within quotes
            return
        if row is None or len(row) != width or not last.endswith(b"\n"):
            return
        yield row, end


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(**_ENCODING), digest_size=8).digest(), "little")
