"""Losses for long-tailed recognition: functions of logits, targets and class counts that need only torch and numpy."""

from __future__ import annotations

from longtail.losses.agcl import AngularGCLLoss
from longtail.losses.balanced_softmax import BalancedSoftmaxLoss
from longtail.losses.base import LongTailLoss
from longtail.losses.class_balanced import ClassBalancedLoss, WeightedLoss
from longtail.losses.cross_entropy import CrossEntropyLoss
from longtail.losses.drw import DeferredReweighting
from longtail.losses.fbl import FBLoss
from longtail.losses.focal import FocalLoss
from longtail.losses.gcl import FeatureNoiseLoss, GCLLoss
from longtail.losses.kps import KPSLoss
from longtail.losses.ldam import LDAMLoss
from longtail.losses.logit_adjustment import LogitAdjustedLoss
from longtail.losses.registry import LOSSES, build_loss

__all__ = [
    "LOSSES",
    "AngularGCLLoss",
    "BalancedSoftmaxLoss",
    "ClassBalancedLoss",
    "CrossEntropyLoss",
    "DeferredReweighting",
    "FBLoss",
    "FeatureNoiseLoss",
    "FocalLoss",
    "GCLLoss",
    "KPSLoss",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "LongTailLoss",
    "WeightedLoss",
    "build_loss",
]
