"""Files: written completely or not at all, streams directly; those of others read within limits and validated."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import platform
import re
import reprlib
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, TypeVar

from longtail.errors import LongtailError, first_line
from longtail.remote import Place, RemotePath, place_of

if TYPE_CHECKING:
    import pyarrow as pa
    from pydantic import TypeAdapter, ValidationError

if sys.platform != "win32":
    import fcntl

STANDARD_OUTPUT: Final = Path("/dev/stdout")
REPLACED: Final = " (replaces the earlier file)"
"""Follows the name of a file that took the place of another one."""
_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_MOST_LINKS = 40  # as Linux follows them
_HOST = re.sub(r"[^\w.]+", "_", platform.node())[:64] or "host"
_UNKNOWN = "0"
_NAME_LENGTH = 40  # characters of the name that are in the temporary one, which may take 255 bytes
_NUMBERS = itertools.count()
_LEFTOVER = re.compile(r"\..+\.longtail-(?P<host>[\w.]+)-(?P<boot>\w+)-(?P<pid>\d{1,9})-\d+\.tmp", re.DOTALL)
_SURELY_OLD = 3600.0  # seconds without a change
Value = TypeVar("Value")
MAX_JSON_BYTES: Final = 256 * 2**20
MAX_ROWS: Final = 100_000_000  # of a table: a few bytes may claim billions
_SHOWN: Final = 60  # characters of a value in an error
_swept: set[Path] = set()  # files whose folder this process has searched for leftovers


def write_atomically(path: Place, data: bytes) -> None:
    """Write a file under a temporary name, bring it to the disk, and only then give it its name.

    A link stays a link: its target is written. Streams are written to directly, see :func:`is_stream`. Temporary files
    that killed processes of this machine left in the folder are removed.

    Args:
        path: The file; missing folders above it are made.
        data: Its content.

    Raises:
        LongtailError: No space, no permission, or another refusal of the system. A file of that name stays as it was.
        BrokenPipeError: The reader of the stream has closed it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_atomically(folder / "a.txt", b"whole")
        >>> [file.name for file in folder.iterdir()]
        ['a.txt']
    """
    with writing(path) as file:
        file.write(data)


@contextmanager
def writing(path: Place) -> Iterator[BinaryIO]:
    """Open a file or a stream for writing; the file gets its name at the end, as in :func:`write_atomically`.

    A remote file is uploaded at the end.

    Raises:
        LongtailError: The system refuses to write, as there.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with writing(path) as file:
        ...     _ = file.write(b"whole")
        ...     path.exists()
        False
        >>> path.read_bytes()
        b'whole'
    """
    if isinstance(path, RemotePath):
        with path.writing() as file:
            yield file
        return
    try:
        if is_stream(path):
            with _open_stream(path) as stream:
                yield stream
            return
        target = _target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        file, temporary = _open_temporary(target)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if target.exists():
                    shutil.copymode(target, temporary)
                if sys.platform == "win32":
                    file.close()
                temporary.replace(target)  # while locked, so that no process removes it as a leftover
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write nested plain values as JSON.

    Raises:
        LongtailError: The system refuses to write.
    """
    write_atomically(path, (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Write nested plain values as YAML, in their own order.

    Raises:
        LongtailError: The system refuses to write.
    """
    import yaml

    write_atomically(path, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).encode())


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet.

    Raises:
        LongtailError: The system refuses to write.
    """
    import pyarrow.parquet as pq

    with writing(path) as file:
        pq.write_table(table, file, compression="zstd")


def remove(path: Place, remedy: str) -> None:
    """Remove a file, or a folder with all that it holds, if it is there.

    Args:
        path: The file or folder.
        remedy: Remedy for an error, without a period.

    Raises:
        LongtailError: The system refuses.
    """
    if isinstance(path, RemotePath):
        path.unlink(missing_ok=True)
        return
    try:
        with suppress(FileNotFoundError):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise LongtailError(f"{path} cannot be removed ({error.strerror or error}): {remedy}.") from error


def output_place(out: str | os.PathLike[str] | RemotePath) -> Place:
    """Return an output named by the user, which may be the URL of a remote one.

    Example:
        >>> print(output_place("-"), output_place("file:///a.csv"), output_place("s3://bucket/a.csv"))
        /dev/stdout /a.csv s3://bucket/a.csv
    """
    place = place_of(out)
    return output_path(place) if isinstance(place, Path) else place


def output_path(out: str | os.PathLike[str]) -> Path:
    """Return the path of an output named by the user; ``-`` is the standard output.

    Example:
        >>> print(output_path("-"), output_path("a.csv"))
        /dev/stdout a.csv
    """
    text = os.fspath(out)
    if text == "-":
        return STANDARD_OUTPUT
    return Path(text).absolute() if Path(text) == Path("-") else Path(text)


def is_stream(path: Place) -> bool:
    """Whether a path is a device, a pipe or an open descriptor: written to directly, never replaced by a file.

    Example:
        >>> is_stream(Path("/dev/stdout")), is_stream(Path("/dev/null")), is_stream(Path("new.csv"))
        (True, True, False)
    """
    if isinstance(path, RemotePath):
        return False
    if descriptor_of(path) is not None:
        return True
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)  # noqa: PTH110, PTH112, PTH113


def descriptor_of(path: Path) -> int | None:
    """Return the number of the open descriptor that a path such as ``/dev/stdout`` leads to, or None.

    Links are resolved by their text only, as ``/proc/self/fd/1`` may itself lead to a regular file, which the shell has
    opened and which is continued at its current position.

    Example:
        >>> descriptor_of(Path("/dev/fd/7")), descriptor_of(Path("/dev/null"))
        (7, None)
    """
    text = os.path.abspath(path)  # noqa: PTH100 - without following links
    for _ in range(_MOST_LINKS):
        if text in _STANDARD:
            return _STANDARD[text]
        number = re.fullmatch(rf"/(?:dev|proc/(?:self|thread-self|{os.getpid()}))/fd/(\d{{1,9}})", text)
        if number:
            return int(number.group(1))
        try:
            text = os.path.normpath(os.path.join(os.path.dirname(text), os.readlink(text)))  # noqa: PTH115, PTH118, PTH120
        except OSError:
            return None
    return None


def cannot_write(path: Place, error: OSError) -> LongtailError:
    """Return the error that tells a user why a file was not written and what to do.

    Example:
        >>> print(cannot_write(Path("a.csv"), OSError(28, "No space left on device")))
        a.csv cannot be written (No space left on device): free some space or name another folder.
    """
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            remedy = "allow writing to the file and its folder, or name another place"
        case errno.EISDIR:
            remedy = "name a file in that folder"
        case errno.ENOTDIR | errno.EEXIST:
            remedy = "what should be a folder on the way there is a file; name another place"
        case errno.ENAMETOOLONG:
            remedy = "choose a shorter name"
        case errno.ELOOP | errno.ENOENT | errno.ENXIO | errno.EBADF:
            remedy = "name another place"
        case _:
            remedy = "free some space or name another folder"
    return LongtailError(f"{path} cannot be written ({error.strerror or error}): {remedy}.")


@contextmanager
def _open_stream(path: Path) -> Iterator[BinaryIO]:
    number = descriptor_of(path)
    if number == 1:
        sys.stdout.flush()  # earlier output comes first
    # A duplicate of the descriptor continues at its position; opening the path again would start at the beginning.
    with path.open("wb") if number is None else os.fdopen(os.dup(number), "wb") as stream:
        yield stream


def _target(path: Path) -> Path:
    """The file to replace: the target of a link, whether it exists or not."""
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():  # a ring of links
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if target.exists() and not os.access(target, os.W_OK):  # a writable folder would allow to replace it
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return target


def _open_temporary(target: Path) -> tuple[BinaryIO, Path]:
    """Open a new file in the same folder, locked for as long as it is open."""
    while True:
        mark = f"longtail-{_HOST}-{_boot()}-{os.getpid()}-{next(_NUMBERS)}"
        temporary = target.with_name(f".{target.name[:_NAME_LENGTH]}.{mark}.tmp")
        try:
            file = temporary.open("xb")
        except FileExistsError:  # from an earlier process with the same number
            continue
        if sys.platform == "win32":
            return file, temporary
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):  # removed as a leftover just before it was locked
            if os.path.samestat(temporary.stat(), os.fstat(file.fileno())):
                return file, temporary
        file.close()


