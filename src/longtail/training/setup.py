"""A network and the images that it is trained or judged on, made from a configuration and its splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from longtail.config.schema import RunConfig
from longtail.console import Reporter
from longtail.counts import ClassCounts
from longtail.data.dataset import Split
from longtail.device import step_seed
from longtail.models.adapters import add_adapters
from longtail.models.model import LongTailModel, build_model
from longtail.run.model_files import start_from
from longtail.training.engine import Engine
from longtail.training.forward_pass import ImageInputs
from longtail.training.frozen_features import FeatureStore
from longtail.training.prepared_data import make_decoder, make_inputs
from longtail.training.stages import head_name


@dataclass(frozen=True)
class Setup:
    """A network with its images.

    Attributes:
        model: The network, on the device of this process.
        inputs: Images by split, augmented as in training.
        features: Those of its backbone, computed when they are first asked for.
    """

    model: LongTailModel
    inputs: dict[str, ImageInputs]
    features: FeatureStore


def set_up(
    config: RunConfig,
    splits: Mapping[str, Split],
    counts: ClassCounts,
    engine: Engine,
    reporter: Reporter,
    seconds: dict[str, float],
    *,
    resuming: bool = False,
    passes: int = 0,
) -> Setup:
    """Build the network of a configuration and open its images.

    Args:
        config: Of the run.
        splits: Images by split.
        counts: Training images per class.
        engine: Device, precision, processes.
        reporter: Messages and progress bars for the user.
        seconds: The time of computing features is added to ``features``.
        resuming: Whether the weights are those of a checkpoint, so that none are loaded here.
        passes: Number of images that will be passed through the backbone, which decides what runs it; those of the
            splits when 0.
    """
    decoders = {name: make_decoder(split, name, config.data) for name, split in splits.items()}
    frozen = config.is_on_features_through(min(config.stages))
    inputs = make_inputs(decoders, config.data, engine.device, reporter, once=frozen)
    model = make_network(config, counts, reporter, resuming=resuming).to(engine.home)
    passes = passes or count_passes(config, splits)
    store = FeatureStore(engine, model, inputs, decoders, reporter, seconds, config.data, fixed=frozen, passes=passes)
    return Setup(model, inputs, store)


def count_passes(config: RunConfig, splits: Mapping[str, Split]) -> int:
    """Count the images that a run passes through its backbone: all, those of training once for each stored view."""
    views = max([1, *(stage.cached_views for stage in config.stages.values())])
    return sum(map(len, splits.values())) + (views - 1) * len(splits["train"])


def make_network(
    config: RunConfig, counts: ClassCounts, reporter: Reporter, *, resuming: bool = False
) -> LongTailModel:
    """Build a network with published weights, those of another run, or new ones drawn from the seed."""
    network = config.model
    torch.manual_seed(step_seed(config.training.seed, 0))
    model = build_model(
        network.name,
        counts.num_classes,
        head_name(network),
        pretrained=network.pretrained and not (resuming or network.weights),
        in_size=config.data.image_size,
    )
    if network.adapter != "none":
        add_adapters(model.backbone, network.adapter_rank)
    if network.weights and not resuming:
        whole = start_from(model, counts, network.weights)
        reporter.say(f"starting from {network.weights}: backbone{' and classifier' if whole else ''}")
    if config.training.channels_last:
        layout: Any = model
        layout.to(memory_format=torch.channels_last)
    return model
