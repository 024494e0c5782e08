"""Saving and loading a model: the same outputs again, and a clear sentence for everything that can be wrong."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from longtail import files
from longtail.counts import ClassCounts
from longtail.data.square import Square
from longtail.errors import LongtailError
from longtail.evaluation.posthoc import Adjustment, Prior
from longtail.files import write_atomically
from longtail.models import LongTailModel, build_model
from longtail.models.preprocessing import Preprocessing
from longtail.run.model_files import (
    ModelInfo,
    ModelSpec,
    load_info,
    load_model,
    load_run,
    save_info,
    save_model,
    start_from,
)

INFO = ModelInfo(
    model=ModelSpec("resnet20", "cosine"),
    classes=("lynx", "märder", "山猫"),
    counts=(500, 50, 0),
    preprocessing=Preprocessing(size=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.25), resize=18),
    logit_scale=30.0,
    recipe="cifar-lt/gcl",
    versions={"torch": "2.6"},
)


def _model() -> LongTailModel:
    torch.manual_seed(0)
    return build_model("resnet20", 3, "cosine")


def test_round_trip_gives_the_same_outputs(tmp_path: Path) -> None:
    model = _model()
    model.train()(torch.randn(8, 3, 16, 16))  # moves the running statistics, which have to travel too
    save_model(model, INFO, tmp_path / "run")
    loaded, info = load_model(tmp_path / "run")
    images = torch.randn(4, 3, 16, 16)
    assert info == INFO
    assert not loaded.training
    assert torch.equal(loaded(images), model.eval()(images))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_how_an_image_is_made_square_is_kept(tmp_path: Path, fit: Any) -> None:
    info = replace(INFO, preprocessing=replace(INFO.preprocessing, fit=fit))
    save_info(info, tmp_path)
    assert load_info(tmp_path).preprocessing.square == Square(16, 18, "bicubic", fit)


def test_files_of_older_versions_mean_the_center_square(tmp_path: Path) -> None:
    save_info(INFO, tmp_path)
    values = json.loads((tmp_path / "model.json").read_text())
    del values["preprocessing"]["fit"]
    (tmp_path / "model.json").write_text(json.dumps(values))
    assert load_info(tmp_path).preprocessing.fit == "crop"
    values["preprocessing"]["fit"] = "letterbox"
    (tmp_path / "model.json").write_text(json.dumps(values))
    with pytest.raises(LongtailError, match="fit"):
        load_info(tmp_path)


def test_scaled_head_and_timm_backbone_round_trip(tmp_path: Path) -> None:
    model = build_model("timm:resnet10t", 3).add_logit_scales()
    with torch.no_grad():
        model.head.scale_logits.mul_(2)
    save_model(model, replace(INFO, model=ModelSpec(model.name, model.head_name)), tmp_path)
    loaded, _ = load_model(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), model.eval()(images))


def test_a_classifier_is_taken_over_class_by_class(tmp_path: Path) -> None:
    trained = _model()
    save_model(trained, INFO, tmp_path)  # the third class has no image
    counts = ClassCounts([7, 0, 5], ["ma\u0308rder", "empty", "lynx"])
    model = build_model("resnet20", 3, "cosine")
    assert start_from(model, counts, tmp_path)
    assert torch.equal(model.head.state_dict()["weight"][[2, 0]], trained.head.state_dict()["weight"][:2])
    assert not start_from(model, ClassCounts([7, 1, 5], counts.names), tmp_path)  # one that the run never saw


def test_info_must_describe_the_model(tmp_path: Path) -> None:
    for wrong in (replace(INFO, model=ModelSpec("resnet32", "cosine")), replace(INFO, classes=("a", "b"))):
        with pytest.raises(ValueError, match=r"model\.json"):
            save_model(_model(), wrong, tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_model(tmp_path: Path) -> None:
    save_model(_model(), INFO, tmp_path)
    other = build_model("resnet20", 4, "cosine").state_dict()
    save_file(other, tmp_path / "model.safetensors")
    with pytest.raises(LongtailError, match=r"\(head.weight: 4 x 64 .*3 x 64"):
        load_model(tmp_path)
    save_file(build_model("resnet20", 3, "linear").state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(LongtailError, match=r"head.bias: 3 .*absent"):
        load_model(tmp_path)


def test_damaged_and_missing_weights(tmp_path: Path) -> None:
    save_model(_model(), INFO, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(LongtailError, match="damaged"):
        load_model(tmp_path)
    weights.unlink()
    with pytest.raises(LongtailError, match="is missing"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "update longtail"),
        ({"classes": None}, "'classes' should"),
        ({"counts": [1, 2]}, "length"),
        ({"preprocessing": {"size": 16}}, "mean'"),
        ({"model": {"name": "resnet20"}}, "head'"),
        ({"model": {"name": "resnet21", "head": "linear"}}, "mean 'resnet"),
    ],
)
def test_wrong_model_json(change: dict[str, object], message: str, tmp_path: Path) -> None:
    save_model(_model(), INFO, tmp_path)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LongtailError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{'a'", "3"])
def test_what_is_no_model_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(LongtailError, match=r"model\.json"):
        load_info(tmp_path)


def test_older_file_without_optional_entries(tmp_path: Path) -> None:
    data = asdict(INFO)
    for name in ("logit_scale", "recipe", "versions"):
        del data[name]
    del data["preprocessing"]["resize"]
    (tmp_path / "model.json").write_text(json.dumps(data))
    info = load_info(tmp_path)
    assert (info.logit_scale, info.recipe, info.preprocessing.resize) == (1.0, "", None)


def test_a_file_from_before_adjustments_has_none(tmp_path: Path) -> None:
    data = asdict(INFO)
    for name in ("adjustment", "prior", "threshold"):
        del data[name]
    (tmp_path / "model.json").write_text(json.dumps(data))
    info = load_info(tmp_path)
    assert (info.adjustment, info.prior, info.threshold) == (None, "train", None)
    data["adjustment"] = {"gain": [1, 1, 1], "offset": [0, 0, 0]}
    (tmp_path / "model.json").write_text(json.dumps(data))
    assert load_info(tmp_path).adjustment == Adjustment((1.0,) * 3, (0.0,) * 3)


@pytest.mark.parametrize("prior", ["train", "uniform", (0.7, 0.2, 0.1)])
def test_an_adjustment_comes_back_as_it_was(prior: Prior, tmp_path: Path) -> None:
    chosen = {"method": "logit-adjustment", "tau": 0.1 + 0.2, "tried": {"tau": [0.0, 0.1]}}
    adjustment = Adjustment((1 / 3, 2.0, 3.0), (-1e-9, 0.0, 7.25), chosen, prior)
    info = replace(INFO, adjustment=adjustment, prior="uniform", threshold=0.123456789)
    save_info(info, tmp_path)
    assert load_info(tmp_path) == info
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]
    assert info.unadjusted() == replace(INFO, prior="uniform")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior": "test"}, "prior'"),
        ({"prior": [0.5, 0.3, 0.2]}, "prior'"),
        ({"threshold": "high"}, "'threshold'"),
        ({"threshold": 1.5}, "'threshold'"),
        ({"adjustment": {"gain": [1, 1], "offset": [0, 0]}}, "3 finite"),
        ({"adjustment": {"gain": [1, 1, float("inf")], "offset": [0, 0, 0]}}, "JSON"),
        ({"adjustment": {"gain": [1, 1, 1], "offset": [0, 0, 0], "prior": [1, 0, 1]}}, "3 positive shares"),
        ({"adjustment": {"gain": [1, 1, 1], "offset": [0, 0, 0], "prior": 3}}, "prior'"),
        ({"adjustment": [1]}, "'adjustment'"),
    ],
)
def test_a_wrong_adjustment_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps(asdict(INFO) | change))
    with pytest.raises(LongtailError, match=message):
        load_info(tmp_path)


def test_load_run_says_what_the_folder_is(tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match="no run"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(LongtailError, match="a run"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(LongtailError, match=r"finished.*--resume"):
        load_run(tmp_path)
    save_model(_model(), INFO, tmp_path)
    assert load_run(tmp_path)[1] == INFO


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(LongtailError, match=r"space.*free"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(LongtailError, match="be written"):
        write_atomically(tmp_path / "run" / "model.json", b"new")


def test_saving_again_replaces(tmp_path: Path) -> None:
    save_model(_model(), INFO, tmp_path)
    second = _model()
    with torch.no_grad():
        second.head.weight.zero_()
    save_model(second, INFO, tmp_path)
    assert not load_file(tmp_path / "model.safetensors")["head.weight"].any()
