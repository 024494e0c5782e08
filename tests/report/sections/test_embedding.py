"""The sections on embedding, spread and norms: what they draw, and sentences that follow the numbers."""

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
from longtail.report.builders import ratio_change
from longtail.report.configurations import absent_notes
from longtail.report.sections import embedding, measures
from longtail.report.sections.registry import build_sections

EACH = 20


@pytest.fixture
def analysed(
    make_run: Callable[..., Path], cifar_counts: list[int], write_analysis: Callable[..., None]
) -> Callable[..., Path]:
    """``analysed("ce", slope=1.0)``: a fake run whose feature norms and ratios follow the class size by ``slope``."""

    def make(name: str, *, slope: float = 1.0, within: float = 2.0, bias: bool = True, counts: list[int] | None = None,
             projections: tuple[str, ...] = ("pca", "tsne"), **options: object) -> Path:  # fmt: skip
        folder = make_run(name, recipe=f"cifar-lt/{name}", counts=counts or cifar_counts, **options)
        write_analysis(folder, counts or cifar_counts, slope=slope, within=within, bias=bias, projections=projections)
        return folder

    return make


def compared(*folders: Path) -> Comparison:
    return compare_runs(folders)


def test_runs_that_were_not_analysed_have_none_of_the_sections(make_run: Callable[..., Path]) -> None:
    comparison = compared(make_run("plain"))
    assert {section.id for section in build_sections(comparison)}.isdisjoint({"embedding", "spread", "norms"})


def test_what_is_left_out_is_said_with_the_way_in(
    analysed: Callable[..., Path], make_run: Callable[..., Path], cifar_counts: list[int]
) -> None:
    seen, plain = analysed("ce"), make_run("gcl", recipe="cifar-lt/gcl", counts=cifar_counts)
    said = absent_notes(compared(seen, plain))
    assert said == ["Not analyzed, and so not in the sections on features: gcl. longtail analyze RUN adds it."]
    assert absent_notes(compared(plain)) == absent_notes(compared(seen)) == []


def test_every_image_and_class_mean_is_drawn_once_on_the_same_axes(analysed: Callable[..., Path]) -> None:
    found = embedding.build(compared(analysed("ce"), analysed("gcl", within=1.0)))
    assert found is not None
    titles = [drawing.title for drawing in found.drawings]
    assert titles == [
        "ce, test images, t-SNE", "gcl, test images, t-SNE", "ce, test images, PCA", "gcl, test images, PCA",
        "ce, test images, t-SNE, by class", "gcl, test images, t-SNE, by class",
        "ce, training images, t-SNE", "gcl, training images, t-SNE",
    ]  # fmt: skip
    first, second, *_ = (drawing.figure for drawing in found.drawings)
    axes = [drawing.figure.layout.xaxis.range for drawing in found.drawings]
    assert len(set(axes[:2] + axes[4:])) == len(set(axes[2:4])) == 1  # each projection has its own
    assert first.layout.xaxis.range == second.layout.xaxis.range == second.layout.yaxis.range
    assert sum(len(trace.x) for trace in first.data if "means" not in trace.name) == 100 * EACH
    means = np.concatenate([trace.customdata for trace in first.data if "means" in trace.name])
    assert sorted(means.tolist()) == list(range(100))
    assert all(trace.meta == "class" and trace.customdata.dtype == np.int32 for trace in first.data)
    assert all(trace.text is None for trace in first.data)
    points = np.concatenate([[trace.x, trace.y] for trace in first.data if "means" not in trace.name], axis=1)
    assert np.sqrt((points**2).sum(axis=0).mean()) == pytest.approx(1, abs=1e-3)


def test_colored_by_class_the_same_images_have_a_look_of_their_class(analysed: Callable[..., Path]) -> None:
    section = embedding.build(compared(analysed("ce")))
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


def test_few_classes_are_named_at_their_means(analysed: Callable[..., Path]) -> None:
    section = embedding.build(compared(analysed("ce", counts=[300, 120, 60, 30, 12, 5])))
    assert section is not None
    drawing = next(each for each in section.drawings if each.title.endswith("by class"))
    assert [note.text for note in drawing.figure.layout.annotations] == [f"class {index}" for index in range(6)]


def test_ratios_of_variances_are_listed_and_not_judged(analysed: Callable[..., Path]) -> None:
    found = embedding.build(compared(analysed("ce", within=2.0), analysed("gcl", within=1.0)))
    assert found is not None
    assert found.table is not None
    place = found.table.heads.index("Within / between")
    assert [row[place] for row in found.table.rows] == ["2.00", "2.00", "1.00", "1.00"]
    assert "how far it may be off" in found.table.caption
    assert "mean nothing" in found.sentence
    assert "fewer than" not in found.sentence


def test_small_classes_are_said_to_blur_what_is_not_corrected(analysed: Callable[..., Path]) -> None:
    folder = analysed("ce")
    path = folder / "analysis" / "classes.parquet"
    table = pq.read_table(path)
    images = table["images"].to_numpy().copy()
    images[-2:] = 9  # test rows come last
    pq.write_table(table.set_column(table.column_names.index("images"), "images", pa.array(images)), path)
    found = embedding.build(compared(folder))
    assert found is not None
    assert "2 classes have fewer than 10 images" in found.sentence


