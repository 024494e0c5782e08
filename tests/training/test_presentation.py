"""The contest of networks, image sizes and fits: its sample, what the time allows, and what a run takes from it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from digits_network import train_digits_network
from safetensors.torch import load_file

from longtail.compare.seeds import fold
from longtail.config.auto import Facts, choose
from longtail.config.build import with_options
from longtail.config.resolve import resolve
from longtail.config.schema import Choice, RunConfig
from longtail.config.stage import FINETUNING
from longtail.console import Interrupted, Reporter
from longtail.errors import LongtailError
from longtail.experiments.grid_plan import PlannedRun, state_of
from longtail.formatting import duration_text
from longtail.run.layout import read_config
from longtail.run.portfolio import read_portfolio
from longtail.run.result import read_run
from longtail.run.search import NO_MORE, Presentation, Search, describe_search, read_search
from longtail.training import contest as contest_module
from longtail.training import network_trials, portfolio
from longtail.training.candidates import candidates
from longtail.training.contest import Contest, sample_rows, with_presentation
from longtail.training.cross_validation import Samples
from longtail.training.engine import Engine
from longtail.training.judgment import TAUS, HeldOut, Judgment
from longtail.training.launch import resume_run, start_run
from longtail.training.loop import Progress
from longtail.training.prepared_data import prepare_data
from longtail.training.presentation import choose_presentation, longest_seconds, plan_comparison
from longtail.training.time_estimate import TimeLimit

QUIET = Reporter(quiet=True)


@pytest.fixture(autouse=True)
def _few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that presentations are judged by: what is chosen from all of them has tests of its own."""
    few = {"logit-adjustment", "kps"}
    monkeypatch.setattr(
        portfolio, "candidates", lambda *facts: [each for each in candidates(*facts) if each.name in few]
    )


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Digits, of which a small network with weights of its own is shown 4, 8 or 16 pixels."""
    options = train_digits_network(tmp_path_factory.mktemp("start"), ratio=10.0, epochs=3)
    return resolve(options | {"stage1.epochs": 8, "search.sizes": [4, 8, 16]})


def contest_of(config: RunConfig, limit: TimeLimit | None = None) -> Contest:
    prepared = prepare_data(config.data)
    limit = limit or TimeLimit(config.training.time_limit)
    return Contest(config, prepared, Engine(config.training), QUIET, {"features": 0.0}, limit)


def test_the_sample_keeps_small_classes_whole_and_cuts_large_ones_alike() -> None:
    labels = np.repeat(np.arange(4), (500, 300, 30, 2))
    rows = sample_rows(labels, 150)
    assert np.bincount(labels[rows]).tolist() == [59, 59, 30, 2]
    assert (np.diff(rows) > 0).all()
    assert not np.array_equal(rows, sample_rows(labels, 150, seed=1))


def test_images_of_a_unit_are_sampled_together() -> None:
    labels, units = np.zeros(90, dtype=np.int64), np.arange(90) // 3
    rows = sample_rows(labels, 20, units=units)
    sizes = np.bincount(units[rows])
    assert set(sizes.tolist()) == {0, 3}
    assert 20 <= len(rows) <= 22


def test_every_class_has_enough_to_be_judged_even_in_a_sample_that_is_too_small() -> None:
    labels = np.repeat(np.arange(10), 50)
    assert np.bincount(labels[sample_rows(labels, 20)]).tolist() == [contest_module.FEWEST] * 10


def test_more_pixels_win_where_they_show_more(asked: RunConfig) -> None:
    config, search = choose_presentation(contest_of(asked))
    assert search is not None
    assert [each.presentation.size for each in search.tried] == [4, 8, 16]
    scores = [each.score or 0.0 for each in search.tried]
    assert scores[2] > scores[0] + 0.2
    assert config.data.image_size == search.choice.presentation.size > 4
    assert (config.data.resize, config.search.sizes) == (config.data.image_size, [])
    assert config.is_to_be_chosen


def test_what_the_time_does_not_allow_is_left_out_and_said(asked: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {4: 0.001, 8: 0.01, 16: 10.0}
    contest = contest_of(asked, TimeLimit(120.0))
    monkeypatch.setattr(contest_module, "seconds_per_feature", lambda _: rates[contest.sizes[len(contest.results)]])
    config, search = choose_presentation(contest)
    assert search is not None
    assert [each.score is None for each in search.presentations] == [False, False, True]
    assert config.data.image_size in {4, 8}
    assert "16 px" in search.more_time


@pytest.mark.parametrize(("rate", "largest"), [(1000.0, 8), (1.0, 16)])
def test_half_of_the_time_is_kept_for_the_whole_network_where_that_is_enough(
    rate: float, largest: int, asked: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {4: 0.001, 8: 0.001, 16: 0.35}  # of an image: 16 pixels take more than half of the limit
    config = with_options(asked, {"search.finetuning": True})
    contest = contest_of(config, TimeLimit(1000.0))
    monkeypatch.setattr(contest_module, "measure_training_rate", lambda *_, **__: rate)
    monkeypatch.setattr(contest_module, "seconds_per_feature", lambda _: seconds[contest.sizes[len(contest.results)]])
    _, search = choose_presentation(contest)
    assert search is not None
    assert max(each.presentation.size for each in search.tried) == largest


def judged_at(score: float) -> Callable[..., Judgment]:
    """Stands in for ``judge_candidate``: the classifier on the frozen network has that score."""
    return lambda _, samples, *__, **___: judged_alike(samples.metric, score)


FIRST, SECOND = "plain-cnn", "resnet20"


@pytest.fixture
def judged(asked: RunConfig, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Two networks, sizes and fits whose features are not computed: larger, padded, and the second are better."""

    def set_up(_: Contest, shown: Presentation) -> SimpleNamespace:
        better = (shown.size == 8) + (shown.fit == "pad") + (shown.network == SECOND)
        stored = SimpleNamespace(features=torch.full((1, 1, 64), 0.5 + 0.1 * better), labels=torch.zeros(1))
        return SimpleNamespace(
            model=SimpleNamespace(num_features=64), features=SimpleNamespace(plain=lambda *_: stored)
        )

    def judge(samples: Samples, *_: object) -> Judgment:
        return judged_alike(samples.metric, samples.features.max().item())

    monkeypatch.setattr(Contest, "set_up", set_up)
    monkeypatch.setattr(contest_module, "judge_features", judge)
    monkeypatch.setattr(contest_module, "relative_slowness", lambda: 1.0)
    monkeypatch.setattr(contest_module, "measure_training_rate", lambda *_, **__: 100.0)
    options = {"search.networks": [FIRST, SECOND], "search.sizes": [4, 8], "search.fits": ["crop", "pad"]}
    reasons = {"model.name": FIRST, "data.image_size": 8, "mode": "linear"}
    return replace(with_options(asked, options), reasons=[Choice(*each, "usual") for each in reasons.items()])


