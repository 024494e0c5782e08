"""Comparison: folding over seeds, pairing, names of rows, notes that keep a reader from a wrong conclusion."""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from printed_table import printed
from rich.console import Console

from longtail.compare.comparison import compare_runs
from longtail.compare.differences import difference_text
from longtail.compare.table import print_table
from longtail.errors import LongtailError
from longtail.evaluation.significance import Difference, seeds_interval
from longtail.report.page import render_report


def accuracy(folder):
    return json.loads((folder / "metrics.json").read_text())["test"]["accuracy"]


def rewrite(folder, **changes):
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | changes))
    return folder


def test_differences_are_paired_by_seed(make_run):
    base = [make_run(f"ce{seed}", seed=seed) for seed in range(3)]
    ours = [make_run(f"gcl{seed}", recipe="cifar-lt/gcl", seed=seed, slope=0.5) for seed in (2, 1, 0)]
    difference = compare_runs([*base, *ours]).rows[1].differences["accuracy"]
    pairs = [accuracy(a) - accuracy(b) for a, b in zip(ours[::-1], base, strict=True)]
    assert difference.mean == pytest.approx(statistics.fmean(pairs))
    assert difference.std == pytest.approx(statistics.stdev(pairs))


def test_without_common_seeds_the_means_are_subtracted(make_run):
    base = [make_run(f"ce{seed}", seed=seed) for seed in (0, 1)]
    ours = [make_run(f"gcl{seed}", recipe="cifar-lt/gcl", seed=seed, slope=0.5) for seed in (5, 6)]
    difference = compare_runs([*base, *ours]).rows[1].differences["accuracy"]
    means = [statistics.fmean(map(accuracy, group)) for group in (ours, base)]
    spread = [statistics.variance(map(accuracy, group)) for group in (ours, base)]
    assert difference.mean == pytest.approx(means[0] - means[1])
    assert difference.std == pytest.approx(sum(spread) ** 0.5)


