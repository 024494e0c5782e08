"""The model inside a LongTailClassifier: built by name, from a finished run or for features; stored without pickle."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from longtail.counts import ClassCounts
from longtail.data.loading.loaders import Batch, ResidentLoader
from longtail.errors import LongtailError
from longtail.files import write_atomically
from longtail.models import LongTailModel, build_model
from longtail.models.backbones import Standardize
from longtail.models.model import with_head
from longtail.models.timm import timm_inputs
from longtail.run.folder import MODEL_FILE, WEIGHTS_FILE
from longtail.run.model_files import (
    ModelInfo,
    ModelSpec,
    Preprocessing,
    check_weights,
    load_model,
    load_run,
    save_model,
)
from longtail.version import __version__

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

FILE_NAME: Final = "classifier.json"
FORMAT_VERSION: Final = 1
AnyClassifier = TypeVar("AnyClassifier", bound="BaseEstimator")  # a LongTailClassifier, whose module imports this one
_LABEL_KINDS = "biufU"  # of numpy: booleans, whole numbers, floats, text
_OWN_SIZE = 32  # what the small networks of this package are made for
_OWN_MEAN = _OWN_STD = (0.5, 0.5, 0.5)


def build_network(
    backbone: str | Path | None,
    rows: Any,
    num_classes: int,
    head: str,
    *,
    pretrained: bool,
    image_size: int | None,
    trained: bool,
) -> tuple[LongTailModel, Preprocessing | None]:
    """Return a network with a new head, and how images become its input; None where it takes features.

    Args:
        backbone: Name of a network, folder of a run, or None for features.
        rows: The features (N, D) to standardize by; not read if there is a backbone.
        num_classes: Classes C.
        head: Name of the head.
        pretrained: Start from published weights.
        image_size: Side of the input in pixels; the network's own when None.
        trained: Whether the network will be trained; a frozen one must bring weights.

    Raises:
        LongtailError: No such network, run or weights, or a frozen network without any.
    """
    if backbone is None:
        features = torch.from_numpy(np.asarray(rows))
        return with_head(Standardize(features.shape[1]).fit(features), num_classes, head, name="features"), None
    if isinstance(backbone, Path) or "/" in backbone or (Path(backbone) / MODEL_FILE).is_file():
        model, info = load_run(backbone)
        if image_size not in (None, info.preprocessing.size):
            raise LongtailError(
                f"the run {str(backbone)!r} takes {info.preprocessing.size} pixels: leave image_size out."
            )
        return with_head(model.backbone, num_classes, head, name=model.name), info.preprocessing
    if not pretrained and not trained:
        raise LongtailError("a frozen network needs weights: set pretrained=True or train_backbone=True.")
    inputs = timm_inputs(str(backbone))
    if inputs is None:
        looks = Preprocessing(image_size or _OWN_SIZE, _OWN_MEAN, _OWN_STD)
    else:
        inputs = inputs.at(image_size)
        looks = Preprocessing(inputs.size, inputs.mean, inputs.std, inputs.resize, inputs.interpolation)
    return build_model(str(backbone), num_classes, head, pretrained=pretrained, in_size=looks.size), looks


class HostLoader(ResidentLoader):
    """Images that stay in the memory of the host; a batch at a time is sent to the device.

    Args:
        images: uint8 (N, 3, S, S).
        labels: int64 (N,).
        device: Where batches go.
    """

    def __init__(self, images: Tensor, labels: Tensor, device: torch.device) -> None:
        super().__init__(images, labels, torch.device("cpu"))
        self.device = device

    def batches(self, rows: Tensor, batch_size: int) -> Iterator[Batch]:
        """Yield the images of ``rows`` in order, ``batch_size`` at a time."""
        for images, labels, part in super().batches(rows, batch_size):
            yield Batch(images.to(self.device), labels.to(self.device), part)


def refuse_images(rows: Any) -> None:
    """Raise LongtailError where images were given to a classifier of features.

    Example:
        >>> refuse_images(["a.jpg"])
        Traceback (most recent call last):
        ...
        longtail.errors.LongtailError: these are images: name a backbone, such as backbone='timm:resnet18'.
    """
    listed = isinstance(rows, list | tuple) or getattr(rows, "ndim", 0) == 1
    first = next(iter(rows), rows) if listed else rows
    if isinstance(first, str | os.PathLike | Image.Image) or (isinstance(first, np.ndarray) and first.ndim >= 3):
        raise LongtailError("these are images: name a backbone, such as backbone='timm:resnet18'.")


def refuse_single_image(rows: Any) -> None:
    """Refuse anything but a sequence of images; each image is checked when it is read.

    Raises:
        LongtailError: A single path, folder or image.
        TypeError: Anything without order or length.

    Example:
        >>> refuse_single_image("photos")
        Traceback (most recent call last):
        ...
        longtail.errors.LongtailError: X is a sequence of images, not the path 'photos': list the files, one per label.
    """
    if isinstance(rows, str | os.PathLike):
        raise LongtailError(
            f"X is a sequence of images, not the path {os.fspath(rows)!r}: list the files, one per label."
        )
    if isinstance(rows, Image.Image) or (isinstance(rows, np.ndarray) and rows.ndim == 0):
        raise LongtailError("X is a sequence of images, not a single one: put it into a list.")
    ordered = hasattr(rows, "__getitem__") and hasattr(rows, "__len__")
    if not ordered or isinstance(rows, bytes | Mapping) or getattr(rows, "ndim", 1) == 2:
        raise TypeError(
            f"X holds images as a list of paths, Pillow images or uint8 arrays, or as one uint8 array (N, H, W, 3) or "
            f"(N, H, W), not as a {type(rows).__name__}: convert it, or leave backbone out if these are features."
        )


def check_backbone(backbone: Any) -> None:
    """Raise TypeError for anything but a name, a folder or None.

    Example:
        >>> check_backbone(torch.nn.Identity())
        Traceback (most recent call last):
        ...
        TypeError: backbone is the name of a network, the folder of a run or None, not a module (Identity): give the ...
    """
    if isinstance(backbone, torch.nn.Module):
        kind = type(backbone).__name__
        raise TypeError(
            f"backbone is the name of a network, the folder of a run or None, not a module ({kind}): give the features "
            "it computes as X, without a backbone."
        )
    if backbone is not None and not isinstance(backbone, str | Path):
        raise TypeError(
            f"backbone is the name of a network, the folder of a run or None, not {backbone!r}: give "
            "backbone='timm:resnet18', for example."
        )


def save_classifier(classifier: BaseEstimator, folder: Path) -> None:
    """Write a fitted classifier; see :meth:`longtail.LongTailClassifier.save`."""
    text = _to_json(classifier)
    model = classifier.model_
    if classifier.preprocessing_ is None:
        weights = {name: value.contiguous() for name, value in model.cpu().state_dict().items()}
        write_atomically(folder / WEIGHTS_FILE, to_bytes(weights, metadata={"format": "pt"}))
    else:
        info = ModelInfo(
            model=ModelSpec(model.name, model.head_name),
            classes=classifier.class_counts_.names,
            counts=classifier.class_counts_.counts,
            preprocessing=classifier.preprocessing_,
            logit_scale=classifier.logit_scale_,
            adjustment=None if classifier.prior is None else classifier.adjustment(),
            prior=classifier.assumed_prior_,
            versions={"longtail": __version__},
        )
        save_model(model, info, folder)
    write_atomically(folder / FILE_NAME, text.encode())


def load_classifier(classifier: AnyClassifier, folder: Path) -> AnyClassifier:
    """Fill a new classifier with what :func:`save_classifier` wrote; see :meth:`longtail.LongTailClassifier.load`."""
    path = folder / FILE_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format_version"] > FORMAT_VERSION:
            raise LongtailError(f"{path} has format {data['format_version']}: update longtail.")
        classifier.set_params(**data["parameters"])
        label_type, logit_scale = np.dtype(data["label_type"]), float(data["logit_scale"])
        if label_type.kind not in _LABEL_KINDS or not math.isfinite(logit_scale):
            raise ValueError(f"label_type {data['label_type']!r}, logit_scale {logit_scale}")
        classifier.classes_ = np.array(data["classes"], dtype=label_type)
        classifier.class_counts_ = ClassCounts(data["counts"], [str(label) for label in classifier.classes_])
        classifier.logit_scale_ = logit_scale
        classifier.assumed_prior_ = "uniform" if data["assumed_prior"] == "uniform" else "train"
        features, head = data["n_features_in"], str(data["head"])
    except LongtailError:
        raise
    except OSError as error:
        raise LongtailError(f"{path} cannot be read ({error.strerror}): name the folder that save() wrote.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LongtailError(f"{path} was not written by save() or is damaged ({error}): save it again.") from error
    if features is None:
        classifier.model_, info = load_model(folder)
        classifier.preprocessing_ = info.preprocessing
    else:
        classifier.n_features_in_, classifier.preprocessing_ = int(features), None
        classifier.model_ = _on_features(folder / WEIGHTS_FILE, int(features), len(classifier.classes_), head)
    return classifier


def _on_features(path: Path, size: int, classes: int, head: str) -> LongTailModel:
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise LongtailError(f"{path} is missing or damaged ({error}): save the classifier again.") from error
    if not 0 < size <= max((value.numel() for value in weights.values()), default=0):  # before memory is taken for it
        raise LongtailError(f"{path} does not hold weights of {size} features: save the classifier again.")
    model = with_head(Standardize(size), classes, head, name="features")
    check_weights(model, weights, path)
    model.load_state_dict(weights)
    return model.eval()


def _to_json(classifier: BaseEstimator) -> str:
    labels = classifier.classes_
    if labels.dtype == object and all(isinstance(label, str) for label in labels):
        labels = labels.astype(str)
    if labels.dtype.kind not in _LABEL_KINDS:
        raise LongtailError(f"labels of type {labels.dtype} cannot be saved: use text or numbers as labels.")
    data = {
        "format_version": FORMAT_VERSION,
        "parameters": classifier.get_params(),
        "classes": labels.tolist(),
        "label_type": labels.dtype.str,
        "counts": classifier.class_counts_.counts,
        "logit_scale": classifier.logit_scale_,
        "assumed_prior": classifier.assumed_prior_,
        "head": classifier.model_.head_name,
        "n_features_in": getattr(classifier, "n_features_in_", None),
    }
    try:
        return json.dumps(data, indent=2, default=_plain) + "\n"
    except TypeError as error:
        raise LongtailError(f"{error}: give the classifier plain numbers and text as parameters to save it.") from None


def _plain(value: Any) -> Any:
    """What JSON holds instead: a path as text, numpy and torch numbers as lists."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be saved as JSON")