@pytest.mark.parametrize(("seconds", "taken"), [(0.5, SECOND), (1.5, FIRST)])
def test_fits_and_networks_are_compared_at_the_best_so_far_networks_within_a_tenth_of_the_time(
    seconds: float, taken: str, judged: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest = contest_of(judged, TimeLimit(10_000.0))
    slow = 1000.0 * seconds / len(contest.sample)  # for a tenth of the limit
    monkeypatch.setattr(Contest, "seconds_per_image", lambda _, shown: slow if shown.network == SECOND else 0.001)
    config, search = choose_presentation(contest)
    assert search is not None
    tried = [(each.presentation.size, each.presentation.fit, each.presentation.network) for each in search.tried]
    first = [(4, "crop", FIRST), (8, "crop", FIRST), (8, "pad", FIRST)]
    assert tried == first + [(8, "pad", SECOND)] * (taken == SECOND)
    assert (config.model.name, config.data.image_size, config.data.fit) == (taken, 8, "pad")
    assert search.choice.presentation == Presentation(taken, 8, "pad")
    assert f"the best of {len(tried)}" in describe_search(search)
    name, size, mode = config.reasons
    assert isinstance(name, Choice)
    assert (name.value, name.reason == "usual") == (taken, taken == FIRST)  # one network alone was not compared
    assert isinstance(size, Choice)
    assert (size.value, str(len(tried)) in size.reason) == (8, True)
    assert mode == Choice("mode", "linear", "usual")


@pytest.mark.parametrize("seconds", [0.001, 1.0])
def test_a_comparison_says_how_long_it_and_the_run_take_unless_they_are_short(
    seconds: float, judged: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Contest, "seconds_per_image", lambda *_: seconds)
    for estimate in ("seconds_to_choose", "seconds_to_judge"):
        monkeypatch.setattr(contest_module, estimate, lambda *_, **__: 1.0)
    contest = contest_of(judged)
    monkeypatch.setattr(contest, "reporter", SimpleNamespace(say=said.append))
    planned = plan_comparison(contest)
    assert list(planned) == [
        Presentation(FIRST, 4, "crop"),
        Presentation(FIRST, 8, "crop"),
        Presentation(FIRST, 8, "pad"),
        Presentation(SECOND, 8, "crop"),
    ]
    total = longest_seconds(contest, planned)
    images = 4 * len(contest.sample) + contest.images
    assert total > seconds * images
    choose_presentation(contest)
    assert ("at most" in said[0] and duration_text(total) in said[0]) == (seconds == 1.0)


def test_of_those_as_good_as_the_best_the_fastest_is_taken(judged: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest_module, "judge_features", lambda samples, _: judged_alike(samples.metric, 0.5))
    monkeypatch.setattr(Contest, "seconds_per_image", lambda _, shown: 0.001 * shown.size)
    config, search = choose_presentation(contest_of(judged))
    assert search is not None
    assert (len(search.tried), config.data.image_size) == (4, 4)


@pytest.mark.parametrize(("limit", "is_chosen"), [(None, False), (36_000.0, True), (6_000.0, False)])
def test_a_limit_says_how_long_a_choice_may_take_else_half_an_hour(
    limit: float | None, is_chosen: bool, judged: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest_module, "seconds_to_choose", lambda *_, **__: 5_500.0)
    monkeypatch.setattr(contest_module, "relative_slowness", lambda: 1.0)
    monkeypatch.setattr(Contest, "seconds_per_image", lambda *_: 0.001)
    contest = contest_of(judged, TimeLimit(limit))
    assert (contest.expected_hindrance == "") == is_chosen
    assert (contest.seconds_of_run(contest.first) > 5_500) == is_chosen


def test_no_time_is_kept_for_the_whole_network_where_the_frozen_one_needs_more_than_half(
    judged: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest = contest_of(with_options(judged, {"search.finetuning": True}), TimeLimit(1000.0))
    monkeypatch.setattr(Contest, "seconds_per_image", lambda *_: 600.0 / contest.images)
    assert contest.kept_for_finetuning == 0.0
    monkeypatch.setattr(Contest, "seconds_per_image", lambda *_: 100.0 / contest.images)
    other = contest_of(contest.config, TimeLimit(1000.0))
    assert other.kept_for_finetuning == pytest.approx(500.0, abs=5.0)


def test_fine_tuning_that_was_asked_for_needs_an_epoch_from_the_start(
    judged: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest_module, "relative_slowness", lambda: 1.0)
    monkeypatch.setattr(Contest, "seconds_per_image", lambda *_: 0.001)
    config = with_options(judged, {"finetune.epochs": 4})
    contest = contest_of(config, TimeLimit(1e6))
    needed = (4 * contest.training_images + contest.evaluated / 3) / 100.0  # at 100 images/s
    assert contest.seconds_to_finetune(contest.first) == pytest.approx(needed)
    epoch = (contest.training_images + contest.evaluated / 3) / 100.0
    contest_of(config, TimeLimit(1.15 * epoch + 20.0)).require_time()
    with pytest.raises(LongtailError, match="shortest possible"):
        start_run(with_options(config, {"training.time_limit": 1.15 * epoch}), tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


def test_a_choice_leaves_the_time_of_the_epoch_that_was_promised(
    judged: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Contest, "seconds_per_image", lambda *_: 0.001)
    monkeypatch.setattr(contest_module, "measure_training_rate", lambda *_, **__: 1.0)
    monkeypatch.setattr(contest_module, "seconds_to_choose", lambda *_, **__: 800.0)
    plain, tuned = (
        contest_of(with_options(judged, {"finetune.epochs": epochs}), TimeLimit(1000.0)) for epochs in (0, 4)
    )
    epoch = tuned.training_images + tuned.evaluated / 3  # at an image a second
    left = plain.seconds_left_to_choose(plain.first)
    assert left - tuned.seconds_left_to_choose(tuned.first) == pytest.approx(1.15 * epoch, abs=5.0)
    assert (plain.expected_hindrance == "", tuned.expected_hindrance == "") == (True, False)


@pytest.mark.parametrize(("limit", "size"), [(None, 8), (600.0, 8), (1e5, 4)])
def test_judging_that_takes_long_is_counted_and_left_out_where_there_is_no_time_for_it(
    limit: float | None, size: int, judged: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest_module, "judge_features", lambda samples, _: judged_alike(samples.metric, 0.5))
    monkeypatch.setattr(contest_module, "seconds_to_judge", lambda *_: 1000.0)
    monkeypatch.setattr(Contest, "seconds_per_image", lambda _, shown: 0.001 * shown.size)
    options = {"search.networks": [], "search.fits": [], "search.sizes": [4, 8]}
    contest = contest_of(with_options(judged, options), TimeLimit(limit))
    config, search = choose_presentation(contest)
    assert (search is not None) == (size == 4)  # compared, and the fastest of two that are alike
    assert config.data.image_size == size
    assert contest.seconds_for_sample(contest.first) > 1000
    assert search is None or search.presentations[0].minutes > 1000 / 60


def test_a_search_of_one_leaves_the_option_as_it_is(judged: RunConfig) -> None:
    search = {"search.networks": [SECOND], "search.sizes": [4, 8], "search.fits": ["pad"]}
    contest = contest_of(with_options(judged, search))
    assert (contest.networks, contest.sizes, contest.fits) == ([FIRST], [4, 8], ["crop"])


def test_a_limit_that_is_too_short_for_anything_is_refused_and_leaves_nothing(asked: RunConfig, tmp_path: Path) -> None:
    config = with_options(asked, {"training.time_limit": 1.0})
    with pytest.raises(LongtailError, match="shortest possible"):
        start_run(config, tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


def test_a_run_takes_the_choice_and_is_repeated_without_choosing(asked: RunConfig, tmp_path: Path) -> None:
    start_run(asked, tmp_path / "run", QUIET)
    search, config = read_search(tmp_path / "run"), read_config(tmp_path / "run")
    assert isinstance(search, Search)
    assert config.data.image_size == search.choice.presentation.size
    assert not config.is_open
    assert read_portfolio(tmp_path / "run") is not None
    start_run(config, tmp_path / "again", QUIET)
    assert read_search(tmp_path / "again") is None
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "again"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_grid_and_other_seeds_know_the_run_again_by_what_was_open(asked: RunConfig, tmp_path: Path) -> None:
    for seed in (0, 1):
        start_run(with_options(asked, {"training.seed": seed}), tmp_path / str(seed) / "run", QUIET)
    planned = PlannedRun(name="auto", seed=0, baseline="auto", folder=tmp_path / "0" / "run", config=asked)
    assert state_of(planned) == "started"  # not of another configuration
    with pytest.raises(LongtailError, match=r"search\.sizes"):
        state_of(replace(planned, config=with_options(asked, {"search.sizes": [4, 16]})))
    assert len(fold([read_run(tmp_path / str(seed) / "run") for seed in (0, 1)])) == 1


def test_a_named_loss_leaves_the_size_open_only(asked: RunConfig, tmp_path: Path) -> None:
    config = resolve(
        {"stage1.loss.name": "gcl", "model.head": "cosine"}
        | {"data.source": "digits", "data.image_size": 16, "data.resize": 16, "model.name": "plain-cnn"}
        | {"model.weights": asked.model.weights, "search.sizes": [4, 16], "training.precision": "fp32"}
        | {"stage1.train": "classifier", "stage1.cached_views": 1, "stage1.epochs": 2}
    )
    start_run(config, tmp_path / "run", QUIET)
    assert read_portfolio(tmp_path / "run") is None
    search = read_search(tmp_path / "run")
    assert search is not None
    assert len(search.tried) == 2
    assert read_config(tmp_path / "run").stage1.loss.name == "gcl"


def test_a_network_brings_its_normalization_along() -> None:
    config = with_presentation(RunConfig(), Presentation("timm:resnet18", 96, "crop"))
    assert config.data.mean == pytest.approx([0.485, 0.456, 0.406])
    assert not config.search.networks


def test_another_size_keeps_the_normalization_that_was_given() -> None:
    given = {"model.name": "timm:resnet18", "data.image_size": 224, "data.resize": 256, "data.mean": [0.1, 0.2, 0.3]}
    config = with_options(RunConfig(), given)
    data = with_presentation(config, Presentation("timm:resnet18", 112, "crop")).data
    assert (data.image_size, data.resize, data.mean) == (112, 128, [0.1, 0.2, 0.3])


# --- training the whole network ---------------------------------------------------------------------------------------


@pytest.fixture
def finetuned(asked: RunConfig, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Minutes that no test waits for, as training is said to be fast and a stage takes an epoch."""
    for module in (contest_module, network_trials):
        monkeypatch.setattr(module, "measure_training_rate", lambda *_, **__: 1000.0)
    stage = {"epochs": 2, "epoch_share": 1.0}
    monkeypatch.setattr(
        network_trials, "finetune_stage", lambda of, *_: replace(FINETUNING, loss=of.loss, batch_size=64, **stage)
    )
    return with_options(asked, {"search.finetuning": True, "search.sizes": [8, 16], "training.time_limit": 600.0})


def test_the_whole_network_is_trained_where_it_wins_also_where_no_classifier_could_be_chosen(
    finetuned: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Contest, "hindrance", lambda *_: "that takes too long")
    monkeypatch.setattr(network_trials, "judge_candidate", judged_at(0.0))
    usual = Choice("model.name", "plain-cnn", "small")
    finetuned = replace(finetuned, reasons=[Choice("mode", "linear", "no GPU"), usual])
    metrics = start_run(finetuned, tmp_path / "run", QUIET)
    search, config, tried = (read(tmp_path / "run") for read in (read_search, read_config, read_portfolio))
    assert search is not None
    assert tried is not None
    (trial,) = search.trials
    assert not tried.candidates
    assert trial.gain == pytest.approx(trial.score - trial.frozen_score)
    assert trial.frozen_score == 0.0 < trial.score
    assert 0.18 < trial.images / len(prepare_data(finetuned.data).data.splits["train"]) < 0.22
    assert trial.taken
    assert (config.finetune.epochs, list(config.stages), config.model.tau) == (2, [1, 3], trial.tau)
    assert config.stage1.loss.name == config.finetune.loss.name == "weighted"
    mode, name = config.reasons
    assert isinstance(mode, Choice)
    assert (str(trial.images) in mode.reason, mode.value) == (True, "linear, then all of the network")
    assert name == usual
    assert not config.is_open
    assert ["test" in metrics["stages"][stage] for stage in ("stage1", "stage3")] == [False, True]  # it is seen once
    assert not list(Path(tempfile.gettempdir()).glob("longtail-*/checkpoint"))


def test_it_is_left_out_where_it_loses(finetuned: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = network_trials.HeldOut.judge
    monkeypatch.setattr(
        network_trials.HeldOut, "judge", lambda out, logits, *taus: real(out, torch.zeros_like(logits), *taus)
    )
    monkeypatch.setattr(network_trials, "judge_candidate", judged_at(1.0))
    finetuned = replace(finetuned, reasons=[Choice("mode", "linear", "there is no GPU")])
    start_run(finetuned, tmp_path / "run", QUIET)
    search, config = read_search(tmp_path / "run"), read_config(tmp_path / "run")
    assert search is not None
    assert [trial.taken for trial in search.trials] == [False]
    assert "on trial" in search.more_time
    assert config.finetune.epochs == 0
    assert config.data.image_size == search.choice.presentation.size
    (mode,) = config.reasons
    assert isinstance(mode, Choice)
    assert (mode.value, str(search.trials[0].images) in mode.reason) == ("linear", True)


def test_a_trial_that_takes_much_longer_than_it_was_given_is_given_up(
    finetuned: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(network_trials, "LATE", 0.0)
    start_run(finetuned, tmp_path / "run", Reporter())
    search, config = read_search(tmp_path / "run"), read_config(tmp_path / "run")
    assert search is not None
    assert (search.trials, config.finetune.epochs) == ((), 0)
    assert "on trial" in search.more_time
    assert "much longer than estimated" in capsys.readouterr().err
    start_run(config, tmp_path / "again", QUIET)  # as if nothing had been tried
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "again"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_time_of_a_trial_is_that_of_the_steps_of_its_last_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1000.0, 1014.0, 1016.0, 1016.0])
    monkeypatch.setattr(network_trials, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    with QUIET.bar("trial", 2) as bar:
        watch = network_trials.TrialWatch(lambda: None, bar, stage=3, seconds=10.0)
        stage: Any = SimpleNamespace(index=3, epochs=1, steps=2)
        watch.on_stage_begin(stage)
        watch.on_stage_begin(stage)  # at 1000
        watch.on_step_end(stage, Progress(3, 0, 1))
        with pytest.raises(network_trials.LateTrialError):
            watch.on_step_end(stage, Progress(3, 0, 1))
        watch.on_step_end(stage, Progress(3, 0, 2))  # it is over


def test_where_nothing_was_left_out_more_time_buys_nothing(asked: RunConfig, tmp_path: Path) -> None:
    start_run(with_options(asked, {"training.time_limit": 600.0}), tmp_path / "run", QUIET)
    search = read_search(tmp_path / "run")
    assert search is not None
    assert search.more_time == NO_MORE


def test_a_size_or_a_choice_that_there_is_no_time_for_is_what_more_time_buys(
    asked: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Contest, "seconds_to_choose", lambda *_: 1e6)
    start_run(with_options(asked, {"training.time_limit": 600.0}), tmp_path / "run", QUIET)
    search = read_search(tmp_path / "run")
    assert search is not None
    assert "the choice of a classifier" in search.more_time


def test_a_network_that_won_and_can_no_longer_be_trained_is_not_taken(
    finetuned: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_trials, "LEAST_AGAIN", 1000.0)
    monkeypatch.setattr(network_trials, "judge_candidate", judged_at(0.0))
    finetuned = replace(finetuned, reasons=[Choice("mode", "linear", "no GPU was found")])
    start_run(finetuned, tmp_path / "run", QUIET)
    search, config = read_search(tmp_path / "run"), read_config(tmp_path / "run")
    assert search is not None
    assert [trial.taken for trial in search.trials] == [False]
    assert config.finetune.epochs == 0
    (mode,) = config.reasons
    assert isinstance(mode, Choice)
    assert "too little time left" in mode.reason
    assert search.more_time.endswith("which won its trial, be trained on all images.")


def test_where_images_are_tiny_a_network_from_nothing_is_tried_too_and_trained_where_it_wins(
    finetuned: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[Judgment] = []

    class SecondWins(HeldOut):
        def judge(self, logits: torch.Tensor, taus: Sequence[float] = TAUS) -> Judgment:
            assert taus == ((0.0,) if judged else TAUS)  # the network from nothing has no classifier that is adjusted
            judged.append(judged_alike(self.metric, 1.0) if judged else super().judge(logits, taus))
            return judged[-1]

    monkeypatch.setattr(network_trials, "HeldOut", SecondWins)
    monkeypatch.setattr(network_trials, "judge_candidate", judged_at(0.0))
    monkeypatch.setattr(network_trials, "MOST_FROM_NOTHING", 1)
    monkeypatch.setattr(network_trials, "TINY_SIDE", 8)
    asked = with_options(finetuned, {"search.from_nothing": "plain-cnn"})
    asked = replace(asked, recipe="images/portfolio", reasons=[Choice("mode", "linear", "there is no GPU")])
    asked.reasons.append(Choice("recipe", "images/portfolio", "the classifier is chosen by cross-validation"))
    start_run(asked, tmp_path / "run", QUIET)
    search, config = read_search(tmp_path / "run"), read_config(tmp_path / "run")
    assert search is not None
    assert [trial.taken for trial in search.trials] == [False, True]
    assert search.trials[1].presentation.network == config.model.name == "plain-cnn"
    assert (config.mode, config.data.image_size, list(config.stages)) == ("scratch", 8, [1])
    won = f"won on {search.trials[1].images} training images held out"
    assert config.reasons == [Choice("mode", "scratch", won), Choice("recipe", "images/logit-adjustment", won)]
    planned = PlannedRun(name="auto", seed=0, baseline="auto", folder=tmp_path / "run", config=asked)
    assert state_of(planned) == "started"
    start_run(config, tmp_path / "again", QUIET)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def judged_alike(metric: str, score: float) -> Judgment:
    """Return a judgment that is as sure as can be."""
    figures = {"accuracy": score, "balanced": score, "macro-f1": score, "worst-group": score}
    return Judgment(0.0, {0.0: figures}, {name: np.full(200, score) for name in figures}, metric)  # type: ignore[arg-type]


def test_where_there_is_no_time_for_it_nothing_is_tried_and_the_run_says_so(
    finetuned: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest_module, "measure_training_rate", lambda *_, **__: 0.5)
    start_run(finetuned, tmp_path / "run", QUIET)
    search = read_search(tmp_path / "run")
    assert search is not None
    assert not search.trials
    assert "whole network" in search.more_time
    assert read_config(tmp_path / "run").finetune.epochs == 0


def test_ctrl_c_in_the_trial_stops_the_run_which_then_begins_it_again(
    finetuned: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("longtail.training.network_trials.TrialWatch.on_step_end", interrupted)
        with pytest.raises(Interrupted):
            start_run(finetuned, tmp_path / "run", QUIET)
    config = read_config(tmp_path / "run")
    assert config.is_open
    resume_run(config, tmp_path / "run", QUIET)
    search = read_search(tmp_path / "run")
    assert search is not None
    assert len(search.trials) == 1
    assert (tmp_path / "run" / "metrics.json").is_file()


# --- the choice of the classifier, and what is left out ----------------------------------------------------------


def test_where_there_is_no_time_to_choose_the_size_is_still_compared(
    asked: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest_module, "seconds_to_choose", lambda *_, **__: 1000.0)
    monkeypatch.setattr(contest_module, "relative_slowness", lambda: 1.0)
    contest = contest_of(asked, TimeLimit(200.0))
    _, search = choose_presentation(contest)
    assert contest.expected_hindrance
    assert search is not None
    assert len(search.tried) == 3


def test_without_a_limit_the_load_of_the_machine_decides_nothing(
    asked: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = []
    for slowness in (1.0, 100.0):
        monkeypatch.setattr(contest_module, "relative_slowness", lambda slowness=slowness: slowness)
        seconds.append(contest_of(asked).seconds_to_choose(64))
    assert seconds[0] == seconds[1] > 0


def test_the_time_of_a_choice_is_that_of_the_epochs_that_were_asked_for(asked: RunConfig) -> None:
    short, long = (contest_of(with_options(asked, {"stage1.epochs": epochs})) for epochs in (8, 80))
    assert long.seconds_to_choose(64) > 5 * short.seconds_to_choose(64)


def test_until_all_is_chosen_the_configuration_on_disk_is_what_was_asked_for(
    asked: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted

    monkeypatch.setattr("longtail.training.automatic_experiment.choose_head", interrupted)
    with pytest.raises(Interrupted):
        start_run(asked, tmp_path / "run", QUIET)
    assert read_config(tmp_path / "run") == asked


def test_a_transformer_is_offered_sizes_that_it_takes() -> None:
    facts = Facts(images=2700, classes=23, imbalance_ratio=177.0, side=300, packaged=True)
    name = "timm:vit_small_patch14_dinov2.lvd142m"
    sizes = choose(facts, model=name, mode="linear", image_size=None, time_limit=600.0)[0]["search"]["sizes"]
    assert sizes == [98, 126, 154, 224]


@pytest.mark.parametrize("place", ["TrialWatch.on_step_end", "finetuned"])
def test_a_network_that_cannot_be_trained_is_left_out(
    place: str, finetuned: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise LongtailError("the loss became NaN")

    monkeypatch.setattr(f"longtail.training.network_trials.{place}", failing)
    start_run(finetuned, tmp_path / "run", QUIET)
    assert read_config(tmp_path / "run").finetune.epochs == 0
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_too_few_images_to_compare_are_shown_at_the_largest_size_there_is_time_for(
    asked: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Contest, "can_compare", False)
    assert choose_presentation(contest_of(asked, TimeLimit(900.0)))[0].data.image_size == 16
    assert choose_presentation(contest_of(asked))[0].data.image_size == 16
    monkeypatch.setattr(contest_module, "seconds_per_feature", lambda _: 10.0)
    assert choose_presentation(contest_of(asked, TimeLimit(900.0)))[0].data.image_size == 4
