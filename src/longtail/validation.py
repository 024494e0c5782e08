"""Files that may hold anything: JSON and tables, read within limits and validated by a schema."""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from longtail.errors import LongtailError, first_line

if TYPE_CHECKING:
    import pyarrow as pa
    from pydantic import TypeAdapter, ValidationError

Value = TypeVar("Value")
MAX_JSON_BYTES: Final = 256 * 2**20
MAX_ROWS: Final = 100_000_000  # of a table: a few bytes may claim billions
_SHOWN: Final = 60  # characters of a value in an error


class FormatError(LongtailError):
    """A file in a format of a newer version."""


def require_format(where: str | Path, stored: Any, newest: int) -> None:
    """Check the format number of a file; a file without one has the first format.

    Raises:
        FormatError: It is newer than what is read here.
        LongtailError: It is not a format number.

    Example:
        >>> require_format("metrics.json", 3, newest=1)
        Traceback (most recent call last):
        longtail.validation.FormatError: metrics.json has format 3, this longtail reads up to 1: update longtail.
    """
    number = 1 if stored is None else stored
    if type(number) is not int or number < 1:
        raise LongtailError(f"{where} has no format number but {shown(stored)}: copy it again.")
    if number > newest:
        raise FormatError(f"{where} has format {shown(number)}, this longtail reads up to {newest}: update longtail.")


def validate(adapter: TypeAdapter[Value], value: Any, where: str | Path, remedy: str = "correct it") -> Value:
    """Return a value as the type of an adapter.

    Args:
        adapter: The type, as pydantic's ``TypeAdapter``.
        value: Plain values, or JSON as bytes, which is read strictly: no text for numbers.
        where: Origin of the value, such as the path of its file.
        remedy: Remedy for an error, without a period.

    Raises:
        LongtailError: The value does not fit the type; its cause is pydantic's error, with all fields that do not fit.

    Example:
        >>> from pydantic import TypeAdapter
        >>> validate(TypeAdapter(dict[str, int]), {"epochs": "many"}, "mine.yaml")
        Traceback (most recent call last):
        longtail.errors.LongtailError: mine.yaml: 'epochs' should be a valid integer, not 'many': correct it.
    """
    from pydantic import ValidationError

    try:
        if isinstance(value, bytes):
            return adapter.validate_json(value, strict=True)
        return adapter.validate_python(value)
    except ValidationError as error:
        raise LongtailError(f"{where}: {_problem(error)}: {remedy}.") from error


def _problem(error: ValidationError) -> str:
    """Return the first problem of a validation as a clause: the field, the type it should have, the value."""
    problem = error.errors(include_url=False)[0]
    # A part with a bracket names one of several types that the field may have.
    field = ".".join(str(part) for part in problem["loc"] if "[" not in str(part))[:_SHOWN]
    name = f"'{field}'" if field else "the file"
    match problem["type"]:
        case "missing":
            return f"{name} is missing"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"{name} is not known"
        case "json_invalid":
            return f"not valid JSON ({problem['ctx']['error']})"
        case "value_error":
            return f"{name}: {problem['ctx']['error']}" if field else str(problem["ctx"]["error"])
    requirement = problem["msg"].partition("should ")[2].partition(", unable to parse")[0].partition(" after valid")[0]
    return f"{name} should {requirement}, not {shown(problem['input'])}"


def shown(value: Any) -> str:
    """Return a value for an error, cut where it is long.

    Example:
        >>> shown("a" * 100), shown(10**5000)
        ("'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'", 'a number of too many digits')
    """
    try:
        return _REPR.repr(value)
    except ValueError:
        return "a number of too many digits"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = _SHOWN
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 4


