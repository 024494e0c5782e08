"""Do the features of other engines and precisions lead to the same labels as PyTorch's in float32?

python benchmarks/fidelity.py SOURCE [SOURCE ...] --json docs/results/fidelity.json

For each source: the features of a frozen network, by PyTorch and OpenVINO, in float32 and bfloat16, and a balanced
logistic regression fitted on those of the training images by PyTorch in float32. Each row compares the test images: the
relative difference of the features, and how many get the same label. It measures no time.
"""

from __future__ import annotations

from typing import Literal

import common
import numpy as np
import torch
from features import CPU, feature_store
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from longtail.config.options import EngineName
from longtail.counts import FloatArray
from longtail.data.dataset import Split
from longtail.data.sources.registry import load_source
from longtail.device import hardware
from longtail.models.model import LongTailModel, build_model
from longtail.models.preprocessing import Preprocessing
from longtail.models.timm import timm_inputs
from longtail.training.backbone_pass import backbone_pass
from longtail.version import versions

Arithmetic = Literal["fp32", "bf16"]


def features_of(
    model: LongTailModel, look: Preprocessing, split: Split, engine: EngineName, precision: Arithmetic
) -> FloatArray:
    """Features of all images of a split, float32 (N, D)."""
    store = feature_store(model, look, split, engine, precision)
    (features,) = backbone_pass(store.engine, store.network, store.inputs["test"], torch.arange(len(split)))
    return np.asarray(features.float())


def measure(source: str, network: str) -> list[dict[str, object]]:
    """The rows of one source."""
    inputs = timm_inputs(network)
    assert inputs is not None
    look = Preprocessing(inputs.size, inputs.mean, inputs.std, inputs.resize, inputs.interpolation)
    data = load_source(source)
    model = build_model(network, len(data.classes), pretrained=True, in_size=look.size).eval()
    train, test = data.splits["train"], data.splits["test"]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, class_weight="balanced", max_iter=1000))
    classifier.fit(features_of(model, look, train, "torch", "fp32"), train.labels)
    expected = features_of(model, look, test, "torch", "fp32")
    labels = classifier.predict(expected)
    rows = []
    sides: tuple[tuple[EngineName, Arithmetic], ...] = (("openvino", "fp32"), ("torch", "bf16"), ("openvino", "bf16"))
    for engine, precision in sides:
        features = features_of(model, look, test, engine, precision)
        rows.append(
            {
                "source": source.rpartition("/")[2],
                "network": network,
                "engine": engine,
                "precision": precision,
                "images": len(test),
                "difference": float(np.linalg.norm(features - expected) / np.linalg.norm(expected)),
                "largest_difference": float(
                    (np.linalg.norm(features - expected, axis=1) / np.linalg.norm(expected, axis=1)).max()
                ),
                "same_labels": float((classifier.predict(features) == labels).mean()),
                "right": float((classifier.predict(features) == test.labels).mean()),
                "right_in_fp32": float((labels == test.labels).mean()),
                "device": hardware(CPU),
                "versions": versions(),
            }
        )
    return rows


def main() -> None:
    """Measure every source and show the rows."""
    options = common.parser(__doc__ or "")
    options.add_argument("sources", nargs="+", metavar="SOURCE", help="as of longtail inspect; with a test split")
    options.add_argument("--model", default="timm:tf_efficientnet_lite0", metavar="NAME", help="a network of timm")
    words = options.parse_args()
    rows = [each for source in words.sources for each in measure(source, words.model)]
    for row in rows:
        Console().print(
            f"{row['source']}, {row['engine']} {row['precision']}: {row['same_labels']:.2%} of {row['images']} labels "
            f"are those of PyTorch in float32, features differ by {row['difference']:.2g}"
        )
    common.rows_to_json(words.json, rows)


if __name__ == "__main__":
    main()
