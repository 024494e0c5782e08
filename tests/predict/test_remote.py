"""Images in an object store: listed, filtered and predicted as those of a folder are, and failures told by name."""

from __future__ import annotations

import csv
import io
import shutil
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from failing_store import failing
from local_s3 import local_s3, new_bucket, s3_environment
from PIL import Image
from rich.console import Console

from longtail import remote
from longtail.errors import LongtailError, UsageError
from longtail.predict import predict
from longtail.predict.images import LeftOut, find_images
from longtail.predict.merge import merge_parts
from longtail.predict.predict import PredictionReport, predict_images
from longtail.predict.predictor import Predictor
from longtail.predict.shards import Shard, path_key


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(7)
    folder = tmp_path / "photos"
    for name in ("b.png", "a.JPG", "deep/c.png", "deep/er/d.webp", "0.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").touch()
    (folder / "broken.png").write_text("no image")
    (folder / "film.mov").touch()
    return folder


@pytest.fixture
def bucket(photos: Path) -> str:
    """The same files in memory."""
    url, store = f"memory://{uuid.uuid4().hex}/photos", fsspec.filesystem("memory")
    for path in photos.rglob("*"):
        if path.is_file():
            store.pipe(f"{url}/{path.relative_to(photos)}", path.read_bytes())
    return url


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_WAIT", 0.0)


def names(url: str) -> list[str]:
    listing = find_images(url)
    return [listing.relative(item.name) for item in listing.items(LeftOut())]


@pytest.mark.parametrize("end", ["", "/", "/*.png", "/**/*.png", "/deep/*", "/b.png"])
def test_a_store_is_listed_as_a_folder_is(end: str, photos: Path, bucket: str) -> None:
    expected = names(f"{photos}{end}")
    assert names(f"{bucket}{end}") == expected
    assert names(f"file://{photos}{end}") == expected


@pytest.mark.parametrize("shard", [None, Shard(1, 2)])
def test_predictions_are_those_of_the_folder(
    shard: Shard | None, ready: Path, photos: Path, bucket: str, tmp_path: Path
) -> None:
    def rows(images: Path | str, name: str) -> list[list[str]]:
        kind = "csv" if shard is None else "parquet"
        report = predict_images(ready, images, tmp_path / f"{name}.{kind}", shard=shard, batch_size=1)
        counts = [[str(report.predicted), str(report.skipped), str(report.unread)]]
        if shard is not None:
            return counts
        return counts + [[Path(path).name, *cells] for path, *cells in csv.reader(report.out.open())]

    expected = rows(photos, "local")
    assert rows(bucket, "memory") == expected
    assert rows(f"file://{photos}", "file") == expected
    assert int(expected[0][0]) == (5 if shard is None else sum(shard.has(path_key(name)) for name in PICTURES))


PICTURES = ("b.png", "a.JPG", "deep/c.png", "deep/er/d.webp", "0.png")


