"""The section on norms and angles: features, classifier weights and biases of each class against its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtail.compare.rows import Comparison
from longtail.compare.wording import listing, number
from longtail.report.plots.class_points import class_points
from longtail.report.section import Drawing, Section, in_rows
from longtail.report.select import (
    Learned,
    group_keys,
    learned_rows,
    said_of,
    seed_note,
    shared_range,
    side_by_side,
    trend,
    trend_sentence,
)


@dataclass(frozen=True)
class Measure:
    """One column of the classes: its name, how it is called, and how a value is written."""

    column: str
    title: str
    says: str
    digits: int

    def of(self, one: Learned) -> npt.NDArray[np.float32]:
        """Its values, shape (C,)."""
        values: npt.NDArray[np.float32] = getattr(one.split.classes, self.column)
        return values


MEASURES = (
    Measure("feature_norm", "Feature norm", "feature norm %{y:.2f}", 2),
    Measure("weight_norm", "Weight norm", "weight norm %{y:.3f}", 3),
    Measure("angle", "Angle", "%{y:.1f}° between mean feature and weight", 1),
    Measure("bias", "Bias", "bias %{y:.3f}", 3),
)


def norms_section(comparison: Comparison) -> Section | None:
    """Norms and angles of each class against its training images; None where no run was analysed."""
    found = learned_rows(comparison)
    if not found:
        return None
    drawings = in_rows(*(_panels(measure, found) for measure in MEASURES))
    layout = "two" if len(found) == 1 else side_by_side(len(found))
    return Section("norms", "Norms and angles", _sentence(found), layout, group_keys(found[0].run), drawings)


def _panels(measure: Measure, found: Sequence[Learned]) -> list[Drawing]:
    """One panel a configuration that has the measure, all with the same axes."""
    known = [one for one in found if np.isfinite(measure.of(one)).any()]
    axis = shared_range([measure.of(one) for one in known])
    drawings = []
    for one in known:
        figure = class_points(one.run.counts, one.run.group_of, measure.of(one), says=measure.says, height=260)
        title = f"{measure.title} (degrees)" if measure.column == "angle" else measure.title
        figure.update_yaxes(title=title, range=axis, nticks=6)
        name = f"norms-{measure.column.replace('_', '-')}-{found.index(one)}"
        shown = measure.title if len(found) == 1 else f"{measure.title}, {one.row.label}"
        drawings.append(Drawing(name, shown, _alt(measure, one), figure))
    return drawings


def _alt(measure: Measure, one: Learned) -> str:
    values = measure.of(one)
    ends = [number(float(end), measure.digits) for end in (np.nanmin(values), np.nanmax(values))]
    rank = trend(one, values)
    correlation = f", rank correlation {number(rank.rho)}" if np.isfinite(rank.rho) else ""
    of = f" of {one.name} images" if measure.column in ("feature_norm", "angle") else ""
    return (
        f"Points of {measure.title.lower()}{of} for each class against its training images under {one.row.label}: "
        f"from {ends[0]} to {ends[1]}{correlation}."
    )


def _sentence(found: Sequence[Learned]) -> str:
    named = said_of(found)
    words = {
        "feature_norm": f"The norm of {found[0].name} features",
        "weight_norm": "The norm of a class's weight",
        "angle": "The angle between mean feature and weight",
        "bias": "The bias",
    }
    said = [
        trend_sentence(words[measure.column], [(one.row.label, trend(one, measure.of(one))) for one in named])
        for measure in MEASURES
    ]
    text = " ".join(sentence for sentence in said if sentence) or "Classes are too few, or too alike, for a trend."
    cosine = [one.row.label for one in named if one.is_cosine]
    if cosine:
        text += f" The cosine classifier of {listing(cosine)} divides both norms away: they move none of its decisions."
    return text + seed_note(one.seeds for one in found)
