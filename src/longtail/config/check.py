"""Validate a RunConfig before any data is read or written: names, and options that have to fit together."""

from __future__ import annotations

from longtail.config.schema import DataConfig, LossConfig, ModelConfig, RunConfig, ScheduleConfig, StageConfig
from longtail.errors import UsageError, as_usage, nearest


def check_config(config: RunConfig) -> None:
    """Check names and options that have to fit together; types and ranges are those of the schema.

    Raises:
        UsageError: A loss, sampler or network is unknown, no stage has any epochs, or options do not fit together.

    Example:
        >>> check_config(RunConfig(data=DataConfig(image_size=32, resize=8)))
        Traceback (most recent call last):
        longtail.errors.UsageError: --data.resize must be at least --data.image_size, 32, which is cut out of it, got 8.
    """
    _check_data(config.data)
    training = config.training
    if training.compile and training.compile_mode != "default" and training.accumulation > 1:
        raise UsageError(
            "--training.accumulation cannot be used with CUDA graphs, which write every part's gradient to the same "
            "place: set --training.compile_mode default."
        )
    _check_model(config.model, config.mode)
    head: str = config.model.head
    for number, stage in config.stages.items():
        head = _check_stage(f"stage{number}", stage, head, config.model)
    if not config.stages:
        raise UsageError("no stage has any epochs: set --stage1.epochs or --stage2.epochs above 0.")
    for number, stage in config.stages.items():
        check_schedule(stage.schedule, f"--stage{number}.schedule")


def _check_data(data: DataConfig) -> None:
    if data.folds == 1:
        raise UsageError("--data.folds must be at least 2, or 0 for none, got 1.")
    if data.resize is not None and data.resize < data.image_size:
        raise UsageError(
            f"--data.resize must be at least --data.image_size, {data.image_size}, which is cut out of it, "
            f"got {data.resize}."
        )
    if data.fold is not None and data.fold >= data.folds:
        raise UsageError(
            f"--data.fold {data.fold} is one of --data.folds {data.folds}, counted from 0: name a lower one, or set "
            "--data.folds."
        )
    if data.few > data.many + 1:
        raise UsageError(
            f"--data.few must be at most --data.many, {data.many}, plus 1, or a class is in two groups, got {data.few}."
        )


def _check_model(model: ModelConfig, mode: str) -> None:
    from longtail.models.backbones import check_network
    from longtail.models.timm import TIMM_PREFIX

    with as_usage():
        check_network(model.name)
    if model.pretrained and not model.weights and not model.name.startswith(TIMM_PREFIX):
        flag = f"--mode {mode}" if mode else "--model.pretrained true"
        raise UsageError(
            f"{flag} starts from published weights, and {model.name!r} has none: name a timm: network with "
            f"--model.name, or train with {'--mode scratch' if mode else '--model.pretrained false'}."
        )


def check_weights(config: RunConfig) -> None:
    """Make sure that a new run finds the published weights it starts from, before an image is read.

    Raises:
        LongtailError: They are neither on this machine nor within reach.

    Example:
        >>> check_weights(RunConfig())
    """
    from longtail.models.timm import require_weights

    if config.model.pretrained and not config.model.weights:
        require_weights(config.model.name, adapters=config.model.adapter != "none")


def _check_stage(name: str, stage: StageConfig, head: str, model: ModelConfig) -> str:
    """Check one stage; return the classifier it leaves to the next one."""
    from longtail.data.samplers import SAMPLERS

    if stage.sampler not in SAMPLERS:
        raise UsageError(f"--{name}.sampler is unknown, {stage.sampler!r}.{nearest(stage.sampler, SAMPLERS)}")
    _check_layers(name, stage, model)
    if stage.optimizer.nesterov and stage.optimizer.momentum == 0:
        raise UsageError(f"--{name}.optimizer.nesterov needs momentum: set --{name}.optimizer.momentum above 0.")
    _check_views(name, stage)
    needed = _check_loss(name, stage.loss)
    if head == "auto":
        return needed
    if needed == "cosine" and head == "linear":
        raise UsageError(
            f"the loss {stage.loss.name!r} of {name} is defined on a cosine classifier, but the model has a linear "
            "one: train with --model.head cosine."
        )
    return head


def _check_layers(name: str, stage: StageConfig, model: ModelConfig) -> None:
    if stage.optimizer.layer_decay is not None and not model.name.startswith("timm:"):
        raise UsageError(f"--{name}.optimizer.layer_decay needs a timm: network, not {model.name!r}: leave it out.")
    if model.adapter != "none" and not model.name.startswith("timm:"):
        raise UsageError(f"--model.adapter {model.adapter} needs a timm: transformer, not {model.name!r}.")
    if model.adapter != "none" and stage.optimizer.layer_decay is not None:
        raise UsageError(f"--model.adapter trains no layer itself: leave --{name}.optimizer.layer_decay out.")


def _check_views(name: str, stage: StageConfig) -> None:
    if stage.cached_views and stage.train == "all":
        raise UsageError(
            f"--{name}.cached_views needs a frozen backbone: set --{name}.train classifier (or scales), or leave it 0."
        )
    if stage.cached_views and stage.mixing not in {"none", "feature-mixup"}:
        raise UsageError(
            f"--{name}.cached_views trains on features, where images can no longer be mixed: set --{name}.mixing none "
            f"or feature-mixup, or --{name}.cached_views 0 to train through the backbone."
        )
    if stage.mixing == "feature-mixup" and not stage.cached_views:
        raise UsageError(f"--{name}.mixing feature-mixup mixes stored features: set --{name}.cached_views above 0.")


def _check_loss(name: str, loss: LossConfig) -> str:
    """Check the name, the options and their values; return the classifier that the loss is defined on."""
    from longtail.losses import build_loss

    # The real class counts are not known yet; weights, one per class, are checked when they are.
    options = {key: value for key, value in loss.options.items() if key != "weight"}
    with as_usage():
        built = build_loss(loss.name, [2, 1], options)
    if options.get("reduction", "mean") != "mean":
        raise UsageError(f"--{name}.loss.options.reduction must be 'mean' to train, got {options['reduction']!r}.")
    return built.head


def check_schedule(schedule: ScheduleConfig, where: str) -> None:
    """Check that milestones and factors fit together.

    Raises:
        UsageError: They do not.

    Example:
        >>> check_schedule(ScheduleConfig("multistep", milestones=[3]), "--stage1.schedule")
        Traceback (most recent call last):
        longtail.errors.UsageError: --stage1.schedule needs one factor per milestone, got 1 milestones and 0 factors.
    """
    milestones, factors = schedule.milestones, schedule.factors
    if len(milestones) != len(factors):
        raise UsageError(
            f"{where} needs one factor per milestone, got {len(milestones)} milestones and {len(factors)} factors."
        )
    if list(milestones) != sorted(milestones):
        raise UsageError(f"{where}.milestones must rise, got {milestones}.")
