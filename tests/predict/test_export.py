"""Exported files: the labels and probabilities of the run itself, without longtail, for any number of images."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import longtail
from longtail.errors import LongtailError
from longtail.predict import export
from longtail.predict.export import export_run
from longtail.predict.images import Item
from longtail.predict.predictor import read_item
from longtail.run.model_files import load_info, save_info

onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")

RUN_ALONE = """
import sys, importlib.abc
class Never(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("longtail", "timm"):
            raise ImportError(name)
sys.meta_path.insert(0, Never())
import json, torch
files = {"metadata.json": ""}
model = torch.export.load(sys.argv[1], extra_files=files).module()
images = torch.load(sys.argv[2], weights_only=True)
torch.save([model(images), model(images[:1])], sys.argv[3])
print(json.loads(json.loads(files["metadata.json"])["classes"])[2] == chr(0x5c71) + chr(0x732b))
"""


@pytest.fixture(scope="module")
def pixels() -> Any:
    return np.random.default_rng(3).integers(0, 256, (5, 12, 12, 3), dtype=np.uint8)


def test_onnx_gives_what_the_run_gives(ready: Path, pixels: Any, tmp_path: Path) -> None:
    report = export_run(ready, tmp_path / "deep" / "model.onnx")
    assert report.images == 6
    assert report.largest_difference < 1e-4
    session = ort.InferenceSession(report.out)
    expected = longtail.load(ready).probabilities(pixels)
    for some in (slice(0, 1), slice(0, 5), slice(1, 3)):
        probabilities, label = session.run(None, {"images": pixels.transpose(0, 3, 1, 2)[some]})
        np.testing.assert_allclose(probabilities, expected[some], atol=1e-5)
        assert (label == expected[some].argmax(1)).all()
    assert [(output.name, output.shape) for output in session.get_outputs()] == [
        ("probabilities", ["batch", 3]),
        ("label", ["batch"]),
    ]
    assert (session.get_inputs()[0].shape, session.get_inputs()[0].type) == (["batch", 3, 12, 12], "tensor(uint8)")
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["classes"]) == list(load_info(ready).classes)
    assert json.loads(properties["preprocessing"])["shorter_side"] == 14
    assert json.loads(properties["adjustment"]) == {"method": "logit-adjustment"}
    assert json.loads(properties["threshold"]) == 0.4
    assert report.card.read_text().startswith("---\n")
    proto = onnx.load(report.out)
    assert str(Path(longtail.__file__).parent) not in str(proto)  # no path of this machine


def test_torch_archive_runs_without_longtail(ready: Path, pixels: Any, tmp_path: Path) -> None:
    report = export_run(ready, tmp_path / "model.pt2", format="torch")
    torch.save(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()), tmp_path / "images.pt")
    words = [sys.executable, "-c", RUN_ALONE, report.out, tmp_path / "images.pt", tmp_path / "answers.pt"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr
    (probabilities, label), (first, _) = torch.load(tmp_path / "answers.pt", weights_only=True)
    expected = longtail.load(ready).probabilities(pixels)
    assert not probabilities.requires_grad  # nobody who only predicts has to switch gradients off
    np.testing.assert_allclose(probabilities.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(first.numpy(), expected[:1], atol=1e-5)
    assert (label.numpy() == expected.argmax(1)).all()


def test_a_transformer_without_adjustment_on_float_pixels(untrained_run: Callable[..., Path], tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", "timm:test_vit", "scaled-linear", 32)
    save_info(replace(load_info(run), adjustment=None), run)
    report = export_run(run, tmp_path / "model.onnx", input_type="float32")
    assert report.largest_difference < 1e-4
    assert ort.InferenceSession(report.out).get_inputs()[0].type == "tensor(float)"


def test_a_file_that_differs_is_not_written(ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shifted(export.Deployed):
        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            self.mean += 5

    monkeypatch.setattr(export, "Deployed", Shifted)
    with pytest.raises(LongtailError, match="differs"):
        export_run(ready, tmp_path / "model.pt2", format="torch")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def square() -> Callable[..., Any]:
    """The function of the docs that follows the rule in the metadata."""
    page = Path(__file__).parents[2] / "docs" / "export.md"
    names: dict[str, Any] = {}
    exec(re.search(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1], names)
    return names["square"]


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_rule_of_the_docs_gives_the_same_squares(
    ready: Path, tmp_path: Path, square: Callable[..., Any], interpolation: Any, fit: Any
) -> None:
    rng, stored = np.random.default_rng(5), load_info(ready)
    info = replace(stored, preprocessing=replace(stored.preprocessing, interpolation=interpolation, fit=fit))
    rule = json.loads(export.metadata(info)["preprocessing"])
    for shape in ((12, 12, 3), (14, 14, 4), (40, 31, 2), (13, 90, 4), (90, 13), (1, 70, 3)):
        path = tmp_path / "image.png"  # color, transparent, gray, of one row
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
        expected = read_item(Item("image", str(path)), info.preprocessing).source
        assert np.array_equal(square(Image.open(path), rule).transpose(1, 2, 0), expected), shape


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_an_exported_file_answers_as_the_run_does_on_long_images(
    untrained_run: Callable[..., Path], tmp_path: Path, square: Callable[..., Any], fit: Any
) -> None:
    run, rng = untrained_run(tmp_path / "run"), np.random.default_rng(6)
    info = load_info(run)
    save_info(replace(info, preprocessing=replace(info.preprocessing, fit=fit)), run)
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, shape in zip(paths, ((60, 20, 3), (9, 48, 3), (12, 12, 3), (1, 30, 3)), strict=True):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    session = ort.InferenceSession(export_run(run, tmp_path / "model.onnx").out)
    rule = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    images = np.stack([square(Image.open(path), rule) for path in paths])
    probabilities, _ = session.run(None, {"images": images})
    np.testing.assert_allclose(probabilities, longtail.load(run).probabilities(paths), atol=1e-5)


def test_a_program_that_knows_the_center_square_alone_cannot_take_a_padded_model_for_one(ready: Path) -> None:
    info = load_info(ready)
    keys = {}
    for fit in ("crop", "pad", "stretch"):
        changed = replace(info, preprocessing=replace(info.preprocessing, fit=fit))
        keys[fit] = json.loads(export.metadata(changed)["preprocessing"]).keys()
    assert keys["crop"] >= {"shorter_side", "crop", "fit"}
    assert not (keys["pad"] | keys["stretch"]) & {"shorter_side", "crop"}


def test_weights_too_large_for_onnx_are_refused_before_the_work(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_MOST_ONNX", 100)
    made = {"_to_onnx": None, "_to_torch": lambda *_: b"archive", "_compare": lambda *_, **__: 0.0}
    for name, replacement in made.items():
        monkeypatch.setattr(export, name, replacement)
    with pytest.raises(LongtailError, match="format='torch'"):
        export_run(ready, tmp_path / "model.onnx")
    assert export_run(ready, tmp_path / "model.pt2", format="torch").images == 6


def test_damaged_example_images_are_named(untrained_run: Callable[..., Path], tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    path = run / "examples.parquet"
    table, data = pq.read_table(path), bytearray(path.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)  # the end, which says what is in it, is whole
    images = [1] * len(table)
    for damage in (
        lambda: path.write_bytes(data),
        lambda: pq.write_table(table.set_column(table.column_names.index("image"), "image", pa.array(images)), path),
        lambda: pq.write_table(table.drop_columns(["image"]), path),
    ):
        damage()
        with pytest.raises(LongtailError, match=r"examples\.parquet"):
            export_run(run, tmp_path / "model.onnx")


def test_runs_that_cannot_be_exported(
    ready: Path, untrained_run: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    run = untrained_run(tmp_path / "run")
    (run / "examples.parquet").unlink()
    with pytest.raises(LongtailError, match="images=FOLDER"):
        export_run(run, tmp_path / "model.onnx")
    with pytest.raises(LongtailError, match="an image"):
        export_run(run, tmp_path / "model.onnx", images=__file__)
    with pytest.raises(LongtailError, match=r"model\.onnx"):
        export_run(ready, tmp_path)
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(LongtailError, match=r"longtail\[export\]"):
        export_run(ready, tmp_path / "model.onnx")
