"""predict: rows that are the model's own, any folder of files, and bad ones listed instead of fatal."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from longtail.data.images import decode, to_uint8
from longtail.errors import LongtailError
from longtail.inference import predict as predict_module
from longtail.inference.load import ModelInfo, ModelSpec, Preprocessing, save_model
from longtail.inference.predict import predict_images
from longtail.inference.stream import find_images, read_batches
from longtail.models import LongTailModel, build_model

CLASSES = ("lynx", "marten, pine", "山猫")
PREPROCESSING = Preprocessing(size=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.25), resize=20)


@pytest.fixture
def model() -> LongTailModel:
    torch.manual_seed(0)
    return build_model("plain-cnn", 3, "cosine").eval()


@pytest.fixture
def run(model: LongTailModel, tmp_path: Path) -> Path:
    info = ModelInfo(ModelSpec("plain-cnn", "cosine"), CLASSES, (50, 5, 1), PREPROCESSING, logit_scale=30.0)
    save_model(model, info, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    (folder / "deep" / "er").mkdir(parents=True)
    for index, name in enumerate(["b.png", "a.JPG", "deep/c.png", "deep/er/d.webp", "e.png"]):
        pixels = rng.integers(0, 256, (20 + 7 * index, 31, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no image, and not named like one")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_rows_are_the_models_own_probabilities(model: LongTailModel, run: Path, images: Path, tmp_path: Path) -> None:
    report = predict_images(run, images, tmp_path / "new" / "out.csv", batch_size=2)
    rows = _rows(report.out)
    assert report.predicted == len(rows) == 5
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert list(rows[0])[:5] == ["path", "prediction", "confidence", "label_1", "probability_1"]
    assert list(rows[0])[-1] == "probability_3"  # three classes, though five were asked for
    for row in rows:
        pixels = torch.from_numpy(to_uint8(decode(Path(row["path"])), 20, 16)).permute(2, 0, 1)
        mean, std = (torch.tensor(values)[:, None, None] for values in (PREPROCESSING.mean, PREPROCESSING.std))
        with torch.no_grad():
            expected = (30 * model(((pixels / 255 - mean) / std)[None])).softmax(1)[0]
        order = expected.argsort(descending=True).tolist()
        assert row["prediction"] == row["label_1"] == CLASSES[order[0]]
        assert row["confidence"] == row["probability_1"]
        for rank, index in enumerate(order, start=1):
            assert row[f"label_{rank}"] == CLASSES[index]
            assert float(row[f"probability_{rank}"]) == pytest.approx(expected[index].item(), abs=2e-6)


def test_batch_size_and_top_k(run: Path, images: Path, tmp_path: Path) -> None:
    small = predict_images(run, images, tmp_path / "a.csv", batch_size=1, top_k=1, workers=1)
    large = predict_images(run, images, tmp_path / "b.csv", batch_size=64, top_k=1)
    for one, other in zip(_rows(small.out), _rows(large.out), strict=True):
        assert (one["path"], one["prediction"]) == (other["path"], other["prediction"])
        assert float(one["confidence"]) == pytest.approx(float(other["confidence"]), abs=3e-6)
        assert list(one) == ["path", "prediction", "confidence", "label_1", "probability_1"]


def test_bad_files_are_listed_and_skipped(run: Path, images: Path, tmp_path: Path) -> None:
    (images / "text.jpg").write_text("not an image [bold]")
    whole = (images / "b.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    report = predict_images(run, images, tmp_path / "out.csv", batch_size=2, console=console)
    assert report.predicted == len(_rows(report.out)) == 5
    assert [Path(path).name for path, _ in report.skipped] == ["cut.png", "text.jpg"]
    assert all(path in problem for path, problem in report.skipped)
    assert "text.jpg" in shown.getvalue()
    assert "5 predicted, 2 unreadable skipped" in shown.getvalue()


def test_many_bad_files_are_counted(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    for index in range(25):
        (folder / f"{index:02}.jpg").write_text("x")
    shown = io.StringIO()
    report = predict_images(run, folder, tmp_path / "out.csv", console=Console(file=shown, width=300))
    assert (report.predicted, len(report.skipped)) == (0, 25)
    assert "5 more" in shown.getvalue()
    assert _rows(report.out) == []


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_any_mode_of_image(mode: str, run: Path, tmp_path: Path) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    picture = Image.new(mode, (24, 24)) if mode == "I;16" else Image.new("RGB", (24, 24), "teal").convert(mode)
    picture.save(path)
    assert predict_images(run, path, tmp_path / "out.csv").predicted == 1


def test_file_folder_and_pattern(images: Path) -> None:
    assert find_images(images / "b.png") == [str(images / "b.png")]
    assert find_images(images / "notes.txt") == [str(images / "notes.txt")]  # named outright, so it is tried
    assert [Path(path).name for path in find_images(images)] == ["a.JPG", "b.png", "c.png", "d.webp", "e.png"]
    assert [Path(path).name for path in find_images(f"{images}/*.png")] == ["b.png", "e.png"]
    assert [Path(path).name for path in find_images(f"{images}/**/*.png")] == ["b.png", "c.png", "e.png"]


def test_a_name_with_brackets_is_a_name_first(tmp_path: Path) -> None:
    path = tmp_path / "shot [1].png"
    Image.new("RGB", (4, 4)).save(path)
    assert find_images(path) == [str(path)]


def test_links_that_lead_back_up_end(images: Path) -> None:
    (images / "deep" / "loop").symlink_to(images, target_is_directory=True)
    assert len(find_images(images)) == 5


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere", "There is no file or folder"), ("*.xyz", "No image in"), ("empty", "No image in")]
)
def test_nothing_to_predict(name: str, message: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LongtailError, match=message):
        predict_images(run, tmp_path / name, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.skipif(os.name != "posix", reason="only POSIX names files with arbitrary bytes")
def test_file_names_that_are_no_utf8(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "names"
    folder.mkdir()
    name = os.fsdecode(b'caf\xe9, "x".png')
    try:
        Image.new("RGB", (4, 4)).save(folder / name, format="PNG")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    report = predict_images(run, folder, tmp_path / "out.csv")
    assert [row["path"] for row in _rows(report.out)] == [str(folder / name)]


def test_reading_ahead_is_bounded(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    real = predict_module.read_batches.__globals__["read_image"]

    def counted(path: str, preprocessing: Preprocessing) -> object:
        started.append(path)
        return real(path, preprocessing)

    monkeypatch.setitem(predict_module.read_batches.__globals__, "read_image", counted)
    paths = [str(images / "b.png")] * 40
    batches = read_batches(paths, PREPROCESSING, batch_size=4, workers=2)
    assert len(next(batches)) == 4
    assert len(started) <= 12  # this batch and two more
    assert sum(len(batch) for batch in batches) == 36


def test_interrupted_run_keeps_the_rows_so_far(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("from before")
    real = predict_module._predict_batch
    calls: list[int] = []

    def stop_at_second(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(predict_module, "_predict_batch", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        predict_images(run, images, out, batch_size=2)
    assert out.read_text() == "from before"
    assert len(_rows(tmp_path / "out.csv.part")) == 2


def test_csv_that_cannot_be_written(run: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LongtailError, match="cannot be written"):
        predict_images(run, images, tmp_path / "file" / "out.csv")


@pytest.mark.parametrize("options", [{"top_k": 0}, {"batch_size": 0}])
def test_wrong_options(options: dict[str, int], run: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match="at least 1"):
        predict_images(run, images, tmp_path / "out.csv", **options)
