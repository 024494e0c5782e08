"""Models: a backbone that gives a feature vector for an image, and a head that gives a logit for a class."""

from __future__ import annotations

from longtail.models.backbones import build_backbone, last_blocks
from longtail.models.heads import CosineHead, LinearHead, ScaledHead, build_head
from longtail.models.model import LongTailModel, build_model
from longtail.models.resnet_cifar import ResNetCifar

__all__ = [
    "CosineHead",
    "LinearHead",
    "LongTailModel",
    "ResNetCifar",
    "ScaledHead",
    "build_backbone",
    "build_head",
    "build_model",
    "last_blocks",
]
