"""predict: rows that are the model's own, any folder of files, and bad ones listed instead of fatal."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from longtail.data.decode import decode
from longtail.data.square import to_uint8
from longtail.errors import LongtailError
from longtail.models import LongTailModel, build_model
from longtail.models.preprocessing import Preprocessing
from longtail.predict.images import Item
from longtail.predict.part_folder import PartFolder
from longtail.predict.parts import Job
from longtail.predict.predict import predict_images
from longtail.predict.predictor import read_batches
from longtail.predict.table import Format
from longtail.run.model_files import ModelInfo, ModelSpec, load_info, save_info, save_model

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
        pixels = torch.from_numpy(to_uint8(decode(Path(row["path"])), PREPROCESSING.square)).permute(2, 0, 1)
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
    for first, other in zip(_rows(small.out), _rows(large.out), strict=True):
        assert (first["path"], first["prediction"]) == (other["path"], other["prediction"])
        assert float(first["confidence"]) == pytest.approx(float(other["confidence"]), abs=3e-6)
        assert list(first) == ["path", "prediction", "confidence", "label_1", "probability_1"]


def test_bad_files_are_listed_and_skipped(run: Path, images: Path, tmp_path: Path) -> None:
    (images / "text.jpg").write_text("not an image [bold]")
    whole = (images / "b.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    report = predict_images(run, images, tmp_path / "out.csv", batch_size=2, console=console)
    assert report.predicted == len(_rows(report.out)) == 5
    assert [Path(path).name for path, _ in report.problems] == ["cut.png", "text.jpg"]
    assert all(path in problem for path, problem in report.problems)
    assert [(row["path"], row["problem"]) for row in _rows(tmp_path / "out.csv.skipped.csv")] == report.problems
    assert "text.jpg" in shown.getvalue()
    assert "5 predicted" in shown.getvalue()


def test_many_bad_files_are_counted(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    for index in range(25):
        (folder / f"{index:02}.jpg").write_text("x")
    shown = io.StringIO()
    report = predict_images(run, folder, tmp_path / "out.csv", console=Console(file=shown, width=300))
    assert (report.predicted, report.skipped, len(report.problems)) == (0, 25, 20)
    assert "5 more" in shown.getvalue()
    assert f" {tmp_path / 'out.csv.skipped.csv'}" in shown.getvalue()
    assert len(_rows(tmp_path / "out.csv.skipped.csv")) == 25
    assert _rows(report.out) == []


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_any_mode_of_image(mode: str, run: Path, tmp_path: Path) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    picture = Image.new(mode, (24, 24)) if mode == "I;16" else Image.new("RGB", (24, 24), "teal").convert(mode)
    picture.save(path)
    assert predict_images(run, path, tmp_path / "out.csv").predicted == 1


@pytest.mark.parametrize(("name", "message"), [("nowhere", "no file"), ("*.xyz", "No image"), ("empty", "No image")])
def test_nothing_to_predict(name: str, message: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LongtailError, match=message):
        predict_images(run, tmp_path / name, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.skipif(os.name != "posix", reason="only POSIX names files with arbitrary bytes")
def test_file_names_that_are_not_utf8(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "names"
    folder.mkdir()
    name = os.fsdecode(b'caf\xe9, "x".png')
    try:
        Image.new("RGB", (4, 4)).save(folder / name, format="PNG")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    report = predict_images(run, folder, tmp_path / "out.csv")
    assert [row["path"] for row in _rows(report.out)] == [str(folder / name)]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder whose path is not UTF-8, with an image."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes only UTF-8 names")
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    return folder


def test_a_folder_whose_path_is_not_utf8(run: Path, odd: Path) -> None:
    for number in range(2):
        report = predict_images(run, odd, odd / "part.parquet", shard="1/1")
        assert (report.predicted, report.earlier) == ((1, 0), (0, 1))[number]
        assert predict_images(run, odd, odd / "out.csv").predicted == 1
    assert [row["path"] for row in _rows(odd / "out.csv")] == [str(odd / "a.png")]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_whose_path_is_not_utf8(kind: str, run: Path, odd: Path) -> None:
    table = odd / (os.fsdecode(b"t\xe9.") + kind)
    if kind == "csv":
        table.write_text("path,id\na.png,1\n,2\n")
    else:
        with table.open("wb") as file:
            pq.write_table(pa.table({"path": ["a.png", None]}), file)
    report = predict_images(run, table, odd / "out.csv")
    assert (report.predicted, report.skipped) == (1, 1)
    assert r"t\udce9" in _rows(odd / "out.csv.skipped.csv")[0]["problem"]


def test_reading_ahead_is_bounded(images: Path) -> None:
    started: list[int] = []

    def paths() -> Iterator[Item]:
        for number in range(40):
            started.append(number)
            yield Item(str(images / "b.png"), str(images / "b.png"))

    batches = read_batches(paths(), PREPROCESSING, batch_size=4, workers=2)
    assert len(next(batches)) == 4
    assert len(started) <= 12  # this batch and two more
    assert sum(len(batch) for batch in batches) == 36


@contextmanager
def interrupted_at(batch: int) -> Iterator[None]:
    """Press Ctrl-C in the forward pass of a batch, counted from 1."""
    batches = count(1)

    def hook(module: nn.Module, _: object) -> None:
        if isinstance(module, LongTailModel) and next(batches) == batch:
            raise KeyboardInterrupt

    handle = register_module_forward_pre_hook(hook)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        handle.remove()


@pytest.fixture
def stopped(run: Path, images: Path, tmp_path: Path) -> Path:
    """An output whose third batch was interrupted."""
    (images / "c.png").write_text("no image")
    out = tmp_path / "out.csv"
    out.write_text("from before")
    with interrupted_at(batch=3):
        predict_images(run, images, out, batch_size=2)
    assert out.read_text() == "from before"
    return out


def test_the_same_call_continues_where_it_was_interrupted(
    run: Path, images: Path, stopped: Path, tmp_path: Path
) -> None:
    report = predict_images(run, images, stopped, batch_size=2)
    assert (report.earlier, report.predicted + report.skipped) == (4, 2)
    whole = predict_images(run, images, tmp_path / "whole.csv", batch_size=2)
    assert stopped.read_text() == whole.out.read_text()
    assert len(_rows(stopped)) == 5
    for out in (stopped, whole.out):
        assert [Path(row["path"]).name for row in _rows(Path(f"{out}.skipped.csv"))] == ["c.png"]
    assert not list(tmp_path.glob("*.parts"))


def test_files_added_or_removed_meanwhile_are_neither_lost_nor_repeated(run: Path, images: Path, stopped: Path) -> None:
    (images / "a.JPG").unlink()  # has its row already
    Image.new("RGB", (9, 9)).save(images / "0.png")  # would come first
    predict_images(run, images, stopped)
    names = [Path(row["path"]).name for row in _rows(stopped)]
    assert sorted(names) == ["0.png", "a.JPG", "b.png", "c.png", "d.webp", "e.png"]


@pytest.mark.parametrize("change", [{"top_k": 1}, {"prior": "uniform"}])
def test_an_unfinished_table_of_another_command_is_kept(
    change: dict[str, object], run: Path, images: Path, stopped: Path
) -> None:
    (part,) = stopped.with_name("out.csv.parts").iterdir()
    before = part.read_bytes()
    with pytest.raises(LongtailError, match=r"options.*--restart"):
        predict_images(run, images, stopped, **change)
    assert part.read_bytes() == before
    assert predict_images(run, images, stopped, restart=True, **change).predicted == 5


def test_another_model_does_not_continue(run: Path, images: Path, stopped: Path) -> None:
    info = load_info(run)
    save_info(replace(info, logit_scale=1.0), run)
    with pytest.raises(LongtailError, match=r"another command.*model"):
        predict_images(run, images, stopped)


def test_problems_of_before_do_not_stay(run: Path, images: Path, tmp_path: Path) -> None:
    (images / "text.jpg").write_text("no image")
    assert predict_images(run, images, tmp_path / "out.csv").skipped == 1
    (images / "text.jpg").unlink()
    predict_images(run, images, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv.skipped.csv").exists()


def test_parquet_in_and_out(run: Path, images: Path, tmp_path: Path) -> None:
    files = sorted(images.rglob("[a-z]*.png"))
    cells = [{"bytes": file.read_bytes(), "path": None} for file in files] + [
        {"bytes": None, "path": str(files[0])},
        None,
    ]
    table = tmp_path / "table.parquet"
    pq.write_table(pa.table({"image": cells, "label": list(range(len(cells)))}), table)
    report = predict_images(run, table, tmp_path / "out.parquet", top_k=2)
    rows = pq.read_table(report.out).to_pylist()
    assert [row["path"] for row in rows] == [*(f"{table}#{row}" for row in range(len(files))), str(files[0])]
    expected = _rows(predict_images(run, images, tmp_path / "out.csv", top_k=2).out)
    by_name = {row["path"]: row for row in expected}
    for file, row in zip([*files, files[0]], rows, strict=True):
        assert row["prediction"] == by_name[str(file)]["prediction"]
        assert row["probability_2"] == pytest.approx(float(by_name[str(file)]["probability_2"]), abs=2e-6)
    ((row, problem),) = report.problems
    assert row == f"{table}#{len(cells) - 1}"
    assert problem.startswith(f"{row}: ")
    assert "no image" in problem


def test_a_csv_of_paths_keeps_its_order_and_its_doubles(run: Path, images: Path, tmp_path: Path) -> None:
    table = images / "list.csv"
    table.write_text("id;photo\n1;e.png\n2;deep/c.png\n3;\n4;e.png\n5;gone.png\n")
    report = predict_images(run, table, tmp_path / "out.csv", image_column="photo", batch_size=1)
    assert [row["path"] for row in _rows(report.out)] == ["e.png", "deep/c.png", "e.png"]
    assert [name for name, _ in report.problems] == [f"{table}, line 4", "gone.png"]
    with pytest.raises(LongtailError, match="image_column"):
        predict_images(run, table, tmp_path / "out.csv")


def test_a_stopped_table_continues_by_row(run: Path, images: Path, tmp_path: Path) -> None:
    table, out = images / "list.csv", tmp_path / "out.csv"
    table.write_text("path\n" + "e.png\n" * 7)
    with interrupted_at(batch=3):
        predict_images(run, table, out, batch_size=2)
    assert predict_images(run, table, out, batch_size=2).earlier == 4
    assert len(_rows(out)) == 7


def test_sure_and_prior(model: LongTailModel, run: Path, images: Path, tmp_path: Path) -> None:
    plain = _rows(predict_images(run, images, tmp_path / "a.csv", top_k=3).out)
    middle = sorted(float(row["confidence"]) for row in plain)[2] - 1e-5  # the table is rounded
    save_info(replace(load_info(run), threshold=middle), run)
    rows = _rows(predict_images(run, images, tmp_path / "b.csv", top_k=3).out)
    assert [row["sure"] for row in rows] == ["yes" if float(row["confidence"]) >= middle else "no" for row in plain]
    assert {row["sure"] for row in rows} == {"yes", "no"}
    shifted = _rows(predict_images(run, images, tmp_path / "c.csv", top_k=3, prior="uniform").out)
    for before, after in zip(plain, shifted, strict=True):
        old, new = (
            {row[f"label_{rank}"]: float(row[f"probability_{rank}"]) for rank in (1, 2, 3)} for row in (before, after)
        )
        weights = {name: old[name] / count for name, count in zip(CLASSES, (50, 5, 1), strict=True)}
        total = sum(weights.values())
        assert all(new[name] == pytest.approx(weights[name] / total, abs=1e-3) for name in CLASSES)


def test_csv_that_cannot_be_written(run: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LongtailError, match="be written"):
        predict_images(run, images, tmp_path / "file" / "out.csv")


@pytest.mark.parametrize("options", [{"top_k": 0}, {"batch_size": 0}])
def test_wrong_options(options: dict[str, int], run: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match="at least 1"):
        predict_images(run, images, tmp_path / "out.csv", **options)


def test_files_left_out_are_listed_or_counted(run: Path, images: Path, tmp_path: Path) -> None:
    unread = ["1.HEIC", "2.heic", "deep/3.cr2", "4.mov"]
    for name in (*unread, "list.json", "deep/none"):
        (images / name).write_bytes(b"II*\0")
    (images / "loop").symlink_to(images, target_is_directory=True)
    os.mkfifo(images / "pipe.png")
    shown = io.StringIO()
    report = predict_images(run, images, tmp_path / "out.csv", console=Console(file=shown, width=200))
    assert report.predicted == 5
    assert report.unread == {".heic": 2, ".cr2": 1, ".mov": 1}
    skipped = _rows(tmp_path / "out.csv.skipped.csv")
    assert sorted(row["path"] for row in skipped) == sorted(str(images / name) for name in unread)
    assert all("convert" in row["problem"] for row in skipped)
    assert report.left_out.others == {".txt": 1, ".json": 1, "no suffix": 1}
    assert (report.left_out.hidden, report.left_out.again, report.left_out.special) == (1, 1, 1)
    output = shown.getvalue()
    assert "(.heic 2, " in output
    assert "3 files" in output
    assert "5 predicted" in output


def test_a_pattern_that_names_what_is_not_read_says_so(run: Path, images: Path, tmp_path: Path) -> None:
    (images / "1.nef").write_bytes((images / "b.png").read_bytes())  # some hold a small picture that would be read
    report = predict_images(run, f"{images}/[1b].*", tmp_path / "out.csv")
    assert (report.predicted, report.unread) == (1, {".nef": 1})
    (images / "list.csv").write_text("path\n1.nef\nb.png\n")
    for named in ("1.nef", "list.csv"):
        assert predict_images(run, images / named, tmp_path / "out.csv").unread == {".nef": 1}


def test_repeated_rows_are_counted(run: Path, images: Path, tmp_path: Path) -> None:
    (images / "list.csv").write_text("path\ne.png\nb.png\ne.png\ngone.png\ngone.png\n")
    shown = io.StringIO()
    report = predict_images(run, images / "list.csv", tmp_path / "out.csv", console=Console(file=shown, width=200))
    assert (report.predicted, report.doubles) == (3, 2)
    assert "2 rows repeat" in shown.getvalue()
    assert predict_images(run, images, tmp_path / "out.csv").doubles == 0


def test_the_same_words_in_another_folder_are_another_command(
    run: Path, images: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (part,) = stopped.with_name("out.csv.parts").iterdir()
    before = part.read_bytes()
    elsewhere = images.parent / "elsewhere"
    (elsewhere / "images").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(elsewhere / "images" / "b.png")
    monkeypatch.chdir(elsewhere)
    with pytest.raises(LongtailError, match=r"another command.*images"):
        predict_images(run, "images", stopped)
    assert part.read_bytes() == before


def test_two_commands_do_not_share_a_table(run: Path, images: Path, tmp_path: Path) -> None:
    job = Job((), "", {}, ("path",))
    with PartFolder(tmp_path / "out.csv.parts", job), pytest.raises(LongtailError, match="another command"):
        predict_images(run, images, tmp_path / "out.csv")


def test_what_is_not_a_part_is_kept(run: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv.parts").write_text("mine")
    with pytest.raises(LongtailError, match="be written"):
        predict_images(run, images, tmp_path / "out.csv")
    assert (tmp_path / "out.csv.parts").read_text() == "mine"
    folder = tmp_path / "b.csv.parts"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    pq.write_table(pa.table({"a": [1]}), folder / "part-mine.parquet")
    assert predict_images(run, images, tmp_path / "b.csv", restart=True).predicted == 5
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "part-mine.parquet"}


def test_tab_separated(run: Path, images: Path, tmp_path: Path) -> None:
    lines = predict_images(run, images, tmp_path / "out.tsv", top_k=1).out.read_text().splitlines()
    assert lines[0].split("\t") == ["path", "prediction", "confidence", "label_1", "probability_1"]
    assert all(line.count("\t") == 4 for line in lines)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_pipe_gets_the_rows_and_the_terminal_the_problems(kind: Format, run: Path, images: Path) -> None:
    for number in range(25):
        (images / f"bad {number}.heic").touch()
    read, write = os.pipe()
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(os.fdopen(read, "rb").read()))
    reader.start()
    shown = io.StringIO()
    report = predict_images(run, images, f"/dev/fd/{write}", format=kind, console=Console(file=shown, width=200))
    os.close(write)
    reader.join(10)
    if kind == "csv":
        rows = list(csv.DictReader(io.StringIO(got[0].decode())))
    else:
        rows = pq.read_table(pa.BufferReader(got[0])).to_pylist()
    assert report.predicted == len(rows) == 5
    assert sum("bad " in line for line in shown.getvalue().splitlines()) == 25


@pytest.mark.skipif(not Path("/proc/self/fd/1").exists(), reason="no /proc here")
def test_the_standard_output_of_the_command_takes_the_table_alone(run: Path, images: Path, tmp_path: Path) -> None:
    link = tmp_path / "stdout"  # as /dev/stdout is one; root could replace that
    link.symlink_to("/proc/self/fd/1")
    words = [sys.executable, "-m", "longtail", "predict", str(run), str(images), "--device", "cpu", "--out"]
    with (tmp_path / "answers.csv").open("wb") as file:
        file.write(b"# before\n")
        file.flush()
        done = subprocess.run([*words, str(link)], stdout=file, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "answers.csv").read_text().splitlines()
    assert lines[:2] == ["# before", lines[1]]
    assert lines[1].startswith("path,prediction,")
    assert len(lines) == 2 + 5
    assert b"5 predicted" in done.stderr
    assert link.is_symlink()
