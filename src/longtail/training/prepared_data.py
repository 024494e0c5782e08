"""The data of a run, from its configuration: splits, checked and described, and their batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from longtail.config.auto import PACKAGED, STRONG, TRANSFORMER, Facts, weighs_networks
from longtail.config.options import flatten
from longtail.config.schema import EXECUTION, DataConfig, RunConfig
from longtail.console import Reporter
from longtail.counts import ClassCounts, GroupName, IntArray
from longtail.data.audit.probe import UNREADABLE, drop_unreadable
from longtail.data.class_names import match_classes, require_known
from longtail.data.dataset import ImageData, Split
from longtail.data.decode import open_image
from longtail.data.loading.loaders import ResidentBudget, SinglePassLoader, build_loader
from longtail.data.loading.stream_loader import StreamLoader
from longtail.data.loading.workers import Decoder
from longtail.data.sources.huggingface import reachable
from longtail.data.sources.registry import load_source
from longtail.data.sources.stream import StreamedSplit
from longtail.data.splits import carve, describe_never_judged, fold_numbers, never_judged, unit_numbers
from longtail.data.square import Square
from longtail.data.subsets import cut_long_tailed
from longtail.data.transforms.augmentation import BatchTransform
from longtail.device import accelerator_name
from longtail.errors import LongtailError
from longtail.models.candidate_networks import candidate_networks
from longtail.models.timm import TIMM_PREFIX, cached_weights, packaged_weights
from longtail.training.engine import Engine, others_answering
from longtail.training.forward_pass import ImageInputs

if TYPE_CHECKING:
    import torch

_PATHS = frozenset({"data.source", "model.weights"})
"""Options that may differ between hosts: the images are compared by their hash."""
_PROBES = 64  # images whose size is looked at


@dataclass(frozen=True)
class PreparedData:
    """The splits a run uses.

    Attributes:
        data: The source with its final splits; ``validation`` and ``test`` may be absent.
        counts: Training images per class.
        groups: Class indices of the shot groups.
        notes: Notes on the data for the user, one sentence each.
        source: The source as it was read, before anything was cut or held out.
        origins: For each split of ``data``, the split of ``source`` that its images come from.
    """

    data: ImageData
    counts: ClassCounts
    groups: dict[GroupName, IntArray]
    notes: tuple[str, ...]
    source: ImageData
    origins: Mapping[str, str]

    @cached_property
    def data_hash(self) -> str:
        """Hash over the training, validation and test rows, in this order, as they are when it is first asked for."""
        # An embedded image counts by its bytes, a file by path and size.
        splits = [(name, split) for name in ("train", "validation", "test") if (split := self.split(name)) is not None]
        parts = "\n".join(f"{name} {split.fingerprint()}" for name, split in splits)
        return f"sha256:{hashlib.sha256(parts.encode()).hexdigest()}"

    @property
    def is_streamed(self) -> bool:
        """Whether the training images have no list."""
        return isinstance(self.data.splits["train"], StreamedSplit)

    @property
    def unreadable(self) -> list[str]:
        """The names of the images that were left out because they cannot be decoded."""
        return [name for finding in self.data.findings if finding.kind == UNREADABLE for name in finding.images]

    def split(self, name: str) -> Split | None:
        """Return a split by name, or None where the source has none."""
        return self.data.splits.get(name)


def read_source(config: DataConfig) -> ImageData:
    """Read the source of a configuration: its files are listed, no image is decoded.

    Example:
        >>> len(read_source(DataConfig(source="digits")).splits["train"])
        1438
    """
    return load_source(
        config.source,
        label_column=config.label_column,
        image_column=config.image_column,
        split_column=config.split_column,
    )


def without_unreadable(config: DataConfig, data: ImageData, reporter: Reporter | None = None) -> ImageData:
    """Leave out the images that cannot be decoded, where the configuration says so.

    Args:
        config: Of the run.
        data: Its source as it was read.
        reporter: Shows how many images have been tried; silent when not given.
    """
    if not config.skip_unreadable:
        return data
    with (reporter or Reporter(quiet=True)).bar("looking at images", sum(map(len, data.splits.values()))) as bar:
        square = Square(config.image_size, config.resize, config.interpolation, config.fit)
        return drop_unreadable(data, square, tick=bar.tick)


def prepare_data(
    config: DataConfig,
    reporter: Reporter | None = None,
    *,
    source: ImageData | None = None,
    classes: Sequence[str] | None = None,
) -> PreparedData:
    """Load a source and make its splits.

    The test split is held out before the training images are cut long-tailed, so it keeps the source's balance; the
    validation split is held out of what training is left with.

    Args:
        config: Of the run.
        reporter: As for :func:`without_unreadable`.
        source: The source, where it has been read already.
        classes: Class names of an earlier start of the run: the source is matched to them, so that the same images get
            the same splits and labels.

    Raises:
        LongtailError: The source cannot be read or divided, or it has images of a class that is not among
            ``classes``.

    Example:
        >>> prepared = prepare_data(DataConfig(source="digits", imbalance_ratio=10))
        >>> prepared.counts.imbalance_ratio > 9
        True
    """
    whole = source or read_source(config)
    if classes is not None:
        whole = match_classes(whole, classes)
        for split in whole.splits.values():
            require_known(whole, split, classes)
    data = without_unreadable(config, whole, reporter)
    origins = {name: "train" if name == "test" and config.folds > 1 else name for name in data.splits}
    if config.group_column is not None:
        data.splits["train"].require(config.group_column)  # also where nothing is carved: it may be misspelled

    def hold_out(split: Split, fraction: float, *, option: str) -> tuple[Split, Split]:
        groups, num_classes = config.group_column, len(data.classes)
        return carve(split, fraction, seed=config.split_seed, groups=groups, num_classes=num_classes, option=option)

    train, wanted = data.splits["train"], {"test": config.test_fraction, "validation": config.validation_fraction}
    fractions = {name: fraction for name, fraction in wanted.items() if name not in data.splits and fraction > 0}
    notes = [str(finding) if finding.severity == "warning" else finding.message for finding in data.findings]
    if config.folds > 1:
        data, fold_notes = _one_fold(config, data)
        notes += fold_notes
    elif isinstance(train, StreamedSplit) and fractions:  # both splits in one pass
        rest_of_stream, held = train.hold_out(fractions, seed=config.split_seed)
        data = data.with_splits(train=rest_of_stream, **held)
    elif "test" in fractions:
        rest, test = hold_out(train, config.test_fraction, option="--data.test_fraction")
        data = data.with_splits(train=rest, test=test)
    if "test" in fractions and config.folds <= 1:
        held_out = len(data.splits["test"])
        notes.append(f"the source has no test split: {held_out} images were held out (--data.test_fraction).")
    if config.imbalance_ratio is not None:
        cut = cut_long_tailed(
            data.splits["train"],
            len(data.classes),
            config.imbalance_ratio,
            profile=config.imbalance_profile,
            seed=config.subset_seed,
        )
        data = data.with_splits(train=cut)
    if "validation" not in data.splits and config.validation_fraction > 0:
        fraction = config.validation_fraction
        rest, validation = hold_out(data.splits["train"], fraction, option="--data.validation_fraction")
        data = data.with_splits(train=rest, validation=validation)
    counts = data.counts()
    groups = counts.groups(many=config.many, few=config.few, by=config.groups)
    origins = {name: origins.get(name, "train") for name in data.splits}  # other splits were held out from train
    return PreparedData(data, counts, groups, tuple(notes), whole, origins)


def require_trainable_stream(config: RunConfig, prepared: PreparedData) -> None:
    """Check that a run asks for nothing that streamed training images cannot give.

    Raises:
        LongtailError: The training images are streamed, and the run compares, stores features of, or pastes images.
    """
    if not prepared.is_streamed:
        return
    source, stages = config.data.source, config.stages
    if config.is_open or any(stage.cached_views for stage in stages.values()):
        raise LongtailError(
            f"the training images of {source!r} are streamed, and features of them are not stored: train through the "
            "network, with --mode finetune or --mode scratch and a method of one stage."
        )
    if any(stage.mixing == "cmo" for stage in stages.values()):
        raise LongtailError(
            f"the training images of {source!r} are streamed, and CMO pastes a second image on each: name another "
            "--stage1.mixing."
        )


def folds_of(config: DataConfig, data: ImageData) -> IntArray:
    """Return the fold of each training image, as :func:`longtail.data.splits.fold_numbers` makes them."""
    train, classes = data.splits["train"], len(data.classes)
    units = unit_numbers(train, config.group_column)
    return fold_numbers(train.labels, config.folds, seed=config.split_seed, units=units, num_classes=classes)


def _one_fold(config: DataConfig, data: ImageData) -> tuple[ImageData, list[str]]:
    """Make one fold of the training images the test split."""
    if config.fold is None:
        raise LongtailError(
            f"--data.folds {config.folds} stands for as many runs: train them with 'longtail train --folds', or name "
            "the --data.fold of this one."
        )
    whole, numbers, notes = data.splits["train"], folds_of(config, data), list[str]()
    if "test" in data.splits:
        notes.append("folds are made of the training images; the source's own test split is left untouched.")
    never = never_judged(whole.labels, numbers, data.classes)
    if never:
        notes.append(describe_never_judged(never, int((numbers >= 0).sum()), config.group_column))
    train, test = np.flatnonzero(numbers != config.fold), np.flatnonzero(numbers == config.fold)
    return data.with_splits(train=whole.select(train), test=whole.select(test)), notes


def run_facts(config: RunConfig, prepared: PreparedData) -> dict[str, str]:
    """Return hashes of everything that all processes of a run have to agree on: classes, images and configuration.

    Args:
        config: The resolved configuration.
        prepared: The data.
    """
    options = {
        key: value
        for key, value in flatten(asdict(config)).items()
        if key.rsplit(".", 1)[-1] not in EXECUTION and key not in _PATHS
    }
    counts = {name: prepared.data.counts(name).counts for name in prepared.data.splits}
    facts: dict[str, object] = {"classes": prepared.counts.names, "images of each class": counts}
    facts |= {"images": prepared.data_hash, "configuration": options}
    return {name: hashlib.sha256(json.dumps(value).encode()).hexdigest() for name, value in facts.items()}


def describe_data(prepared: PreparedData, source: str, reporter: Reporter) -> None:
    """Report the size of the data, and the notes on it."""
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
    """Return the decoder of a split, to the size that its augmentation needs."""
    # Boxes of any size are cut out of a training image, so all of it is kept; others are cut to size here.
    boxes = name == "train" and data.augmentation == "random-resized-crop"
    side = (data.resize or data.image_size) if boxes else data.image_size
    return Decoder(split, Square(side, data.resize, data.interpolation, data.fit))


def make_inputs(
    decoders: Mapping[str, Decoder], data: DataConfig, device: torch.device, reporter: Reporter, *, once: bool = False
) -> dict[str, ImageInputs]:
    """Return the images of each split as a network takes them, decoded at once where they fit the memory that is left.

    Args:
        decoders: Decoders by split.
        data: Data options of the run.
        device: Device of the batches.
        reporter: Shows the progress of decoding.
        once: Whether each image is needed once, for its features: nothing is decoded now, and no pixels are stored.
    """
    transform, budget = make_transform(data), ResidentBudget(device, data.resident_gigabytes)
    inputs: dict[str, ImageInputs] = {}
    for name, decoder in decoders.items():
        if isinstance(decoder.split, StreamedSplit):
            stream = StreamLoader(
                decoder.split, decoder.square, device, buffer=data.stream_buffer, threads=data.workers
            )
            inputs[name] = ImageInputs(stream, transform)
            continue
        if once:
            inputs[name] = ImageInputs(SinglePassLoader(decoder, device, data.workers), transform)
            continue
        with reporter.bar(f"decoding {name}", len(decoder.split)) as bar:
            loader = build_loader(
                decoder,
                device,
                workers=data.workers,
                budget=budget,
                cache=data.cache,
                source=data.source,
                keep_workers=name == "train",
                tick=bar.tick,
                warn=lambda text: reporter.say(f"note: {text}"),
            )
        inputs[name] = ImageInputs(loader, transform)
    return inputs


def make_transform(config: DataConfig) -> BatchTransform:
    """Return the batch transform of a data configuration."""
    return BatchTransform(
        tuple(config.mean),
        tuple(config.std),
        augmentation=config.augmentation,
        crop_padding=config.crop_padding,
        size=config.image_size,
        policy=config.policy,
        policy_operations=config.policy_operations,
        policy_magnitude=config.policy_magnitude,
        cutout=config.cutout,
    )


def inspect_environment(
    config: RunConfig,
    *,
    given: Collection[str] = (),
    download: bool = False,
    ask: Callable[[str], bool] | None = None,
) -> tuple[Facts, ImageData]:
    """Read the source of a configuration and look for the means of training, for ``--recipe auto``.

    Args:
        config: What the user said.
        given: Dotted names of the options that the user gave.
        download: Whether networks whose weights have to be fetched are candidates too.
        ask: Asks the user before large files are fetched, see
            :func:`~longtail.models.candidate_networks.candidate_networks`.

    Returns:
        The facts that the choice is made from, and the source, so that the run trains on what the choice was made by.

    Raises:
        LongtailError: The source cannot be read.
    """
    engine = Engine(config.training)

    def read() -> PreparedData:
        # Folds are alike, and a few images that cannot be read decide nothing: looking for them is left to the run.
        fold = 0 if config.data.is_cross_validation else config.data.fold
        return prepare_data(replace(config.data, fold=fold, skip_unreadable=False))

    with others_answering(config.training.timeout):  # whose listing may take longer than that
        prepared = engine.agree(read, lambda prepared: {"classes": " ".join(prepared.data.classes)})
    train = prepared.data.splits["train"]
    names = (PACKAGED, STRONG, TRANSFORMER, config.model.name)
    side, elongated = _look_at_shapes(train)
    gpu = accelerator_name(engine.device)
    download = download and weighs_networks(config.recipe, config.mode, gpu, given)
    facts = Facts(
        images=len(train),
        classes=prepared.counts.num_classes,
        imbalance_ratio=prepared.counts.imbalance_ratio,
        side=side,
        gpu=gpu,
        packaged=packaged_weights(PACKAGED.removeprefix(TIMM_PREFIX)) is not None,
        hub=reachable(),
        cached=frozenset(
            name for name in names if name.startswith(TIMM_PREFIX) and cached_weights(name.removeprefix(TIMM_PREFIX))
        ),
        candidates=tuple(network.name for network in candidate_networks(download=download, ask=ask)),
        elongated=elongated,
    )
    return facts, prepared.source


def _look_at_shapes(split: Split) -> tuple[int, float]:
    """Return the median of the shorter sides of some images in pixels, and the share of elongated ones.

    Those that cannot be read are left to the loader.
    """
    sizes = []
    for _, stored in split.sample(_PROBES).scan():
        image_file = stored["bytes"] if stored["bytes"] is not None else stored["path"]
        try:
            with open_image(image_file or b"") as image:
                sizes.append(sorted(image.size))
        except LongtailError:
            continue
    if not sizes:
        return 0, 0.0
    short, long = np.array(sizes).T
    return int(np.median(short)), float(np.mean(3 * long >= 4 * short))
