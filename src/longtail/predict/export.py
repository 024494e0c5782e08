"""export_run: write a trained model as one ONNX or torch.export file that needs no longtail, checked on images."""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from longtail.errors import LongtailError
from longtail.files import is_stream, output_path, write_atomically
from longtail.models import LongTailModel
from longtail.predict.hub import local_run, model_card
from longtail.predict.images import Item, as_items
from longtail.predict.predictor import Predictor, read_batches
from longtail.run.layout import EXAMPLES_FILE
from longtail.run.model_files import ModelInfo, load_run
from longtail.run.tables import read_examples

Format: TypeAlias = Literal["onnx", "torch"]
InputType: TypeAlias = Literal["uint8", "float32"]
Squares: TypeAlias = npt.NDArray[np.uint8]
Outputs: TypeAlias = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]  # probabilities (N, C), labels (N,)
OPSET: Final = 18
TOLERANCE: Final = 1e-4  # of a probability
PADDING: Final = "one color, the mean of first and last row and first and last column of the scaled image, rounded"
METADATA_NAME: Final = "metadata.json"  # within a torch.export archive
_MOST_ONNX = 2**31 - 2**24  # bytes of weights; a file of less than 2 GB holds the graph too
_IMAGES_CHECKED = 256
_BATCH = 32


@dataclass(frozen=True)
class ExportReport:
    """The file that was written, and its difference from the model it came from.

    Attributes:
        out: The file.
        card: The model card next to it; None if ``out`` is a stream.
        images: Number of images that the two were compared on.
        largest_difference: Of any probability of any of those images.
    """

    out: Path
    card: Path | None
    images: int
    largest_difference: float

    def __str__(self) -> str:
        """Return one line."""
        return (
            f"the same label as the PyTorch model for all {self.images} images, "
            f"probabilities within {self.largest_difference:.1e}"
        )


class Deployed(nn.Module):
    """A model for export: from pixels to probabilities, with normalization and adjustment inside.

    Args:
        model: The network.
        info: Its information.

    Example:
        >>> from longtail.models.preprocessing import Preprocessing
        >>> from longtail.run.model_files import ModelSpec
        >>> from longtail.models import build_model
        >>> looks = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> info = ModelInfo(ModelSpec("plain-cnn", "linear"), ("cat", "lynx"), (90, 10), looks)
        >>> probabilities, label = Deployed(build_model("plain-cnn", 2), info)(torch.zeros(3, 3, 8, 8))
        >>> probabilities.shape, label.shape
        (torch.Size([3, 2]), torch.Size([3]))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: LongTailModel, info: ModelInfo) -> None:
        super().__init__()
        self.model = model
        self.info = info
        for name in ("mean", "std"):
            values = torch.tensor(getattr(info.preprocessing, name), dtype=torch.float32)
            self.register_buffer(name, values.view(1, 3, 1, 1) * 255)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities, float32 (N, C), and the index of the largest, int64 (N,).

        Args:
            images: RGB of shape (N, 3, S, S), 0 to 255, uint8 or float32.
        """
        logits = self.model((images.to(torch.float32) - self.mean) / self.std)
        probabilities = torch.softmax(self.info.scores(logits), dim=1)
        return probabilities, probabilities.argmax(dim=1)


