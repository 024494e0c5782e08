"""A trained model on disk: ``model.json`` describes it, ``model.safetensors`` has the weights; nothing is unpickled."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

import torch
from pydantic import AfterValidator, Field, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from longtail.counts import ClassCounts
from longtail.data.class_names import normalize_class_name
from longtail.device import named_device
from longtail.errors import LongtailError, resume_hint
from longtail.evaluation.posthoc import Adjustment
from longtail.files import write_atomically, write_json
from longtail.models import LongTailModel, build_model
from longtail.models.backbones import TimmBackbone
from longtail.models.preprocessing import Finite, Preprocessing
from longtail.run.layout import CONFIG_FILE, MODEL_FILE, WEIGHTS_FILE, fold_name, require_folder
from longtail.validation import read_json

MODEL_FORMAT: Final = 1
MAX_CLASSES: Final = 1_000_000
"""A file from a stranger cannot make us allocate more than this allows, before its weights have been seen to fit."""


@dataclass(frozen=True)
class ModelSpec:
    """The two names a model is built from.

    Attributes:
        name: The backbone, as :func:`longtail.models.build_backbone` takes it.
        head: The head, as :func:`longtail.models.build_head` takes it.
    """

    name: str
    head: str


@dataclass(frozen=True)
class ModelInfo:
    """The contents of ``model.json``: all that turns the weights into a classifier of images.

    Attributes:
        model: The names of backbone and head.
        classes: Class names in label order, length C.
        counts: Training images per class, length C.
        preprocessing: Steps from an image to the input of the network.
        logit_scale: Factor of the logits before softmax.
        adjustment: Post-hoc adjustment in its place, once ``longtail adjust`` has chosen it; or None.
        prior: The mix of classes that the probabilities assume without the adjustment, which has one of its own.
        threshold: Probability of the predicted class, in [0, 1], below which the model is not sure; None if not chosen.
        recipe: The recipe's name, or empty.
        versions: Versions of the libraries that made it.
        format_version: The layout of the file.
    """

    model: ModelSpec
    classes: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    counts: tuple[Annotated[int, Field(ge=0, le=2**53)], ...]
    preprocessing: Preprocessing
    logit_scale: Finite = 1.0
    adjustment: Adjustment | None = None
    prior: Literal["train", "uniform"] = "train"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    recipe: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = MODEL_FORMAT

    def scores(self, logits: Tensor) -> Tensor:
        """Return what softmax turns into probabilities, (N, C), for the network's logits (N, C)."""
        return logits.float() * self.logit_scale if self.adjustment is None else self.adjustment.apply(logits)

    def unadjusted(self) -> ModelInfo:
        """Return the information of the model as it was trained: without adjustment and threshold."""
        return replace(self, adjustment=None, threshold=None)


def save_info(info: ModelInfo, folder: str | Path) -> None:
    """Write ``model.json`` alone, over the one that is there, whole or not at all; the weights are not touched.

    Raises:
        LongtailError: The file cannot be written; the one before stays.
    """
    write_json(Path(folder) / MODEL_FILE, asdict(info))


def load_info(folder: str | Path) -> ModelInfo:
    """Read ``model.json`` alone.

    Raises:
        LongtailError: The file is missing, damaged or of a newer format.
    """
    path = Path(folder) / MODEL_FILE
    if not path.is_file():
        raise LongtailError(f"{path} is missing: name the folder of a finished run.")
    adapter = TypeAdapter(Annotated[ModelInfo, AfterValidator(_consistent)])
    return read_json(path, adapter, "copy the run again", MODEL_FORMAT)


def _consistent(info: ModelInfo) -> ModelInfo:
    """Check what several entries of ``model.json`` say together.

    Raises:
        ValueError: They do not fit.
    """
    looks, adjustment, size = info.preprocessing, info.adjustment, len(info.classes)
    if len(info.counts) != size:
        raise ValueError("'classes' and 'counts' differ in length")
    if looks.resize is not None and looks.resize < looks.size:
        raise ValueError("'resize' should be no less than 'size'")
    if adjustment is not None:
        values = [adjustment.gain, adjustment.offset]
        if any(len(row) != size or not all(map(math.isfinite, row)) for row in values):
            raise ValueError(f"'adjustment' should hold {size} finite gains and offsets")
        shares = adjustment.prior
        if isinstance(shares, tuple) and (len(shares) != size or not all(0 < share < math.inf for share in shares)):
            raise ValueError(f"'prior' should be train, uniform or {size} positive shares")
    return info


def save_model(model: LongTailModel, info: ModelInfo, folder: str | Path) -> None:
    """Write a model and its information into a folder, each file whole or not at all.

    Args:
        model: The model, on any device.
        info: Its information; the names in it have to be the model's.
        folder: Folder for ``model.safetensors`` and ``model.json``; made if missing.

    Raises:
        ValueError: ``info`` names another model or another number of classes.
        LongtailError: The files cannot be written.
    """
    if (info.model.name, info.model.head) != (model.name, model.head_name) or len(info.classes) != model.num_classes:
        raise ValueError(
            f"{MODEL_FILE} would describe {info.model} with {len(info.classes)} classes, but the model is "
            f"{model.name!r} with a {model.head_name!r} head and {model.num_classes} classes."
        )
    save_weights(model, folder)
    save_info(info, folder)


