"""The stages of a run: where each begins, what it trains with, and the class prior that it leaves."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from longtail.config.options import Mixing
from longtail.config.schema import ModelConfig, RunConfig
from longtail.config.stage import StageConfig, section_name
from longtail.counts import ClassCounts
from longtail.data.samplers import class_probabilities
from longtail.data.transforms import mixing
from longtail.device import step_seed
from longtail.errors import LongtailError
from longtail.losses import LongTailLoss, build_loss
from longtail.models.adapters import train_only_adapters
from longtail.models.depthwise import with_fast_depthwise
from longtail.models.model import LongTailModel
from longtail.training.engine import Engine, LocalEngine
from longtail.training.forward_pass import TrainingInputs
from longtail.training.loop import Labeled, Mixer, StageRun
from longtail.training.optimizers import make_optimizer
from longtail.training.sharding import divide


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
    fit_loss(loss, model.head)
    return loss


def fit_loss(loss: LongTailLoss, head: nn.Module) -> None:
    """Prepare a new loss for training: batches whose labels do not count, and the classifier that it may read."""
    if loss.may_be_empty:
        loss.count_empty_as_zero()
    if loss.needs_classifier:
        loss.attach_classifier(head)


def share_noise(loss: LongTailLoss, engine: LocalEngine) -> None:
    """Let a loss draw its noise for the rows of all processes, of which each takes its own."""
    for part in loss.modules():
        wraps_another = any(isinstance(child, LongTailLoss) for child in part.children())
        if isinstance(part, LongTailLoss) and not wraps_another:  # that one draws
            part.sample_noise = engine.drawn_for_all(part.sample_noise)  # type: ignore[method-assign, assignment]


def head_name(config: ModelConfig) -> str:
    """Return the name of the head of a network, as :func:`longtail.models.build_head` takes it.

    Example:
        >>> head_name(ModelConfig(head="cosine", standardize=True))
        'standardized-cosine'
    """
    kind = "linear" if config.head == "auto" else config.head  # auto: until the loss is chosen
    return f"standardized-{kind}" if config.standardize else kind


def make_mixer(name: Mixing, alpha: float, counts: ClassCounts) -> Mixer | None:
    """Return the mixing of a stage, or None.

    Args:
        name: Which one; ``feature-mixup`` is mixup of features (N, D).
        alpha: Parameter of the Beta distribution that it draws from.
        counts: Training images per class.
    """
    classes = counts.num_classes

    def mix(batch: Labeled, other: Labeled | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if other is not None:
            return mixing.cmo(*batch, *other, classes, alpha, generator)
        if name == "remix":
            return mixing.remix(*batch, counts, alpha, generator)
        return (mixing.cutmix if name == "cutmix" else mixing.mixup)(*batch, classes, alpha, generator)

    return None if name == "none" else mix


def set_trainable(model: LongTailModel, stage: StageConfig, config: ModelConfig) -> None:
    """Freeze what a stage does not train.

    Args:
        model: The network, changed in place.
        stage: ``train`` says all, classifier or scales.
        config: Of the network: which parts of the backbone are trained with it, and whether it has adapters.
    """
    model.freeze_batch_norm(stage.freeze_batch_norm)
    if stage.train == "all":
        model.head.requires_grad_(True)
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


def build_stage(
    engine: Engine,
    stage: StageConfig,
    index: int,
    *,
    model: LongTailModel,
    counts: ClassCounts,
    inputs: TrainingInputs[Any],
    network: nn.Module | None = None,
) -> StageRun:
    """Assemble one stage for the training loop.

    Args:
        engine: Device, precision, processes.
        stage: The stage's configuration; the model is frozen accordingly already.
        index: 1, 2 or 3.
        model: The network, on the device; where training is divided, in host memory, and the stage has a copy.
        counts: Training images per class.
        inputs: Images or features of the training split.
        network: The part of the model that is called in each step, where that is not the whole model.
    """
    seed, training = engine.config.seed, engine.config
    if engine.device.type == "cpu":
        with_fast_depthwise(model.backbone)
    loss = make_loss(stage, counts, model).to(engine.device)
    if engine.is_exact:
        share_noise(loss, engine)
    if engine.is_divided:
        model = divide(model, engine.device)
    wrapped, optimizer = engine.prepare(network or model, make_optimizer(stage.optimizer, model))
    draw = partial(
        inputs.sampler,
        class_counts=counts,
        num_samples=max(1, round(stage.epoch_share * sum(counts))),
        rank=engine.rank,
        world_size=engine.world_size,
    )
    remedies = [f"a lower --{section_name(index)}.optimizer.lr"]
    remedies += ["--training.clip_norm 1"] if training.clip_norm is None else []
    remedies += ["--training.precision fp32"] if training.precision != "fp32" else []
    return StageRun(
        engine=engine,
        model=model,
        network=wrapped,
        loss=loss,
        criterion=engine.compiled(loss),
        optimizer=optimizer,
        inputs=inputs,
        sampler=draw(stage.sampler, seed=step_seed(seed, index, 2)),
        batch_size=stage.batch_size,
        epochs=stage.epochs,
        learning_rate=partial(stage.schedule.learning_rate, stage.optimizer.lr, epochs=stage.epochs),
        seed=(seed, index),
        index=index,
        mixer=make_mixer(stage.mixing, stage.mixing_alpha, counts),
        mixing_until=stage.mixing_until,
        image_sizes=tuple(stage.image_sizes),
        pasted=draw("class-balanced", seed=step_seed(seed, index, 3)) if stage.mixing == "cmo" else None,
        remedy=f"the last good checkpoint is kept: train with {' or '.join(remedies)}",
    )


def trained_prior(config: RunConfig, counts: ClassCounts) -> Literal["train", "uniform"]:
    """Return the mix that the probabilities of a finished run assume, by its last stage; see :func:`assumed_prior`."""
    return assumed_prior(config.last_stage, counts, tau=config.model.tau)


def assumed_prior(stage: StageConfig, counts: ClassCounts, tau: float = 0.0) -> Literal["train", "uniform"]:
    """Return which of two mixes is nearer to the one that a stage's network comes to assume.

    A network trained with cross-entropy learns the probabilities of the mix it sees: how often a class is drawn,
    times the weight its images have in the loss, both at the end of the stage. A loss that adjusts its logits by
    the prior (:attr:`~longtail.losses.LongTailLoss.prior_exponent`) takes ``pi^tau`` out of that. The answer is
    ``"uniform"`` where the mix follows the training images with an exponent below one half, as with class-
    balanced draws, inverse weights, or ``tau = 1``. Losses with margins (LDAM, KPS, FBL, GCL) change the
    probabilities in ways no mix of classes describes; they count by draws and weights alone.

    Args:
        stage: The last stage that has epochs.
        counts: Training images per class.
        tau: Strength of a logit adjustment after training, which takes ``pi^tau`` out as well.

    Example:
        >>> assumed_prior(StageConfig(), ClassCounts([90, 10]))
        'train'
        >>> assumed_prior(StageConfig(sampler="class-balanced"), ClassCounts([90, 10]))
        'uniform'
    """
    loss = build_loss(stage.loss.name, counts, stage.loss.options)
    loss.progress = 1.0
    strategy = "instance" if stage.sampler == "shuffle" else stage.sampler
    draws = class_probabilities(counts.at_least_one.astype(np.int64), strategy, progress=1.0).numpy()
    weights = torch.stack([loss.mean_divisor(torch.tensor([label])) for label in range(loss.num_classes)])
    weights = weights.clamp_min(torch.finfo(torch.float32).tiny).double()  # above zero
    log_prior = np.log(counts.prior)
    mix = np.log(draws) + np.log(weights.numpy()) - (loss.prior_exponent + tau) * log_prior
    spread = np.var(log_prior)
    if spread == 0:  # the two are one
        return "train"
    # With its sign: a loss that balances, adjusted once more, assumes a mix with the tail in front.
    exponent = np.mean((mix - mix.mean()) * (log_prior - log_prior.mean())) / spread
    # Of square-root draws it is one half up to rounding, in one direction or the other.
    return "uniform" if exponent < 0.5 - 1e-6 else "train"
