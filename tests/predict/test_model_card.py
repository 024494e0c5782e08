"""The model card: metadata that the hub reads, figures with intervals, and nothing of the machine it was made on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from longtail.data.sources.registry import last_name
from longtail.errors import LongtailError
from longtail.predict.hub import model_card
from longtail.run.model_files import load_info, save_info
from longtail.run.result import write_adjusted


def measured(card: str) -> dict[str, float]:
    return {result.metric_type: result.metric_value for result in ModelCard(card).data.eval_results or ()}


def test_the_hub_reads_its_metadata(untrained_run: Callable[..., Path], tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    save_info(load_info(run).unadjusted(), run)
    data = ModelCard(model_card(run)).data
    assert (data.library_name, data.pipeline_tag) == ("longtail", "image-classification")
    assert "cifar-lt/gcl" in data.tags
    assert measured(model_card(run)) == {"accuracy": 0.75, "balanced_accuracy": 0.5}
    assert "the post-hoc" not in model_card(run)


@pytest.mark.parametrize(("fit", "word"), [("crop", "center"), ("pad", "padded"), ("stretch", "stretched")])
def test_it_says_how_long_images_are_shown(
    untrained_run: Callable[..., Path], tmp_path: Path, fit: Any, word: str
) -> None:
    run = untrained_run(tmp_path / "run")
    info = load_info(run)
    save_info(replace(info, preprocessing=replace(info.preprocessing, fit=fit)), run)
    (row,) = [line for line in model_card(run).splitlines() if line.startswith("| images that are not square")]
    assert word in row


def test_an_adjusted_run_shows_the_figures_after_its_adjustment(
    untrained_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = untrained_run(tmp_path / "run")
    before = model_card(run)
    assert "measured before" in before
    assert "recall before" in before
    assert measured(before) == {}  # what machines read has no room for a caveat
    info, test = load_info(run), json.loads((run / "metrics.json").read_text())["test"]
    rows = [row | {"recall": 0.625} for row in test["per_class"]]
    write_adjusted(run, info.adjustment, {"test": test | {"few": 0.4, "accuracy": 0.7, "per_class": rows}})
    after = model_card(run)
    assert measured(after) == {"accuracy": 0.7, "balanced_accuracy": 0.5}
    assert "| few-shot classes | 40.0%" in after
    assert "| 山猫 | 2 | few | 3 | 62.5%" in after
    assert "the post-hoc" in after
    save_info(replace(info, adjustment=replace(info.adjustment, offset=(0.0, 0.0, 0.0))), run)
    assert model_card(run) == before  # figures of another adjustment are none of its own


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "JSON"), ("[]", "object"), ("{}", "'adjustment'"), ('{"format": 2}', "update longtail")],
)
def test_damaged_figures_of_an_adjustment_are_named(
    untrained_run: Callable[..., Path], tmp_path: Path, text: str, words: str
) -> None:
    run = untrained_run(tmp_path / "run")
    (run / "adjusted.json").write_text(text)
    with pytest.raises(LongtailError, match=rf"adjusted\.json.*{words}"):
        model_card(run)


def test_figures_groups_intervals_and_small_classes(ready: Path) -> None:
    text = model_card(ready)
    assert "| few-shot classes | 10.0% (5.0–15.0) |" in text
    data = text.split("## Data")[1].split("\n## ")[0]
    assert {"552", "500", "2", "250"} <= set(re.findall(r"\d+", data))
    assert re.findall(r"(\d) (\w+)-shot", data) == [("1", "many"), ("1", "medium"), ("1", "few")]
    assert "| marten \\| pine | 50 | medium | 30 | 50.0% (25.0–75.0) |" in text
    assert "| 山猫 | 2 | few | 3 | 50.0% (25.0–75.0) (fewer than 5 test images) |" in text
    assert "| post-hoc adjustment | logit-adjustment |" in text
    assert "assume | uniform |" in text
    assert "folder:photos" in text
    assert "/home/me" not in text


def test_a_run_without_figures(untrained_run: Callable[..., Path], tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    for name in ("metrics.json", "config.yaml"):
        (run / name).unlink()
    text = model_card(run)
    assert "no test" not in text  # it may have had some
    assert "The figures of the run" in text
    assert ModelCard(text).data.eval_results is None


def test_a_run_without_test_images(untrained_run: Callable[..., Path], tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"test": None}))
    (run / "adjusted.json").unlink(missing_ok=True)
    assert "no test images" in model_card(run)


def test_a_temperature_alone_is_called_so(untrained_run: Callable[..., Path], tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    info = load_info(run)
    save_info(replace(info, adjustment=replace(info.adjustment, chosen={"method": "none"})), run)
    assert "| post-hoc adjustment | temperature |" in model_card(run)


def test_class_names_stay_text(untrained_run: Callable[..., Path], tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    save_info(replace(load_info(run), classes=("<script>a", "b\n\n# c", "---\nlicense: x"), recipe="- a: b\n---"), run)
    text = model_card(run)
    assert "<script>" not in text
    assert "\n# c" not in text
    assert "license" not in ModelCard(text).data.to_dict()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/home/me/photos", "photos"),
        ("parquet:/data/fish/", "parquet:fish"),
        ("csv:a/b.csv", "csv:b.csv"),
        ("hf:owner/set", "hf:owner/set"),
        ("hf:/home/me/saved", "hf:saved"),
        ("hf:me/x/saved", "hf:saved"),
        ("", ""),
    ],
)
def test_only_the_last_name_of_a_source(source: str, name: str) -> None:
    assert last_name(source) == name


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.yaml", "[1]"), ("config.yaml", "a: [b"), ("metrics.json", '{"test": '), ("metrics.json", "[]")],
)
def test_a_damaged_file_is_named(untrained_run: Callable[..., Path], tmp_path: Path, name: str, text: str) -> None:
    run = untrained_run(tmp_path / "run")
    (run / name).write_text(text)
    with pytest.raises(LongtailError, match=name):
        model_card(run)


def test_figures_of_another_run_are_refused(untrained_run: Callable[..., Path], tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["test"]["per_class"] = metrics["test"]["per_class"][:1]
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(LongtailError, match="classes"):
        model_card(run)


@pytest.mark.parametrize(
    "change",
    [{"test": [1]}, {"test": {"per_class": [1, 2, 3]}}, {"test": {"accuracy": "high"}}, {"groups": {"many": 3}}],
)
def test_figures_of_another_kind_are_refused(untrained_run: Callable[..., Path], tmp_path: Path, change: Any) -> None:
    run = untrained_run(tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | change))
    with pytest.raises(LongtailError, match=r"metrics\.json"):
        model_card(run)
