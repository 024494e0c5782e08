"""Rate of a frozen network on a CPU, from files to features and to predictions: PyTorch, OpenVINO, OpenVINO alone.

python benchmarks/features.py SOURCE [SOURCE ...] --images 1000 --json docs/performance/features.json

For each source, its first images by equal steps: features of whole images and of four random crops of each, as `linear`
mode stores them, and predictions as `longtail predict` makes them, by PyTorch and by OpenVINO, decoding included; and
OpenVINO alone on pixels that are ready, the floor. Each round measures every side once, after the network is converted.
`--one-core` counts the processor's time with one thread in place of the clock, for a machine that is shared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from torch import Tensor

from longtail.config.schema import DataConfig, TrainingConfig
from longtail.console import Reporter
from longtail.data.dataset import Split
from longtail.data.loading.loaders import SinglePassLoader
from longtail.data.loading.workers import Decoder, decode_all
from longtail.data.sources.registry import load_source
from longtail.data.transforms.augmentation import BatchTransform
from longtail.device import named_device
from longtail.models.inference_engine import PixelBackbone, convert
from longtail.models.model import LongTailModel, build_model
from longtail.models.preprocessing import Preprocessing
from longtail.models.timm import timm_inputs
from longtail.predict.images import Item
from longtail.predict.predictor import Predictor
from longtail.run.model_files import ModelInfo, ModelSpec
from longtail.training.backbone_pass import backbone_pass
from longtail.training.engine import Engine
from longtail.training.forward_pass import ImageInputs
from longtail.training.frozen_features import FeatureStore

CPU = named_device("cpu")
BATCHES = (2, 8, 32)  # of OpenVINO alone: the fastest one is the floor
VIEWS = 4  # random crops of an image
HINTS = {"fp32": "f32", "bf16": "bf16"}


def feature_store(
    model: LongTailModel, look: Preprocessing, split: Split, engine: Any, precision: Any = "auto"
) -> FeatureStore:
    """A store that keeps nothing on disk, so that every call computes."""
    decoder = Decoder(split, look.square)
    return FeatureStore(
        Engine(TrainingConfig(device="cpu", engine=engine, precision=precision)),
        model,
        {"test": ImageInputs(SinglePassLoader(decoder, CPU), BatchTransform(look.mean, look.std))},
        {"test": decoder},
        Reporter(quiet=True),
        {"features": 0.0},
        DataConfig(cache=False),
        fixed=False,
    )


def alone(pixels: PixelBackbone, side: int, precision: str, batch: int) -> Callable[[Tensor], object]:
    """OpenVINO as its own documentation runs many images: the hint for throughput and a queue of requests."""
    import openvino

    network = convert(pixels, side)
    network.reshape({0: [batch, 3, side, side]})
    options = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": HINTS[precision]}
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(network, "CPU", options))

    def work(images: Tensor) -> None:
        for part in torch.split(images, batch):
            if len(part) == batch:
                queue.start_async({0: part.numpy()}, share_inputs=True)
        queue.wait_all()

    return work


def measure(source: str, images: int, network: str, repeats: int, *, one_core: bool) -> list[common.Row]:
    """The rows of one source; of processor time with ``one_core``, else by the clock."""
    inputs = timm_inputs(network)
    assert inputs is not None
    look = Preprocessing(inputs.size, inputs.mean, inputs.std, inputs.resize, inputs.interpolation)
    data = load_source(source)
    whole = data.splits["train"]
    split = whole.select(np.linspace(0, len(whole) - 1, min(images, len(whole))).astype(np.int64))
    model = build_model(network, len(data.classes), pretrained=True, in_size=look.size).eval()
    info = ModelInfo(ModelSpec(network, "linear"), data.classes, data.counts().counts, look)
    stores = {engine: feature_store(model, look, split, engine) for engine in ("torch", "openvino")}
    precision = stores["torch"].engine.config.precision
    items = [Item(str(row), stored["bytes"] or stored["path"] or "") for row, (_, stored) in enumerate(split.scan())]

    def features(engine: str) -> Callable[[], object]:
        store, rows = stores[engine], torch.arange(len(split))
        network = store.network  # converted before the clock starts
        return lambda: backbone_pass(store.engine, network, store.inputs["test"], rows)

    def crops(engine: str) -> Callable[[], object]:
        """Features of four random crops of a quarter of the images."""
        store, rows, views = stores[engine], torch.arange(len(split) // VIEWS), [(view,) for view in range(VIEWS)]
        transform = BatchTransform(look.mean, look.std, augmentation="random-resized-crop", size=look.size)
        inputs, network = replace(store.inputs["test"], transform=transform), store.network
        return lambda: backbone_pass(store.engine, network, inputs, rows, range(len(split)), views)

    def predictions(engine: Any) -> Callable[[], object]:
        predictor = Predictor.of(model, info, engine=engine)
        list(predictor.stream(items[:8]))
        return lambda: list(predictor.stream(items))

    ready = decode_all(Decoder(split, look.square)).float()
    pixels = PixelBackbone(model.backbone, look.mean, look.std).eval()

    def floors(arithmetic: str) -> dict[str, Callable[[], object]]:
        return {f"{arithmetic} {each}": partial(alone(pixels, look.size, arithmetic, each), ready) for each in BATCHES}

    sides = {f"features {engine}": features(engine) for engine in stores}
    sides |= {f"crops {engine}": crops(engine) for engine in stores}
    sides |= {f"predict {engine}": predictions(engine) for engine in stores}
    sides |= {name: work for each in {precision, "fp32"} for name, work in floors(each).items()}
    seconds = common.medians_of(sides, repeats, clock=time.process_time if one_core else time.perf_counter)
    rows = []
    for work, arithmetic, what in (
        ("features", precision, f"features of {len(split)} images"),
        ("crops", precision, f"features of {VIEWS} random crops of {len(split) // VIEWS} images"),
        ("predict", "fp32", f"predict of {len(split)} images"),
    ):
        floor = len(split) / min(seconds[f"{arithmetic} {batch}"] for batch in BATCHES)
        ours, other = (len(split) / seconds[f"{work} {engine}"] for engine in ("openvino", "torch"))
        name = Path(source.removeprefix("parquet:")).name
        title = f"{what} of {name}, {network}, {look.size} px, {arithmetic}{', one core' if one_core else ''}"
        rows.append(common.row(title, ours, other, "images/s", floor=floor, device=CPU))
    return rows


def main() -> None:
    """Measure every source and show the rows."""
    options = common.parser(__doc__ or "")
    options.add_argument("sources", nargs="+", metavar="SOURCE", help="as of longtail inspect")
    options.add_argument("--images", type=int, default=1000, metavar="N", help="images of each source")
    options.add_argument("--model", default="timm:tf_efficientnet_lite0", metavar="NAME", help="a network of timm")
    options.add_argument("--one-core", action="store_true", help="processor time of one thread in place of the clock")
    words = options.parse_args()
    if words.one_core:
        torch.set_num_threads(1)
    rows = [
        each
        for source in words.sources
        for each in measure(source, words.images, words.model, words.repeats, one_core=words.one_core)
    ]
    common.show(rows)
    common.rows_to_json(words.json, rows)


if __name__ == "__main__":
    main()
