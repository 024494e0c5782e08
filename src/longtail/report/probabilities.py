"""What the sections on saturation share: p_y of the groups of each run that recorded it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from longtail.analysis.saturation import group_histograms, group_means, histogram_quantiles, share_past
from longtail.counts import GROUP_NAMES, FloatArray, IntArray
from longtail.report.compare import Comparison
from longtail.report.findings import named
from longtail.report.over_epochs import Recorded, recorded_rows


@dataclass(frozen=True)
class Panel:
    """A run, with p_y of its groups.

    Attributes:
        one: The run.
        histograms: Images per group and bin, shape (E, 3, BINS).
        gradient: Mean size of the gradient on the own logit, shape (E, 3).
    """

    one: Recorded
    histograms: IntArray
    gradient: FloatArray

    @property
    def label(self) -> str:
        """Name of the configuration."""
        return self.one.row.label

    @property
    def end(self) -> int:
        """The last epoch of stage 1, as an index."""
        return self.one.dynamics.end_of_stage_1

    @property
    def present(self) -> list[int]:
        """The groups that the run has, as places in ``GROUP_NAMES``."""
        return [place for place, name in enumerate(GROUP_NAMES) if name in self.one.run.group_of]

    @cached_property
    def quantiles(self) -> FloatArray:
        """The quantiles of p_y of :data:`longtail.analysis.saturation.QUANTILES`, shape (E, 3, 5)."""
        return histogram_quantiles(self.histograms)

    def past(self, threshold: float) -> FloatArray:
        """Share of the images whose p_y is at least a threshold, shape (E, 3)."""
        return share_past(self.histograms, threshold)


def panels_of(comparison: Comparison) -> list[Panel]:
    """One for each configuration of which a run recorded its gradients."""
    return [
        Panel(
            one,
            group_histograms(one.dynamics.histogram, one.run.group_of),
            group_means(one.dynamics.gradient, one.dynamics.images, one.run.group_of),
        )
        for one in recorded_rows(comparison)
    ]


def named_panels(panels: Sequence[Panel]) -> list[Panel]:
    """Those that a sentence speaks of."""
    return named(panels, lambda panel: panel.one.row)


def top_of(values: Sequence[FloatArray], *, least: float) -> float:
    """The largest of all numbers, for an axis that all panels share.

    Example:
        >>> top_of([np.array([0.2, np.nan]), np.array([0.4])], least=0.1)
        0.4
    """
    return max(least, *(float(np.nanmax(value)) for value in values))
