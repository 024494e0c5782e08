"""Validation splits and folds: stratified, seeded, never across a group, and with every file in one split only."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from longtail.counts import BoolArray, IntArray
from longtail.data.class_names import normalize_class_name
from longtail.data.dataset import DETOURS, SPLIT_NAMES, Finding, Split
from longtail.data.subsets import random_keys, ranks_within_class
from longtail.errors import LongtailError, listed

_FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 0.9)  # suggested instead of one that holds nothing out
_SHOWN = 10  # classes listed in one sentence
_SHOWN_FILES = 5
_CONTENT = "\0"  # between a path and the hash of an embedded image


def carve(
    split: Split,
    fraction: float,
    *,
    seed: int = 0,
    groups: str | None = None,
    num_classes: int | None = None,
    option: str = "fraction",
) -> tuple[Split, Split]:
    """Hold out a fraction of every class, such as for validation.

    Of a class with n images ``fraction * n`` are held out, rounded (a half up), but never all: a class keeps at least
    one training image. Rows that share a value in the ``groups`` column (frames of one film, photos of one animal)
    stay on one side; the fraction is then met as nearly as whole groups allow. Values are compared as class names
    are. A row without a value is a group by itself. Rows of one file stay together as well.

    Args:
        split: The images to divide.
        fraction: The share to hold out, in (0, 1).
        seed: Seed of the choice.
        groups: A column of the source, or None.
        num_classes: The number of classes C; by default 1 more than the largest label.
        option: Name of the fraction in errors.

    Returns:
        The training part and the held-out part, rows in the order of the source.

    Raises:
        LongtailError: The fraction is out of range, there is no such column, or nothing could be held out.

    Example:
        >>> split = Split.from_arrays(np.zeros((21, 2, 2), np.uint8), [0] * 20 + [1])
        >>> train, held_out = carve(split, 0.25)
        >>> np.bincount(train.labels).tolist(), np.bincount(held_out.labels, minlength=2).tolist()
        ([15, 1], [5, 0])
    """
    if not 0 < fraction < 1:
        raise LongtailError(f"{option} lies between 0 and 1, got {fraction:g}.")
    units = unit_numbers(split, groups)

    def hold_out(share: float) -> BoolArray:
        sizes = np.bincount(split.labels, minlength=num_classes or 0)
        if units is not None:
            return _by_group(split.labels, units, sizes, share, seed)
        wanted = np.minimum(np.floor(sizes * share + 0.5), np.maximum(sizes - 1, 0))
        return np.asarray(ranks_within_class(split.labels, seed=seed) < wanted[split.labels])

    held = hold_out(fraction)
    if not held.any():
        enough = next((share for share in _FRACTIONS if share > fraction and hold_out(share).any()), None)
        remedy = f"use {option} 0, which holds none out" + (f", or {option} {enough:g}" if enough else "")
        raise LongtailError(
            f"no {'group' if groups else 'image'} can be held out at {option} {fraction:g} without emptying a class: "
            f"{remedy}."
        )
    return split.select(np.flatnonzero(~held)), split.select(np.flatnonzero(held))


def fold_numbers(
    labels: IntArray, folds: int, *, seed: int = 0, units: IntArray | None = None, num_classes: int | None = None
) -> IntArray:
    """Divide images into folds for cross-validation: each class evenly, and never across a unit.

    Of a class with n images every fold gets n / folds, rounded up or down. A class with n images, fewer than folds, is
    tested in n of them. Images of a class that would be left without any training image in some fold, as it has one
    image or one unit only, are in no fold: they are always trained on.

    Args:
        labels: Class indices, shape (N,).
        folds: Number of folds, at least 2.
        seed: Seed of the choice.
        units: Numbers of the units that stay together, shape (N,), from :func:`unit_numbers`; None if each image is
            one. Units are assigned by scikit-learn's ``StratifiedGroupKFold``.
        num_classes: The number of classes C; by default 1 more than the largest label.

    Returns:
        The fold of each image, shape (N,), in 0 .. folds-1; -1 for images in no fold.

    Raises:
        LongtailError: There are fewer images or units than folds.

    Example:
        >>> labels = np.array([0] * 6 + [1] * 3 + [2])
        >>> numbers = fold_numbers(labels, 3)
        >>> [np.bincount(numbers[labels == label] + 1, minlength=4).tolist() for label in range(3)]
        [[0, 2, 2, 2], [0, 1, 1, 1], [1, 0, 0, 0]]
    """
    size = num_classes or int(labels.max(initial=0)) + 1
    group = np.arange(len(labels)) if units is None else units
    if units is None:  # deal the images like cards, one class after the other, each in random order
        numbers = np.empty(len(labels), dtype=np.int64)
        numbers[np.lexsort((ranks_within_class(labels, seed=seed), labels))] = np.arange(len(labels)) % folds
    else:
        numbers = _group_folds(labels, units, folds, seed)
    counts = np.bincount(labels * folds + numbers, minlength=size * folds).reshape(size, folds)
    alone = (counts > 0).sum(axis=1) == 1  # classes with images in one fold only
    never = np.isin(group, group[alone[labels]])
    numbers = np.where(never, -1, numbers)
    if len(np.unique(numbers[~never])) < folds:
        raise _too_many_folds(labels, group, folds, "images" if units is None else "groups")
    return np.asarray(numbers, dtype=np.int64)


def never_judged(labels: IntArray, numbers: IntArray, classes: Sequence[str]) -> dict[str, int]:
    """Count the images of each class that are in none of the folds.

    Args:
        labels: Class indices, shape (N,).
        numbers: From :func:`fold_numbers`, shape (N,).
        classes: Class names, C of them.

    Returns:
        Number of images by class, without classes whose images are all in a fold.

    Example:
        >>> never_judged(np.array([0, 0, 1]), np.array([0, 1, -1]), ["ant", "bee"])
        {'bee': 1}
    """
    counts = np.bincount(labels[numbers < 0], minlength=len(classes)).tolist()
    return {name: count for name, count in zip(classes, counts, strict=True) if count}


def describe_never_judged(never: Mapping[str, int], judged: int, group_column: str | None) -> str:
    """Describe the images on which cross-validation never tests: their number, their classes, and why.

    Args:
        never: From :func:`never_judged`, not empty.
        judged: Number of images in a fold.
        group_column: The column whose values hold images together, or None.

    Example:
        >>> print(describe_never_judged({"ray": 9, "cod": 5}, 127, "haul"))
        14 of 141 images are judged in no fold, as they are trained on in every one: 'ray' 9, 'cod' 5 (a class ...).
    """
    total = sum(never.values())
    unit = group_column or "image"
    counts = ", ".join(f"{name!r} {count:,}" for name, count in [*never.items()][:_SHOWN])
    more = f" and {len(never) - _SHOWN:,} more classes" if len(never) > _SHOWN else ""
    shares = f", and what shares a {group_column} with it" if group_column else ""
    within = f"within a single {unit}" if group_column else "of a single image"
    return (
        f"{total:,} of {judged + total:,} images are judged in no fold, as they are trained on in every one: "
        f"{counts}{more} (a class {within}, or with all of its images in one fold{shares})."
    )


def _too_many_folds(labels: IntArray, group: IntArray, folds: int, unit: str) -> LongtailError:
    """Return the error for too many folds; fewer help only if a class has images in two groups."""
    parts = np.bincount(np.unique(np.stack([labels, group]), axis=1)[0]).max(initial=0)
    remedy = "use fewer, or add images" if parts > 1 and folds > 2 else "add images of each class"
    return LongtailError(f"there are not enough {unit} for {folds} folds: {remedy}.")


def _group_folds(labels: IntArray, group: IntArray, folds: int, seed: int) -> IntArray:
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(group)) < folds or np.bincount(labels).max(initial=0) < folds:
        raise _too_many_folds(labels, group, folds, "groups")
    numbers = np.empty(len(labels), dtype=np.int64)
    with warnings.catch_warnings():  # about classes with fewer images than folds, handled by the caller
        warnings.simplefilter("ignore", UserWarning)
        parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, group)
        for number, (_, rows) in enumerate(parts):
            numbers[rows] = number
    return numbers


def unit_numbers(split: Split, groups: str | None) -> IntArray | None:
    """Number the units that stay together, shape (N,): rows of a group or a file; None if each row is one."""
    files = None
    if several := _repeated_hashes([split]):
        names, numbers = np.unique(np.array([*_files(split, several)]), return_inverse=True)
        files = numbers.astype(np.int64) if len(names) < len(split) else None
    if groups is None:
        return files
    numbers = group_numbers(groups_of(split, groups))
    if files is None:
        return numbers
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    shape = (int(numbers.max()) + 1,) * 2
    first = np.zeros(int(files.max()) + 1, dtype=np.int64)
    first[files] = numbers  # one group of each file, to which its other groups are joined
    links = coo_array((np.ones(len(numbers)), (numbers, first[files])), shape=shape)
    joined = connected_components(links, directed=False)[1]
    return np.asarray(joined[numbers], dtype=np.int64)


def _by_group(labels: IntArray, groups: IntArray, sizes: IntArray, fraction: float, seed: int) -> BoolArray:
    """Take groups in random order, each one that brings its classes nearer to their share and leaves them an image."""
    left = sizes.copy()
    missing = sizes * fraction  # number of images of each class still to be held out
    order = np.argsort(groups, kind="stable")
    rows_of = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    held = np.zeros(len(labels), dtype=np.bool_)
    for number in np.argsort(random_keys(len(rows_of), seed=seed), kind="stable"):
        rows = rows_of[number]
        classes, images = np.unique(labels[rows], return_counts=True)
        # By how much (squared) the classes come nearer to their share, relative to their size, or large ones would win.
        gain = (missing[classes] ** 2 - (missing[classes] - images) ** 2) / sizes[classes]
        if (left[classes] > images).all() and gain.sum() > 0:
            left[classes] -= images
            missing[classes] -= images
            held[rows] = True
    return held


def groups_of(split: Split, column: str) -> list[str]:
    """Return the group of each row: its value of a column, normalized as class names are; empty where it has none.

    Raises:
        LongtailError: There is no such column; the nearest one is named.
    """
    split.require(column)
    return list(map(normalize_class_name, split.column(column)))


def group_numbers(values: Iterable[object]) -> IntArray:
    r"""Number the groups 0, 1, 2, ... by first appearance; each empty value is a group by itself.

    Values are compared as class names are, see :func:`~longtail.data.class_names.normalize_class_name`.

    Args:
        values: The value of the group column for each row; N of them.

    Returns:
        Group numbers, shape (N,).

    Example:
        >>> group_numbers(["Caf\u00e9", "b", "Cafe\u0301 ", None, " "]).tolist()
        [0, 1, 0, 2, 3]
    """
    numbers_of: dict[str | int, int] = {}
    keys = (normalize_class_name(value) or row for row, value in enumerate(values))  # a row without a group is one
    return np.array([numbers_of.setdefault(key, len(numbers_of)) for key in keys], dtype=np.int64)


def drop_repeats(splits: Mapping[str, Split], classes: Sequence[str]) -> tuple[dict[str, Split], list[Finding]]:
    """Remove rows that list a file again.

    A file listed in several splits stays in test, else in validation, so that no training image is tested on. Within
    a split a file counts once for each of its labels. Images embedded in the table are one file where they are equal
    and their path, an absolute one, is the same, as ``longtail prepare`` stores it.

    Args:
        splits: Labeled rows of one source.
        classes: Class names, shape (C,).

    Returns:
        The splits, and one finding for each kind of repetition.

    Example:
        >>> import datasets
        >>> kinds = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
        >>> def split(files, labels):
        ...     return Split(datasets.Dataset.from_dict({"image": files, "label": labels}, features=kinds))
        >>> splits = {"train": split(["a.png", "b.png", "b.png"], [0, 1, 1]), "test": split(["a.png"], [0])}
        >>> remaining, findings = drop_repeats(splits, ["cat", "lynx"])
        >>> {name: len(rows) for name, rows in remaining.items()}, [finding.kind for finding in findings]
        ({'train': 1, 'test': 1}, ['file-in-several-splits', 'file-listed-again'])
    """
    several = _repeated_hashes(splits.values())
    if not several:
        return dict(splits), []
    labels_of: dict[str, tuple[str, list[int]]] = {}  # file: the split it stays in, and its labels there
    across: list[str] = []
    again: list[str] = []
    remaining = {}
    for name in (name for name in reversed(SPLIT_NAMES) if name in splits):
        remaining[name] = splits[name]
        if _is_embedded(splits[name]):
            continue
        is_new = np.ones(len(splits[name]), dtype=bool)
        files = _files(splits[name], several)
        for row, (file, label) in enumerate(zip(files, map(int, splits[name].labels), strict=True)):
            if hash(file.partition(_CONTENT)[0]) not in several:
                continue
            home, labels = labels_of.setdefault(file, (name, []))
            is_new[row] = home == name and label not in labels
            if is_new[row]:
                labels.append(label)
            else:
                (across if home != name else again).append(file)
        if not is_new.all():
            remaining[name] = splits[name].select(np.flatnonzero(is_new))
    root = next(iter(splits.values())).root
    disputed = {file: labels for file, (_, labels) in labels_of.items() if len(labels) > 1}
    findings = []
    held_out = "a split that is held out lists the same file"
    for repeated, reason, remedy, kind in (
        (across, held_out, "list each file in one split", "file-in-several-splits"),
        (again, "an earlier row lists the same file and label", "list each file once", "file-listed-again"),
    ):
        if repeated:
            names = _relative(repeated, root)
            rows_are = "1 row is" if len(names) == 1 else f"{len(names):,} rows are"
            message = f"{rows_are} left out because {reason} ({listed(names)})"
            findings.append(Finding("warning", message, remedy, kind, names))
    if disputed:
        findings.append(_disputed(disputed, classes, root))
    return {name: remaining[name] for name in splits}, findings


def _repeated_hashes(splits: Iterable[Split]) -> set[int]:
    """Return the hashes of paths listed several times in some splits; they are far smaller than the paths."""
    of_files = [split for split in splits if not _is_embedded(split)]
    files = chain.from_iterable(map(_files, of_files))
    hashes = np.fromiter(map(hash, files), np.int64, sum(map(len, of_files)))
    hashes.sort()
    return set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


def _is_embedded(split: Split) -> bool:
    """Whether the images of a split are in its table and of no known file, as the first one tells, if there is one."""
    if not len(split):
        return True
    stored = split.encoded(0)
    return stored["bytes"] is not None and not _is_original(stored["path"])


def _files(split: Split, several: Collection[int] = ()) -> Iterator[str]:
    """Yield the file of each row: of an embedded image the absolute path it was read from.

    Other programs may store one path with different images, such as the frames of a film. Of paths with hashes among
    ``several``, a hash of the embedded image follows.
    """
    for row, (path, embedded) in enumerate(split.stored_paths()):
        if path is None or (embedded and not _is_original(path)):
            yield f"{row}/{id(split)}/"  # not a possible file name, and another one in each split
            continue
        file = os.path.normpath(path) if any(detour in path for detour in DETOURS) else path
        if embedded and hash(file) in several:
            file += _CONTENT + hashlib.sha256(split.encoded(row)["bytes"] or b"").hexdigest()
        yield file


def _is_original(path: str | None) -> bool:
    """Whether the path of an embedded image is that of a file, and not a mere name."""
    return path is not None and os.path.isabs(path)  # noqa: PTH117 - no Path is made of each of a million


def _relative(files: Sequence[str], root: str) -> tuple[str, ...]:
    paths = [file.partition(_CONTENT)[0] for file in files]
    return tuple(os.path.relpath(path, root) if root else path for path in paths)


def _disputed(disputed: Mapping[str, Sequence[int]], classes: Sequence[str], root: str) -> Finding:
    names = _relative(list(disputed), root)
    examples = [
        f"{name!r} as {' and '.join(repr(classes[label]) for label in labels)}"
        for name, labels in zip(names[:_SHOWN_FILES], disputed.values(), strict=False)
    ]
    more = f" and {len(names) - _SHOWN_FILES:,} more" if len(names) > _SHOWN_FILES else ""
    files = f"{len(names):,} file{'s are' if len(names) > 1 else ' is'} listed with more than one label"
    message = f"{files} ({', '.join(examples)}{more})"
    remedy = "keep the right label: all rows of a file are trained on or tested on together, and one of them is wrong"
    return Finding("warning", message, remedy, "file-with-several-labels", names)
