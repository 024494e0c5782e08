"""The engine that runs a frozen backbone on a CPU: PyTorch, or OpenVINO, which is faster."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from longtail.data.loading.cache_folder import NETWORK, UNFINISHED, Contents, keep_folder
from longtail.device import cores
from longtail.errors import LongtailError
from longtail.models.model import LongTailModel, weight_bytes
from longtail.models.preprocessing import Preprocessing

EngineName = Literal["auto", "torch", "openvino"]
"""What runs a network that is not trained; ``auto`` is OpenVINO where it is installed and knows the network."""
ChosenEngine = Literal["torch", "openvino"]
WORTHWHILE = 20_000_000
"""Pixels that take PyTorch about as long as OpenVINO with the conversion of the network: 400 images of 224 x 224."""
FORMAT = 1  # of stored networks; to raise when they are converted differently
PIECE_PIXELS = 2**17  # that a core computes at a time: two images of 224 x 224, and eight of 128 x 128 or less
_FILE = "network.xml"  # in the folder of a stored network; its weights lie next to it
_CHECKED = 3  # images that a conversion is checked with
_TOLERANCE = {"fp32": 1e-4, "bf16": 0.25}  # relative difference of their features; in bf16 photos differ by 0.09


def choose_engine(engine: EngineName, device: torch.device) -> ChosenEngine:
    """Return the engine for a device.

    Args:
        engine: The one asked for.
        device: Where the network runs; accelerators are PyTorch's.

    Raises:
        LongtailError: As :func:`check_engine`.

    Example:
        >>> choose_engine("torch", torch.device("cpu"))
        'torch'
    """
    check_engine(engine, device)
    if engine == "auto":
        return "openvino" if device.type == "cpu" and not openvino_problem() else "torch"
    return engine


def check_engine(engine: EngineName, device: torch.device) -> None:
    """Check that an engine can run networks on a device; ``auto`` always can.

    Raises:
        LongtailError: OpenVINO is asked for and cannot be loaded, or the device is an accelerator.

    Example:
        >>> check_engine("auto", torch.device("cpu"))
    """
    if engine != "openvino":
        return
    options = {"engine='torch'": "--engine torch", "engine='openvino'": "--engine openvino"}
    if device.type != "cpu":
        raise LongtailError(
            f"OpenVINO runs networks on the processor, not on {device}: set engine='torch', or choose the CPU as the "
            "device.",
            options=options,
        )
    if problem := openvino_problem():
        raise LongtailError(
            f"engine='openvino' needs OpenVINO ({problem}): pip install 'longtail[cpu]', or set engine='torch'.",
            options=options,
        )


@cache
def openvino_problem() -> str:
    """Return why OpenVINO cannot be used on this machine; empty where it can.

    Example:
        >>> openvino_problem() in ("", "it is not installed")
        True
    """
    if find_spec("openvino") is None:
        return "it is not installed"
    try:
        _openvino().Core  # noqa: B018 - any folder named openvino can be imported
    except Exception as error:  # whatever its libraries raise
        return _reason(error)
    return ""


def is_worthwhile(images: int, side: int) -> bool:
    """Whether converting a network takes less time than it saves for a number of images of a side.

    Example:
        >>> is_worthwhile(300, 224), is_worthwhile(500, 224)
        (False, True)
    """
    return images * side**2 >= WORTHWHILE


def engine_for(engine: EngineName, device: torch.device, *, images: int, side: int) -> ChosenEngine:
    """Return the engine for a number of images of a side: that of :func:`choose_engine`, if it is worthwhile.

    Example:
        >>> engine_for("auto", torch.device("cpu"), images=9, side=224)
        'torch'
    """
    chosen = choose_engine(engine, device)
    return "torch" if engine == "auto" and not is_worthwhile(images, side) else chosen


def engine_version(engine: ChosenEngine) -> str:
    """Return an engine with its version, which decides the last bits of a feature.

    Example:
        >>> engine_version("torch") == f"torch {torch.__version__}"
        True
    """
    if engine == "torch":
        return f"torch {torch.__version__}"
    return f"openvino {_openvino().__version__}"


class PixelBackbone(nn.Module):
    """A backbone with its normalization before it: from pixels in [0, 255] to features.

    Args:
        backbone: Normalized images (N, 3, H, W) to features (N, D).
        mean: Per-channel mean of RGB in [0, 1].
        std: Per-channel standard deviation of RGB in [0, 1].

    Example:
        >>> network = PixelBackbone(nn.Flatten(), (0.5,) * 3, (0.5,) * 3)
        >>> network(torch.full((1, 3, 1, 1), 255.0)).tolist()
        [[1.0, 1.0, 1.0]]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, D) of float32 images (N, 3, H, W)."""
        return cast("Tensor", self.backbone((images - self.mean) / self.std))


class OpenVinoBackbone(nn.Module):
    """A frozen backbone compiled by OpenVINO for images of one size; made by :func:`compile_backbone`.

    Images are cut into pieces that run at the same time, one on each core: small pieces stay near the caches, and no
    core waits for the others at every layer. Every piece has the same number of images, the last one filled up, so that
    the feature of an image does not depend on the images next to it.

    Args:
        network: An ``openvino.Model`` from float32 pixels (N, 3, S, S) in [0, 255] to features (N, D).
        num_features: Feature size D.
        precision: Arithmetic; ``bf16`` on processors that multiply in it.
        side: S.
    """

    takes_pixels = True

    def __init__(self, network: Any, num_features: int, *, precision: Literal["fp32", "bf16"], side: int) -> None:
        super().__init__()
        self.num_features, self.piece, self.shape = (
            num_features,
            min(8, max(2, PIECE_PIXELS // side**2)),
            (3, side, side),
        )
        network.reshape({0: [self.piece, *self.shape]})
        threads = torch.get_num_threads()
        options = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            # Pinned to the first cores, runs next to each other that have a core each would share one.
            "ENABLE_CPU_PINNING": threads >= cores(),
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        }
        self.compiled = _core().compile_model(network, "CPU", options)
        self.at_once = 2 * threads  # no core waits for the next piece

    def forward(self, images: Tensor) -> Tensor:
        """Return features, float32 (N, D), of pixels in [0, 255], uint8 or float (N, 3, S, S)."""
        features = np.empty((len(images), self.num_features), np.float32)
        self.stream([(images, features)])
        return torch.from_numpy(features)

    def stream(self, parts: Iterable[tuple[Tensor, npt.NDArray[np.float32]]]) -> None:
        """Compute the features of images that come in parts, the first of them while the others come.

        Without callbacks, in which a core would wait for the lock of the interpreter.

        Args:
            parts: Pixels in [0, 255], uint8 or float (N, 3, S, S), and the rows (N, D) that are filled with features.

        Raises:
            ValueError: Images of another shape.
        """
        idle = deque(self.compiled.create_infer_request() for _ in range(self.at_once))
        running: deque[tuple[Any, npt.NDArray[np.float32]]] = deque()

        def finish_first() -> None:
            request, rows = running.popleft()
            request.wait()
            rows[:] = request.get_output_tensor().data[: len(rows)]
            idle.append(request)

        try:
            for images, features in parts:
                pixels = images.numpy()
                if pixels.shape[1:] != self.shape:  # NumPy would stretch some
                    raise ValueError(f"The network takes images of shape {self.shape}, not {pixels.shape[1:]}.")
                for at in range(0, len(pixels), self.piece):
                    piece = pixels[at : at + self.piece]
                    if not idle:
                        finish_first()
                    request = idle.popleft()
                    request.get_input_tensor().data[: len(piece)] = piece  # becomes float32
                    request.start_async()
                    running.append((request, features[at : at + self.piece]))
            while running:
                finish_first()
        finally:  # where the parts have raised
            for request, _ in running:
                request.wait()


def compile_backbone(
    model: LongTailModel,
    preprocessing: Preprocessing,
    *,
    images: int,
    engine: EngineName,
    precision: Literal["fp32", "bf16"] = "fp32",
    store: bool = True,
    say: Callable[[str], object] = lambda _: None,
) -> LongTailModel:
    """Return a model with the same head whose backbone runs on an engine, for images that are not trained on.

    With OpenVINO the result takes pixels in [0, 255], which :attr:`LongTailModel.takes_pixels` says; the normalization
    is compiled with the backbone. Its features agree with PyTorch's to rounding, which is checked on a few images.

    Args:
        model: On its device, in evaluation mode; it stays as it is, and later changes of its weights do not reach the
            result.
        preprocessing: Size of the images, and the normalization that is compiled with the backbone.
        images: Number of images that it is for. Under ``auto``, less than :data:`WORTHWHILE` pixels stay with PyTorch.
        engine: The one asked for. A network that OpenVINO cannot convert stays with PyTorch under ``auto``.
        precision: Arithmetic of OpenVINO; PyTorch has that of its context.
        store: Keep the converted network in the cache: converting takes seconds.
        say: Called with one sentence on what runs the network, unless it is PyTorch as asked for.

    Raises:
        LongtailError: OpenVINO is asked for and cannot be loaded, or cannot run the network.

    Example:
        >>> from longtail.models import build_model
        >>> model, look = build_model("plain-cnn", 10).eval(), Preprocessing(8, (0.5,) * 3, (0.5,) * 3)
        >>> compile_backbone(model, look, images=9, engine="torch") is model
        True
    """
    device = next(model.parameters()).device
    if engine_for(engine, device, images=images, side=preprocessing.size) == "torch":
        is_missed = engine == "auto" and device.type == "cpu" and is_worthwhile(images, preprocessing.size)
        if is_missed and find_spec("openvino") is not None:
            say(f"PyTorch runs the network: OpenVINO cannot be loaded ({openvino_problem()}).")
        return model
    pixels = PixelBackbone(model.backbone, preprocessing.mean, preprocessing.std).eval()
    try:
        backbone = _compile(pixels, model.name, preprocessing.size, precision, store=store)
    except Exception as error:  # whatever the converter raises: it meets networks that nobody has tried
        if engine == "openvino":
            raise LongtailError(
                f"OpenVINO cannot run the network {model.name!r} ({_reason(error)}): set engine='torch'.",
                options={"engine='torch'": "--engine torch"},
            ) from error
        say(f"PyTorch runs the network: OpenVINO cannot run {model.name!r} ({_reason(error)}).")
        return model
    say(f"the network runs on OpenVINO ({precision}).")
    compiled = copy.copy(model)
    compiled._modules = dict(model._modules) | {"backbone": backbone.eval()}
    return compiled


def _compile(
    pixels: PixelBackbone, name: str, side: int, precision: Literal["fp32", "bf16"], *, store: bool
) -> OpenVinoBackbone:
    """Convert a network, or read it where it is stored; compile it, and compare a few features with PyTorch's."""
    digest = hashlib.sha256(f"{FORMAT} {engine_version('openvino')} {torch.__version__} {name} {side}".encode())
    for part in weight_bytes(pixels):
        digest.update(part)
    size = sum(value.nbytes for value in pixels.state_dict().values())

    def ready(folder: Path | None) -> OpenVinoBackbone:
        is_stored = folder is not None and folder.exists()
        try:
            return _checked(pixels, _network(pixels, side, folder), side, precision)
        except (MemoryError, OSError):  # of the machine, such as too many open files
            raise
        except Exception:
            if folder is None or not is_stored:
                raise
            for file in folder.iterdir():
                file.open("rb").close()  # OpenVINO does not tell too many open files from damage
            shutil.rmtree(folder)  # damaged: it was right when it was stored
            return _checked(pixels, _network(pixels, side, folder), side, precision)

    if not store:
        return ready(None)
    contents = Contents("network", "", f"{name} at {side} px", 0)
    return keep_folder(f"{digest.hexdigest()}{NETWORK}", size, ready, lambda _: contents)


