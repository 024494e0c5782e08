"""Agreement with the losses and gradients of published implementations, kept in tests/vectors/methods.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from longtail.losses import AngularGCLLoss, FBLoss, GCLLoss, KPSLoss, LDAMLoss, LongTailLoss

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "methods.json").read_text(encoding="utf-8"))["cases"]
BUILDERS: dict[str, tuple[type[LongTailLoss], dict[str, Any], float]] = {
    "gcl_stage1_s30_m0_a0.5": (GCLLoss, {}, 0.0),
    "gcl_s20_m0.1_a0.5": (GCLLoss, {"scale": 20.0, "margin": 0.1}, 0.0),
    "gcl_stage2_focal1_s20_m0.1_a0.5": (GCLLoss, {"scale": 20.0, "margin": 0.1, "focal_gamma": 1.0}, 0.0),
    "agcl_s30_m0_e0.1": (AngularGCLLoss, {}, 0.0),
    "agcl_s30_m0.1_e0.25": (AngularGCLLoss, {"noise": 0.25, "margin": 0.1}, 0.0),
    "kps_s15_m0.2": (KPSLoss, {}, 0.0),
    "kps_ga_s15_m0.2": (KPSLoss, {}, 0.6),
    "ldam_s30_m0.5": (LDAMLoss, {}, 0.0),
    "fbl_l60_c0.0": (FBLoss, {}, 0.0),
    # a(t) = 0.3 is linear progress 0.3; the vector names a, not t.
    "fbl_l60_c0.3": (FBLoss, {"curriculum": "linear"}, 0.3),
    "fbl_l60_c1.0": (FBLoss, {}, 1.0),
}


def close(actual: Tensor, expected: Any, rtol: float) -> None:
    wanted = torch.tensor(expected, dtype=torch.float64)
    # Entries far below the largest are float32 rounding in the vectors themselves.
    torch.testing.assert_close(actual.double(), wanted, rtol=rtol, atol=1e-7 * float(wanted.abs().max()))


def test_every_vector_of_a_loss_is_checked() -> None:
    names = {name for case in VECTORS for name in case["expected"] if not name.startswith("class_prob_")}
    assert names == set(BUILDERS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("index", range(len(VECTORS)))
@pytest.mark.parametrize("name", BUILDERS)
def test_agrees_with_vectors(name: str, index: int, dtype: torch.dtype) -> None:
    case, (make, options, progress) = VECTORS[index], BUILDERS[name]
    loss: Any = make(case["counts"], **options)
    loss.progress = progress
    noise = torch.tensor(case["noise"], dtype=dtype)
    loss.sample_noise = lambda like: noise
    logits = torch.tensor(case["cosine" if loss.head == "cosine" else "logits"], dtype=dtype, requires_grad=True)
    features = torch.tensor(case["features"], dtype=dtype, requires_grad=True)
    value = loss(logits, torch.tensor(case["target"]), features)
    value.backward()
    expected = case["expected"][name]
    close(value.detach(), float(expected["loss"]), rtol=1e-5)
    close(logits.grad, expected["grad"], rtol=1e-4)
    if "grad_features" in expected:
        close(features.grad, expected["grad_features"], rtol=1e-4)