def remove_leftovers(target: Path) -> None:
    """Remove temporary files of killed processes in the folder of a file, once per file that this process writes.

    Only files that are certainly abandoned are removed: those that a process under the same running kernel made
    (containers on one machine share a kernel and have different host names) and that no process holds locked; or those
    of this host from before its last boot, unchanged for an hour. Files of other machines that share the folder stay.
    Older versions recorded no host and held no lock: only their files for ``target`` are removed, once their process
    has ended and they have not changed for an hour.
    """
    if sys.platform == "win32" or target in _swept:
        return
    _swept.add(target)
    older = re.compile(rf"\.{re.escape(target.name)}\.(?P<pid>\d{{1,9}})\.tmp")
    with suppress(OSError):  # a writable folder may not be listable
        for name in [entry.name for entry in os.scandir(target.parent) if entry.name.endswith(".tmp")]:
            path, new, old = target.with_name(name), _LEFTOVER.fullmatch(name), older.fullmatch(name)
            with suppress(OSError):  # removed by another process, or not ours to remove
                if new and not path.is_symlink():
                    same_kernel, same_host = new["boot"] == _boot() != _UNKNOWN, new["host"] == _HOST
                    if same_kernel or (same_host and _is_old(path)):
                        _remove_unlocked(path, int(new["pid"]), same_host=same_host)
                elif old and not _is_alive(int(old["pid"])) and _is_old(path):
                    path.unlink()


def _remove_unlocked(path: Path, pid: int, *, same_host: bool) -> None:
    if sys.platform == "win32":
        return
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:  # no locks here: its process must have ended, which only the same host can tell
            if not same_host or _is_alive(pid):
                return
        path.unlink()


def _is_old(path: Path) -> bool:
    return time.time() - path.lstat().st_mtime > _SURELY_OLD


@cache
def _boot() -> str:
    """An identifier of the running kernel, the same in all containers of a machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        return _UNKNOWN


def _is_alive(pid: int) -> bool:
    from psutil import pid_exists

    return pid_exists(pid)


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
        longtail.files.FormatError: metrics.json has format 3, this longtail reads up to 1: update longtail.
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
        with pq.ParquetFile(path) as file:
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
