"""Rate of the candidate networks on one core, from pixels to features: OpenVINO, as `linear` mode uses it, and PyTorch.

python benchmarks/networks.py --precision fp32 --json docs/performance/networks.json

Each network at its sizes next to 128 and 224 pixels, with random weights, whose arithmetic is the same, on pixels that
are ready. PyTorch has the same precision and channels last, as in a run. Processor time of one thread, so that a
machine may be shared.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Literal

import common
import torch
from torch import Tensor, nn

from longtail.config.schema import TrainingConfig
from longtail.device import named_device
from longtail.models.candidate_networks import CANDIDATE_NETWORKS, CandidateNetwork
from longtail.models.inference_engine import compile_backbone
from longtail.models.model import build_model
from longtail.models.preprocessing import Preprocessing
from longtail.training.engine import Engine

CPU = named_device("cpu")
SIZES = (128, 224)  # pixels, or the multiple of the network's step below
IMAGES = 8


def main() -> None:
    """Measure every network at every size and show the rows."""
    options = common.parser(__doc__ or "")
    options.add_argument(
        "--precision", choices=["auto", "fp32", "bf16"], default="auto", help="arithmetic of both sides"
    )
    words = options.parse_args()
    torch.set_num_threads(1)
    rows = [measure(network, size, words.precision, words.repeats) for network in CANDIDATE_NETWORKS for size in SIZES]
    common.show(rows)
    common.rows_to_json(words.json, rows)


def measure(
    network: CandidateNetwork, largest: int, asked: Literal["auto", "fp32", "bf16"], repeats: int
) -> common.Row:
    """The row of a network at its size next below ``largest``."""
    size = network.sizes(largest)[-1]
    precision = Engine(TrainingConfig(device="cpu", precision=asked)).config.precision
    arithmetic: Literal["fp32", "bf16"] = "bf16" if precision == "bf16" else "fp32"
    look = Preprocessing(size, (0.5,) * 3, (0.25,) * 3)
    model = build_model(network.name, 2, in_size=size).eval()
    compiled = compile_backbone(model, look, images=IMAGES, engine="openvino", precision=arithmetic, store=False)
    pixels = torch.randint(0, 256, (IMAGES, 3, size, size), dtype=torch.uint8)
    plain = model.backbone.to(memory_format=torch.channels_last)  # as a run has it
    images = look.normalize(pixels).contiguous(memory_format=torch.channels_last)
    sides = {
        "openvino": partial(features, compiled.backbone, pixels, "fp32"),  # its own arithmetic is compiled in
        "torch": partial(features, plain, images, arithmetic),
    }
    seconds = common.medians_of(sides, repeats, clock=time.process_time)
    ours, other = (IMAGES / seconds[side] for side in sides)
    return common.row(
        f"features by {network.name}, {size} px, {arithmetic}, one core", ours, other, "images/s", device=CPU
    )


def features(backbone: nn.Module, images: Tensor, precision: str) -> None:
    """Pass images through a network, under autocast for bf16."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        backbone(images)


if __name__ == "__main__":
    main()
