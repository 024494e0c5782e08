"""What a run begins with: its data described, decoded and loaded, and its network."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from longtail.config.schema import DataConfig, RunConfig
from longtail.console import Reporter
from longtail.counts import ClassCounts
from longtail.data.dataset import Split
from longtail.data.loading.loaders import Loader, ResidentBudget, SinglePassLoader, build_loader
from longtail.data.loading.workers import Decoder
from longtail.device import step_seed
from longtail.models.adapters import add_adapters
from longtail.models.model import LongTailModel, build_model
from longtail.run.model_files import start_from
from longtail.training.prepare import PreparedData


def describe_data(prepared: PreparedData, source: str, reporter: Reporter) -> None:
    """Say what there is to train on, and what was noticed about it."""
    counts, splits = prepared.counts, prepared.data.splits
    sizes = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    groups = ", ".join(f"{len(rows)} {name}" for name, rows in prepared.groups.items())
    reporter.say(
        f"{source}: {counts.num_classes} classes ({groups}), images: {sizes}, "
        f"imbalance ratio {counts.imbalance_ratio:.4g}"
    )
    for note in prepared.notes:
        reporter.say(f"note: {note}")


def make_decoder(split: Split, name: str, data: DataConfig) -> Decoder:
    """The decoder of a split, to the size that its augmentation needs."""
    # Boxes of any size are cut out of a training image, so all of it is kept; others are cut to size here.
    boxes = name == "train" and data.augmentation == "random-resized-crop"
    side = (data.resize or data.image_size) if boxes else data.image_size
    return Decoder(split, data.resize, side, data.interpolation)


def make_loaders(
    decoders: Mapping[str, Decoder], data: DataConfig, device: torch.device, reporter: Reporter, *, once: bool = False
) -> dict[str, Loader]:
    """The batches of each split, decoded at once where they fit what the splits before them have left.

    Args:
        decoders: Decoders by split.
        data: Data options of the run.
        device: Where batches go.
        reporter: Shows the progress of decoding.
        once: Whether each image is needed once, for its features: nothing is decoded now, and no pixels are kept.
    """
    if once:
        return {name: SinglePassLoader(decoder, device, data.workers) for name, decoder in decoders.items()}
    budget = ResidentBudget(device, data.resident_gigabytes)
    loaders: dict[str, Loader] = {}
    for name, decoder in decoders.items():
        with reporter.bar(f"decoding {name}", len(decoder.split)) as bar:
            loaders[name] = build_loader(
                decoder, device, workers=data.workers, budget=budget, cache=data.cache, source=data.source,
                keep_workers=name == "train", tick=bar.tick, warn=lambda text: reporter.say(f"note: {text}"),
            )  # fmt: skip
    return loaders


def make_model(config: RunConfig, counts: ClassCounts, reporter: Reporter, *, resuming: bool) -> LongTailModel:
    """The network, with published weights, those of another run, or new ones drawn from the seed of the run.

    Args:
        config: Of the run.
        counts: Of the training classes.
        reporter: Says where weights come from.
        resuming: A checkpoint will follow, so other weights are not needed.
    """
    wanted = config.model
    torch.manual_seed(step_seed(config.training.seed, 0))
    model = build_model(
        wanted.name, counts.num_classes, wanted.head,
        pretrained=wanted.pretrained and not (resuming or wanted.weights), in_size=config.data.image_size,
    )  # fmt: skip
    if wanted.adapter != "none":
        add_adapters(model.backbone, wanted.adapter_rank)
    if wanted.weights and not resuming:
        whole = start_from(model, counts, wanted.weights)
        reporter.say(f"starting from {wanted.weights}: backbone{' and classifier' if whole else ''}")
    if config.training.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
