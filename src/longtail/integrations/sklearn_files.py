"""A fitted LongTailClassifier on disk: weights as safetensors, everything else as JSON; nothing is unpickled."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from longtail.counts import ClassCounts
from longtail.errors import LongtailError
from longtail.files import write_atomically
from longtail.models import LongTailModel
from longtail.models.backbones import Standardize
from longtail.models.model import with_head
from longtail.run.folder import WEIGHTS_FILE
from longtail.run.model_files import ModelInfo, ModelSpec, check_weights, load_model, save_model
from longtail.version import __version__

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

FILE_NAME: Final = "classifier.json"
FORMAT_VERSION: Final = 1
AnyClassifier = TypeVar("AnyClassifier", bound="BaseEstimator")  # a LongTailClassifier, whose module imports this one
_LABEL_KINDS = "biufU"  # of numpy: booleans, whole numbers, floats, text


def save(classifier: BaseEstimator, folder: Path) -> None:
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


def load(classifier: AnyClassifier, folder: Path) -> AnyClassifier:
    """Fill a new classifier with what :func:`save` wrote; see :meth:`longtail.LongTailClassifier.load`."""
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