def test_a_class_is_compared_with_itself_under_the_first(analysed: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    noise = np.exp(rng.normal(0, 0.1, 50))
    assert ratio_change(2 * noise, noise) == pytest.approx((1.0, 1.0, 1.0))
    # Logarithms 0 and 0.2: mean 0.1, deviation 0.1414; Student's quantile with one degree is 12.706.
    found = ratio_change([1.0, np.exp(0.2), np.nan], [1.0, 1.0, 1.0])
    assert found == pytest.approx(np.expm1([0.1, 0.1 - 12.706 * 0.1, 0.1 + 12.706 * 0.1]), rel=1e-4)
    assert ratio_change([1.0, np.nan], [1.0, 1.0]) is None
    section = measures.SEPARATION.build(compared(analysed("ce"), analysed("flat", slope=0.0)))
    assert section is not None
    assert section.table is not None
    assert section.table.heads[-1] == "Change against ce"
    assert re.fullmatch(r"[+−][\d.]+% \(95% interval .* to .*\)", str(section.table.rows[1][-1]))


def test_the_table_holds_both_splits_of_each_run_and_folds_seeds(analysed: Callable[..., Path]) -> None:
    folders = [analysed("ce", seed=0), analysed("ce-1", seed=1, within=3.0)]
    found = embedding.build(compare_runs(folders, names=["ce", "ce"]))
    assert found is not None
    assert found.table is not None
    assert [row[:2] for row in found.table.rows] == [("ce", "training"), ("ce", "test")]
    assert {"2.50 ± 0.71", "−2.50 ± 0.00"} <= set(found.table.rows[1])
    assert "the first is drawn" in found.sentence


def test_a_projection_that_all_runs_have_is_drawn_or_none(analysed: Callable[..., Path]) -> None:
    both, pca = analysed("ce"), analysed("gcl", projections=("pca",))
    found = embedding.build(compared(both, pca))
    assert found is not None
    assert [drawing.title for drawing in found.drawings[:2]] == ["ce, test images, PCA", "gcl, test images, PCA"]
    assert "hold 50% under ce and 50% under gcl of the variance" in found.sentence
    alone = embedding.build(compared(analysed("fbl", projections=())))
    assert alone is not None
    assert alone.drawings == ()
    assert alone.table is not None
    assert len(alone.table.rows) == 2


def test_spread_rises_towards_the_tail_or_does_not(analysed: Callable[..., Path]) -> None:
    found = measures.SEPARATION.build(compared(analysed("ce"), analysed("flat", slope=0.0)))
    assert found is not None
    assert re.search(r"falls \(−[\d.]+\) under ce and no clear trend \(.*\) under flat", found.sentence)
    ranges = [drawing.figure.layout.yaxis.range for drawing in found.drawings]
    assert ranges[0] == ranges[1]
    assert ranges[0][1] > 1 > ranges[0][0]


def test_norms_are_drawn_for_each_measure_that_a_run_has(analysed: Callable[..., Path]) -> None:
    found = measures.NORMS.build(compared(analysed("ce"), analysed("gcl", bias=False, slope=0.0)))
    assert found is not None
    assert [drawing.id for drawing in found.drawings] == [
        "norms-feature-norm-0", "norms-feature-norm-1", "norms-weight-norm-0", "norms-weight-norm-1",
        "norms-angle-0", "norms-angle-1", "norms-bias-0",
    ]  # fmt: skip
    feature = [drawing.figure.layout.yaxis.range for drawing in found.drawings[:2]]
    assert feature[0] == feature[1]
    assert found.table is not None
    trends = {row[:2]: row[-1].split(" (")[0] for row in found.table.rows}
    assert trends["ce", "Feature norm"] == trends["ce", "Bias"] == "rises"
    assert trends["gcl", "Feature norm"] == trends["ce", "Weight norm"] == "no clear trend"
    assert re.search(r"rises \(1\.00\) under ce and no clear trend \(.*\) under gcl", found.sentence)
    assert "with the size of the class rises" in found.drawings[0].alt


def test_absent_classes_are_left_out_of_the_figure_not_drawn_at_zero(analysed: Callable[..., Path]) -> None:
    folder = analysed("ce")
    path = folder / "analysis" / "classes.parquet"
    table = pq.read_table(path)
    values = table["ratio"].to_numpy().copy()
    values[[3, 103]] = np.nan
    pq.write_table(table.set_column(table.column_names.index("ratio"), "ratio", pa.array(values)), path)
    found = measures.SEPARATION.build(compared(folder))
    assert found is not None
    drawn = np.concatenate(
        [trace.customdata for trace in found.drawings[0].figure.data if trace.customdata is not None]
    )
    assert 3 not in drawn
    assert len(drawn) == 99


def test_thousands_of_classes_stay_small(analysed: Callable[..., Path]) -> None:
    many = np.maximum(1, 500 / np.arange(1, 2_501)).astype(int).tolist()
    folder = analysed("ce", counts=many, per_class_test=1)
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
