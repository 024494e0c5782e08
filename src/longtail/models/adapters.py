"""Low-rank adapters (LoRA) in a transformer, through ``peft``: a few weights a layer train, the rest stays."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from longtail.device import prepare_torchvision
from longtail.errors import LongtailError

TARGETS = ("qkv", "proj", "fc1", "fc2", "query", "key", "value", "q", "k", "v")  # of timm's transformer blocks


def add_adapters(backbone: nn.Module, rank: int) -> None:
    """Add an adapter to every linear layer of the attention and MLP blocks; the layers themselves are frozen.

    References:
        [1] Hu et al., LoRA: low-rank adaptation of large language models, ICLR 2022.

    Args:
        backbone: A vision transformer of timm, changed in place. The adapters start at zero: the features are
            the same as before.
        rank: Rank r of the update; its scale ``alpha / r`` is 1.

    Raises:
        LongtailError: peft is not installed, or there is no such layer.
    """
    prepare_torchvision()  # peft imports transformers, and that torchvision
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise LongtailError("--model.adapter lora needs peft: pip install 'longtail[lora]'.") from error
    names = {name.rsplit(".", 1)[-1] for name, layer in backbone.named_modules() if isinstance(layer, nn.Linear)}
    targets = sorted(names.intersection(TARGETS))
    if not targets:
        raise LongtailError(
            "--model.adapter lora is for transformers, and this network has no attention layers: name a timm:vit_... "
            "network, or train with --mode finetune."
        )
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), backbone)


def train_only_adapters(backbone: nn.Module) -> None:
    """Freeze all parameters of a backbone except its adapters."""
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_("lora_" in name)


def merge_adapters(model: nn.Module) -> Any:
    """Return a copy of a model whose adapters are added into the layers they are on: an ordinary network again.

    A model without adapters is returned as it is.
    """
    if not any(hasattr(layer, "merge") for layer in model.modules()):
        return model
    whole = copy.deepcopy(model)
    for name, layer in list(whole.named_modules()):
        if hasattr(layer, "merge") and hasattr(layer, "get_base_layer"):
            layer.merge()
            parent, _, attribute = name.rpartition(".")
            setattr(whole.get_submodule(parent), attribute, layer.get_base_layer())
    return whole
