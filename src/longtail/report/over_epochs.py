"""What the sections on recorded epochs share: which runs recorded, a line a group or run, and where stage 2 begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.counts import GROUP_NAMES, FloatArray, GroupName
from longtail.report.canvas import epoch_axis
from longtail.report.compare import Comparison, Row
from longtail.report.palette import GROUP_COLOURS, GROUP_LABELS
from longtail.report.recorded import Dynamics
from longtail.report.runs import RunResult
from longtail.report.section import Key


@dataclass(frozen=True)
class Recorded:
    """A configuration and the first of its runs that recorded its gradients."""

    row: Row
    run: RunResult
    dynamics: Dynamics

    @property
    def tail(self) -> GroupName:
        """The smallest group that the run has."""
        return next(name for name in reversed(GROUP_NAMES) if name in self.run.group_of)


def recorded_rows(comparison: Comparison) -> list[Recorded]:
    """The configurations of which a run recorded its gradients."""
    found = []
    for row in comparison.final:
        pairs = [(run, run.dynamics) for run in row.runs if run.dynamics is not None]
        found += [Recorded(row, run, dynamics) for run, dynamics in pairs[:1] if dynamics is not None]
    return found


def group_legend(rows: Sequence[Recorded]) -> list[Key]:
    """One line a group that any of the runs has."""
    return [Key(name, "line", GROUP_LABELS[name]) for name in GROUP_NAMES if any(name in r.run.group_of for r in rows)]


def add_line(
    figure: go.Figure, steps: npt.NDArray[np.int64], values: FloatArray, *, name: str, says: str, **style: object
) -> None:
    """Draw a value of each epoch; epochs where it is NaN are left out, and a single one is a point."""
    known = np.isfinite(values)
    if not known.any():
        return
    mode = "lines" if known.sum() > 1 else "markers"
    figure.add_scatter(
        x=steps[known].astype(np.int32), y=values[known].astype(np.float32), mode=mode, name=name,
        line={"width": 2, **style}, marker={"color": style.get("color"), "size": 7},
        hovertemplate=f"%{{fullData.name}}<br>epoch %{{x}}: {says}<extra></extra>",
    )  # fmt: skip


def add_group_lines(
    figure: go.Figure, dynamics: Dynamics, values: FloatArray, *, says: str, dash: str = "solid"
) -> None:
    """Draw a line for each group; ``values`` has shape (E, 3)."""
    for number, name in enumerate(GROUP_NAMES):
        style = {"color": GROUP_COLOURS[name], "dash": dash}
        add_line(figure, dynamics.steps, values[:, number], name=GROUP_LABELS[name], says=says, **style)


def shared_epochs(figure: go.Figure, rows: Sequence[Recorded], last: int) -> go.Figure:
    """An axis of ``last`` epochs, the same in all panels, with the starts of stage 2 of these runs."""
    epoch_axis(figure, [start for one in rows if (start := one.dynamics.stage_2) is not None], last)
    return figure


def last_epoch(rows: Sequence[Recorded]) -> int:
    """The most epochs that any of the runs recorded."""
    return max(len(one.dynamics.stage) for one in rows)
