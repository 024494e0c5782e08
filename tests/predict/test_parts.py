"""Parts: finished or not there at all, each image once, in the order of the listing, and a real kill half way."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from longtail.errors import LATER, LongtailError
from longtail.models import build_model
from longtail.models.preprocessing import Preprocessing
from longtail.predict import part_folder, parts
from longtail.predict.images import LEFT_OUT
from longtail.predict.part_folder import PartFolder
from longtail.predict.parts import (
    Job,
    count_doubles,
    identities,
    list_parts,
    read_part,
    remove_repeats,
    rows_of,
    without_repeats,
    write_part,
    write_tables,
)
from longtail.predict.predict import predict_images
from longtail.predict.shards import Shard
from longtail.predict.table import path_columns
from longtail.run.model_files import ModelInfo, ModelSpec, save_model

COLUMNS = ("path", "prediction", "confidence")
JOB = Job(("/photos",), "5a", {"top_k": 0}, COLUMNS)
ROWS = [
    ("a.png", "cat", 0.5, None),
    ('b "b", \n.png', "a\r\nb", 0.25, None),
    ("bad\n.png", None, None, 'it is\nbroken, "really"'),
    (os.fsdecode(b"caf\xe9.png"), "山猫", 0.125, None),
    ("z.png", "cat", 1.0, None),
]


def rows(numbers: Iterable[int], job: Job = JOB, data: Any = ROWS) -> pa.Table:
    """Rows of the given positions, each its own key."""
    chosen = list(numbers)
    paths, *others = zip(*(data[number % len(data)] for number in chosen), strict=True)
    columns = dict(zip(("prediction", "confidence", "problem"), others, strict=True)) | path_columns(paths)
    return pa.table(columns | {"position": chosen, "key": pa.array(chosen, pa.uint64())}, job.schema)


def test_tables_have_the_rows_of_the_parts(tmp_path: Path) -> None:
    for name, numbers in (("part-2", (0, 2)), ("part-1", (1, 3, 4))):
        write_part(tmp_path / f"{name}.parquet", JOB, [rows(numbers)])
    done = list_parts(tmp_path)
    write_tables(done, COLUMNS, tmp_path / "a.csv", "csv")
    text = (tmp_path / "a.csv").read_bytes().decode(errors="surrogateescape")
    table = list(csv.reader(text.splitlines(keepends=True)))
    assert table == [list(COLUMNS), *([*row[:2], str(row[2])] for row in ROWS if row[3] is None)]
    skipped = list(csv.reader((tmp_path / "a.csv.skipped.csv").read_text().splitlines(keepends=True)))
    assert skipped == [["path", "problem"], [ROWS[2][0], ROWS[2][3]]]
    write_tables(done[1:], COLUMNS, tmp_path / "a.parquet", "parquet")
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == [dict(zip(COLUMNS, ROWS[0], strict=False))]
    write_tables(done, COLUMNS, tmp_path / "b.parquet", "parquet")
    whole = pq.read_table(tmp_path / "b.parquet")
    assert whole["path"].to_pylist() == ["a.png", ROWS[1][0], "caf\\udce9.png", "z.png"]
    assert [str(column.type) for column in whole.columns] == ["string", "string", "double"]


def test_a_part_says_what_it_is(tmp_path: Path) -> None:
    job = replace(JOB, shard=Shard(3, 8), options={"prior": [[0.5, -1.25e-7]]})
    write_part(tmp_path / "part-1.parquet", job, [rows([8, 2])])
    part = read_part(tmp_path / "part-1.parquet")
    assert part == parts.Part(tmp_path / "part-1.parquet", job, 2, 1, 8)
    assert job.differences(part.job) == []
    write_part(tmp_path / "part-2.parquet", job, [])
    assert [part.rows for part in list_parts(tmp_path)] == [2, 0]


def test_what_is_no_part_is_passed_over_or_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "part-1.parquet")
    assert list_parts(tmp_path) == []
    write_part(tmp_path / "part-2.parquet", JOB, [rows(range(5))])
    data = (tmp_path / "part-2.parquet").read_bytes()
    for length in (0, 3, len(data) // 2, len(data) - 1):
        (tmp_path / "part-2.parquet").write_bytes(data[:length])
        with pytest.raises(LongtailError, match=r"part-2\.parquet"):
            list_parts(tmp_path)
    newer = JOB.schema.with_metadata({"longtail": replace(JOB, format=99).text})
    pq.write_table(rows([1]).cast(newer), tmp_path / "part-2.parquet")
    with pytest.raises(LongtailError, match="99"):
        list_parts(tmp_path)
    hostile = JOB.schema.with_metadata({"longtail": '{"images": 3}'})
    pq.write_table(rows([1]).cast(hostile), tmp_path / "part-2.parquet")
    with pytest.raises(LongtailError, match="images"):
        list_parts(tmp_path)


@pytest.mark.parametrize("entry", ["[]", "3", "null", "{", "[" * 10**5])
def test_a_part_that_does_not_say_what_it_is_is_named(entry: str, tmp_path: Path) -> None:
    pq.write_table(rows([1]).cast(JOB.schema.with_metadata({"longtail": entry})), tmp_path / "part-1.parquet")
    with pytest.raises(LongtailError, match=r"part-1\.parquet"):
        read_part(tmp_path / "part-1.parquet")


@pytest.mark.parametrize("column", ["key", "problem"])
def test_a_damaged_page_is_named_and_can_be_discarded(column: str, tmp_path: Path) -> None:
    with PartFolder(tmp_path, JOB) as folder:
        folder.add(rows(range(5)))
    (path,) = tmp_path.iterdir()
    metadata = pq.ParquetFile(path).metadata.row_group(0).column(JOB.schema.names.index(column))
    start = metadata.dictionary_page_offset or metadata.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + metadata.total_compressed_size] = b"\xff" * metadata.total_compressed_size
    path.write_bytes(data)
    with pytest.raises(LongtailError, match=path.name):
        PartFolder(tmp_path, JOB)
    with pytest.raises(LongtailError, match=path.name):
        list(rows_of([parts.Part(path, JOB, 5, 1, 0)], JOB.schema.names))
    other = tmp_path / "part-of-others.parquet"
    other.write_bytes(b"not ours")
    with PartFolder(tmp_path, JOB, restart=True) as folder:
        assert folder.count == 0
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize("number", [1, 3, 40])
def test_rows_come_in_the_order_of_the_listing(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_WINDOW", 300)
    owner = np.random.default_rng(number).integers(0, number, 2000)
    for part in range(number):
        places = np.flatnonzero(owner == part).tolist()
        tables = [rows(places[at : at + 7]) for at in range(0, len(places), 7)]
        write_part(tmp_path / f"part-{part}.parquet", JOB, tables)
    done = list_parts(tmp_path)
    tables = list(rows_of(done, ["position"]))
    assert pa.concat_tables(tables)["position"].to_pylist() == list(range(2000))
    assert max(map(len, tables)) <= 300
    assert identities(done).tolist() == list(range(2000))


def test_rows_of_several_states_of_a_folder_all_come_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_WINDOW", 300)
    places = np.random.default_rng(0).integers(0, 5000, (4, 600))
    for number, part in enumerate(places):
        write_part(tmp_path / f"part-{number}.parquet", JOB, [rows(part.tolist())])
    came = [row for table in rows_of(list_parts(tmp_path), ["position"]) for row in table["position"].to_pylist()]
    assert sorted(came) == sorted(places.ravel().tolist())


def test_doubles_are_counted_by_key(tmp_path: Path) -> None:
    job = replace(JOB, is_table=True)
    table = rows([0, 1, 2, 3], job).set_column(5, "key", pa.array([4, 7, 4, 4], pa.uint64()))
    write_part(tmp_path / "part-1.parquet", job, [table.cast(job.schema)])
    assert count_doubles(list_parts(tmp_path)) == 2
    assert identities(list_parts(tmp_path)).tolist() == [0, 1, 2, 3]


def test_work_that_was_done_twice_is_removed(tmp_path: Path) -> None:
    for name, numbers in (("part-1", (0, 1, 2)), ("part-2", (2, 3)), ("part-3", (0, 3, 4)), ("part-4", (5,))):
        write_part(tmp_path / f"{name}.parquet", JOB, [rows(numbers)])
    before = [(tmp_path / f"part-{number}.parquet").stat().st_mtime_ns for number in (1, 4)]
    assert remove_repeats(list_parts(tmp_path)) == 3
    assert [part.rows for part in list_parts(tmp_path)] == [3, 1, 1, 1]
    assert identities(list_parts(tmp_path)).tolist() == [0, 1, 2, 3, 4, 5]
    assert [(tmp_path / f"part-{number}.parquet").stat().st_mtime_ns for number in (1, 4)] == before
    assert remove_repeats(list_parts(tmp_path)) == 0


def test_an_image_that_a_store_did_not_give_is_not_done(tmp_path: Path) -> None:
    later = ("a.png", None, None, "'s3://b/a.png' cannot be fetched (busy): try again later.")
    write_part(tmp_path / "part-1.parquet", JOB, [rows([0, 1, 2], data=[later, later, ROWS[2]])])
    write_part(tmp_path / "part-2.parquet", JOB, [rows([0, 3, 1], data=[ROWS[0], later, ROWS[2], ROWS[3]])])
    write_part(tmp_path / "part-3.parquet", JOB, [rows([0, 3], data=[ROWS[0], None, None, later])])
    done = list_parts(tmp_path)
    assert identities(done, done=True).tolist() == [0, 0, 2, 3]
    once = without_repeats(done)
    assert [(part.rows, part.bad, part.repeats) for part in once] == [(2, 2, (0,)), (2, 0, (2,)), (0, 0, (0, 1))]
    tables = pa.concat_tables(rows_of(once, ["position", "prediction"]))
    assert tables.to_pydict() == {"position": [0, 1, 2, 3], "prediction": ["cat", None, None, "山猫"]}
    with PartFolder(tmp_path, JOB) as folder:
        assert (folder.count, [folder.has(number) for number in range(4)]) == (3, [True, False, True, True])


def test_rows_become_parts_when_it_is_worth_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(part_folder.time, "monotonic", lambda: now)
    with PartFolder(tmp_path, JOB) as folder:
        for second in range(2000):
            now = float(second)
            folder.add(rows([second]))
        assert 210 < len(folder.parts) < 240  # 50 in the first 50 seconds, then 50 ln(2000 / 50)
        now = 1e9
        monkeypatch.setattr(part_folder, "_MOST_BYTES", 1000)
        folder.add(rows(range(2000, 2100)))
    assert sum(part.rows for part in list_parts(tmp_path)) == 2100
    with PartFolder(tmp_path, JOB) as folder:
        assert folder.count == 2100
        assert folder.has(1999)
        assert not folder.has(2100)
        folder.remove()
    assert not tmp_path.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, LongtailError])
def test_an_interrupted_command_finishes_its_part(error: type[BaseException], tmp_path: Path) -> None:
    def work() -> None:
        with PartFolder(tmp_path, JOB) as folder:
            folder.add(rows([0]))
            raise error

    with pytest.raises(error):
        work()
    assert [part.rows for part in list_parts(tmp_path)] == [1]
    assert len(list(tmp_path.iterdir())) == 1


def test_parts_of_another_job_never_go_on(tmp_path: Path) -> None:
    with PartFolder(tmp_path, JOB) as folder:
        folder.add(rows([0]))
    for other in ({"model": "77"}, {"images": ("/other",)}, {"options": {}}, {"shard": Shard(1, 2)}):
        with pytest.raises(LongtailError, match=rf"other {next(iter(other))}\b"):
            PartFolder(tmp_path, replace(JOB, **other))
    with PartFolder(tmp_path, replace(JOB, model="77"), restart=True) as folder:
        assert (folder.count, folder.has(0)) == (0, False)


def test_only_one_command_writes(tmp_path: Path) -> None:
    for restart in (False, True):
        with PartFolder(tmp_path, JOB, restart=restart), pytest.raises(LongtailError, match="another command"):
            PartFolder(tmp_path, JOB)
    with PartFolder(tmp_path, JOB):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_two_that_do_not_see_the_lock_overwrite_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    refusal = OSError(errno.ENOLCK, "No locks available")

    def flock(file: Any, _: int) -> None:
        assert fcntl.fcntl(file, fcntl.F_GETFL) & (os.O_RDWR | os.O_WRONLY)  # NFS locks no other
        raise refusal

    monkeypatch.setattr(fcntl, "flock", flock)
    with PartFolder(tmp_path, JOB) as one, PartFolder(tmp_path, JOB) as other:
        one.add(rows([0, 1]))
        other.add(rows([1, 2]))
    once = without_repeats(list_parts(tmp_path))
    assert [row for table in rows_of(once, ["position"]) for row in table["position"].to_pylist()] == [0, 1, 2]
    refusal = OSError(errno.EIO, "Input/output error")
    with pytest.raises(LongtailError, match="Input/output"):
        PartFolder(tmp_path, JOB)


@pytest.mark.parametrize("is_listed", [True, False])
def test_what_was_to_be_tried_again_stays_where_a_folder_could_not_be_listed(tmp_path: Path, is_listed: bool) -> None:
    problem = f"the store refuses: {LATER}" if is_listed else f"the folder 'deep' cannot be listed: {LEFT_OUT}"
    data = [("deep/x.png", None, None, f"the store refuses: {LATER}"), ("deep", None, None, problem)]
    for number in (0, 1):
        write_part(tmp_path / f"part-{number}.parquet", JOB, [rows([number], data=data)])
    once = without_repeats(list_parts(tmp_path), {tmp_path / "part-0.parquet"})
    assert [part.later for part in once] == ([0, 1] if is_listed else [1, 0])


def test_a_part_that_another_command_has_removed_is_told(tmp_path: Path) -> None:
    write_part(tmp_path / "part-1.parquet", JOB, [rows([0])])
    parts = list_parts(tmp_path)
    parts[0].path.unlink()
    with pytest.raises(LongtailError, match="repeat"):
        identities(parts)


def test_a_full_disk_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with PartFolder(tmp_path / "parts", JOB) as folder:
        folder.add(rows([0, 1]))
    (whole,) = (tmp_path / "parts").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(LongtailError, match="space"), PartFolder(tmp_path / "parts", JOB) as folder:
            folder.add(rows([2]))
        with pytest.raises(LongtailError, match="space"):
            write_tables(folder.parts, COLUMNS, tmp_path / "a.csv", "csv")
    assert [path.name for path in tmp_path.rglob("*")] == ["parts", whole.name]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    looks = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    info = ModelInfo(ModelSpec("plain-cnn", "linear"), ("cat", "lynx"), (9, 1), looks)
    save_model(build_model("plain-cnn", 2), info, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_killed_half_way_the_same_command_goes_on(run: Path, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out.csv"
    photos.mkdir()
    Image.new("RGB", (8, 8), "teal").save(photos / "0000.png")
    (photos / "0001.png").write_text("no image")
    for number in range(2, 4000):
        os.link(photos / f"{number % 50 == 7:04}.png", photos / f"{number:04}.png")
    words = ["predict", str(run), str(photos), "--out", str(out), "--batch-size", "1", "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-m", "longtail", *words], stderr=subprocess.DEVNULL)
    folder, deadline = out.with_name("out.csv.parts"), time.monotonic() + 120
    while not list(folder.glob("part-*.parquet")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    resumed = predict_images(run, photos, out)
    whole = predict_images(run, photos, tmp_path / "whole.csv")
    assert 0 < resumed.earlier < 4000
    assert resumed.earlier + resumed.predicted + resumed.skipped == 4000
    assert out.read_text() == whole.out.read_text()
    skipped = [Path(f"{table}.skipped.csv").read_text() for table in (out, whole.out)]
    assert skipped[0] == skipped[1]
    assert len(skipped[0].splitlines()) == 1 + 1 + 80
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.csv",
        "out.csv.skipped.csv",
        "photos",
        "run",
        "whole.csv",
        "whole.csv.skipped.csv",
    ]
