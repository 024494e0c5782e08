"""EvaluationMetrics and summarize: against scikit-learn and torchmetrics, and where something is empty."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, classification_report, log_loss
from torch import Tensor

from longtail import ClassCounts
from longtail.errors import LongtailError
from longtail.evaluation.tallies import EvaluationMetrics, summarize

COUNTS = ClassCounts([500, 120, 60, 25, 8], names=["a", "b", "c", "d", "e"])


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 5, (203,), generator=generator)
    return torch.randn(203, 5, generator=generator) + 1.5 * torch.eye(5)[target], target


def _metric(scores: Tensor, target: Tensor, batch: int = 32) -> EvaluationMetrics:
    metric = EvaluationMetrics(num_classes=5)
    for part, truth in zip(scores.split(batch), target.split(batch), strict=True):
        metric.update(part, truth)
    return metric


def test_agrees_with_scikit_learn(data: tuple[Tensor, Tensor]) -> None:
    scores, target = data
    summary = summarize(_metric(scores, target), COUNTS)
    prediction, probabilities = scores.argmax(1), scores.double().softmax(1)
    assert summary["num_images"] == 203
    assert summary["accuracy"] == pytest.approx(accuracy_score(target, prediction))
    assert summary["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(target, prediction))
    assert summary["nll"] == pytest.approx(log_loss(target, probabilities), rel=1e-6)
    report = classification_report(target, prediction, target_names=COUNTS.names, output_dict=True)
    for row in summary["per_class"]:
        expected = report[row["name"]]
        assert row["test_count"] == expected["support"]
        assert (row["recall"], row["precision"], row["f1"]) == pytest.approx(
            (expected["recall"], expected["precision"], expected["f1-score"])
        )


def test_agrees_with_torchmetrics(data: tuple[Tensor, Tensor]) -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

    scores, target = data
    result = _metric(scores, target).compute()
    confusion = multiclass_confusion_matrix(scores, target, num_classes=5)
    assert torch.equal(result["tallies"], torch.stack([confusion.diagonal(), confusion.sum(1), confusion.sum(0)]))
    error = multiclass_calibration_error(scores.softmax(1), target, num_classes=5, n_bins=15)
    assert result["ece"].item() == pytest.approx(error.item(), rel=1e-5)


def test_groups_are_means_of_class_recalls(data: tuple[Tensor, Tensor]) -> None:
    summary = summarize(_metric(*data), COUNTS)
    recall = [row["recall"] for row in summary["per_class"]]
    assert summary["many"] == pytest.approx((recall[0] + recall[1]) / 2)
    assert summary["medium"] == pytest.approx((recall[2] + recall[3]) / 2)
    assert summary["few"] == recall[4]
    assert [row["group"] for row in summary["per_class"]] == ["many", "many", "medium", "medium", "few"]
    assert [row["train_count"] for row in summary["per_class"]] == list(COUNTS)
    assert summary["worst_class"] == min(recall)
    assert summary["harmonic_mean"] == pytest.approx(5 / sum(1 / value for value in recall))


def test_other_groups_may_be_given(data: tuple[Tensor, Tensor]) -> None:
    summary = summarize(_metric(*data), COUNTS, {"many": [0], "few": [3, 4]})
    recall = [row["recall"] for row in summary["per_class"]]
    assert summary["medium"] is None
    assert summary["few"] == pytest.approx((recall[3] + recall[4]) / 2)
    assert [row["group"] for row in summary["per_class"]] == ["many", None, None, "few", "few"]


@pytest.mark.parametrize("batch", [1, 50, 203])
def test_batches_do_not_matter(batch: int, data: tuple[Tensor, Tensor]) -> None:
    whole, parts = summarize(_metric(*data, batch=203), COUNTS), summarize(_metric(*data, batch=batch), COUNTS)
    assert parts["per_class"] == whole["per_class"]
    assert (parts["nll"], parts["ece"]) == pytest.approx((whole["nll"], whole["ece"]), rel=1e-6)


def test_permuting_classes_permutes_the_rows(data: tuple[Tensor, Tensor]) -> None:
    scores, target = data
    order = [3, 0, 4, 2, 1]
    permuted = summarize(_metric(scores[:, order], torch.tensor(order).argsort()[target]), COUNTS.permute(order))
    plain = summarize(_metric(scores, target), COUNTS)
    assert permuted["per_class"] == [plain["per_class"][index] for index in order]
    assert permuted["few"] == plain["few"]
    assert permuted["harmonic_mean"] == pytest.approx(plain["harmonic_mean"])


def test_empty_classes_and_groups_are_null_and_not_zero() -> None:
    metric = EvaluationMetrics(num_classes=3)
    metric.update(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 0]))
    summary = summarize(metric, ClassCounts([500, 300, 4]))
    assert summary["many"] == 0.5  # class 1 has no test image and does not count
    assert summary["medium"] is None
    assert summary["few"] is None
    assert summary["worst_class"] == summary["balanced_accuracy"] == summary["harmonic_mean"] == 0.5
    assert summary["per_class"][1]["recall"] is None
    assert summary["per_class"][1]["precision"] == 0.0
    assert summary["per_class"][2]["precision"] is None
    json.dumps(summary, allow_nan=False)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_image_at_all_is_null_everywhere() -> None:
    metric = EvaluationMetrics(num_classes=2)
    metric.update(torch.empty(0, 2), torch.empty(0, dtype=torch.int64))
    summary = summarize(metric, ClassCounts([5, 3]))
    assert summary.pop("num_images") == 0
    assert all(value is None for name, value in summary.items() if name not in {"per_class", "intervals"})
    assert all(summary["intervals"][name] is None for name in ("accuracy", "few", "balanced_accuracy", "worst_class"))
    json.dumps(summary, allow_nan=False)


def test_class_that_is_never_right_makes_the_harmonic_mean_zero() -> None:
    metric = EvaluationMetrics(num_classes=2)
    metric.update(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    summary = summarize(metric, ClassCounts([5, 3]))
    assert (summary["harmonic_mean"], summary["worst_class"]) == (0.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype, data: tuple[Tensor, Tensor]) -> None:
    scores, target = data[0].to(torch.bfloat16).to(dtype), data[1]
    exact = summarize(_metric(scores.double(), target), COUNTS)
    assert summarize(_metric(scores, target), COUNTS)["nll"] == pytest.approx(exact["nll"], rel=1e-5)


def test_forward_and_reset_keep_the_books(data: tuple[Tensor, Tensor]) -> None:
    scores, target = data
    metric = EvaluationMetrics(num_classes=5)
    first = metric(scores[:100], target[:100])
    assert first["tallies"].sum(dim=1).tolist()[1:] == [100, 100]
    metric(scores[100:], target[100:])
    assert torch.equal(metric.compute()["tallies"], _metric(scores, target).compute()["tallies"])
    metric.reset()
    assert not metric.tallies.any()


def test_many_classes_are_cheap_to_update() -> None:
    metric = EvaluationMetrics(num_classes=4000)
    target = torch.randint(0, 4000, (256,))
    metric.update(torch.eye(4000)[target], target)
    assert metric.compute()["accuracy"] == 1.0


def test_broken_network_is_said_so() -> None:
    metric = EvaluationMetrics(num_classes=2)
    metric.update(torch.tensor([[float("nan"), 0.0]]), torch.tensor([1]))
    with pytest.raises(LongtailError, match="learning rate"):
        summarize(metric, ClassCounts([5, 3]))


@pytest.mark.parametrize(
    ("scores", "target"),
    [
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 2), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 2), torch.tensor([0, 2])),
        (torch.zeros(2, 2), torch.tensor([0, -1])),
    ],
)
def test_what_does_not_fit_is_refused(scores: Tensor, target: Tensor) -> None:
    with pytest.raises(ValueError, match="EvaluationMetrics"):
        EvaluationMetrics(num_classes=2).update(scores, target)


def test_counts_of_another_data_set_are_refused() -> None:
    with pytest.raises(ValueError, match="counts"):
        summarize(EvaluationMetrics(num_classes=2), ClassCounts([5, 3, 1]))


def test_two_processes_agree_with_one(tmp_path: Path, launch_two: Callable[..., None]) -> None:
    """Over two gloo processes with shares of unequal size, as over one."""
    generator = torch.Generator().manual_seed(0)
    scores, counts = torch.randn(100, 6, generator=generator), torch.tensor([400, 150, 60, 30, 12, 3])
    target = torch.randint(0, 5, (100,), generator=generator)  # class 5 has no test image
    torch.save({"scores": scores, "target": target, "counts": counts}, tmp_path / "scores.pt")
    shares = ["73", "100"]  # images of the first process: an unequal share, and one that leaves the other nothing
    launch_two(Path(__file__).parent / "metric_worker.py", str(tmp_path), *shares)

    metric = EvaluationMetrics(num_classes=6)
    metric.update(scores, target)
    expected = summarize(metric, ClassCounts(counts.tolist()))
    for path in [tmp_path / f"summary-{first}-{rank}.json" for first in shares for rank in range(2)]:
        shared = json.loads(path.read_text())
        assert shared["per_class"] == expected["per_class"]
        assert shared["num_images"] == 100
        for name, value in expected.items():
            if isinstance(value, float):
                assert shared[name] == pytest.approx(value, rel=1e-12), name
