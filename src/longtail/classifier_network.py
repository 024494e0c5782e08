"""The network inside a LongTailClassifier: by name, out of a finished run, or none but a classifier on features."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from longtail.errors import LongtailError
from longtail.inference.info import INFO_NAME, Preprocessing
from longtail.inference.load import load_run
from longtail.models import LongTailModel, build_head, build_model
from longtail.models.inputs import timm_inputs
from longtail.models.standardize import Standardize

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
        rows: The features (N, D) to standardise by; not read where there is a backbone.
        num_classes: Classes C.
        head: Name of the head.
        pretrained: Start from published weights.
        image_size: Side of the input in pixels; the network's own when None.
        trained: Whether the network will be trained; a frozen one must bring weights.

    Raises:
        LongtailError: No such network or weights, or a frozen network without any.
    """
    if backbone is None:
        features = torch.from_numpy(np.asarray(rows, dtype=np.float32))
        size = features.shape[1]
        standardize = Standardize(size).fit(features)
        return _with_head(standardize, size, num_classes, head, name="features"), None
    if (Path(backbone) / INFO_NAME).is_file():
        model, info = load_run(backbone)
        if image_size not in (None, info.preprocessing.size):
            raise LongtailError(
                f"the run {str(backbone)!r} takes {info.preprocessing.size} pixels: leave image_size out."
            )
        return _with_head(model.backbone, model.num_features, num_classes, head, name=model.name), info.preprocessing
    if not pretrained and not trained:
        raise LongtailError("a frozen network needs weights: set pretrained=True or train_backbone=True.")
    looks = _preprocessing(str(backbone), image_size)
    return build_model(str(backbone), num_classes, head, pretrained=pretrained, in_size=looks.size), looks


def refuse_images(rows: Any) -> None:
    """Raise LongtailError where images were given to a classifier of features.

    Example:
        >>> refuse_images(["a.jpg"])
        Traceback (most recent call last):
        ...
        longtail.errors.LongtailError: these are images: name a backbone, such as backbone='timm:resnet18'.
    """
    first = rows[0] if isinstance(rows, list | tuple) and len(rows) else rows
    if isinstance(first, str | os.PathLike | Image.Image) or (isinstance(first, np.ndarray) and first.ndim == 4):
        raise LongtailError("these are images: name a backbone, such as backbone='timm:resnet18'.")


def _preprocessing(name: str, image_size: int | None) -> Preprocessing:
    known = timm_inputs(name)
    if known is None:
        return Preprocessing(image_size or _OWN_SIZE, _OWN_MEAN, _OWN_STD)
    looks = known.at(image_size)
    return Preprocessing(looks.size, looks.mean, looks.std, looks.resize, looks.interpolation)


def _with_head(backbone: torch.nn.Module, size: int, num_classes: int, head: str, *, name: str) -> LongTailModel:
    return LongTailModel(
        backbone, build_head(head, size, num_classes), name=name, head_name=head, num_classes=num_classes
    )
