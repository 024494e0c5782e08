"""Which mix of classes is expected in the field: read from a word or a file, and put into a model's adjustment."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from longtail.counts import ClassCounts, FloatArray
from longtail.errors import LongtailError, UsageError, nearest
from longtail.inference.adjustment import Adjustment, prior_shares
from longtail.inference.info import ModelInfo

SMALLEST_SHARE: Final = 1e-6
"""What a class gets that a prior gives nothing: rare beyond almost any evidence, yet a finite logarithm."""
WORDS: Final = ("uniform", "train")
_TOO_MUCH: Final = 1e300  # whole numbers of JSON have no limit, floats have


def with_prior(info: ModelInfo, prior: Sequence[float] | FloatArray) -> ModelInfo:
    """Return the information of a model whose probabilities expect another mix of classes.

    ``log prior_j - log assumed_j`` is added to the scores, where ``assumed`` is the mix they expected before: Bayes'
    rule, exact where the probabilities were. The adjustment that the model had stays under it, and so does its
    threshold, which was chosen for the mix of the validation images.

    References:
        [1] Saerens, Latinne, Decaestecker, Adjusting the outputs of a classifier to new a priori probabilities,
            Neural Computation 14, 2002, equation 2.4.

    Args:
        info: The model's information.
        prior: A positive share or count of each class, length C; their sum does not matter.

    Raises:
        ValueError: The length is not C, or a share is not a positive number.

    Example:
        >>> import torch
        >>> from longtail.inference.info import ModelSpec, Preprocessing
        >>> looks = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> info = ModelInfo(ModelSpec("plain-cnn", "linear"), ("cat", "lynx"), (90, 10), looks)
        >>> with_prior(info, [50, 50]).scores(torch.tensor([[0.9, 0.1]]).log()).softmax(dim=1)
        tensor([[0.5000, 0.5000]])
    """
    values = np.asarray(prior, dtype=np.float64)
    if values.shape != (len(info.classes),) or not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(f"a prior takes {len(info.classes)} positive numbers, got {values}.")
    shares = values / values.sum()
    before = info.adjustment or Adjustment((info.logit_scale,) * len(shares), (0.0,) * len(shares), prior=info.prior)
    shift = np.log(shares) - np.log(prior_shares(before.prior, info.counts))
    offset = tuple(float(value) for value in np.asarray(before.offset) + shift)
    return replace(info, adjustment=replace(before, offset=offset, prior=tuple(map(float, shares))))


def read_prior(spec: str, info: ModelInfo) -> FloatArray:
    """Read what ``--prior`` takes into the share of each class, float64 (C,), all positive, summing to 1.

    A file is a JSON object of class name to share or count, or a CSV of two columns, with or without a header. A class
    that it leaves out or gives 0 gets a millionth of the sum.

    Args:
        spec: ``"uniform"``, ``"train"``, or the name of a ``.json`` or ``.csv`` file.
        info: The model, for its class names and training counts.

    Raises:
        LongtailError: No such word or file, a class the model does not know, or a value that is no share.

    Example:
        >>> from longtail.inference.info import ModelSpec, Preprocessing
        >>> looks = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> info = ModelInfo(ModelSpec("plain-cnn", "linear"), ("cat", "lynx"), (90, 10), looks)
        >>> read_prior("train", info).tolist(), read_prior("uniform", info).tolist()
        ([0.9, 0.1], [0.5, 0.5])
    """
    if spec == "train":
        return ClassCounts(info.counts, info.classes).prior
    if spec == "uniform":
        return prior_shares("uniform", info.counts)
    if not isinstance(spec, str | os.PathLike):
        raise UsageError(
            f"a prior is uniform, train or a CSV or JSON file, not a {type(spec).__name__}: write the shares into one."
        )
    path = Path(spec)
    if not path.is_file():
        raise UsageError(
            f"--prior takes uniform, train or a CSV or JSON file, and there is no file {spec!r}.{nearest(spec, WORDS)}"
        )
    given = _read_file(path)
    for name, value in given.items():
        if name not in info.classes:
            raise LongtailError(f"{spec}: the model knows no class {name!r}.{nearest(name, info.classes)}")
        if not (math.isfinite(value) and value >= 0):
            raise LongtailError(f"{spec}: the share of {name!r} is {value}: give a number of 0 or more.")
    total = sum(given.values())
    if total <= 0:
        raise LongtailError(f"{spec} gives no class a share above 0: give at least one.")
    shares = np.array([max(given.get(name, 0.0) / total, SMALLEST_SHARE) for name in info.classes])
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def _read_file(path: Path) -> dict[str, float]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LongtailError(f"{path} cannot be read as UTF-8 text ({error}): save it as CSV or JSON.") from error
    return _from_json(text, path) if path.suffix.lower() == ".json" else _from_csv(text, path)


def _from_json(text: str, path: Path) -> dict[str, float]:
    try:
        found = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, path))
    except json.JSONDecodeError as error:
        raise LongtailError(f"{path} is no JSON ({error}): write an object of class name to share.") from error
    if not isinstance(found, dict) or not all(map(_is_share, found.values())):
        raise LongtailError(f'{path} should hold class names with their shares, such as {{"cat": 0.9, "lynx": 0.1}}.')
    return {name: float(value) for name, value in found.items()}


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _TOO_MUCH


def _from_csv(text: str, path: Path) -> dict[str, float]:
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    pairs: list[tuple[str, float]] = []
    for row in reader:
        try:
            if row:
                name, value = row
                pairs.append((name, float(value)))
        except ValueError:
            if pairs or len(row) != 2 or reader.line_num > 1:  # it is no header
                where = f"{path}, line {reader.line_num}"
                raise LongtailError(f"{where}: {row} should be a class name and its share.") from None
    return _unique(pairs, path)


def _unique(pairs: list[tuple[str, float]], path: Path) -> dict[str, float]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise LongtailError(f"{path} names the class {twice!r} twice: keep one.")
    return found