def save_weights(model: torch.nn.Module, folder: str | Path) -> None:
    """Write ``model.safetensors`` alone.

    Raises:
        LongtailError: The file cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(Path(folder) / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))


def load_model(folder: str | Path) -> tuple[LongTailModel, ModelInfo]:
    """Read a model that :func:`save_model` wrote, in evaluation mode on the CPU. Nothing is unpickled.

    Args:
        folder: The folder of ``model.safetensors`` and ``model.json``.

    Raises:
        LongtailError: A file is missing, damaged, of a newer format, or the weights are those of another model.
    """
    info = load_info(folder)
    path = Path(folder) / WEIGHTS_FILE
    build = partial(build_model, info.model.name, len(info.classes), info.model.head, in_size=info.preprocessing.size)
    tensors = load_weights(path)
    try:
        with torch.device("meta"):  # of any size: first without memory, to see that the weights fit
            outline = build()
    except (RuntimeError, AssertionError) as error:  # timm builds anything, but not at any size
        network = f"{info.model.name} of {info.preprocessing.size} pixels"
        raise LongtailError(f"{path.parent} names a network that cannot be, {network}: copy the run again.") from error
    check_weights(outline, tensors, path)
    model = build()
    model.load_state_dict(tensors)
    return model.eval(), info


def load_run(run_dir: str | Path, *, device: torch.device | str = "cpu") -> tuple[LongTailModel, ModelInfo]:
    """Read the model of a RUN folder onto a device, in evaluation mode.

    Raises:
        LongtailError: Not a RUN folder, a run that has not finished, no such device, or any error of
            :func:`load_model`.
    """
    folder, target = require_folder(run_dir), named_device(device)
    if not (folder / MODEL_FILE).exists():
        if (folder / fold_name(0)).is_dir():
            raise LongtailError(
                f"{str(folder)!r} holds a cross-validation, which has no model of its own: name one of its folds, such "
                f"as {str(folder / fold_name(0))!r}, or train on all images without folds.",
                options={"without folds": "without --folds"},
            )
        if (folder / CONFIG_FILE).exists():
            raise LongtailError(f"The run {str(folder)!r} has not finished: continue it with: {resume_hint(folder)}")
        raise LongtailError(f"{str(folder)!r} is not a run, it has no {MODEL_FILE}: name what `longtail train` wrote.")
    model, info = load_model(folder)
    return model.to(target), info


def start_from(model: LongTailModel, counts: ClassCounts, run_dir: str | Path) -> bool:
    """Give a model the weights of a run: the backbone's, and the classifier's where it is the same.

    Classes are matched by name, whatever their order. Those without training images, on either side, may be missing on
    the other. Position embeddings of another image size are resampled.

    Args:
        model: The model, changed in place.
        counts: Its classes and their training images.
        run_dir: RUN folder.

    Returns:
        Whether the classifier was taken over as well: same kind of head, same classes.

    Raises:
        LongtailError: Another backbone, one that cannot change its image size, or any error of :func:`load_run`.
    """
    trained, info = load_run(run_dir)
    if info.model.name != model.name:
        raise LongtailError(
            f"{str(run_dir)!r} holds a {info.model.name}, not a {model.name}: set --model.name {info.model.name}."
        )
    if isinstance(trained.backbone, TimmBackbone) and isinstance(model.backbone, TimmBackbone):
        trained.backbone.resize(model.backbone.in_size)
    model.backbone.load_state_dict(trained.backbone.state_dict())
    theirs = {normalize_class_name(name): row for row, name in enumerate(info.classes)}
    mine = {normalize_class_name(name): row for row, name in enumerate(counts.names)}
    shared = [name for name in mine if name in theirs]
    others = [counts[mine[name]] for name in mine if name not in theirs]
    others += [info.counts[theirs[name]] for name in theirs if name not in mine]
    same = info.model.head == model.head_name and not any(others)
    same = same and not model.head_name.startswith("standardized-")  # it starts from the new images
    if same:
        source, target = trained.head.state_dict(), model.head.state_dict()
        for name, values in source.items():  # every tensor has one row per class
            target[name][[mine[label] for label in shared]] = values[[theirs[label] for label in shared]]
    return same


def check_weights(model: torch.nn.Module, tensors: dict[str, Tensor], where: Path | str) -> None:
    """Make sure that weights read from a file are those of this model: the same names and shapes.

    Raises:
        LongtailError: They are of another model; the message names the first difference.
    """
    in_model, in_file = (
        {name: " x ".join(map(str, value.shape)) or "one number" for name, value in values.items()}
        for values in (model.state_dict(), tensors)
    )
    for name in [*in_model, *in_file]:
        of_file, of_model = (shapes.get(name, "absent") for shapes in (in_file, in_model))
        if of_file != of_model:
            raise LongtailError(
                f"{where} holds the weights of another model ({name}: {of_file} in the file, {of_model} in the model): "
                "use the run's own file, resume with its own configuration, or train into a new folder."
            )


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of weights.

    Raises:
        LongtailError: It is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise LongtailError(f"{path} is missing: copy it from the run, or train again.") from error
    except (SafetensorError, OSError) as error:
        raise LongtailError(f"{path} is damaged or cut short ({error}): copy it again from the run.") from error
