"""Tables of predictions as users get them: CSV, TSV or Parquet, whole or not at all, or row by row into a stream."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Final, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from longtail.errors import UsageError
from longtail.files import is_stream, writing
from longtail.predict.images import escaped
from longtail.predict.predictor import NUMBERS
from longtail.remote import Place

Format: TypeAlias = Literal["csv", "tsv", "parquet"]
Write: TypeAlias = Callable[[pa.Table], None]
SUFFIXES: Final[Mapping[str, Format]] = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
PROBLEM: Final = "problem"
"""Column of a part: why an image could not be read, else null."""
RAW_PATH: Final = "path_bytes"
"""Column of a part: the bytes of a path that is not valid UTF-8, else null."""


def table_format(out: Place, requested: Format | None = None) -> Format:
    """Return the format of a table by its suffix, or the requested one if it has none.

    Raises:
        UsageError: An unknown suffix, or one of another format than requested.

    Example:
        >>> from pathlib import Path
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


def column_type(name: str) -> pa.DataType:
    """Return the type of a column of predictions by its name.

    Example:
        >>> [str(column_type(name)) for name in ("path", "confidence", "probability_2")]
        ['string', 'double', 'double']
    """
    return pa.float64() if name.startswith(NUMBERS) else pa.string()


def path_columns(names: Sequence[str]) -> dict[str, pa.Array]:
    r"""Return paths as the columns of a part: as text, and as bytes where they are not UTF-8.

    Bytes that are not UTF-8 are ``\udc..`` escapes in the text.

    Example:
        >>> {name: column.to_pylist() for name, column in path_columns(["a.png", "\udce9.png"]).items()}
        {'path': ['a.png', '\\udce9.png'], 'path_bytes': [None, b'\xe9.png']}
    """
    texts = [escaped(name) for name in names]
    pairs = zip(names, texts, strict=True)
    raw = [None if text == name else name.encode("utf-8", "surrogateescape") for name, text in pairs]
    return {"path": pa.array(texts, pa.string()), RAW_PATH: pa.array(raw, pa.binary())}


@contextmanager
def open_table(path: Place, columns: Sequence[str], format: Format) -> Iterator[Write]:  # noqa: A002
    """Open a table for writing rows: a file that is written completely or not at all, or a stream.

    The function that it gives appends rows, and takes the columns it needs of them; they have been handed to the file
    when the call returns.

    Raises:
        LongtailError: It cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "a.tsv"
        >>> with open_table(path, ["path", "confidence"], "tsv") as write:
        ...     write(pa.table({"confidence": [0.5], "path": ["x.png"]}))
        >>> path.read_text().split()
        ['path', 'confidence', 'x.png', '0.5']
    """
    writer = _parquet_writer if format == "parquet" else _text_writer
    with writing(path) as file, writer(file, columns, "\t" if format == "tsv" else ",") as write:
        yield write


@contextmanager
def _text_writer(file: BinaryIO, columns: Sequence[str], delimiter: str) -> Iterator[Write]:
    def write_rows(rows: Sequence[Sequence[object]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=delimiter).writerows(rows)
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))  # a path of any bytes stays those bytes
        file.flush()

    def write(table: pa.Table) -> None:
        values = {name: table[name].to_pylist() for name in columns}
        if RAW_PATH in table.column_names and table[RAW_PATH].null_count < len(table):
            raw = table[RAW_PATH].to_pylist()
            values["path"] = [
                text if data is None else data.decode("utf-8", "surrogateescape")
                for text, data in zip(values["path"], raw, strict=True)
            ]
        write_rows(list(zip(*values.values(), strict=True)))

    write_rows([columns])
    yield write


@contextmanager
def _parquet_writer(file: BinaryIO, columns: Sequence[str], _: str) -> Iterator[Write]:
    schema = pa.schema([(name, column_type(name)) for name in columns])
    writer = pq.ParquetWriter(file, schema, compression="zstd")
    yield lambda table: writer.write_table(table.select(columns).cast(schema))
    writer.close()  # not after an error: the file is thrown away then
