"""The model inside a LongTailClassifier: built by name, from a finished run or for features; stored without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field, TypeAdapter
from torch import Tensor

from longtail.data.loading.loaders import Loader
from longtail.data.loading.workers import ImagesLike, stack_images
from longtail.data.square import Fit, Square
from longtail.errors import LongtailError
from longtail.models import LongTailModel, build_model
from longtail.models.backbones import Standardize
from longtail.models.model import with_head
from longtail.models.preprocessing import Finite, Preprocessing
from longtail.models.timm import timm_inputs
from longtail.run.layout import MODEL_FILE
from longtail.run.model_files import check_weights, load_run, load_weights
from longtail.validation import read_json

FILE_NAME: Final = "classifier.json"
FORMAT_VERSION: Final = 1
LABEL_KINDS: Final = "biufU"
"""Kinds of labels, as NumPy calls them: booleans, whole numbers, floats, text."""
_LABEL_TYPE: Final = r"^[<>|=](b1|[iu][1248]|f(2|4|8|16)|U\d{1,5})$"
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
    image_fit: Fit | None,
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
        image_fit: How an image that is not square becomes the input; when None, as in the run, or
            as the network's weights ask for, mostly ``crop``.
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
        looks = replace(info.preprocessing, fit=image_fit or info.preprocessing.fit)
        return with_head(model.backbone, num_classes, head, name=model.name), looks
    if not pretrained and not trained:
        raise LongtailError("a frozen network needs weights: set pretrained=True or train_backbone=True.")
    looks = (timm_inputs(str(backbone)) or Preprocessing(_OWN_SIZE, _OWN_MEAN, _OWN_STD)).at(image_size)
    looks = replace(looks, fit=image_fit or looks.fit)
    return build_model(str(backbone), num_classes, head, pretrained=pretrained, in_size=looks.size), looks


class HostLoader(Loader):
    """Images that stay in the memory of the host; a batch at a time is sent to the device.

    Args:
        images: uint8 (N, 3, S, S).
        labels: int64 (N,).
        device: Device of the batches.
    """

    def __init__(self, images: Tensor, labels: Tensor, device: torch.device) -> None:
        super().__init__(labels, device)
        self.images = images

    def _images(self, parts: Sequence[Tensor], on_device: Sequence[Tensor]) -> Iterator[Tensor]:  # noqa: ARG002
        for rows in parts:
            yield self.images[rows].to(self.device)


class MemoryLoader(Loader):
    """Images in memory, each brought to size when its batch comes, for a single pass.

    Args:
        images: As :func:`~longtail.data.loading.workers.stack_images` takes them.
        square: The square that images are brought to.
        device: Where batches go.
    """

    def __init__(self, images: ImagesLike, square: Square, device: torch.device) -> None:
        super().__init__(torch.zeros(len(images), dtype=torch.int64), device)
        self.images, self.square = images, square

    def _images(self, parts: Sequence[Tensor], on_device: Sequence[Tensor]) -> Iterator[Tensor]:  # noqa: ARG002
        for rows in parts:
            yield stack_images([self.images[row] for row in rows.tolist()], self.square).to(self.device)


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


def require_images(rows: Any) -> Any:
    """Return images as a sequence by position; anything else is refused. Each image is checked when it is read.

    Raises:
        LongtailError: A single path, folder or image, or no image.
        TypeError: Anything without order or length.

    Example:
        >>> require_images("photos")
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
    if not len(rows):
        raise LongtailError("X holds no image: give at least one.")
    return list(rows) if hasattr(rows, "iloc") else rows  # pandas finds a row by its label, not by its position


def common_folder(paths: Sequence[str]) -> str:
    """Return the folder that files have in common; empty where they have none, on two drives.

    Example:
        >>> common_folder([os.path.join("photos", "cat", "1.jpg"), os.path.join("photos", "lynx", "2.jpg")])
        'photos'
    """
    try:
        return os.path.commonpath(paths)
    except ValueError:
        return ""


def check_backbone(backbone: Any) -> None:
    """Raise TypeError for anything but a name, a folder or None.

    Example:
        >>> check_backbone(torch.nn.Identity())
        Traceback (most recent call last):
        ...
        TypeError: backbone is the name of a network, the folder of a run or None, not a module (Identity): give the ...
    """
    if isinstance(backbone, str | Path | None):
        return
    given, remedy = repr(backbone), "give backbone='timm:resnet18', for example"
    if isinstance(backbone, torch.nn.Module):
        given = f"a module ({type(backbone).__name__})"
        remedy = "give the features it computes as X, without a backbone"
    raise TypeError(f"backbone is the name of a network, the folder of a run or None, not {given}: {remedy}.")


@dataclass(frozen=True)
class StoredClassifier:
    """The content of ``classifier.json``: all of a fitted classifier except the model itself.

    Attributes:
        format_version: The layout of the file.
        parameters: The parameters of the estimator.
        classes: The labels, sorted, length C.
        label_type: Their type, as NumPy writes it.
        counts: Training images per class, length C.
        logit_scale: Factor of the logits before softmax.
        assumed_prior: The mix of classes that the probabilities assume.
        head: The name of the head.
        n_features_in: Features of a row; None for a classifier of images.
        feature_names_in: Names of the features, where it was fitted on a table that has some.
    """

    format_version: int
    parameters: dict[str, Any]
    classes: list[bool | int | float | str]
    label_type: Annotated[str, Field(pattern=_LABEL_TYPE)]
    counts: tuple[Annotated[int, Field(ge=0)], ...]
    logit_scale: Finite
    assumed_prior: Literal["train", "uniform"]
    head: str
    n_features_in: Annotated[int, Field(gt=0)] | None
    feature_names_in: tuple[str, ...] | None = None

    def to_json(self) -> bytes:
        """Return the content of the file.

        Raises:
            LongtailError: A parameter that JSON cannot hold.
        """
        try:
            return (json.dumps(asdict(self), indent=2, default=_plain, allow_nan=False) + "\n").encode()
        except (TypeError, ValueError) as error:
            raise LongtailError(
                f"{error}: give the classifier plain numbers and text as parameters to save it."
            ) from None


def _plain(value: Any) -> Any:
    """Return the value that JSON holds instead: a path as text, numpy and torch numbers as lists."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be saved as JSON")


def read_stored(path: Path) -> StoredClassifier:
    """Read ``classifier.json``.

    Raises:
        LongtailError: It is missing, damaged, or of a newer format.
    """
    return read_json(path, TypeAdapter(StoredClassifier), "name the folder that save() wrote", FORMAT_VERSION)


def load_features_model(path: Path, stored: StoredClassifier) -> LongTailModel:
    """Read the weights of a classifier of features.

    Raises:
        LongtailError: They are missing, damaged, or of another model.
    """
    weights, size = load_weights(path), stored.n_features_in or 0
    if size > max((value.numel() for value in weights.values()), default=0):  # before memory is taken for it
        raise LongtailError(f"{path} does not hold weights of {size} features: save the classifier again.")
    model = with_head(Standardize(size), len(stored.classes), stored.head, name="features")
    check_weights(model, weights, path)
    model.load_state_dict(weights)
    return model.eval()
