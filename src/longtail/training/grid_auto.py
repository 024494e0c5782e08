"""The recipe ``auto`` in a grid: chosen once for a source, and from then on a recipe with options as any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longtail.training.auto import choose
from longtail.training.config import RunConfig
from longtail.training.facts import look
from longtail.training.recipe import base_config, flatten

AUTO = "auto"


def spelt_out(first: RunConfig, given: Mapping[str, Any], epochs: int | None) -> tuple[str, dict[str, Any]]:
    """Look at the images of a run and say what was chosen for it.

    Args:
        first: What is known of the run: its source, and what it says of its data and device.
        given: Options that are set already, by their dotted names; nothing is chosen in their place.
        epochs: As ``--epochs`` of ``longtail train``.

    Returns:
        The name of the recipe, and the options that make of it what was chosen.

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
    config, _ = choose(look(first), mode=mode, model=model, image_size=size, epochs=epochs)
    name = config["model"]["name"]
    base = flatten(base_config(config["recipe"], epochs=epochs, mode=config["mode"], model=name))
    changed = {key: value for key, value in flatten(config).items() if base.get(key) != value}
    options = {"mode": config["mode"], "model.name": name} | changed
    return config["recipe"], {key: value for key, value in options.items() if key not in given}
