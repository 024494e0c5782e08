"""The training curves of the report: columns of the histories over the epochs of both stages."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from longtail.compare.table import Row
from longtail.report.plots.canvas import blank, clip, epoch_axis
from longtail.report.plots.palette import run_style


def training_curve(rows: Sequence[Row], measure: str) -> go.Figure:
    """A column of the histories over epochs: training solid, validation thin; the start of stage 2 is marked.

    Args:
        rows: Configurations; every seed gets its own line.
        measure: ``"loss"``, ``"accuracy"`` or ``"learning_rate"``.
    """
    figure = blank(300, left=58)
    single = measure == "learning_rate"
    columns = [(measure, "")] if single else [(f"train_{measure}", "training"), (f"validation_{measure}", "validation")]
    for row in rows:
        for run in row.runs:
            for column, what in columns:
                _add_curve(figure, row, [(e.step, e.values.get(column)) for e in run.history], what)
    histories = [run.history for row in rows for run in row.runs]
    starts = {sum(e.stage == 1 for e in history) for history in histories if any(e.stage > 1 for e in history)}
    epoch_axis(figure, starts)
    titles = {"loss": "Loss", "accuracy": "Accuracy", "learning_rate": "Learning rate"}
    figure.update_yaxes(title=titles[measure])
    if measure == "accuracy":
        figure.update_yaxes(range=[0, 1.02], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1])
    elif single:
        figure.update_yaxes(type="log", dtick=1, tickformat="~g")
    else:
        figure.update_yaxes(rangemode="tozero")
    return figure


def _add_curve(figure: go.Figure, row: Row, points: Sequence[tuple[int, float | None]], what: str) -> None:
    known = [(step, value) for step, value in points if value is not None]
    if not known:
        return
    colour, dash = run_style(row.color)
    style = {"color": colour, "width": 2, "dash": dash, "shape": "linear" if what else "hvh"}
    if what == "validation":
        style |= {"width": 1.2, "dash": "dash"}
    figure.add_scatter(
        x=[step for step, _ in known],
        y=[value if value > 0 else None for _, value in known] if not what else [value for _, value in known],
        mode="lines" if len(known) > 1 else "markers",
        line=style,
        opacity=1.0 if len(row.runs) == 1 else 0.55,
        name=f"{clip(row.label)} {what}".strip(),
        hovertemplate="%{fullData.name}<br>epoch %{x}: %{y:.4g}<extra></extra>",
    )
