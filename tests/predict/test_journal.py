"""The journal: a table that is whole whatever byte a kill cuts it at, and a real kill half way."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from longtail.errors import LongtailError
from longtail.models import build_model
from longtail.models.preprocessing import Preprocessing
from longtail.predict.journal import Journal
from longtail.predict.predict import predict_images
from longtail.run.model_files import ModelInfo, ModelSpec, save_model

COLUMNS = ["path", "prediction", "confidence"]
ROWS = [
    ("a.png", "cat", "0.5", ""),
    ('b "b", \n.png', "a\r\nb", "0.25", ""),
    ("bad\n.png", "", "", 'it is\nbroken, "really"'),
    (os.fsdecode(b"caf\xe9.png"), "山猫", "0.125", ""),
    ("z.png", "cat", "1", ""),
]


def write(out: Path, *, until: int = len(ROWS)) -> Journal:
    with Journal(out, COLUMNS, settings={"run": 1}) as journal:
        journal.add(row for row in ROWS[:until] if not journal.has(row[0]))
    return journal


def finish(out: Path) -> tuple[bytes, bytes]:
    with Journal(out, COLUMNS, settings={"run": 1}) as journal:
        journal.add(row for row in ROWS if not journal.has(row[0]))
        journal.finish()
    return out.read_bytes(), journal.skipped_path.read_bytes()


def test_a_table_cut_at_any_byte_is_completed_without_loss_or_double(tmp_path: Path) -> None:
    write(tmp_path / "whole.csv")
    part = (tmp_path / "whole.csv.part").read_bytes()
    expected = finish(tmp_path / "whole.csv")
    for length in range(len(part) + 1):
        (tmp_path / "cut.csv.part").write_bytes(part[:length])
        assert finish(tmp_path / "cut.csv") == expected, length
    assert not (tmp_path / "cut.csv.part").exists()
    rows = list(csv.reader(expected[0].decode(errors="surrogateescape").splitlines(keepends=True)))
    assert rows == [COLUMNS, *(list(row[:-1]) for row in ROWS if not row[-1])]
    skipped = list(csv.reader(expected[1].decode().splitlines(keepends=True)))
    assert skipped == [["path", "problem"], [ROWS[2][0], ROWS[2][-1]]]


def test_parquet_has_the_same_rows(tmp_path: Path) -> None:
    finish(tmp_path / "a.parquet")
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["path"] for row in rows] == ["a.png", ROWS[1][0], "caf\\udce9.png", "z.png"]
    assert [row["confidence"] for row in rows] == [0.5, 0.25, 0.125, 1.0]


def test_other_settings_never_go_on(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", until=2)
    with pytest.raises(LongtailError, match="another command"):
        Journal(tmp_path / "a.csv", COLUMNS, settings={"run": 2})
    with Journal(tmp_path / "a.csv", COLUMNS, settings={"run": 2}, restart=True) as journal:
        assert journal.count == 0
        assert not journal.has("a.png")


def test_a_table_that_cannot_be_finished_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write(tmp_path / "a.csv")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(LongtailError, match="space"):
            finish(tmp_path / "a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv.part"]
    assert len(finish(tmp_path / "a.csv")[0].splitlines()) > 4


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_killed_half_way_the_same_command_goes_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    looks = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    info = ModelInfo(ModelSpec("plain-cnn", "linear"), ("cat", "lynx"), (9, 1), looks)
    save_model(build_model("plain-cnn", 2), info, tmp_path / "run")
    photos, out = tmp_path / "photos", tmp_path / "out.csv"
    photos.mkdir()
    Image.new("RGB", (8, 8), "teal").save(photos / "0000.png")
    (photos / "0001.png").write_text("no image")
    for number in range(2, 1500):
        os.link(photos / f"{number % 50 == 7:04}.png", photos / f"{number:04}.png")
    words = ["predict", str(tmp_path / "run"), str(photos), "--out", str(out), "--batch-size", "1", "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-m", "longtail", *words], stderr=subprocess.DEVNULL)
    part, deadline = out.with_name("out.csv.part"), time.monotonic() + 120
    while not (part.exists() and part.stat().st_size > 2000) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    resumed = predict_images(tmp_path / "run", photos, out)
    whole = predict_images(tmp_path / "run", photos, tmp_path / "whole.csv")
    assert 0 < resumed.earlier < 1500
    assert resumed.earlier + resumed.predicted + resumed.skipped == 1500
    assert out.read_text() == whole.out.read_text()
    skipped = [Path(f"{table}.skipped.csv").read_text() for table in (out, whole.out)]
    assert skipped[0] == skipped[1]
    assert len(skipped[0].splitlines()) == 1 + 1 + 30
