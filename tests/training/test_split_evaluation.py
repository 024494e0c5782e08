"""Evaluation of a split: predictions where scores tie, and intervals where images belong together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from longtail.counts import ClassCounts
from longtail.data.dataset import Split
from longtail.evaluation.tallies import EvaluationMetrics, summarize
from longtail.training.split_evaluation import Evaluation, with_group_intervals


@pytest.fixture
def evaluated() -> tuple[Evaluation, Split]:
    """Two classes in films of ten frames that are all right or all wrong."""
    torch = pytest.importorskip("torch")
    label = np.repeat([0, 1], 60)
    film = np.arange(120) // 10
    prediction = np.where(film % 3 == 0, 1 - label, label)
    metric = EvaluationMetrics(num_classes=2)
    metric.update(torch.eye(2)[prediction], torch.from_numpy(label))
    predictions = {"index": np.arange(120), "label": label, "prediction": prediction}
    split = Split.from_arrays(np.zeros((120, 2, 2), np.uint8), label, {"film": [f"film {f}" for f in film]})
    return Evaluation(summarize(metric, ClassCounts([60, 60])), predictions), split


def test_films_that_are_right_as_a_whole_count_as_one_image_each(evaluated: tuple[Evaluation, Split]) -> None:
    plain, split = evaluated
    grouped = with_group_intervals(plain, split, "film").summary
    intervals = grouped["intervals"]
    assert (intervals["unit"], intervals["correlation"]) == ("film", 1.0)
    for name in ("accuracy", "balanced_accuracy", "medium"):
        narrow, wide = plain.summary["intervals"][name], intervals[name]
        assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
        assert grouped[name] == plain.summary[name]
    assert len(grouped["per_class"]) == 2


@pytest.mark.parametrize("column", [None, "camera"])
def test_without_such_a_column_nothing_changes(evaluated: tuple[Evaluation, Split], column: str | None) -> None:
    plain, split = evaluated
    assert with_group_intervals(plain, split, column) is plain


def test_predictions_break_ties_as_the_metric_does() -> None:
    """Scores of bfloat16 are often equal: both name the first class of the highest."""
    from longtail.evaluation.metrics import tally_classes
    from longtail.evaluation.tallies import EvaluationMetrics
    from longtail.training.split_evaluation import TOP, predict_rows

    scores = torch.randint(0, 3, (500, 40), generator=torch.Generator().manual_seed(0)).float()
    labels = torch.randint(0, 40, (500,), generator=torch.Generator().manual_seed(1))
    rows, metric = predict_rows(scores, labels, torch.arange(500)), EvaluationMetrics(40)
    metric.update(scores, labels)
    assert torch.equal(tally_classes(labels, rows["prediction"], 40), metric.compute()["tallies"])
    assert torch.equal(rows["top5"][:, 0], rows["prediction"])
    assert rows["top5"].shape == (500, TOP)
    assert all(len(set(row)) == TOP for row in rows["top5"].tolist())
    torch.testing.assert_close(rows["confidence"], scores.softmax(dim=1).max(dim=1).values)
