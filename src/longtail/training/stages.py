"""Stage 1 and stage 2 as two runs of one loop: from a stage's configuration to the Pass that the engine trains."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from longtail.config.schema import DataConfig, ModelConfig, OptimizerConfig, StageConfig
from longtail.counts import ClassCounts
from longtail.data.loading.loaders import Batch, Loader
from longtail.data.samplers import EpochSampler, build_sampler
from longtail.data.transforms import mixing
from longtail.data.transforms.augmentation import Augment, BatchTransform
from longtail.device import can_fuse, step_seed
from longtail.errors import LongtailError
from longtail.losses.base import LongTailLoss
from longtail.losses.registry import build_loss
from longtail.models.adapters import train_only_adapters
from longtail.models.model import LongTailModel
from longtail.run.checkpoint import TrainingState, load_weights
from longtail.training.engine import Engine
from longtail.training.gradient_recorder import Recorder
from longtail.training.train_epoch import Mixer, Pass


def make_transform(config: DataConfig) -> BatchTransform:
    """Return the batch transform of a data configuration."""
    return BatchTransform(
        tuple(config.mean), tuple(config.std),
        augmentation=config.augmentation, crop_padding=config.crop_padding, size=config.image_size,
        policy=config.policy, policy_operations=config.policy_operations, policy_magnitude=config.policy_magnitude,
        cutout=config.cutout,
    )  # fmt: skip


def make_loss(stage: StageConfig, counts: ClassCounts, model: LongTailModel) -> LongTailLoss:
    """Build the loss of a stage and check that it fits the classifier.

    Raises:
        LongtailError: Unknown loss or option, or a cosine loss on a linear classifier.
    """
    loss = build_loss(stage.loss.name, counts, stage.loss.options)
    if loss.head == "cosine" and not model.head_name.endswith("cosine"):
        raise LongtailError(
            f"the loss {stage.loss.name!r} is defined on a cosine classifier, but this model has a "
            f"{model.head_name} one: train with --model.head cosine."
        )
    if loss.may_be_empty:
        loss.count_empty_as_zero()  # a batch may hold nothing but such labels
    if loss.needs_classifier:
        loss.attach_classifier(model.head)
    return loss


def make_mixer(stage: StageConfig, counts: ClassCounts, device: torch.device) -> Mixer | None:
    """Return the mixing of a stage, or None."""
    classes, alpha, there = counts.num_classes, stage.mixing_alpha, counts.tensor(device)

    def mix(batch: Batch, other: Batch | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        images, labels = batch.images, batch.labels
        if other is not None:
            return mixing.cmo(images, labels, other.images, other.labels, classes, alpha, generator)
        if stage.mixing == "remix":
            return mixing.remix_by(there, images, labels, alpha, generator)
        plain = mixing.cutmix if stage.mixing == "cutmix" else mixing.mixup  # feature-mixup: mixup of features (N, D)
        return plain(images, labels, classes, alpha, generator)

    return None if stage.mixing == "none" else mix


def set_trainable(model: LongTailModel, stage: StageConfig, config: ModelConfig) -> None:
    """Freeze what a stage does not train.

    Args:
        model: The network, changed in place.
        stage: ``train`` says all, classifier or scales.
        config: Of the network: which parts of the backbone stage 1 trains, and whether it has adapters.
    """
    if stage.train == "all":
        if config.trainable:
            model.freeze_backbone(keep=config.trainable)
        else:
            model.unfreeze_backbone()
        if config.adapter != "none":
            train_only_adapters(model.backbone)
        return
    model.freeze_backbone()
    if stage.train == "scales":
        model.add_logit_scales()
    if stage.reset_classifier:
        head: Any = model.head
        head.reset_parameters()


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """The trainable parameters in one group; with ``layer_decay``, in groups of falling learning rate.

    References:
        [1] Clark et al., ELECTRA, ICLR 2020: layer-wise learning-rate decay; as timm implements it.

    Example:
        >>> [len(group["params"]) for group in parameter_groups(nn.Linear(2, 2), OptimizerConfig())]
        [2]
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.layer_decay is None:
        return [{"params": trainable}]
    from timm.optim import param_groups_layer_decay

    backbone: Any = model.get_submodule("backbone")
    layers = param_groups_layer_decay(
        backbone.trunk, weight_decay=config.weight_decay, layer_decay=config.layer_decay, verbose=False
    )
    below = {parameter for group in layers for parameter in group["params"]}
    above = [parameter for parameter in trainable if parameter not in below]
    return [*layers, {"params": above, "lr_scale": 1.0, "weight_decay": config.weight_decay}]


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimiser over the trainable parameters.

    Example:
        >>> make_optimizer(OptimizerConfig(lr=0.5), nn.Linear(2, 2)).param_groups[0]["lr"]
        0.5
    """
    groups = parameter_groups(model, config)
    fused = can_fuse(parameter for group in groups for parameter in group["params"])
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov,
        fused=fused,
    )  # fmt: skip


def build_pass(
    engine: Engine,
    stage: StageConfig,
    index: int,
    *,
    model: LongTailModel,
    counts: ClassCounts,
    labels: Any,
    loader: Loader,
    transform: Augment,
    network: nn.Module | None = None,
) -> tuple[Pass, EpochSampler]:
    """Put together what one stage trains, and the sampler of its epochs.

    Args:
        engine: Device, precision, processes.
        stage: The stage's configuration; the model is frozen accordingly already.
        index: 1 or 2.
        model: The network, on the device.
        counts: Training images per class.
        labels: Labels of the training split, shape (N,).
        loader: Batches of the training split.
        transform: Augmentation and normalisation.
        network: What is called in each step, where that is not the whole model but a part of it.
    """
    seed = engine.config.seed
    loss = make_loss(stage, counts, model).to(engine.device)
    optimizer = make_optimizer(stage.optimizer, model)
    wrapped, prepared = engine.prepare(model if network is None else network, optimizer)
    draw = partial(build_sampler, labels=labels, class_counts=counts, rank=engine.rank, world_size=engine.world_size)
    sampler = draw(stage.sampler, seed=step_seed(seed, index, 2))
    pasted = draw("class-balanced", seed=step_seed(seed, index, 3)) if stage.mixing == "cmo" else None
    work = Pass(
        engine=engine, model=model, wrapped=wrapped, loss=loss, criterion=engine.compiled(loss), optimizer=prepared,
        loader=loader, transform=transform, mixer=make_mixer(stage, counts, engine.device), pasted=pasted,
        batch_size=stage.batch_size, epochs=stage.epochs, seed=(seed, index),
    )  # fmt: skip
    return work, sampler


class MovingAverage:
    """An exponential moving average of a network's weights.

    Args:
        model: The network that is trained.
        decay: What stays of the average at each step, in (0, 1), once it has risen to that.

    Attributes:
        updates: How often it was updated in this stage.
    """

    def __init__(self, model: LongTailModel, decay: float) -> None:
        from longtail.models.timm import prepare_torchvision

        prepare_torchvision()
        from timm.utils.model_ema import ModelEmaV3

        self.model = model
        # The decay rises from 0: else a short run would average in the weights that it began with.
        self.timm = ModelEmaV3(model, decay=decay, use_warmup=True)
        self.updates = 0

    @property
    def network(self) -> LongTailModel:
        """The network with the averaged weights."""
        return cast("LongTailModel", self.timm.module)

    def update(self) -> None:
        """Take in the weights after a step."""
        self.updates += 1
        self.timm.update(self.model, step=self.updates)


def make_average(model: LongTailModel, decay: float | None, state: TrainingState | None) -> MovingAverage | None:
    """Begin an average, or go on with that of a checkpoint.

    Args:
        model: The network that is trained.
        decay: Of the average; there is none for None.
        state: A checkpoint of this stage, if it goes on.
    """
    if decay is None:
        return None
    average = MovingAverage(model, decay)
    if state is not None:
        load_weights(average.network, state.take("average"), "the averaged model")
        average.updates = int(state.values["updates"])
    return average


def attach_recorder(work: Pass, sums: Tensor | None = None) -> Recorder:
    """Give a stage a recorder.

    Args:
        work: The stage; its ``recorder`` is set.
        sums: Of the steps that its first epoch has behind it, of all processes together.
    """
    loss, engine = work.loss, work.engine
    recorder = Recorder(
        engine.device, loss.num_classes,
        scale=loss.logit_scale, mean=loss.reduction == "mean", scaler=engine.accelerator.scaler,
    )  # fmt: skip
    recorder.start(sums if engine.is_main else None)
    work.recorder = recorder
    return recorder
