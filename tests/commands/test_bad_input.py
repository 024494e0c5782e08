"""What people really have on disk: each kind of bad input is one sentence, or trains with a stated behavior."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from longtail.config import resolve
from longtail.errors import LATER, UnreadableImageError
from longtail.predict.predictor import Predictor

Call = Callable[..., Any]


def metrics(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return values


# --- no images --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere", "neither"),
        ("folder:nowhere", "not exist"),
        ("csv:nowhere.csv", "not exist"),
        ("parquet:nowhere", "not exist"),
        ("folder:", "folder:PATH"),
        ("floder:photos", "'folder'"),
        ("cifar1000", "'cifar100'"),
        ("digts", "'digits'"),
        ("cifar100", "hf:SAVED_DIR"),
        ("hf:nobody/nothing", "hf:SAVED_DIR"),
    ],
)
def test_a_source_that_is_not_there(train: Call, cli: Call, tmp_path: Path, source: str, words: str) -> None:
    assert words in train(source).complaint
    assert words in cli("inspect", source).complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({}, "sub-folders"),
        ({"cat": 0, "dog": 0}, "no images"),
        ({"train/cat": 0, "train/dog": 0, "test/cat": 2}, "training images"),
        ({"val/cat": 2, "test/cat": 2}, "no train/"),
        ({"cat": 5}, "two"),
    ],
)
def test_a_source_without_enough_images(
    train: Call, make_folder: Call, tmp_path: Path, classes: dict[str, int], words: str
) -> None:
    folder = make_folder(classes)
    folder.mkdir(exist_ok=True)
    assert words in train(folder).complaint
    assert not (tmp_path / "run").exists(), "the same command has to work once the source is mended"


def test_images_without_class_folders(train: Call, make_folder: Call) -> None:
    assert "sub-folders" in train(make_folder({"cat": 3}) / "cat").complaint


# --- few images -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["cifar-lt/ce", "cifar-lt/gcl", "cifar-lt/ldam-drw"])
def test_a_class_without_images_and_a_class_with_one_train(
    train: Call, make_folder: Call, tmp_path: Path, recipe: str
) -> None:
    source = make_folder({"cat": 12, "lynx": 1, "margay": 0})
    options = ("--stage1.mixing", "none", "--data.validation_fraction", 0.2)
    assert train(source, *options, recipe=recipe).status == 0
    figures = metrics(tmp_path / "run")
    assert figures["classes"] == ["cat", "lynx", "margay"]
    assert figures["train_counts"][1:] == [1, 0], "a single image is never held out, a class without one is kept"
    assert [row["recall"] for row in figures["test"]["per_class"]][1:] == [None, None]
    info = json.loads((tmp_path / "run" / "model.json").read_text())
    assert info["counts"] == figures["train_counts"]


def test_inspect_warns_of_classes_with_no_image_and_with_one(cli: Call, make_folder: Call) -> None:
    audit = json.loads(cli("inspect", make_folder({"cat": 12, "lynx": 1, "margay": 0}), "--json").out)
    messages = " ".join(finding["message"] for finding in audit["findings"])
    assert "'margay'" in messages
    assert "'lynx'" in messages


def test_two_classes_train(train: Call, make_folder: Call, tmp_path: Path) -> None:
    source = make_folder({"train/cat": 6, "train/dog": 2, "test/cat": 2, "test/dog": 2})
    assert train(source, "--stage1.mixing", "none", recipe="cifar-lt/gcl").status == 0
    assert metrics(tmp_path / "run")["test"]["num_images"] == 4


def test_labels_in_test_that_training_lacks_are_kept_and_named(train: Call, make_folder: Call, tmp_path: Path) -> None:
    source = make_folder({"train/cat": 6, "train/dog": 2, "test/cat": 2, "test/wolf": 2})
    done = train(source)
    assert done.status == 0
    assert "'wolf'" in done.err
    figures = metrics(tmp_path / "run")
    assert dict(zip(figures["classes"], figures["train_counts"], strict=True)) == {"cat": 6, "dog": 2, "wolf": 0}
    assert figures["test"]["num_images"] == 4


# --- broken images ----------------------------------------------------------------------------------------------------


def photographs(folder: Path) -> Path:
    """Two classes of real photographs' kind: noise, so that a JPEG of it is long enough to cut."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for number in range(4):
            pixels = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")
    return folder


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])


