"""A finished run opened for further work: stored features in place of its network, and the engine that it recorded."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torch import nn

from longtail.config.build import build
from longtail.config.options import merge
from longtail.config.recipes import base_config
from longtail.config.resolve import complete
from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.data.sources.registry import load_source
from longtail.errors import LongtailError
from longtail.experiments.adjust import AdjustmentOptions, adjust_run
from longtail.experiments.analyze import analyze_run
from longtail.experiments.evaluate import evaluate_run
from longtail.experiments.finished_run import open_run
from longtail.models.backbones import PlainCNN
from longtail.models.inference_engine import OpenVinoBackbone
from longtail.predict.predictor import load
from longtail.run.result import read_metrics
from longtail.training import frozen_features
from longtail.training.launch import start_run

ENGINES = [
    "torch",
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed"),
    ),
]


def config(mode: str, engine: str = "auto", **overrides: Any) -> RunConfig:
    values = base_config("images/ce", epochs=2, mode=mode, model="plain-cnn")
    tiny = {
        "data": {"source": "digits", "image_size": 16, "resize": 16, "augmentation": "none"},
        "model": {"pretrained": False},
        "stage1": {"optimizer": {"lr": 0.02, "layer_decay": None}} | ({"cached_views": 1} if mode == "linear" else {}),
        "training": {"precision": "fp32", "engine": engine},
    }
    return complete(build(merge(merge(values, tiny), overrides)))


@pytest.fixture
def images_passed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[int]]:
    """A cache of its own, and the number of images of each forward pass through the network, whatever runs it."""
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    sizes: list[int] = []

    def count(module: nn.Module, inputs: tuple[Any, ...], _: object) -> None:
        if isinstance(module, PlainCNN):
            sizes.append(len(inputs[0]))

    stream = OpenVinoBackbone.stream

    def count_stream(backbone: OpenVinoBackbone, parts: Any) -> None:
        whole = list(parts)
        sizes.append(sum(len(images) for images, _ in whole))
        stream(backbone, whole)

    monkeypatch.setattr(OpenVinoBackbone, "stream", count_stream)
    handle = nn.modules.module.register_module_forward_hook(count)
    yield sizes
    handle.remove()


def passed(images: list[int]) -> int:
    """The images since the last call, apart from the few that a conversion is checked with."""
    total = sum(size for size in images if size > 3)
    images.clear()
    return total


@pytest.mark.parametrize("engine", ENGINES)
def test_what_follows_a_linear_run_passes_no_image_again(
    engine: str, images_passed: list[int], tmp_path: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    metrics = start_run(config("linear", engine), run, quiet)
    assert passed(images_passed) == 1797
    assert metrics["hardware"]["engine"].startswith(engine)
    assert yaml.safe_load((run / "config.yaml").read_text())["training"]["engine"] == engine
    with monkeypatch.context() as patched:
        patched.setattr(frozen_features, "compile_backbone", lambda *_, **__: pytest.fail("the network was compiled"))
        again = evaluate_run(run)
        assert {key: again[key] for key in metrics["test"]} == metrics["test"]
        adjust_run(run, AdjustmentOptions())
    assert passed(images_passed) == 0
    analyze_run(run, projections=())
    assert passed(images_passed) == 0, "training images without augmentation, which it was trained on"
    monkeypatch.setattr(frozen_features, "compile_backbone", lambda *_, **__: pytest.fail("the network was compiled"))
    other = start_run(config("linear", engine), tmp_path / "other", quiet)
    assert other["hardware"]["engine"] == metrics["hardware"]["engine"]
    assert passed(images_passed) == 0


@pytest.mark.parametrize("mode", ["linear", "finetune"])
@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_engines_agree(mode: str, images_passed: list[int], tmp_path: Path, quiet: Reporter) -> None:
    run = tmp_path / "run"
    start_run(config(mode, "torch"), run, quiet)
    passed(images_passed)
    ours, theirs = (evaluate_run(run, engine=engine) for engine in ("openvino", "torch"))  # type: ignore[arg-type]
    assert passed(images_passed) == (359 if mode == "linear" else 2 * 359), "the features of each engine are its own"
    assert ours["accuracy"] == theirs["accuracy"] > 0.1
    assert ours["nll"] == pytest.approx(theirs["nll"], rel=1e-5)
    for name in ("accuracy", "balanced_accuracy"):
        assert ours[name] == theirs[name]


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_labels_of_digits_agree(tmp_path: Path, quiet: Reporter) -> None:
    start_run(config("finetune"), tmp_path / "run", quiet)
    split = load_source("digits").splits["test"]
    images = [split.image(row) for row in range(len(split))]
    said: list[str] = []
    theirs = load(tmp_path / "run", engine="torch", say=said.append).predict(images)
    assert said == []
    predictor = load(tmp_path / "run", engine="openvino", say=said.append)
    ours = predictor.predict(images[:100]) + predictor.predict(images[100:])
    assert [row.label for row in ours] == [row.label for row in theirs]
    assert [row.confidence for row in ours] == pytest.approx([row.confidence for row in theirs], abs=1e-5)
    assert len(said) == 1
    assert "OpenVINO" in said[0]


def record_engine(run: Path, engine: str | None) -> None:
    """Change what computed the features of a run."""
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["hardware"]["engine"] = engine
    (run / "metrics.json").write_text(json.dumps(metrics))


def refuse(*_: object, **__: object) -> None:
    raise RuntimeError("no rule for aten::new")


def test_a_run_is_evaluated_by_what_computed_its_features(tmp_path: Path, quiet: Reporter) -> None:
    run = tmp_path / "run"
    start_run(config("linear"), run, quiet)
    assert open_run(run).config.training.engine == "torch"  # too few images for a conversion under auto
    for engine in ("openvino 2026.4.1", None):  # none: a run of an older version, or one that computed no features
        record_engine(run, engine)
        assert open_run(run).config.training.engine == "auto"
    assert open_run(run, engine="torch").config.training.engine == "torch"
    assert read_metrics(run).hardware["engine"] is None


def test_a_recorded_engine_that_is_gone_is_a_note(
    tmp_path: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    metrics = start_run(config("linear"), run, quiet)
    record_engine(run, "openvino 2026.4.1")
    for room in ("longtail.models.inference_engine", "longtail.experiments.finished_run"):
        monkeypatch.setattr(f"{room}.openvino_problem", lambda: "it is not installed")
    again = evaluate_run(run, reporter=Reporter())
    assert again["accuracy"] == metrics["test"]["accuracy"]
    assert "OpenVINO computed the features" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_a_recorded_engine_that_no_longer_converts_is_no_error(
    tmp_path: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    metrics = start_run(config("linear"), run, quiet)
    record_engine(run, "openvino 2020.1")
    evaluate_run(run, reporter=Reporter())
    assert "runs on OpenVINO" in capsys.readouterr().err, "though the images are few"
    monkeypatch.setattr("longtail.models.inference_engine._compile", refuse)
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "other-cache"))
    for again in (evaluate_run(run, reporter=Reporter()), adjust_run(run, AdjustmentOptions())["test"]["before"]):
        assert again["accuracy"] == metrics["test"]["accuracy"]
    assert "PyTorch runs the network" in capsys.readouterr().err
    with pytest.raises(LongtailError, match="aten::new"):
        adjust_run(run, AdjustmentOptions(), engine="openvino")


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_a_network_that_cannot_be_run_is_an_error_each_time(
    tmp_path: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_run(config("finetune"), tmp_path / "run", quiet)
    predictor = load(tmp_path / "run", engine="openvino")
    monkeypatch.setattr("longtail.models.inference_engine._compile", refuse)
    for _ in range(2):
        with pytest.raises(LongtailError, match="aten::new"):
            predictor.predict([np.zeros((8, 8, 3), np.uint8)])


def test_one_sentence_where_openvino_is_missing(
    tmp_path: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_run(config("linear"), tmp_path / "run", quiet)
    monkeypatch.setattr("longtail.models.inference_engine.openvino_problem", lambda: "it is not installed")
    for work in (evaluate_run, analyze_run, load):
        with pytest.raises(LongtailError, match="longtail\\[cpu\\]") as caught:
            work(tmp_path / "run", engine="openvino")  # type: ignore[operator]
        assert "--engine torch" in caught.value.for_command_line()
    with pytest.raises(LongtailError, match="longtail\\[cpu\\]"):
        start_run(config("linear", "openvino"), tmp_path / "other", quiet)
    assert not (tmp_path / "other").exists()
