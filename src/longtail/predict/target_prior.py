"""The class prior expected in use: read from a word or a file, and built into a model's adjustment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from longtail.counts import FloatArray
from longtail.data.class_names import normalize_class_name
from longtail.data.sources.csv import read_records
from longtail.errors import LongtailError, UsageError, listed, nearest
from longtail.evaluation.posthoc import Adjustment, prior_shares
from longtail.run.model_files import ModelInfo
from longtail.validation import read_bytes, shown

SMALLEST_SHARE: Final = 1e-6
"""The share of a class that a prior leaves out: rarer than almost any evidence, with a finite logarithm."""
WORDS: Final = ("uniform", "train")
_TOO_MUCH: Final = 1e300  # a sum of fewer than a hundred million such shares is still a number
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NO_NUMBERS: Final = {"nan", "inf", "infinity", "-inf", "-infinity", "+inf"}  # but not a header either
_MOST_BYTES: Final = 2**26
_LONGEST: Final = 60  # characters that a suggestion is looked for with

Entry: TypeAlias = tuple[str, str | None, str, str]
"""A class and its share as text, or None where the value is not a number; with the places of both in the file."""


def with_prior(info: ModelInfo, prior: Sequence[float] | FloatArray) -> ModelInfo:
    """Return the information of a model whose probabilities expect another class prior.

    ``log prior_j - log assumed_j`` is added to the scores, where ``assumed`` is the prior they expected before: Bayes'
    rule, exact where the probabilities were. The adjustment that the model had stays under it, and so does its
    threshold, which was chosen for the class frequencies of the validation images.

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
        >>> from longtail.models.preprocessing import Preprocessing
        >>> from longtail.run.model_files import ModelSpec
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


def read_prior(spec: str, info: ModelInfo, say: Callable[[str], object] | None = None) -> FloatArray:
    """Read the value of ``--prior`` into the share of each class, float64 (C,), all positive, summing to 1.

    A file is a JSON object of class name to share or count, or a CSV of two columns with or without a header. Names are
    compared as :func:`longtail.data.class_names.normalize_class_name` spells them. A class that the file leaves out or
    gives 0 gets a millionth of the sum.

    Args:
        spec: ``"uniform"``, ``"train"``, or the name of a ``.json`` or ``.csv`` file.
        info: The model, for its class names and training counts.
        say: Called with one sentence on the classes that the file leaves out.

    Raises:
        LongtailError: No such word or file, a class the model does not know, a class given twice, or a value that is
            not a share.

    Example:
        >>> from longtail.models.preprocessing import Preprocessing
        >>> from longtail.run.model_files import ModelSpec
        >>> looks = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> info = ModelInfo(ModelSpec("plain-cnn", "linear"), ("cat", "lynx"), (90, 10), looks)
        >>> read_prior("train", info).tolist(), read_prior("uniform", info).tolist()
        ([0.9, 0.1], [0.5, 0.5])
    """
    if spec == "train":
        return prior_shares("train", info.counts)
    if spec == "uniform":
        return prior_shares("uniform", info.counts)
    if not isinstance(spec, str | os.PathLike):
        raise UsageError(
            f"a prior is uniform, train or a CSV or JSON file, not a {type(spec).__name__}: write the shares into one."
        )
    path = Path(spec)
    if not path.is_file():
        hint = nearest(str(spec), WORDS)
        raise UsageError(
            f"prior takes uniform, train or a CSV or JSON file, and there is no file {str(spec)!r}.{hint}",
            options={"prior takes": "--prior takes"},
        )
    numbers = {normalize_class_name(name): number for number, name in enumerate(info.classes)}
    given: dict[int, float] = {}
    entries = _json_entries(path) if path.suffix.lower() == ".json" else _csv_entries(path, numbers)
    for written, share, name_at, share_at in entries:
        name = normalize_class_name(written)
        if name not in numbers:
            hint = nearest(name[:_LONGEST], list(numbers))
            raise LongtailError(f"{name_at}: the model knows no class {shown(name)}.{hint}")
        if numbers[name] in given:
            raise LongtailError(f"{name_at}: the class {shown(name)} is named twice: keep one.")
        if share is None:
            raise LongtailError(f"{name_at}: the share of {shown(name)} is not a number: give one of 0 or more.")
        given[numbers[name]] = _share(share, share_at)
    total = sum(given.values())
    if total <= 0:
        raise LongtailError(f"{spec} gives no class a share above 0: give at least one.")
    missing = [name for number, name in enumerate(info.classes) if number not in given]
    if missing and say is not None:
        of_all = f"{len(missing)} of {len(info.classes)} classes"
        say(f"{spec} leaves out {of_all} ({listed(missing)}): each gets a millionth.")
    shares = np.array([max(given.get(number, 0.0) / total, SMALLEST_SHARE) for number in range(len(info.classes))])
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def _csv_entries(path: Path, numbers: Mapping[str, int]) -> Iterator[Entry]:
    """Yield the rows; the first one is a header if it has neither a class name nor a number."""
    for row, (line, cells) in enumerate(read_records(path)):
        where = f"{path}, line {line}"
        if len(cells) != 2:
            raise LongtailError(
                f"{where}: {len(cells)} value{'s' * (len(cells) != 1)} where a class name and its share should be; "
                "quote a name that holds a separator."
            )
        name, share = cells[0], cells[1].strip()
        if row or normalize_class_name(name) in numbers or re.search(r"\d", share) or share.lower() in _NO_NUMBERS:
            yield name, share, f"{where}, column 1", f"{where}, column 2"


def _json_entries(path: Path) -> Iterator[Entry]:
    """Yield the pairs of an object. Numbers are text of all their digits, to be parsed as in a CSV."""
    try:
        text = read_bytes(path, "name a smaller file", _MOST_BYTES).decode("utf-8-sig")
        pairs = json.loads(
            text, object_pairs_hook=tuple, parse_int=Decimal, parse_float=Decimal, parse_constant=Decimal
        )
    except UnicodeDecodeError as error:
        raise LongtailError(f"{path} cannot be read as UTF-8 text ({error}): save it as CSV or JSON.") from error
    except json.JSONDecodeError as error:
        raise LongtailError(f"{path} is not valid JSON ({error}): write an object of class name to share.") from error
    except RecursionError:
        raise LongtailError(f"{path} is nested too deeply: write an object of class name to share.") from None
    if not isinstance(pairs, tuple):  # its pairs, repeated names too
        raise LongtailError(f'{path} should hold class names with their shares, such as {{"cat": 0.9, "lynx": 0.1}}.')
    for key, value in pairs:
        # The last line where the name occurs; none is said if it is written with escapes.
        index = text.rfind(json.dumps(key, ensure_ascii=False))
        where = f"{path}" if index < 0 else f"{path}, line {text.count(chr(10), 0, index) + 1}"
        yield key, str(value) if isinstance(value, Decimal) else None, where, where


def _share(text: str, where: str) -> float:
    if _NUMBER.fullmatch(text) and 0 <= float(text) < _TOO_MUCH:
        return float(text)
    hint = "give a plain number of 0 or more, such as 1200 or 0.12."
    if re.fullmatch(r"\d+,\d+", text):
        thousands, decimals = text.replace(",", ""), text.replace(",", ".")
        hint = f"write {thousands} if the comma separates thousands, or {decimals} if it begins the decimals."
    raise LongtailError(f"{where}: the share is {shown(text)}: {hint}")
