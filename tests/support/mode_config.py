"""Configurations of a tiny network in every mode, on the digits."""

from __future__ import annotations

from typing import Any

from longtail.config.build import build
from longtail.config.options import merge
from longtail.config.recipes import base_config
from longtail.config.resolve import complete
from longtail.config.schema import RunConfig
from longtail.device import prepare_torchvision

prepare_torchvision()

SMALL = {"image_size": 32, "resize": 32, "augmentation": "flip"}


def mode_config(method: str, mode: str, network: str = "timm:test_resnet", **overrides: Any) -> RunConfig:
    """A tiny network of timm on the digits, without published weights."""
    values = base_config(f"images/{method}", epochs=2, mode=mode, model=network)
    tiny = {
        "data": {"source": "digits", "imbalance_ratio": 20} | SMALL,
        "model": {"pretrained": False},
        "training": {"precision": "fp32"},
    }
    return complete(build(merge(merge(values, tiny), overrides)))
