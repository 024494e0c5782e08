"""YAML of options: what it holds is read as it looks, and everything else is refused with its line and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from longtail.config.build import parse_yaml, read_config_file
from longtail.errors import LongtailError
from longtail.experiments.grid_plan import read_grid

BOMB = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 3", 3),
        ("a: -0.5", -0.5),
        ("a: 2.0e-05", 2e-05),
        ("a: 1e-3", 1e-3),
        ("a: '1e-3'", "1e-3"),
        ("a: true", True),
        ("a: ~", None),
        ("a:", None),
        ("a: 2001-01-01", "2001-01-01"),
        ("a: '010'", "010"),
        ("a: [1, x]", [1, "x"]),
        ("a: {b: 1}", {"b": 1}),
        ("a: &x [1]", [1]),
    ],
)
def test_values_are_what_they_look_like(text: str, value: Any) -> None:
    assert parse_yaml(text, "f").values == {"a": value}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "line 2, column 1"),
        ("a: {b: 1, b: 2}", "line 1, column 11"),
        ("a: 010", "line 1, column 4"),  # eight, to YAML 1.1
        ("a: 1_000", "line 1, column 4"),
        ("a: 1:30", "line 1, column 4"),  # ninety
        ("a: 0x10", "line 1, column 4"),
        ("a: .inf", "line 1, column 4"),
        ("a: 1e999", "line 1, column 4"),
        (f"a: {'9' * 5000}", "line 1, column 4"),
        ("a: !!int foo", "line 1, column 4"),
        ("a: !!bool foo", "line 1, column 4"),
        ("a: !!python/object:os.system x", "line 1, column 4"),
        ("? [1]\n: 2", "line 1, column 3"),
        ("a: [", "line 1, column 5"),
        ("a: b\n---\nc: d", "line 2, column 1"),
        ("&a [*a]", "aliases"),
        (BOMB, "aliases"),
        ("[" * 5000, "deep"),
        ("a: \x01", "YAML"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(LongtailError, match=words):
        parse_yaml(text, "mine.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data:\n  image_size: 64\nstage1:\n  epohcs: 3", "line 4, column 3.*stage1.epochs"),
        ("stage1:\n  epochs: many", "line 2, column 3.*stage1.epochs .*whole"),
        ("lr: 0.1", "line 1, column 1.*stage1.optimizer.lr"),
        ("model:", "line 1, column 1.*model .*names"),
        ("stage1:\n  batch_size: 32\n  batch_size: 64", "line 3, column 3.*twice"),
    ],
)
def test_a_configuration_names_the_place_of_what_is_wrong(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(LongtailError, match=words):
        read_config_file(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sed: 3", "line 1, column 1.*seeds"),
        ("seeds: many", "line 1, column 1.*whole number"),
        ("runs:\n  ce: {recip: cifar-lt/ce}", "line 2, column 8.*recipe"),
        ("runs:\n  ce:\n    recipe: cifar-lt/ce\n    set: {data.fewer: 3}", "line 4, column 11.*data.few"),
        ("set: {data.few: many}", "line 1, column 7.*whole number"),
        ("set: {lr: 0.1}", "line 1, column 7.*stage1.optimizer.lr"),
        ("vary: {stage1.epochs: [3, many]}", "line 1, column 8.*whole number"),
    ],
)
def test_a_grid_names_the_place_of_what_is_wrong(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(LongtailError, match=words):
        read_grid(tmp_path / "grid.yaml")


def test_a_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text("a: 1\n" + "# more\n" * 100_000)
    with pytest.raises(LongtailError, match="larger than"):
        read_config_file(path)
