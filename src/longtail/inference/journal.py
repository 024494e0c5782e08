"""Journal: FILE.part, a line for every image that was looked at, so that a killed command goes on where it was."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Self, TextIO, TypeAlias

import numpy as np

from longtail.errors import LongtailError
from longtail.files import cannot_write, is_device

Row: TypeAlias = Sequence[str | float]
_TEXT: Mapping[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}  # names of any bytes
_ROWS_AT_ONCE = 10_000


class Journal:
    """The rows of a table while they are made, and the table itself at the end, as CSV or Parquet.

    The first line of ``FILE.part`` holds the settings, then comes a CSV with one more column, ``problem``, which is
    empty but for images that could not be read. A line that a kill has torn is dropped when the file is opened again.
    :meth:`finish` writes ``FILE`` and, where there were problems, ``FILE.skipped.csv``, each whole or not at all.
    A device such as ``/dev/stdout`` is written to directly and cannot be resumed.

    Args:
        out: The table to be made; Parquet where its name ends so, else CSV.
        columns: Its columns; the first one names the image.
        settings: What the rows depend on; rows made with others are never continued.
        restart: Throw an unfinished file away instead of going on with it.

    Raises:
        LongtailError: The unfinished file belongs to another command, or it cannot be written.

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
        self, out: Path, columns: Sequence[str], *, settings: Mapping[str, object], restart: bool = False
    ) -> None:
        self.out = out
        self.columns = list(columns)
        self.count = 0
        self._names = array("Q")
        self._direct = is_device(out)
        self.path = out if self._direct else out.with_name(f"{out.name}.part")
        self.skipped_path = out.with_name(f"{out.name}.skipped.csv")
        self._settings = json.dumps(settings, sort_keys=True)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            resumed = not (self._direct or restart) and self.path.exists() and self._recover()
            self._file: TextIO = self.path.open("a" if resumed else "w", **_TEXT)
        except OSError as error:
            raise cannot_write(out, error) from error
        self._writer = csv.writer(self._file)
        if not resumed:
            self._write(lambda: self._begin())
        self._done = np.frombuffer(self._names, dtype=np.uint64)  # the same eight bytes
        self._done.sort()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; what is in it stays."""
        with suppress(OSError):  # a full device has refused the same bytes before, and has been told
            self._file.close()

    def has(self, name: str) -> bool:
        """Whether an earlier command has written the row of this name; eight bytes are kept for each."""
        digest = np.uint64(_digest(name))
        place = int(np.searchsorted(self._done, digest))
        return place < len(self._done) and bool(self._done[place] == digest)

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows, each with its problem at the end, and hand them to the system at once."""
        kept = [row[:-1] for row in rows if not row[-1]] if self._direct else list(rows)
        self._write(lambda: self._writer.writerows(kept))

    def finish(self) -> None:
        """Write the tables and remove the unfinished file."""
        self._file.close()
        if self._direct:
            return
        try:
            skipped = ((row[0], row[-1]) for row in self._rows() if row[-1])
            if not _write_csv(self.skipped_path, ["path", "problem"], skipped):
                self.skipped_path.unlink()
            write = _write_parquet if self.out.suffix.lower() == ".parquet" else _write_csv
            write(self.out, self.columns, (row[:-1] for row in self._rows() if not row[-1]))
            self.path.unlink()
        except OSError as error:
            raise cannot_write(self.out, error) from error

    def _begin(self) -> None:
        if not self._direct:
            self._file.write(f"{self._settings}\n")
        self._writer.writerow(self.columns if self._direct else [*self.columns, "problem"])

    def _write(self, write: Callable[[], object]) -> None:
        try:
            write()
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.out, error) from error

    def _recover(self) -> bool:
        """Learn what is done already and cut a torn line off; False where not even the header is whole."""
        with self.path.open("rb") as file:
            first = file.readline()
            if not first.endswith(b"\n"):
                return False
            if first.decode("utf-8", "replace").rstrip("\n") != self._settings:
                raise LongtailError(
                    f"{self.path} is the unfinished table of another command (other images, model or options): repeat "
                    "that command, name another --out, or add --restart to throw it away."
                )
            whole = 0
            for row, end in _whole_rows(file, len(self.columns) + 1):
                if whole:
                    self._names.append(_digest(row[0]))
                whole = end
        os.truncate(self.path, whole or len(first))
        self.count = len(self._names)
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
            yield last.decode("utf-8", "surrogateescape")

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
    data = name.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _write_csv(path: Path, columns: Sequence[str], rows: Iterator[Sequence[str]]) -> int:
    """Write a CSV file whole or not at all, and return its number of rows."""
    temporary, count = _temporary(path), 0
    try:
        with temporary.open("w", **_TEXT) as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for row in rows:
                writer.writerow(row)
                count += 1
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _write_parquet(path: Path, columns: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    r"""Write a Parquet file whole or not at all; bytes of a path that are no UTF-8 become ``\udc..`` escapes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = {name for name in columns if name == "confidence" or name.startswith("probability_")}
    schema = pa.schema([(name, pa.float64() if name in numbers else pa.string()) for name in columns])
    temporary = _temporary(path)
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            while portion := list(islice(rows, _ROWS_AT_ONCE)):
                values = [
                    [float(value) for value in column] if name in numbers else [_valid(value) for value in column]
                    for name, column in zip(columns, zip(*portion, strict=True), strict=True)
                ]
                writer.write_table(pa.table(values, schema=schema))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _valid(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
