"""The source ``csv:``: a table of image paths and class names, with the line of everything that is wrong with it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from longtail.data.columns import Columns, from_tables, split_name
from longtail.data.image_data import ImageData
from longtail.errors import LongtailError

_DELIMITERS = ",;\t"


def load_csv(spec: str, columns: Columns) -> ImageData:
    """Read a CSV file with a header: path, label, perhaps split, and any further columns (kept as text).

    Paths are relative to the file. A comma, a semicolon or a tab separates; the header decides.

    Raises:
        LongtailError: The file is missing or empty, or a line is unreadable; the sentence names the line.
    """
    import datasets

    path = Path(spec).expanduser()
    header, lines = _read(path)
    image, label = (columns.find(role, header, str(path)) for role in ("image", "label"))
    split = next((name for name in header if name.strip().lower() == "split"), None)
    folder = path.parent.absolute()
    parts: dict[str, list[dict[str, str]]] = {}
    for number, row in lines:
        where = f"{path}, line {number}"
        name = _split_of(row.pop(split), where) if split else "train"
        row[image] = _existing(folder, row[image], where)
        if not row[label].strip():
            raise LongtailError(f"{where}: the label is empty; write the class, or delete the line.")
        row[label] = row[label].strip()
        parts.setdefault(name, []).append(row)
    if not parts:
        raise LongtailError(f"{str(path)!r} has no rows below its header: add one line per image.")
    tables = {name: datasets.Dataset.from_list(rows) for name, rows in parts.items()}
    return from_tables(f"csv:{spec}", tables, columns, root=folder)


def _read(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise LongtailError(f"{str(path)!r} does not exist: check the path after csv:.") from None
    except IsADirectoryError:
        raise LongtailError(f"{str(path)!r} is a folder: name the CSV file in it, or use folder:.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise LongtailError(f"{path}, line {line}: not UTF-8 text; save the file as CSV UTF-8.") from None
    first = text.partition("\n")[0]
    reader = csv.reader(text.splitlines(keepends=True), delimiter=max(_DELIMITERS, key=first.count), strict=True)
    header = [name.strip() for name in next(reader, [])]
    if not any(header):
        raise LongtailError(f"{str(path)!r} is empty: it needs a header such as path,label and a line per image.")
    if len(set(header)) < len(header):
        raise LongtailError(f"{path}, line 1: two columns have the same name; rename one.")
    return header, _rows(reader, header, path)


def _rows(reader: Iterator[list[str]], header: Sequence[str], path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    number = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise LongtailError(f"{path}, line {number + 1}: {error}; mend the quotes of that line.") from None
        finally:
            start, number = number + 1, reader.line_num  # type: ignore[attr-defined]
        if not any(cells):
            continue  # a blank line, as editors leave at the end
        if len(cells) != len(header):
            raise LongtailError(
                f"{path}, line {start}: {len(cells)} values for {len(header)} columns; quote a value with a separator."
            )
        yield start, dict(zip(header, cells, strict=True))


def _split_of(text: str, where: str) -> str:
    name = split_name(text)
    if name is None:
        raise LongtailError(f"{where}: unknown split {text!r}; write train, validation or test.")
    return name


def _existing(folder: Path, text: str, where: str) -> str:
    if not text.strip():
        raise LongtailError(f"{where}: the path is empty; write the image's path, or delete the line.")
    file = folder / text
    if not file.is_file():
        raise LongtailError(f"{where}: no file {str(file)!r}; paths are relative to the CSV file's folder.")
    return str(file)
