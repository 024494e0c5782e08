"""Checks of a configuration: names, and options that have to fit together."""

from __future__ import annotations

from typing import Final

from longtail.config.build import seconds_of
from longtail.config.schema import ModelConfig, RunConfig
from longtail.config.stage import AUTO_LOSS, AUTO_SAMPLER, StageConfig, section_name
from longtail.errors import LongtailError, UsageError, as_usage, nearest

_COMPILED_SIZES: Final = 3  # with two sizes of a batch each, PyTorch compiles no more than eight graphs


def check_config(config: RunConfig) -> None:
    """Check names and options that have to fit together; types and ranges are those of the schema.

    Raises:
        UsageError: A loss, sampler or network is unknown, no stage has any epochs, or options do not fit together.

    Example:
        >>> from longtail.config.build import build
        >>> check_config(build({"data": {"image_size": 32, "resize": 8}}))
        Traceback (most recent call last):
        longtail.errors.UsageError: --data.resize must be at least --data.image_size, 32, which is cut out of it, got 8.
    """
    from longtail.models.backbones import check_network
    from longtail.models.image_sizes import check_image_size
    from longtail.models.timm import TIMM_PREFIX

    data, model, training = config.data, config.model, config.training
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
    if training.compile and training.compile_mode != "default" and training.accumulation > 1:
        raise UsageError(
            "--training.accumulation cannot be used with CUDA graphs, which write every part's gradient to the same "
            "place: set --training.compile_mode default."
        )
    _check_processes(config)
    with as_usage():
        check_network(model.name)
        for size in (data.image_size, *config.search.sizes):
            check_image_size(model.name, size)
    if model.pretrained and not model.weights and not model.name.startswith(TIMM_PREFIX):
        flag = f"--mode {config.mode}" if config.mode else "--model.pretrained true"
        raise UsageError(
            f"{flag} starts from published weights, and {model.name!r} has none: name a timm: network with "
            f"--model.name, or train with {'--mode scratch' if config.mode else '--model.pretrained false'}."
        )
    if not config.stages:
        raise UsageError("no stage has any epochs: set --stage1.epochs or --stage2.epochs above 0.")
    if list(config.stages) == [3]:
        raise UsageError("--finetune trains on after a classifier: set --stage1.epochs above 0.")
    if model.tau and not model.standardize:
        raise UsageError("--model.tau is a part of a standardized classifier: add --model.standardize true.")
    if model.standardize and not config.is_on_features_through(min(config.stages)):
        raise UsageError(
            "--model.standardize is for a classifier on stored features: leave it out, or add --mode linear."
        )
    trained = [stage.train for number, stage in config.stages.items() if number < 3]
    if trained == ["scales", "classifier"]:
        raise UsageError(
            "--stage1.train scales holds the classifier fixed, and --stage2.train classifier would train it: set "
            "--stage1.train classifier, or --stage2.epochs 0."
        )
    head: str = config.model.head
    tried = {3: config.finetune} if config.search.finetuning else {}
    for number, stage in (config.stages | tried).items():
        head = _check_stage(section_name(number), stage, head, config.model)
        if stage.image_sizes:
            _check_image_sizes(section_name(number), stage, config)


def _check_image_sizes(name: str, stage: StageConfig, config: RunConfig) -> None:
    """Check the sizes that images are scaled down to in the course of a stage."""
    from longtail.models.image_sizes import SIZE_OPTIONS, check_image_size, has_fixed_size
    from longtail.models.timm import TIMM_PREFIX

    sizes, full, model = stage.image_sizes, config.data.image_size, config.model.name.partition("+")[0]
    if max(sizes) > full:
        raise UsageError(
            f"--{name}.image_sizes scales images down from --data.image_size {full}, not up to {max(sizes)}: "
            "choose smaller ones."
        )
    if stage.cached_views:
        raise UsageError(f"--{name}.image_sizes needs images, and --{name}.cached_views trains on features: leave one.")
    if model.startswith(TIMM_PREFIX) and has_fixed_size(model.removeprefix(TIMM_PREFIX)):
        raise UsageError(f"--{name}.image_sizes needs a network that takes any size, not {model!r}: leave it out.")
    try:
        for size in set(sizes):
            check_image_size(model, size)
    except LongtailError as error:
        raise UsageError(str(error), options=dict.fromkeys(SIZE_OPTIONS, f"--{name}.image_sizes")) from error
    if config.training.compile and len(set(sizes)) > _COMPILED_SIZES:
        raise UsageError(
            f"--training.compile compiles the network for each size: give --{name}.image_sizes {_COMPILED_SIZES} "
            "different ones at most."
        )


