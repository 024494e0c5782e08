"""Runs that are one configuration with several seeds: which they are, their names, and the means over them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from longtail.config.options import flatten
from longtail.config.schema import EXECUTION
from longtail.data.sources.registry import last_name
from longtail.formatting import percent
from longtail.run.result import RunResult
from longtail.run.search import as_asked

SEEDS = frozenset({"seed", "subset_seed", "split_seed"})


@dataclass(frozen=True)
class MeanStd:
    """Mean and sample standard deviation over ``n`` runs; ``std`` is None for a single run.

    Attributes:
        mean: Mean over the runs.
        std: Their deviation.
        n: Number of runs.

    Example:
        >>> MeanStd.of([0.25, 0.75]).mean
        0.5
        >>> MeanStd.of([None]) is None
        True
    """

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> MeanStd | None:
        """Fold the values that were measured; None where none was."""
        measured = [value for value in values if value is not None]
        if not measured:
            return None
        return cls(statistics.fmean(measured), statistics.stdev(measured) if len(measured) > 1 else None, len(measured))


def mean_std_text(value: MeanStd | None) -> str:
    """Mean and deviation in percent, as a table cell holds them.

    Example:
        >>> mean_std_text(MeanStd(0.384, 0.0031, 3)), mean_std_text(None)
        ('38.4 ± 0.3', 'n/a')
    """
    if value is None:
        return "n/a"
    return percent(value.mean, unit=False) + ("" if value.std is None else f" ± {percent(value.std, unit=False)}")


def mean_interval(intervals: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """One interval for several runs on the same images: the mean of the ends; None where a run has none.

    More runs do not make it narrower, as they do not bring more images.

    Example:
        >>> mean_interval([(0.25, 0.5), (0.5, 0.75)]), mean_interval([(0.25, 0.5), None])
        ((0.375, 0.625), None)
    """
    measured = [interval for interval in intervals if interval is not None]
    if not measured or len(measured) < len(intervals):
        return None
    return statistics.fmean(low for low, _ in measured), statistics.fmean(high for _, high in measured)


def json_options(config: Mapping[str, object]) -> dict[str, str]:
    """Flatten a nested configuration into dotted names and values written as JSON.

    Example:
        >>> json_options({"model": {"name": "resnet32"}, "epochs": 200})
        {'model.name': '"resnet32"', 'epochs': '200'}
    """
    return {name: json.dumps(value, default=str) for name, value in flatten(dict(config)).items()}


def fold(runs: Sequence[RunResult]) -> list[tuple[RunResult, ...]]:
    """Group runs whose configurations differ only in seeds and execution options, in the order of first appearance.

    Runs with other numbers of training images stay apart even then: their source has changed between them. Not where
    images are held together in groups: how many of each class are trained on follows from the seed of the splits.
    """
    keys = []
    for run in runs:
        options = identity(run)
        counts = run.counts.counts if options.get("data.group_column", "null") == "null" else ()
        keys.append(json.dumps([run.recipe, counts, options], sort_keys=True))
    return [tuple(run for run, other in zip(runs, keys, strict=True) if other == key) for key in dict.fromkeys(keys)]


PATHS = (("data", "source"), ("model", "weights"))
"""Options that hold a path on the machine that trained."""


def with_short_paths(runs: Sequence[RunResult]) -> list[RunResult]:
    """Shorten the paths in the configurations of runs to the parts that distinguish them.

    Two sources are the same if their paths are, or their last component and data hash: the images were moved, or are on
    two machines.

    Returns:
        The runs in the same order; a source or folder of weights has the same name in all of them.
    """
    configs = [dict(run.config) for run in runs]
    for section, option in PATHS:
        tables = [run.config.get(section) for run in runs]
        given = [str(table.get(option) or "") if isinstance(table, dict) else "" for table in tables]
        marks = [run.record.data_hash if option == "source" else "" for run in runs]
        for config, name in zip(configs, _short(given, marks), strict=True):
            table = config.get(section)
            if name and isinstance(table, dict):
                config[section] = table | {option: name}
    pairs = zip(runs, configs, strict=True)
    return [run if run.config == config else replace(run, config=config) for run, config in pairs]


def _short(paths: Sequence[str], marks: Sequence[str]) -> list[str]:
    """Shorten each path to the trailing components that distinguish it.

    Example:
        >>> _short(["folder:/a/x/photos", "folder:x/photos", "folder:/b/photos", "digits"], ["1", "1", "2", "3"])
        ['folder:x/photos', 'folder:x/photos', 'folder:b/photos', 'digits']
    """
    groups: list[int] = []  # for each path, the first equivalent one
    for index, (path, mark) in enumerate(zip(paths, marks, strict=True)):
        moved = [mark and marks[other] == mark and last_name(paths[other]) == last_name(path) for other in range(index)]
        same = (groups[other] for other in range(index) if paths[other] == path or moved[other])
        groups.append(next(same, index))
    names = {group: paths[group] for group in groups}
    for parts in range(1, max((len(PurePath(path).parts) for path in names.values()), default=0) + 1):
        shorter = {group: last_name(path, parts) for group, path in names.items()}
        if len(set(shorter.values())) == len(shorter):
            return [shorter[group] for group in groups]
    return [names[group] for group in groups]


def row_names(runs: Sequence[RunResult]) -> list[str]:
    """Name each configuration by its recipe and by the options in which it differs from others of that recipe.

    Names that are still the same get the run's folder behind them, as far as it tells them apart.
    """
    names = []
    for run in runs:
        rivals = [identity(other) for other in runs if other.recipe == run.recipe]
        options = identity(run)
        keys = sorted({key for key in options for other in rivals if other.get(key) != options[key]})
        names.append(" ".join([run.recipe, *_words({key: options[key] for key in keys})]))
    same = [number for number, name in enumerate(names) if names.count(name) > 1]
    folders = _short([str(runs[number].folder.resolve()) for number in same], [""] * len(same))
    for number, folder in zip(same, folders, strict=True):
        names[number] += f" ({folder})"
    return names


def identity(run: RunResult) -> dict[str, str]:
    """The options of a run that tell its configuration from others, by dotted name and written as JSON.

    Where something was chosen these are the options that left it open: each seed chooses for itself.
    """
    options = json_options(as_asked(run.config, run.portfolio, run.search))
    return {key: value for key, value in options.items() if key.rsplit(".", 1)[-1] not in SEEDS | EXECUTION}


def _words(options: Mapping[str, str]) -> list[str]:
    """Options as ``name=value``; an option with one value in both stages is written once, without its stage."""
    words: list[str] = []
    for key, text in options.items():
        section, last = key.split(".")[0], key.rsplit(".", 1)[-1]
        namesakes = {other: value for other, value in options.items() if other.rsplit(".", 1)[-1] == last}
        if len(set(namesakes.values())) == 1:
            name = last
        else:
            sections = {other.split(".")[0] for other in namesakes}
            name = f"{section}.{last}" if len(sections) == len(namesakes) else key
        value = json.loads(text)
        words.append(f"{name}={value if isinstance(value, str) else text}")
    return list(dict.fromkeys(words))


def short_labels(names: Sequence[str]) -> list[str]:
    """Strip the ``DATA/`` that all names share.

    Example:
        >>> short_labels(["cifar-lt/ce", "cifar-lt/gcl scale=20"]), short_labels(["cifar-lt/ce", "places-lt/ce"])
        (['ce', 'gcl scale=20'], ['cifar-lt/ce', 'places-lt/ce'])
    """
    families = {name.partition(" ")[0].rpartition("/")[0] for name in names}
    shared = families.pop() if len(families) == 1 else ""
    return [name.removeprefix(f"{shared}/") if shared else name for name in names]
