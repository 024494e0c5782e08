"""Writers of the table of predictions: CSV, TSV or Parquet, row by row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Protocol, TypeAlias

from longtail.errors import UsageError
from longtail.files import is_stream, writing

Format: TypeAlias = Literal["csv", "tsv", "parquet"]
Row: TypeAlias = Sequence[str | float]
SUFFIXES: Final[Mapping[str, Format]] = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
TEXT: Final[Mapping[str, Any]] = {
    "encoding": "utf-8",
    "errors": "surrogateescape",
    "newline": "",
}  # file names may hold any bytes
_ROWS_AT_ONCE = 10_000


class Writer(Protocol):
    """Writer of table rows; they have been handed to the file when the call returns."""

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows."""


def table_format(out: Path, asked: Format | None = None) -> Format:
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
    if named is not None and asked not in {None, named}:
        raise UsageError(f"{out} is the name of a {named} file, and the format is {asked}: change one of the two.")
    return named or asked or "csv"


@contextmanager
def open_table(path: Path, columns: Sequence[str], format: Format) -> Iterator[Writer]:  # noqa: A002
    """Open a table for writing rows: a file that is written completely or not at all, or a stream.

    Raises:
        LongtailError: It cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.tsv"
        >>> with open_table(path, ["path", "confidence"], "tsv") as table:
        ...     table.write([("x.png", 0.5)])
        >>> path.read_text().split()
        ['path', 'confidence', 'x.png', '0.5']
    """
    with writing(path) as file:
        if format == "parquet":
            with _ParquetTable(file, columns) as table:
                yield table
        else:
            yield _TextTable(file, columns, "," if format == "csv" else "\t")


class _TextTable:
    def __init__(self, file: BinaryIO, columns: Sequence[str], delimiter: str) -> None:
        self._file, self._delimiter = file, delimiter
        self.write([columns])

    def write(self, rows: Iterable[Row]) -> None:
        rows = iter(rows)
        while portion := list(islice(rows, _ROWS_AT_ONCE)):
            text = io.StringIO(newline="")
            csv.writer(text, delimiter=self._delimiter).writerows(portion)
            self._file.write(text.getvalue().encode(TEXT["encoding"], TEXT["errors"]))
        self._file.flush()


class _ParquetTable:
    r"""Bytes of a path that are not UTF-8 become ``\udc..`` escapes."""

    def __init__(self, file: BinaryIO, columns: Sequence[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._numbers = {name for name in columns if name == "confidence" or name.startswith("probability_")}
        self._columns = columns
        self._schema = pa.schema([(name, pa.float64() if name in self._numbers else pa.string()) for name in columns])
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    def __enter__(self) -> _ParquetTable:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._writer.close()

    def write(self, rows: Iterable[Row]) -> None:
        import pyarrow as pa

        rows = iter(rows)
        while portion := list(islice(rows, _ROWS_AT_ONCE)):
            values = [
                [float(value) for value in column]
                if name in self._numbers
                else [_valid(str(value)) for value in column]
                for name, column in zip(self._columns, zip(*portion, strict=True), strict=True)
            ]
            self._writer.write_table(pa.table(values, schema=self._schema))


def _valid(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
