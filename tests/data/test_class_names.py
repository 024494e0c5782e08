"""Class names have one spelling and one order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from longtail.data.class_names import match_classes, normalize_class_name, order_classes
from longtail.data.dataset import ImageData, Split


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Cafe\u0301", "Caf\u00e9"),
        ("\u00a0cat\u2003\t", "cat"),
        ("\ufeffcat\u200b", "cat"),
        ("\u2028cat\x85", "cat"),
        ("gray wolf", "gray wolf"),
        (7, "7"),
        (7.0, "7"),
        (0.5, "0.5"),
        (-0.0, "0"),
        (True, "True"),
        ("007", "007"),
        (None, ""),
        (float("nan"), ""),
        ("\u3000", ""),
    ],
)
def test_a_name_has_one_spelling(label: object, name: str) -> None:
    assert normalize_class_name(label) == name
    assert normalize_class_name(name) == name


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (("1", "01", "2"), ["01", "1", "2"]),
        (("0", "-0", "-1"), ["-1", "-0", "0"]),
        (("10", "9", "x"), ["10", "9", "x"]),
        (("b", "a", "B"), ["B", "a", "b"]),
        (("٣", "3", "2"), ["2", "3", "٣"]),
        (("9" * 5000, "10", "9"), ["10", "9", "9" * 5000]),
        ((), []),
    ],
)
def test_the_order_follows_from_the_names_alone(names: tuple[str, ...], ordered: list[str]) -> None:
    assert all(order_classes(shuffled) == ordered for shuffled in itertools.permutations(names))


def test_a_model_of_classes_written_as_floats_knows_whole_numbers() -> None:
    data = ImageData("mine", ("1", "9", "10"), {"train": Split.from_arrays(np.zeros((3, 2, 2), np.uint8), [0, 1, 2])})
    matched = match_classes(data, ["1.0", "10.0", "9.0"])  # in the order of text, as an earlier version read them
    assert (matched.classes, matched.splits["train"].labels.tolist()) == (("1.0", "10.0", "9.0"), [0, 2, 1])
    assert match_classes(data, ["1.0", "1", "10", "9"]).splits["train"].labels.tolist() == [1, 3, 2]
