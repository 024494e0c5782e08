"""`longtail adjust` on a finished run, and what evaluate makes of it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from longtail.experiments.adjust import AdjustmentOptions, adjust_run
from longtail.experiments.finished_run import FinishedRun
from longtail.formatting import figure_text
from longtail.predict.hub import model_card
from longtail.run.model_files import load_info, load_run
from longtail.training.prepared_data import PreparedData

Call = Callable[..., Any]


@pytest.fixture
def run(finished: Any, tmp_path: Path) -> Path:
    """A copy of the finished run that may be changed; it has 14 validation images for ten classes."""
    return Path(shutil.copytree(finished.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoint")))


def digests(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def test_adjust_evaluate_and_reset(cli: Call, run: Path) -> None:
    before = digests(run)
    plain = json.loads(cli("evaluate", run, "--json").out)
    done = cli("adjust", run, "--threshold-coverage", 0.8)
    assert (done.status, done.err) == (0, "")
    text = " ".join(done.out.split())
    assert "balanced accuracy" in text
    rows = json.loads((run / "metrics.json").read_text())["validation"]["per_class"]
    few = sum(row["test_count"] < 5 for row in rows)
    assert re.search(rf"\b{few} .*\b5\b", text)
    assert "sure" in text
    test = json.loads((run / "metrics.json").read_text())["test"]
    assert (
        f"few {figure_text(test['few'], test['intervals']['few'])} " in text.split("test, ")[1]
    )  # the unadjusted column
    assert {name for name, data in digests(run).items() if before.get(name) != data} == {"model.json", "adjusted.json"}
    assert digests(run).keys() - before.keys() == {"adjusted.json"}

    info = load_info(run)
    assert info.prior == "uniform"  # stage 2 of GCL draws the classes alike
    assert info.adjustment is not None
    assert info.threshold is not None
    adjusted = json.loads(cli("evaluate", run, "--json").out)
    assert adjusted["nll"] != plain["nll"]
    assert adjusted.pop("sure")["threshold"] == info.threshold
    assert adjusted.keys() == plain.keys()
    assert json.loads(cli("evaluate", run, "--no-adjustment", "--json").out) == plain

    stored = json.loads((run / "adjusted.json").read_text())
    assert stored["chosen"] == info.adjustment.chosen
    assert stored["test"] == adjusted | {
        "nll": pytest.approx(adjusted["nll"], rel=1e-5),
        "ece": pytest.approx(adjusted["ece"], rel=1e-5),
    }
    table_row = f"| balanced accuracy | {stored['test']['balanced_accuracy'] * 100:.1f}%"
    assert table_row in model_card(run)

    assert "adjustment removed" in cli("adjust", run, "--reset").out
    assert digests(run).keys() == before.keys()
    assert json.loads(cli("evaluate", run, "--json").out) == plain
    assert "no adjustment" in cli("adjust", run, "--reset").out
    assert json.loads(cli("adjust", run, "--reset", "--json").out) == {"removed": False}
    assert "--tau" in cli("adjust", run, "--reset", "--tau", 1).complaint


def test_what_adjust_says_is_what_evaluate_measures(cli: Call, run: Path) -> None:
    printed = json.loads(cli("adjust", run, "--threshold-accuracy", 0.3, "--json").out)
    for split in ("validation", "test"):
        measured = json.loads(cli("evaluate", run, "--split", split, "--json").out)
        figures = dict(printed[split]["after"])
        assert figures.pop("intervals") == measured["intervals"]
        for name, value in figures.items():
            assert measured[name] == (None if value is None else pytest.approx(value, rel=1e-5)), name
        assert measured["sure"] == printed[split]["sure"]
        for name, change in printed[split]["change"].items():
            sides = [printed[split][side][name] for side in ("before", "after")]
            assert (change is None) == (None in sides)
            if change is not None:
                assert change["mean"] == pytest.approx(sides[1] - sides[0], abs=1e-6), name
                low, high = change["interval"]
                assert low <= change["mean"] <= high
                assert not change["is_evidence"] or low * high > 0
    assert printed["chosen"] == load_info(run).adjustment.chosen


def test_test_labels_have_no_say(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = AdjustmentOptions(coverage=0.7)
    first = adjust_run(run, options)
    written = (run / "model.json").read_bytes()

    read_images = FinishedRun.images

    def shuffled(self: FinishedRun, *args: Any, **options: Any) -> PreparedData:
        prepared = read_images(self, *args, **options)
        test = prepared.data.splits["test"]
        rows = test.rows.remove_columns("label").add_column("label", (test.labels + 3) % 10)
        return replace(prepared, data=prepared.data.with_splits(test=replace(test, rows=rows)))

    monkeypatch.setattr(FinishedRun, "images", shuffled)
    second = adjust_run(run, options)
    assert (run / "model.json").read_bytes() == written
    assert second["validation"] == first["validation"]
    assert second["test"]["before"]["accuracy"] != first["test"]["before"]["accuracy"]


def test_a_model_file_of_an_older_version_learns_what_it_assumes(cli: Call, run: Path) -> None:
    data = json.loads((run / "model.json").read_text())
    for name in ("adjustment", "prior", "threshold"):
        del data[name]
    (run / "model.json").write_text(json.dumps(data))
    assert cli("adjust", run, "--method", "none", "--temperature", 2).status == 0
    info = load_info(run)
    assert info.prior == "uniform"
    logits = torch.rand(2, 10)
    torch.testing.assert_close(info.scores(logits), logits * info.logit_scale / 2)


def test_evaluate_shows_coverage_against_accuracy(cli: Call, run: Path) -> None:
    rows = json.loads(cli("evaluate", run, "--coverage", "--json").out)["coverage"]
    assert [row["overall"]["coverage"] for row in rows] == pytest.approx([1, 0.95, 0.9, 0.8, 0.7, 0.5], abs=0.02)
    thresholds = [row["threshold"] for row in rows]
    assert thresholds == sorted(thresholds)
    overall = rows[0]["overall"]
    result = cli("evaluate", run, "--coverage").out
    assert figure_text(overall["accuracy"], overall["accuracy_interval"], unit="") in result


def test_without_validation_images_nothing_is_chosen(cli: Call, run: Path) -> None:
    config = (run / "config.yaml").read_text().replace("validation_fraction: 0.1", "validation_fraction: 0.0")
    (run / "config.yaml").write_text(config)
    for name in ("splits.csv", "metrics.json"):  # which remember them
        (run / name).unlink()
    before = digests(run)
    complaint = cli("adjust", run).complaint
    assert "validation" in complaint
    assert "--data.validation_fraction 0.1" in complaint
    assert digests(run) == before


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--method", "tau-norm"], "--method logit-adjustment"),
        (["--method", "taunorm"], "'tau-norm'"),
        (["--tau", "much"], "--tau "),
        (["--tau", "-1"], "--tau "),
        (["--tau", ".nan"], "--tau"),
        (["--temperature", "0"], "--temperature "),
        (["--temperature", ".inf"], "--temperature"),
        (["--threshold-coverage", "80"], "--threshold-coverage"),
        (["--threshold-coverage", "0"], "--threshold-coverage"),
        (["--threshold-accuracy", "95"], "--threshold-accuracy"),
        (["--threshold-accuracy", "1.0"], "less"),
    ],
)
def test_what_cannot_be_asked_for_changes_nothing(cli: Call, run: Path, words: list[str], complaint: str) -> None:
    if words == ["--threshold-accuracy", "1.0"]:  # a network that is never right
        model, _ = load_run(run)
        head = dict(model.named_parameters())["head.weight"]
        data = {name: value.clone() for name, value in model.state_dict().items()}
        data["head.weight"] = -head.detach()
        save_file(data, run / "model.safetensors")
    before = digests(run)
    assert complaint in cli("adjust", run, *words).complaint
    assert digests(run) == before


def test_adjust_needs_a_finished_run(cli: Call, tmp_path: Path) -> None:
    assert "no run" in cli("adjust", tmp_path / "nope").complaint
    assert "model.json" in cli("adjust", tmp_path / "nope", "--reset").complaint
