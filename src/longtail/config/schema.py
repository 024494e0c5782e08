"""The typed configuration of a run: plain dataclasses, read from YAML and the command line in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Augmentation = Literal["none", "flip", "crop", "crop-flip", "random-resized-crop"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Policy = Literal["none", "auto-augment", "rand-augment"]
Tracker = Literal["none", "tensorboard", "mlflow", "wandb", "trackio"]
Mixing = Literal["none", "mixup", "cutmix", "remix", "cmo", "feature-mixup"]

EXECUTION = frozenset(
    {
        "out", "workers", "resident_gigabytes", "cache", "checkpoint_steps", "device", "compile", "compile_mode",
        "channels_last", "validate_every", "evaluation_batch", "tracker", "tracker_project", "record_dynamics",
        "reasons", "keep_checkpoints",
    }
)  # fmt: skip
"""Options that say where, why and how fast a run went, not what it computed."""


@dataclass
class DataConfig:
    """Where the images come from and how they become a training, validation and test split.

    Attributes:
        source: SOURCE as on the command line, for example ``folder:photos`` or ``cifar100``.
        image_column: Column that holds the image; found by its name when not given.
        label_column: Column that holds the label; found by its name when not given.
        split_column: Column that says train, validation or test; found by its name and values when not given.
        group_column: Rows that share a value of this column stay on one side of every split.
        imbalance_ratio: Cut the training split to this ratio of largest to smallest class; None keeps all.
        imbalance_profile: Shape of the cut.
        subset_seed: Seed of the cut.
        validation_fraction: Share of the training images carved out for validation when the source has no such split.
        test_fraction: Share carved out for testing when the source has no test split.
        split_seed: Seed of both carvings, and of the folds.
        folds: Divide the training images into so many folds, each the test split of one run; 0 makes none.
        fold: The fold that is the test split of this run, from 0 up; ``longtail train --folds`` trains all of them.
        image_size: Side of the square network input in pixels.
        resize: Length of the shorter side before the centre crop; image_size when not given.
        interpolation: How pixels in between are made up when an image is scaled.
        mean: Per-channel mean of RGB in [0, 1] that is subtracted.
        std: Per-channel standard deviation of RGB in [0, 1] that is divided by.
        augmentation: Random changes to a training image.
        crop_padding: Zero pixels around the image before a random crop.
        policy: Strong changes of colour and shape after crop and flip: AutoAugment's learned pairs, or RandAugment.
        policy_operations: Changes per image of RandAugment.
        policy_magnitude: Strength of RandAugment's changes, 0 to 30.
        cutout: Side in pixels of the square that is blanked out of each training image; 0 blanks none.
        many: A class with more training images than this is many-shot.
        few: A class with fewer training images than this is few-shot.
        groups: Shot groups by those thresholds, or by thirds of the classes.
        skip_unreadable: Decode every image before training and leave out, with a count, those that cannot be; else the
            first of them stops the run.
        workers: Processes that decode images when the data set does not fit in memory; by default one a core.
        resident_gigabytes: Decode once and keep in memory up to this size, all splits together; None means half of the
            free memory.
        cache: Keep the decoded images of such a set on disk too, for the next run and for runs beside this one.
    """

    source: str = ""
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    imbalance_ratio: float | None = None
    imbalance_profile: Literal["exponential", "step", "pareto"] = "exponential"
    subset_seed: int = 0
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    folds: int = 0
    fold: int | None = None
    image_size: int = 32
    resize: int | None = None
    interpolation: Interpolation = "bicubic"
    mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    augmentation: Augmentation = "none"
    crop_padding: int = 4
    policy: Policy = "none"
    policy_operations: int = 2
    policy_magnitude: int = 9
    cutout: int = 0
    many: int = 100
    few: int = 20
    groups: Literal["threshold", "thirds"] = "threshold"
    skip_unreadable: bool = False
    workers: int | None = None
    resident_gigabytes: float | None = None
    cache: bool = True


@dataclass
class ModelConfig:
    """The network: a backbone by name and the classifier on top.

    Attributes:
        name: ``resnet20``, ``resnet32``, ``resnet44``, ``resnet56``, ``plain-cnn`` or ``timm:NAME``; the ending
            ``+bottleneck`` adds one new bottleneck block (the Places-LT protocol).
        head: Classifier; ``auto`` takes the one the loss of stage 1 is defined on.
        pretrained: Start a timm backbone from its published weights.
        weights: RUN folder (or its ``stage1``) whose weights training starts from; its classifier too where that is of
            the same kind and for the same classes.
        trainable: Parts of the backbone that stage 1 trains, by module name; empty means all of it.
        adapter: Train low-rank adapters in the attention and MLP layers of a transformer, not the layers themselves.
        adapter_rank: Rank of the adapters.
    """

    name: str = "resnet32"
    head: Literal["auto", "linear", "cosine"] = "auto"
    pretrained: bool = False
    weights: str = ""
    trainable: list[str] = field(default_factory=list)
    adapter: Literal["none", "lora"] = "none"
    adapter_rank: int = 8


@dataclass
class LossConfig:
    """A loss by its registered name, with its keyword options.

    Attributes:
        name: Registered name, for example ``gcl``; ``longtail recipes`` shows which exist.
        options: Keyword arguments of the loss, for example ``{scale: 30, noise: 0.5}``.
    """

    name: str = "cross-entropy"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptimizerConfig:
    """The optimiser.

    Attributes:
        name: Which one.
        lr: Peak learning rate.
        momentum: Momentum of SGD.
        weight_decay: L2 penalty (SGD) or decoupled decay (AdamW).
        nesterov: Nesterov momentum.
        layer_decay: Learning rate of each layer of a timm backbone as a multiple of that of the layer above it; None
            trains all at the same rate.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    nesterov: bool = False
    layer_decay: float | None = None


