"""Losses for long-tailed recognition, functions of logits, targets and class counts, and the registry of their names.

They need only torch and numpy. Recipes and the command line spell a loss as :data:`LOSSES` does.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from longtail.counts import ClassCountsLike
from longtail.errors import LongtailError, nearest
from longtail.losses.agcl import AngularGCLLoss
from longtail.losses.base import CommonOptions, LongTailLoss, check_range
from longtail.losses.cross_entropy import CrossEntropyLoss, FocalLoss
from longtail.losses.fbl import FBLoss
from longtail.losses.gcl import FeatureNoiseLoss, GCLLoss
from longtail.losses.kps import KPSLoss
from longtail.losses.ldam import LDAMLoss
from longtail.losses.logit_adjustment import BalancedSoftmaxLoss, LogitAdjustedLoss
from longtail.losses.reweighting import ClassBalancedLoss, DeferredReweighting, WeightedLoss

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
    "loss_class",
    "loss_options",
    "resolve_auto",
]

LOSSES: dict[str, type[LongTailLoss]] = {
    "cross-entropy": CrossEntropyLoss,
    "weighted": WeightedLoss,
    "focal": FocalLoss,
    "class-balanced": ClassBalancedLoss,
    "ldam": LDAMLoss,
    "balanced-softmax": BalancedSoftmaxLoss,
    "logit-adjustment": LogitAdjustedLoss,
    "kps": KPSLoss,
    "fbl": FBLoss,
    "gcl": GCLLoss,
    "agcl": AngularGCLLoss,
    "feature-noise": FeatureNoiseLoss,
}

DEFERRED = "deferred_reweighting"


def loss_class(name: str) -> type[LongTailLoss]:
    """Return the class of a registered name.

    Raises:
        LongtailError: No loss has this name; the message says the nearest one.

    Example:
        >>> loss_class("gcl").__name__
        'GCLLoss'
    """
    if name not in LOSSES:
        aliases = {known: kind.aliases for known, kind in LOSSES.items()}
        raise LongtailError(f"unknown loss {name!r}.{nearest(name, LOSSES, aliases=aliases)}")
    return LOSSES[name]


def loss_options(name: str) -> dict[str, Any]:
    """Return the options of a loss with their defaults, those that :func:`build_loss` takes.

    Raises:
        LongtailError: No loss has this name.

    Example:
        >>> loss_options("ldam")["max_margin"]
        0.5
    """
    parameters = inspect.signature(loss_class(name).__init__).parameters
    method = {key: item.default for key, item in parameters.items() if item.kind is inspect.Parameter.KEYWORD_ONLY}
    method.pop("classifier", None)
    shared = inspect.signature(LongTailLoss.__init__).parameters
    return method | {key: shared[key].default for key in CommonOptions.__annotations__} | {DEFERRED: None}


def resolve_auto(name: str, options: Mapping[str, Any], *, stage: int = 1, on_features: bool = False) -> dict[str, Any]:
    """Replace every option whose value is ``auto`` by the number that the loss has for it.

    Args:
        name: Registered name of the loss.
        options: Its options.
        stage: 1 or 2.
        on_features: No stage trains the backbone.

    Raises:
        LongtailError: The option takes no ``auto``.

    Example:
        >>> resolve_auto("gcl", {"scale": "auto", "margin": 0.1})
        {'scale': 30.0, 'margin': 0.1}
        >>> resolve_auto("gcl", {"scale": "auto"}, stage=2), resolve_auto("fbl", {"strength": "auto"}, on_features=True)
        ({'scale': 20.0}, {'strength': 180.0})
    """
    values = loss_class(name).auto_values
    resolved = dict(options)
    for option, value in options.items():
        if value == "auto":
            if option not in values:
                others = ", ".join(f"{other} of {loss}" for loss, kind in LOSSES.items() for other in kind.auto_values)
                raise LongtailError(f"loss {name!r} has no value for {option}: auto; there is one for {others}.")
            resolved[option] = values[option].resolve(stage=stage, on_features=on_features)
    return resolved


def build_loss(name: str, class_counts: ClassCountsLike, options: Mapping[str, object] | None = None) -> LongTailLoss:
    """Make a loss from its name and options.

    Args:
        name: A key of ``LOSSES``.
        class_counts: Training images per class, length C.
        options: Keyword options of the loss, ``"auto"`` where its class has a value for that;
            ``deferred_reweighting``, a progress in [0, 1], wraps it in :class:`DeferredReweighting` from there on
            (``None``: not at all).

    Raises:
        LongtailError: An unknown name or option (the message says the nearest one), or a value it does not take.

    Example:
        >>> build_loss("ldam", [500, 5], {"max_margin": 0.3, "deferred_reweighting": 0.8}).start
        0.8
        >>> build_loss("gcl", [500, 5], {"nose": 0.3})
        Traceback (most recent call last):
        longtail.errors.LongtailError: loss 'gcl' has no option 'nose'. Did you mean 'noise'?
    """
    defaults = loss_options(name)
    for key in options or {}:
        if key not in defaults:
            raise LongtailError(f"loss {name!r} has no option {key!r}.{nearest(key, defaults)}")
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in (options or {}).items()}
    resolved = resolve_auto(name, plain)
    start: Any = resolved.pop(DEFERRED, None)
    maker: Any = LOSSES[name]
    try:
        loss: LongTailLoss = maker(class_counts, **resolved)
        if start is None:
            return loss
        check_range(DEFERRED, start, 0.0, 1.0)
        return DeferredReweighting(loss, class_counts, start=start)
    except (TypeError, ValueError) as error:
        raise LongtailError(f"loss {name!r}: {error}") from error
