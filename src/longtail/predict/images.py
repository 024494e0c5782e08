"""Find the images that a user names: a file, a folder, a pattern, a table or Python objects; no list is held."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from longtail.data.decode import is_image_path, is_unread_path
from longtail.data.sources.csv import read_rows
from longtail.data.sources.folder import is_system_folder
from longtail.data.sources.parquet import open_parquet
from longtail.data.sources.table_columns import Columns
from longtail.data.sources.table_paths import locate
from longtail.errors import LongtailError, UsageError, first_line, listed
from longtail.remote import Latest, is_url, kind_of, local_path
from longtail.remote import walk as remote_files

ImageSource: TypeAlias = str | bytes | Image.Image | npt.NDArray[np.uint8]
Names: TypeAlias = tuple[str, ...]  # of the folders below the first one, and of the file
TABLES: Final = {".csv", ".tsv", ".parquet"}
SORTED_AT_ONCE = 10_000  # names of a folder
_ROWS_AT_ONCE = 64  # of a Parquet file
LEFT_OUT: Final = "its images are left out."
"""The end of the sentence about a folder that cannot be listed."""


class Item(NamedTuple):
    """One image to be classified.

    Attributes:
        name: The name in the results: a path, as a rule.
        source: Path, encoded bytes, Pillow image, or uint8 array (H, W), (H, W, 1) or (H, W, 3).
        problem: Why it cannot be read, where that is known already; else empty.
        is_folder: Whether it stands for all images of a folder that cannot be listed.
    """

    name: str
    source: ImageSource
    problem: str = ""
    is_folder: bool = False


@dataclass
class LeftOut:
    """Counts of files and folders that were left out of a listing.

    Attributes:
        others: Files without an image suffix, by suffix.
        hidden: Hidden files and folders, and system folders such as ``__MACOSX``.
        again: Links to folders that were listed already.
        special: Pipes, sockets and devices.
    """

    others: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    again: int = 0
    special: int = 0

    def __str__(self) -> str:
        """Return the counts in one line, empty if all are zero.

        Example:
            >>> print(LeftOut(Counter({".txt": 3, ".json": 1}), again=1))
            4 files not named like an image (.txt 3, .json 1), 1 link to a folder listed already
        """
        others = self.others.total()
        counts = [
            (others, f"file{'s' * (others != 1)} not named like an image ({count_words(self.others)})"),
            (self.hidden, "hidden or added by a system"),
            (self.again, f"link{'s' * (self.again != 1)} to a folder listed already"),
            (self.special, "pipe or device" if self.special == 1 else "pipes or devices"),
        ]
        return ", ".join(f"{number:,} {words}" for number, words in counts if number)


def escaped(text: str) -> str:
    r"""Return a text that tables can hold: bytes of a path that are not UTF-8 become escapes.

    Example:
        >>> print(escaped("caf\udce9.png"))
        caf\udce9.png
    """
    return text.encode("utf-8", "backslashreplace").decode()


def count_words(counts: Counter[str], most: int = 5) -> str:
    """Return the most frequent words with their counts.

    Example:
        >>> count_words(Counter({".heic": 5, ".cr2": 1}))
        '.heic 5, .cr2 1'
    """
    shown = [f"{word} {number:,}" for word, number in counts.most_common(most)]
    return ", ".join([*shown, *(["..."] if len(counts) > most else [])])


@dataclass(frozen=True)
class Images:
    """The images that a user named, to be iterated over as often as needed, one at a time.

    Attributes:
        items: Iterates over them, and counts what is left out.
        total: Their number, where it is known without listing them.
        is_table: Whether they are rows of a table, so that their order is fixed and a name may be repeated.
        base: Start of their names that is left when the collection is moved, such as the folder with a ``/``.
    """

    items: Callable[[LeftOut], Iterator[Item]]
    total: int | None = None
    is_table: bool = False
    base: str = ""

    def relative(self, name: str) -> str:
        """Return the name of an image relative to the collection, the same wherever it lies.

        Example:
            >>> Images(lambda _: iter(()), base="/data/photos/").relative("/data/photos/day one/00.png")
            'day one/00.png'
        """
        return name.removeprefix(self.base).replace(os.sep, "/")


def find_images(images: str | os.PathLike[str], *, image_column: str | None = None) -> Images:
    """Find the images that a path, a folder, a pattern or a table names.

    Args:
        images: An image; a folder, searched to the bottom for files with an image's extension, hidden ones left out;
            a pattern such as ``in/**/*.jpg``, all files of which are taken; or a ``.csv``, ``.tsv`` or ``.parquet``.
            All but a table may be remote, by a URL that fsspec knows: ``s3://bucket/photos``.
        image_column: The column of a table that holds the images, where it is not found by its name.

    Raises:
        LongtailError: Nothing of that name, no image in it, or no such column.
        UsageError: A column where there is no table.

    Example:
        >>> find_images("nowhere/*.jpg")
        Traceback (most recent call last):
        ...
        longtail.errors.LongtailError: No image in 'nowhere/*.jpg': name an image, a folder with images, or a pattern.
    """
    text = local_path(os.fspath(images))
    kind = kind_of(text) if is_url(text) else None
    latest: Latest = {}
    if kind == "file" or os.path.isfile(text):  # noqa: PTH113 - a path of the user's stays as it was written
        is_table = Path(text).suffix.lower() in TABLES
        if is_table and kind:
            raise LongtailError(f"{text} is a remote table: copy it here; the images that it names may be URLs.")
        folder = os.path.join(os.path.dirname(text), "")  # noqa: PTH118, PTH120
        one = Images(lambda _: iter([Item(text, text)]), 1, base=folder)
        listing = table_images(text, image_column) if is_table else one
    elif kind == "folder" or os.path.isdir(text):  # noqa: PTH112
        folder = os.path.join(text, "")  # noqa: PTH118
        listing = Images(lambda left_out: images_below(text, left_out, latest), base=folder)
    elif glob.has_magic(text):
        listing = Images(lambda left_out: files_like(text, left_out, latest), base=_base_of(text))
    else:
        raise LongtailError(f"There is no file or folder {text!r}: name an image, a folder with images, or a pattern.")
    if image_column is not None and not listing.is_table:
        raise UsageError(
            f"{text!r} is no table and has no column {image_column!r}: leave image_column out.",
            options={"image_column": "--image-column"},
        )
    left_out = LeftOut()
    if next(listing.items(left_out), None) is None:
        others = f" ({left_out})" if str(left_out) else ""
        raise LongtailError(f"No image in {text!r}{others}: name an image, a folder with images, or a pattern.")
    return listing


def as_items(images: object, *, image_column: str | None = None) -> Iterator[Item]:
    """Turn whatever a caller in Python has into items.

    Args:
        images: Input of :func:`find_images`; a Pillow image; a uint8 array (H, W), (H, W, 3) or (N, H, W, 3); or an
            iterable of paths, Pillow images and arrays, such as an array of paths (N,).
        image_column: As for :func:`find_images`.

    Raises:
        LongtailError: None of these.
    """
    if isinstance(images, (str, os.PathLike)):
        yield from find_images(images, image_column=image_column).items(LeftOut())
        return
    is_single = isinstance(images, Image.Image)
    if isinstance(images, np.ndarray):
        is_single = images.ndim < (1 if images.dtype.kind in "OU" else 4)  # N paths or objects are N images
    several = [images] if is_single else images
    for number, image in enumerate(several if isinstance(several, Iterable) else [several]):
        if isinstance(image, (str, os.PathLike)):
            path = str(os.fspath(image))  # not NumPy's kind of text
            yield Item(path, path)
        elif isinstance(image, (Image.Image, np.ndarray)):
            yield Item(getattr(image, "filename", "") or f"image {number}", image)
        else:
            raise LongtailError(f"{type(image).__name__} is not an image: give paths, Pillow images or uint8 arrays.")


def batch_items(batch: Mapping[str, Any]) -> list[Item]:
    """Return the images of a batch of rows, given as arrays or lists of N entries by column.

    Args:
        batch: A column ``image``, ``bytes`` or ``path``, of which the first that is there is read; an image may be an
            array, encoded bytes, a Pillow image, or a dictionary of ``bytes`` and ``path`` as Hugging Face stores it.

    Raises:
        UsageError: None of these columns.

    Example:
        >>> batch_items({"path": ["a.png", None], "id": [1, 2]})[0]
        Item(name='a.png', source='a.png', problem='', is_folder=False)
    """
    column = next((name for name in ("image", "bytes", "path") if name in batch), None)
    if column is None:
        raise UsageError(f"a batch needs a column 'image', 'bytes' or 'path'; it has {listed(list(batch))}.")
    sources = list(batch[column])
    names = list(batch["path"]) if "path" in batch else [None] * len(sources)
    items = []
    for number, (source, path) in enumerate(zip(sources, names, strict=True)):
        name = f"image {number}" if path is None else os.fspath(path)
        if isinstance(source, dict):
            source = source.get("bytes") or source.get("path")
        problem = f"{name}: there is no image in this row; name one, or delete the row." if source is None else ""
        is_path = isinstance(source, (str, os.PathLike))
        items.append(Item(name, os.fspath(source) if is_path else "" if source is None else source, problem))
    return items


# Files of a folder or a pattern, as they are met: a million of them need no more memory than a thousand.


def images_below(folder: str, left_out: LeftOut, latest: Latest | None = None) -> Iterator[Item]:
    """Find the files with an image's extension in a folder, to the bottom.

    Hidden files and folders and system folders are left out. Links are followed, each real folder once. The order is
    that of names, in portions of 10,000 where a folder holds more. Photographs and videos in a format that is not read
    are included: reading them reports an error. So is a folder that cannot be listed, as an item with a problem.

    Args:
        folder: Folder to search.
        left_out: Counts what is left out.
        latest: As for :func:`longtail.remote.walk`, for a folder of a store.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("b.png", "a.jpg", "notes.txt"): (folder / name).touch()
        >>> [os.path.basename(image.name) for image in images_below(str(folder), LeftOut())]
        ['a.jpg', 'b.png']
    """

    def keep(names: Names) -> bool:
        name = names[-1]
        if is_image_path(name) or is_unread_path(name):
            return True
        if name.startswith("."):
            left_out.hidden += 1
        else:
            left_out.others[os.path.splitext(name)[1].lower() or "no suffix"] += 1  # noqa: PTH122
        return False

    def enter(names: Names) -> bool:
        hidden = is_system_folder(names[-1])
        left_out.hidden += hidden
        return not hidden

    return _walk(folder, keep, enter, left_out, latest)


def files_like(pattern: str, left_out: LeftOut, latest: Latest | None = None) -> Iterator[Item]:
    """Find the files that a pattern such as ``in/**/*.jpg`` names, whatever their extension.

    ``*``, ``?`` and ``[...]`` stand for what they do in a shell and ``**`` for any folders; none of them for a leading
    dot. The order is that of :func:`images_below`.
    """
    base = _base_of(pattern)
    wanted = tuple(part for part in pattern.removeprefix(base).split(os.sep) if part)  # noqa: PTH206
    if not (kind_of(base) == "folder" if is_url(base) else os.path.isdir(base or os.curdir)):  # noqa: PTH112
        return iter(())
    return _walk(base, partial(_matches, pattern=wanted), partial(_leads_on, pattern=wanted), left_out, latest)


def _base_of(pattern: str) -> str:
    """Return the folders of a pattern before its first part with a wildcard.

    Example:
        >>> _base_of("in/day one/*/a?.jpg"), _base_of("*.jpg")
        ('in/day one/', '')
    """
    parts = pattern.split(os.sep)  # noqa: PTH206 - a path of the user's stays as it was written
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return "".join(part + os.sep for part in parts[:first])


def _walk(
    base: str,
    keep: Callable[[Names], bool],
    enter: Callable[[Names], bool],
    left_out: LeftOut,
    latest: Latest | None,
) -> Iterator[Item]:
    """Yield the files below a folder to keep; both functions get the names of a path below ``base``."""
    if is_url(base):
        files = remote_files(base, keep, enter, {} if latest is None else latest)
        return (_unlisted(url, reason) if reason else Item(url, url) for url, reason in files)
    listed: set[tuple[int, int]] = set()  # real folders

    def walk(folder: str, names: Names) -> Iterator[Item]:
        try:
            status = os.stat(folder or os.curdir)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in listed:  # a link may lead back up
                left_out.again += 1
                return
            listed.add((status.st_dev, status.st_ino))
            with os.scandir(folder or os.curdir) as listing:
                while portion := sorted(islice(listing, SORTED_AT_ONCE), key=lambda entry: entry.name):
                    for entry in portion:
                        path, below = os.path.join(folder, entry.name), (*names, entry.name)  # noqa: PTH118
                        try:
                            is_folder, is_file = entry.is_dir(), entry.is_file()
                        except OSError as error:
                            # A link in a ring, or to a place that may not be seen, which may hold any number of images.
                            is_image = is_image_path(entry.name) or is_unread_path(entry.name)
                            is_dead = is_image or error.errno in {errno.ELOOP, errno.ENOTDIR}
                            is_folder = not is_dead and (is_system_folder(entry.name) or enter(below))
                            is_file = not is_folder
                        if is_folder:
                            if enter(below):
                                yield from walk(path, below)
                        # A pipe would be waited for; a dead link is reported when it is read.
                        elif not (is_file or entry.is_symlink()):
                            left_out.special += 1
                        elif keep(below):
                            yield Item(path, path)
        except OSError as error:
            yield _unlisted(folder, error.strerror or first_line(error))

    return walk(base, ())


def _unlisted(folder: str, reason: str) -> Item:
    return Item(folder, folder, f"the folder {folder!r} cannot be listed ({reason}): {LEFT_OUT}", is_folder=True)


def require_listed(item: Item) -> None:
    """Check that an item is not a folder that cannot be listed, where every image has to be known.

    Raises:
        LongtailError: It is one.

    Example:
        >>> require_listed(_unlisted("deep", "503 Slow Down"))
        Traceback (most recent call last):
        longtail.errors.LongtailError: the folder 'deep' cannot be listed (503 Slow Down): restore the access to it and
        repeat the command; what is finished is kept.
    """
    if item.is_folder:
        remedy = "restore the access to it and repeat the command; what is finished is kept."
        raise LongtailError(item.problem.removesuffix(LEFT_OUT) + remedy)


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the names of a path match the parts of a pattern.

    Example:
        >>> _matches(("a", "b", "c.png"), ("**", "*.png")), _matches(("a", ".b", "c.png"), ("**", "*.png"))
        (True, False)
    """
    if not pattern:
        return not names
    if pattern[0] == "**":
        deeper = bool(names) and not names[0].startswith(".") and _matches(names[1:], pattern)
        return deeper or _matches(names, pattern[1:])
    if not names or (names[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch.fnmatch(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _leads_on(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a file below the folder of these names may match.

    Example:
        >>> _leads_on(("a",), ("a", "*.png")), _leads_on(("b",), ("a", "*.png")), _leads_on(("a", "b"), ("a", "*.png"))
        (True, False, False)
    """
    # The part that matches the folder ends before the last one, which is the file's, or with "**".
    return any(_matches(names, pattern[:end]) for end in range(len(pattern) + (pattern[-1] == "**")))


# Rows of a table.


def table_images(path: str, column: str | None = None) -> Images:
    """List the images of a ``.csv``, ``.tsv`` or ``.parquet`` in its order; relative paths start at its folder.

    A row that names no image is an item with a problem. An embedded image that carries no path is called by its
    table and row, ``photos.parquet#17``, counted from 0. The total is known for Parquet only.

    Args:
        path: The table.
        column: The column of images; None finds it by its name.

    Raises:
        LongtailError: No such column, or a table that cannot be read.
    """
    base = os.path.join(os.path.dirname(path), "")  # noqa: PTH118, PTH120
    if not path.lower().endswith(".parquet"):
        return Images(lambda _: _csv_rows(path, column), is_table=True, base=base)
    with open_parquet(path) as file:
        rows = int(file.metadata.num_rows)
    return Images(lambda _: _parquet_rows(path, column), rows, is_table=True, base=base)


def _csv_rows(path: str, column: str | None) -> Iterator[Item]:
    # A file name that is not valid UTF-8 stays the bytes it is.
    header, rows = read_rows(path, ragged=True, decoding="surrogateescape")
    index = header.index(Columns(image=column).find("image", header, path))
    for line, row in rows:
        yield _named(row[index].strip("\r\n") if index < len(row) else "", path, f"{path}, line {line}")


def _parquet_rows(path: str, column: str | None) -> Iterator[Item]:
    rows = count()
    with open_parquet(path) as file:
        name = Columns(image=column).find("image", file.schema_arrow.names, path)
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[name], use_threads=False):
            for value in batch.column(0).to_pylist():
                yield _embedded(value, path, f"{path}#{next(rows)}")


def _embedded(value: Any, table: str, where: str) -> Item:
    if isinstance(value, dict):  # as Hugging Face datasets store an image
        data, path = value.get("bytes"), value.get("path") or ""
        return Item(path or where, data) if isinstance(data, bytes) else _named(str(path), table, where)
    if isinstance(value, bytes):
        return Item(where, value)
    return _named(value if isinstance(value, str) else "", table, where)


def _named(text: str, table: str, where: str) -> Item:
    if not text.strip():
        return Item(where, "", f"{where}: there is no image in this row; name one, or delete the row.")
    try:
        path = local_path(text)
    except LongtailError as error:  # of another machine
        return Item(text, text, str(error))
    return Item(text, path if is_url(path) else locate(os.path.dirname(table), path))  # noqa: PTH120
