"""Errors for users: the nearest right name, by meaning, last part or spelling; messages for both interfaces."""

from __future__ import annotations

import pytest

from longtail.errors import LongtailError, UsageError, as_usage, nearest, resume_hint

OPTIONS = ("--epochs", "--stage1.optimizer.lr", "--stage2.optimizer.lr", "--stage1.batch_size", "--data.image_size")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("--learning-rate", "'--stage1.optimizer.lr' or '--stage2.optimizer.lr'"),  # by meaning
        ("--bs", "'--stage1.batch_size'"),
        ("--image_size", "'--data.image_size'"),  # by its last part
        ("--IMAGE-SIZE", "'--data.image_size'"),
        ("--epohcs", "'--epochs'"),  # by spelling
    ],
)
def test_the_nearest_name_is_suggested(name: str, suggestion: str) -> None:
    assert nearest(name, OPTIONS).endswith(f" {suggestion}?")


def test_equally_near_names_keep_their_order_and_sets_are_sorted() -> None:
    assert nearest("lr", ["b.lr", "a.lr"]).index("b.lr") < nearest("lr", ["b.lr", "a.lr"]).index("a.lr")
    assert nearest("lr", {"b.lr", "a.lr"}).index("a.lr") < nearest("lr", {"b.lr", "a.lr"}).index("b.lr")
    offered = nearest("lr", [f"{letter}.lr" for letter in "abcdef"])
    assert ("'c.lr'" in offered, "'d.lr'" in offered) == (True, False)


def test_where_nothing_is_near_the_choices_are_listed_but_not_by_the_thousand() -> None:
    assert nearest("zzz", ["kps", "gcl"]).endswith(" gcl, kps.")
    assert nearest("zzz", ["kps", "gcl"], list_all=False) == ""
    long = nearest("zzz", [f"name-{number}" for number in range(1000)])
    assert "1000" in long
    assert long.count("name-") == 50


def test_an_error_speaks_of_arguments_in_python_and_of_options_on_the_command_line() -> None:
    with pytest.raises(UsageError) as caught, as_usage():
        raise LongtailError("set size=8.", options={"size=8": "--size 8"})
    assert str(caught.value) == "set size=8."
    assert caught.value.for_command_line() == "set --size 8."


def test_the_command_that_resumes_can_be_pasted() -> None:
    assert resume_hint("it's here").endswith(""" 'it'"'"'s here'""")
