"""Tables and parts in an object store: the bytes of local ones, resumed after a stop, and failures told by name."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from failing_store import failing
from local_s3 import local_s3, new_bucket, s3_environment
from PIL import Image

from longtail import remote
from longtail.errors import LongtailError, UsageError
from longtail.predict.merge import merge_parts
from longtail.predict.part_folder import PartFolder
from longtail.predict.parts import Job
from longtail.predict.predict import predict_images
from longtail.predict.predictor import Predictor
from longtail.remote import RemotePath


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_WAIT", 0.0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(7)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(9):
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (folder / "broken.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with local_s3() as address:
        yield address


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    for name, value in s3_environment(request.getfixturevalue("server")).items():
        monkeypatch.setenv(name, value)
    return new_bucket()


def read(url: str) -> bytes:
    return RemotePath(url).read_bytes()


def test_the_table_is_that_of_a_local_prediction(ready: Path, photos: Path, bucket: str, tmp_path: Path) -> None:
    local = predict_images(ready, photos, tmp_path / "out.csv")
    report = predict_images(ready, photos, f"{bucket}/deep/out.csv")
    assert str(report) == str(local).replace(str(local.out), f"{bucket}/deep/out.csv")
    for end in ("", ".skipped.csv"):
        assert read(f"{bucket}/deep/out.csv{end}") == (tmp_path / f"out.csv{end}").read_bytes()
    assert RemotePath(f"{bucket}/deep/out.csv.parts").glob("*") == []  # no part is left
    assert predict_images(ready, photos, f"{bucket}/deep/out.csv").replaced


def test_shards_are_merged_there(ready: Path, photos: Path, bucket: str, tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        out = f"{bucket}/parts/part-{shard[0]}.parquet"
        first = predict_images(ready, photos, out, shard=shard)
        again = predict_images(ready, photos, out, shard=shard)
        assert (again.earlier, again.predicted) == (first.predicted + first.skipped, 0)
    merge_parts(f"{bucket}/parts/", f"{bucket}/all.csv")
    whole = predict_images(ready, photos, tmp_path / "whole.csv")
    assert read(f"{bucket}/all.csv") == whole.out.read_bytes()
    with pytest.raises(UsageError, match="overwrite"):
        merge_parts(f"{bucket}/parts", f"{bucket}/parts/part-1.parquet")


def test_a_stopped_prediction_goes_on(
    ready: Path, photos: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classify, calls = Predictor._classify, 0

    def stop_at_third(self: Predictor, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return classify(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "_classify", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            predict_images(ready, photos, f"{bucket}/out.csv", batch_size=1)
    assert not RemotePath(f"{bucket}/out.csv").exists()
    report = predict_images(ready, photos, f"{bucket}/out.csv", batch_size=1)
    assert report.earlier >= 2
    assert report.earlier + report.predicted + report.skipped == 10
    whole = predict_images(ready, photos, tmp_path / "out.csv", batch_size=1)
    assert read(f"{bucket}/out.csv") == whole.out.read_bytes()


def test_a_store_that_fails_now_and_then_is_asked_again(
    ready: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = type(fsspec.filesystem("memory"))
    for name in ("cat_file", "ls", "put_file", "rm_file", "info"):
        monkeypatch.setattr(store, name, failing(getattr(store, name), 2))
    out = f"memory://{uuid.uuid4().hex}/out.csv"
    assert predict_images(ready, photos, out).predicted == 9
    assert RemotePath(out).is_file()


def test_a_store_that_takes_nothing_is_named(ready: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "put_file", failing(print, 10**9))
    with pytest.raises(LongtailError, match="busy"):
        predict_images(ready, photos, "memory://full/out.csv")
    with pytest.raises(LongtailError, match="nosuchstore"):
        predict_images(ready, photos, "nosuchstore://a/out.csv")


def test_a_file_url_is_a_local_path(ready: Path, photos: Path, tmp_path: Path) -> None:
    assert predict_images(ready, photos, f"file://{tmp_path}/out.csv").out == tmp_path / "out.csv"


def test_two_that_write_at_once_overwrite_nothing() -> None:
    folder, job = RemotePath(f"memory://{uuid.uuid4().hex}/parts"), Job(("/photos",), "5a", {}, ("path",))

    def row(key: int) -> pa.Table:
        values = {"path": [f"{key}.png"], "problem": [None], "position": [key], "key": [key], "path_bytes": [None]}
        return pa.table(values, job.schema)

    with PartFolder(folder, job) as one, PartFolder(folder, job) as other:
        one.add(row(1))
        other.add(row(2))
    with PartFolder(folder, job) as both:
        assert (both.count, both.has(1), both.has(2)) == (2, True, True)


def test_what_ends_early_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store, calls = type(fsspec.filesystem("memory")), 0
    whole, place = store.cat_file, RemotePath(f"memory://{uuid.uuid4().hex}/numbers")
    content = bytes(range(256)) * 4
    fsspec.filesystem("memory").pipe(place.url, content)

    def cat_file(*given: Any, **options: Any) -> bytes:
        nonlocal calls
        calls += 1
        return whole(*given, **options)[: None if calls % 2 else 100]

    monkeypatch.setattr(store, "cat_file", cat_file)
    assert [place.read_bytes(), place.read_bytes()] == [content, content]
    monkeypatch.setattr(remote, "_WHOLE", 200)  # a large file comes in pieces
    monkeypatch.setattr(remote, "_BLOCK", 150)
    with place.open() as file:
        assert file.read(500) == content[:500]
        assert file.seek(-300, 2) == len(content) - 300
        assert file.read() == content[-300:]
        assert file.read() == b""
    monkeypatch.setattr(store, "cat_file", lambda *given, **options: whole(*given, **options)[:-1])
    for largest in (200, 2_000):
        monkeypatch.setattr(remote, "_WHOLE", largest)
        with pytest.raises(LongtailError, match="bytes came"):
            place.read_bytes()
