"""Runs whose classifier is chosen: what is recorded, repeated, resumed, evaluated and predicted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ctrl_c import CtrlC
from digits_network import train_digits_network
from PIL import Image
from safetensors.torch import load_file

from longtail.compare.seeds import fold
from longtail.config.build import with_options
from longtail.config.resolve import complete, resolve
from longtail.config.schema import Choice, RunConfig
from longtail.config.stage import StageConfig
from longtail.console import Interrupted, Reporter
from longtail.counts import ClassCounts
from longtail.errors import LongtailError
from longtail.experiments.evaluate import evaluate_run
from longtail.experiments.folds import plan_folds
from longtail.experiments.grid_plan import PlannedRun, state_of
from longtail.experiments.grid_process import RunProcess, shared_environment, train_command
from longtail.models.model import build_model
from longtail.predict.predictor import load
from longtail.report.page import write_report
from longtail.run.layout import read_config
from longtail.run.portfolio import NOTHING_TRIED, read_portfolio
from longtail.run.result import read_run
from longtail.training.candidates import classifier_of, usual_candidate, with_classifier
from longtail.training.launch import resume_run, start_run
from longtail.training.loop import Callback, Progress, StageRun
from longtail.training.prepared_data import prepare_data

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run on digits cut to a long tail, on the features of a small network with weights of its own."""
    options = train_digits_network(tmp_path_factory.mktemp("start"), ratio=20.0, epochs=2)
    return resolve(options | {"stage1.epochs": 12})


@pytest.fixture(scope="module")
def run(asked: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chosen") / "run"
    start_run(asked, out, QUIET)
    return out


def test_the_choice_is_recorded_and_is_the_configuration(run: Path) -> None:
    portfolio = read_portfolio(run)
    assert portfolio is not None
    config = read_config(run)
    assert config.stage1.loss.name == portfolio.choice.loss
    assert (config.model.head, config.model.tau) == (portfolio.choice.head, portfolio.choice.tau)
    assert (config.stage1.epochs, portfolio.epochs) == (12, 12)
    assert config.model.standardize


def test_its_configuration_repeats_it_without_choosing_again(run: Path, tmp_path: Path) -> None:
    start_run(read_config(run), tmp_path / "again", QUIET)
    first, second = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "again"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert read_portfolio(tmp_path / "again") is None


def test_the_test_images_of_a_choice_are_measured_once_also_where_its_configuration_is_repeated(
    run: Path, tmp_path: Path
) -> None:
    config = with_options(read_config(run), {"recipe": "images/portfolio", "stage2.epochs": 1})
    config = replace(config, stage2=replace(config.stage1, epochs=1))
    stages = start_run(config, tmp_path / "again", QUIET)["stages"]
    assert ["test" in stages[stage] for stage in ("stage1", "stage2")] == [False, True]


def test_a_grid_knows_it_again_and_seeds_that_choose_for_themselves_are_one_configuration(
    asked: RunConfig, run: Path, tmp_path: Path
) -> None:
    second = with_options(asked, {"training.seed": 1})
    start_run(second, tmp_path / "run", QUIET)
    planned = PlannedRun(name="auto", seed=0, baseline="auto", folder=run, config=asked)
    assert state_of(planned) == "started"  # not of another configuration; its report is still to be written
    with pytest.raises(LongtailError, match="seed"):
        state_of(replace(planned, config=second))
    results = [read_run(folder) for folder in (run, tmp_path / "run")]
    assert len(fold(results)) == 1


def test_a_grid_goes_on_with_what_an_interrupted_run_has_chosen(asked: RunConfig, run: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        start_run(asked, tmp_path / "run", QUIET, callbacks=[CtrlC(1, 1)])
    planned = PlannedRun(name="auto", seed=0, baseline="auto", folder=tmp_path / "run", config=asked)
    assert state_of(planned) == "started"
    assert RunProcess(planned, train_command(planned), shared_environment(1)).wait() == ""
    assert read_config(tmp_path / "run") == read_config(run)
    first, second = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "run"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_each_fold_chooses_on_its_own_training_images(asked: RunConfig, tmp_path: Path) -> None:
    first, second = plan_folds(with_options(asked, {"data.folds": 2}), tmp_path).runs
    start_run(first.config, first.folder, QUIET)
    portfolio, result = read_portfolio(first.folder), read_run(first.folder)
    train, test = (prepare_data(first.config.data).data.splits[name] for name in ("train", "test"))
    other = prepare_data(second.config.data).data.splits["train"]
    assert portfolio is not None
    assert portfolio.images <= len(train) == sum(result.counts)
    assert result.test is not None
    assert result.test.num_images == len(test)
    assert not read_config(first.folder).is_open
    assert second.config.is_open  # not what the first has chosen
    assert train.fingerprint() != other.fingerprint()


def test_figures_predictions_and_evaluation_agree(run: Path) -> None:
    figures = json.loads((run / "metrics.json").read_text())["test"]
    assert figures["balanced_accuracy"] > 0.5
    again = evaluate_run(run, reporter=QUIET)
    assert again["balanced_accuracy"] == pytest.approx(figures["balanced_accuracy"])
    assert again["nll"] == pytest.approx(figures["nll"], rel=1e-4)


@pytest.mark.parametrize("name", ["cross-entropy", "kps", "gcl, retrained"])
def test_each_kind_of_choice_trains_and_is_read_back(name: str, asked: RunConfig, run: Path, tmp_path: Path) -> None:
    portfolio = read_portfolio(run)
    assert portfolio is not None
    candidate = next(replace(each, tau=0.5) for each in portfolio.candidates if each.name == name)
    size = load(run).model.num_features
    chosen = classifier_of(replace(portfolio, candidates=(candidate,), chosen=0), size, portfolio.images)
    config = complete(with_classifier(asked, chosen, candidate.tau))
    metrics = start_run(config, tmp_path / "run", QUIET)
    assert len(metrics["stages"]) == (2 if name.endswith("retrained") else 1)
    predictor = load(tmp_path / "run")
    if name == "cross-entropy":
        assert predictor.model.head_name == "linear"
        return
    if name.endswith("retrained"):  # stage 1 has no adjustment yet
        assert load(tmp_path / "run" / "stage1").info.prior == "train"
    assert predictor.model.head_name == "standardized-cosine"
    prior = torch.from_numpy(ClassCounts(predictor.info.counts).prior)
    expected = -0.5 * prior.log() / predictor.info.logit_scale
    torch.testing.assert_close(predictor.model.head.offset.double(), expected, rtol=1e-5, atol=1e-7)


def test_a_run_stopped_after_the_choice_goes_on_with_it(asked: RunConfig, run: Path, tmp_path: Path) -> None:
    class Stop(Callback):
        def on_step_begin(self, stage: StageRun, progress: Progress) -> None:
            del stage
            if progress.epoch == 3 and progress.step == 2:
                raise Interrupted

    with pytest.raises(Interrupted):
        start_run(asked, tmp_path / "run", QUIET, callbacks=[Stop()])
    config = read_config(tmp_path / "run")
    assert config.stage1.loss.name != "auto"
    resume_run(config, tmp_path / "run", QUIET)
    first, second = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "run"))
    assert all(torch.allclose(first[key], second[key], atol=1e-6) for key in first)