def test_the_first_stage_gets_its_own_row_on_request(make_run):
    folders = [make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl", stages=2)]
    rows = compare_runs(folders, stages=True).rows
    assert [row.stage for row in rows] == [None, None, 1]
    assert rows[2].values["accuracy"].mean != rows[1].values["accuracy"].mean
    assert len(compare_runs(folders).rows) == 2
    assert len(compare_runs(folders, stages=True).final) == 2


def test_a_group_that_is_empty_is_none_and_prints_as_not_available(make_run):
    comparison = compare_runs([make_run("ce", counts=(300, 200, 150))])
    assert comparison.rows[0].values["few"] is None
    console = Console(width=120, file=io.StringIO())
    print_table(comparison, console)
    assert "n/a" in console.file.getvalue()


def test_other_classes_are_refused(make_run):
    with pytest.raises(LongtailError, match="classes"):
        compare_runs([make_run("ce"), make_run("gcl", names=list("abcdef"))])


def test_other_test_images_are_flagged(make_run):
    comparison = compare_runs([make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl", per_class_test=10)])
    assert any("tested on" in note for note in comparison.notes)


def test_other_training_images_are_flagged(make_run):
    comparison = compare_runs([make_run("ce"), make_run("gcl", recipe="cifar-lt/gcl", data_hash="sha256:ffff")])
    assert any("trained on" in note for note in comparison.notes)
    assert not any("tested on" in note for note in comparison.notes)


def test_a_repeated_seed_is_flagged(make_run):
    notes = compare_runs([make_run("a", seed=0), make_run("b", seed=1, stored_seed=0)]).notes
    assert any("same seed" in note for note in notes)


def test_many_differences_are_said_to_hold_some_by_chance(make_run):
    folders = [
        make_run(f"{noise}-{seed}", seed=seed, options={"noise": noise}, stages=2)
        for noise in range(6)
        for seed in (0, 1, 2)
    ]
    assert any("one in twenty" in note for note in compare_runs(folders).notes)
    assert not any("one in twenty" in note for note in compare_runs(folders[:-3], stages=True).notes)


def test_three_seeds_on_the_same_data_need_no_note(make_run):
    folders = [make_run(f"{r}{s}", recipe=f"cifar-lt/{r}", seed=s) for r in ("ce", "kps") for s in range(3)]
    assert compare_runs(folders).notes == ()


def test_validation_is_compared_where_no_run_has_a_test_split(make_run):
    folder = make_run("ce")
    test = json.loads((folder / "metrics.json").read_text())["test"]
    rewrite(folder, test=None, validation=test)
    comparison = compare_runs([folder])
    assert comparison.split == "validation"
    assert comparison.rows[0].values["accuracy"].mean == test["accuracy"]
    assert any("validation" in note for note in comparison.notes)


def test_runs_that_were_never_evaluated_give_empty_rows(make_run):
    comparison = compare_runs([make_run("ce", test=False)])
    assert comparison.split is None
    assert set(comparison.rows[0].values.values()) == {None}
    print_table(comparison, Console(file=io.StringIO()))


def test_nothing_and_the_same_folder_twice_are_refused(make_run):
    with pytest.raises(LongtailError, match="RUN"):
        compare_runs([])
    folder = make_run("ce")
    with pytest.raises(LongtailError, match="twice"):
        compare_runs([folder, folder / ".." / "ce"])


def spread(mean, std, n, images=None):
    return Difference(mean, std, n, images=images, seeds=seeds_interval(mean, std, n))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Difference(0.0049, None, 1), ["+0.5", "one seed"]),
        (Difference(-0.1, 0.011, 2), ["−10.0", "2 seeds"]),
        (spread(-0.0045, 0.0001, 3), ["no difference", "−0.4"]),
        (spread(0.0049, 0.001, 30), ["no clear", "+0.5 to +0.5", "half"]),
        # Student's quantile with 2 degrees of freedom is 4.303: an end at 0.02 - 4.303 * 0.01 / sqrt(3) = -0.0048.
        (spread(0.02, 0.01, 3), ["no clear", "+2.0", "95%", "−0.5 to +4.5"]),
        (spread(0.02, 0.008, 3), ["2.0 points higher", "over seeds"]),
        (Difference(-0.2, None, 1, images=(-0.3, -0.1)), ["20.0 points lower", "over images"]),
        (Difference(-0.2, 0.1, 2, images=(-0.3, -0.1)), ["20.0 points lower", "over images"]),
        (spread(0.02, 0.008, 3, images=(0.01, 0.03)), ["2.0 points higher", "images", "seeds"]),
        (spread(0.02, 0.01, 3, images=(0.01, 0.03)), ["no clear", "not over", "−0.5 to +4.5"]),
        (spread(0.02, 0.008, 3, images=(-0.01, 0.05)), ["no clear", "not over", "−1.0 to +5.0"]),
    ],
)
def test_a_difference_claims_no_more_than_it_shows(change, words):
    text = difference_text(change)
    assert all(word in text for word in words)
    assert ("higher" in text or "lower" in text) == change.is_evidence


def test_more_seeds_do_not_make_an_interval_narrower(make_run: Callable[..., Path]) -> None:
    folders = [make_run(f"s{seed}", seed=seed) for seed in range(3)]
    widths = [high - low for low, high in (compare_runs([f]).rows[0].intervals["few"] or (0, 0) for f in folders)]
    low, high = compare_runs(folders).rows[0].intervals["few"] or (0, 0)
    assert high - low == pytest.approx(sum(widths) / 3)


def test_intervals_that_do_not_know_of_groups_are_said_to_be_too_narrow(make_run: Callable[..., Path]) -> None:
    folder = make_run("run")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("data:\n", "data:\n  group_column: film\n"))
    assert any("one film" in note and "too narrow" in note for note in compare_runs([folder]).notes)


def test_stored_intervals_are_shown_and_not_computed_again(make_run: Callable[..., Path]) -> None:
    folder = make_run("run")
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["test"]["intervals"] = {
        "level": 0.95,
        "unit": "film",
        "correlation": 0.5,
        "accuracy": [0.125, 0.875],
        "few": None,
    }
    metrics["test"]["per_class"][0]["recall_interval"] = [0.0625, 0.9375]
    path.write_text(json.dumps(metrics))
    comparison = compare_runs([folder])
    assert "12.5–87.5" in printed(comparison)
    page = render_report(comparison)
    assert "12.5–87.5" in page
    assert "6.2–93.8" in page
    assert any("one film" in note for note in comparison.notes)
