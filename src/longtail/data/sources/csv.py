"""The source ``csv:`` and the strict reader of delimited text under it, with line and column in every error."""

from __future__ import annotations

import csv
import errno
import os
import re
from array import array
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Final, Literal, TextIO

from longtail.data.class_names import normalize_class_name, plain_numbers
from longtail.data.columns import distinct_values, in_memory, text_column, text_table
from longtail.data.dataset import ImageData
from longtail.data.decode import is_image_path
from longtail.data.sources.image_tables import from_tables
from longtail.data.sources.table_columns import Columns, Locator, no_header
from longtail.data.sources.table_paths import locate
from longtail.errors import LongtailError

DELIMITERS: Final = ",;\t"
_LONGEST_LINE: Final = 10_000_000  # characters; a file without line ends is not a table
_LONGEST_RECORD: Final = 1_000_000  # of a header
_STATED: Final = re.compile(r'\s*"?sep=([^\w\s"]|\t)"?\s*', re.IGNORECASE)  # the first line, for Excel
_ESCAPED: Final = re.compile("[\ud800-\udfff]")  # a byte that is not UTF-8
Decoding = Literal["strict", "surrogateescape"]


def load_csv(spec: str, columns: Columns) -> ImageData:
    """Read a CSV file with a header: path, label, optionally split, and any further columns (kept as text).

    Paths are relative to the file. The delimiter is a comma, a semicolon or a tab, as in the header. Columns without a
    name are dropped.

    Raises:
        LongtailError: The file is missing or empty, or a line is unreadable; the message names the line.
    """
    path = Path(spec).expanduser()
    header, rows = read_rows(path)
    image, label = (columns.find(role, header, str(path)) for role in ("image", "label"))
    folder = path.parent.absolute()
    lines = array("q")

    def checked() -> Iterator[dict[str, str]]:
        for line, row in rows:
            if not any(row):
                continue  # separators only, as spreadsheets leave them at the end
            values = dict(zip(header, row, strict=True))
            values[image] = _existing(folder, values[image], f"{path}, line {line}")
            if not normalize_class_name(values[label]):
                raise LongtailError(f"{path}, line {line}: the label is empty; write the class, or delete the line.")
            lines.append(line)
            yield values

    cells = text_table(checked(), [name for name in header if name])
    if not lines:
        raise LongtailError(f"{str(path)!r} has no rows below its header: add one line per image.")
    labels, numbers = distinct_values(cells.column(label))
    names = list(map(normalize_class_name, labels))
    if (plain := plain_numbers(names)) != names:
        cells = cells.set_column(cells.column_names.index(label), label, text_column(plain[each] for each in numbers))
    return from_tables(
        f"csv:{spec}", {"train": in_memory(cells)}, columns, root=folder, locator=Locator(str(path), lines)
    )


def _existing(folder: Path, text: str, where: str) -> str:
    if not text.strip():
        raise LongtailError(f"{where}: the path is empty; write the image's path, or delete the line.")
    file = Path(locate(folder, text))
    if not os.path.isfile(file):  # noqa: PTH113 - a Path would raise where a name is too long
        missing, reason = folder / text.strip(), ""
        try:
            missing.stat()
        except OSError as error:
            reason = "" if error.errno == errno.ENOENT else f" ({error.strerror})"
        raise LongtailError(f"{where}: no file {str(missing)!r}{reason}; paths are relative to the CSV file's folder.")
    return str(file)


