"""What the sections on recorded epochs share: which runs recorded, a line a group or run, and where stage 2 begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from longtail.counts import GROUP_NAMES, FloatArray, GroupName
from longtail.report.compare import Comparison, Row
from longtail.report.palette import GROUP_COLOURS, GROUP_LABELS, MUTED
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


def add_group_lines(figure: go.Figure, dynamics: Dynamics, values: FloatArray, *, says: str) -> None:
    """Draw a line for each group; ``values`` has shape (E, 3)."""
    for number, name in enumerate(GROUP_NAMES):
        add_line(
            figure, dynamics.steps, values[:, number], name=GROUP_LABELS[name], says=says, color=GROUP_COLOURS[name]
        )


def epoch_axis(figure: go.Figure, dynamics: Sequence[Dynamics], last: int) -> None:
    """An axis of ``last`` epochs over all stages; the start of stage 2 is marked as in the training curves."""
    starts = {int((one.stage == one.stage[0]).sum()) for one in dynamics if one.stage[-1] != one.stage[0]}
    for number, start in enumerate(sorted(starts)):
        figure.add_vline(x=start + 0.5, line={"color": MUTED, "width": 1, "dash": "dot"})
        if number == 0:
            place = {"x": start + 0.5, "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "bottom"}
            figure.add_annotation(text="stage 2", showarrow=False, font={"size": 12, "color": MUTED}, **place)
    figure.update_layout(margin={"t": 26})
    figure.update_xaxes(title="Epoch", range=[0.5 if last > 1 else 0, last + 0.5])
