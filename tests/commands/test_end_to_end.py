"""The practitioner's path as one: a folder and nothing else, then its report, its predictions and a file to deploy."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hub_cache import write_weights
from PIL import Image

from longtail.models.timm import timm_module
from longtail.predict.images import Item
from longtail.predict.predictor import read_item
from longtail.run.model_files import load_info

NETWORK = "test_resnet.r160_in1k"
PHOTOS = {"red": 30, "green fish": 8, "blå": 5}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of three colors, each with noise of its own."""
    rng = np.random.default_rng(0)
    for channel, (name, count) in enumerate(PHOTOS.items()):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 90, (44, 50, 3), dtype=np.uint8)
            pixels[..., channel] += 160
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def small_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a tiny network stand in for the one that is chosen, with weights in the hub's cache and nowhere else."""
    torch.manual_seed(0)
    write_weights(tmp_path / "hub", f"timm/{NETWORK}", timm_module().create_model(NETWORK))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for module in ("config.auto", "training.prepared_data"):
        monkeypatch.setattr(f"longtail.{module}.PACKAGED", f"timm:{NETWORK}")


@pytest.mark.usefixtures("small_weights", "real_report")
def test_from_a_folder_to_a_file_to_deploy(cli: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    done = cli("train", photos, "--out", "run", "--data.workers", 0)
    assert done.status == 0, done.err
    assert f"backbone: timm:{NETWORK} (" in done.err
    config = yaml.safe_load(Path("run/config.yaml").read_text(encoding="utf-8"))
    assert (config["mode"], config["model"]["pretrained"], config["recipe"]) == (
        "linear",
        True,
        "images/logit-adjustment",
    )
    done = cli("report", "run", "--out", "page.html")
    assert done.status == 0, done.err
    assert all(name in Path("page.html").read_text(encoding="utf-8") for name in PHOTOS)

    done = cli("predict", "run", photos, "--out", "answers.csv")
    assert done.status == 0, done.err
    with Path("answers.csv").open(newline="", encoding="utf-8") as file:
        predictions = {row["path"]: row["prediction"] for row in csv.DictReader(file)}
    assert len(predictions) == sum(PHOTOS.values())
    assert np.mean([Path(path).parent.name == name for path, name in predictions.items()]) > 0.9

    done = cli("export", "run", "--format", "torch", "--out", "model.pt2", "--images", photos)
    assert done.status == 0, done.err
    info = load_info("run")
    pixels = [np.asarray(read_item(Item(path, path), info.preprocessing).source) for path in predictions]
    images = torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2))
    _, label = torch.export.load("model.pt2").module()(images.contiguous())
    assert [info.classes[index] for index in label] == list(predictions.values())
