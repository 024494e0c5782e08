"""A frozen backbone on OpenVINO gives the features that PyTorch gives."""

from __future__ import annotations

import copy
import errno
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from longtail.errors import LongtailError
from longtail.models import build_model, inference_engine
from longtail.models.inference_engine import WORTHWHILE, choose_engine, compile_backbone, openvino_problem
from longtail.models.model import LongTailModel
from longtail.models.preprocessing import Preprocessing
from longtail.models.timm import packaged_weights

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))


def compiled(model: LongTailModel, side: int, engine: Any = "openvino", **options: Any) -> LongTailModel:
    return compile_backbone(model, Preprocessing(side, MEAN, STD), images=1, engine=engine, **options)


def pixels(count: int, side: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def normalized(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (MEAN, STD))
    return (images.float() - mean) / std


@needs_openvino
@pytest.mark.parametrize(
    ("name", "side"),
    [("plain-cnn", 12), ("resnet20", 32), ("timm:tf_efficientnet_lite0", 64), ("timm:vit_tiny_patch16_224", 224)],
)
def test_features_and_logits_are_those_of_pytorch(name: str, side: int) -> None:
    torch.manual_seed(0)
    model = build_model(name, 5, in_size=side).eval()
    said: list[str] = []
    fast = compiled(model, side, say=said.append)
    assert fast.takes_pixels
    assert all(weight.requires_grad for weight in model.backbone.parameters()), "it can be trained further"
    assert len(said) == 1
    assert "OpenVINO" in said[0]
    assert not model.takes_pixels
    for count in (1, 19):
        images = pixels(count, side)
        with torch.inference_mode():
            for given in (images, images * 0.9):  # whole numbers, and those in between that a resized crop has
                expected = model(normalized(given), return_features=True)
                for ours, theirs in zip(fast(given, return_features=True), expected, strict=True):
                    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@needs_openvino
def test_features_of_real_photos_are_those_of_pytorch() -> None:
    photos = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2)
    crops = torch.cat(
        [photos[..., top : top + 96, left : left + 96] for top in (0, 160, 320) for left in (0, 250, 500)]
    )
    torch.manual_seed(0)
    name = "timm:tf_efficientnet_lite0"
    model = build_model(name, 5, pretrained=packaged_weights(name.removeprefix("timm:")) is not None, in_size=96).eval()
    with torch.inference_mode():
        ours, theirs = compiled(model, 96).backbone(crops), model.backbone(normalized(crops))
    assert float(((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max()) < 1e-4


@needs_openvino
def test_a_feature_depends_on_its_image_alone() -> None:
    torch.manual_seed(0)
    backbone = compiled(build_model("timm:tf_efficientnet_lite0", 5, in_size=64).eval(), 64).backbone
    images = pixels(11, 64)
    whole, turned = backbone(images), backbone(images.flip(0)).flip(0)
    alone = torch.cat([backbone(image) for image in images.split(1)])
    assert torch.equal(turned, whole)
    assert torch.equal(alone, whole)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(features, whole) for features in pool.map(backbone, [images] * 8))


@needs_openvino
def test_an_error_among_the_parts_of_a_stream_is_raised() -> None:
    backbone: Any = compiled(build_model("plain-cnn", 5).eval(), 12).backbone
    out = np.zeros((9, backbone.num_features), np.float32)

    def parts() -> Iterator[tuple[Tensor, Any]]:
        yield pixels(9, 12), out
        raise LongtailError("damaged")

    with pytest.raises(LongtailError, match="damaged"):
        backbone.stream(parts())
    assert torch.isfinite(backbone(pixels(9, 12))).all(), "it can be used further"


@needs_openvino
def test_a_converted_network_is_read_the_next_time(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("plain-cnn", 5).eval()
    other = copy.deepcopy(model)
    nn.init.ones_(other.backbone.project.bias)  # type: ignore[arg-type]
    results, times = [], []
    for network, side in ((model, 12), (model, 12), (other, 12), (model, 16)):
        results.append(compiled(network, side)(pixels(3, side)))
        times.append({file: file.stat().st_mtime_ns for file in (tmp_path / "cache").glob("*.network/*")})
    assert torch.equal(results[1], results[0])
    assert times[1] == times[0]
    assert [len(files) for files in times] == [2, 2, 4, 6], "an XML and a BIN for each network and side"


@needs_openvino
@pytest.mark.parametrize("damage", ["zeros", "cut", "gone"])
def test_a_damaged_network_is_converted_again(damage: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, said = build_model("plain-cnn", 5).eval(), list[str]()
    expected = compiled(model, 12)(pixels(3, 12))
    (weights,) = (tmp_path / "cache").glob("*.network/*.bin")
    whole = weights.read_bytes()
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes(bytes(len(whole)) if damage == "zeros" else whole[: len(whole) // 2])
    again = compiled(model, 12, say=said.append)
    assert torch.equal(again(pixels(3, 12)), expected)
    assert said == ["the network runs on OpenVINO (fp32)."]
    assert weights.read_bytes() == whole


@needs_openvino
@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
def test_a_good_network_stays_where_the_machine_cannot_read_it(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model("plain-cnn", 5).eval()
    compiled(model, 12)
    stored = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").glob("*.network/*")}
    monkeypatch.setattr(inference_engine, "_network", Mock(side_effect=error))
    with pytest.raises(LongtailError, match="cannot run"):
        compiled(model, 12)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").glob("*.network/*")} == stored


@needs_openvino
def test_a_full_disk_keeps_no_half_of_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    def fill_the_disk(network: Any, path: Path, **_: Any) -> None:
        path.with_suffix(".bin").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(openvino, "save_model", fill_the_disk)
    model = build_model("plain-cnn", 5).eval()
    assert compiled(model, 12).takes_pixels
    assert not list((tmp_path / "cache").glob("*.network")) + list((tmp_path / "cache").glob("*.unfinished"))


@needs_openvino
def test_images_of_another_shape_are_refused() -> None:
    network = compiled(build_model("plain-cnn", 5).eval(), 12, store=False)
    for shape in ((2, 1, 12, 12), (2, 3, 12, 1), (2, 3, 16, 16)):
        with pytest.raises(ValueError, match="shape"):
            network.backbone(torch.zeros(shape))
    assert network.backbone(torch.zeros(0, 3, 12, 12)).shape == (0, 64)


@needs_openvino
def test_the_head_stays_in_its_mode() -> None:
    model = build_model("plain-cnn", 5).eval()
    model.head.train()
    assert compiled(model, 12, store=False).head.training


CONVERTS = """
import multiprocessing, sys
from longtail.models import build_model
from longtail.models.inference_engine import compile_backbone
from longtail.models.preprocessing import Preprocessing
look = Preprocessing(8, (0.5,) * 3, (0.5,) * 3)
compile_backbone(build_model("plain-cnn", 3).eval(), look, images=1, engine="openvino", store=False)
sys.exit(len(multiprocessing.active_children()))
"""


@needs_openvino
@pytest.mark.skipif(importlib.util.find_spec("openvino_telemetry") is None, reason="it cannot report anything")
def test_neither_import_nor_conversion_is_reported(clean_environment: dict[str, str], tmp_path: Path) -> None:
    environment = {name: value for name, value in clean_environment.items() if name != "CI"}
    environment |= {"HOME": str(tmp_path), "LONGTAIL_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", CONVERTS], env=environment, check=True)
    assert not (tmp_path / "intel").exists()  # where it keeps the number of the user


ENDS_IN_A_THREAD = """
import signal, threading
import faulthandler
from longtail.models import build_model
from longtail.models.inference_engine import compile_backbone
from longtail.models.preprocessing import Preprocessing

faulthandler.enable()
signal.signal(signal.SIGINT, lambda *_: print("told"))
look = Preprocessing(8, (0.5,) * 3, (0.5,) * 3)
held = [compile_backbone(build_model("plain-cnn", 3).eval(), look, images=1, engine="openvino", store=False)]
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
signal.raise_signal(signal.SIGINT)
"""


@needs_openvino
def test_ctrl_c_works_after_a_network_has_ended_in_another_thread(clean_environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", ENDS_IN_A_THREAD]
    done = subprocess.run(command, env=clean_environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr


@needs_openvino
def test_what_runs_a_network_that_openvino_cannot_convert() -> None:
    class Odd(nn.Module):
        num_features = 3

        def forward(self, images: Tensor) -> Tensor:
            return torch.linalg.eigvals(images.mean(dim=1)).real[:, :3]

    model = LongTailModel(Odd(), nn.Linear(3, 2), name="odd", head_name="linear", num_classes=2).eval()
    said: list[str] = []
    look = Preprocessing(8, MEAN, STD)
    assert compile_backbone(model, look, images=WORTHWHILE, engine="auto", say=said.append) is model
    assert "odd" in said[0]
    assert "aten::linalg_eigvals" in said[0], "the cause"
    with pytest.raises(LongtailError, match="'odd'"):
        compile_backbone(model, look, images=1, engine="openvino")


def test_auto_converts_nothing_for_a_few_images() -> None:
    model = build_model("plain-cnn", 5).eval()
    assert compiled(model, 12, engine="auto") is model


def test_without_openvino_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtail.models.inference_engine.openvino_problem", lambda: "it is not installed")
    assert choose_engine("auto", CPU) == choose_engine("torch", CPU) == "torch"
    with pytest.raises(LongtailError, match="longtail\\[cpu\\]") as caught:
        choose_engine("openvino", CPU)
    assert "--engine openvino" in caught.value.for_command_line()


def test_an_openvino_that_cannot_be_loaded_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text("raise ImportError('libopenvino.so: cannot open shared object')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    openvino_problem.cache_clear()
    request.addfinalizer(openvino_problem.cache_clear)
    model, said = build_model("plain-cnn", 5).eval(), list[str]()
    look = Preprocessing(8, MEAN, STD)
    assert compile_backbone(model, look, images=WORTHWHILE, engine="auto", say=said.append) is model
    (words,) = said
    assert "libopenvino.so" in words
    assert compile_backbone(model, look, images=9, engine="auto", say=said.append) is model
    with pytest.raises(LongtailError, match="libopenvino"):
        compile_backbone(model, look, images=9, engine="openvino")
    assert len(said) == 1


def test_an_accelerator_is_pytorch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtail.models.inference_engine.openvino_problem", str)
    assert choose_engine("auto", torch.device("cuda")) == "torch"
    with pytest.raises(LongtailError, match="processor"):
        choose_engine("openvino", torch.device("cuda"))