def _checked(pixels: PixelBackbone, network: Any, side: int, precision: Literal["fp32", "bf16"]) -> OpenVinoBackbone:
    """Compile a network, and compare a few of its features with PyTorch's."""
    backbone = OpenVinoBackbone(network, cast("int", pixels.backbone.num_features), precision=precision, side=side)
    images = 255 * torch.rand(_CHECKED, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, computed = pixels(images), backbone(images)
    difference = float((computed - expected).norm() / expected.norm().clamp(min=1e-12))
    if not difference < _TOLERANCE[precision]:
        raise ValueError(f"its features differ from PyTorch's by {difference:.2g}")
    return backbone


def convert(pixels: PixelBackbone, side: int) -> Any:
    """Convert a backbone to an ``openvino.Model`` of any number of images, float32 (N, 3, S, S).

    Not by ``openvino.convert_model``, which reports each conversion to its makers unless the user has opted out.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    def features(images: Tensor) -> Tensor:
        return cast("Tensor", pixels(images))

    # As a function, whose weights are constants: tracing and reading a module takes three times as long.
    trained = [weight for weight in pixels.parameters() if weight.requires_grad]
    pixels.requires_grad_(False)
    try:
        with warnings.catch_warnings():  # of tracing: Python values that are fixed for images of this size
            warnings.simplefilter("ignore")
            # The caller compares the result with the network.
            example = torch.zeros(2, 3, side, side)
            traced = torch.jit.trace(features, example, check_trace=False)  # type: ignore[no-untyped-call]
    finally:
        for weight in trained:
            weight.requires_grad_(True)
    frontend, decoder = FrontEndManager().load_by_framework("pytorch"), TorchScriptPythonDecoder(traced)
    network = frontend.convert(frontend.load(decoder))  # which reads from the decoder: it has to stay
    network.reshape({0: [-1, 3, side, side]})
    return network


def _network(pixels: PixelBackbone, side: int, folder: Path | None) -> Any:
    """Read a converted network from its folder, or convert it, into the folder if there is one."""
    if folder is None or not folder.exists():
        network = convert(pixels, side)
        if folder is None or not _save(network, folder):
            return network
    # Also what was just written: what is read gives other last bits.
    return _core().read_model(folder / _FILE)


@cache
def _openvino() -> Any:
    """Import OpenVINO without its telemetry, which would report the import to its makers from a process of its own."""
    telemetry = "openvino_telemetry"
    if "openvino" in sys.modules or telemetry in sys.modules:
        return import_module("openvino")
    sys.modules[telemetry] = None  # type: ignore[assignment]  # its import fails, and OpenVINO takes its own stub
    try:
        return import_module("openvino")
    finally:
        del sys.modules[telemetry]


@cache
def _core() -> Any:
    """Return OpenVINO's core, one for the whole process.

    Its plugin for CPUs gives the thread that loads it a stack for signals, and frees that stack in whatever thread the
    plugin ends, the garbage collector's for example. Without it, Ctrl-C would be a segmentation fault.
    """
    return _openvino().Core()


def _save(network: Any, folder: Path) -> bool:
    """Write a network to a folder, all of it or nothing; return whether the disk took it."""
    unfinished = folder.with_suffix(UNFINISHED)
    with suppress(OSError, RuntimeError):  # the second is OpenVINO's
        unfinished.mkdir(exist_ok=True)
        _openvino().save_model(network, unfinished / _FILE, compress_to_fp16=False)
        for file in unfinished.iterdir():
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        unfinished.replace(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    return folder.exists()


def _reason(error: BaseException) -> str:
    r"""Return the last line of a message, where OpenVINO has the cause; before it come places in its source.

    Example:
        >>> _reason(RuntimeError("Exception from core.cpp:84:\n-- No rule for: aten::eig\n"))
        'No rule for: aten::eig'
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].lstrip("- ")[:200]
