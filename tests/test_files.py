"""Files are whole or not there, streams stay streams, and what a killed process left is removed by the next one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from longtail import files
from longtail.errors import LongtailError
from longtail.files import is_stream, output_path, write_atomically, writing

KILLED = """
import os, sys
from pathlib import Path
from longtail.files import writing
with writing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os._exit(9)
"""

if sys.platform != "win32":
    import fcntl

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes, links and locks as POSIX has them")


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, contents = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: contents.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"rows")
    reader.join(10)
    assert contents == [b"rows"]
    assert pipe.is_fifo()
    assert listed(tmp_path) == ["pipe"]


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_a_link_to_a_descriptor_stays_and_the_content_goes_on_where_it_stands(kind: str, tmp_path: Path) -> None:
    if kind == "pipe":
        read, write = os.pipe()
    else:
        read = write = os.open(tmp_path / "redirected", os.O_RDWR | os.O_CREAT)
    os.write(write, b"before ")
    (tmp_path / "link").symlink_to(f"/proc/self/fd/{write}")
    if not is_stream(tmp_path / "link"):
        pytest.skip("no /proc here")
    write_atomically(tmp_path / "link", b"rows")
    os.write(write, b" after")
    if kind == "file":
        os.lseek(read, 0, os.SEEK_SET)
    assert os.read(read, 100) == b"before rows after"
    assert (tmp_path / "link").is_symlink()
    for descriptor in {read, write}:
        os.close(descriptor)


def test_a_link_to_a_file_stays_and_the_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.csv").write_bytes(b"old")
    for name, target in (("link.csv", "far/a.csv"), ("dead.csv", "far/new.csv")):
        (tmp_path / name).symlink_to(target)
        write_atomically(tmp_path / name, b"new")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_bytes() == b"new"
    assert listed(tmp_path / "far") == ["a.csv", "new.csv"]


def test_the_rights_of_a_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.touch(mode=0o600)
    write_atomically(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_loses_nothing(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "a.csv").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LongtailError, match="space"):
        write_atomically(tmp_path / "a.csv", b"new")
    assert (tmp_path / "a.csv").read_bytes() == b"old"
    assert listed(tmp_path) == ["a.csv"]


def test_what_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "ring").symlink_to("ring")
    for path in (tmp_path, tmp_path / "file" / "a", tmp_path / "ring", Path("/dev/full"), Path("/dev/fd/987654")):
        with pytest.raises(LongtailError, match="be written"):
            write_atomically(path, b"new")
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for all but root
    with pytest.raises(LongtailError, match="allow writing"):
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert (tmp_path / "ring").is_symlink()


def test_a_reader_that_leaves_is_no_failed_write(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    (tmp_path / "link").symlink_to(f"/proc/self/fd/{write}")
    if not is_stream(tmp_path / "link"):
        pytest.skip("no /proc here")
    with pytest.raises(BrokenPipeError):
        write_atomically(tmp_path / "link", b"rows")
    os.close(write)


def test_names_of_any_length(tmp_path: Path) -> None:
    for name in ("a" * 255, "山" * 85):
        write_atomically(tmp_path / name, b"new")
    assert len(listed(tmp_path)) == 2


def test_a_dash_is_the_standard_output_and_a_path_to_one_is_a_file() -> None:
    assert is_stream(output_path("-"))
    assert output_path("./-").is_absolute()
    assert not is_stream(output_path("./-"))


def test_what_a_killed_process_left_goes_with_the_next_file_in_the_folder(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path / "model.bin")]
    assert subprocess.run(words, check=False).returncode == 9
    assert [name.startswith(".model.bin.longtail-") for name in listed(tmp_path)] == [True]
    write_atomically(tmp_path / "other.csv", b"new")
    assert listed(tmp_path) == ["other.csv"]


def test_what_may_be_somebodys_stays(tmp_path: Path) -> None:
    here = f"longtail-{files._HOST}-00000000-999999998-0.tmp"  # of before the machine was started anew
    keep = [
        ".a.csv.longtail-elsewhere-00000000-1-0.tmp",
        f".b.csv.{here}",
        ".a.csv.999999999.tmp",
        ".b.csv.999999999.tmp",
        ".a.csv.tmp",
    ]
    old = [".a.csv.999999998.tmp", f".a.csv.{here}", f".a.csv.{os.getpid()}.tmp", ".b.csv.999999998.tmp"]
    for name in keep + old:
        (tmp_path / name).touch()
    for name in old:
        os.utime(tmp_path / name, (time.time() - 7200,) * 2)
    with writing(tmp_path / "live.csv") as file:
        file.write(b"half")
        live = next(name for name in listed(tmp_path) if name.startswith(".live"))
        write_atomically(tmp_path / "a.csv", b"new")
        assert live in listed(tmp_path)
    # Of an older version go those of this file whose process is gone.
    assert listed(tmp_path) == sorted([*keep, *old[2:], "a.csv", "live.csv"])


def test_what_a_process_in_another_container_left_goes_once_it_is_not_locked(tmp_path: Path) -> None:
    if files._boot() == "0":
        pytest.skip("no /proc here")
    left = tmp_path / f".a.csv.longtail-f00ba4-{files._boot()}-{os.getpid()}-0.tmp"
    with left.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_atomically(tmp_path / "a.csv", b"new")
        assert left.exists()
    write_atomically(tmp_path / "b.csv", b"new")
    assert listed(tmp_path) == ["a.csv", "b.csv"]
