"""What Python's callers are told speaks of Python's arguments; the command line translates it into its options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import longtail
from longtail import LongTailClassifier
from longtail.cli import main
from longtail.data import build_sampler, inspect_source, load_source
from longtail.errors import LongtailError, UsageError, as_usage
from longtail.losses import LOSSES, build_loss
from longtail.models import build_backbone, build_head, build_model
from longtail.predict.predictor import Predictor, load

SQUARES = np.zeros((6, 8, 8), np.uint8)
TRAINED = {"backbone": "plain-cnn", "pretrained": False, "train_backbone": True, "image_size": 8, "epochs": 1}
ROWS, LABELS = np.arange(12.0).reshape(6, 2), [0, 0, 0, 1, 1, 1]


def fitted(rows: Any, labels: Any = LABELS, **options: Any) -> Callable[[Path], object]:
    return lambda _: LongTailClassifier(**{"epochs": 1, "device": "cpu"} | options).fit(rows, labels)


CALLS: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "folder as X": (fitted("photos", **TRAINED), LongtailError, "sequence"),
    "path as X": (fitted(Path("photos"), **TRAINED), LongtailError, "sequence"),
    "one image as X": (fitted(Image.new("L", (8, 8)), **TRAINED), LongtailError, "list"),
    "iterator as X": (fitted(iter(SQUARES), **TRAINED), TypeError, "uint8"),
    "mapping as X": (fitted({}, **TRAINED), TypeError, "uint8"),
    "features as images": (fitted(ROWS, **TRAINED), TypeError, "features"),
    "tensors as images": (fitted(list(torch.zeros(6, 3, 8, 8)), **TRAINED), LongtailError, "Tensor"),
    "images without backbone": (fitted(SQUARES), LongtailError, "backbone"),
    "paths without backbone": (fitted(np.array(["a.png"] * 6)), LongtailError, "backbone"),
    "text as y": (fitted(SQUARES, "labels", **TRAINED), ValueError, "1d"),
    "too few labels": (fitted(SQUARES, [0, 1], **TRAINED), LongtailError, "labels"),
    "too few labels of features": (fitted(ROWS, [0, 1]), ValueError, "samples"),
    "missing labels": (fitted(SQUARES, [0.0, 1.0, np.nan] * 2, **TRAINED), ValueError, "NaN"),
    "a module as backbone": (fitted(SQUARES, backbone=torch.nn.Identity()), TypeError, "module"),
    "a number as backbone": (fitted(SQUARES, backbone=3), TypeError, "backbone"),
    "no such run": (fitted(SQUARES, backbone="runs/none"), LongtailError, "run"),
    "no such network": (fitted(SQUARES, backbone="resnet23"), LongtailError, "resnet"),
    "no weights": (fitted(SQUARES, backbone="resnet20"), LongtailError, "pretrained=False"),
    "frozen without weights": (fitted(SQUARES, backbone="resnet20", pretrained=False), LongtailError, "pretrained"),
    "a loss object": (fitted(ROWS, loss=torch.nn.CrossEntropyLoss()), TypeError, "loss_options"),
    "no such loss": (fitted(ROWS, loss="glc"), LongtailError, "gcl"),
    "options in a list": (fitted(ROWS, loss_options=["tau"]), TypeError, "loss_options"),
    "no such option": (fitted(ROWS, loss_options={"tua": 1}), LongtailError, "tau"),
    "text as lr": (fitted(ROWS, lr="0.1"), LongtailError, "lr"),
    "negative mixup": (fitted(ROWS, mixup=-1), LongtailError, "mixup"),
    "text as weight decay": (fitted(ROWS, weight_decay="1"), LongtailError, "weight_decay"),
    "text as image size": (fitted(ROWS, image_size="8"), LongtailError, "image_size"),
    "no such sampler": (fitted(ROWS, retrain_sampler="classbalanced"), LongtailError, "class-balanced"),
    "no such prior": (fitted(ROWS, prior="unform"), LongtailError, "prior"),
    "one image a batch": (
        fitted(SQUARES, **TRAINED | {"backbone": "resnet20", "batch_size": 1, "image_size": 4}),
        LongtailError,
        "batch_size",
    ),
    "model without weights": (lambda _: build_model("resnet20", 9, pretrained=True), LongtailError, "pretrained=False"),
    "unknown model": (lambda _: build_model("resnet23", 10), LongtailError, "resnet"),
    "unknown backbone": (lambda _: build_backbone("timm:resnet5"), LongtailError, "timm"),
    "unknown head": (lambda _: build_head("cosin", 4, 2), LongtailError, "cosine"),
    "unknown sampler": (lambda _: build_sampler("cbne", [0, 1], [1, 1]), LongtailError, "cben"),
    "no such run to load": (lambda path: longtail.load(path / "none"), LongtailError, "run"),
    "no run to load": (longtail.load, LongtailError, "model.json"),
    "columns of a folder": (lambda path: load_source(f"folder:{path}", label_column="x"), UsageError, "label_column"),
    "no column": (lambda path: load_source(f"csv:{table(path)}"), LongtailError, "label_column="),
    "no images to inspect": (lambda _: inspect_source("digits", max_images=0), UsageError, "max_images"),
    "a prior that is no file": (lambda path: predictor(path, prior="unifrom"), UsageError, "uniform"),
    "nothing of that name": (lambda path: predictor(path).predict("nothing"), LongtailError, "nothing"),
    "a number as images": (lambda path: predictor(path).predict(3), LongtailError, "int"),
    "top_k": (lambda path: predictor(path).predict(SQUARES, top_k=0), UsageError, "top_k"),
}


def table(folder: Path) -> Path:
    (folder / "t.csv").write_text("path,what\na.png,cat\n")
    return folder / "t.csv"


def predictor(folder: Path, **options: Any) -> Predictor:
    LongTailClassifier(**TRAINED, device="cpu").fit(SQUARES, LABELS).save(folder / "run")
    return load(folder / "run", **options)


@pytest.mark.parametrize("name", CALLS)
def test_an_error_speaks_of_arguments(name: str, tmp_path: Path) -> None:
    call, kind, word = CALLS[name]
    with pytest.raises(kind, match=word) as caught:
        call(tmp_path)
    assert "--" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert kind is TypeError or isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", LOSSES)
def test_the_options_of_a_loss_are_those_of_python(name: str) -> None:
    for options in ({"reduction": "average"}, {"label_smoothing": "a"}, {"weight": [1.0]}, {"nonsense": 1}):
        with pytest.raises(LongtailError) as caught:
            build_loss(name, [3, 1], options)
        assert "--" not in str(caught.value)


def test_the_command_line_speaks_of_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "digits", "--max-images", "0"]) == 2
    assert main(["inspect", f"csv:{table(tmp_path)}"]) == 1
    error = capsys.readouterr().err
    assert "--max-images" in error
    assert "--label-column" in error
    assert "label_column" not in error


def test_usage_keeps_the_options() -> None:
    with pytest.raises(UsageError) as caught, as_usage():
        raise LongtailError("set size=8.", options={"size=8": "--size 8"})
    assert caught.value.for_command_line() == "set --size 8."
