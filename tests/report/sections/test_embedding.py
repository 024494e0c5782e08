"""The section on the embedding: its figures, and sentences that follow the numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longtail.compare.comparison import compare_runs
from longtail.compare.table import Comparison
from longtail.report.sections import embedding, measures

EACH = 20


def compared(*folders: Path) -> Comparison:
    return compare_runs(folders)


def test_every_image_and_class_mean_is_drawn_once_on_the_same_axes(analyzed: Callable[..., Path]) -> None:
    section = embedding.build(compared(analyzed("ce"), analyzed("gcl", within=1.0)))
    assert section is not None
    titles = [drawing.title for drawing in section.drawings]
    assert titles == [
        "ce, test images, t-SNE",
        "gcl, test images, t-SNE",
        "ce, test images, PCA",
        "gcl, test images, PCA",
        "ce, test images, t-SNE, by class",
        "gcl, test images, t-SNE, by class",
        "ce, training images, t-SNE",
        "gcl, training images, t-SNE",
    ]
    first, second, *_ = (drawing.figure for drawing in section.drawings)
    axes = [drawing.figure.layout.xaxis.range for drawing in section.drawings]
    assert len(set(axes[:2] + axes[4:])) == len(set(axes[2:4])) == 1  # each projection has its own
    assert first.layout.xaxis.range == second.layout.xaxis.range == second.layout.yaxis.range
    assert sum(len(trace.x) for trace in first.data if "means" not in trace.name) == 100 * EACH
    means = np.concatenate([trace.customdata for trace in first.data if "means" in trace.name])
    assert sorted(means.tolist()) == list(range(100))
    assert all(trace.meta == "class" and trace.customdata.dtype == np.int32 for trace in first.data)
    assert all(trace.text is None for trace in first.data)
    points = np.concatenate([[trace.x, trace.y] for trace in first.data if "means" not in trace.name], axis=1)
    assert np.sqrt((points**2).sum(axis=0).mean()) == pytest.approx(1, abs=1e-3)


def test_colored_by_class_the_same_images_have_a_look_of_their_class(analyzed: Callable[..., Path]) -> None:
    section = embedding.build(compared(analyzed("ce")))
    assert section is not None
    by_group, _, by_class, _ = (drawing.figure for drawing in section.drawings)
    images = [trace for trace in by_class.data if "means" not in trace.name]
    places = [
        np.concatenate([trace.x for trace in figure.data if "means" not in trace.name])
        for figure in (by_group, by_class)
    ]
    np.testing.assert_array_equal(*map(np.sort, places))
    looks: dict[int, set[tuple[str, str]]] = {}
    for trace in images:
        for index in np.unique(trace.customdata):
            looks.setdefault(int(index), set()).add((trace.marker.color, trace.marker.symbol))
    assert sorted(looks) == list(range(100))
    assert all(len(each) == 1 for each in looks.values())
    assert len(set.union(*looks.values())) == 64
    assert {trace.meta for trace in by_class.data} == {"class"}


def test_few_classes_are_named_at_their_means(analyzed: Callable[..., Path]) -> None:
    section = embedding.build(compared(analyzed("ce", counts=[300, 120, 60, 30, 12, 5])))
    assert section is not None
    drawing = next(each for each in section.drawings if each.title.endswith("by class"))
    assert [note.text for note in drawing.figure.layout.annotations] == [f"class {index}" for index in range(6)]


def test_ratios_of_variances_are_listed_and_not_judged(analyzed: Callable[..., Path]) -> None:
    section = embedding.build(compared(analyzed("ce", within=2.0), analyzed("gcl", within=1.0)))
    assert section is not None
    assert section.table is not None
    column = section.table.heads.index("Within / between")
    assert [row[column] for row in section.table.rows] == ["2.00", "2.00", "1.00", "1.00"]
    assert "off" in section.table.caption
    assert "mean nothing" in section.sentence
    assert "fewer than" not in section.sentence


def test_small_classes_are_said_to_blur_what_is_not_corrected(analyzed: Callable[..., Path]) -> None:
    folder = analyzed("ce")
    path = folder / "analysis" / "classes.parquet"
    table = pq.read_table(path)
    images = table["images"].to_numpy().copy()
    images[-2:] = 9  # test rows come last
    pq.write_table(table.set_column(table.column_names.index("images"), "images", pa.array(images)), path)
    section = embedding.build(compared(folder))
    assert section is not None
    assert "2 classes" in section.sentence


def test_the_table_holds_both_splits_of_each_run_and_folds_seeds(analyzed: Callable[..., Path]) -> None:
    folders = [analyzed("ce", seed=0), analyzed("ce-1", seed=1, within=3.0)]
    section = embedding.build(compare_runs(folders, names=["ce", "ce"]))
    assert section is not None
    assert section.table is not None
    assert [row[:2] for row in section.table.rows] == [("ce", "training"), ("ce", "test")]
    assert {"2.50 ± 0.71", "−2.50 ± 0.00"} <= set(section.table.rows[1])
    assert "first" in section.sentence


def test_a_projection_that_all_runs_have_is_drawn_or_none(analyzed: Callable[..., Path]) -> None:
    both, pca = analyzed("ce"), analyzed("gcl", projections=("pca",))
    section = embedding.build(compared(both, pca))
    assert section is not None
    assert [drawing.title for drawing in section.drawings[:2]] == ["ce, test images, PCA", "gcl, test images, PCA"]
    assert re.findall(r"(\d+)% under (\w+)", section.sentence) == [("50", "ce"), ("50", "gcl")]
    alone = embedding.build(compared(analyzed("fbl", projections=())))
    assert alone is not None
    assert alone.drawings == ()
    assert alone.table is not None
    assert len(alone.table.rows) == 2


def test_thousands_of_classes_stay_small(analyzed: Callable[..., Path]) -> None:
    many = np.maximum(1, 500 / np.arange(1, 2_501)).astype(int).tolist()
    folder = analyzed("ce", counts=many, per_class_test=1)
    sections = [
        embedding.build(compared(folder)),
        measures.SEPARATION.build(compared(folder)),
        measures.NORMS.build(compared(folder)),
    ]
    drawings = [drawing for section in sections if section for drawing in section.drawings]
    assert {trace.type for drawing in drawings for trace in drawing.figure.data if trace.meta == "class"} == {
        "scattergl"
    }
    assert not any("means" in trace.name for trace in drawings[0].figure.data)
    by_class = [drawing for drawing in drawings if not drawing.id.startswith("embedding")]
    assert by_class
    assert all(len(drawing.json) < 100_000 for drawing in by_class)