@dataclass
class ScheduleConfig:
    """How the learning rate moves over the epochs of a stage.

    Attributes:
        name: ``multistep`` multiplies by ``factors[i]`` after ``milestones[i]`` epochs; ``cosine`` falls to zero.
        warmup_epochs: Linear warm-up: epoch e (from 0) runs at ``lr * (e + 1) / warmup_epochs``.
        milestones: Epochs after which a factor applies, rising.
        factors: Learning rate as a multiple of the peak, one per milestone.
    """

    name: Literal["constant", "multistep", "cosine"] = "constant"
    warmup_epochs: int = 0
    milestones: list[int] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)


@dataclass
class StageConfig:
    """One pass of the training loop: what is trained, on which draws, with which loss and schedule.

    Attributes:
        epochs: Epochs; 0 leaves the stage out.
        batch_size: Images per optimiser step, over all processes together.
        sampler: ``shuffle`` (every image once an epoch) or a re-balancing strategy.
        train: ``all`` parameters, the ``classifier`` on a frozen backbone, or one ``scales`` per class (LWS).
        reset_classifier: Start the classifier anew instead of from the stage before (cRT).
        cached_views: Train a classifier on features computed once for this many augmented views of each image; 0 passes
            every batch through the backbone.
        mixing: Mix images of a batch; ``feature-mixup`` mixes features instead, where ``cached_views`` are trained on.
        mixing_alpha: Parameter of the Beta distribution that mixing draws from.
        loss: The loss.
        optimizer: The optimiser.
        schedule: The learning-rate schedule.
    """

    epochs: int = 0
    batch_size: int = 64
    sampler: str = "shuffle"
    train: Literal["all", "classifier", "scales"] = "all"
    reset_classifier: bool = False
    cached_views: int = 0
    mixing: Mixing = "none"
    mixing_alpha: float = 1.0
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


@dataclass
class TrainingConfig:
    """Options of the loop that change speed or robustness, not the method.

    Attributes:
        seed: Seeds the initial weights, the order of images, augmentation and noise.
        precision: Arithmetic of the network; ``auto`` is bf16 where the hardware multiplies in it, else fp32.
        accumulation: Parts a batch is split into, for networks that do not fit.
        clip_norm: Largest L2 norm of the gradient; None leaves it alone.
        ema_decay: Keep an exponential moving average of the weights and evaluate that; None does not.
        compile: Pass network and loss through torch.compile.
        compile_mode: Its mode; ``reduce-overhead`` replays CUDA graphs on a GPU.
        channels_last: Memory layout of images and convolutions.
        validate_every: Measure the validation split every this many epochs (it is always measured at the end).
        evaluation_batch: Images at a time when nothing is trained, fewer where they do not fit; as many as are fastest
            when not given.
        checkpoint_steps: Also save every this many steps; 0 saves at the end of each epoch only.
        keep_checkpoints: Keep the checkpoints of a finished run, which are no longer needed.
        record_dynamics: Also write the gradient on each class's logit and the spread of p_y, epoch by epoch.
        device: ``auto`` takes the accelerator where there is one.
        tracker: Also log the epochs to this experiment tracker, where it is installed.
        tracker_project: Project (experiment) of that tracker.
    """

    seed: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    accumulation: int = 1
    clip_norm: float | None = None
    ema_decay: float | None = None
    compile: bool = False
    compile_mode: Literal["default", "reduce-overhead", "max-autotune"] = "default"
    channels_last: bool = True
    validate_every: int = 10
    evaluation_batch: int | None = None
    checkpoint_steps: int = 0
    keep_checkpoints: bool = False
    record_dynamics: bool = False
    device: Literal["auto", "cpu"] = "auto"
    tracker: Tracker = "none"
    tracker_project: str = "longtail"


@dataclass
class RunConfig:
    """Everything a run is made from; ``config.yaml`` of a run holds exactly this.

    Attributes:
        recipe: Name of the recipe the values started from.
        mode: How much of the network it trained, one of :data:`longtail.config.modes.MODES`; empty for a protocol.
        reasons: Why ``--recipe auto`` chose what it chose, a sentence each.
        data: Images and splits.
        model: Network.
        stage1: Representation learning.
        stage2: Classifier retraining on the frozen backbone; ``epochs: 0`` leaves it out.
        training: The loop.
    """

    recipe: str = ""
    mode: str = ""
    reasons: list[str] = field(default_factory=list)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    stage1: StageConfig = field(default_factory=lambda: StageConfig(epochs=1))
    stage2: StageConfig = field(default_factory=lambda: StageConfig(train="classifier"))
    training: TrainingConfig = field(default_factory=TrainingConfig)