def test_images_in_s3_are_those_of_the_folder(
    ready: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_s3() as server:
        for name, value in s3_environment(server).items():
            monkeypatch.setenv(name, value)
        bucket = new_bucket()
        fsspec.filesystem("s3").put(f"{photos}/", f"{bucket}/photos/", recursive=True)
        for end in ("", "/", "/**/*.png", "/deep/*", "/b.png"):
            assert names(f"{bucket}/photos{end}") == names(f"{photos}{end}")
        remote_one = predict_images(ready, f"{bucket}/photos", tmp_path / "s3.csv", batch_size=2)
        local_one = predict_images(ready, photos, tmp_path / "local.csv", batch_size=2)
        (tmp_path / "list.csv").write_text(f"path\n{bucket}/photos/b.png\n{bucket}/photos/gone.png\n")
        gone = predict_images(ready, tmp_path / "list.csv", tmp_path / "gone.csv")
    tables = [list(csv.reader(report.out.open())) for report in (remote_one, local_one)]
    assert [[Path(row[0]).name, *row[1:]] for row in tables[0]] == [[Path(row[0]).name, *row[1:]] for row in tables[1]]
    assert len(tables[0]) == 6
    assert (remote_one.skipped, gone.skipped, gone.predicted) == (local_one.skipped, 1, 1)
    assert "does not exist" in gone.problems[0][1]


def test_a_table_names_remote_images(ready: Path, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"path\n{bucket}/b.png\nphotos/0.png\n{bucket}/gone.png\n")
    report = predict_images(ready, tmp_path / "list.csv", tmp_path / "out.csv")
    assert (report.predicted, report.skipped) == (2, 1)
    assert "gone.png' does not exist" in report.problems[0][1]


def test_a_stopped_prediction_goes_on(
    ready: Path, photos: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    stream, calls = Predictor._classify, 0

    def classify(self: Predictor, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        return stop() if calls == 3 else stream(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "_classify", classify)
        with pytest.raises(KeyboardInterrupt):
            predict_images(ready, bucket, tmp_path / "out.csv", batch_size=1)
    report = predict_images(ready, bucket, tmp_path / "out.csv", batch_size=1)
    assert report.earlier >= 2
    assert report.earlier + report.predicted + report.skipped == 7


def test_a_store_that_fails_now_and_then_is_asked_again(
    ready: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = type(fsspec.filesystem("memory"))
    for name in ("cat_file", "ls"):
        monkeypatch.setattr(store, name, failing(getattr(store, name), 3, OSError))
    report = predict_images(ready, bucket, tmp_path / "out.csv", workers=1)
    assert (report.predicted, report.skipped) == (5, 2)


def test_an_image_that_was_cut_off_is_fetched_again(
    ready: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, calls = type(fsspec.filesystem("memory")), Counter[str]()
    whole = store.cat_file

    def cat_file(self: Any, path: str, **options: Any) -> bytes:
        calls[path] += 1
        return whole(self, path, **options)[: None if calls[path] > 2 else 60]

    monkeypatch.setattr(store, "cat_file", cat_file)
    report = predict_images(ready, bucket, tmp_path / "out.csv", workers=1)
    assert (report.predicted, report.skipped) == (5, 2)


def test_a_store_that_keeps_failing_is_named(
    ready: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = type(fsspec.filesystem("memory"))
    with monkeypatch.context() as patch:
        patch.setattr(store, "cat_file", failing(store.cat_file, 10**9, OSError))
        report = predict_images(ready, bucket, tmp_path / "out.csv")
    assert (report.predicted, report.skipped) == (0, 7)
    assert "busy" in report.problems[0][1]
    with monkeypatch.context() as patch:
        patch.setattr(store, "ls", failing(store.ls, 10**9, OSError))
        assert any("busy" in item.problem for item in find_images(bucket).items(LeftOut()))


def test_a_folder_that_cannot_be_listed_ends_every_shard(
    ready: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = type(fsspec.filesystem("memory"))
    whole = store.ls

    def ls(self: Any, path: str, **options: Any) -> Any:
        if path.rstrip("/").endswith("deep"):
            raise OSError("503 Slow Down")
        return whole(self, path, **options)

    parts = [tmp_path / f"{number}.parquet" for number in (1, 2, 3)]
    with monkeypatch.context() as patch:
        patch.setattr(store, "ls", ls)
        for number, part in enumerate(parts, start=1):
            with pytest.raises(LongtailError, match=r"deep.*503"):
                predict_images(ready, bucket, part, shard=Shard(number, 3))
            assert not part.exists()
        assert predict_images(ready, bucket, tmp_path / "whole.csv").skipped == 3  # with the folder
    reports = [predict_images(ready, bucket, part, shard=Shard(number, 3)) for number, part in enumerate(parts, 1)]
    assert sum(report.earlier + report.predicted + report.skipped for report in reports) == 7


def expiring(action: Any, good: int) -> Any:
    """Let an action of a store be forbidden after some calls, as by a token that has expired."""
    calls = 0

    def call(*given: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > good:
            raise PermissionError("ExpiredToken")
        return action(*given, **options)

    return call


@pytest.mark.parametrize("most", [3, 100])  # of images in a row, before the command ends
def test_what_a_store_did_not_give_is_tried_again(
    most: int, ready: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, out = type(fsspec.filesystem("memory")), tmp_path / "part.parquet"
    monkeypatch.setattr(predict, "_MOST_FAILED", most)
    with monkeypatch.context() as patch:
        patch.setattr(store, "cat_file", expiring(store.cat_file, 2))
        if most == 3:
            with pytest.raises(LongtailError, match=r"ExpiredToken.*repeat"):
                predict_images(ready, bucket, out, shard="1/1", workers=1, batch_size=1)
        else:
            first = predict_images(ready, bucket, out, shard="1/1", workers=1)
            assert (first.predicted, first.skipped) == (2, 5)
    again = predict_images(ready, bucket, out, shard="1/1")
    assert again.earlier == (2 if most == 3 else 3)  # with film.mov, which is never fetched
    assert (again.earlier + again.skipped, again.predicted) == (4, 3)
    rows = pq.read_table(out)
    assert sorted(Path(name).name for name in rows["path"].to_pylist()) == sorted(
        [Path(name).name for name in PICTURES] + ["broken.png", "film.mov"]
    )
    assert rows["problem"].null_count == 5
    before = out.read_bytes()
    assert predict_images(ready, bucket, out, shard="1/1").earlier == 7
    assert out.read_bytes() == before


def archive(monkeypatch: pytest.MonkeyPatch, names: set[str]) -> None:
    """Let a store never give some images."""
    store = type(fsspec.filesystem("memory"))
    whole = store.cat_file

    def cat_file(self: Any, path: str, **options: Any) -> bytes:
        if Path(path).name in names:
            raise PermissionError("InvalidObjectState")
        return bytes(whole(self, path, **options))

    monkeypatch.setattr(store, "cat_file", cat_file)


def test_images_that_never_come_do_not_keep_it_from_the_others(
    ready: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "_MOST_FAILED", 2)
    archive(monkeypatch, {"0.png", "a.JPG", "b.png"})
    with pytest.raises(LongtailError, match="InvalidObjectState"):
        predict_images(ready, bucket, tmp_path / "out.csv")
    report = predict_images(ready, bucket, tmp_path / "out.csv")
    assert (report.predicted, report.later) == (2, 3)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_the_same_command_fetches_what_a_table_lacks_and_that_alone(
    ready: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, out, shown, fetched = type(fsspec.filesystem("memory")), tmp_path / "out.csv", io.StringIO(), Counter[str]()
    whole = store.cat_file
    with monkeypatch.context() as patch:
        patch.setattr(store, "cat_file", expiring(whole, 2))
        first = predict_images(ready, bucket, out, workers=1, console=Console(file=shown, width=200))
    assert (first.predicted, first.skipped, first.later) == (2, 5, 4)
    assert any(line.startswith("not fetched: 4 ") for line in shown.getvalue().splitlines())
    assert ", 4 not fetched:" in str(first)
    assert len(out.read_text().splitlines()) == 3
    fsspec.filesystem("memory").rm(f"{bucket}/deep/er/d.webp")  # one of them is not there any more

    def cat_file(self: Any, path: str, **options: Any) -> bytes:
        fetched[Path(path).name] += 1
        return bytes(whole(self, path, **options))

    monkeypatch.setattr(store, "cat_file", cat_file)
    again = predict_images(ready, bucket, out, workers=1)
    assert (again.earlier, again.predicted, again.skipped, again.later) == (3, 2, 1, 0)
    assert len(fetched) == 3
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.csv", "out.csv.skipped.csv"]
    assert len(out.read_text().splitlines()) == 5
    assert "again later" not in Path(f"{out}.skipped.csv").read_text()


def test_a_merge_says_which_shards_to_repeat(
    ready: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def merged() -> tuple[PredictionReport, str]:
        shown = io.StringIO()
        report = merge_parts(tmp_path / "parts", tmp_path / "all.csv", console=Console(file=shown, width=200))
        return report, shown.getvalue()

    store, parts = (
        type(fsspec.filesystem("memory")),
        [tmp_path / "parts" / f"part-{number}.parquet" for number in (1, 2)],
    )
    predict_images(ready, bucket, parts[0], shard="1/2")
    with monkeypatch.context() as patch:
        patch.setattr(store, "cat_file", expiring(store.cat_file, 1))
        lacking = predict_images(ready, bucket, parts[1], shard="2/2", workers=1)
    assert lacking.later > 0
    report, text = merged()
    assert report.later == lacking.later
    assert f"{lacking.later} not fetched (part-2.parquet)" in text
    assert "--shard 2/2," in text
    predict_images(ready, bucket, parts[1], shard="2/2")
    report, text = merged()
    assert (report.predicted, report.skipped, report.later) == (5, 2, 0)
    assert "not fetched" not in text


def test_a_shard_forgets_what_it_did_not_get_and_is_no_longer_there(
    ready: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, out = type(fsspec.filesystem("memory")), tmp_path / "part.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(store, "cat_file", failing(store.cat_file, 10**9))
        assert predict_images(ready, bucket, out, shard="1/1").later == 6
    fsspec.filesystem("memory").rm(bucket, recursive=True)
    fsspec.filesystem("memory").pipe(f"{bucket}/film.mov", b"")
    predict_images(ready, bucket, out, shard="1/1")
    assert [Path(name).name for name in pq.read_table(out)["path"].to_pylist()] == ["film.mov"]


def test_a_folder_that_can_be_listed_again_is_not_skipped(
    ready: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, out = type(fsspec.filesystem("memory")), tmp_path / "out.csv"
    listing = store.ls

    def ls(self: Any, path: str, **options: Any) -> Any:
        if path.rstrip("/").endswith("deep"):
            raise OSError("503 Slow Down")
        return listing(self, path, **options)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "ls", ls)
        patch.setattr(predict, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            predict_images(ready, bucket, out)
    problems = pq.read_table(tmp_path / "out.csv.parts")["problem"].to_pylist()
    assert any("listed" in problem for problem in problems if problem)
    report = predict_images(ready, bucket, out)
    assert (report.earlier, report.predicted, len(out.read_text().splitlines())) == (5, 2, 6)
    with Path(f"{out}.skipped.csv").open() as file:
        assert {Path(row[0]).name for row in csv.reader(file)} == {"path", "broken.png", "film.mov"}


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("memory://nowhere/photos", "no file or folder"),
        ("nosuchstore://a/b", "nosuchstore"),
        ("memory://nowhere/*.png", "No image"),
    ],
)
def test_what_is_not_there_is_told(url: str, word: str) -> None:
    with pytest.raises(LongtailError, match=word):
        find_images(url)


def test_a_bucket_without_folders_is_listed_once(
    ready: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, store, listed = f"memory://{uuid.uuid4().hex}", fsspec.filesystem("memory"), list[str]()
    for name in ("b.png", "0.png"):
        store.pipe(f"{url}/{name}", (photos / name).read_bytes())
    whole = type(store).ls

    def ls(self: Any, path: str, **options: Any) -> Any:
        listed.append(path)
        return whole(self, path, **options)

    monkeypatch.setattr(type(store), "ls", ls)
    monkeypatch.setattr(type(store), "info", lambda *_: {"type": "directory"})  # which calls it, too
    assert predict_images(ready, url, tmp_path / "out.csv").predicted == 2
    assert len(listed) == 1


def test_a_file_url_is_a_path_of_this_machine(ready: Path, photos: Path, tmp_path: Path) -> None:
    folder = photos.rename(tmp_path / "day one 5%")
    url = f"{tmp_path}/day%20one%205%25"
    expected = names(str(folder))
    assert names(f"file://{url}") == names(f"FILE://LocalHost{url}") == expected
    with pytest.raises(UsageError, match="machine"):
        find_images("file://elsewhere/photos")
    (tmp_path / "list.csv").write_text(f"path\nfile://localhost{url}/b.png\nfile://elsewhere/b.png\n")
    report = predict_images(ready, tmp_path / "list.csv", f"file://localhost{url}/out.csv")
    assert (report.predicted, report.skipped, report.out) == (1, 1, folder / "out.csv")
    assert "elsewhere" in report.problems[0][1]
    assert predict_images(ready, f"file://{tmp_path}/list.csv", tmp_path / "again.csv").predicted == 1


def test_a_remote_table_is_refused(bucket: str) -> None:
    fsspec.filesystem("memory").pipe(f"{bucket}/list.csv", b"path\na.png\n")
    with pytest.raises(LongtailError, match="copy"):
        find_images(f"{bucket}/list.csv")


def test_a_moved_bucket_moves_no_image(photos: Path, bucket: str, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "other")
    assert [path_key(name) for name in names(bucket)] == [path_key(name) for name in names(str(tmp_path / "other"))]
