"""The strict reader of tables as text."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from longtail.data.sources.csv import read_records, read_rows
from longtail.errors import LongtailError


def rows(path: Path, content: str | bytes) -> list[list[str]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    header, records = read_rows(path)
    return [header, *(cells for _, cells in records)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('a,b\n1, "cat"\n', [["a", "b"], ["1", "cat"]]),
        ('a,b\n1,"x, ""y"""\n', [["a", "b"], ["1", 'x, "y"']]),
        ('a,b\n1,"x\ny"\n2,z\n', [["a", "b"], ["1", "x\ny"], ["2", "z"]]),
        ("a,b\n1,x\x85y\n", [["a", "b"], ["1", "x\x85y"]]),
        ("a,b\n1,x\u2028y\n", [["a", "b"], ["1", "x\u2028y"]]),
        ("a,b\n1,x\x0cy\n", [["a", "b"], ["1", "x\x0cy"]]),
        ('"a;x";"b,y,z"\n1;2\n', [["a;x", "b,y,z"], ["1", "2"]]),
        ('"a;x;y",b\n1,2\n', [["a;x;y", "b"], ["1", "2"]]),
        ("a\tb\r\n1\t2,5\r\n", [["a", "b"], ["1", "2,5"]]),
        ("a,b\r1,2\r", [["a", "b"], ["1", "2"]]),
        (b'\xef\xbb\xbf"a",b\n1,2', [["a", "b"], ["1", "2"]]),
        ('a,b\n5" disc,2\n', [["a", "b"], ['5" disc', "2"]]),
        ("\n\na,b\n\n1,2\n\n", [["a", "b"], ["1", "2"]]),
    ],
)
def test_what_is_read(tmp_path: Path, content: str | bytes, expected: list[list[str]]) -> None:
    assert rows(tmp_path / "t.csv", content) == expected


def test_the_line_of_a_row_is_where_it_begins(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('\na,b\n"1\n\n",2\n\n3,4\n')
    assert [line for line, _ in read_rows(tmp_path / "t.csv")[1]] == [3, 7]
    assert next(read_records(tmp_path / "t.csv")) == (2, ["a", "b"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('path,"label\n0.png,a\n', "line 1: column 2.*never"),
        ('a,b\n1,2\n"x\ny",z,"3\n4,5\n', "line 4: column 3.*never"),
        ('a,b\n1,"cat"s\n', "line 2: column 2.*closing"),
        ('a,b\n1,"cat" ,3\n', "line 2: column 2.*closing"),
        (f'a,b\n1,"{"x" * 200_000}\n', "line 2: column 2"),
        (f"a,b\n1,{'x' * 200_000}\n", "line 2: column 2"),
        ("a,b\n1,2\n3\n", "line 3: 1 value for 2 columns"),
        ("a,b\n1,2,3\n", "line 2: 3 values for 2 columns"),
        ("a, a\n1,2\n", "line 1: .*same.*'a'"),
        (b"a,b\n1,\xff\n", "line 2: not UTF-8"),
        (b"a,b\n" + b"1,2\n" * 5000 + b"1,caf\xe9\n", "line 5002: not UTF-8"),
        (b"a,b\n1,\xc3", "line 2: not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "line 1: .*NUL"),
        ("", "empty"),
        ("\n \n", "empty"),
        (",,\n", "empty"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(LongtailError, match=message) as caught:
        rows(tmp_path / "t.csv", content)
    assert "\n" not in str(caught.value)


def test_quotes_that_stay_open_are_found_without_reading_on(tmp_path: Path) -> None:
    for start in ('"', 'path,label\n0.png,"', "path,label\n" + " " * 100_000 + '"x" y,'):
        with pytest.raises(LongtailError, match=r"line [12]: column"):
            rows(tmp_path / "t.csv", start + "x,y\n" * 300_000)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match="not exist"):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(LongtailError, match="a folder"):
        read_rows(tmp_path)


def test_many_rows_take_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w") as file:
        file.write("path,label\n")
        file.writelines(f"{number}.png,cat\n" for number in range(50_000))
    tracemalloc.start()
    assert sum(1 for _ in read_rows(tmp_path / "t.csv")[1]) == 50_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


def test_bytes_of_a_file_name_and_rows_of_any_length_where_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\ncaf\xe9\n")
    _, records = read_rows(tmp_path / "t.csv", ragged=True, decoding="surrogateescape")
    assert list(records) == [(2, ["caf\udce9"])]
