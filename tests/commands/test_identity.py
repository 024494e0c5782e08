"""What a run knows is matched by name: its own source read again, moved, renamed, enlarged, or given once more."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
PLACES = {"ant": 9, "bee": 8, "cat": 7}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, train_into: Call) -> Path:
    """A folder with photos in three classes and an empty one before them, and a run on it. Look, do not touch."""
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("identity")
    for label, (name, count) in enumerate(PLACES.items()):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng([label, number]).integers(0, 80 * (label + 1), (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{number}.png")
    (root / "photos" / "aardvark").mkdir()
    options = ("--data.validation_fraction", 0.3, "--training.precision", "fp32", "--keep-checkpoints", "--quiet")
    assert train_into(root / "run", root / "photos", *options) == 0
    return root


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Path:
    """A copy of both that may be changed; the run looks for its images in the copy."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(trained), str(tmp_path)))
    return tmp_path


def _figures(cli: Call, workspace: Path, *words: object) -> dict[str, Any]:
    done = cli("evaluate", workspace / "run", *words, "--json")
    assert done.status == 0, done.err
    return dict(json.loads(done.out))


def test_the_splits_file_has_a_line_for_each_image(trained: Path) -> None:
    rows = list(csv.DictReader((trained / "run" / "splits.csv").open(newline="")))
    assert sorted(row["path"] for row in rows) == sorted(
        f"{name}/{k}.png" for name, n in PLACES.items() for k in range(n)
    )
    metrics = json.loads((trained / "run" / "metrics.json").read_text())
    for split in ("validation", "test"):
        counts = {row["name"]: row["test_count"] for row in metrics[split]["per_class"]}
        mine = [row for row in rows if row["split"] == split]
        assert {name: sum(row["class"] == name for row in mine) for name in counts} == counts


@pytest.mark.parametrize("recorded", [True, False])
def test_an_empty_class_makes_no_difference(cli: Call, workspace: Path, recorded: bool) -> None:
    if not recorded:  # a run of an older version
        (workspace / "run" / "splits.csv").unlink()
    before = _figures(cli, workspace)
    (workspace / "photos" / "aardvark").rmdir()
    (workspace / "photos" / "bat").mkdir()
    assert _figures(cli, workspace) == before
    chosen = cli("adjust", workspace / "run", "--json")
    assert chosen.status == 0, chosen.err
    assert json.loads(chosen.out)["test"]["before"]["accuracy"] == before["accuracy"]


def test_new_images_never_come_among_those_that_are_tested(cli: Call, workspace: Path) -> None:
    before = _figures(cli, workspace)
    shutil.copytree(workspace / "photos" / "ant", workspace / "photos" / "zebra")
    shutil.copy(workspace / "photos" / "ant" / "0.png", workspace / "photos" / "bee" / "00.png")
    assert _figures(cli, workspace) == before
    assert "10 images " in cli("evaluate", workspace / "run").err


