"""Split and ImageData: labeled images, whatever source they come from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from longtail.counts import ClassCounts, IntArray
from longtail.data.columns import arrow_column, in_memory, text_column
from longtail.data.decode import decode, unreadable
from longtail.data.square import Square, read_square
from longtail.errors import LongtailError, UnreadableImageError, listed, nearest

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa
    from PIL import Image

Severity = Literal["error", "warning", "note"]
SPLIT_NAMES = ("train", "validation", "test")
DETOURS = ("/../", "/./", "//")
"""Parts of a path that is not the shortest one to its file."""


class Encoded(TypedDict):
    """A stored image: its bytes, else the path of its file."""

    bytes: bytes | None
    path: str | None


@dataclass(frozen=True)
class Finding:
    """A finding about a source, with a remedy.

    Attributes:
        severity: ``"error"`` (images that cannot be used), ``"warning"``, or ``"note"``.
        message: What was found.
        remedy: How to fix it.
        kind: Identifier of this kind of finding, such as ``"unreadable"``.
        images: Names of all affected images; the message shows the first few.
    """

    severity: Severity
    message: str
    remedy: str
    kind: str = ""
    images: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.message}: {self.remedy}."

    @classmethod
    def about(
        cls, names: Sequence[str], noun: str, description: str, severity: Severity, remedy: str, kind: str
    ) -> Finding:
        """Return a finding that counts images or files, describes them and shows the first few.

        Example:
            >>> remedy = "rename it if it is an image, else move it away"
            >>> print(Finding.about(["a.txt"], "file", "left out", "note", remedy, "not-an-image"))
            1 file left out ('a.txt'): rename it if it is an image, else move it away.
        """
        message = f"{len(names):,} {noun}{'s' * (len(names) > 1)} {description} ({listed(names)})"
        return cls(severity, message, remedy, kind, tuple(names))


@dataclass(frozen=True, eq=False)
class Split:
    """Labeled images of one split, decoded on demand.

    Attributes:
        rows: Columns ``image`` (bytes and path, undecoded), ``label`` (int64), and further columns of the source.
        root: Folder of the file paths in :meth:`fingerprint` and :meth:`files`; empty for embedded images.
        origin: Row numbers in the source, shape (N,), preserved by :meth:`select`; None means 0 .. N-1.
        paths: Paths by the row numbers of the source, where all its images are files. Selections share them, and
            reading one from the rows takes far longer.
        renamed: Names in ``rows`` of columns that the source calls ``image`` or ``label`` and that hold something else.

    Example:
        >>> split = Split.from_arrays(np.zeros((3, 8, 8), np.uint8), [0, 0, 1])
        >>> split.labels.tolist(), split.image(2).size, split.select([2]).path(0)
        ([0, 0, 1], (8, 8), 'row 2')
    """

    rows: datasets.Dataset
    root: str = ""
    origin: IntArray | None = field(default=None, repr=False)
    paths: pa.ChunkedArray | None = field(default=None, repr=False)
    renamed: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_arrays(
        cls,
        images: npt.NDArray[np.uint8],
        labels: Sequence[int] | IntArray,
        columns: Mapping[str, Sequence[object]] | None = None,
    ) -> Split:
        """Build a split from pixels in memory.

        Args:
            images: Shape (N, H, W) or (N, H, W, 3).
            labels: Class indices, shape (N,).
            columns: Further columns, N values each.
        """
        import datasets

        features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
        encoded = [{"bytes": portable_pixmap(pixels), "path": None} for pixels in images]
        values = [int(label) for label in labels]
        rows = datasets.Dataset.from_dict({"image": encoded, "label": values}, features=features)
        for name, column in (columns or {}).items():
            rows = rows.add_column(name, list(column))
        return cls(rows)

    @classmethod
    def from_files(cls, paths: Iterable[str], labels: Sequence[int] | IntArray, root: str = "") -> Split:
        """Build a split from image files.

        Args:
            paths: Paths, N of them.
            labels: Class indices, shape (N,).
            root: Folder that :meth:`fingerprint` and :meth:`files` name the files from.
        """
        import datasets
        import pyarrow as pa

        stored = text_column(paths)
        table = pa.table({"image": stored, "label": pa.array(labels, pa.int64())})
        rows = in_memory(table).cast_column("image", datasets.Image(decode=False))
        return cls(rows, root=root, paths=stored)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def labels(self) -> IntArray:
        """Class indices, shape (N,), read-only."""
        values = np.asarray(arrow_column(self.rows, "label").to_numpy(), dtype=np.int64)
        values.flags.writeable = False
        return values

    def class_counts(self, classes: Sequence[str]) -> ClassCounts:
        """Count the images of each class, given the class names."""
        return ClassCounts.from_labels(self.labels, classes)

    def shown_classes(self) -> list[int]:
        """Return the indices of the classes that have images, in order."""
        return [int(label) for label in np.unique(self.labels)]

    @property
    def examples(self) -> Split:
        """The images that a report may show."""
        return self

    def sample(self, count: int) -> Split:
        """Return some images, evenly spaced, at most ``count``."""
        return self.select(np.unique(np.linspace(0, len(self) - 1, count).astype(np.int64)))

    def column(self, name: str) -> list[object]:
        """Return the values of a column, in row order: of the source's own one where it has one of that name.

        Raises:
            LongtailError: There is no such column; the nearest one is named.
        """
        if name not in ("image", "label"):
            self.require(name)
        values: list[object] = arrow_column(self.rows, self.renamed.get(name, name)).to_pylist()
        return values

    def has_column(self, name: str) -> bool:
        """Whether the source has a column of that name besides those of the images and of their classes."""
        return name in self._further_columns

    def require(self, name: str) -> None:
        """Check that there is a column of that name besides those of the images and of their classes.

        Raises:
            LongtailError: There is no such column; the nearest one is named.
        """
        others = self._further_columns
        if name not in others:
            besides = " besides those of the images and their classes" if name in ("image", "label") else ""
            hint = nearest(name, others) if others else " The source has only images and classes: use a table."
            raise LongtailError(f"there is no column {name!r}{besides}.{hint}")

    @property
    def _further_columns(self) -> list[str]:
        return [*(name for name in self.rows.column_names if name not in ("image", "label")), *self.renamed]

    def encoded(self, index: int) -> Encoded:
        """Return the stored form of one image: ``{"bytes": ..., "path": ...}``."""
        if self.paths is not None:
            return {"bytes": None, "path": self.paths[self.origin_row(index)].as_py()}
        stored: Encoded | None = self._stored[int(index)].column(0)[0].as_py()
        return stored or {"bytes": None, "path": None}

    @cached_property
    def _stored(self) -> datasets.Dataset:
        """The image column alone as Arrow tables, so that reading one row makes no other Python object."""
        return self.rows.select_columns(["image"]).with_format("arrow")

    def image(self, index: int) -> Image.Image:
        """Decode one image to RGB.

        Raises:
            UnreadableImageError: The image cannot be read; the message names it.
        """
        return decode(*self._content(index))

    def pixels(self, index: int, square: Square) -> npt.NDArray[np.uint8]:
        """Decode one image to a square, uint8 (size, size, 3), by :func:`~longtail.data.decode.read_square`.

        Args:
            index: The row.
            square: The square that images are brought to.

        Raises:
            UnreadableImageError: The image cannot be read; the message names it.
        """
        source, name = self._content(index)
        return read_square(source, square, name)

    def path(self, index: int) -> str:
        """Return the file path of one image, or ``"row 12"`` of the source if it has none."""
        return self._name(self.encoded(index), index)

    def _name(self, stored: Encoded, index: int) -> str:
        return stored["path"] or f"row {self.origin_row(index)}"

    def _content(self, index: int) -> tuple[bytes | str, str]:
        """Return the encoded bytes or the path of one image, and its name."""
        stored = self.encoded(index)
        name = self._name(stored, index)
        source = stored["bytes"] if stored["bytes"] is not None else stored["path"]
        if source is None:
            raise UnreadableImageError(f"{name!r} holds no image: remove the row from the source.")
        return source, name

    @property
    def origin_rows(self) -> IntArray:
        """Row numbers in the source, shape (N,)."""
        return np.arange(len(self), dtype=np.int64) if self.origin is None else self.origin

    def origin_row(self, index: int) -> int:
        """Return the row number of one image in the source."""
        return int(index if self.origin is None else self.origin[index])

    def select(self, indices: Sequence[int] | IntArray) -> Split:
        """The rows at ``indices``, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        part = replace(self, rows=self.rows.select(chosen), origin=self.origin_rows[chosen])
        if "labels" in vars(self):  # they are known, and reading those of a selection takes far longer
            labels = vars(part)["labels"] = self.labels[chosen]
            labels.flags.writeable = False
        return part

    def fingerprint(self) -> str:
        """Hash labels and images in row order: ``"sha256:..."``.

        An embedded image counts by its bytes, a file by its path relative to the source and its size, so that the
        same folder in another location has the same fingerprint.

        Raises:
            UnreadableImageError: A file was deleted since the source was read, or cannot be read.
        """
        digest = hashlib.sha256()
        for label, stored in self.scan():
            content = stored["bytes"]
            head, body = b"bytes", content or b""
            if content is None and (path := stored["path"]) is not None:
                is_plain = not any(detour in path for detour in DETOURS)
                shortest = path if is_plain or not self.root else os.path.normpath(path)
                head = f"{self._relative(shortest)}:{file_status(path).st_size}".encode()
            elif content is None:
                head = b""
            # Lengths first, so that different sequences of images cannot give the same stream.
            digest.update(b"%d %d %d;" % (label, len(head), len(body)) + head + body)
        return f"sha256:{digest.hexdigest()}"

    def scan(self) -> Iterator[tuple[int, Encoded]]:
        """Yield every row's label and stored image in order, in constant memory."""
        if self.paths is not None:
            for label, (path, _) in zip(map(int, self.labels), self.stored_paths(), strict=True):
                yield label, {"bytes": None, "path": path}
            return
        for batch in self.rows.select_columns(["image", "label"]).with_format("arrow").iter(batch_size=256):
            images: list[Encoded | None] = batch.column("image").to_pylist()
            for label, stored in zip(batch.column("label").to_pylist(), images, strict=True):
                yield label, stored or {"bytes": None, "path": None}

    def files(self) -> Iterator[str | None]:
        """Iterate over the path of each image relative to the source; None for an embedded image.

        Example:
            >>> list(Split.from_arrays(np.zeros((2, 8, 8), np.uint8), [0, 1]).files())
            [None, None]
        """
        stored = self.stored_paths()
        return (None if path is None or embedded else self._relative(path) for path, embedded in stored)

    def places(self) -> list[str]:
        """Return a name for each image: its path as in :meth:`files`, the name it was embedded with, or its row.

        Example:
            >>> Split.from_arrays(np.zeros((2, 8, 8), np.uint8), [0, 1]).places()
            ['row 0', 'row 1']
        """
        names = []
        for row, (path, embedded) in zip(self.origin_rows, self.stored_paths(), strict=True):
            if not path:
                names.append(f"row {row}")
            elif not embedded:
                names.append(self._relative(path))
            else:
                names.append(Path(path).name if Path(path).is_absolute() else path)
        return names

    def stored_paths(self) -> Iterator[tuple[str | None, bool]]:
        """Iterate over the stored path of each image, and whether the image itself is embedded."""
        paths = self.paths
        if paths is not None:
            return ((paths[int(row)].as_py(), False) for row in self.origin_rows)
        stored = self.rows.select_columns(["image"]).flatten().with_format("arrow")

        def of_batches() -> Iterator[tuple[str | None, bool]]:
            for batch in stored.iter(batch_size=1024):  # views of the table: no image is copied
                embedded = batch.column("image.bytes").is_valid().to_pylist()
                yield from zip(batch.column("image.path").to_pylist(), embedded, strict=True)

        return of_batches()

    def _relative(self, path: str) -> str:
        start = self.root + os.sep
        if self.root:  # nearly every path begins with the root, and os.path.relpath takes seconds for a million
            path = path[len(start) :] if path.startswith(start) else os.path.relpath(path, self.root)
        return path.replace(os.sep, "/")


