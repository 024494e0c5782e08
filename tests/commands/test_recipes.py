"""`longtail recipes`: the list, and one recipe as a configuration with the source of each value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longtail.config.recipes import list_recipes, load_recipe

Call = Callable[..., Any]


def test_recipes_lists_each_with_its_method_on_one_line_of_a_terminal(cli: Call) -> None:
    lines = cli("recipes").out.splitlines()
    assert [line.split()[0] for line in lines] == list_recipes()
    assert [line.split(maxsplit=1)[1] for line in lines] == [load_recipe(name).description for name in list_recipes()]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_is_printed_in_full_with_the_source_of_each_value(cli: Call, name: str) -> None:
    result = cli("recipes", name)
    recipe = load_recipe(name)
    first, *rest = result.out.splitlines()
    assert first == f"# {name}: {recipe.description}"
    if recipe.paper:
        assert rest.pop(0) == f"# {recipe.paper}"
    printed = {line.split(": ", 1)[0]: line for line in rest}
    assert {"stage1.epochs", "stage2.epochs", "data.mean", "model.name", "training.precision"} <= printed.keys()
    for key, line in printed.items():
        assert line.endswith(f"  # {recipe.source_of(key)}")
    assert f"stage1.epochs: {recipe.config['stage1']['epochs']} " in result.out


def test_what_recipes_prints_is_a_configuration_that_gives_the_same_run(cli: Call, tmp_path: Path) -> None:
    import yaml

    for line in cli("recipes", "cifar-lt/gcl").out.splitlines():
        values = yaml.safe_load(line)
        assert values is None or len(values) == 1
