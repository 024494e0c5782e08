"""longtail recipes: their list, or one in full."""

from __future__ import annotations

import json
from typing import Annotated

from longtail.commands.output import print_line


def recipes(name: Annotated[str, "NAME"] | None = None) -> None:
    """List the recipes, or print one in full with the source of each value.

    Args:
        name: a recipe to print in full
    """
    from longtail.config.options import flatten
    from longtail.config.recipes import list_recipes, load_recipe

    if name is None:
        every = [load_recipe(each) for each in list_recipes()]
        width = max(len(recipe.name) for recipe in every)
        for recipe in every:
            print_line(f"{recipe.name:<{width}}  {recipe.description}")
        return
    recipe = load_recipe(name)
    print_line(f"# {recipe.name}: {recipe.description}", style="bold")
    if recipe.paper:
        print_line(f"# {recipe.paper}")
    values = {key: value for key, value in flatten(recipe.config).items() if key != "recipe"}
    lines = {key: f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()}
    width = min(max(map(len, lines.values())), 60)
    for key, line in lines.items():
        print_line(f"{line:<{width}}  # {recipe.source_of(key)}")
