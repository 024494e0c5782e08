"""Export the features of all images of a run: Parquet, or NumPy's npz."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from longtail.data.dataset import Split
from longtail.experiments.collect import Seen
from longtail.files import writing

SUFFIXES: Final = (".parquet", ".npz")


def feature_table(seen: Mapping[str, Seen], splits: Mapping[str, Split], classes: Sequence[str]) -> pa.Table:
    """Combine the features of several splits in one table.

    Args:
        seen: Features and labels of whole splits, by split name.
        splits: The splits, with the same rows.
        classes: Class names by index.

    Returns:
        Columns ``split``, ``index`` (row in the split), ``path`` (below the source's folder, or its row), ``label``,
        ``label_name``, and ``features``, a list of D float32.
    """
    parts = []
    for name, found in seen.items():
        values = np.ascontiguousarray(found.features, dtype=np.float32)
        parts.append(
            pa.table(
                {
                    "split": pa.array([name] * len(values)),
                    "index": pa.array(np.arange(len(values), dtype=np.int64)),
                    "path": pa.array(splits[name].places()),
                    "label": pa.array(found.label),
                    "label_name": pa.array([classes[label] for label in found.label]),
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
