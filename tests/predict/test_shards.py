"""Shards: a fixed, even, disjoint split, and put together the table that one command would have written."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from longtail.errors import LongtailError, UsageError
from longtail.predict.images import LeftOut, find_images
from longtail.predict.merge import COMPLETE, merge_parts
from longtail.predict.part_folder import PartFolder
from longtail.predict.parts import list_parts, read_part, write_part
from longtail.predict.predict import predict_images
from longtail.predict.shards import Shard, parse_shard, path_key
from longtail.run.model_files import load_info, save_info


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    folder = tmp_path / "photos"
    for number in range(30):
        path = folder / ("", "a", "b/c")[number % 3] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    (folder / "a" / "broken.png").write_text("no image")
    (folder / "b" / "film.mov").touch()
    return folder


def predict_shards(run: Path, images: Path | str, folder: Path, count: int = 3, **options: object) -> None:
    for number in range(1, count + 1):
        part = folder / f"part-{number}.parquet"
        predict_images(run, images, part, shard=f"{number}/{count}", batch_size=4, **options)


@pytest.mark.parametrize("text", ["0/8", "9/8", "-1/8", "1/0", "3", "3/", "a/b", "1/8/2", "٣/8", "1.0/8", ""])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"shard"):
        parse_shard(text)


def test_the_split_is_fixed_and_even() -> None:
    assert path_key("a/é.png") == int.from_bytes(hashlib.blake2b("a/é.png".encode(), digest_size=8).digest(), "little")
    assert path_key(os.fsdecode(b"\xe9.png")) != path_key("é.png")
    keys = [path_key(f"day {number}/{number:05}.jpg") for number in range(20_000)]
    shards = [Shard(index, 8) for index in range(1, 9)]
    sizes = [sum(shard.has(key) for key in keys) for shard in shards]
    assert sum(sizes) == 20_000  # each in one, as the test below says of every one
    assert all(sum(shard.has(key) for shard in shards) == 1 for key in keys[:500])
    assert sum((size - 2500) ** 2 / 2500 for size in sizes) < 24.3  # chi-square with 7 degrees of freedom, p = 0.001


@pytest.mark.parametrize("name", ["", "/", "/*/*.png", "/list.csv"])
def test_a_moved_collection_moves_no_image(name: str, photos: Path, tmp_path: Path) -> None:
    paths = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    (photos / "list.csv").write_text("\n".join(["path", *paths]) + "\n")

    def keys(folder: Path) -> list[int]:
        listing = find_images(f"{folder}{name}")
        return [path_key(listing.relative(item.name)) for item in listing.items(LeftOut())]

    before = keys(photos)
    assert len(set(before)) == len(before) >= 10
    shutil.move(photos, tmp_path / "else" / "where")
    assert keys(tmp_path / "else" / "where") == before


def folder_source(photos: Path) -> Path:
    return photos


def pattern_source(photos: Path) -> str:
    return f"{photos}/**/*.[mp]*"


def list_source(photos: Path) -> Path:
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    (photos / "list.csv").write_text("\n".join(["path", *names[::-1], *names[:5], "gone.png"]) + "\n")
    return photos / "list.csv"


def embedded_source(photos: Path) -> Path:
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(photos.rglob("*.png"))]
    pq.write_table(pa.table({"image": cells}), photos / "table.parquet")
    return photos / "table.parquet"


@pytest.mark.parametrize("source", [folder_source, pattern_source, list_source, embedded_source])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_shards_put_together_are_the_whole_table(
    source: Callable[[Path], Path | str], kind: str, ready: Path, photos: Path, tmp_path: Path
) -> None:
    images = source(photos)
    whole = predict_images(ready, images, tmp_path / f"whole.{kind}", batch_size=1)
    predict_shards(ready, images, tmp_path / "parts")
    shown = io.StringIO()
    merged = merge_parts(tmp_path / "parts", tmp_path / f"all.{kind}", console=Console(file=shown, width=200))
    assert (merged.predicted, merged.skipped, merged.doubles) == (whole.predicted, whole.skipped, whole.doubles)
    assert merged.doubles == (5 if source is list_source else 0)
    if kind == "csv":
        rows = [path.out.read_text().splitlines() for path in (whole, merged)]
        assert [row.split(",")[:2] for row in rows[0]] == [row.split(",")[:2] for row in rows[1]]
    else:
        tables = [pq.read_table(report.out) for report in (whole, merged)]
        assert tables[0].schema == tables[1].schema
        assert tables[0]["path"].equals(tables[1]["path"])
    skipped = [Path(f"{report.out}.skipped.csv").read_text() for report in (whole, merged)]
    assert skipped[0] == skipped[1]
    sizes = [part.rows for part in list_parts(tmp_path / "parts")]
    assert len(pd.read_parquet(tmp_path / "parts")) == sum(sizes)
    assert min(sizes) >= 4
    assert all(f"shard {number}/3: {size} images" in shown.getvalue() for number, size in enumerate(sizes, start=1))


def test_a_missing_shard_is_named_and_nothing_is_written(ready: Path, photos: Path, tmp_path: Path) -> None:
    predict_shards(ready, photos, tmp_path / "parts", count=4)
    part = read_part(tmp_path / "parts" / "part-3.parquet")
    assert part is not None
    (tmp_path / "parts" / "part-2.parquet").unlink()
    part.path.rename(tmp_path / "away")
    write_part(tmp_path / "parts" / "part-3.parquet.parts" / "part-000001.parquet", part.job, [])
    shown = io.StringIO()
    with pytest.raises(LongtailError, match="2/4, 3/4"):
        merge_parts(tmp_path / "parts", tmp_path / "all.csv", console=Console(file=shown, width=200))
    assert not (tmp_path / "all.csv").exists()
    lines = shown.getvalue().splitlines()
    assert any("shard 2/4: missing" in line for line in lines)
    assert any("shard 3/4: missing; unfinished, 0 images" in line for line in lines)


def test_shards_that_do_not_belong_together_are_refused(ready: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    ready = shutil.copytree(ready, tmp_path / "run")

    def refused(word: str) -> None:
        with pytest.raises(LongtailError, match=word):
            merge_parts(folder, tmp_path / "all.csv")
        assert not (tmp_path / "all.csv").exists()
        predict_shards(ready, photos, folder, count=2)  # replaces what is different

    predict_shards(ready, photos, folder, count=2)
    shutil.copy(folder / "part-1.parquet", folder / "copy.parquet")
    refused("both shard 1/2")
    (folder / "copy.parquet").unlink()
    predict_images(ready, photos, folder / "part-2.parquet", shard="2/5")
    refused("one of 5 shards")
    predict_images(ready, photos, folder / "part-2.parquet", shard="2/2", top_k=1)
    refused("options")
    with pytest.raises(UsageError, match="overwrite"):
        merge_parts(folder, folder / "part-1.parquet")
    info = load_info(ready)
    save_info(info.__class__(**{**vars(info), "threshold": 0.9}), ready)
    predict_images(ready, photos, folder / "part-2.parquet", shard="2/2")
    with pytest.raises(LongtailError, match="model"):
        merge_parts(folder, tmp_path / "all.csv")


def test_what_holds_no_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        merge_parts(tmp_path / "nowhere", tmp_path / "all.csv")
    with pytest.raises(LongtailError, match="no parts"):
        merge_parts(tmp_path, tmp_path / "all.csv")


def merge_halves(run: Path, sources: Sequence[Path | str], folder: Path) -> tuple[int, str]:
    """Merge the shards 1/2 and 2/2 of two sources; return the number of rows, and what was shown."""
    for number, images in enumerate(sources, start=1):
        predict_images(run, images, folder / "parts" / f"{number}.parquet", shard=Shard(number, 2))
    shown = io.StringIO()
    report = merge_parts(folder / "parts", folder / "all.csv", console=Console(file=shown, width=500))
    return report.predicted, shown.getvalue()


@pytest.mark.parametrize("name", ["", "/**/*.[mp]*", "/list.csv"])
def test_shards_of_a_collection_in_two_places_fit(name: str, ready: Path, photos: Path, tmp_path: Path) -> None:
    list_source(photos)
    copy = shutil.copytree(photos, tmp_path / "mount" / "photos")
    rows, shown = merge_halves(ready, [f"{photos}{name}", f"{copy}{name}"], tmp_path)
    assert rows == (35 if name == "/list.csv" else 30)
    note = next(line for line in shown.splitlines() if line.startswith("note: the images"))
    assert f"{photos}{name}," in note
    assert f"{copy}{name}" in note
    assert "note: the images" not in merge_halves(ready, [photos, photos], tmp_path / "same")[1]


@pytest.mark.parametrize("name", ["", "/*/*.png", "/list.csv"])
def test_shards_of_different_collections_are_refused(name: str, ready: Path, photos: Path, tmp_path: Path) -> None:
    list_source(photos)
    other = shutil.copytree(photos, tmp_path / "others")
    with (other / "list.csv").open("a") as file:
        file.write("00.png\n")
    with pytest.raises(LongtailError, match=rf"{other}.*{photos}"):
        merge_halves(ready, [f"{photos}{name}", f"{other}{name}"], tmp_path)
    assert not (tmp_path / "all.csv").exists()


def test_shards_of_two_tables_of_one_size_are_refused(ready: Path, photos: Path, tmp_path: Path) -> None:
    header, *names = list_source(photos).read_text().splitlines()
    (photos / "turned.csv").write_text("\n".join([header, *names[::-1]]) + "\n")
    with pytest.raises(LongtailError, match="more than one"):
        merge_halves(ready, [photos / "list.csv", photos / "turned.csv"], tmp_path)


def test_a_finished_shard_is_kept_and_takes_new_images(ready: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.parquet"
    first = predict_images(ready, photos, out, shard="1/2")
    before = out.read_bytes()
    shown = io.StringIO()
    again = predict_images(ready, photos, out, shard="1/2", console=Console(file=shown, width=200))
    assert (again.earlier, again.predicted, again.skipped) == (first.predicted + first.skipped, 0, 0)
    assert not again.replaced
    assert "finished already" in shown.getvalue()
    assert out.read_bytes() == before
    new = next(name for name in map("{}.png".format, "abcdef") if Shard(1, 2).has(path_key(name)))
    Image.new("RGB", (9, 9)).save(photos / new)
    assert predict_images(ready, photos, out, shard="1/2").predicted == 1
    names = pq.read_table(out)["path"].to_pylist()
    assert len(set(names)) == len(names) == again.earlier + 1
    assert predict_images(ready, photos, out, shard="1/2", restart=True).predicted == first.predicted + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.parquet", "photos"]


def test_a_shard_that_is_killed_before_its_parts_are_removed_has_each_image_once(
    ready: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(_: PartFolder) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "parts" / "part-1.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(PartFolder, "remove", kill)
        with pytest.raises(KeyboardInterrupt):
            predict_images(ready, photos, out, shard="1/1")
    assert list_parts(out.with_name("part-1.parquet.parts"))
    again = predict_images(ready, photos, out, shard="1/1")
    assert (again.earlier, again.predicted, again.skipped) == (32, 0, 0)
    part = read_part(out)
    assert part is not None
    assert (part.rows, part.bad) == (32, 2)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert merge_parts(out.parent, tmp_path / "all.csv").predicted == 30


def test_more_shards_than_images(ready: Path, photos: Path, tmp_path: Path) -> None:
    predict_shards(ready, photos / "00.png", tmp_path / "parts", count=3)
    (tmp_path / "parts" / "._part-1.parquet").write_bytes(b"a Mac's")
    assert sorted(part.rows for part in list_parts(tmp_path / "parts")) == [0, 0, 1]
    assert merge_parts(tmp_path / "parts", tmp_path / "all.csv").predicted == 1


@pytest.mark.parametrize("name", ["part.csv", "part.tsv", "/dev/stdout"])
def test_a_shard_is_a_parquet_file(name: str, ready: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="parquet"):
        predict_images(ready, photos, tmp_path / name, shard="1/2")


def test_parts_without_shards_are_merged_once_they_are_complete(ready: Path, photos: Path, tmp_path: Path) -> None:
    predict_shards(ready, photos, tmp_path / "parts", count=1)
    part = read_part(tmp_path / "parts" / "part-1.parquet")
    assert part is not None
    whole = part.job.__class__(**{**vars(part.job), "shard": None})
    write_part(part.path, whole, [pq.read_table(part.path)])
    with pytest.raises(LongtailError, match="not finished"):
        merge_parts(tmp_path / "parts", tmp_path / "all.csv")
    (tmp_path / "parts" / COMPLETE).touch()
    assert merge_parts(tmp_path / "parts", tmp_path / "all.csv").predicted == 30
