"""The network inside a LongTailClassifier: by name, out of a finished run, or none but a classifier on features."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from longtail.data.loading.loaders import Batch, ResidentLoader
from longtail.errors import LongtailError
from longtail.models import LongTailModel, build_model
from longtail.models.backbones import Standardize
from longtail.models.model import with_head
from longtail.models.timm import timm_inputs
from longtail.run.folder import MODEL_FILE
from longtail.run.model_files import Preprocessing, load_run

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
