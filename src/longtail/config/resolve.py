"""One checked configuration of a run from a file, a recipe, automatic choices and the options that the user gave."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from functools import reduce
from pathlib import Path
from typing import Any, Final

from longtail.config.auto import AUTO, Facts, after_overrides, choose
from longtail.config.build import Document, build, with_options
from longtail.config.checks import check_config
from longtail.config.options import Nested, flatten, merge, nested
from longtail.config.recipes import ANY_IMAGES, base_config, check_recipe, scale_epochs
from longtail.config.schema import RunConfig
from longtail.config.stage import AUTO_LOSS, AUTO_SAMPLER, section_name
from longtail.errors import UsageError

# Options that are chosen automatically and stored in the config.yaml of every run, also by old versions.
_OF_A_STAGE: Final = (
    "epochs batch_size train mixing loss.name optimizer.name optimizer.lr optimizer.weight_decay schedule.name "
    "schedule.warmup_epochs"
)
_CHOSEN: Final = frozenset(
    ["recipe", "model.name", "model.pretrained"]
    + [f"data.{option}" for option in ("image_size", "resize", "mean", "std", "augmentation")]
    + [f"{stage}.{option}" for stage in ("stage1", "stage2") for option in _OF_A_STAGE.split()]
)


def resolve(
    *given: Mapping[str, Any],
    file: Document | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    facts: Facts | None = None,
) -> RunConfig:
    """Return the configuration of a run, checked and complete.

    Later ones win: the recipe in its mode or the automatic choices, the file, both scaled to ``epochs``,
    ``batch_size``, the given options. Another loss than the recipe's starts with options of its own.

    Args:
        given: Options that the user gave, by dotted names or nested, each mapping over those before it. An option that
            is named whole, such as ``stage1.loss.options``, replaces what was there.
        file: A configuration file.
        epochs: Scale everything to this many epochs of the first stage that has any.
        batch_size: Images per step, in stages 1 and 2.
        facts: What automatic choices are made from; without them, nothing is chosen.

    Raises:
        UsageError: A name is unknown, a value has the wrong type or is out of range, or options do not fit together.

    Example:
        >>> config = resolve({"recipe": "cifar-lt/gcl", "data.source": "digits"}, epochs=30)
        >>> config.stage1.epochs, config.stage2.epochs, config.model.head
        (30, 5, 'cosine')
    """
    from_file = {} if file is None else dict(file.values)
    by_name: Nested = reduce(merge, map(nested, given), {})
    if batch_size is not None:
        given = ({f"{stage}.batch_size": batch_size for stage in ("stage1", "stage2")}, *given)
    asked: Nested = reduce(merge, map(nested, given), {})
    if asked.get("stage1", {}).get("epochs") == 0:  # then epochs are those of stage 2, as where a file leaves it out
        from_file = merge(from_file, {"stage1": {"epochs": 0}})
    if file is not None and is_whole(from_file):
        for name in ("mode", "recipe"):
            if asked.get(name):
                raise UsageError(f"{file.name} sets all that --{name} would set: leave out --{name} or --config.")
        start = values = base_config(None, epochs=epochs, overlay=from_file | {"reasons": []})
    else:
        start, values = choose_start(asked, from_file, epochs, facts)
    for options in given:
        values = _lay(values, options)
        if "reasons" in options:  # a grid holds those for what it chose
            start = values
    config = build(values)
    named = flatten(merge({} if is_whole(from_file) else from_file, by_name))
    if config.is_to_be_chosen:
        _refuse_what_is_chosen(named)
    if config.finetune.image_sizes and len(config.search.sizes) > 1:
        raise UsageError(
            "--finetune.image_sizes scales images down from --data.image_size, which is still to be chosen: set that "
            "too, or leave it out."
        )
    if not (config.finetune.epochs or config.search.finetuning or "reasons" in named):
        _refuse_idle_finetuning(named)
    _refuse_idle_reset(config)
    reasons = [each if isinstance(each, str) else after_overrides(each, start, values) for each in config.reasons]
    return complete(replace(config, reasons=reasons))


_LEFT_OPEN: Final = frozenset(
    ["stage1.epochs", "stage1.batch_size", "stage1.loss.name", "stage1.train", "stage1.cached_views"]
)


def _refuse_idle_finetuning(given: Collection[str]) -> None:
    """Raise UsageError for an option of fine-tuning where nothing is fine-tuned."""
    idle = [option for option in given if option.startswith("finetune.")]
    if idle and "finetune.epochs" not in given:
        raise UsageError(
            f"--{idle[0]} has no effect, as nothing is fine-tuned: add --finetune.epochs, or leave it out."
        )


def _refuse_idle_reset(config: RunConfig) -> None:
    """Raise UsageError for a new classifier of a stage that trains all; runs that have stored one go on without it."""
    tried = {3: config.finetune} if config.search.finetuning else {}
    for number, stage in (config.stages | tried).items():
        name = section_name(number)
        if stage.reset_classifier and stage.train == "all":
            other = "" if name == "finetune" else f", or set --{name}.train classifier"
            raise UsageError(
                f"--{name}.reset_classifier has no effect on a stage that trains all of the network: set "
                f"--{name}.reset_classifier false{other}."
            )


def _refuse_what_is_chosen(given: Collection[str]) -> None:
    """Raise UsageError for an option that would have no effect, as it is chosen together with the classifier."""
    for option in given:
        if follows_from_classifier(option):
            raise UsageError(
                f"--{option} is chosen together with the classifier: leave it out, or name a method, such as "
                "--recipe images/gcl."
            )


def follows_from_classifier(option: str) -> bool:
    """Whether an option is chosen together with the classifier, where that is to be chosen.

    Example:
        >>> [follows_from_classifier(f"{stage}.batch_size") for stage in ("stage1", "stage2")]
        [False, True]
    """
    is_chosen = option.startswith(("stage1.", "stage2.")) or option in {"model.tau", "model.standardize"}
    return is_chosen and option not in _LEFT_OPEN


def draft(*given: Mapping[str, Any], file: Document | None = None) -> RunConfig:
    """Return what a user said before anything is chosen: enough to look at the images, not to train.

    Raises:
        UsageError: A name is unknown, or a value has the wrong type or is out of range.
    """
    return build(reduce(merge, map(nested, given), {} if file is None else dict(file.values)))


def is_automatic(recipe: str, file: Document | None = None) -> bool:
    """Whether network, length and batch are chosen by the images.

    Args:
        recipe: The recipe that is asked for, if any.
        file: A configuration file.

    Example:
        >>> is_automatic(""), is_automatic("images/gcl"), is_automatic("cifar-lt/gcl")
        (True, True, False)
    """
    from_file = {} if file is None else file.values
    if is_whole(from_file):
        return False
    recipe = recipe or from_file.get("recipe", "")
    return recipe in {"", AUTO} or recipe.startswith(ANY_IMAGES)


def is_whole(values: Nested) -> bool:
    """Whether a configuration sets every option that could be chosen automatically, as ``config.yaml`` of a run does.

    Such a configuration is trained unchanged. In any other, missing options are chosen as on the command line.

    Example:
        >>> is_whole(base_config("cifar-lt/ce")), is_whole({"data": {"image_size": 64}})
        (True, False)
    """
    return flatten(values).keys() >= _CHOSEN


def choose_start(asked: Nested, from_file: Nested, epochs: int | None, facts: Facts | None) -> tuple[Nested, Nested]:
    """Return the recipe or the automatic choices, and the same with a file that is not whole over it.

    Args:
        asked: The options that the user gave, of which recipe, mode, network and image size decide what is chosen.
        from_file: The options of the file.
        epochs: Epochs of stage 1 that all of it is scaled to.
        facts: What automatic choices are made from; without them, nothing is chosen.

    Raises:
        UsageError: The recipe or mode is unknown.
    """
    recipe = asked.get("recipe") or from_file.pop("recipe", "")
    mode = asked.get("mode") or from_file.pop("mode", "")
    from_file = {key: value for key, value in from_file.items() if key not in {"recipe", "mode", "reasons"}}
    recipe = "" if recipe == AUTO else recipe
    both = merge(from_file, asked)
    if recipe:
        check_recipe(recipe, both.get("data", {}).get("source", ""))
    model = both.get("model", {}).get("name")
    if facts is None or not is_automatic(recipe):
        config = base_config(recipe, epochs=epochs, mode=mode, model=model, overlay=from_file)
        return config, config
    size, first = both.get("data", {}).get("image_size"), from_file.get("stage1", {}).get("epochs")
    loss = both.get("stage1", {}).get("loss", {}).get("name", AUTO_LOSS)
    config, choices = choose(
        facts,
        recipe=recipe,
        mode=mode,
        model=model,
        image_size=size,
        epochs=None if first == 0 else epochs,
        leaves_loss_open=loss == AUTO_LOSS,
        given=flatten(both).keys(),
        time_limit=both.get("training", {}).get("time_limit"),
    )
    config["reasons"] = [asdict(choice) for choice in choices]
    if epochs is not None and first is not None:
        scaled = scale_epochs(merge(config, from_file), epochs)
        if first == 0:
            return config, scaled
        # The choices have that length already.
        of_file = flatten(scaled)
        from_file = nested({key: of_file.get(key, value) for key, value in flatten(from_file).items()})
    return config, merge(config, from_file)


def _lay(config: Nested, options: Mapping[str, Any]) -> Nested:
    """Lay options over a configuration, except recipe and mode, which it started from."""
    rest = {key: value for key, value in options.items() if key not in {"recipe", "mode"}}
    config = merge(config, nested(rest))
    for stage in ("stage1", "stage2", "finetune"):
        key = f"{stage}.loss.options"
        if key in rest:
            parts = {name.removeprefix(f"{key}."): value for name, value in rest.items() if name.startswith(f"{key}.")}
            config[stage]["loss"]["options"] = rest[key] | parts
    return config


def complete(config: RunConfig) -> RunConfig:
    """Check a configuration and return it as it is trained: ``auto`` replaced where the loss or the machine decides.

    ``model.head`` becomes the classifier that stage 1's loss is defined on, or that the loss of fine-tuning needs where
    that of stage 1 is still to be chosen; ``training.precision`` what is fast here, and a strength of a loss the number
    that :func:`longtail.losses.resolve_auto` gives for the stage. Paths of images and weights become absolute, so that
    the run can be read from any folder. A complete configuration stays as it is.

    Raises:
        UsageError: A name is unknown, or options do not fit together.

    Example:
        >>> complete(build({"stage1": {"loss": {"name": "gcl"}}})).model.head
        'cosine'
    """
    from longtail.data.sources.registry import absolute_source
    from longtail.device import fast_precision
    from longtail.losses import loss_class, resolve_auto

    check_config(config)
    options: dict[str, Any] = {"data.source": absolute_source(config.data.source)}
    if config.model.weights:
        options["model.weights"] = str(Path(config.model.weights).absolute())
    later = config.finetune.loss.name if config.finetune.epochs or config.search.finetuning else AUTO_LOSS
    if config.model.head == "auto" and not config.is_to_be_chosen:
        stage = config.stage1 if config.stage1.epochs else config.stage2
        options["model.head"] = loss_class(stage.loss.name).head
    elif config.model.head == "auto" and later != AUTO_LOSS and loss_class(later).head == "cosine":
        options["model.head"] = "cosine"  # fine-tuning goes on with the classifier that is chosen
    if config.training.precision == "auto":
        options["training.precision"] = fast_precision(config.training.device)
    for number, stage in enumerate((config.stage1, config.stage2, config.finetune), start=1):
        if stage.loss.name == AUTO_LOSS:
            continue
        options[f"{section_name(number)}.loss.options"] = resolve_auto(
            stage.loss.name, stage.loss.options, stage=number, on_features=config.is_on_features_through(number)
        )
    if config.finetune.epochs and not config.is_to_be_chosen:
        number = max(number for number in config.stages if number < 3)
        if config.finetune.loss.name == AUTO_LOSS:
            options["finetune.loss.name"] = config.stages[number].loss.name
            options["finetune.loss.options"] = options[f"stage{number}.loss.options"]
        if config.finetune.sampler == AUTO_SAMPLER:
            options["finetune.sampler"] = config.stages[number].sampler
    return with_options(config, options)
