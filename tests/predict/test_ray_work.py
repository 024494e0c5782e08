"""What a machine of a cluster does with blocks of images, without the cluster."""

from __future__ import annotations

import csv
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pytest
from failing_store import failing
from PIL import Image

from longtail import remote
from longtail.errors import LongtailError
from longtail.predict import predict
from longtail.predict.images import LeftOut, find_images
from longtail.predict.merge import COMPLETE, merge_parts
from longtail.predict.part_folder import PartFolder
from longtail.predict.parts import list_parts, remove_repeats
from longtail.predict.predict import Chosen, job_of, predict_images
from longtail.predict.ray_pipeline import _put_blocks
from longtail.predict.ray_work import PredictingActor, Work, decode, predict_part, write_rows
from longtail.remote import RemotePath
from longtail.run.model_files import load_info, save_info

IMAGES = 70


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_WAIT", 0.0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / f"{number:02}.png")
    (folder / "broken.png").write_text("no image")
    return folder


@pytest.fixture
def bucket(photos: Path) -> str:
    url, store = f"memory://{uuid.uuid4().hex}", fsspec.filesystem("memory")
    for path in photos.iterdir():
        store.pipe(f"{url}/photos/{path.name}", path.read_bytes())
    return url


def blocks_of(run: Path, images: str, out: RemotePath, command: str) -> tuple[list[Any], Work]:
    """Return the blocks that a cluster would get now."""
    info, listing = load_info(run), find_images(images)
    job = job_of(str(run), info, images, listing, top_k=3, prior=None, column=None)
    look = info.preprocessing
    work = Work(str(run), "cpu", "torch", None, 3, 8, look, job, out, command)
    with PartFolder(out, job) as folder:
        chosen = Chosen(listing, job, LeftOut(), folder, needs_all=True)
        return _put_blocks(SimpleNamespace(put=lambda block: block), chosen, images, work)[0], work


def test_blocks_of_urls_become_the_table_of_the_folder(
    ready: Path, photos: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, out = f"{bucket}/photos", RemotePath(f"{bucket}/parts")
    store = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(predict, "_MOST_FAILED", 1000)
    with monkeypatch.context() as patch:  # the first command gets some of the images only
        patch.setattr(store, "cat_file", failing(store.cat_file, 10))
        blocks, work = blocks_of(ready, images, out, "first")
        assert [predict_part(block, work) for block in blocks] == [64, IMAGES + 1 - 64]
    got = sum(part.rows - part.bad for part in list_parts(out))
    assert 0 < got < IMAGES
    blocks, work = blocks_of(ready, images, out, "second")
    assert sum(predict_part(block, work) for block in blocks) in {IMAGES - got, IMAGES + 1 - got}
    remove_repeats(list_parts(out))
    with (out / COMPLETE).writing():
        pass
    merge_parts(out, tmp_path / "merged.csv")
    whole = predict_images(ready, photos, tmp_path / "whole.csv")
    rows = [[row[1] for row in csv.reader(file.open())] for file in (tmp_path / "merged.csv", tmp_path / "whole.csv")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == IMAGES + 1
    assert len(whole.problems) == len((tmp_path / "merged.csv.skipped.csv").read_text().splitlines()) - 1 == 1


def predict_on_gpu(block: Any, work: Work) -> int:
    """Do what the tasks and the actor of a cluster with GPUs do with a block."""
    rows = PredictingActor(work)(decode(block, work.look))
    return sum(write_rows(rows, work)["images"].to_pylist())


@pytest.mark.parametrize("predict_block", [predict_part, predict_on_gpu])
def test_a_store_that_is_gone_ends_the_task(
    predict_block: Callable[[Any, Work], int], ready: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, work = blocks_of(ready, f"{bucket}/photos", RemotePath(f"{bucket}/parts"), "first")
    store = type(fsspec.filesystem("memory"))
    with monkeypatch.context() as patch:
        patch.setattr(store, "cat_file", failing(store.cat_file, 10**9, PermissionError))
        with pytest.raises(LongtailError, match=r"busy.*repeat"):
            predict_block(blocks[0], work)
    blocks, work = blocks_of(ready, f"{bucket}/photos", RemotePath(f"{bucket}/parts"), "second")
    monkeypatch.setattr(store, "cat_file", failing(store.cat_file, 10**9, PermissionError))
    monkeypatch.setattr(predict, "_MOST_FAILED", 64 - 50 + 1)  # those that were tried do not count
    assert predict_block(blocks[0], work) == 64


def test_a_model_that_changes_meanwhile_is_refused(ready: Path, photos: Path, bucket: str, tmp_path: Path) -> None:
    run = shutil.copytree(ready, tmp_path / "run")
    blocks, work = blocks_of(run, str(photos), RemotePath(f"{bucket}/parts"), "first")
    info = load_info(run)
    save_info(replace(info, adjustment=None), run)
    with pytest.raises(LongtailError, match="changed"):
        predict_part(blocks[0], work)
