"""CSV sources: what is read, and that every bad line is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from longtail.data.sources import load_source
from longtail.errors import LongtailError


@pytest.fixture
def table(make_folder: Callable[[dict[str, int]], Path]) -> Callable[[str | bytes], Path]:
    """Write a CSV file beside the images a/0.png to a/3.png."""
    root = make_folder({"a": 4})

    def write(text: str | bytes) -> Path:
        file = root / "list.csv"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


Table = Callable[[str | bytes], Path]


def csv(file: Path) -> str:
    return f"csv:{file}"


def test_paths_are_relative_to_the_file_and_classes_sorted(table: Table) -> None:
    data = load_source(csv(table("path,label\na/0.png,wolf\na/1.png,bear\na/2.png,wolf\n")))
    assert data.classes == ("bear", "wolf")
    assert data.splits["train"].labels.tolist() == [1, 0, 1]
    assert data.splits["train"].image(0).size == (6, 4)


def test_numbers_are_sorted_as_numbers(table: Table) -> None:
    data = load_source(csv(table("path,label\na/0.png,10\na/1.png,9\n")))
    assert data.classes == ("9", "10")


def test_split_column_other_columns_and_a_bare_path(table: Table) -> None:
    text = "File;Species;Split;film\na/0.png;x;train;7\na/1.png;y;train;8\n\na/2.png;x;val;7\na/3.png;z;test;9\n"
    data = load_source(str(table(text)), label_column="Species")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 2, "validation": 1, "test": 1}
    assert data.splits["train"].column("film") == ["7", "8"]
    assert data.counts().counts == (1, 1, 0)
    assert any("'z'" in str(finding) for finding in data.findings)


def test_a_byte_order_mark_and_windows_line_ends(table: Table) -> None:
    data = load_source(csv(table(b"\xef\xbb\xbfpath,label\r\na/0.png,x\r\na/1.png,y\r\n")))
    assert data.classes == ("x", "y")


def test_quoted_values_with_separators_and_line_breaks(table: Table) -> None:
    data = load_source(csv(table('path,label\na/0.png,"wolf, grey"\na/1.png,"a\nb"\n')))
    assert data.classes == ("a\nb", "wolf, grey")


def test_both_columns_may_be_named(table: Table) -> None:
    file = table("label,path,foto,art\nx,y,a/0.png,wolf\nx,y,a/1.png,bear\n")
    data = load_source(csv(file), image_column="foto", label_column="art")
    assert data.classes == ("bear", "wolf")
    assert data.splits["train"].image(1).size == (6, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na/0.png,x\na/1.png\n", "line 3: 1 values for 2 columns"),
        ("path,label\na/0.png,x,y\n", "line 2: 3 values for 2 columns"),
        ('path,label\n"a\nb",x,y\n', "line 2: 3 values"),
        ('path,label\na/0.png,x\na/1.png,"x\n', "line 3: .*quotes"),
        ("path,label\na/0.png,\n", "line 2: the label is empty"),
        ("path,label\n,x\n", "line 2: the path is empty"),
        ("path,label\na/0.png,x\na/99.png,x\n", "line 3: no file .*99.png"),
        ("path,label,split\na/0.png,x,holdout\n", "line 2: unknown split 'holdout'"),
        (b"path,label\na/0.png,x\na/1.png,\xff\n", "line 3: not UTF-8"),
        ("path,label\n", "no rows"),
        ("", "is empty"),
        ("path,path\na/0.png,x\n", "same name"),
        ("path,what\na/0.png,x\n", "no column that looks like the label"),
        ("where,label\na/0.png,x\n", "no column that looks like the image"),
        ("path,label\na/0.png,x\na/1.png,x\n", "one class, 'x'"),
        ("path,label,split\na/0.png,x,test\n", "no split named train"),
    ],
)
def test_bad_tables_are_refused_with_their_line(table: Table, text: str | bytes, message: str) -> None:
    with pytest.raises(LongtailError, match=message):
        load_source(csv(table(text)))


def test_a_wrong_column_option_gets_the_nearest(table: Table) -> None:
    with pytest.raises(LongtailError, match="Did you mean 'label'"):
        load_source(csv(table("path,label\na/0.png,x\n")), label_column="lable")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match="does not exist"):
        load_source(f"csv:{tmp_path / 'none.csv'}")
    with pytest.raises(LongtailError, match="is a folder"):
        load_source(f"csv:{tmp_path}")