def _state(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


@pytest.mark.parametrize("recorded", [True, False])
def test_a_renamed_class_is_refused_before_anything_is_written(cli: Call, workspace: Path, recorded: bool) -> None:
    if not recorded:
        (workspace / "run" / "splits.csv").unlink()
    (workspace / "photos" / "bee").rename(workspace / "photos" / "wasp")
    before = _state(workspace / "run")
    for command in ("evaluate", "adjust", "analyse"):
        done = cli(command, workspace / "run")
        assert done.status == 1
        assert "'wasp'" in done.complaint
    assert _state(workspace / "run") == before


@pytest.mark.parametrize("recorded", [True, False])
def test_changed_images_are_noted_by_evaluate_and_refused_by_adjust(cli: Call, workspace: Path, recorded: bool) -> None:
    if not recorded:
        (workspace / "run" / "splits.csv").unlink()
    for photo in (workspace / "photos" / "cat").glob("[0-3].png"):
        photo.unlink()
    before = _state(workspace / "run")
    done = cli("evaluate", workspace / "run")
    assert (done.status, "tested" in done.err) == (0, True)
    done = cli("adjust", workspace / "run")
    assert done.status == 1
    assert "tested" in done.complaint
    assert _state(workspace / "run") == before


def test_a_run_works_from_any_folder(cli: Call, train: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    assert train("folder:photos", "--keep-checkpoints", "--quiet", out="other").status == 0
    (workspace / "elsewhere").mkdir()
    monkeypatch.chdir(workspace / "elsewhere")
    assert cli("evaluate", workspace / "other").status == 0
    (workspace / "other" / "report.html").unlink()
    (workspace / "other" / "metrics.json").unlink()
    assert cli("train", "--resume", workspace / "other", "--quiet").status == 0


def test_a_stopped_run_goes_on_at_the_new_place_and_with_the_classes_it_had(cli: Call, workspace: Path) -> None:
    run, metrics = workspace / "run", json.loads((workspace / "run" / "metrics.json").read_text())
    (run / "metrics.json").unlink()
    (workspace / "photos" / "aardvark").rmdir()
    (workspace / "photos").rename(workspace / "moved")
    assert "--moved-to" in cli("train", "--resume", run).complaint
    assert cli("train", "--resume", run, "--moved-to", workspace / "run").status == 1
    assert str(workspace / "moved") not in (run / "config.yaml").read_text()
    done = cli("train", "--resume", run, "--moved-to", workspace / "moved", "--quiet")
    assert done.status == 0, done.err
    again = json.loads((run / "metrics.json").read_text())
    assert {name: again[name] for name in ("classes", "test", "data_hash")} == {
        name: metrics[name] for name in ("classes", "test", "data_hash")
    }
    assert cli("evaluate", run).status == 0
    assert "--resume" in cli("train", workspace / "moved", "--out", workspace / "new", "--moved-to", "x").complaint


def test_a_table_whose_classes_are_renamed_is_not_trained_on_further(
    cli: Call, train: Call, trained: Path, tmp_path: Path
) -> None:
    rows = [(trained / "photos" / name / f"{k}.png", name) for name, count in PLACES.items() for k in range(count)]
    table = tmp_path / "t.csv"
    table.write_text("path,label\n" + "".join(f"{path},{name}\n" for path, name in rows))
    assert train(f"csv:{table}", "--keep-checkpoints", "--quiet").status == 0
    (tmp_path / "run" / "metrics.json").unlink()
    table.write_text(table.read_text().replace(",bee", ",bug"))  # the same order, the same files
    assert "'bug'" in cli("train", "--resume", tmp_path / "run").complaint


def test_a_source_that_has_moved_is_asked_for(cli: Call, workspace: Path) -> None:
    before = _figures(cli, workspace)
    (workspace / "photos").rename(workspace / "moved")
    for command in ("evaluate", "adjust", "analyse"):
        assert "--moved-to" in cli(command, workspace / "run").complaint
    assert _figures(cli, workspace, "--moved-to", workspace / "moved") == before
    (workspace / "moved" / "ant" / "0.png").write_bytes(b"another size")
    assert "tested" in cli("evaluate", workspace / "run", "--moved-to", workspace / "moved").complaint


def test_training_images_in_another_source_are_counted(cli: Call, workspace: Path) -> None:
    rows = list(csv.DictReader((workspace / "run" / "splits.csv").open(newline="")))
    counts = {name: sum(row["split"] == name for row in rows) for name in ("train", "validation")}
    assert _figures(cli, workspace, workspace / "photos")["seen"] == counts
    chosen = [row["path"] for row in rows if row["split"] == "train" and row["class"] != "cat"]
    for number, path in enumerate(chosen):  # other names: found by their bytes
        target = workspace / "others" / Path(path).parent / f"copy-{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(workspace / "photos" / path, target)
    done = cli("evaluate", workspace / "run", workspace / "others", "--json")
    assert json.loads(done.out)["seen"] == {"train": len(chosen), "validation": 0}
    assert f"{len(chosen)} of these {len(chosen)} " in done.err


def test_a_misspelled_split_is_refused_where_there_is_only_one(cli: Call, workspace: Path) -> None:
    done = cli("evaluate", workspace / "run", workspace / "photos", "--split", "tset")
    assert (done.status, "'test'" in done.complaint) == (2, True)


def test_a_damaged_splits_file_is_named(cli: Call, workspace: Path) -> None:
    (workspace / "run" / "splits.csv").write_text("split,class\ntrain\n")
    assert "splits.csv" in cli("evaluate", workspace / "run").complaint
