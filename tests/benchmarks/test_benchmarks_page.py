"""Rows of benchmarks have one form, and the page says plainly which goals are missed; made-up figures only."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("common", monkeypatch)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("page", monkeypatch)


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script, found as it finds its neighbors when it is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for each in ("common", "page", "losses", "samplers", "performance_picture"):
        monkeypatch.delitem(sys.modules, each, raising=False)
    return __import__(name)


def test_a_row_has_the_agreed_form(common: ModuleType) -> None:
    row = common.row("loss x, eager", 4.0, 2.0, "ms", higher_is_better=False, floor=1.0, device=CPU)
    assert list(row) == ["name", "ours", "other", "unit", "ratio", "floor_share", "device", "versions"]
    assert (row["ratio"], row["floor_share"]) == (0.5, 0.25)
    assert sorted(row["versions"]) == ["longtail", "numpy", "python", "torch"]
    assert row["device"].endswith("cores")
    faster = common.row("training step", 300.0, 100.0, "images/s", floor=1000.0, device=CPU)
    assert (faster["ratio"], faster["floor_share"]) == (3.0, 0.3)
    alone = common.row("start", 0.1, None, "s", higher_is_better=False, device=CPU)
    assert (alone["other"], alone["ratio"], alone["floor_share"]) == (None, None, None)
    # A share above one is shown as it is: it says that the floor was measured at a worse moment.
    assert common.row("past the floor", 1.0, None, "s", higher_is_better=False, floor=2.0)["floor_share"] == 2.0


def test_rows_are_written_and_read_back(common: ModuleType, page: ModuleType, tmp_path: Path) -> None:
    rows = [common.row("ä", 1.0, 2.0, "s", device=CPU)]
    common.rows_to_json(None, rows)
    common.rows_to_json(tmp_path / "new" / "rows.json", rows)
    assert page.read_rows(tmp_path / "new" / "rows.json") == rows
    (tmp_path / "other.json").write_text(json.dumps([{"name": "x"}]))
    with pytest.raises(ValueError, match="rows"):
        page.read_rows(tmp_path / "other.json")


def test_sides_are_measured_in_turns(common: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "_LEAST_SECONDS", 0.0)
    calls: list[str] = []
    medians = common.medians_of({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3)
    assert set(medians) == {"a", "b"}
    assert "".join(calls).endswith("ababab")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0123, "0.0123"), (3.14159, "3.14"), (250.4, "250"), (10_400_000.0, "10,400,000")],
)
def test_figures_are_short(common: ModuleType, value: float | None, text: str) -> None:
    assert common.number(value) == text


def made_up(
    common: ModuleType, name: str, ours: float, other: float | None, unit: str, better: bool
) -> dict[str, object]:
    return common.row(name, ours, other, unit, higher_is_better=better, device=CPU)


def test_missed_goals_are_marked(common: ModuleType, page: ModuleType) -> None:
    cases = {
        ("loss a, 128 x 100, eager", 3.9, 2.0, "ms", False): "≤ 2 × the time",
        ("loss b, 128 x 100, eager", 4.1, 2.0, "ms", False): "≤ 2 × the time, **missed**",
        ("loss b, 128 x 100, compiled", 2.5, 2.0, "ms", False): "≤ 1.2 × the time, **missed**",
        ("sampler a, 9 images: iterate", 6e6, None, "draws/s", True): "≥ 5 million",
        ("sampler a, 9 images: resident, all included", 401.0, None, "MB", False): "< 400 MB, **missed**",
        ("start: import longtail", 0.1, None, "s", False): "< 0.3 s",
        ("streaming: photos", 90.0, 30.0, "images/s", True): "≥ 90% of the floor, not measured",
        ("drawing the noise alone, 128 x 100", 9.0, 1.0, "ms", False): "",
    }
    for case, expected in cases.items():
        assert page.verdict(made_up(common, *case)) == expected


def test_a_goal_of_a_gpu_is_for_its_rows_only(common: ModuleType, page: ModuleType) -> None:
    row = made_up(common, "training step, batch 128: gcl against the plain loop", 400.0, 100.0, "images/s", True)
    assert page.verdict(row) == "≥ 3 ×"
    assert page.verdict(row | {"device": "NVIDIA H100, 16 cores"}) == "≥ 20 ×, **missed**"


def test_a_row_has_a_goal_for_each_of_its_figures(common: ModuleType, page: ModuleType) -> None:
    row = common.row("features of 9 images of photos", 300.0, 100.0, "images/s", floor=400.0, device=CPU)
    assert page.verdict(row) == "≥ 3 ×; ≥ 90% of the floor, **missed**"
    assert page.verdict(row | {"floor_share": 0.95, "ratio": 2.0}) == "≥ 3 ×, **missed**; ≥ 90% of the floor"


def test_tables_are_put_between_the_marks(
    common: ModuleType, page: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, marks = tmp_path / "page.md", "<!-- rows begin {} -->\nold\n<!-- rows end -->"
    target.write_text(f"before\n{marks.format('losses.json')}\nbetween\n{marks.format('a.json b.json')}\nafter\n")
    loss = made_up(common, "loss a, 1 x 2, eager", 5.0, 2.0, "ms", False)
    common.rows_to_json(tmp_path / "page" / "losses.json", [loss] * (page.LONG + 1))
    common.rows_to_json(tmp_path / "page" / "a.json", [made_up(common, "a step", 5.0, None, "ms", False)])
    common.rows_to_json(tmp_path / "page" / "b.json", [made_up(common, "b step", 6.0, None, "ms", False)])
    monkeypatch.setattr(sys, "argv", ["page.py", str(target)])
    page.main()
    text = target.read_text()
    assert "| loss a, 1 x 2, eager | 5.00 | 2.00 | ms | 0.400 | ≤ 2 × the time, **missed** |" in text
    assert "<details><summary>17 rows, 17 of 17 goals missed</summary>" in text
    assert "| work | ours | unit |\n|---|---|---|\n| a step | 5.00 | ms |\n| b step | 6.00 | ms |\n" in text
    assert text.startswith("before\n<!-- rows begin losses.json -->")
    assert text.endswith("<!-- rows end -->\nafter\n")
    assert "old" not in text
    page.main()
    assert target.read_text() == text


def test_no_rows_are_forgotten(common: ModuleType, page: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "page.md"
    target.write_text("<!-- rows begin a.json -->\n<!-- rows end -->\n")
    with pytest.raises(ValueError, match=r"a\.json"):
        page.fill(target)
    for name in ("a.json", "b.json"):
        common.rows_to_json(tmp_path / "page" / name, [])
    with pytest.raises(ValueError, match=r"b\.json"):
        page.fill(target)


def test_the_page_shows_its_rows(page: ModuleType, tmp_path: Path) -> None:
    docs = BENCHMARKS.parent / "docs"
    shutil.copytree(docs / "performance", tmp_path / "performance")
    copy = Path(shutil.copy(docs / "performance.md", tmp_path))
    page.fill(copy)
    assert copy.read_text(encoding="utf-8") == (docs / "performance.md").read_text(encoding="utf-8")


def test_every_bar_of_the_picture_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = load("performance_picture", monkeypatch)
    rows = BENCHMARKS.parent / "docs" / "performance"
    assert all(picture.gain(rows, bar) > 1 for bar in picture.BARS)


def test_every_loss_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = load("losses", monkeypatch)
    for name in losses.LOSSES:
        losses.step(name, (4, 6), False)()
    assert losses.floor("gcl", (512, 8142), 1e9) == pytest.approx(3 * 4 * 512 * 8142 / 1e6)
    assert losses.floor("gcl", (128, 100), 1e9) is None


def test_labels_of_the_sampler_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    samplers = load("samplers", monkeypatch)
    labels = samplers.long_tailed_labels(1000, 50)
    counts = torch.bincount(torch.from_numpy(labels).long(), minlength=50)
    assert len(labels) == 1000
    assert counts.min() >= 1
    assert counts[0] == counts.max() > 10 * counts[-1]
    figures = samplers.measure("cben", 1000, 50, 1)
    assert set(figures) == {"imported", "resident", "whole", "build", "indices", "iterate", "generator", "loop"}
    assert all(value > 0 for value in figures.values())
