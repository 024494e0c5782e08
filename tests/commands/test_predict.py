"""`longtail predict`: a row for each image, as the run itself predicts it."""

from __future__ import annotations

import csv
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digit_photos import write_digits
from PIL import Image

from longtail.predict import Predictor
from longtail.predict.parts import list_parts

Call = Callable[..., Any]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
        "path",
        "prediction",
        "confidence",
        "label_1",
        "probability_1",
        "label_2",
        "probability_2",
    ]
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


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_long_images_are_shown_to_predict_as_they_were_to_the_evaluation(
    cli: Call, train: Call, tmp_path: Path, fit: str
) -> None:
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "photos" / ("test" if number < 8 else "train") / ("cat", "lynx")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shapes = Image.fromarray(rng.integers(0, 255, (2, 6, 3), dtype=np.uint8))
        shapes.resize((90, 30) if number % 3 else (25, 70)).save(folder / f"{number:02}.jpg", quality=95)
    # The evaluation in float32, as predict always is.
    assert train(tmp_path / "photos", "--data.fit", fit, "--training.precision", "fp32").status == 0
    assert json.loads((tmp_path / "run" / "model.json").read_text())["preprocessing"]["fit"] == fit
    expected = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pydict()
    out = tmp_path / "answers.csv"
    assert cli("predict", tmp_path / "run", tmp_path / "photos" / "test", "--out", out, "--device", "cpu").status == 0
    sure = dict(zip((Path(path).name for path in expected["path"]), expected["confidence"], strict=True))
    answers = {Path(row["path"]).name: float(row["confidence"]) for row in rows_of(out)}
    assert answers == pytest.approx(sure, abs=1e-4)
    assert len(answers) == 8
    # Shown in another way, the same images get other probabilities: the comparison above can fail.
    info = json.loads((tmp_path / "run" / "model.json").read_text())
    info["preprocessing"]["fit"] = "stretch" if fit == "crop" else "crop"
    (tmp_path / "run" / "model.json").write_text(json.dumps(info))
    assert cli("predict", tmp_path / "run", tmp_path / "photos" / "test", "--out", out, "--device", "cpu").status == 0
    others = {Path(row["path"]).name: float(row["confidence"]) for row in rows_of(out)}
    assert others != pytest.approx(sure, abs=1e-3)


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


@pytest.mark.parametrize(
    ("images", "out", "options"),
    [
        ("list.csv", "list.csv", ()),
        ("file://{}/list.csv", "list.csv", ()),
        ("list.csv", "file://localhost{}/list.csv", ()),
        ("x.csv.skipped.csv", "x.csv", ()),
        ("file://{}/x.csv.skipped.csv", "{}/x.csv", ()),
        ("parts/_skipped.csv", "parts", ("--ray",)),
    ],
)
def test_an_input_is_never_overwritten(
    cli: Call,
    finished: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: str,
    out: str,
    options: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    photo = next(write_digits(tmp_path / "photos").rglob("*.png"))
    table = tmp_path / images.removeprefix("file://{}/")
    table.parent.mkdir(exist_ok=True)
    table.write_text(f"path\n{photo}\n")
    words = ("predict", finished.folder, images.format(tmp_path), "--out", out.format(tmp_path), *options)
    done = cli(*words)
    assert done.status == 2
    assert "overwrite" in done.complaint
    assert table.read_text() == f"path\n{photo}\n"


def test_shards_are_predicted_and_merged(cli: Call, finished: Any, tmp_path: Path) -> None:
    source, parts, out = write_digits(tmp_path / "photos"), tmp_path / "parts", tmp_path / "answers.csv"
    for number in ("1", "2"):
        words = ("predict", finished.folder, source, "--shard", f"{number}/2", "--out", parts / f"{number}.parquet")
        assert cli(*words).status == 0
        done = cli("predict", "--merge", parts, "--out", out)
        assert done.status == (1 if number == "1" else 0)
        assert ("2/2: missing" in done.err) == (number == "1")
    assert done.err.splitlines()[-1] == f"6 predicted: {out}"
    assert cli("predict", finished.folder, source, "--out", tmp_path / "whole.csv").status == 0
    assert [row["path"] for row in rows_of(out)] == [row["path"] for row in rows_of(tmp_path / "whole.csv")]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("r", "i", "--shard", "0/2", "--out", "a.parquet"), "counted from 1"),
        (("r", "i", "--shard", "2", "--out", "a.parquet"), "I/N"),
        (("--merge", "parts", "r", "--out", "a.csv"), "leave 'r' out"),
        (("--merge", "parts", "--shard", "1/2", "--out", "a.csv"), "leave --shard out"),
        (("--merge", "parts"), "--out missing"),
        (("--merge", "parts", "--out", "a.csv", "--ray"), "leave --ray out"),
        (("--merge", "parts", "--out", "a.csv", "--top-k", "1", "--prior", "uniform"), "leave --top-k and --prior out"),
        (("--merge", "parts", "--out", "a.csv", "--device", "cpu"), "leave --device out"),
        (("r", "i", "--out", "a", "--ray", "--format", "csv"), "leave --format out"),
        (("--ray", "r", "i", "--out", "a"), "--ray last"),
        (("r", "i", "--out", "a", "--shard", "1/2", "--ray"), "leave --shard out"),
        (("r", "i", "--out", "a.parquet", "--ray", "auto"), "a folder of parts"),
        (("--merge", "nowhere", "--out", "a.csv"), "nowhere"),
        (("--merge", "parts", "--out", "a.xlsx"), ".csv"),
    ],
)
def test_shards_that_make_no_sense(cli: Call, words: tuple[str, ...], complaint: str) -> None:
    done = cli("predict", *words)
    assert done.status == 2
    assert complaint in done.complaint


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGTERM")
def test_sigterm_keeps_what_is_done_as_ctrl_c_does(
    cli: Call, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_digits(tmp_path / "photos"), tmp_path / "answers.csv"
    words = ("predict", finished.folder, source, "--out", out, "--batch-size", 1, "--device", "cpu")
    classify, calls = Predictor._classify, 0

    def terminated(self: Predictor, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            signal.raise_signal(signal.SIGTERM)
        return classify(self, *given)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "_classify", terminated)
        done = cli(*words)
    assert (done.status, done.complaint) == (130, "interrupted.")
    assert signal.getsignal(signal.SIGTERM) is before
    parts = list_parts(out.with_name("answers.csv.parts"))
    assert 1 <= sum(part.rows for part in parts) <= 3
    again = cli(*words)
    assert again.status == 0
    assert "continuing after" in again.err
    assert len(rows_of(out)) == 6


def test_ray_that_is_not_installed_is_told(
    cli: Call, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    source = write_digits(tmp_path / "photos")
    assert "longtail[ray]" in cli("predict", finished.folder, source, "--out", tmp_path / "parts", "--ray").complaint