@dataclass(frozen=True, eq=False)
class ImageData:
    """A source of images: its classes in label order and its splits.

    Attributes:
        source: SOURCE as the user typed it.
        classes: Class names, shape (C,), including classes without images.
        splits: ``"train"`` always, ``"validation"`` and ``"test"`` where the source has them.
        findings: Irregularities met while the source was read, and how they were resolved.

    Example:
        >>> split = Split.from_arrays(np.zeros((3, 8, 8), np.uint8), [0, 0, 1])
        >>> ImageData("mine", ("cat", "lynx", "margay"), {"train": split}).counts().counts
        (2, 1, 0)
    """

    source: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    findings: tuple[Finding, ...] = ()

    def counts(self, split: str = "train") -> ClassCounts:
        """Count the images of each class in one split, including classes without images."""
        return self.splits[split].class_counts(self.classes)

    def with_splits(self, **splits: Split) -> ImageData:
        """Return the same source with some splits replaced or added."""
        return replace(self, splits={**self.splits, **splits})


def file_status(path: str) -> os.stat_result:
    """Return the size of a listed file, and the times of its last changes.

    Raises:
        UnreadableImageError: It was deleted since the source was read, or the machine cannot read it.
    """
    try:
        return os.stat(path)  # noqa: PTH116 - no Path is made of each of a million
    except OSError as error:
        raise unread_file(path, error) from None


