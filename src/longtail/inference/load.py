"""A trained model on disk: model.safetensors with the weights, model.json with what is needed to use them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from longtail.data.augmentation import BatchTransform
from longtail.errors import LongtailError, resume_hint
from longtail.files import write_atomically
from longtail.inference.adjustment import Adjustment
from longtail.models import LongTailModel, build_model

FORMAT_VERSION: Final = 1
WEIGHTS_NAME: Final = "model.safetensors"
INFO_NAME: Final = "model.json"
Value = TypeVar("Value")


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
class Preprocessing:
    """How an image becomes the network's input at test time.

    Attributes:
        size: Height and width of the input.
        mean: Mean that is subtracted from each of red, green and blue, on a scale of 0 to 1.
        std: What each of them is then divided by.
        resize: The shorter side before the centre crop; None means ``size``.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None

    def normalise(self, images: Tensor) -> Tensor:
        """Return the network's input, float32, for uint8 images of shape (N, 3, H, W): what training did.

        Example:
            >>> white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
            >>> Preprocessing(size=1, mean=(0.5,) * 3, std=(0.25,) * 3).normalise(white).flatten().tolist()
            [2.0, 2.0, 2.0]
        """
        return BatchTransform(self.mean, self.std).normalize(images)


@dataclass(frozen=True)
class ModelInfo:
    """What ``model.json`` holds: all that turns the weights into a classifier of images.

    Attributes:
        model: The names of backbone and head.
        classes: Class names in label order, length C.
        counts: Training images per class, length C.
        preprocessing: How an image becomes the network's input.
        logit_scale: What multiplies the logits before softmax.
        adjustment: What is done to them instead, once ``longtail adjust`` has chosen it; or None.
        recipe: The recipe's name, or empty.
        versions: Versions of the libraries that made it.
        format_version: The layout of the file.
    """

    model: ModelSpec
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    preprocessing: Preprocessing
    logit_scale: float = 1.0
    adjustment: Adjustment | None = None
    recipe: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def scores(self, logits: Tensor) -> Tensor:
        """Return what softmax turns into probabilities, (N, C), for the network's logits (N, C)."""
        return logits.float() * self.logit_scale if self.adjustment is None else self.adjustment.apply(logits)

    def to_json(self) -> str:
        """Return the text of ``model.json``."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """Read the text of ``model.json``.

        Raises:
            ValueError: Something is missing or of the wrong kind; the message names it.
        """
        data = _typed(json.loads(text), dict, "the file")
        model, preprocessing = _get(data, "model", dict), _get(data, "preprocessing", dict)
        resize = preprocessing.get("resize")
        if len(_get(data, "classes", list)) != len(_get(data, "counts", list)):
            raise ValueError("'classes' and 'counts' differ in length")
        return cls(
            model=ModelSpec(name=_get(model, "name", str), head=_get(model, "head", str)),
            classes=tuple(_typed(name, str, "classes") for name in _get(data, "classes", list)),
            counts=tuple(_typed(count, int, "counts") for count in _get(data, "counts", list)),
            preprocessing=Preprocessing(
                size=_get(preprocessing, "size", int),
                mean=tuple(float(value) for value in _get(preprocessing, "mean", list)),
                std=tuple(float(value) for value in _get(preprocessing, "std", list)),
                resize=None if resize is None else _typed(resize, int, "resize"),
            ),
            logit_scale=float(data.get("logit_scale", 1.0)),
            adjustment=_adjustment(data.get("adjustment"), len(data["classes"])),
            recipe=str(data.get("recipe", "")),
            versions={str(key): str(value) for key, value in dict(data.get("versions", {})).items()},
            format_version=_get(data, "format_version", int),
        )


def save_model(model: LongTailModel, info: ModelInfo, folder: str | Path) -> None:
    """Write a model and its information into a folder, each file whole or not at all.

    Args:
        model: The model, on any device.
        info: Its information; the names in it have to be the model's.
        folder: Where to write ``model.safetensors`` and ``model.json``; made if missing.

    Raises:
        ValueError: ``info`` names another model or another number of classes.
        LongtailError: The files cannot be written.
    """
    if (info.model.name, info.model.head) != (model.name, model.head_name) or len(info.classes) != model.num_classes:
        raise ValueError(
            f"model.json would describe {info.model} with {len(info.classes)} classes, but the model is "
            f"{model.name!r} with a {model.head_name!r} head and {model.num_classes} classes."
        )
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(Path(folder) / WEIGHTS_NAME, save(tensors, metadata={"format": "pt"}))
    write_atomically(Path(folder) / INFO_NAME, info.to_json().encode())


def load_model(folder: str | Path) -> tuple[LongTailModel, ModelInfo]:
    """Read a model that :func:`save_model` wrote, in evaluation mode on the CPU. Nothing is unpickled.

    Args:
        folder: The folder of ``model.safetensors`` and ``model.json``.

    Raises:
        LongtailError: A file is missing, damaged, of a newer format, or the weights are those of another model.
    """
    info = load_info(folder)
    path = Path(folder) / WEIGHTS_NAME
    model = build_model(
        info.model.name, len(info.classes), info.model.head, pretrained=False, in_size=info.preprocessing.size
    )
    tensors = _load_weights(path)
    check_weights(model, tensors, path)
    model.load_state_dict(tensors)
    return model.eval(), info


def load_info(folder: str | Path) -> ModelInfo:
    """Read ``model.json`` alone.

    Raises:
        LongtailError: The file is missing, damaged or of a newer format.
    """
    path = Path(folder) / INFO_NAME
    try:
        text = path.read_text(encoding="utf-8")
        version = json.loads(text).get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise LongtailError(
                f"{path} has format {version}, this longtail reads up to {FORMAT_VERSION}: update longtail."
            )
        return ModelInfo.from_json(text)
    except LongtailError:
        raise
    except OSError as error:
        raise LongtailError(f"{path} cannot be read ({error.strerror}): name the folder of a finished run.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise LongtailError(f"{path} is not a model.json of longtail ({error}): copy the run again.") from error


def load_run(run_dir: str | Path, *, device: torch.device | str = "cpu") -> tuple[LongTailModel, ModelInfo]:
    """Read the model of a RUN folder onto a device, in evaluation mode.

    Raises:
        LongtailError: Not a RUN folder, a run that has not finished, or any error of :func:`load_model`.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise LongtailError(f"There is no run {str(folder)!r}: name the folder that `longtail train --out` wrote.")
    if not (folder / INFO_NAME).exists():
        if (folder / "config.yaml").exists():
            raise LongtailError(f"The run {str(folder)!r} has not finished: continue it with: {resume_hint(folder)}")
        raise LongtailError(f"{str(folder)!r} is no run, it holds no {INFO_NAME}: name what `longtail train` wrote.")
    model, info = load_model(folder)
    return model.to(device), info