def export_run(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: Format = "onnx",  # noqa: A002 - as on the command line
    input_type: InputType = "uint8",
    images: str | None = None,
) -> ExportReport:
    """Write a run as one file that needs no longtail, after a comparison with the model on real images.

    The file takes RGB images (N, 3, S, S) of 0 to 255, any N, and gives ``probabilities`` (N, C) and ``label`` (N,).
    Normalization and post-hoc adjustment are inside; scaling an image to S x S is not, because no two libraries do it
    alike: the rule is in the metadata (:func:`metadata`), with the class names. A model card is written next to it.

    Args:
        run: The RUN folder, or ``hf:OWNER/NAME``.
        out: The file to write, replaced if it exists; or a stream, ``-`` for the standard output.
        format: ``onnx``, or ``torch`` for an archive that ``torch.export.load`` reads.
        input_type: Type of the input.
        images: Images to compare on, as for :func:`longtail.predict.images.find_images`; by default those that the
            run keeps in ``examples.parquet``. 256 are used at most.

    Raises:
        LongtailError: No such run or images, a missing package, or a result that differs; then nothing is written.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" and find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        raise _error(f"format='onnx' needs {names}: pip install 'longtail[export]'.")
    folder, path = Path(local_run(run, with_figures=True)), output_path(out)
    if path.is_dir():
        file = path / ("model.onnx" if format == "onnx" else "model.pt2")
        raise LongtailError(f"{path} is a folder: name the file to write, {file}.")
    model, info = load_run(folder)
    squares, text = _squares(folder, info, images), model_card(folder)  # a damaged run is reported first
    # Without gradients, which the outputs of the exported model would require as well.
    deployed = Deployed(model, info).eval().requires_grad_(False)
    if format == "onnx" and sum(values.nbytes for values in deployed.state_dict().values()) > _MOST_ONNX:
        raise _error(f"{path} would be larger than the 2 GB of an ONNX file: use format='torch'.")
    data = (_to_onnx if format == "onnx" else _to_torch)(deployed, input_type)
    difference = _compare(data, Predictor.of(model, info), squares, format=format, input_type=input_type)
    card = None if is_stream(path) else path.with_name(f"{path.name}.md")
    write_atomically(path, data)
    if card is not None:
        write_atomically(card, text.encode())
    return ExportReport(path, card, len(squares), difference)


def metadata(info: ModelInfo, input_type: InputType = "uint8") -> dict[str, str]:
    """Return the metadata of an exported file: every value is a text, lists and mappings as JSON."""
    preprocessing = info.preprocessing
    size = preprocessing.size
    # Only the keys of the fit are there, so that a program that knows another one alone fails, not predicts.
    steps: dict[str, dict[str, object]] = {
        "crop": {"shorter_side": preprocessing.resize or size, "crop": size, "crop_place": "centre"},
        "pad": {"longer_side": size, "image_place": "centre", "padding": PADDING},
        "stretch": {"width": size, "height": size},
    }
    rule = {  # its keys are promised, so they keep their British spelling
        "colour": "RGB, transparency laid over white, turned as EXIF says",
        "fit": preprocessing.fit,
        **steps[preprocessing.fit],
        "interpolation": preprocessing.interpolation,
        "scaling": "anti-aliased as Pillow does" + (", and cropped in one step" if preprocessing.fit == "crop" else ""),
        "layout": "NCHW",
        "type": input_type,
        "range": [0, 255],
        "normalisation": "inside the file",
        "mean": preprocessing.mean,
        "std": preprocessing.std,
    }
    return {
        "classes": _json(info.classes),
        "train_counts": _json(info.counts),
        "preprocessing": _json(rule),
        "adjustment": _json(dict(info.adjustment.chosen) if info.adjustment else {}),
        "threshold": _json(info.threshold),
        "recipe": info.recipe,
        "network": info.model.name,
        "producer": f"longtail {info.versions.get('longtail', '')}".strip(),
    }


def _error(message: str) -> LongtailError:
    """An error whose arguments are options on the command line."""
    options = {
        "format='torch'": "--format torch",
        "format='onnx'": "--format onnx",
        "images=FOLDER": "--images FOLDER",
        "other format": "other --format",
    }
    return LongtailError(message, options=options)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _squares(folder: Path, info: ModelInfo, images: str | None) -> Squares:
    """The images to compare on, uint8 (N, 3, S, S)."""
    examples = read_examples(folder, len(info.classes)) if images is None else ()
    if images is None and not examples:
        raise _error(f"{folder} keeps no images to check the result on: name yours, images=FOLDER.")
    source = str(folder / EXAMPLES_FILE) if images is None else images
    items = as_items(images) if images is not None else (Item("", example.image) for example in examples)
    batches = read_batches(islice(items, _IMAGES_CHECKED), info.preprocessing, batch_size=_BATCH)
    pixels = [np.asarray(image.source) for batch in batches for image in batch if not image.problem]
    if not pixels:
        raise _error(f"none of the files in {source!r} is an image: name others, images=FOLDER.")
    return np.ascontiguousarray(np.stack(pixels).transpose(0, 3, 1, 2))


def _program(deployed: Deployed, input_type: InputType) -> torch.export.ExportedProgram:
    size = deployed.info.preprocessing.size
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8 if input_type == "uint8" else torch.float32)
    with _quiet(), torch.no_grad():
        return torch.export.export(deployed, (example,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})


def _to_torch(deployed: Deployed, input_type: InputType) -> bytes:
    buffer = io.BytesIO()
    text = _json(metadata(deployed.info, input_type))
    with _quiet():
        torch.export.save(_program(deployed, input_type), buffer, extra_files={METADATA_NAME: text})
    return buffer.getvalue()


def _to_onnx(deployed: Deployed, input_type: InputType) -> bytes:
    import onnx

    with _quiet():
        program = torch.onnx.export(
            _program(deployed, input_type),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities", "label"],
            verbose=False,
        )
    assert program is not None
    proto: Any = program.model_proto
    _tidy(proto)
    onnx.helper.set_model_props(proto, metadata(deployed.info, input_type))
    proto.producer_name = "longtail"
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString()
    return data


def _tidy(proto: Any) -> None:
    """Name the batch dimension, and remove the exporter's notes on our source files."""
    graph = proto.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        del value.metadata_props[:]
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == batch:
                dimension.dim_param = "batch"
    for node in (*graph.node, *graph.initializer, *(node for function in proto.functions for node in function.node)):
        del node.metadata_props[:]
        node.doc_string = ""


def _compare(data: bytes, predictor: Predictor, squares: Squares, *, format: Format, input_type: InputType) -> float:  # noqa: A002
    """Run both models on the same images, in batches of several sizes; return the largest difference."""
    probabilities, labels = _run(data, squares.astype(input_type), format)
    expected = predictor.probabilities(squares.transpose(0, 2, 3, 1), batch_size=_BATCH)
    difference = float(np.abs(probabilities - expected).max())
    other = int((labels != expected.argmax(axis=1)).sum())
    if other or not difference <= TOLERANCE:
        raise _error(
            f"the exported model differs from the PyTorch model ({other} of {len(squares)} labels, probabilities by up "
            f"to {difference:.1e}), so that nothing was written: use the other format, or report this network."
        )
    return difference


def _run(data: bytes, images: npt.NDArray[Any], format: Format) -> Outputs:  # noqa: A002
    """Run an exported model on one image alone, then on full batches and the rest, as only a dynamic batch allows."""
    batches = [images[:1], *(images[start : start + _BATCH] for start in range(1, len(images), _BATCH))]
    parts: list[Any]
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        parts = [session.run(["probabilities", "label"], {"images": batch}) for batch in batches]
    else:
        with _quiet(), torch.inference_mode():
            module = torch.export.load(io.BytesIO(data)).module()
            parts = [[output.numpy() for output in module(torch.from_numpy(batch))] for batch in batches]
    probabilities, labels = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
    return probabilities, labels


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the notes of PyTorch's exporter, which are for its developers."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(before)
