"""Looks at a source, the machine and the installed packages for ``--recipe auto``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from longtail.config.auto import PACKAGED, STRONG, TRANSFORMER, Facts
from longtail.config.schema import RunConfig
from longtail.data.dataset import Split
from longtail.data.decode import open_image
from longtail.errors import LongtailError
from longtail.models.timm import TIMM_PREFIX
from longtail.models.weights import cached_weights

_PROBES = 64


def look(config: RunConfig) -> Facts:
    """Read the source of a configuration and see what there is to train with.

    Raises:
        LongtailError: The source cannot be read.
    """
    from longtail.data.sources.huggingface import reachable
    from longtail.device import accelerator_name
    from longtail.models.weights import packaged_weights
    from longtail.training.engine import Engine
    from longtail.training.prepare import prepare_data, read_source

    # Folds are alike, and a few images that cannot be read decide nothing: looking for them is left to the run.
    each_fold = config.data.folds and config.data.fold is None
    one = replace(config.data, fold=0) if each_fold else config.data
    prepared = prepare_data(one, source=read_source(config.data, hand_on=True))
    train = prepared.data.splits["train"]
    device = Engine(config.training).device
    return Facts(
        images=len(train), classes=prepared.counts.num_classes, imbalance_ratio=prepared.counts.imbalance_ratio,
        side=_median_side(train), gpu=accelerator_name(device),
        packaged=packaged_weights(PACKAGED.removeprefix(TIMM_PREFIX)) is not None, hub=reachable(),
        cached=frozenset(name for name in {PACKAGED, STRONG, TRANSFORMER, config.model.name} if _is_cached(name)),
    )  # fmt: skip


def _is_cached(name: str) -> bool:
    return name.startswith(TIMM_PREFIX) and cached_weights(name.removeprefix(TIMM_PREFIX)) is not None


def _median_side(split: Split) -> int:
    """Median of the shorter sides of some images, in pixels; images that cannot be read are left to the loader."""
    rows = np.unique(np.linspace(0, len(split) - 1, _PROBES).astype(np.int64))
    sides = []
    for _, stored in split.select(rows).scan():
        source = stored["bytes"] if stored["bytes"] is not None else stored["path"]
        try:
            with open_image(source or b"") as image:
                sides.append(min(image.size))
        except LongtailError:
            continue
    return int(np.median(sides)) if sides else 0
