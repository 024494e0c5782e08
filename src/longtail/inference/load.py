"""A trained model on disk: model.safetensors with the weights, model.json with what is needed to use them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from longtail.data.augmentation import BatchTransform
from longtail.data.images import Interpolation
from longtail.errors import LongtailError, resume_hint
from longtail.files import write_atomically
from longtail.inference.adjustment import Adjustment, Prior
from longtail.models import LongTailModel, build_model
from longtail.models.backbones import TIMM_PREFIX

FORMAT_VERSION: Final = 1
WEIGHTS_NAME: Final = "model.safetensors"
INFO_NAME: Final = "model.json"
# A file from a stranger cannot make us allocate more than these allow, before its weights have been seen to fit.
MAX_INFO_BYTES: Final = 256 * 2**20
MAX_CLASSES: Final = 1_000_000
MAX_SIDE: Final = 4096
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
        interpolation: How pixels in between are made up when an image is scaled.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    interpolation: Interpolation = "bicubic"

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
        prior: The mix of classes that the probabilities assume without the adjustment, which has one of its own.
        threshold: Probability of the predicted class, in [0, 1], below which the model is not sure; None if not chosen.
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
    prior: Literal["train", "uniform"] = "train"
    threshold: float | None = None
    recipe: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def scores(self, logits: Tensor) -> Tensor:
        """Return what softmax turns into probabilities, (N, C), for the network's logits (N, C)."""
        return logits.float() * self.logit_scale if self.adjustment is None else self.adjustment.apply(logits)

    def unadjusted(self) -> ModelInfo:
        """Return the information of the model as it was trained: without adjustment and threshold."""
        return replace(self, adjustment=None, threshold=None)

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
                interpolation=_interpolation(preprocessing.get("interpolation", "bicubic")),
            ),
            logit_scale=float(data.get("logit_scale", 1.0)),
            adjustment=_adjustment(data.get("adjustment"), len(data["classes"])),
            prior=_named_prior(data.get("prior", "train")),
            threshold=_threshold(data.get("threshold")),
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
    save_info(info, folder)


def save_info(info: ModelInfo, folder: str | Path) -> None:
    """Write ``model.json`` alone, over the one that is there, whole or not at all; the weights are not touched.

    Raises:
        LongtailError: The file cannot be written; the one before stays.
    """
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
    if info.model.name.startswith(TIMM_PREFIX):  # of any size: first without memory, to see that the weights fit
        check_weights(_without_memory(info, path), _outline(path), path)
    model = _build(info)
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
        if path.stat().st_size > MAX_INFO_BYTES:
            raise ValueError(f"it is larger than {MAX_INFO_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
        version = json.loads(text).get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise LongtailError(
                f"{path} has format {version}, this longtail reads up to {FORMAT_VERSION}: update longtail."
            )
        return _within_limits(ModelInfo.from_json(text))
    except LongtailError:
        raise
    except OSError as error:
        raise LongtailError(f"{path} cannot be read ({error.strerror}): name the folder of a finished run.") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
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
        if (folder / "fold-0").is_dir():
            raise LongtailError(
                f"{str(folder)!r} holds a cross-validation, which has no model of its own: name one of its folds, such "
                f"as {str(folder / 'fold-0')!r}, or train on all images without --folds."
            )
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


def _within_limits(info: ModelInfo) -> ModelInfo:
    looks = info.preprocessing
    if not 1 <= len(info.classes) <= MAX_CLASSES or min(info.counts) < 0:
        raise ValueError(f"it should hold 1 to {MAX_CLASSES:,} classes, and no count below 0")
    if not 1 <= looks.size <= (looks.resize or looks.size) <= MAX_SIDE:
        raise ValueError(f"'size' and 'resize' should be 1 to {MAX_SIDE} pixels, 'resize' no less than 'size'")
    if not len(looks.mean) == len(looks.std) == 3 or not all(map(math.isfinite, looks.mean + looks.std)):
        raise ValueError("'mean' and 'std' should be three numbers each")
    if min(looks.std) <= 0 or not math.isfinite(info.logit_scale):
        raise ValueError("'std' should be above 0 and 'logit_scale' a number")
    return info


def _build(info: ModelInfo) -> LongTailModel:
    return build_model(
        info.model.name, len(info.classes), info.model.head, pretrained=False, in_size=info.preprocessing.size
    )


def _without_memory(info: ModelInfo, path: Path) -> LongTailModel:
    try:
        with torch.device("meta"):
            return _build(info)
    except (RuntimeError, AssertionError) as error:  # timm builds anything, but not at any size
        what = f"{info.model.name} of {info.preprocessing.size} pixels"
        raise LongtailError(f"{path.parent} names a network that cannot be, {what}: copy the run again.") from error


def _outline(path: Path) -> dict[str, Tensor]:
    """The tensors of a file without their values, on the device ``meta``."""
    with _weights_file(path), safe_open(path, "pt") as file:
        return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118


def _load_weights(path: Path) -> dict[str, Tensor]:
    with _weights_file(path):
        return load_file(path)


@contextmanager
def _weights_file(path: Path) -> Iterator[None]:
    """Say what is wrong with a file of weights that cannot be read."""
    try:
        yield
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
    prior = _prior(values.get("prior", "train"), classes)
    return Adjustment(gain, offset, _typed(values.get("chosen", {}), dict, "chosen"), prior)


def _prior(data: Any, classes: int) -> Prior:
    if not isinstance(data, list):
        return _named_prior(data)
    shares = tuple(float(value) for value in data)
    if len(shares) != classes or not all(math.isfinite(share) and share > 0 for share in shares):
        raise ValueError(f"'prior' should be train, uniform or {classes} positive shares")
    return shares


def _named_prior(data: Any) -> Literal["train", "uniform"]:
    if data not in ("train", "uniform"):
        raise ValueError(f"'prior' should be train or uniform, not {data!r}")
    return "train" if data == "train" else "uniform"


def _threshold(data: Any) -> float | None:
    if data is None:
        return None
    if isinstance(data, bool) or not isinstance(data, int | float) or not 0 <= data <= 1:
        raise ValueError(f"'threshold' should be a probability, not {data!r}")
    return float(data)


def _interpolation(value: object) -> Interpolation:
    known: tuple[Interpolation, ...] = get_args(Interpolation)
    for name in known:
        if name == value:
            return name
    raise ValueError(f"'interpolation' is {value!r}, none of {', '.join(known)}")


def _get(data: dict[str, object], key: str, kind: type[Value]) -> Value:
    if key not in data:
        raise ValueError(f"{key!r} is missing")
    return _typed(data[key], kind, key)


def _typed(value: object, kind: type[Value], name: str) -> Value:
    if not isinstance(value, kind):
        raise ValueError(f"{name!r} should be {kind.__name__}, not {type(value).__name__}")
    return value