def read_bytes(path: Path, remedy: str, most: int = MAX_JSON_BYTES) -> bytes:
    """Read a file of limited size.

    Raises:
        LongtailError: It is missing, too large, or the system refuses.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size or most  # a stream has none, and may be endless
            data = file.read(min(size, most) + 1)
    except OSError as error:
        raise LongtailError(f"{path} cannot be read ({error.strerror}): {remedy}.") from error
    if len(data) > most:
        raise LongtailError(f"{path} is larger than {most:,} bytes: {remedy}.")
    return data


def read_json(path: Path, adapter: TypeAdapter[Value], remedy: str, newest: int = 1) -> Value:
    """Read a JSON file of a type: finite numbers only, nested 200 levels deep at most.

    Args:
        path: The file.
        adapter: The type, as pydantic's ``TypeAdapter``.
        remedy: Remedy for an error, without a period.
        newest: The highest format number that can be read, of the entry ``format`` or ``format_version``.

    Raises:
        FormatError: The file has a newer format.
        LongtailError: It is missing, damaged or does not fit the type.
    """
    data = read_bytes(path, remedy)
    values = parse_json(data, path, remedy)
    if isinstance(values, dict):
        require_format(path, values.get("format", values.get("format_version")), newest)
    return validate(adapter, data, path, remedy)


def parse_json(data: bytes | str, where: str | Path, remedy: str) -> Any:
    """Return the plain values of a JSON text: finite numbers only, nested 200 levels deep at most.

    Raises:
        LongtailError: It is not such JSON.
    """
    from pydantic_core import from_json

    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise LongtailError(f"{where} is not valid JSON ({error}): {remedy}.") from error


@dataclass(frozen=True)
class Column:
    """The values that a column of a Parquet file should hold.

    Attributes:
        kind: Type of a cell; integers are floats too.
        least: The lowest value; with one, NaN is refused.
        most: The highest value.
        lists: Whether a cell is a list of such values, of one length in all rows.
        required: Whether the file has to have the column.
        null: Whether cells may be empty.
    """

    kind: Literal["int", "float", "text", "binary"]
    least: float | None = None
    most: float = math.inf
    lists: bool = False
    required: bool = True
    null: bool = False


def read_columns(path: Path, columns: Mapping[str, Column], remedy: str) -> dict[str, Any]:
    """Read columns of a Parquet file.

    Args:
        path: The file.
        columns: Type of each column, by name.
        remedy: Remedy for an error, without a period.

    Returns:
        By name the columns that the file has: int64 or float64 arrays of shape (N,), or (N, K) for lists; lists of text
        or bytes.

    Raises:
        LongtailError: The file is missing or damaged, a required column is missing, or a value is of another type,
            empty, or out of range; the message names the file and the column.
    """
    return _read_parquet(path, columns, remedy)[1]


def read_table(path: Path, columns: Mapping[str, Column], remedy: str) -> pa.Table:
    """Read a Parquet file as it is, with all of its columns; those that are used should be as described.

    Args:
        path: As for :func:`read_columns`.
        columns: As for :func:`read_columns`.
        remedy: As for :func:`read_columns`.

    Raises:
        LongtailError: As :func:`read_columns`.
    """
    return _read_parquet(path, columns, remedy, others=True)[0]


def _read_parquet(
    path: Path, columns: Mapping[str, Column], remedy: str, *, others: bool = False
) -> tuple[pa.Table, dict[str, Any]]:
    """Read a file and check columns of it; return the table, with all other columns on request, and their values."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # PyArrow itself opens no file whose path is not UTF-8.
        with path.open("rb") as source, pq.ParquetFile(source) as file:
            names = [name for name in columns if name in file.schema_arrow.names]
            missing = [name for name, column in columns.items() if column.required and name not in names]
            if missing:
                raise ValueError(f"there is no column {missing[0]!r}")
            if file.metadata.num_rows > MAX_ROWS:
                raise ValueError(f"{file.metadata.num_rows:,} rows are too many")
            table = file.read(columns=None if others else names)
            return table, {name: _values(table[name], columns[name], f"the column {name!r}") for name in names}
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise LongtailError(f"{path} cannot be read ({first_line(error)}): {remedy}.") from error


def _values(cells: pa.ChunkedArray, column: Column, name: str) -> Any:
    """Return the values of a column.

    Raises:
        ValueError: They are of another type, empty, or out of range.
    """
    import pyarrow as pa

    width = 1
    if column.lists:
        if not pa.types.is_list(cells.type) and not pa.types.is_fixed_size_list(cells.type):
            raise ValueError(f"{name} should hold lists, not {str(cells.type)[:_SHOWN]}")
        joined = cells.combine_chunks()
        lengths = set(joined.value_lengths().to_pylist())
        if len(lengths) > 1 or not all(lengths):
            raise ValueError(f"{name} should hold lists of one length")
        width, cells = next(iter(lengths), 1), pa.chunked_array([joined.flatten()])
    kinds = {
        "int": (pa.types.is_integer,),
        "float": (pa.types.is_floating, pa.types.is_integer),
        "text": (pa.types.is_string, pa.types.is_large_string),
        "binary": (pa.types.is_binary, pa.types.is_large_binary),
    }
    if not any(fits(cells.type) for fits in kinds[column.kind]):
        raise ValueError(f"{name} should hold {column.kind}, not {str(cells.type)[:_SHOWN]}")
    if cells.null_count and not column.null:
        raise ValueError(f"{name} has an empty cell")
    if column.kind in {"text", "binary"}:
        return cells.to_pylist()
    values = cells.cast(pa.int64() if column.kind == "int" else pa.float64()).to_numpy()
    outside = values > column.most if column.least is None else ~((values >= column.least) & (values <= column.most))
    if outside.any():
        least = "" if column.least is None else f"{column.least:g} to "
        raise ValueError(f"{name} should be {least}{column.most:g}, not {values[outside][0]:g}")
    return values.reshape(-1, width) if column.lists else values
