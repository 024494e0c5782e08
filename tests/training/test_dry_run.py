"""The plan of a run: what it would compare and has time for."""

from __future__ import annotations

import pytest

from longtail.config.build import with_options
from longtail.config.resolve import resolve
from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.training import contest as contest_module
from longtail.training.candidates import candidates
from longtail.training.contest import Contest
from longtail.training.dry_run import describe_plan

QUIET = Reporter(quiet=True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Digits at three sizes, of which the largest takes more than half of the limit; a network of random weights."""
    seconds = {4: 0.001, 8: 0.001, 16: 0.3}
    monkeypatch.setattr(Contest, "seconds_per_image", lambda _, shown: seconds[shown.size])
    monkeypatch.setattr(contest_module, "measure_training_rate", lambda *_, **__: 1000.0)
    monkeypatch.setattr(contest_module, "relative_slowness", lambda: 1.0)
    options = {"data.source": "digits", "model.name": "plain-cnn", "data.image_size": 16, "search.sizes": [4, 8, 16]}
    chosen = {"stage1.train": "classifier", "stage1.cached_views": 1, "stage1.loss.name": "auto", "stage1.epochs": 8}
    return resolve(options | chosen | {"training.time_limit": 1300.0})


@pytest.mark.parametrize("is_kept", [False, True])
def test_sizes_for_which_no_time_is_left_besides_the_whole_network_are_not_promised(
    is_kept: bool, asked: RunConfig
) -> None:
    lines = describe_plan(with_options(asked, {"search.finetuning": is_kept}), QUIET)
    late = [line for line in lines if "no time" in line]
    assert [("16 px" in line) for line in late] == [True] * is_kept
    tried = [line for line in lines if "whole network" in line]
    assert [("1e+03 images/s" in line, " 30 epochs" in line) for line in tried] == [(True, True)] * is_kept


def test_the_classifiers_are_those_of_the_kind_that_was_asked_for(asked: RunConfig) -> None:
    cosine = with_options(asked, {"model.head": "cosine", "search.sizes": []})
    cosine = with_options(cosine, {"data.image_size": 8, "data.resize": 8})
    tried = candidates(64, 1200, "cosine")
    lines = describe_plan(cosine, QUIET)
    assert any(f"classifiers: {len(tried)}," in line for line in lines)
    assert not any("logit-adjustment" in line for line in lines)
    assert 0 < len(tried) < len(candidates(64, 1200))


def test_where_none_will_be_chosen_the_plan_names_the_usual_one(
    asked: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest_module, "seconds_to_choose", lambda *_, **__: 2_297.0)
    options = {"training.time_limit": None, "search.sizes": [], "data.image_size": 8, "data.resize": 8}
    asked = with_options(asked, options)
    for option, value, loss in (
        ("model.head", "auto", "weighted"),
        ("model.head", "cosine", "ldam"),
        ("training.metric", "accuracy", "cross-entropy"),
    ):
        (line,) = [
            line for line in describe_plan(with_options(asked, {option: value}), QUIET) if line.startswith("classifier")
        ]
        assert loss in line
        assert "38 minutes" in line
