"""Figures as files: SVG and PNG with title and legend inside, without WebGL; what is missing is named."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go
import pytest
from PIL import Image

from longtail.cli import main
from longtail.errors import LongtailError
from longtail.report import export_figures
from longtail.report.export_figures import save_figures, save_sections, static_figure
from longtail.report.plots import THEME
from longtail.report.section import Drawing, Key, Section

KEYS = (Key("few", "triangle-up", "Few-shot"), Key("run3", "dashed", "gcl"))
BROWSER = any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
needs_browser = pytest.mark.skipif(not BROWSER, reason="needs a browser: apt install chromium, or kaleido_get_chrome")


def drawing(kind: type = go.Scattergl) -> Drawing:
    figure = go.Figure(layout={"height": 200, "margin": {"t": 10, "l": 40}, "paper_bgcolor": "rgba(0,0,0,0)"})
    return Drawing("norms", "Norms <b>", "", figure.add_trace(kind(x=[1, 2, 3], y=[3, 1, 2], name="points")))


def test_a_static_figure_has_title_legend_and_ground_and_leaves_the_one_of_the_page_alone() -> None:
    original = drawing()
    before = original.figure.to_dict()
    static = static_figure(original, KEYS, width=600)
    assert original.figure.to_dict() == before
    assert {trace.type for trace in static.data} == {"scatter"}
    entries = [trace for trace in static.data if trace.showlegend]
    assert [trace.name for trace in entries] == ["Few-shot", "gcl"]
    assert entries[0].marker.symbol == "triangle-up"
    assert (entries[1].line.color, entries[1].line.dash) == (THEME["run3"][0], "dash")
    assert static.layout.title.text == "Norms &lt;b&gt;"
    assert static.layout.paper_bgcolor == "white"
    # What stands above is added: the plot itself keeps the height it has in the page.
    assert static.layout.height - static.layout.margin.t == 200 - 10


def test_a_legend_that_does_not_fit_gets_a_line_more() -> None:
    long = tuple(Key("ink", "line", "a configuration with a long name") for _ in range(4))
    narrow, wide = (static_figure(drawing(), long, width=width).layout.height for width in (300, 1600))
    assert narrow > wide


@needs_browser
def test_every_figure_of_the_sections_becomes_an_svg_and_a_png(tmp_path: Path) -> None:
    sections = [Section("norms", "Norms and angles", legend=KEYS, drawings=(drawing(),)), Section("made", "Made")]
    paths = save_sections(sections, tmp_path / "new" / "figures")
    assert [path.name for path in paths] == ["norms_norms.svg", "norms_norms.png"]
    text = paths[0].read_text(encoding="utf-8")
    assert text.startswith("<svg")
    for words in ("Norms and angles: Norms", "Few-shot", "gcl"):
        assert words in text
    assert "http" not in text.replace("http://www.w3.org", "")
    assert Image.open(paths[1]).size[0] == 3 * export_figures.WIDTHS["one"]


def test_without_kaleido_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(LongtailError, match=r"'longtail\[figures\]'"):
        save_figures([drawing()], tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_browser_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("kaleido", reason="needs kaleido: pip install 'longtail[figures]'")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("choreographer.browsers.chromium.Chromium.find_browser", lambda *_, **__: None)
    with pytest.raises(LongtailError, match="chromium"):
        save_figures([drawing()], tmp_path)


def test_figures_are_saved_where_a_loop_runs_already(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def render(figures: Mapping[str, go.Figure]) -> dict[str, bytes]:
        return {f"{name}.{kind}": b"drawn" for name in figures for kind in ("svg", "png")}

    async def notebook() -> list[Path]:
        return save_figures([drawing()], tmp_path)

    monkeypatch.setattr(export_figures, "render_figures", render)
    assert [path.name for path in asyncio.run(notebook())] == ["norms.svg", "norms.png"]


def test_the_command_writes_page_and_figures(make_run, monkeypatch, tmp_path, capsys) -> None:
    saved: list[Path] = []

    def write(figures: Mapping[str, go.Figure], folder: Path) -> list[Path]:
        saved.extend(folder / f"{name}.svg" for name in figures)
        return saved

    monkeypatch.setattr(export_figures, "write_figures", write)
    run = make_run("ce")
    assert main(["report", str(run), "--out", str(tmp_path / "r.html"), "--figures", str(tmp_path / "figures")]) == 0
    assert (tmp_path / "r.html").is_file()
    assert {"classes_histogram-0", "accuracy_accuracy-0", "curves_curve-loss"} <= {path.stem for path in saved}
    assert f"{len(saved)} files" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert main(["report", str(run), "--out", str(tmp_path / "s.html"), "--figures", str(tmp_path / "file")]) == 1
    assert "folder" in capsys.readouterr().err
    assert not (tmp_path / "s.html").exists()
