"""A small run with an adjustment, figures and example images, for what is made of a finished run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image

from longtail.evaluation.posthoc import Adjustment
from longtail.models import build_model
from longtail.models.preprocessing import Preprocessing
from longtail.run.model_files import ModelInfo, ModelSpec, save_model

CLASSES = ("lynx", "marten | pine", "山猫")


def write_run(folder: Path, name: str = "plain-cnn", head: str = "cosine", size: int = 12) -> Path:
    torch.manual_seed(0)
    info = ModelInfo(
        ModelSpec(name, head),
        CLASSES,
        (500, 50, 2),
        Preprocessing(size=size, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.25), resize=size + 2),
        logit_scale=7.0,
        adjustment=Adjustment((9.0, 8.0, 7.0), (0.0, 0.5, -1.0), {"method": "logit-adjustment"}, "uniform"),
        threshold=0.4,
        recipe="cifar-lt/gcl",
        versions={"longtail": "0.1.0"},
    )
    save_model(build_model(name, 3, head, in_size=size), info, folder)
    rng = np.random.default_rng(0)
    rows = []
    for side in (12, 20, 33, 12, 15, 40):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side, side + 3, 3), dtype=np.uint8)).save(buffer, "PNG")
        example = {"class": 0, "role": "train", "image": buffer.getvalue(), "prediction": -1, "confidence": 0.0}
        rows.append({**example, "path": "private.png"})
    pq.write_table(pa.Table.from_pylist(rows), folder / "examples.parquet")
    (folder / "metrics.json").write_text(json.dumps(_metrics()))
    config = {"recipe": "cifar-lt/gcl", "data": {"source": "folder:/home/me/photos"}, "model": {"pretrained": False}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def _metrics() -> dict[str, Any]:
    classes = [
        {
            "name": name,
            "train_count": count,
            "test_count": tests,
            "group": group,
            "recall": 0.5,
            "recall_interval": [0.25, 0.75],
        }
        for name, count, tests, group in zip(CLASSES, (500, 50, 2), (60, 30, 3), ("many", "medium", "few"), strict=True)
    ]
    figures = {"accuracy": 0.75, "balanced_accuracy": 0.5, "many": 0.9, "medium": 0.5, "few": 0.1, "worst_class": 0.1}
    intervals = {name: [value - 0.05, value + 0.05] for name, value in figures.items()}
    test = {"num_images": 93, **figures, "intervals": intervals, "per_class": classes}
    groups = {"many": [0], "medium": [1], "few": [2]}
    return {"classes": list(CLASSES), "train_counts": [500, 50, 2], "groups": groups, "test": test}
