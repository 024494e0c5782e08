"""Each loss, forward and backward, against the cross-entropy of PyTorch in the same run; eager and compiled.

python benchmarks/losses.py --json docs/performance/losses.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from common import (
    Row,
    best_device,
    keep_memory,
    median_of,
    medians_of,
    memory_bandwidth,
    parser,
    row,
    rows_to_json,
    show,
)
from torch import Tensor
from torch.nn import functional

from longtail.losses import LOSSES, LongTailLoss, build_loss

SHAPES = ((128, 100), (512, 1000), (512, 8142))
FEATURES = 64
RANDOM = ("gcl", "agcl", "feature-noise")
PROGRESS = 0.7  # whatever a method switches on during training is on
_CACHED = 8 << 20  # logits of fewer bytes stay in a cache: the bandwidth of the memory is not their floor

Step = Callable[[], None]


def main() -> None:
    """Measure each shape: all losses in turns with cross-entropy."""
    options = parser(__doc__ or "")
    options.add_argument("--quick", action="store_true", help="the two smaller shapes only")
    options.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), metavar="NAME")
    options.add_argument("--no-compile", action="store_true", help="eager only")
    flags = options.parse_args()
    keep_memory()
    bandwidth = memory_bandwidth()
    rows: list[Row] = []
    for shape in SHAPES[:2] if flags.quick else SHAPES:
        for compiled in (False,) if flags.no_compile else (False, True):
            rows += measure(flags, shape, compiled, bandwidth)
    show(rows)
    rows_to_json(flags.json, rows)


def measure(flags: argparse.Namespace, shape: tuple[int, int], compiled: bool, bandwidth: float) -> list[Row]:
    """The rows of one shape."""
    size, way = f"{shape[0]} x {shape[1]}", "compiled" if compiled else "eager"
    least = median_of(sum_step(shape), flags.repeats, warmup=3) * 1e3
    rows = []
    for name in flags.losses:
        torch._dynamo.reset()  # losses share their forward: one after another they would look like recompilations
        sides = {"ours": step(name, shape, compiled), "other": step(None, shape, compiled)}
        seconds = medians_of(sides, flags.repeats, warmup=3)
        rows.append(
            row(
                f"loss {name}, {size}, {way}",
                seconds["ours"] * 1e3,
                seconds["other"] * 1e3,
                "ms",
                higher_is_better=False,
                floor=floor(name, shape, bandwidth) or least,
            )
        )
    if not compiled:
        blank = torch.empty(shape, device=best_device())
        seconds = medians_of({"ours": blank.normal_, "other": step(None, shape, False)}, flags.repeats)
        title = f"drawing the noise alone, {size}"
        rows.append(row(title, seconds["ours"] * 1e3, seconds["other"] * 1e3, "ms", higher_is_better=False))
    return rows


def step(name: str | None, shape: tuple[int, int], compiled: bool) -> Step:
    """Forward and backward of a loss on fixed inputs; of PyTorch's cross-entropy for ``None``."""
    device = best_device()
    batch, classes = shape
    torch.manual_seed(0)
    logits = (torch.randn(shape, device=device) / 3).clamp_(-1, 1).requires_grad_()
    features = torch.randn(batch, FEATURES, device=device, requires_grad=True)
    target = torch.randint(classes, (batch,), device=device)
    loss: Callable[..., Tensor] = plain if name is None else build(name, classes).to(device)
    if compiled:
        loss = torch.compile(loss, fullgraph=True, dynamic=False, options=compiler_options(device))

    def run() -> None:
        logits.grad = features.grad = None
        loss(logits, target, features).backward()

    return run


def sum_step(shape: tuple[int, int]) -> Step:
    """The least that anything with a gradient does: read the logits once, write a gradient once, one call each."""
    logits = torch.zeros(shape, device=best_device(), requires_grad=True)

    def run() -> None:
        logits.grad = None
        logits.sum().backward()

    return run


def compiler_options(device: torch.device) -> dict[str, bool]:
    """The compiler's own random numbers are slow on processors: PyTorch's are drawn instead there."""
    return {"fallback_random": device.type == "cpu"}


def plain(logits: Tensor, target: Tensor, _features: Tensor) -> Tensor:
    """The reference of every measurement here."""
    return functional.cross_entropy(logits, target)


def build(name: str, classes: int) -> LongTailLoss:
    """The loss with its default options for exponentially falling counts of ratio 100."""
    loss = build_loss(name, [round(500 * 0.01 ** (index / (classes - 1))) for index in range(classes)])
    if loss.needs_classifier:
        loss.attach_classifier(torch.nn.Linear(FEATURES, classes, device=best_device()))
    loss.progress = PROGRESS
    return loss


def floor(name: str, shape: tuple[int, int], bandwidth: float) -> float | None:
    """Milliseconds to read the logits (and noise) once and write their gradient once; nothing for what is cached."""
    size = 4 * shape[0] * shape[1]
    return None if size < _CACHED else (2 + (name in RANDOM)) * size / bandwidth * 1e3


if __name__ == "__main__":
    main()