def test_the_usual_loss_keeps_the_batch_that_was_given() -> None:
    given = RunConfig(stage1=StageConfig(epochs=7, batch_size=9))
    changed = with_classifier(given, usual_candidate(1280, 50))
    assert (changed.stage1.epochs, changed.stage1.batch_size) == (7, 9)
    assert changed.model.standardize
    cosine = with_classifier(given, usual_candidate(1280, 50, "cosine"))
    assert (cosine.model.head, cosine.stage1.loss.name) == ("cosine", "ldam")
    assert cosine.stage1.loss.options["deferred_reweighting"] == 0.8


@pytest.mark.parametrize("num_features", [12, 1280])
@pytest.mark.parametrize("head", ["auto", "linear", "cosine"])
def test_for_accuracy_the_usual_loss_balances_nothing(num_features: int, head: Any) -> None:
    plan = classifier_of(replace(NOTHING_TRIED, metric="accuracy"), num_features, 50, head).plan
    assert (plan.loss, plan.head) == ("cross-entropy", "linear" if head == "auto" else head)


def test_too_few_images_take_a_loss_that_is_named(asked: RunConfig, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split, sizes in {"train": {"ant": 40, "bee": 3}, "test": {"ant": 2, "bee": 2}}.items():
        for name, size in sizes.items():
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(size):
                pixels = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{number}.png")
    options = {"data.source": f"folder:{tmp_path / 'photos'}", "data.imbalance_ratio": None}
    options["training.metric"] = "macro-f1"
    reasons = [Choice("recipe", asked.recipe, "chosen on your images"), Choice("stage1.epochs", 7, by="user")]
    config = replace(with_options(asked, options), reasons=reasons)
    start_run(config, tmp_path / "run", QUIET)
    tried = read_portfolio(tmp_path / "run")
    assert tried is not None
    assert not tried.candidates
    trained = read_config(tmp_path / "run")
    assert trained.stage1.loss.name == "weighted"
    chosen, length = (each.reason for each in trained.reasons if isinstance(each, Choice))
    assert all(words in chosen for words in ("weighted", "macro F1", "too few images"))
    assert length == ""
    assert tried.metric == "macro-f1"  # as asked for
    planned = PlannedRun(name="auto", seed=0, baseline="auto", folder=tmp_path / "run", config=config)
    assert state_of(planned) == "started"  # not of another configuration; its report is still to be written
    write_report([tmp_path / "run"], tmp_path / "run" / "report.html")


def test_a_standardized_model_is_the_same_in_and_out_of_its_file(run: Path) -> None:
    predictor = load(run)
    spec = predictor.info.model
    rebuilt = build_model(spec.name, len(predictor.info.classes), spec.head, in_size=16)
    rebuilt.load_state_dict(load_file(run / "model.safetensors"))
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(rebuilt.eval()(images), predictor.model.eval()(images))
