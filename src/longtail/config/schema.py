"""The typed configuration of a run: frozen dataclasses with the range of each option, and options by dotted names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Len

from longtail.config.options import (
    Augmentation,
    Count,
    EngineName,
    Fit,
    Fraction,
    Interpolation,
    Metric,
    Mode,
    Nested,
    NotNegative,
    OptionGroup,
    Policy,
    Positive,
    Tracker,
    WholeNumber,
    groups_of,
    types_of,
)
from longtail.config.stage import AUTO_LOSS, FINETUNING, StageConfig

_EXECUTION = (
    "out workers resident_gigabytes cache checkpoint_steps device engine compile compile_mode channels_last "
    "validate_every evaluation_batch shard timeout tracker tracker_project record_dynamics reasons keep_checkpoints"
)
EXECUTION = frozenset(_EXECUTION.split())
"""Options that say where, why and how fast a run went, not what it computed."""


@dataclass(frozen=True)
class DataConfig(OptionGroup):
    """The images: their source, their division into splits, and their preprocessing.

    Attributes:
        source: SOURCE as on the command line, for example ``folder:photos`` or ``cifar100``.
        image_column: Column that holds the image; found by its name when not given.
        label_column: Column that holds the label; found by its name when not given.
        split_column: Column that says train, validation or test; found by its name and values when not given.
        group_column: Rows that share a value of this column stay on one side of every split.
        imbalance_ratio: Cut the training split to this ratio of largest to smallest class; all are kept when not given.
        imbalance_profile: Shape of the cut.
        subset_seed: Seed of the cut.
        validation_fraction: Share of the training images carved out for validation when the source has no such split.
        test_fraction: Share carved out for testing when the source has no test split.
        split_seed: Seed of both carvings, and of the folds.
        folds: Divide the training images into this many folds, each the test split of one run; 0 makes none.
        fold: The fold that is the test split of this run, from 0 up; ``longtail train --folds`` trains all of them.
        image_size: Side of the square network input in pixels.
        fit: How an image that is not square becomes one: ``crop`` keeps its center, ``pad`` keeps all of it and fills
            the rest with the color of its edges, ``stretch`` distorts it.
        resize: Length of the shorter side before the center crop; image_size when not given.
        interpolation: How pixels in between are made up when an image is scaled.
        mean: Per-channel mean of RGB in [0, 1] that is subtracted.
        std: Per-channel standard deviation of RGB in [0, 1] that is divided by.
        augmentation: Random changes to a training image.
        crop_padding: Zero pixels around the image before a random crop.
        policy: Strong changes of color and shape after crop and flip: AutoAugment's learned pairs, or RandAugment.
        policy_operations: Changes per image of RandAugment.
        policy_magnitude: Strength of RandAugment's changes, 0 to 30.
        cutout: Side in pixels of the square that is blanked out of each training image; 0 blanks none.
        many: A class with more training images than this is many-shot.
        few: A class with fewer training images than this is few-shot.
        groups: Shot groups by those thresholds, or by thirds of the classes.
        skip_unreadable: Decode every image before training and leave out, with a count, those that cannot be; else the
            first of them stops the run.
        workers: Processes that decode images when the data set does not fit in memory; by default one a core.
        resident_gigabytes: Decode once and keep in memory up to this size, all splits together; half of the free
            memory when not given.
        cache: Keep the decoded images of such a set on disk too, for the next run and for other runs at the same time.
        stream_buffer: Encoded images in memory from which those of a ``stream:`` are drawn in random order, all
            frequency bands together.
    """

    source: str = ""
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    imbalance_ratio: Annotated[float | None, Ge(1)] = None
    imbalance_profile: Literal["exponential", "step", "pareto"] = "exponential"
    subset_seed: WholeNumber = 0
    validation_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.2
    split_seed: WholeNumber = 0
    folds: WholeNumber = 0
    fold: WholeNumber | None = None
    image_size: Count = 32
    fit: Fit = "crop"
    resize: int | None = None
    interpolation: Interpolation = "bicubic"
    mean: Annotated[list[float], Len(3, 3)] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    std: Annotated[list[Positive], Len(3, 3)] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    augmentation: Augmentation = "none"
    crop_padding: WholeNumber = 4
    policy: Policy = "none"
    policy_operations: Count = 2
    policy_magnitude: Annotated[int, Ge(0), Le(30)] = 9
    cutout: WholeNumber = 0
    many: int = 100
    few: int = 20
    groups: Literal["threshold", "thirds"] = "threshold"
    skip_unreadable: bool = False
    workers: WholeNumber | None = None
    resident_gigabytes: NotNegative | None = None
    cache: bool = True
    stream_buffer: Count = 2048

    @property
    def is_cross_validation(self) -> bool:
        """Whether a run for each fold is asked for, not one run or one of them."""
        return self.folds > 0 and self.fold is None


@dataclass(frozen=True)
class ModelConfig(OptionGroup):
    """The network: a backbone by name and the classifier on top.

    Attributes:
        name: ``resnet20``, ``resnet32``, ``resnet44``, ``resnet56``, ``plain-cnn`` or ``timm:NAME``; the ending
            ``+bottleneck`` adds one new bottleneck block (the Places-LT protocol).
        head: Classifier; ``auto`` takes the one the loss of stage 1 is defined on.
        pretrained: Start a timm backbone from its published weights.
        weights: RUN folder (or its ``stage1``) whose weights training starts from; its classifier too where that is of
            the same kind and for the same classes.
        trainable: Parts of the backbone that stage 1 trains, by module name; empty means all of it.
        standardize: Standardize the features by those of the training images, and start the classifier at the mean of
            each class (cosine) or at zero (linear); where stage 1 trains on stored features.
        tau: Strength of the logit adjustment that becomes part of the standardized classifier after training.
        adapter: Train low-rank adapters in the attention and MLP layers of a transformer, not the layers themselves.
        adapter_rank: Rank of the adapters.
    """

    name: str = "resnet32"
    head: Literal["auto", "linear", "cosine"] = "auto"
    pretrained: bool = False
    weights: str = ""
    trainable: list[str] = field(default_factory=list)
    standardize: bool = False
    tau: NotNegative = 0.0
    adapter: Literal["none", "lora"] = "none"
    adapter_rank: Count = 8


@dataclass(frozen=True)
class TrainingConfig(OptionGroup):
    """Options of the loop that change speed or robustness, not the method.

    Attributes:
        seed: Seeds the initial weights, the order of images, augmentation and noise.
        precision: Arithmetic of the network; ``auto`` is bf16 where the hardware multiplies in it, else fp32.
        accumulation: Parts a batch is split into, for networks that do not fit.
        clip_norm: Largest L2 norm of the gradient; not limited when not given.
        ema_decay: Keep an exponential moving average of the weights with this decay, and evaluate that.
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
        engine: What runs a network that is not trained: PyTorch, or OpenVINO, on CPUs; ``auto`` is OpenVINO where it is
            installed and knows the network.
        metric: What a classifier is chosen by where the loss of stage 1 is ``auto``.
        time_limit: Seconds that the whole command may take, from which the search before the run takes its share; not
            limited when not given.
        sync_batch_norm: Normalize batches by the statistics of all processes together, not by those of each.
        exact: Draw mixing partners and noise, and average weighted labels, over the batch of all processes together, as
            one process does; slower, since each process then gets all of a batch that is mixed.
        shard: Divide weights, gradients and the state of the optimizer among the processes while they train.
        timeout: Longest wait of one of several processes for the others, such as 10m or 90s: then it ends.
        tracker: Also log the epochs to this experiment tracker, where it is installed.
        tracker_project: Project (experiment) of that tracker.
    """

    seed: WholeNumber = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    accumulation: Count = 1
    clip_norm: Positive | None = None
    ema_decay: Fraction | None = None
    compile: bool = False
    compile_mode: Literal["default", "reduce-overhead", "max-autotune"] = "default"
    channels_last: bool = True
    validate_every: WholeNumber = 10
    evaluation_batch: Count | None = None
    checkpoint_steps: WholeNumber = 0
    keep_checkpoints: bool = False
    record_dynamics: bool = False
    device: Literal["auto", "cpu"] = "auto"
    engine: EngineName = "auto"
    metric: Metric = "balanced"
    time_limit: Positive | None = None
    sync_batch_norm: bool = False
    exact: bool = False
    shard: bool = False
    timeout: str = "10m"
    tracker: Tracker = "none"
    tracker_project: str = "longtail"


@dataclass(frozen=True)
class SearchConfig(OptionGroup):
    """What is compared on a sample of the training images before anything is trained; empty once it is decided.

    Attributes:
        networks: Pretrained networks. Of one or none, ``model.name`` is taken.
        sizes: Image sizes in pixels, the smallest first; those that the time limit does not allow are left out. Of one
            or none, ``data.image_size`` is taken.
        fits: Ways to make an image square. Of one or none, ``data.fit`` is taken.
        finetuning: Try to train the whole network too, where the time limit leaves enough.
        from_nothing: A network that is tried without published weights next to that, where images are tiny.
        images: Most training images of the sample; every class has some.
    """

    networks: list[str] = field(default_factory=list)
    sizes: list[Count] = field(default_factory=list)
    fits: list[Fit] = field(default_factory=list)
    finetuning: bool = False
    from_nothing: str = ""
    images: Count = 2000


ChosenBy = Literal["auto", "user", "recipe"]


@dataclass(frozen=True)
class Choice(OptionGroup):
    """A value that was chosen for a run.

    Attributes:
        option: Dotted name of the option, one of :data:`longtail.config.auto.TOPICS`.
        value: Its value.
        reason: Why, as a clause; empty where the user chose.
        by: Who chose: the table of automatic choices, the user, or the recipe, whose length stays as it is.
    """

    option: str
    value: str | int
    reason: str = ""
    by: ChosenBy = "auto"


@dataclass(frozen=True)
class RunConfig(OptionGroup):
    """Everything a run is made from; ``config.yaml`` of a run holds exactly this.

    Attributes:
        recipe: Name of the recipe that the values start from; chosen by the images when not given.
        mode: How much of the network is trained; empty where the recipe says so.
        reasons: What ``--recipe auto`` chose and why; those of earlier versions are sentences.
        data: Images and splits.
        model: Network.
        stage1: Representation learning.
        stage2: Classifier retraining on the frozen backbone; ``epochs: 0`` leaves it out.
        finetune: A third stage, which trains all of the network from there; ``epochs: 0`` leaves it out.
        training: The loop.
        search: What is compared before anything is trained.
    """

    recipe: str = ""
    mode: Mode = ""
    reasons: list[Choice | str] = field(default_factory=list)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    stage1: StageConfig = field(default_factory=lambda: StageConfig(epochs=1))
    stage2: StageConfig = field(default_factory=lambda: StageConfig(train="classifier"))
    finetune: StageConfig = field(default_factory=lambda: FINETUNING)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    search: SearchConfig = field(default_factory=SearchConfig)

    @property
    def stages(self) -> dict[int, StageConfig]:
        """The stages that have epochs, by number.

        Example:
            >>> list(RunConfig().stages)
            [1]
        """
        stages = enumerate((self.stage1, self.stage2, self.finetune), start=1)
        return {number: stage for number, stage in stages if stage.epochs > 0}

    @property
    def last_stage(self) -> StageConfig:
        """The stage that leaves the final network."""
        return self.stages[max(self.stages)]

    @property
    def is_on_features(self) -> bool:
        """Whether every stage trains on stored features, so that the backbone stays as it is throughout."""
        return self.is_on_features_through(max(self.stages, default=0))

    def is_on_features_through(self, number: int) -> bool:
        """Whether every stage up to one, and at least one, trains on stored features.

        Args:
            number: Of the last stage that counts.

        Example:
            >>> config = RunConfig(stage1=StageConfig(1, train="classifier", cached_views=1), finetune=StageConfig(1))
            >>> [config.is_on_features_through(number) for number in (1, 2, 3)], config.is_on_features
            ([True, True, False], False)
        """
        stages = [stage for index, stage in self.stages.items() if index <= number]
        return bool(stages) and all(stage.train != "all" and stage.cached_views > 0 for stage in stages)

    def with_reasons(self, told: Mapping[str, tuple[str | int, str]]) -> RunConfig:
        """Return the configuration with another value and reason for some of its choices.

        Args:
            told: Value and reason by option.

        Example:
            >>> config = RunConfig(reasons=[Choice("mode", "linear", "fast")])
            >>> config.with_reasons({"mode": ("scratch", "it won")}).reasons
            [Choice(option='mode', value='scratch', reason='it won', by='auto')]
        """
        reasons = list[Choice | str]()
        for each in self.reasons:
            value, reason = ("", "") if isinstance(each, str) else told.get(each.option, (each.value, each.reason))
            reasons.append(each if isinstance(each, str) else replace(each, value=value, reason=reason))
        return replace(self, reasons=reasons)

    @property
    def is_to_be_chosen(self) -> bool:
        """Whether the classifier is still to be chosen, on the features of the training images."""
        return self.stage1.loss.name == AUTO_LOSS

    @property
    def is_open(self) -> bool:
        """Whether anything is still to be chosen before the run: classifier, network, image size, fit."""
        search = self.search
        several = any(len(values) > 1 for values in (search.networks, search.sizes, search.fits))
        return self.is_to_be_chosen or several or search.finetuning


def defaults() -> Nested:
    """Return the default of every option."""
    return asdict(RunConfig())


@cache
def option_types() -> Mapping[str, Any]:
    """Return the type of every option, with its range, by dotted name.

    Example:
        >>> option_types()["stage1.optimizer.lr"]
        typing.Annotated[float, Ge(ge=0)]
    """
    return {
        prefix + name: kind
        for prefix, group in groups_of(RunConfig).items()
        for name, kind in types_of(group).items()
        if not is_dataclass(kind)
    }
