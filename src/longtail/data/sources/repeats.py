"""Remove rows that list a file again: a file counts once per label and is in one split only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from longtail.counts import IntArray
from longtail.data.audit.checks import listed
from longtail.data.dataset import SPLIT_NAMES, Finding, Split

_SHOWN = 5
_DETOURS = ("/../", "/./", "//")


def drop_repeats(splits: Mapping[str, Split], classes: Sequence[str]) -> tuple[dict[str, Split], list[Finding]]:
    """Remove rows that list a file again.

    A file listed in several splits stays in test, else in validation, so that no training image is tested on. Within
    a split a file counts once for each of its labels. Images embedded in the table are not compared.

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
        >>> kept, findings = drop_repeats(splits, ["cat", "lynx"])
        >>> {name: len(rows) for name, rows in kept.items()}, [finding.kind for finding in findings]
        ({'train': 1, 'test': 1}, ['file-in-several-splits', 'file-listed-again'])
    """
    files = {name: _files(split) for name, split in splits.items()}
    listed = list(chain.from_iterable(names for names in files.values() if names is not None))
    if len(set(listed)) == len(listed):
        return dict(splits), []
    labels_of: dict[str, tuple[str, list[int]]] = {}  # file: the split it stays in, and its labels there
    across: list[str] = []
    again: list[str] = []
    kept = {}
    for name in (name for name in reversed(SPLIT_NAMES) if name in splits):
        rows = []
        for row, (file, label) in enumerate(zip(files[name] or [], splits[name].labels.tolist(), strict=False)):
            home, labels = labels_of.setdefault(file, (name, []))
            if home != name:
                across.append(file)
            elif label in labels:
                again.append(file)
            else:
                labels.append(label)
                rows.append(row)
        whole = files[name] is None or len(rows) == len(splits[name])
        kept[name] = splits[name] if whole else splits[name].select(rows)
    root = next(iter(splits.values())).root
    disputed = {file: labels for file, (_, labels) in labels_of.items() if len(labels) > 1}
    findings = _findings(_shown(across, root), _shown(again, root))
    if disputed:
        findings.append(_disputed(disputed, classes, root))
    return {name: kept[name] for name in splits}, findings


def file_numbers(split: Split) -> IntArray | None:
    """Number the files of a split, shape (N,); None if no file is listed twice."""
    files = _files(split)
    if files is None or len(set(files)) == len(files):
        return None
    return np.unique(np.array(files), return_inverse=True)[1].astype(np.int64)


def _files(split: Split) -> list[str] | None:
    """The file of each row; None if the images are embedded in the table."""
    if not len(split) or split.encoded(0)["bytes"] is not None:
        return None
    return [
        f"{row}/" if embedded or path is None else _direct(path)  # not a possible file name
        for row, (path, embedded) in enumerate(split.stored_paths())
    ]


def _direct(path: str) -> str:
    return os.path.normpath(path) if any(detour in path for detour in _DETOURS) else path


def _shown(files: Sequence[str], root: str) -> tuple[str, ...]:
    return tuple(os.path.relpath(file, root) if root else file for file in files)


def _findings(across: tuple[str, ...], again: tuple[str, ...]) -> list[Finding]:
    findings = []
    for names, why, remedy, kind in (
        (
            across,
            "a split that is held out lists the same file",
            "list each file in one split",
            "file-in-several-splits",
        ),
        (again, "an earlier row lists the same file and label", "list each file once", "file-listed-again"),
    ):
        if names:
            rows = "1 row is" if len(names) == 1 else f"{len(names):,} rows are"
            message = f"{rows} left out because {why} ({listed(names)})"
            findings.append(Finding("warning", message, remedy, kind, names))
    return findings


def _disputed(disputed: Mapping[str, Sequence[int]], classes: Sequence[str], root: str) -> Finding:
    names = _shown(list(disputed), root)
    examples = [
        f"{name!r} as {' and '.join(repr(classes[label]) for label in labels)}"
        for name, labels in zip(names[:_SHOWN], disputed.values(), strict=False)
    ]
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    files = f"{len(names):,} file{'s are' if len(names) > 1 else ' is'} listed with more than one label"
    message = f"{files} ({', '.join(examples)}{more})"
    remedy = "keep the right label: all rows of a file are trained on or tested on together, and one of them is wrong"
    return Finding("warning", message, remedy, "file-with-several-labels", names)