def read_rows(
    path: str | os.PathLike[str], *, ragged: bool = False, decoding: Decoding = "strict"
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    r"""Read a table with a header: its column names, and its rows one at a time, in constant memory.

    The delimiter is a comma, a semicolon or a tab, whichever is most frequent in the header outside quotes, or what a
    first line ``sep=;`` states. Spaces after a delimiter do not belong to a value. A quoted value may hold separators,
    line ends and doubled quotes. Blank lines are skipped.

    Args:
        path: A text file in UTF-8, with or without a byte order mark.
        ragged: Also yield rows with more or fewer values than there are columns.
        decoding: ``"surrogateescape"`` keeps NUL and bytes that are not UTF-8, which file names may contain.

    Returns:
        The column names, without surrounding white space, and an iterator of pairs: the number of the line a row starts
        in (the header usually starts in 1), and its values.

    Raises:
        LongtailError: The file cannot be read, is empty, is not UTF-8 text, has no header, two columns of one name,
            quotes that do not match, or a row of another length. From the second row on the iterator raises it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> _ = path.write_text('path,label\n0.png, "cat; \nwild"\n\n1.png,dog\n')
        >>> header, rows = read_rows(path)
        >>> header, list(rows)
        (['path', 'label'], [(2, ['0.png', 'cat; \nwild']), (5, ['1.png', 'dog'])])
    """
    records = read_records(path, decoding=decoding)
    line, cells = next(records, (1, []))
    header = [cell.strip() for cell in cells]
    if not any(header):
        raise LongtailError(f"{str(path)!r} is empty: it needs a header such as path,label and a line per row.")
    twice = next((name for number, name in enumerate(header) if name and name in header[:number]), None)
    if twice is not None:
        raise LongtailError(f"{path}, line {line}: two columns have the same name, {twice!r}; rename one.")
    if any(is_image_path(name) and os.path.isfile(Path(path).parent / name) for name in header):  # noqa: PTH113
        raise no_header(str(path), header)
    return header, records if ragged else _even(records, len(header), path)


def read_records(path: str | os.PathLike[str], *, decoding: Decoding = "strict") -> Iterator[tuple[int, list[str]]]:
    r"""Yield every row of a table, the header included, with the line it starts in; see :func:`read_rows`.

    Raises:
        LongtailError: The file cannot be read, is not UTF-8 text, or has quotes that do not match.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "prior.csv"
        >>> _ = path.write_text('cat,9\n"lynx, gray",1\n')
        >>> list(read_records(path))
        [(1, ['cat', '9']), (2, ['lynx, gray', '1'])]
    """
    with _open(path) as file:
        lines = _lines(file, path, decoding)
        head, before = _first_record(lines), 0
        if stated := _STATED.fullmatch("".join(head)):
            head, before = _first_record(lines), len(head)
        outside = re.sub(r'"[^"]*"', "", "".join(head))  # of quotes; without any delimiter it is a comma
        delimiter = stated[1] if stated else max(DELIMITERS, key=outside.count)
        lines_of_row: list[str] = []

        def recorded() -> Iterator[str]:
            for line in chain(head, lines):
                lines_of_row.append(line)
                yield line

        reader = csv.reader(recorded(), delimiter=delimiter, skipinitialspace=True, strict=True)
        while True:
            start = before + reader.line_num + 1
            lines_of_row.clear()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise LongtailError(_quoting("".join(lines_of_row), delimiter, path, start, error)) from None
            if cells:
                yield start, cells


def _even(records: Iterator[tuple[int, list[str]]], width: int, path: object) -> Iterator[tuple[int, list[str]]]:
    for line, cells in records:
        if len(cells) != width:
            values = f"{len(cells)} value{'s' * (len(cells) != 1)} for {width} column{'s' * (width != 1)}"
            raise LongtailError(f"{path}, line {line}: {values}; quote a value with a separator.")
        yield line, cells


def _open(path: str | os.PathLike[str]) -> TextIO:
    try:
        # newline="": the CSV reader finds the end of a row, since a line end within quotes is part of a value.
        return Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except FileNotFoundError:
        raise LongtailError(f"{str(path)!r} does not exist: check the path.") from None
    except IsADirectoryError:
        raise LongtailError(f"{str(path)!r} is a folder: name the CSV file in it, or use folder:.") from None
    except OSError as error:
        raise LongtailError(f"{str(path)!r} cannot be read ({error.strerror}): check its permissions.") from None


def _lines(file: TextIO, path: str | os.PathLike[str], decoding: Decoding) -> Iterator[str]:
    for number in count(1):
        line = file.readline(_LONGEST_LINE)
        if not line:
            return
        if decoding == "strict" and not line.isascii() and _ESCAPED.search(line):
            raise LongtailError(f"{path}, line {number}: not UTF-8 text; save the file as CSV UTF-8.")
        if "\0" in line and (decoding == "strict" or number == 1):
            raise LongtailError(f"{path}, line {number}: a NUL byte, so this is not UTF-8 text; save it as CSV UTF-8.")
        if len(line) == _LONGEST_LINE:
            raise LongtailError(f"{path}, line {number}: longer than {_LONGEST_LINE:,} characters; is this a table?")
        yield line


def _first_record(lines: Iterator[str]) -> list[str]:
    """Return the lines of the first row, which may hold line ends within quotes."""
    record: list[str] = []
    length = quotes = 0
    for line in lines:
        record.append(line)
        length += len(line)
        quotes += line.count('"')
        if length > _LONGEST_RECORD or (quotes % 2 == 0 and line.strip()):
            break
    return record


def _quoting(record: str, delimiter: str, path: object, start: int, error: csv.Error) -> str:
    """Describe what is wrong with the quotes of a row, with line and column of the value."""
    end_of_value = re.escape(delimiter)
    complete = re.compile(rf' *+(?:"(?:[^"]|"")*+"|(?!")[^{end_of_value}\r\n]*+){end_of_value}')
    end, column = 0, 1
    while value := complete.match(record, end):
        end, column = value.end(), column + 1
    rest = record[end:].lstrip(" ")
    line = start + record[:end].count("\n")
    where = f"{path}, line {line}: column {column}"
    if not rest.startswith('"'):
        return f"{where} cannot be read ({error}); shorten its value or put it in quotes."
    if re.match(r'"(?:[^"]|"")*+"', rest):
        return f'{where} continues after its closing quote; end the value there, or write "" for a quote within it.'
    return f'{where} opens quotes and never closes them; close them, or write "" for a quote within.'
