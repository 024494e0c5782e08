"""LongTailClassifier: scikit-learn's own checks, what the long tail gains, images, priors, files."""

from __future__ import annotations

import importlib.util
import json
import ntpath
import pickle
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from longtail import LongTailClassifier
from longtail.data.samplers import EpochSampler, build_sampler
from longtail.data.square import Square, square_of
from longtail.errors import LongtailError
from longtail.integrations.sklearn_model import common_folder
from longtail.losses import build_loss
from longtail.models.backbones import PlainCNN
from longtail.predict.predict import predict_images
from longtail.run.model_files import load_run
from longtail.run.portfolio import Portfolio
from longtail.training.portfolio import choose_classifier, seconds_to_choose

FAST = {"epochs": 40, "batch_size": 64, "device": "cpu", "random_state": 0}
SMALL_NETWORK = {"backbone": "plain-cnn", "pretrained": False, "train_backbone": True, "image_size": 8} | FAST


def long_tailed(largest: int = 120, ratio: float = 40.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (N, 8, 8) in 0..255 and labels of real digits, 120 zeros down to 3 nines; then 50 a class for testing."""
    bunch = load_digits()
    pixels = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    rows = [np.flatnonzero(bunch.target == digit) for digit in range(10)]
    train = np.concatenate([of_class[: int(largest * ratio ** (-digit / 9))] for digit, of_class in enumerate(rows)])
    test = np.concatenate([of_class[-50:] for of_class in rows])
    return pixels[train], bunch.target[train], pixels[test], bunch.target[test]


PIXELS, LABELS, TEST_PIXELS, TEST_LABELS = long_tailed()
FEATURES, TEST_FEATURES = PIXELS.reshape(-1, 64) / 255, TEST_PIXELS.reshape(-1, 64) / 255


@pytest.fixture(scope="module")
def of_images() -> LongTailClassifier:
    names = np.array([f"digit {label}" for label in range(10)])
    options = SMALL_NETWORK | {"retrain_epochs": 5, "loss": "cross-entropy"}
    return LongTailClassifier(**options).fit(PIXELS, names[LABELS])


def test_scikit_learn_finds_nothing_wrong() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks provoke them
        results = check_estimator(LongTailClassifier(epochs=8, device="cpu"), on_fail=None, on_skip=None)
    assert len(results) > 50
    failed = {result["check_name"]: result["exception"] for result in results if result["status"] == "failed"}
    assert failed == {}
    skipped = {result["check_name"] for result in results if result["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # needs SCIPY_ARRAY_API, set before scipy is imported


@pytest.mark.parametrize(
    ("options", "gain"),
    [
        ({"loss": "logit-adjustment"}, 0.05),
        ({}, 0.03),
        ({"loss": "cross-entropy", "retrain_epochs": 10}, 0.05),
        ({"loss": "gcl"}, 0.0),
        ({"loss": "kps", "mixup": 0.2}, 0.0),
        ({"loss": "fbl"}, 0.0),
        ({"loss": "feature-noise", "loss_options": {"strength": 0.1}}, 0.0),
    ],
    ids=lambda value: str(value),
)
def test_the_tail_gains(options: dict[str, object], gain: float) -> None:
    plain = LongTailClassifier(loss="cross-entropy", **FAST).fit(FEATURES, LABELS)
    ours = LongTailClassifier(**FAST | options).fit(FEATURES, LABELS)
    assert ours.balanced_score(TEST_FEATURES, TEST_LABELS) > plain.balanced_score(TEST_FEATURES, TEST_LABELS) + gain


@pytest.mark.parametrize(("load", "ratio"), [(load_iris, 8.0), (load_wine, 8.0)], ids=["iris", "wine"])
def test_defaults_come_within_three_points_of_balanced_logistic_regression_on_small_tables(
    load: Any, ratio: float
) -> None:
    rows, labels = load(return_X_y=True)
    ours, theirs = [], []
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(labels))
        test, rest = order[:50], order[50:]
        kept = [
            part[: max(4, int(len(part) * ratio ** (-label / 2)))]
            for label in range(3)
            for part in [rest[labels[rest] == label]]
        ]
        train = np.concatenate(kept)
        fitted = LongTailClassifier(random_state=0, device="cpu").fit(rows[train], labels[train])
        plain = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=500))
        ours.append(fitted.balanced_score(rows[test], labels[test]))
        theirs.append(balanced_accuracy_score(labels[test], plain.fit(rows[train], labels[train]).predict(rows[test])))
    assert np.mean(ours) >= np.mean(theirs) - 0.03  # one answer of the 100 is worth a point and more


def test_too_few_rows_to_choose_are_a_balanced_logistic_regression() -> None:
    rows, labels = load_wine(return_X_y=True)
    kept = np.r_[:15, 59:68, 130:135]
    left = np.setdiff1d(np.arange(len(labels)), kept)
    ours = LongTailClassifier(random_state=0).fit(rows[kept], labels[kept])
    theirs = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced")).fit(rows[kept], labels[kept])
    assert ours.portfolio_ is None
    assert np.mean(ours.predict(rows[left]) == theirs.predict(rows[left])) > 0.97


def test_auto_says_what_it_chose_and_trains_it(tmp_path: Path) -> None:
    fitted = LongTailClassifier(random_state=0, device="cpu", epochs=10).fit(FEATURES, LABELS)
    portfolio = fitted.portfolio_
    assert portfolio is not None
    assert portfolio.epochs == 10
    choice = portfolio.choice
    assert fitted.logit_scale_ == build_loss(choice.loss, fitted.class_counts_, choice.options).logit_scale
    fitted.save(tmp_path)
    loaded = LongTailClassifier.load(tmp_path)
    assert loaded.portfolio_ is None
    assert np.allclose(loaded.predict_proba(TEST_FEATURES), fitted.predict_proba(TEST_FEATURES), atol=1e-6)
    few = LongTailClassifier(random_state=0, device="cpu").fit(FEATURES[[0, 1, 2, -1]], LABELS[[0, 1, 2, -1]])
    assert few.portfolio_ is None


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_auto_keeps_what_the_user_gave(head: str) -> None:
    fitted = LongTailClassifier(head=head, epochs=3, batch_size=32, metric="accuracy", random_state=0)
    fitted.fit(FEATURES, LABELS)
    assert fitted.portfolio_ is not None
    assert (fitted.portfolio_.metric, fitted.portfolio_.batch_size) == ("accuracy", 32)
    assert {each.head for each in fitted.portfolio_.candidates} == {head}


def test_a_second_stage_that_is_chosen_draws_as_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def retrained(*args: Any, **options: Any) -> Portfolio:
        portfolio = choose_classifier(*args, **options)
        tried = [each.name for each in portfolio.candidates]
        return replace(portfolio, chosen=tried.index("gcl, retrained"))

    def sampler(name: str, *args: Any, **options: Any) -> EpochSampler:
        drawn.append(name)
        return build_sampler(name, *args, **options)

    monkeypatch.setattr("longtail.integrations.sklearn.choose_classifier", retrained)
    monkeypatch.setattr("longtail.integrations.sklearn.build_sampler", sampler)
    for given in ({}, {"retrain_sampler": "square-root"}):
        LongTailClassifier(epochs=2, random_state=0, device="cpu", **given).fit(FEATURES, LABELS)
    assert drawn == ["shuffle", "class-balanced", "shuffle", "square-root"]


@pytest.mark.parametrize(("epochs", "is_chosen"), [(2, True), (8, False)])
def test_a_choice_that_takes_long_by_the_epochs_that_were_asked_for_is_not_made(
    epochs: int, is_chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = load_iris(return_X_y=True)
    longest = seconds_to_choose(len(rows), rows.shape[1], 3, epochs=4, batch_size=32)
    monkeypatch.setattr("longtail.integrations.sklearn.LONGEST_CHOICE", longest)
    classifier = LongTailClassifier(epochs=epochs, batch_size=32, random_state=0).fit(rows, labels)
    assert (classifier.portfolio_ is not None) == is_chosen


def test_where_nothing_can_be_chosen_accuracy_takes_a_classifier_that_balances_nothing() -> None:
    rows, labels = np.array([[0.0]] * 20 + [[1.0]] * 4 + [[0.5]] * 3), np.array([0] * 20 + [1] * 4 + [0, 0, 1])
    accurate, balanced, cosine = (
        LongTailClassifier(metric=metric, head=head, random_state=0).fit(rows, labels)
        for metric, head in (("accuracy", "auto"), ("balanced", "auto"), ("balanced", "cosine"))
    )
    assert accurate.portfolio_ is None
    assert accurate.assumed_prior_ == "train"
    assert balanced.assumed_prior_ == "uniform"
    assert (cosine.assumed_prior_, cosine.model_.head_name) == ("uniform", "standardized-cosine")


def test_rows_of_a_group_stay_together_where_a_choice_is_made() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 10)
    rows, videos = np.repeat(random.normal(size=(30, 64)), 4, axis=0), np.repeat(np.arange(30), 4)
    apart = LongTailClassifier(epochs=20, random_state=0).fit(rows, labels.repeat(4)).portfolio_
    together = LongTailClassifier(epochs=20, random_state=0).fit(rows, labels.repeat(4), groups=videos).portfolio_
    assert apart is not None
    assert together is not None
    assert apart.choice.balanced_accuracy > 0.95  # each row has been seen: a copy of it is trained on
    assert together.choice.balanced_accuracy < 0.6  # features that say nothing
    with pytest.raises(ValueError, match="inconsistent"):
        LongTailClassifier(epochs=2).fit(rows, labels.repeat(4), groups=videos[1:])


@pytest.mark.parametrize("given", [{"lr": 0.02}, {"retrain_epochs": 2}, {"weight_decay": 0.1}, {"mixup": 0.2}], ids=str)
def test_what_a_choice_would_override_leaves_nothing_to_choose(given: dict[str, float]) -> None:
    fitted = LongTailClassifier(epochs=2, random_state=0, device="cpu", **given).fit(FEATURES, LABELS)
    named = LongTailClassifier(loss="logit-adjustment", epochs=2, random_state=0, device="cpu", **given)
    assert fitted.portfolio_ is None
    assert np.array_equal(fitted.predict_proba(TEST_FEATURES), named.fit(FEATURES, LABELS).predict_proba(TEST_FEATURES))


def test_progress_reaches_the_loss() -> None:
    early = LongTailClassifier(loss="kps", loss_options={"adjust_gradients_from": None}, **FAST)
    late = LongTailClassifier(loss="kps", loss_options={"adjust_gradients_from": 0.9}, **FAST)
    weights = [classifier.fit(FEATURES, LABELS).model_.head.weight for classifier in (early, late)]
    assert not torch.equal(*weights)


def test_a_seed_repeats_and_leaves_the_generators_of_torch_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = LongTailClassifier(loss="gcl", **FAST).fit(FEATURES, LABELS)
    assert torch.equal(torch.rand(1), expected)
    again, other = clone(first).fit(FEATURES, LABELS), clone(first).set_params(random_state=1).fit(FEATURES, LABELS)
    chances = first.predict_proba(TEST_FEATURES)
    assert np.array_equal(chances, again.predict_proba(TEST_FEATURES))
    assert not np.array_equal(chances, other.predict_proba(TEST_FEATURES))


def test_a_prior_is_bayes_rule_on_the_one_assumed() -> None:
    plain = LongTailClassifier(loss="cross-entropy", **FAST).fit(FEATURES, LABELS)
    assert plain.assumed_prior_ == "train"
    trained = plain.predict_proba(TEST_FEATURES)
    assert np.allclose(clone_with(plain, "train").predict_proba(TEST_FEATURES), trained)
    expected = trained / plain.class_counts_.prior
    uniform = clone_with(plain, "uniform").predict_proba(TEST_FEATURES)
    assert np.allclose(uniform, expected / expected.sum(axis=1, keepdims=True), atol=1e-6)
    assert np.allclose(clone_with(plain, [2.0] * 10).predict_proba(TEST_FEATURES), uniform)
    ours = LongTailClassifier(loss="logit-adjustment", **FAST).fit(FEATURES, LABELS)
    assert ours.assumed_prior_ == "uniform"


def clone_with(fitted: LongTailClassifier, prior: object) -> LongTailClassifier:
    return pickle.loads(pickle.dumps(fitted)).set_params(prior=prior)


def test_images_of_every_kind_are_the_same(of_images: LongTailClassifier, tmp_path: Path) -> None:
    some = TEST_PIXELS[::25]
    names = [str(tmp_path / f"{number} é.png") for number in range(len(some))]
    for name, pixels in zip(names, some, strict=True):
        Image.fromarray(pixels).save(name)
    expected = of_images.predict_proba(some)
    assert of_images.predict(some)[0] in set(of_images.classes_)
    three_channels = np.repeat(some[..., None], 3, axis=3)
    shuffled = pd.Series(list(some), index=np.arange(len(some))[::-1])  # as after sample(frac=1)
    opened = [Image.fromarray(pixels) for pixels in some]
    for same in (three_channels, names, [Path(name) for name in names], opened, shuffled):
        assert np.allclose(of_images.predict_proba(same), expected, atol=1e-6)


def test_training_a_network_learns_the_digits(of_images: LongTailClassifier) -> None:
    truth = [f"digit {label}" for label in TEST_LABELS]
    assert of_images.score(TEST_PIXELS, truth) > 0.6


IRIS, KINDS = load_iris(return_X_y=True)


@pytest.mark.parametrize(("unit", "offset"), [(1, 1e9), (1e60, 0), (1e-60, 0), (1e300, 0)])
def test_neither_offset_nor_unit_of_features_matters(unit: float, offset: float) -> None:
    train = np.r_[0:50, 50:80, 100:110]
    plain = LongTailClassifier(**FAST).fit(IRIS[train], KINDS[train])
    moved = LongTailClassifier(**FAST).fit(IRIS[train] * unit + offset, KINDS[train])
    assert plain.balanced_score(IRIS, KINDS) > 0.75
    # As near as float64 holds the features: 1e9 leaves seven digits behind the point.
    assert np.abs(moved.predict_proba(IRIS * unit + offset) - plain.predict_proba(IRIS)).max() < 1e-3


@pytest.mark.parametrize("options", [{"weight": [0.0, 1.0, 1.0]}, {"ignore_index": 0}], ids=["weight", "ignored"])
def test_batches_that_count_for_nothing_train_nothing(options: dict[str, object]) -> None:
    some = FAST | {"epochs": 1, "batch_size": 1}
    rows = np.r_[0:10, 50:60, 100:110]
    fitted = LongTailClassifier(loss="cross-entropy", loss_options=options, **some).fit(IRIS[rows], KINDS[rows])
    assert np.isfinite(fitted.predict_proba(IRIS)).all()


def test_constant_features_say_nothing() -> None:
    constant = np.full((len(IRIS), 2), [1e9, 0.1])
    fitted = LongTailClassifier(**FAST).fit(np.hstack([IRIS, constant]), KINDS)
    assert fitted.score(np.hstack([IRIS, constant]), KINDS) > 0.8
    # Rows as far out as floats go still have probabilities.
    assert np.isfinite(fitted.predict_proba(np.full((2, 6), [[1e300], [-1e300]]))).all()


def test_reversed_features_are_features() -> None:
    fitted = LongTailClassifier(**FAST).fit(IRIS[::-1], KINDS[::-1])
    turned = LongTailClassifier(**FAST).fit(IRIS[::-1, ::-1], KINDS[::-1])
    assert fitted.score(IRIS, KINDS) > 0.8
    assert np.array_equal(fitted.predict_proba(IRIS[::-1])[::-1], fitted.predict_proba(IRIS))
    assert turned.score(IRIS[:, ::-1], KINDS) > 0.8


def test_a_loaded_classifier_knows_the_columns_of_its_table(tmp_path: Path) -> None:
    table = pd.DataFrame(IRIS, columns=["sepal length", "sepal width", "petal length", "petal width"])
    fitted = LongTailClassifier(**FAST | {"epochs": 1}).fit(table, KINDS)
    fitted.save(tmp_path)
    loaded = LongTailClassifier.load(tmp_path)
    assert np.array_equal(loaded.predict_proba(table), fitted.predict_proba(table))
    assert np.array_equal(loaded.feature_names_in_, fitted.feature_names_in_)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(table[table.columns[::-1]])


def test_a_classifier_saved_before_in_float32_is_read(tmp_path: Path) -> None:
    fitted = LongTailClassifier(**FAST).fit(FEATURES, LABELS)
    fitted.save(tmp_path)
    weights = {name: value.float() for name, value in load_file(tmp_path / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors")
    loaded = LongTailClassifier.load(tmp_path)
    assert np.allclose(loaded.predict_proba(TEST_FEATURES), fitted.predict_proba(TEST_FEATURES), atol=1e-4)


@pytest.mark.parametrize("name", ["resnet20", "timm:test_resnet"])
def test_one_image_without_variance_is_one_sentence(name: str) -> None:
    options = SMALL_NETWORK | {"backbone": name, "batch_size": 1, "image_size": 4, "epochs": 1}
    with pytest.raises(LongtailError, match="batch_size"):
        LongTailClassifier(**options).fit(PIXELS[:3], LABELS[[0, -1, 0]])


def test_what_is_saved_is_what_is_loaded(of_images: LongTailClassifier, tmp_path: Path) -> None:
    on_features = LongTailClassifier(**FAST, prior="train", loss="gcl").fit(FEATURES, LABELS)
    for number, (fitted, rows) in enumerate([(on_features, TEST_FEATURES), (of_images, TEST_PIXELS)]):
        fitted.save(tmp_path / str(number))
        loaded = LongTailClassifier.load(tmp_path / str(number))
        assert loaded.get_params() == fitted.get_params()
        assert np.array_equal(loaded.predict(rows), fitted.predict(rows))
        assert np.allclose(loaded.predict_proba(rows), fitted.predict_proba(rows), atol=1e-6)


def test_a_saved_classifier_of_images_is_a_run_for_the_command_line(
    of_images: LongTailClassifier, tmp_path: Path
) -> None:
    clone_with(of_images, "uniform").save(tmp_path / "run")
    (tmp_path / "photos").mkdir()
    Image.fromarray(TEST_PIXELS[0]).save(tmp_path / "photos" / "a.png")
    report = predict_images(tmp_path / "run", tmp_path / "photos", tmp_path / "out.csv")
    assert report.predicted == 1
    assert str(clone_with(of_images, "uniform").predict(TEST_PIXELS[:1])[0]) in (tmp_path / "out.csv").read_text()


def test_image_files_of_earlier_calls_are_not_passed_again(
    of_images: LongTailClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    of_images.save(tmp_path / "run")
    pixels, labels = PIXELS[::3][:100], LABELS[::3][:100]
    files = [tmp_path / f"{row}.png" for row in range(100)]
    for image, file in zip(pixels, files, strict=True):
        Image.fromarray(image).save(file)
    passed: list[int] = []

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], _: object) -> None:
        if isinstance(module, PlainCNN):
            passed.append(len(inputs[0]))

    with torch.nn.modules.module.register_module_forward_hook(count):
        classifier = LongTailClassifier(backbone=tmp_path / "run", **FAST | {"epochs": 2})
        first = classifier.fit(files, labels).predict_proba(files)
        assert sum(passed) == 100
        again = clone(classifier).fit(files, labels).predict_proba(files[::-1])[::-1]
        assert sum(passed) == 100, "of the files, whatever their order"
        np.testing.assert_array_equal(again, first)
        np.testing.assert_allclose(classifier.predict_proba(pixels), first, atol=1e-6)
        assert sum(passed) == 200, "pixels in memory are passed each time"


def test_a_run_is_a_frozen_backbone(of_images: LongTailClassifier, tmp_path: Path) -> None:
    of_images.save(tmp_path / "run")
    odd = LongTailClassifier(backbone=tmp_path / "run", **FAST).fit(PIXELS, LABELS % 2 == 1)
    assert odd.score(TEST_PIXELS, TEST_LABELS % 2 == 1) > 0.8
    before = load_run(tmp_path / "run")[0].backbone.state_dict()
    assert all(torch.equal(before[name], value) for name, value in odd.model_.backbone.state_dict().items())


def test_verbose_says_what_is_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    options = FAST | {"epochs": 2}
    silent = LongTailClassifier(**options).fit(FEATURES, LABELS)
    assert capsys.readouterr() == ("", "")
    spoken = LongTailClassifier(verbose=True, **options).fit(FEATURES, LABELS)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"classifier: {spoken.portfolio_.choice.title}" in err
    assert "--" not in err, "of the command line"
    np.testing.assert_array_equal(silent.predict_proba(TEST_FEATURES), spoken.predict_proba(TEST_FEATURES))


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_verbose_says_what_runs_the_network(
    of_images: LongTailClassifier, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    of_images.save(tmp_path / "run")
    odd = LongTailClassifier(backbone=tmp_path / "run", engine="openvino", verbose=True, **FAST | {"epochs": 1})
    odd.fit(PIXELS, LABELS % 2 == 1)
    assert "OpenVINO" in capsys.readouterr().err


def test_one_that_was_fitted_on_features_can_be_fitted_on_images(tmp_path: Path) -> None:
    classifier = LongTailClassifier(**FAST | {"epochs": 1}).fit(FEATURES, LABELS)
    classifier.set_params(**SMALL_NETWORK | {"epochs": 1}).fit(PIXELS, LABELS)
    classifier.save(tmp_path / "run")
    loaded = LongTailClassifier.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.predict(TEST_PIXELS), classifier.predict(TEST_PIXELS))


@pytest.mark.parametrize("was_fitted", [False, True])
@pytest.mark.parametrize("reason", ["interrupted", "one class", "diverges"])
def test_one_whose_training_failed_is_not_fitted(
    reason: str, was_fitted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    classifier = LongTailClassifier(loss="cross-entropy", **FAST | {"epochs": 1})
    if was_fitted:
        classifier.fit(FEATURES, LABELS)
    if reason == "interrupted":
        monkeypatch.setattr("longtail.integrations.sklearn.choose_classifier", interrupted)
        with pytest.raises(KeyboardInterrupt):
            classifier.set_params(loss="auto").fit(FEATURES, 9 - LABELS)
    else:
        labels = 9 - LABELS if reason == "diverges" else np.ones(len(LABELS))
        with pytest.raises(LongtailError, match="lower lr" if reason == "diverges" else "1 class"):
            classifier.set_params(lr=1e30 if reason == "diverges" else None).fit(FEATURES, labels)
    for method in (classifier.predict, classifier.predict_proba):
        with pytest.raises(NotFittedError):
            method(TEST_FEATURES)


def test_images_are_made_square_as_asked(tmp_path: Path) -> None:
    long = [np.concatenate([pixels, pixels[:, ::-1]], axis=1) for pixels in PIXELS[::4]]  # 16 x 8 pixels
    options = SMALL_NETWORK | {"epochs": 1}
    padded = LongTailClassifier(image_fit="pad", **options).fit(long, LABELS[::4])
    padded.save(tmp_path / "run")
    expected = padded.predict_proba(long)
    assert np.allclose(LongTailClassifier.load(tmp_path / "run").predict_proba(long), expected)
    squares = [square_of(pixels, Square(8, fit="pad")) for pixels in long]
    assert np.allclose(padded.predict_proba(squares), expected)
    cropped = LongTailClassifier(**options).fit(long, LABELS[::4])
    assert cropped.preprocessing_.fit == "crop"
    assert not np.allclose(cropped.predict_proba(long), expected)
    for fit, used in ((None, "pad"), ("stretch", "stretch")):
        on_run = LongTailClassifier(backbone=tmp_path / "run", image_fit=fit, **FAST | {"epochs": 1})
        assert on_run.fit(long, LABELS[::4]).preprocessing_.fit == used


def test_what_is_pickled_is_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = LongTailClassifier(loss="cross-entropy", **FAST | {"epochs": 1}).fit(FEATURES, LABELS)
    expected, moved, cpu = classifier.predict(TEST_FEATURES), [], torch.nn.Module.cpu

    def watched(self: torch.nn.Module) -> torch.nn.Module:
        moved.append(self)
        return cpu(self)

    monkeypatch.setattr(torch.nn.Module, "cpu", watched)
    loaded = pickle.loads(pickle.dumps(classifier))
    assert moved == [classifier.model_]
    np.testing.assert_array_equal(loaded.predict(TEST_FEATURES), expected)


def test_it_works_in_a_pipeline() -> None:
    pipeline = make_pipeline(PCA(20, random_state=0), LongTailClassifier(**FAST | {"epochs": 80})).fit(FEATURES, LABELS)
    assert pipeline.score(TEST_FEATURES, TEST_LABELS) > 0.6


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"loss": "glc"}, "'gcl'"),
        ({"loss": "gcl", "head": "linear"}, "head"),
        ({"head": "cosin"}, "head .*'cosine'"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"retrain_epochs": 1.5}, "retrain_epochs"),
        ({"batch_size": "64"}, "batch_size"),
        ({"batch_size": [64]}, "batch_size"),
        ({"image_size": 0}, "image_size"),
        ({"image_fit": "padd"}, "image_fit .*'pad'"),
        ({"lr": -1.0}, "lr"),
        ({"weight_decay": float("inf")}, "weight_decay"),
        ({"mixup": float("nan")}, "mixup"),
        ({"augmentation": "flips"}, "augmentation .*'flip'"),
        ({"retrain_sampler": "balanced"}, "retrain_sampler .*'class-balanced'"),
        ({"device": "foo"}, "'foo'"),
        ({"verbose": "loud"}, "verbose"),
        ({"lr": 1e30, "loss": "cross-entropy"}, "lower lr"),
    ],
    ids=lambda value: str(value),
)
def test_a_wrong_option_is_one_sentence(options: dict[str, object], word: str) -> None:
    with pytest.raises(LongtailError, match=word):
        LongTailClassifier(**FAST | options).fit(FEATURES, LABELS)


def test_options_may_be_numbers_of_numpy() -> None:
    options = {"epochs": np.int64(1), "batch_size": np.int32(64), "lr": np.float32(0.01), "mixup": np.float64(0.2)}
    assert LongTailClassifier(**FAST | options).fit(FEATURES, LABELS).score(FEATURES, LABELS) > 0


def test_a_wrong_image_or_network_is_one_sentence() -> None:
    with pytest.raises(LongtailError, match="backbone"):
        LongTailClassifier().fit(["a.png", "b.png"], [0, 1])
    with pytest.raises(LongtailError, match="weights"):
        LongTailClassifier(backbone="resnet20", pretrained=False).fit(PIXELS, LABELS)
    with pytest.raises(LongtailError, match="labels"):
        LongTailClassifier(**SMALL_NETWORK).fit(PIXELS[:2], LABELS[:1])
    with pytest.raises(LongtailError, match="float64"):
        LongTailClassifier(**SMALL_NETWORK).fit(PIXELS[:300].astype(float), LABELS[:300])
    with pytest.raises(LongtailError, match=r"gone\.png"):
        LongTailClassifier(**SMALL_NETWORK).fit(["gone.png", "gone.png"], [0, 1])
    with pytest.raises(LongtailError, match="NoneType"):
        LongTailClassifier(**SMALL_NETWORK).fit([None, None], [0, 1])


@pytest.mark.parametrize("prior", ["unform", [1.0] * 9, [1.0] * 9 + [0.0], {"a": 1}, [[1.0], [1.0, 2.0]]], ids=str)
def test_a_wrong_prior_is_one_sentence(prior: object, of_images: LongTailClassifier) -> None:
    with pytest.raises(LongtailError, match="prior "):
        clone_with(of_images, prior).predict(TEST_PIXELS[:1])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    LongTailClassifier(**FAST | {"epochs": 1}).fit(FEATURES, LABELS).save(folder)
    return folder


def test_a_missing_file_is_one_sentence(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(LongtailError, match=r"classifier\.json"):
        LongTailClassifier.load(tmp_path)
    shutil.copy(saved / "classifier.json", tmp_path)
    with pytest.raises(LongtailError, match=r"model\.safetensors"):
        LongTailClassifier.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(LongtailError, match=r"model\.safetensors"):
        LongTailClassifier.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"format_version": 99}, "update longtail"),
        ({"format_version": "1"}, "format"),
        ({"label_type": "|O"}, "label_type"),
        ({"label_type": "<U999999999"}, "label_type"),  # no memory is taken for it
        ({"label_type": "|u1", "classes": [300, *range(1, 10)]}, "300"),
        ({"label_type": "<M8[D]"}, "label_type"),
        ({"logit_scale": float("inf")}, "JSON"),
        ({"logit_scale": "1"}, "logit_scale"),
        ({"classes": [{}] * 10}, "classes"),
        ({"classes": [0] * 10}, "unique"),
        ({"classes": list(range(9))}, "names"),
        ({"classes": ["a", *range(1, 10)]}, "damaged"),
        ({"counts": [1] * 9}, "names"),
        ({"counts": [-1] * 10}, "counts"),
        ({"counts": [10**400] * 10}, "classifier.json"),
        ({"assumed_prior": "mine"}, "assumed_prior"),
        ({"head": "cosine"}, "another model"),
        ({"head": "round"}, "round"),
        ({"n_features_in": 10**12}, "weights of"),  # nor for these
        ({"n_features_in": -1}, "n_features_in"),
        ({"n_features_in": 63}, "another model"),
        ({"n_features_in": None}, "backbone"),
        ({"feature_names_in": ["width"]}, "feature_names_in"),
        ({"parameters": {"nonsense": 1}}, "nonsense"),
        ({"parameters": {"loss__scale": 1}}, "damaged"),
        ({"parameters": {"loss": ["gcl"]}}, "loss"),
        ({"parameters": {"batch_size": "many"}}, "batch_size"),
        ({"parameters": {"backbone": "resnet20"}}, "backbone"),
        ({"parameters": []}, "parameters"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_damaged_description_is_one_sentence(
    changes: dict[str, object], word: str, saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "classifier.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(LongtailError, match=word):
        LongTailClassifier.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"format_version": 1}', "\x00"], ids=repr)
def test_a_description_of_another_kind_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "classifier.json").write_text(text)
    with pytest.raises(LongtailError, match=r"classifier\.json"):
        LongTailClassifier.load(tmp_path)


@pytest.mark.parametrize("nothing", [[], np.zeros((0, 8, 8, 3), np.uint8)], ids=["list", "array"])
def test_no_images_are_refused_by_one_sentence(nothing: Any, of_images: LongTailClassifier) -> None:
    for work in (of_images.predict, of_images.predict_proba):
        with pytest.raises(LongtailError, match="no image"):
            work(nothing)


def test_files_of_two_drives_have_no_common_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path", ntpath)
    assert common_folder(["C:\\photos\\1.jpg", "D:\\photos\\2.jpg"]) == ""
    assert common_folder(["C:\\photos\\1.jpg", "C:\\photos\\2.jpg"]) == "C:\\photos"


def test_classes_of_another_model_are_refused(of_images: LongTailClassifier, tmp_path: Path) -> None:
    of_images.save(tmp_path)
    path = tmp_path / "classifier.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"classes": data["classes"][:9], "counts": data["counts"][:9]}))
    with pytest.raises(LongtailError, match="classes"):
        LongTailClassifier.load(tmp_path)
