"""Per-image outputs of a model on a split, for the analysis, and the table of its features for the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from longtail.data.dataset import Split
from longtail.files import writing
from longtail.models.model import LongTailModel
from longtail.training.engine import Engine
from longtail.training.forward_pass import BatchOutputs, ImageInputs, forward_pass

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ModelOutputs:
    """Per-image outputs of a model on one split.

    Attributes:
        columns: By name, shape (N,): label, prediction, confidence, probability_true, margin and feature_norm.
        features: Shape (N, D).
    """

    columns: dict[str, npt.NDArray[Any]]
    features: Features

    @property
    def label(self) -> npt.NDArray[np.int64]:
        """Class indices, (N,)."""
        return self.columns["label"].astype(np.int64)

    def rows(self, rows: npt.NDArray[np.int64]) -> ModelOutputs:
        """Select images by row."""
        return ModelOutputs({name: values[rows] for name, values in self.columns.items()}, self.features[rows])


def collect_outputs(
    engine: Engine,
    model: LongTailModel,
    inputs: ImageInputs,
    *,
    num_images: int,
    scores: Callable[[Tensor], Tensor],
    done: Callable[[int], object] = lambda _: None,
) -> ModelOutputs:
    """Pass every image of a split through a model once, in order; each process sees all of them.

    Args:
        engine: Device and precision.
        model: The network, on the device.
        inputs: Images of the split.
        num_images: Rows of the split, N.
        scores: Turns logits (N, C) into the input of softmax.
        done: Called with the number of images that have been passed through.
    """

    def columns_of(batches: Iterator[BatchOutputs]) -> list[dict[str, Tensor]]:
        parts = []
        for logits, features, labels, rows in batches:
            parts.append(_columns(scores(logits), labels, features.float()))
            done(int(rows[-1]) + 1)
        return parts

    parts = forward_pass(engine, model, inputs, torch.arange(num_images), columns_of)
    columns = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    return ModelOutputs(columns, columns.pop("features"))


def _columns(scores: Tensor, labels: Tensor, features: Tensor) -> dict[str, Tensor]:
    rows = labels[:, None]
    probabilities = scores.softmax(dim=1)
    top = probabilities.max(dim=1)
    highest_other = scores.scatter(1, rows, -torch.inf).amax(dim=1)
    columns = {
        "label": labels.int(),
        "prediction": top.indices.int(),
        "confidence": top.values,
        "probability_true": probabilities.gather(1, rows)[:, 0],
        "margin": scores.gather(1, rows)[:, 0] - highest_other,
        "feature_norm": torch.linalg.vector_norm(features, dim=1),
        "features": features,
    }
    return {name: value.cpu() for name, value in columns.items()}


def feature_table(outputs: Mapping[str, ModelOutputs], splits: Mapping[str, Split], classes: Sequence[str]) -> pa.Table:
    """Combine the features of several splits in one table.

    Args:
        outputs: Features and labels of whole splits, by split name.
        splits: The splits, with the same rows.
        classes: Class names by index.

    Returns:
        Columns ``split``, ``index`` (row in the split), ``path`` (below the source's folder, or its row), ``label``,
        ``label_name``, and ``features``, a list of D float32.
    """
    parts = []
    for name, output in outputs.items():
        values = np.ascontiguousarray(output.features, dtype=np.float32)
        parts.append(
            pa.table(
                {
                    "split": pa.array([name] * len(values)),
                    "index": pa.array(np.arange(len(values), dtype=np.int64)),
                    "path": pa.array(splits[name].places()),
                    "label": pa.array(output.label),
                    "label_name": pa.array([classes[label] for label in output.label]),
                    "features": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1]),
                }
            )
        )
    return pa.concat_tables(parts)


def write_features(path: Path, table: pa.Table) -> None:
    """Write the table: as npz with one array per column if the suffix is .npz, else as Parquet.

    Raises:
        LongtailError: It cannot be written.
    """
    with writing(path) as file:
        if path.suffix.lower() == ".npz":
            arrays: dict[str, Any] = {
                name: np.array(table[name].to_pylist()) for name in table.column_names if name != "features"
            }
            features = table["features"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
            np.savez(file, features=features, **arrays)
        else:
            pq.write_table(table, file, compression="zstd")
