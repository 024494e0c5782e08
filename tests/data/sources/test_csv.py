"""CSV sources: what is read, and that every bad line is named."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from longtail.data.dataset import ImageData
from longtail.data.sources.csv import read_records, read_rows
from longtail.data.sources.registry import load_source
from longtail.data.splits import carve, fold_numbers, unit_numbers
from longtail.errors import LongtailError


@pytest.fixture
def table(make_folder: Callable[[dict[str, int]], Path]) -> Callable[[str | bytes], Path]:
    """Write a CSV file next to the images a/0.png to a/3.png."""
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


def test_whole_numbers_that_pandas_wrote_as_floats_are_named_by_their_digits(table: Table) -> None:
    data = load_source(csv(table("path,label\na/0.png,10.0\na/1.png,9.0 \na/2.png,9\n")))
    assert (data.classes, data.splits["train"].labels.tolist()) == (("9", "10"), [1, 0, 0])
    assert load_source(csv(table("path,label\na/0.png,1.0\na/1.png,1.5\n"))).classes == ("1.0", "1.5")


@pytest.mark.parametrize("composed", [True, False])
def test_paths_from_windows_and_in_the_other_unicode_form_find_their_files(table: Table, composed: bool) -> None:
    names = ["Caf\u00e9.png", "Cafe\u0301.png"]
    file = table(f"path,label\na\\1.png,x\na\\{names[composed]},y\n")
    image = file.parent / "a" / names[not composed]
    (file.parent / "a" / "0.png").rename(image)
    split = load_source(csv(file)).splits["train"]
    assert [split.path(row) for row in (0, 1)] == [str(file.parent / "a" / "1.png"), str(image)]


@pytest.mark.parametrize("first", ["sep=;\n", '"sep=;"\r\n', "SEP=|\n", "sep=\t\n"])
def test_a_first_line_for_excel_states_the_delimiter(table: Table, first: str) -> None:
    delimiter = first.strip('"\r\n')[-1]
    text = "path,and,more\na/0.png,x,1\na/1.png,y,2\n".replace(",", delimiter)
    data = load_source(csv(table(first + text)), label_column="and")
    assert (data.classes, data.splits["train"].column("more")) == (("x", "y"), ["1", "2"])
    with pytest.raises(LongtailError, match="line 5"):
        load_source(csv(table(first + text + "a/2.png")), label_column="and")
    with pytest.raises(LongtailError, match="line 5: column 2"):
        load_source(csv(table(first + text + f'a/2.png{delimiter}"x')), label_column="and")


def test_split_column_other_columns_and_a_bare_path(table: Table) -> None:
    text = "File;Species;Split;film\na/0.png;x;train;7\na/1.png;y;train;8\n\na/2.png;x;val;7\na/3.png;z;test;9\n"
    data = load_source(str(table(text)), label_column="Species")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 2, "validation": 1, "test": 1}
    assert data.splits["train"].column("film") == ["7", "8"]
    assert data.counts().counts == (1, 1, 0)
    assert any("'z'" in str(finding) for finding in data.findings)


def test_one_site_in_several_spellings_stays_on_one_side(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.png").touch()
    spellings = ("Sit\u00e9 {}", "Site\u0301 {}", " Sit\u00e9 {} ", "Sit\u00e9 {}\u00a0")
    lines = [f"{row}.png,{'xy'[row % 2]},{spellings[row % 4].format(row // 4)}" for row in range(40)]
    (tmp_path / "sites.csv").write_text("\n".join(["path,label,site", *lines]))
    parts = carve(load_source(csv(tmp_path / "sites.csv")).splits["train"], 0.25, groups="site")
    sites = [{int(row) // 4 for row in part.origin_rows} for part in parts]
    assert (len(sites[0] | sites[1]), sites[0] & sites[1]) == (10, set())


def test_a_byte_order_mark_and_windows_line_ends(table: Table) -> None:
    data = load_source(csv(table(b"\xef\xbb\xbfpath,label\r\na/0.png,x\r\na/1.png,y\r\n")))
    assert data.classes == ("x", "y")


def test_quoted_values_with_separators_and_line_breaks(table: Table) -> None:
    data = load_source(csv(table('path,label\na/0.png,"wolf, gray"\na/1.png,"a\nb"\n')))
    assert data.classes == ("a\nb", "wolf, gray")


def test_both_columns_may_be_named(table: Table) -> None:
    file = table("label,path,foto,art\nx,y,a/0.png,wolf\nx,y,a/1.png,bear\n")
    data = load_source(csv(file), image_column="foto", label_column="art")
    assert data.classes == ("bear", "wolf")
    assert data.splits["train"].image(1).size == (6, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na/0.png,x\na/1.png\n", "line 3: 1 value for 2 columns"),
        ("path,label\na/0.png,x,y\n", "line 2: 3 values for 2 columns"),
        ('path,label\n"a\nb",x,y\n', "line 2: 3 values"),
        ('path,label\na/0.png,x\na/1.png,"x\n', "line 3: .*quotes"),
        ("path,label\na/0.png,\n", "line 2.*label"),
        ("path,label\n,x\n", "line 2.*path"),
        ("path,label\na/0.png,x\na/99.png,x\n", "line 3: no file .*99.png"),
        ("path,label,split\na/0.png,x,holdout\n", "line 2.*'holdout'"),
        (b"path,label\na/0.png,x\na/1.png,\xff\n", "line 3: not UTF-8"),
        ("path,label\na/0.png,x\n" + 300 * "a" + ",x\n", "line 3: .*too long"),
        ("path," + 300 * "a" + ".png\na/0.png,x\n", "column.*label|header"),
        ("path,label\n", "no rows"),
        ("", "is empty"),
        ("path,path\na/0.png,x\n", "same name"),
        ("path,what\na/0.png,x\n", "column.*label"),
        ("where,label\na/0.png,x\n", "column.*image"),
        ("path,label\na/0.png,x\na/1.png,x\n", "one class.* 'x'"),
        ("path,label,split\na/0.png,x,test\n", "named train"),
    ],
)
def test_bad_tables_are_refused_with_their_line(table: Table, text: str | bytes, message: str) -> None:
    with pytest.raises(LongtailError, match=message):
        load_source(csv(table(text)))


def test_a_wrong_column_option_gets_the_nearest(table: Table) -> None:
    with pytest.raises(LongtailError, match="mean 'label'"):
        load_source(csv(table("path,label\na/0.png,x\n")), label_column="lable")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match="not exist"):
        load_source(f"csv:{tmp_path / 'none.csv'}")
    with pytest.raises(LongtailError, match="a folder"):
        load_source(f"csv:{tmp_path}")


def kinds(data: ImageData) -> list[str]:
    return [finding.kind for finding in data.findings]


def test_blanks_around_a_label_and_quotes_after_a_blank_are_no_part_of_it(table: Table) -> None:
    data = load_source(csv(table('path,label\na/0.png, "cat"\na/1.png,\u00a0cat \na/2.png,dog\n')))
    assert (data.classes, data.splits["train"].labels.tolist()) == (("cat", "dog"), [0, 0, 1])
    assert "class-spellings" in kinds(data)


def test_one_name_in_two_unicode_forms_is_one_class(table: Table) -> None:
    text = "path,label,split\na/0.png,Caf\u00e9,train\na/1.png,tea,train\na/2.png,Cafe\u0301,test\n"
    data = load_source(csv(table(text)))
    assert data.classes == ("Caf\u00e9", "tea")
    assert data.splits["test"].labels.tolist() == [0]
    (finding,) = [finding for finding in data.findings if finding.kind == "class-spellings"]
    assert (finding.severity, "'Cafe\\u0301'" in finding.message and "'Caf\\xe9'" in finding.message) == ("note", True)


def test_numbers_of_one_value_have_one_order_in_every_process(table: Table) -> None:
    file = table("path,label\na/0.png,1\na/1.png,01\na/2.png,2\n")
    script = "import sys; from longtail.data.class_names import order_classes as order; print(order(set(sys.argv[1:])))"
    orders = {
        subprocess.run(
            [sys.executable, "-c", script, "1", "01", "2", "-0", "0"],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3, 4)
    }
    assert orders == {"['-0', '0', '01', '1', '2']\n"}
    assert load_source(csv(file)).classes == ("01", "1", "2")


@pytest.mark.parametrize("header", ["path,label", "0.png,a", "a/0.png;cat"])
def test_a_table_without_header_is_called_so(table: Table, header: str) -> None:
    first = header if header != "path,label" else "a/0.png,wolf"
    with pytest.raises(LongtailError, match="no header"):
        load_source(csv(table(f"{first}\na/1.png,b\n")), label_column=None if header == "path,label" else "kind")


@pytest.mark.parametrize("options", [{"image_column": "a/0.png"}, {"image_column": "a/0.png", "label_column": "x"}])
def test_an_image_in_the_first_line_is_not_taken_for_a_column(table: Table, options: dict[str, str]) -> None:
    with pytest.raises(LongtailError, match="header"):
        load_source(csv(table("a/0.png,x\na/1.png,y\n")), **options)


def test_rows_of_separators_alone_and_columns_without_a_name_are_passed_over(table: Table) -> None:
    data = load_source(csv(table(",path,label,\n0,a/0.png,x,\n1,a/1.png,y,\n,,,\n")))
    assert len(data.splits["train"]) == 2
    assert data.splits["train"].rows.column_names == ["image", "label"]


@pytest.mark.parametrize("name", ["part", "Set", "fold_name", "split"])
def test_a_column_of_splits_is_found_by_its_name_and_values(table: Table, name: str) -> None:
    data = load_source(
        csv(table(f"path,label,{name}\na/0.png,x,train\na/1.png,y,Train\na/2.png,x,val\na/3.png,y,test\n"))
    )
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 2, "validation": 1, "test": 1}
    assert kinds(data)[0] == "split-column"


def test_a_column_of_splits_may_be_named(table: Table) -> None:
    file = table("path,label,use,part\na/0.png,x,train,test\na/1.png,y,train,train\na/2.png,x,test,train\n")
    data = load_source(csv(file), split_column="use")
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 2, "test": 1}
    assert kinds(data) == []
    with pytest.raises(LongtailError, match=r"'uses'.*mean 'use'"):
        load_source(csv(file), split_column="uses")
    with pytest.raises(LongtailError, match=r"line 2: .*'x' .*'y'.*'label'"):
        load_source(csv(file), split_column="label")


def test_a_column_that_names_splits_in_some_rows_only_is_not_used_and_said(table: Table) -> None:
    data = load_source(csv(table("path,label,part\na/0.png,x,train\na/1.png,y,hold-out\n")))
    assert (len(data.splits["train"]), kinds(data)) == (2, ["split-column-unused"])
    assert data.findings[0].severity == "warning"
    assert kinds(load_source(csv(table("path,label,part\na/0.png,x,head\na/1.png,y,tail\n")))) == []
    data = load_source(csv(table("path,label,part\na/0.png,x,test\na/1.png,y,val\n")))  # as a table to evaluate on
    assert (list(data.splits), kinds(data)) == (["train"], ["split-column-unused"])


def test_a_column_of_another_name_that_names_splits_is_not_used_and_said(table: Table) -> None:
    file = table("path,label,use,side\na/0.png,x,train,left\na/1.png,y,train,left\na/2.png,x,test,right\n")
    data = load_source(csv(file))
    assert (list(data.splits), kinds(data)) == (["train"], ["split-column-unused"])
    assert "--split-column use" in data.findings[0].remedy


def test_rows_that_hold_several_labels_are_named(table: Table) -> None:
    data = load_source(csv(table("path,label\na/0.png,cat\na/1.png,dog\na/2.png,cat|dog\n")))
    (finding,) = data.findings
    assert (finding.kind, finding.severity, "'cat|dog'" in finding.message) == ("several-labels", "warning", True)


def test_a_file_listed_again_counts_once(table: Table) -> None:
    data = load_source(csv(table("path,label\na/0.png,x\na/../a/0.png,x\n./a/0.png,x\na/1.png,y\n")))
    assert data.counts().counts == (1, 1)
    (finding,) = data.findings
    assert (finding.kind, finding.images) == ("file-listed-again", ("a/0.png", "a/0.png"))


def test_a_file_in_two_splits_stays_in_the_one_held_out(table: Table) -> None:
    text = "path,label,split\na/0.png,x,train\na/1.png,y,train\na/2.png,x,train\na/0.png,x,test\na/2.png,y,val\n"
    data = load_source(csv(table(text)))
    assert {name: split.labels.tolist() for name, split in data.splits.items()} == {
        "train": [1],
        "validation": [1],
        "test": [0],
    }
    (finding,) = [finding for finding in data.findings if finding.kind == "file-in-several-splits"]
    assert set(finding.images) == {"a/0.png", "a/2.png"}


def test_a_file_with_two_labels_is_said_and_stays_on_one_side(table: Table) -> None:
    file = table("path,label,film\na/0.png,x,1\na/0.png,y,2\na/1.png,x,3\na/2.png,y,2\na/3.png,x,4\na/3.png,y,5\n")
    data = load_source(csv(file))
    (finding,) = data.findings
    assert finding.kind == "file-with-several-labels"
    assert all(word in finding.message for word in ("'a/0.png'", "'x'", "'y'"))
    split = data.splits["train"]
    for seed in range(5):
        sides = [{rows.path(row) for row in range(len(rows))} for rows in carve(split, 0.4, seed=seed)]
        assert not sides[0] & sides[1]
        folds = fold_numbers(split.labels, 2, seed=seed, units=unit_numbers(split, None))
        assert (folds[0], folds[4]) == (folds[1], folds[5])
        grouped = fold_numbers(split.labels, 2, seed=seed, units=unit_numbers(split, "film"))
        assert grouped[0] == grouped[1] == grouped[3]


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
