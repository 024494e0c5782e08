"""Choosing the strength of an adjustment: against a search by hand, on logits whose best answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from longtail.counts import ClassCounts
from longtail.errors import LongtailError
from longtail.evaluation.posthoc import fit_temperature, logit_adjust, tau_normalize
from longtail.evaluation.tallies import EvaluationMetrics, summarize
from longtail.experiments.adjust import AdjustmentOptions, choose, confidences
from longtail.models.heads import CosineHead, LinearHead, ScaledHead
from longtail.models.preprocessing import Preprocessing
from longtail.run.model_files import ModelInfo, ModelSpec

COUNTS = (900, 90, 9, 1)
INFO = ModelInfo(
    ModelSpec("plain-cnn", "linear"), ("a", "b", "c", "d"), COUNTS, Preprocessing(8, (0.5,) * 3, (0.5,) * 3)
)
HEAD = LinearHead(6, 4)


def validation(count: int = 4000, *, sharpness: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of the training mix and the logits of a perfect classifier of them, ``sharpness`` times too sure."""
    source = np.random.default_rng(0)
    labels = source.choice(4, size=count, p=np.array(COUNTS) / 1000)
    likelihood = 1.2 * source.standard_normal((count, 4))
    likelihood[np.arange(count), labels] += 1.2**2  # of unit-variance evidence: the posterior's logits are exact
    logits = likelihood + np.log(np.array(COUNTS) / 1000)
    return torch.tensor(sharpness * logits, dtype=torch.float32), torch.tensor(labels)


def summary(scores: torch.Tensor, labels: torch.Tensor) -> dict[str, object]:
    metric = EvaluationMetrics(4)
    metric.update(scores, labels)
    return dict(summarize(metric, ClassCounts(COUNTS)))


@pytest.mark.parametrize("metric", ["balanced_accuracy", "accuracy", "harmonic_mean"])
def test_the_strength_is_the_smallest_of_the_best(metric: str) -> None:
    logits, labels = validation()
    adjustment = choose(INFO, HEAD, logits, labels, AdjustmentOptions(metric=metric, temperature=1.0)).adjustment
    assert adjustment is not None
    grid = [step / 10 for step in range(21)]
    figures = [summary(logit_adjust(logits, COUNTS, tau), labels)[metric] for tau in grid]
    assert adjustment.chosen["tried"] == {"tau": grid, metric: pytest.approx(figures)}
    assert adjustment.chosen["tau"] == grid[int(np.argmax(figures))]
    torch.testing.assert_close(adjustment.apply(logits), logit_adjust(logits, COUNTS, adjustment.chosen["tau"]))


def test_a_perfect_classifier_that_is_too_sure_is_cooled_and_then_adjusted_by_about_one() -> None:
    logits, labels = validation(sharpness=3.0)
    chosen = choose(INFO, HEAD, logits, labels, AdjustmentOptions()).adjustment.chosen
    assert chosen["temperature"] == pytest.approx(3.0, rel=0.1)
    assert 0.6 <= chosen["tau"] <= 1.4
    assert (chosen["tau_from"], chosen["temperature_from"]) == ("validation", "validation")


def test_accuracy_on_the_training_mix_wants_no_adjustment() -> None:
    logits, labels = validation()
    assert choose(INFO, HEAD, logits, labels, AdjustmentOptions(metric="accuracy")).adjustment.chosen["tau"] <= 0.2


def test_the_scale_of_a_cosine_classifier_is_kept() -> None:
    logits, labels = validation()
    cosine = choose(replace(INFO, logit_scale=20.0), HEAD, logits / 20, labels, AdjustmentOptions()).adjustment
    linear = choose(INFO, HEAD, logits, labels, AdjustmentOptions()).adjustment
    assert cosine.chosen["tau"] == linear.chosen["tau"]
    torch.testing.assert_close(cosine.apply(logits / 20), linear.apply(logits), rtol=1e-4, atol=1e-4)


def test_the_likelihood_is_balanced_where_a_uniform_mix_is_assumed() -> None:
    logits, labels = validation(sharpness=2.0)
    chosen = choose(
        replace(INFO, prior="uniform"), HEAD, logits, labels, AdjustmentOptions(method="none")
    ).adjustment.chosen
    weight = 1 / torch.bincount(labels)[labels].double()
    assert chosen["temperature"] == pytest.approx(fit_temperature(logits, labels, weight=weight), rel=1e-6)
    assert chosen["temperature"] != pytest.approx(fit_temperature(logits, labels), rel=0.05)