def empty_split_finding(name: str) -> Finding:
    """Return a note that a split of the source has no images.

    Example:
        >>> print(empty_split_finding("validation"))
        the validation split of the source is empty and counts as none: add images to it, or remove it.
    """
    message = f"the {name} split of the source is empty and counts as none"
    return Finding("note", message, "add images to it, or remove it", "split-empty")


def unread_file(path: str, error: OSError) -> UnreadableImageError:
    """Return the error for a listed file that no longer exists, or that the system does not let us read.

    Example:
        >>> print(unread_file("cat/1.jpg", FileNotFoundError()))
        'cat/1.jpg' has gone since the source was read: restore it or start again.
    """
    if isinstance(error, FileNotFoundError):
        return UnreadableImageError(f"{path!r} has gone since the source was read: restore it or start again.")
    return unreadable(error, path, "cannot be read", "restore the access to it.")


def portable_pixmap(pixels: npt.NDArray[np.uint8]) -> bytes:
    r"""Encode pixels, (H, W) or (H, W, 3), as PGM or PPM: a header and the raw values.

    The hash of such an image does not depend on the version of a codec, and reading it takes no decoder.

    Example:
        >>> portable_pixmap(np.array([[65, 66]], dtype=np.uint8))
        b'P5\n2 1\n255\nAB'
    """
    kind = b"P5" if pixels.ndim == 2 else b"P6"
    return kind + b"\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + np.ascontiguousarray(pixels).tobytes()
