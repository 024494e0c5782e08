"""What ``longtail train`` chooses by the images, in a grid: chosen once, and from then on options as any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longtail.training.auto import Facts, choose
from longtail.training.config import RunConfig
from longtail.training.facts import look
from longtail.training.recipe import ANY_IMAGES, base_config, flatten

AUTO = "auto"


def is_chosen(recipe: str, given: Mapping[str, Any]) -> bool:
    """Whether something is chosen for a run as ``longtail train`` does: it has such a recipe, and no reasons yet.

    Example:
        >>> is_chosen("images/gcl", {}), is_chosen("images/gcl", {"reasons": ["as before"]}), is_chosen("demo/gcl", {})
        (True, False, False)
    """
    return (recipe == AUTO or recipe.startswith(ANY_IMAGES)) and "reasons" not in given


def spelt_out(
    first: RunConfig, given: Mapping[str, Any], epochs: int | None, *, recipe: str | None = None,
    seen: dict[str, Facts] | None = None,
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """Look at the images of a run and say what was chosen for it.

    Args:
        first: What is known of the run: its source, and what it says of its data and device.
        given: Options that are set already, by their dotted names; nothing is chosen in their place.
        epochs: As ``--epochs`` of ``longtail train``.
        recipe: The recipe, where that is given too.
        seen: What was seen for other runs is taken from here and added, so that images are looked at once.

    Returns:
        The name of the recipe, and the options that make of it what was chosen, the reasons among them.

    Raises:
        LongtailError: The source cannot be read.

    Example:
        >>> first = RunConfig()
        >>> first.data.source = "digits"
        >>> recipe, options = spelt_out(first, {"mode": "scratch"}, 3)
        >>> recipe, options["model.name"], "mode" in options
        ('images/ce', 'resnet32', False)
    """
    mode, model, size = (given.get(key) for key in ("mode", "model.name", "data.image_size"))
    seen, key = {} if seen is None else seen, repr((first.data, first.training, first.model.name))
    if key not in seen:
        seen[key] = look(first)
    config, reasons = choose(seen[key], recipe=recipe, mode=mode, model=model, image_size=size, epochs=epochs)
    name = config["model"]["name"]
    base = flatten(base_config(config["recipe"], epochs=epochs, mode=config["mode"], model=name))
    changed = {key: value for key, value in flatten(config).items() if base.get(key) != value}
    options = {"mode": config["mode"], "model.name": name} | changed | {"reasons": reasons}
    return config["recipe"], {key: value for key, value in options.items() if key not in given}