def text(path: Path) -> None:
    path.write_text("this is no image")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(("spoil", "words"), [(truncated, "is damaged"), (text, "an image"), (empty, "an image")])
def test_a_broken_image_stops_training_with_its_name_and_inspect_finds_it(
    train: Call, cli: Call, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    source = photographs(tmp_path / "photos")
    spoil(source / "dog" / "2.jpg")
    complaint = train(source).complaint
    assert str(source / "dog" / "2.jpg") in complaint
    assert words in complaint
    assert "remove" in complaint
    assert f"longtail inspect {source} " in complaint
    assert "--data.skip_unreadable true" in complaint
    assert not (tmp_path / "run").exists()
    audit = json.loads(cli("inspect", source, "--json").out)
    assert audit["unreadable"] == [str(source / "dog" / "2.jpg")]
    (source / "dog" / "2.jpg").unlink()
    assert train(source).status == 0, "removing it is the remedy"


def test_an_image_that_the_machine_fails_to_read_is_not_to_be_left_out(
    train: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = photographs(tmp_path / "photos")

    def fail(*_: object) -> None:
        raise UnreadableImageError(f"'2.jpg' cannot be read (Stale file handle): {LATER}")

    monkeypatch.setattr("longtail.data.dataset.read_square", fail)
    complaint = train(source).complaint
    assert "2.jpg" in complaint
    assert "skip_unreadable" not in complaint


def test_a_broken_image_is_named_also_where_worker_processes_decode(train: Call, tmp_path: Path) -> None:
    source = photographs(tmp_path / "photos")
    truncated(source / "dog" / "2.jpg")
    complaint = train(source, "--data.resident_gigabytes", 0, "--data.workers", 0, "--data.test_fraction", 0).complaint
    assert str(source / "dog" / "2.jpg") in complaint


@pytest.mark.parametrize("streamed", [(), ("--data.resident_gigabytes", 0, "--data.workers", 0)])
def test_unreadable_images_are_left_out_on_request(
    train: Call, tmp_path: Path, make_folder: Call, streamed: tuple[object, ...]
) -> None:
    source = photographs(make_folder({"cat": 0, "lynx": 0}))
    (source / "lynx" / "0.jpg").write_text("this is no image")
    truncated(source / "dog" / "2.jpg")
    done = train(source, "--data.skip_unreadable", "true", *streamed)
    assert done.status == 0, done.err
    assert all(word in done.err for word in ("2 of 9 images", "dog/2.jpg", "lynx/0.jpg"))
    assert "'lynx'" in done.err
    figures = metrics(tmp_path / "run")
    assert figures["unreadable"] == ["dog/2.jpg", "lynx/0.jpg"]
    assert figures["classes"] == ["cat", "dog", "lynx"], "a class that lost its last image keeps its number"
    assert "skip_unreadable: true" in (tmp_path / "run" / "config.yaml").read_text()
    for name in figures["unreadable"]:
        (source / name).unlink()
    assert train(source, *streamed, out="without").status == 0
    without = metrics(tmp_path / "without")
    assert without["unreadable"] == []
    assert (without["train_counts"], without["data_hash"]) == (figures["train_counts"], figures["data_hash"])


def test_a_source_of_unreadable_images_alone_is_refused(train: Call, tmp_path: Path) -> None:
    source = photographs(tmp_path / "photos")
    for path in source.rglob("*.jpg"):
        text(path)
    complaint = train(source, "--data.skip_unreadable", "true").complaint
    assert "none " in complaint
    assert not (tmp_path / "run").exists()


def test_a_class_that_goes_between_the_choice_of_a_recipe_and_training(
    cli: Call, make_folder: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_folder({"cat": 12, "lynx": 5, "puma": 4})
    choose = resolve.choose

    def move_and_choose(*words: Any, **options: Any) -> Any:
        (photos / "puma").rename(tmp_path / "puma")
        return choose(*words, **options)

    monkeypatch.setattr(resolve, "choose", move_and_choose)
    words = ("--mode", "scratch", "--epochs", 1, "--data.image_size", 8)
    complaint = cli("train", photos, "--out", tmp_path / "run", *words).complaint
    assert f"{str(photos / 'puma')!r}"[:-1] in complaint
    assert "gone" in complaint
    assert not (tmp_path / "run").exists()


def test_a_file_that_goes_while_it_is_trained_on(
    train: Call, cli: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longtail.training.experiment import Experiment

    source = photographs(tmp_path / "photos")
    gone, content, whole = source / "dog" / "2.jpg", (source / "dog" / "2.jpg").read_bytes(), Experiment.run

    def run(self: Experiment, *words: Any) -> dict[str, Any]:
        gone.unlink()
        return whole(self, *words)

    monkeypatch.setattr(Experiment, "run", run)
    options = ("--data.resident_gigabytes", 0, "--data.workers", 0, "--data.test_fraction", 0)
    complaint = train(source, *options).complaint
    assert repr(str(gone)) in complaint
    assert "restore" in complaint
    assert f": longtail train --resume {tmp_path / 'run'}" in complaint
    monkeypatch.undo()
    gone.write_bytes(content)
    assert cli("train", "--resume", tmp_path / "run").status == 0


def save_as(mode: str, path: Path, shade: int) -> Path:
    if mode == "16-bit":
        file = path.with_suffix(".png")
        Image.fromarray(np.full((9, 7), shade * 257, np.uint16)).save(file)
        return file
    file = path.with_suffix(".jpg" if mode == "CMYK" else ".png")
    Image.new("RGB", (9, 7), (shade, shade, shade)).convert(mode).save(file)
    return file


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "16-bit", "1"])
def test_images_of_every_mode_train_and_predict(train: Call, cli: Call, tmp_path: Path, mode: str) -> None:
    for name, shade in (("dark", 20), ("light", 230)):
        for number in range(3):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            save_as(mode, tmp_path / "photos" / name / str(number), shade)
    done = train(tmp_path / "photos")
    assert done.status == 0, done.err
    assert sum(metrics(tmp_path / "run")["train_counts"]) == 4
    out = tmp_path / "answers.csv"
    assert cli("predict", tmp_path / "run", tmp_path / "photos", "--out", out).status == 0
    assert len(out.read_text().splitlines()) == 7


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "is empty"),
        ("path,label\n", "header"),
        ("path,label\ncat/0.png,cat\ncat/9.png,cat\n", "line 3"),
        ("path,label\ncat/0.png,cat\ndog/0.png\n", "2 columns"),
        ("path,label\ncat/0.png,cat\ndog/0.png,\n", "label"),
        ("path,label\n,cat\ndog/0.png,dog\n", "path"),
        ('path,label\ncat/0.png,"cat\ndog/0.png,dog\n', "quotes"),
        ("path,label,split\ncat/0.png,cat,trian\n", "'trian'"),
        ("path,label,split\ncat/0.png,cat,test\ndog/0.png,dog,test\n", "split"),
        ("path,kind\ncat/0.png,cat\n", "name it, --label-column"),
    ],
)
def test_an_unreadable_table_names_the_line(
    train: Call, make_folder: Call, tmp_path: Path, table: str, words: str
) -> None:
    folder = make_folder({"cat": 2, "dog": 2})
    (folder / "list.csv").write_text(table)
    complaint = train(f"csv:{folder / 'list.csv'}").complaint
    assert words in complaint
    assert "list.csv" in complaint
    assert not (tmp_path / "run").exists()


