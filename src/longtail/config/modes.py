"""How much of a network is trained: its classifier alone, adapters in it, all of it, or all of it from nothing."""

from __future__ import annotations

import copy
from typing import Any

from longtail.errors import UsageError, nearest

Nested = dict[str, Any]
MODES = ("linear", "finetune", "lora", "scratch")
_COSINE = {"name": "cosine", "milestones": [], "factors": []}

# What a mode sets of stage 1 over a recipe of the family `images`.
_FIRST: dict[str, Nested] = {
    # Steps on stored features cost next to nothing, so there are many; a cosine classifier needs them.
    "linear": {
        "train": "classifier", "cached_views": 4, "epochs": 60, "batch_size": 64,
        "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 1e-2},
        "schedule": _COSINE | {"warmup_epochs": 0},
    },
    "finetune": {
        "train": "all", "epochs": 20, "batch_size": 64,
        "optimizer": {"name": "adamw", "lr": 5e-4, "weight_decay": 0.05, "layer_decay": 0.75},
        "schedule": _COSINE | {"warmup_epochs": 2},
    },
    "lora": {
        "train": "all", "epochs": 20, "batch_size": 64,
        "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-2},
        "schedule": _COSINE | {"warmup_epochs": 2},
    },
}  # fmt: skip
# Where the method has a second stage, that is the classifier on stored features in each mode.
_SECOND: Nested = {
    "cached_views": 4, "epochs": 20, "batch_size": 64,
    "optimizer": {"name": "adamw", "lr": 5e-4, "weight_decay": 1e-2},
}  # fmt: skip
_MODELS: dict[str, Nested] = {
    "linear": {"pretrained": True}, "finetune": {"pretrained": True}, "lora": {"pretrained": True, "adapter": "lora"},
}  # fmt: skip


def with_mode(config: Nested, mode: str) -> Nested:
    """Lay a mode over a configuration: what each stage trains, for how long, and with which optimiser.

    Args:
        config: Nested values of a run.
        mode: ``linear`` trains the classifier on stored features of the pretrained backbone; ``finetune`` all of the
            pretrained network, layers near the image more slowly; ``lora`` adapters in a transformer; ``scratch``
            leaves the configuration as it is.

    Raises:
        UsageError: There is no such mode.

    Example:
        >>> from longtail.config.recipes import load_recipe
        >>> linear = with_mode(load_recipe("images/gcl").config, "linear")
        >>> linear["stage1"]["train"], linear["stage1"]["mixing"], linear["model"]["pretrained"]
        ('classifier', 'feature-mixup', True)
    """
    from longtail.config.nested import merge

    if mode not in MODES:
        raise UsageError(f"there is no mode {mode!r}.{nearest(mode, MODES)}")
    if mode == "scratch":
        return copy.deepcopy(config) | {"mode": mode}
    first = _FIRST[mode]
    result = merge(config, {"mode": mode, "model": _MODELS[mode], "stage1": first})
    if result["stage2"]["epochs"] > 0:
        result["stage2"] = merge(result["stage2"], _SECOND)
        if result["stage2"]["reset_classifier"]:  # it has as far to go as in stage 1
            result["stage2"]["optimizer"]["lr"] = max(first["optimizer"]["lr"], _SECOND["optimizer"]["lr"])
    for stage in (result["stage1"], result["stage2"]):
        if stage["cached_views"]:  # images are gone by then: what can be mixed are their features
            stage["mixing"] = "none" if stage["mixing"] == "none" else "feature-mixup"
    return result


def with_model(config: Nested, name: str, image_size: int | None = None) -> Nested:
    """Put another network into a configuration, with the normalisation and image size that it was trained on.

    Args:
        config: Nested values of a run.
        name: The network.
        image_size: In place of that size, in pixels.

    Example:
        >>> from longtail.config.recipes import base_config
        >>> with_model(base_config(None), "timm:resnet18")["data"]["resize"]
        236
    """
    from longtail.config.nested import merge
    from longtail.models.timm import timm_inputs

    inputs = timm_inputs(name)
    data = {}
    if inputs is not None:
        inputs = inputs.at(image_size)
        data = {
            "image_size": inputs.size, "resize": inputs.resize, "mean": list(inputs.mean), "std": list(inputs.std),
            "interpolation": inputs.interpolation,
        }  # fmt: skip
    return merge(config, {"model": {"name": name}, "data": data})
