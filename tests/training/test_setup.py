"""A network and its images, made from a configuration."""

from __future__ import annotations

from collections.abc import Callable

import torch

from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.training.engine import Engine
from longtail.training.prepared_data import prepare_data
from longtail.training.setup import set_up


def test_the_network_is_on_the_device_of_the_engine(small_config: Callable[..., RunConfig], quiet: Reporter) -> None:
    config = small_config(stage1={"epochs": 1, "train": "classifier", "cached_views": 1})
    prepared, engine = prepare_data(config.data), Engine(config.training)
    engine.device = torch.device("meta")
    setup = set_up(config, prepared.data.splits, prepared.counts, engine, quiet, {"features": 0.0})
    assert {tensor.device.type for tensor in setup.model.state_dict().values()} == {"meta"}
    assert setup.features.model is setup.model