def start_from(model: LongTailModel, classes: Sequence[str], run_dir: str | Path) -> bool:
    """Give a model the weights of a run: the backbone's, and the classifier's where it is the same.

    Args:
        model: The model, changed in place.
        classes: Its class names.
        run_dir: RUN folder.

    Returns:
        Whether the classifier was taken over as well: same kind of head, same classes in the same order.

    Raises:
        LongtailError: Another backbone, or any error of :func:`load_run`.
    """
    trained, info = load_run(run_dir)
    if info.model.name != model.name:
        raise LongtailError(
            f"{str(run_dir)!r} holds a {info.model.name}, not a {model.name}: set --model.name {info.model.name}."
        )
    model.backbone.load_state_dict(trained.backbone.state_dict())
    same = info.model.head == model.head_name and tuple(info.classes) == tuple(classes)
    if same:
        model.head.load_state_dict(trained.head.state_dict())
    return same


def check_weights(model: torch.nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Make sure that weights read from a file are those of this model: the same names and shapes.

    Raises:
        LongtailError: They are of another model; the message names the first difference.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            raise LongtailError(
                f"{path} holds the weights of another model ({name}: {_shape(found, name)} in the file, "
                f"{_shape(expected, name)} in the model): use the run's own file, or a fresh --out folder."
            )


def _shape(shapes: dict[str, tuple[int, ...]], name: str) -> str:
    return " x ".join(map(str, shapes[name])) or "one number" if name in shapes else "absent"


def _load_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise LongtailError(f"{path} is missing: copy it from the run, or train again.") from error
    except (SafetensorError, OSError) as error:
        raise LongtailError(f"{path} is damaged or cut short ({error}): copy it again from the run.") from error


def _adjustment(data: Any, classes: int) -> Adjustment | None:
    if data is None:
        return None
    values = _typed(data, dict, "adjustment")
    gain, offset = (tuple(float(value) for value in _get(values, key, list)) for key in ("gain", "offset"))
    if not len(gain) == len(offset) == classes or not all(map(math.isfinite, gain + offset)):
        raise ValueError(f"'adjustment' should hold {classes} finite gains and offsets")
    return Adjustment(gain, offset, _typed(values.get("chosen", {}), dict, "chosen"))


def _get(data: dict[str, object], key: str, kind: type[Value]) -> Value:
    if key not in data:
        raise ValueError(f"{key!r} is missing")
    return _typed(data[key], kind, key)


def _typed(value: object, kind: type[Value], name: str) -> Value:
    if not isinstance(value, kind):
        raise ValueError(f"{name!r} should be {kind.__name__}, not {type(value).__name__}")
    return value
