"""The portfolio: honest cross-validation, the choice, its description, and what trains it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from longtail.counts import ClassCounts
from longtail.errors import LongtailError
from longtail.models import build_model
from longtail.run.portfolio import describe_portfolio, read_portfolio, write_portfolio
from longtail.training.candidates import adjust_head, candidates, classifier_of, stages_of
from longtail.training.cross_validation import Samples, can_choose
from longtail.training.parallel_heads import train_heads
from longtail.training.portfolio import choose_classifier, seconds_to_choose, steps_to_choose

SIZES = (60, 24, 9)


def collection(seed=0, noise=1.0, features=12):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))
    centers = torch.randn(len(SIZES), features, generator=generator)
    return centers[labels] + noise * torch.randn(len(labels), features, generator=generator), labels


@pytest.fixture(scope="module")
def portfolio():
    features, labels = collection()
    counts = ClassCounts(SIZES)
    return choose_classifier(Samples(features, labels, counts, counts.groups()), epochs=10, batch_size=32)


def test_every_candidate_is_tried_and_the_finalists_come_first(portfolio) -> None:
    tried = {(each.name, each.plan.lr) for each in candidates(12, sum(SIZES))}
    assert {(each.name, each.lr) for each in portfolio.candidates} == tried
    scores = [each.score for each in portfolio.finalists]
    assert scores == sorted(scores, reverse=True)
    assert portfolio.candidates[: len(scores)] == portfolio.finalists
    assert {portfolio.folds, *(each.folds for each in portfolio.candidates)} == {5}


def test_the_choice_is_as_good_as_the_best_and_figures_have_intervals(portfolio) -> None:
    choice = portfolio.choice
    assert choice.behind <= choice.behind_error
    for each in portfolio.candidates:
        low, high = each.interval
        assert 0 <= low <= each.score <= high <= 1
        assert each.score == each.balanced_accuracy


def test_both_accuracies_have_intervals_under_the_chosen_adjustment_and_values_under_each(portfolio) -> None:
    for each in portfolio.candidates:
        assert each.interval == each.balanced_interval
        for value, (low, high) in (
            (each.accuracy, each.accuracy_interval),
            (each.balanced_accuracy, each.balanced_interval),
        ):
            assert 0 <= low <= value <= high <= 1
        assert (each.tau, each.accuracy, each.balanced_accuracy) in each.adjustments


def test_the_choice_is_the_first_that_is_within_a_standard_error_of_the_best(portfolio) -> None:
    order = [(each.name, each.plan.lr) for each in candidates(12, sum(SIZES))]
    equal = {(each.name, each.lr) for each in portfolio.finalists if each.behind <= each.behind_error}
    assert len(equal) > 1  # else nothing is tested
    assert (portfolio.choice.name, portfolio.choice.lr) == next(each for each in order if each in equal)


def test_a_table_has_logistic_regression_first_and_features_of_a_network_logit_adjustment() -> None:
    (table, network), tried = (candidates(size, 500)[0] for size in (256, 257)), candidates(12, 500)
    assert (table.name, table.plan.optimizer) == ("weighted", "adam")
    assert (network.name, network.plan.optimizer) == ("logit-adjustment", "adamw")
    assert [each.plan.weight_decay * 500 for each in tried[:3]] == pytest.approx([1, 10, 0.1])  # 1 / C
    assert {each.plan.optimizer for each in tried if each.plan.head == "cosine"} == {"adamw"}
    assert len(tried) == len(candidates(1280, 500)) == len({(each.name, each.plan.lr) for each in tried})


@pytest.mark.parametrize("strength", [0, 1, 2])
def test_the_class_weighted_candidates_of_a_table_are_logistic_regressions(strength) -> None:
    rows, labels = load_wine(return_X_y=True)
    kept = np.r_[:59, 59:89, 130:145]
    rows, labels = StandardScaler().fit_transform(rows[kept]), labels[kept]
    features, targets, counts = torch.from_numpy(rows).float(), torch.from_numpy(labels), ClassCounts([59, 30, 15])
    plan = candidates(rows.shape[1], len(rows))[strength].plan
    (weights,) = train_heads([plan], features, targets, counts, epochs=400, batch_size=len(rows), seed=0)

    inverse = 1 / (plan.weight_decay * len(rows))
    expected = LogisticRegression(C=inverse, class_weight="balanced").fit(rows, labels).predict_proba(rows)

    assert np.abs(weights.logits(0, features).softmax(dim=1).numpy() - expected).max() < 0.05


def test_many_images_drop_all_but_eight_after_the_first_fold() -> None:
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([800, 160, 60]))
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 12, generator=generator)[labels] + 2 * torch.randn(len(labels), 12, generator=generator)
    counts = ClassCounts([800, 160, 60])
    chosen = choose_classifier(Samples(features, labels, counts, counts.groups()), epochs=2, batch_size=256)
    assert len(chosen.finalists) == 8
    assert len(chosen.candidates) == len(candidates(12, 1_020))
    pairs = list(zip(chosen.first_round, chosen.finalists, strict=True))
    assert all((before.name, before.lr, before.folds) == (after.name, after.lr, 1) for before, after in pairs)
    assert {each.folds for each in chosen.candidates[8:]} == {1}


def test_few_images_keep_all_on_all_folds(portfolio) -> None:
    assert portfolio.candidates == portfolio.finalists == portfolio.first_round


def test_answers_are_those_of_classifiers_that_have_not_seen_the_image() -> None:
    # Labels without any relation to the features: what has seen them answers better than by chance, a third.
    _, labels = collection()
    counts, scores = ClassCounts(SIZES), []
    for seed in range(3):
        features = torch.randn(len(labels), 60, generator=torch.Generator().manual_seed(seed))
        chosen = choose_classifier(
            Samples(features, labels, counts, counts.groups(), seed=seed), epochs=10, batch_size=32
        )
        scores += [each.score for each in chosen.finalists]
    assert np.mean(scores) < 0.5


def test_images_of_a_unit_stay_in_one_fold() -> None:
    # Each row is there twice: with its twin in another fold, a class that nothing predicts is predicted.
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(45, 40, generator=generator)
    features, labels = rows.repeat_interleave(2, 0), (torch.arange(45) % 3).repeat_interleave(2)
    counts, units = ClassCounts([30] * 3), np.repeat(np.arange(45), 2)
    options = {"epochs": 20, "batch_size": 16}
    apart = choose_classifier(Samples(features, labels, counts, counts.groups()), **options)
    together = choose_classifier(Samples(features, labels, counts, counts.groups(), units=units), **options)
    assert apart.choice.score > 0.75
    assert together.choice.score < 0.6


def test_the_metric_decides() -> None:
    features, labels = collection(noise=2.0)
    counts = ClassCounts(SIZES)
    options = {"epochs": 10, "batch_size": 32}
    balanced, accurate = (
        choose_classifier(Samples(features, labels, counts, counts.groups(), metric), **options)
        for metric in ("balanced", "accuracy")
    )
    assert accurate.choice.accuracy > balanced.choice.accuracy
    assert balanced.choice.balanced_accuracy > accurate.choice.balanced_accuracy
    assert balanced.other_end.accuracy > balanced.choice.accuracy
    assert accurate.other_end.balanced_accuracy > accurate.choice.balanced_accuracy
    assert "--metric accuracy" in describe_portfolio(balanced)[-1]
    assert "--metric balanced" in describe_portfolio(accurate)[-1]


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_only_the_head_that_was_asked_for_is_tried(head) -> None:
    features, labels = collection()
    counts = ClassCounts(SIZES)
    chosen = choose_classifier(Samples(features, labels, counts, counts.groups()), head=head, epochs=2, batch_size=64)
    assert {each.head for each in chosen.candidates} == {head}


def test_too_few_images_are_refused() -> None:
    counts, labels = ClassCounts([20, 3]), np.array([0] * 20 + [1] * 3)
    assert not can_choose(labels, counts)
    enough, balanced = np.arange(60) % 2, ClassCounts([30, 30])
    assert can_choose(enough, balanced)
    assert not can_choose(enough, balanced, np.arange(60) // 30)  # two groups do not fill three folds
    with pytest.raises(LongtailError, match="too few images"):
        choose_classifier(Samples(torch.randn(23, 4), torch.tensor([0] * 20 + [1] * 3), counts, counts.groups()))


def test_a_retrained_choice_has_two_stages(portfolio) -> None:
    retrained = next(index for index, each in enumerate(portfolio.candidates) if each.retrained)
    chosen = classifier_of(replace(portfolio, chosen=retrained), 12, len(collection()[1]))
    first, second = stages_of(chosen, portfolio.epochs, portfolio.batch_size)
    assert second.sampler == "class-balanced"
    assert second.loss.options["focal_gamma"] == 1.0
    assert second.optimizer.lr < first.optimizer.lr


def test_it_is_read_as_it_was_written(portfolio, tmp_path) -> None:
    assert read_portfolio(tmp_path) is None
    write_portfolio(tmp_path, portfolio)
    assert read_portfolio(tmp_path) == portfolio
    (tmp_path / "portfolio.json").write_text("{}")
    with pytest.raises(LongtailError, match="metric"):
        read_portfolio(tmp_path)


def test_the_lines_name_the_choice_once(portfolio) -> None:
    lines = describe_portfolio(portfolio)
    assert portfolio.choice.title in lines[0]
    assert sum(line.startswith(" *") for line in lines) == 1
    assert len(lines) <= 8


def test_an_adjusted_head_adds_the_log_prior_and_twice_is_once() -> None:
    torch.manual_seed(0)
    model = build_model("plain-cnn", 3, "standardized-cosine").eval()
    images = torch.randn(4, 3, 28, 28)
    counts = ClassCounts([70, 20, 10])
    with torch.no_grad():
        before = model(images)
        for _ in range(2):
            adjust_head(model, 0.5, counts, scale=20.0)
        shift = 20 * (model(images) - before)
    assert torch.allclose(shift, -0.5 * torch.tensor([0.7, 0.2, 0.1]).log().expand(4, 3), atol=1e-4)


@pytest.mark.parametrize("images", [300, 1_200])
def test_every_step_is_counted(images: int) -> None:
    labels = torch.arange(images) % 3
    rows = torch.nn.functional.one_hot(labels, 5) + torch.randn(images, 5, generator=torch.Generator().manual_seed(0))
    counts, ticks = ClassCounts([images // 3] * 3), list[None]()
    choose_classifier(
        Samples(rows, labels, counts, counts.groups()), epochs=4, batch_size=100, tick=lambda: ticks.append(None)
    )
    most = steps_to_choose(images, 4, 100)
    assert most / 2 < len(ticks) <= most
    assert (images >= 1_000) or len(ticks) == most  # where all are finalists


def test_fewer_candidates_go_on_where_the_time_is_short() -> None:
    labels = torch.arange(1_200) % 3
    rows = torch.nn.functional.one_hot(labels, 5) + torch.randn(1_200, 5, generator=torch.Generator().manual_seed(0))
    counts = ClassCounts([400] * 3)
    tried = choose_classifier(Samples(rows, labels, counts, counts.groups()), epochs=2, within=0.001)
    assert len(tried.finalists) == 1
    assert len(tried.candidates) == len(candidates(5, 1_200))


def test_a_choice_takes_as_long_as_the_epochs_and_batches_that_were_asked_for() -> None:
    usual = seconds_to_choose(25_000, 1280, 121)
    assert seconds_to_choose(25_000, 1280, 121, epochs=8, batch_size=512) == usual
    assert seconds_to_choose(25_000, 1280, 121, epochs=100) > 10 * usual
    assert seconds_to_choose(25_000, 1280, 121, batch_size=64) > 5 * usual
