"""The source ``csv:``: a table of image paths and class names, with the line of everything that is wrong with it."""

from __future__ import annotations

from pathlib import Path

from longtail.data.class_names import normalize_class_name
from longtail.data.dataset import ImageData
from longtail.data.sources.columns import Columns, from_tables
from longtail.data.sources.delimited import read_rows
from longtail.data.sources.table_splits import Place
from longtail.errors import LongtailError


def load_csv(spec: str, columns: Columns) -> ImageData:
    """Read a CSV file with a header: path, label, perhaps split, and any further columns (kept as text).

    Paths are relative to the file. A comma, a semicolon or a tab separates; the header decides. Columns without a name
    are dropped.

    Raises:
        LongtailError: The file is missing or empty, or a line is unreadable; the sentence names the line.
    """
    import datasets

    path = Path(spec).expanduser()
    header, rows = read_rows(path)
    image, label = (columns.find(role, header, str(path)) for role in ("image", "label"))
    folder = path.parent.absolute()
    cells: dict[str, list[str]] = {name: [] for name in header if name}
    lines: list[int] = []
    for line, row in rows:
        if not any(row):
            continue  # separators only, as spreadsheets leave them at the end
        values = dict(zip(header, row, strict=True))
        values[image] = _existing(folder, values[image], f"{path}, line {line}")
        if not normalize_class_name(values[label]):
            raise LongtailError(f"{path}, line {line}: the label is empty; write the class, or delete the line.")
        lines.append(line)
        for name, column in cells.items():
            column.append(values[name])
    if not lines:
        raise LongtailError(f"{str(path)!r} has no rows below its header: add one line per image.")
    table = datasets.Dataset.from_dict(cells)
    return from_tables(f"csv:{spec}", {"train": table}, columns, root=folder, place=Place(str(path), lines))


def _existing(folder: Path, text: str, where: str) -> str:
    name = text.strip()
    if not name:
        raise LongtailError(f"{where}: the path is empty; write the image's path, or delete the line.")
    file = next((file for file in (folder / text, folder / name) if file.is_file()), None)
    if file is None:
        raise LongtailError(f"{where}: no file {str(folder / name)!r}; paths are relative to the CSV file's folder.")
    return str(file)
