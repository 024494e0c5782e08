"""Gather analyzed and recorded runs into one table of measures, for docs/what-the-methods-change.md.

python benchmarks/collect_analysis.py rows RUN [RUN ...] --csv docs/results/what-the-methods-change.csv
python benchmarks/collect_analysis.py page docs/what-the-methods-change.md

A run has to be analyzed first (longtail analyze RUN); what it recorded in training (--training.record_dynamics true) is
added where there is any.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from portfolio import add_rows

from longtail.analysis.columns import AnalyzedSplit
from longtail.analysis.confusions import destinations
from longtail.analysis.dynamics import (
    gradient_balance,
    group_image_means,
    group_sums,
    histogram_quantiles,
    share_past,
)
from longtail.analysis.norms import rank_trend
from longtail.analysis.predictions import prior_shift
from longtail.counts import GROUP_NAMES, GroupName
from longtail.run import read
from longtail.run.result import RunResult

MARKED = re.compile(r"(<!-- table begin (\S+): ([^>]*?) -->).*?(<!-- table end -->)", re.DOTALL)
Row = dict[str, Any]


def row_of(run: RunResult) -> Row:
    """All measures of a run; a name ends in the group or split that it is of."""
    analysis, test = run.analysis, run.test
    if analysis is None or analysis.train is None or analysis.test is None or test is None:
        raise SystemExit(f"{run.folder} is not analyzed: longtail analyze {run.folder}")
    row: Row = {
        "recipe": run.recipe,
        "seed": run.seed,
        "epochs": len(run.history),
        "data_hash": run.record.data_hash,
        "torch": run.record.versions.get("torch"),
        "longtail": run.record.versions.get("longtail"),
        "processor": run.record.hardware.get("processor"),
        "device": run.record.hardware.get("device"),
        "accuracy": test["accuracy"],
        **{f"accuracy {name}": test[name] for name in GROUP_NAMES},
    }
    for name, split in (("train", analysis.train), ("test", analysis.test)):
        row |= _of_split(split, name, run.group_of, run.counts.array)
    label, prediction = analysis.test.images.label, analysis.test.images.prediction
    errors = destinations(label.astype(np.int64), prediction.astype(np.int64), run.group_of).of_errors
    row |= {f"errors few to {name}": errors[2, index] for index, name in enumerate(GROUP_NAMES)}
    classes = analysis.train.classes
    row |= _trends(run.counts.array, weight_norm=classes.weight_norm, bias=classes.bias)
    row |= _means("cloud", -classes.cloud_mean, run.group_of)
    return row | _predicted(run) | _recorded(run)


def _predicted(run: RunResult) -> Row:
    """Confidence minus accuracy, by group, and accuracy on test sets of another mix of classes."""
    test, predictions = run.test, run.predictions
    if test is None or predictions is None:
        return {}
    above = predictions.confidence - (predictions.prediction == predictions.label)
    groups = np.array(run.group_of)[predictions.label]
    row: Row = {"ece": test["ece"], "confidence above accuracy": float(above.mean())}
    row |= {f"confidence above accuracy {name}": float(above[groups == name].mean()) for name in GROUP_NAMES}
    curve = prior_shift(test.recalls, [summary.test_count for summary in test.per_class], run.counts)
    return row | {f"prior {exponent:g}": curve.at(exponent) for exponent in (1.0, 0.0, -1.0)}


def _of_split(split: AnalyzedSplit, name: str, group_of: Sequence[GroupName], counts: npt.NDArray[np.int64]) -> Row:
    classes, images = split.classes, split.images
    groups = np.array(group_of)[images.label]
    row = _means(f"ratio {name}", classes.ratio, group_of) | _means(f"angle {name}", classes.angle, group_of)
    row |= _means(f"feature norm {name}", classes.feature_norm, group_of)
    row |= _trends(
        counts, **{f"{measure} {name}": getattr(classes, measure) for measure in ("ratio", "angle", "feature_norm")}
    )
    for group in GROUP_NAMES:
        margins = images.margin[groups == group]
        row[f"margin {name} {group}"] = float(np.median(margins)) if margins.size else None
        row[f"wrong {name} {group}"] = float((margins < 0).mean()) if margins.size else None
    collapse = split.summary["neural_collapse"]
    row |= {f"{key} {name}": split.summary[key] for key in ("uniformity", "alignment")}
    return row | {f"{key} {name}": value for key, value in collapse.items()}


def _means(measure: str, values: npt.NDArray[np.floating[Any]], group_of: Sequence[GroupName]) -> Row:
    """Mean over the classes of each group, NaN left out."""
    row, groups = {}, np.array(group_of)
    for name in GROUP_NAMES:
        finite = values[(groups == name) & np.isfinite(values)]
        row[f"{measure} {name}"] = float(finite.mean()) if finite.size else None
    return row


def _trends(counts: npt.NDArray[np.int64], **measures: npt.NDArray[np.floating[Any]]) -> Row:
    """Rank correlation with the number of training images, and its p-value."""
    row: Row = {}
    for name, values in measures.items():
        trend = rank_trend(values, counts)
        row |= {f"rho {name.replace('_', ' ')}": trend.rho, f"p {name.replace('_', ' ')}": trend.p_value}
    return row


def _recorded(run: RunResult) -> Row:
    """Of the last epoch of stage 1, and gradients of all of it."""
    dynamics = run.dynamics
    if dynamics is None:
        return {}
    last = dynamics.end_of_stage_1
    balance = gradient_balance(
        dynamics.positive[: last + 1], dynamics.negative[: last + 1], dynamics.images[: last + 1], run.group_of
    )
    histograms = group_sums(dynamics.histogram, run.group_of)
    size = group_image_means(dynamics.gradient, dynamics.images, run.group_of)[last]
    row: Row = {}
    for index, name in enumerate(GROUP_NAMES):
        row[f"balance first {name}"] = balance.groups[0, index]
        row[f"balance last {name}"] = balance.groups[-1, index]
        row[f"balance whole {name}"] = balance.whole[index]
        row[f"median p_y {name}"] = histogram_quantiles(histograms[last, index], [0.5])[0]
        row |= {f"past {level} {name}": share_past(histograms, level)[last, index] for level in (0.9, 0.99)}
        row[f"gradient {name}"] = size[index]
    return row


def write_rows(runs: Sequence[Path], target: Path, *, keep: bool = False) -> None:
    """Write one row a run; with ``keep`` after those that the file has of other runs."""
    rows = [{name: _cell(value) for name, value in row_of(read(run)).items()} for run in runs]
    names = dict.fromkeys(name for row in rows for name in row)
    if keep:
        with target.open(encoding="utf-8", newline="") as file:
            names = dict.fromkeys([*next(csv.reader(file), []), *names])
    else:
        target.unlink(missing_ok=True)
    add_rows(rows, target, list(names), of=("recipe", "seed"))


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    return f"{float(value):.6g}" if isinstance(value, float | np.floating) else value


def fill_page(page: Path) -> None:
    """Write the tables between the marks of a page: ``<!-- table begin CSV: COLUMN=HEADING*FACTOR, ... -->``."""
    text = page.read_text(encoding="utf-8")
    filled = MARKED.sub(lambda match: f"{match[1]}\n{_table(page.parent / match[2], match[3])}\n{match[4]}", text)
    page.write_text(filled, encoding="utf-8")


def _table(source: Path, columns: str) -> str:
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = [part.strip().partition("=")[::2] for part in columns.split(",")]
    lines = [f"| recipe | {' | '.join(heading.partition('*')[0] for _, heading in wanted)} |"]
    lines.append("|---" * (len(wanted) + 1) + "|")
    for row in rows:
        cells = [_shown(row.get(name, ""), heading) for name, heading in wanted]
        lines.append(f"| {row['recipe'].rpartition('/')[2]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(value: str, heading: str) -> str:
    if not value:
        return "n/a"
    factor = float(heading.partition("*")[2] or 1)
    return f"{float(value) * factor:.1f}" if factor == 100 else f"{float(value):.2f}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    rows = actions.add_parser("rows", help="read runs")
    rows.add_argument("runs", nargs="+", type=Path)
    rows.add_argument("--csv", type=Path, required=True)
    rows.add_argument("--keep", action="store_true", help="keep the rows of other runs")
    actions.add_parser("page", help="write the tables of a page").add_argument("page", type=Path)
    given = parser.parse_args()
    if given.action == "rows":
        write_rows(given.runs, given.csv, keep=given.keep)
    else:
        fill_page(given.page)


if __name__ == "__main__":
    main()