def test_tau_normalization_of_linear_and_scaled_classifiers() -> None:
    torch.manual_seed(0)
    head = LinearHead(6, 4)
    with torch.no_grad():
        head.weight.mul_(torch.tensor([[4.0], [2.0], [1.0], [0.3]]))
        head.bias.uniform_()
    scaled = ScaledHead(head, 4)
    with torch.no_grad():
        scaled.scale_logits.copy_(torch.tensor([0.5, 1.0, 2.0, 1.0]))
    features, labels = torch.randn(200, 6), torch.randint(0, 4, (200,))
    for kind, weight in ((head, head.weight), (scaled, scaled.scale_logits[:, None] * head.weight)):
        logits = kind(features).detach()
        options = AdjustmentOptions(method="tau-norm", tau=0.7, temperature=1.0)
        adjusted = choose(INFO, kind, logits, labels, options).adjustment
        expected = features @ tau_normalize(weight.detach(), 0.7).T
        torch.testing.assert_close(adjusted.apply(logits), expected, rtol=1e-4, atol=1e-4)
        assert (adjusted.prior, adjusted.chosen["tau_from"]) == ("uniform", "given")
        free = choose(INFO, kind, logits, labels, AdjustmentOptions(method="tau-norm")).adjustment.chosen
        assert free["tried"]["tau"] == [step / 10 for step in range(11)]


def test_a_cosine_classifier_has_no_lengths() -> None:
    with pytest.raises(LongtailError, match="--method logit-adjustment"):
        choose(INFO, CosineHead(6, 4), *validation(10), AdjustmentOptions(method="tau-norm"))


def test_an_earlier_adjustment_has_no_say() -> None:
    logits, labels = validation()
    adjusted = choose(INFO, HEAD, logits, labels, AdjustmentOptions(coverage=0.8))
    assert choose(adjusted, HEAD, logits, labels, AdjustmentOptions(coverage=0.8)) == adjusted
    assert choose(adjusted, HEAD, logits, labels, AdjustmentOptions()).threshold is None


def test_images_that_are_all_right_say_nothing_of_the_temperature() -> None:
    labels = torch.arange(4)
    chosen = choose(INFO, HEAD, 5 * torch.eye(4), labels, AdjustmentOptions()).adjustment.chosen
    assert chosen["temperature"] == 1.0
    assert chosen["temperature_from"].startswith("kept")
    assert (chosen["tau"], chosen["classes_with_few_validation_images"]) == (0.0, 4)


def test_classes_without_validation_images_are_left_out_of_the_figures() -> None:
    logits, labels = validation()
    some = labels < 2
    chosen = choose(INFO, HEAD, logits[some], labels[some], AdjustmentOptions()).adjustment.chosen
    assert all(0 < value < 1 for value in chosen["tried"]["balanced_accuracy"])
    assert chosen["classes_with_few_validation_images"] == 2


@pytest.mark.parametrize(("asked", "value"), [("coverage", 0.7), ("accuracy", 0.95)])
def test_the_threshold_keeps_what_was_asked_for(asked: str, value: float) -> None:
    logits, labels = validation()
    info = choose(INFO, HEAD, logits, labels, AdjustmentOptions(**{asked: value}))
    confidence, right = confidences(info.scores(logits), labels)
    sure = confidence.double() >= info.threshold
    reached = sure if asked == "coverage" else right[sure]
    assert float(reached.double().mean()) == pytest.approx(value, abs=0.002)
    facts = info.adjustment.chosen["threshold"]
    assert facts["asked"] == {asked: value}
    assert facts["validation"]["coverage"] == pytest.approx(float(sure.double().mean()))
    assert facts["validation"]["accuracy"] == pytest.approx(float(right[sure].double().mean()))


def test_an_accuracy_that_cannot_be_had() -> None:
    with pytest.raises(LongtailError, match=r"at best 0\.000"):
        choose(INFO, HEAD, torch.eye(4), torch.tensor([1, 2, 3, 0]), AdjustmentOptions(method="none", accuracy=0.9))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"coverage": 0.9, "accuracy": 0.9}, "--threshold-coverage and --threshold-accuracy"),
        ({"method": "none", "tau": 1.0}, "--tau"),
    ],
)
def test_options_that_cannot_be(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(LongtailError, match=message):
        AdjustmentOptions(**wrong)
