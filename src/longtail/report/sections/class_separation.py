"""The section on how classes lie to each other: their spread by the distance to the nearest other class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from longtail.compare.table import Comparison
from longtail.report.builders import ClassMeasure, ClassSection
from longtail.report.plots.canvas import clip
from longtail.report.plots.figures import MANY_POINTS
from longtail.report.select import Measured, analyzed
from longtail.text import class_word, number


def separations(comparison: Comparison) -> list[Measured]:
    """The configurations with an analyzed run, with the nearest other class in words where classes are few enough."""
    measured = [each for each in analyzed(comparison) if np.isfinite(each.values["ratio"]).any()]
    return [replace(each, notes=_neighbors(each)) if len(each.run.counts) <= MANY_POINTS else each for each in measured]


def _neighbors(each: Measured) -> list[str]:
    """The two distances of each class in words, and which class is the nearest."""
    names, columns = each.run.counts.names, (each.values[key] for key in ("spread", "nearest_distance", "nearest"))
    return [
        f"{number(spread)} to its center, {number(far)} to {clip(class_word(names[near]), 24)}" if near >= 0 else ""
        for spread, far, near in zip(*columns, strict=True)
    ]


SECTION = ClassSection(
    "spread",
    "How apart the classes lie",
    "How far {split} features of a class lie from their center, by the distance to the nearest other one; above 1, the "
    "dotted line, a class reaches past its neighbor. Features of a cosine classifier are measured by direction alone "
    "and compare with each other only. With the size of the class the ratio {trends}.",
    separations,
    (ClassMeasure("ratio", "spread", "Spread / nearest center", level=1.0, compare=True),),
)
