"""Shards of images, Parquet tables or WebDataset archives, local or remote: listed, and read in order by `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from longtail.data.class_names import names_class, no_class_names, normalize_class_name
from longtail.errors import LATER, LongtailError, first_line, nearest
from longtail.remote import TRIES, is_url, tried, wait_before_retry

if TYPE_CHECKING:
    import datasets

Kind = Literal["parquet", "webdataset"]
_REMEDY: Final = "fetch or write it again."
KINDS: Final[Mapping[str, Kind]] = {".parquet": "parquet", ".tar": "webdataset"}
_VERSION_KEYS: Final = (
    "ETag",
    "etag",
    "generation",
    "blob_id",
    "mtime",
    "LastModified",
    "last_modified",
    "Last-Modified",
    "created",
)
"""What file systems of fsspec call the version of a file or the time of its last change, what tells most first."""


class StreamedImage(NamedTuple):
    """An image of a stream.

    Attributes:
        shard: Number of its shard.
        row: Its row in the shard, from 0.
        label: Class index.
        data: The encoded image; empty where only labels are read.
        name: Its name, for errors and predictions.
    """

    shard: int
    row: int
    label: int
    data: bytes
    name: str


@dataclass(frozen=True)
class ShardFolder:
    """The shards of a pattern.

    Attributes:
        url: Their folder, an absolute path or a URL, without a slash at its end.
        sizes: Size of each shard in bytes by its name within the folder, in the order of names.
        kind: Their format.
        versions: Version of each shard by the same, which changes if it is written again; empty where the store tells
            none.
    """

    url: str
    sizes: Mapping[str, int]
    kind: Kind
    versions: Mapping[str, str] = field(default_factory=dict)

    def urls(self, files: Sequence[str]) -> list[str]:
        """Return the full names of files of the folder."""
        return [f"{self.url}/{file}" for file in files]

    def states(self, files: Iterable[str]) -> dict[str, tuple[int, str]]:
        """Return size and version of files of the folder, which decide what is in them."""
        return {file: (self.sizes[file], self.versions.get(file, "")) for file in files}


def list_shards(pattern: str) -> ShardFolder:
    """List the shards of a folder or of a pattern such as ``s3://bucket/birds/*.tar``, without hidden files.

    Args:
        pattern: A folder, a file or a pattern with ``*``, as a path or as a URL that fsspec knows.

    Raises:
        LongtailError: The place cannot be reached, there is no such file, or there are files of both formats.

    Example:
        >>> import fsspec
        >>> fsspec.filesystem("memory").pipe({"/birds/a.tar": b"12", "/birds/b.tar": b"1", "/birds/c.txt": b""})
        >>> list_shards("memory://birds/*.tar").sizes
        {'a.tar': 2, 'b.tar': 1}
    """
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(pattern, use_listings_cache=False)
        path = path.rstrip("/")
        if "*" not in path and tried(lambda: system.info(path))["type"] == "directory":
            entries = {each["name"]: each for each in tried(lambda: system.ls(path, detail=True))}
            base = path
        else:
            base = path.partition("*")[0].rpartition("/")[0]
            entries = tried(lambda: system.glob(path, detail=True))
    except Exception as error:  # each store has errors of its own
        raise LongtailError(
            f"{pattern} cannot be reached ({first_line(error)}): check the path, and the access to it."
        ) from error
    files = {
        name: each
        for name, each in sorted(entries.items())
        if PurePosixPath(name).suffix.lower() in KINDS and not PurePosixPath(name).name.startswith(".")
    }
    kinds = {KINDS[PurePosixPath(name).suffix.lower()] for name in files}
    if not files:
        raise LongtailError(f"{pattern!r} matches no .parquet and no .tar file: check the path after stream:.")
    if len(kinds) > 1:
        raise LongtailError(f"{pattern!r} matches Parquet and tar files: name one of them, such as {pattern}/*.tar.")
    is_local = "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,))
    sizes = {name[len(base) + 1 :]: int(each.get("size") or 0) for name, each in files.items()}
    versions = {name[len(base) + 1 :]: _version(each) for name, each in files.items()}
    return ShardFolder(base if is_local else system.unstrip_protocol(base).rstrip("/"), sizes, kinds.pop(), versions)


def _version(entry: Mapping[str, Any]) -> str:
    """Return what tells that a file was written again; empty where its store does not say."""
    return next((str(entry[key]) for key in _VERSION_KEYS if entry.get(key)), "")


@dataclass(frozen=True)
class ShardReader:
    """Reads shards image by image.

    Attributes:
        urls: The shards, paths or URLs.
        kind: Their format.
        image: Column of the image.
        label: Column of the label.
        classes: Class names in the order of their indices; empty while they are not known.
        left_out: Rows to pass over, by shard.
        sizes: Rows of each shard, where they are known: one that ends before is damaged.
    """

    urls: Sequence[str]
    kind: Kind
    image: str
    label: str
    classes: Sequence[str] = ()
    left_out: Mapping[int, frozenset[int]] = field(default_factory=dict)
    sizes: Sequence[int] = ()

    def images(self, shard: int, first: int = 0) -> Iterator[StreamedImage]:
        """Yield the images of a shard in order.

        Args:
            shard: Its number.
            first: Row to begin with.

        Raises:
            LongtailError: The shard cannot be read, or an image has no label.
        """
        left_out = self.left_out.get(shard, frozenset())
        for row, example in enumerate(self._examples([self.image, self.label], shard, first), start=first):
            if row in left_out:
                continue
            stored = example[self.image]
            data, path = (stored["bytes"], stored["path"]) if isinstance(stored, dict) else (stored, None)
            name = path or example.get("__key__") or f"{PurePosixPath(self.urls[shard]).name}, row {row}"
            if not isinstance(data, bytes):
                raise LongtailError(f"{name}: the column {self.image!r} holds no image bytes: write shards that do.")
            yield StreamedImage(shard, row, self._index(example[self.label], shard, row), data, name)

    def labels(self, shard: int) -> Iterator[str]:
        """Yield the class names of a shard in order, without reading the images where the format allows it."""
        name_of = self._name_of
        for row, example in enumerate(self._examples([self.label], shard, 0)):
            yield name_of(example[self.label]) or self._unlabeled(shard, row)

    def _examples(self, columns: Sequence[str], shard: int, first: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of a shard; a remote one that fails is read again from the row that was reached.

        Each shard is opened by itself: what opens hundreds at once asks a store as often, and fails if one call does.
        """
        url, row = self.urls[shard], first
        alone = open_shard(self.kind, url, columns).decode(False)
        failures, reached = 0, first  # in a row, without a new image
        while True:
            try:
                for example in alone.skip(row) if row else alone:
                    row += 1
                    yield example
                if self.sizes and row < self.sizes[shard]:  # a truncated archive ends without an error
                    raise EOFError(f"it ends after {row:,} of {self.sizes[shard]:,} images")
                return
            except Exception as error:  # of the store, of the format, or of `datasets`, which wraps some of them
                failures, reached = 0 if row > reached else failures + 1, row
                if failures == TRIES - 1 or not is_url(url):
                    raise _unusable(url, "read", error) from error
            wait_before_retry(failures)

    def _index(self, value: object, shard: int, row: int) -> int:
        name = self._name_of(value)
        if name in self._numbers:
            return self._numbers[name]
        if not name:
            self._unlabeled(shard, row)
        raise LongtailError(
            f"{self.urls[shard]}, row {row}: the class {name!r} is not in the index of the stream."
            f"{nearest(name, self.classes)}"
        )

    def _unlabeled(self, shard: int, row: int) -> str:
        raise LongtailError(f"{self.urls[shard]}, row {row}: the label is missing; give it one or drop it.")

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}

    @cached_property
    def stated_classes(self) -> list[str]:
        """The class names whose order the shards state; empty where they state none."""
        import datasets

        feature = (open_shard(self.kind, self.urls[0], [self.label]).features or {}).get(self.label)
        return (
            [normalize_class_name(name) for name in feature.names] if isinstance(feature, datasets.ClassLabel) else []
        )

    @cached_property
    def _name_of(self) -> Callable[[object], str]:
        """The class name of a stored label, empty where it is missing."""
        stated = self.stated_classes
        if stated:
            return lambda value: stated[value] if isinstance(value, int) and 0 <= value < len(stated) else ""
        known: dict[object, str] = {}

        def name_of(value: object) -> str:
            if not names_class(value):
                raise no_class_names(self.urls[0].rpartition("/")[0], self.label)
            if value not in known:
                known[value] = normalize_class_name(value)
            return known[value]

        return name_of


def open_shard(kind: Kind, url: str, columns: Sequence[str] | None = None) -> datasets.IterableDataset:
    """Open a shard as a stream of `datasets`; a remote one again if that fails.

    Args:
        kind: The format.
        url: The file.
        columns: Columns to read of Parquet; all when not given.

    Raises:
        LongtailError: It cannot be opened.
    """
    import datasets

    options: dict[str, Any] = {"columns": list(columns)} if columns is not None and kind == "parquet" else {}
    opened = partial(datasets.load_dataset, kind, data_files={"train": [url]}, split="train", streaming=True, **options)
    try:  # a call that fails looks to `datasets` as if the file were missing
        return tried(opened, at_once=()) if is_url(url) else opened()
    except Exception as error:
        raise _unusable(url, "opened", error) from error


def _unusable(url: str, verb: str, error: Exception) -> LongtailError:
    """Return the error of a shard: of its store, which may work later, or of what is in it."""
    cause = error.__cause__ or error
    is_of_store = is_url(url) and isinstance(cause, OSError)
    return LongtailError(f"{url} cannot be {verb} ({first_line(cause)}): {LATER if is_of_store else _REMEDY}")
