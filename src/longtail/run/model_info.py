"""``model.json``: all that turns the weights of a network into a classifier of images."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from torch import Tensor

from longtail.data.decode import Interpolation
from longtail.data.transforms.augmentation import BatchTransform
from longtail.errors import LongtailError
from longtail.evaluation.posthoc import Adjustment, Prior
from longtail.files import write_atomically
from longtail.run.folder import MODEL_FILE

FORMAT_VERSION: Final = 1
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
            >>> import torch
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


def save_info(info: ModelInfo, folder: str | Path) -> None:
    """Write ``model.json`` alone, over the one that is there, whole or not at all; the weights are not touched.

    Raises:
        LongtailError: The file cannot be written; the one before stays.
    """
    write_atomically(Path(folder) / MODEL_FILE, info.to_json().encode())


def load_info(folder: str | Path) -> ModelInfo:
    """Read ``model.json`` alone.

    Raises:
        LongtailError: The file is missing, damaged or of a newer format.
    """
    path = Path(folder) / MODEL_FILE
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
        raise LongtailError(f"{path} is not a {MODEL_FILE} of longtail ({error}): copy the run again.") from error


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