def _check_processes(config: RunConfig) -> None:
    """Check the options for several processes."""
    training, stages = config.training, config.stages
    seconds_of(training.timeout, "--training.timeout")
    for name in ("sync_batch_norm", "exact", "shard"):
        if getattr(training, name) and training.compile:
            raise UsageError(f"--training.{name} does not go together with --training.compile: leave one of them out.")
    if training.exact and training.accumulation > 1:
        raise UsageError(
            "--training.exact counts the batch of all processes as one, and --training.accumulation divides it: leave "
            "one of them out."
        )
    if not training.shard:
        return
    hindrances = {
        "--training.ema_decay": training.ema_decay,
        "--training.precision fp16": training.precision == "fp16",
        **{
            f"--{section_name(number)}.optimizer.name muon": stage.optimizer.name == "muon"
            for number, stage in stages.items()
        },
        **{f"--{section_name(number)}.ema_decay": stage.ema_decay for number, stage in stages.items()},
        **{f"--{section_name(number)}.cached_views": stage.cached_views for number, stage in stages.items()},
        "--stage1.loss.name feature-noise": any(stage.loss.name == "feature-noise" for stage in stages.values()),
    }
    hindrance = next((option for option, value in hindrances.items() if value), None)
    if hindrance is not None:
        raise UsageError(
            f"--training.shard divides a network that is trained through its images, and {hindrance} needs it whole: "
            "leave one of them out."
        )


def _check_stage(name: str, stage: StageConfig, head: str, model: ModelConfig) -> str:
    """Check one stage; return the classifier it leaves to the next one."""
    from longtail.data.samplers import SAMPLERS
    from longtail.losses import build_loss

    if name == "finetune" and stage.train != "all":
        raise UsageError(f"--finetune.train must be all: stages 1 and 2 train the classifier alone, got {stage.train}.")
    if stage.reset_classifier and stage.train == "scales":
        raise UsageError(
            f"--{name}.reset_classifier is for a stage that trains the classifier, not its scales alone: add "
            f"--{name}.reset_classifier false, or set --{name}.train classifier."
        )
    if stage.train == "scales" and model.standardize:
        raise UsageError(
            f"--{name}.train scales does not go together with --model.standardize, whose classifier takes no scales: "
            f"set --model.standardize false, or --{name}.train classifier."
        )
    if stage.cached_views and stage.augmentation is not None:
        raise UsageError(
            f"--{name}.augmentation changes the images of a stage that trains through the backbone: set "
            f"--data.augmentation for those that features are stored of, or --{name}.cached_views 0."
        )
    if stage.sampler not in SAMPLERS and not (name == "finetune" and stage.sampler == AUTO_SAMPLER):
        raise UsageError(f"--{name}.sampler is unknown, {stage.sampler!r}.{nearest(stage.sampler, SAMPLERS)}")
    if stage.optimizer.layer_decay is not None and not model.name.startswith("timm:"):
        raise UsageError(f"--{name}.optimizer.layer_decay needs a timm: network, not {model.name!r}: leave it out.")
    if model.adapter != "none" and not model.name.startswith("timm:"):
        raise UsageError(f"--model.adapter {model.adapter} needs a timm: transformer, not {model.name!r}.")
    if model.adapter != "none" and stage.optimizer.layer_decay is not None:
        raise UsageError(f"--model.adapter trains no layer itself: leave --{name}.optimizer.layer_decay out.")
    if stage.optimizer.nesterov and stage.optimizer.momentum == 0:
        raise UsageError(f"--{name}.optimizer.nesterov needs momentum: set --{name}.optimizer.momentum above 0.")
    if stage.optimizer.sgd_lr is not None and not (stage.optimizer.name == "muon" and stage.optimizer.lr > 0):
        raise UsageError(
            f"--{name}.optimizer.sgd_lr trains classifier, biases and normalization while Muon trains the rest: set "
            f"--{name}.optimizer.name muon and --{name}.optimizer.lr above 0, or leave it out."
        )
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
    stage.schedule.check(f"--{name}.schedule")
    if stage.loss.name == AUTO_LOSS and name == "finetune":
        return head
    if stage.loss.name == AUTO_LOSS:
        if name != "stage1" or stage.train != "classifier" or not stage.cached_views:
            raise UsageError(
                f"--{name}.loss.name auto chooses a classifier on stored features, in stage 1: add --mode linear, or "
                "name a loss."
            )
        return head
    # The real class counts are not known yet; weights, one per class, are checked when they are.
    options = {key: value for key, value in stage.loss.options.items() if key != "weight"}
    with as_usage():
        needed = build_loss(stage.loss.name, [2, 1], options).head
    if options.get("reduction", "mean") != "mean":
        raise UsageError(f"--{name}.loss.options.reduction must be 'mean' to train, got {options['reduction']!r}.")
    if head == "auto":
        return needed
    if needed == "cosine" and head == "linear":
        raise UsageError(
            f"the loss {stage.loss.name!r} of {name} is defined on a cosine classifier, but the model has a linear "
            "one: train with --model.head cosine."
        )
    return head