def test_a_table_that_is_not_text_names_the_line(train: Call, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("path,label\na.png,Käfer\n".encode("latin-1"))
    assert "UTF-8" in train(f"csv:{tmp_path / 'list.csv'}").complaint


def test_a_label_column_that_is_not_there_names_the_nearest(train: Call, make_folder: Call) -> None:
    folder = make_folder({"cat": 2, "dog": 2})
    (folder / "list.csv").write_text("path,kind\ncat/0.png,cat\ndog/0.png,dog\n")
    complaint = train(f"csv:{folder / 'list.csv'}", "--data.label_column", "kid").complaint
    assert "'kind'" in complaint


def test_real_images_of_a_long_tailed_set_train_from_parquet(train: Call, shared_data: Path, tmp_path: Path) -> None:
    """CIFAR-100-LT at its usual ratio: the counts everyone reports, and one epoch that ends well."""
    from longtail.config.schema import DataConfig
    from longtail.training.prepared_data import prepare_data

    source = f"parquet:{shared_data / 'cifar100-lt-ir10'}"
    counts = prepare_data(DataConfig(source=source, imbalance_ratio=100, validation_fraction=0.0)).counts
    assert (max(counts), min(counts), sum(counts)) == (500, 5, 10_847)


# --- the status a command ends with -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("train", "digits", "--out", "run", "--epohcs", 3), 2),
        (("train", "digits", "--out", "run", "--epochs", "many"), 2),
        (("train", "digits", "--out", "run", "--epochs", 0), 2),
        (("train", "digits", "--recipe", "cifar-lt/glc", "--out", "run"), 2),
        (("train", "digits", "--mode", "linar", "--out", "run"), 2),
        (("train", "digits", "--recipe", "demo/ce", "--model.name", "resnet23", "--out", "run"), 2),
        (("train", "digits", "--recipe", "demo/ce", "--mode", "linear", "--out", "run"), 2),
        (("train", "digits", "--recipe", "demo/ce", "--stage1.optimizer.lr", -1, "--out", "run"), 2),
        (("train", "digits", "--recipe", "demo/ce", "--stage1.loss.name", "glc", "--out", "run"), 2),
        (("train", "digits", "--recipe", "demo/ce"), 2),
        (("recipes", "cifar-lt/glc"), 2),
        (("inspect", "digits", "--max-images", 0), 2),
        (("adjust", "run", "--tau", "x"), 2),
        (("compare", "digits", "--recipe", "demo/ce,demo/glc", "--out", "runs"), 2),
        (("compare", "digits", "--recipe", "demo/ce", "--set", "stage1.optimizer.lr=-1", "--out", "runs"), 2),
        (("train", "nowhere", "--recipe", "demo/ce", "--out", "run"), 1),
        (("train", "--resume", "nowhere"), 1),
        (("evaluate", "nowhere"), 1),
        (("predict", "nowhere", "photos", "--out", "out.csv"), 1),
    ],
)
def test_wrong_usage_ends_with_2_and_a_failure_with_1(
    cli: Call, tmp_path: Path, words: tuple[object, ...], status: int
) -> None:
    done = cli(*words)
    assert done.complaint
    assert done.status == status
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--imbalance-ratio", "1:40"),  # a hundred, to YAML 1.1
        ("--seed", "0x10"),
        ("--seed", "010"),
        ("--seed", "1_0"),
        ("--stage1.optimizer.lr", "1:30.5"),
        ("--stage1.schedule.milestones", "[010]"),  # eight
        ("--stage1.loss.options.tau", "1:40"),
    ],
)
def test_a_number_that_would_have_to_be_guessed_is_refused(cli: Call, tmp_path: Path, option: str, value: str) -> None:
    done = cli("train", "digits", option, value, "--out", tmp_path / "run")
    assert done.status == 2
    assert option in done.complaint
    assert repr(value.strip("[]")) in done.complaint
    assert not (tmp_path / "run").exists()


def test_a_report_of_a_folder_that_is_no_run_says_so(cli: Call, make_folder: Call, tmp_path: Path) -> None:
    done = cli("report", make_folder({"cat": 2, "lynx": 2}), "--out", tmp_path / "report.html")
    assert done.status == 1
    assert "a run" in done.complaint


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError("Unable to allocate 3 GiB")]
)
def test_memory_that_does_not_suffice_is_one_sentence(
    error: BaseException, cli: Call, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Predictor, "stream", refuse)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert "--batch-size" in cli("predict", finished.folder, tmp_path / "a.png", "--out", tmp_path / "o.csv").complaint


def test_a_pattern_that_the_shell_has_expanded_is_to_be_quoted(cli: Call, finished: Any, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    words = (tmp_path / "a.png", tmp_path / "b.png", "--out", tmp_path / "o.csv")
    assert "quotes" in cli("predict", finished.folder, *words).complaint


def test_a_column_without_a_table_is_refused(cli: Call, finished: Any, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    done = cli("predict", finished.folder, tmp_path, "--image-column", "x", "--out", tmp_path / "o.csv")
    assert "leave --image-column out" in done.complaint
    assert done.status == 2
