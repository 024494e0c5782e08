"""A transformer at a size that is not its own: trained, asked for predictions, exported, and taken to another size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from digit_photos import write_digits
from hub_cache import write_weights

from longtail.models.timm import timm_module
from longtail.run.model_files import load_info, load_model

VIT = "test_vit.r160_in1k"
SHORT = ("--recipe", "images/ce", "--epochs", 1, "--data.workers", 0, "--data.validation_fraction", 0, "--quiet")


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos of digits, next to a cache of the hub that has the weights of a small transformer for 160 pixels."""
    torch.manual_seed(0)
    write_weights(tmp_path / "hub", f"timm/{VIT}", timm_module().create_model(VIT))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return write_digits(tmp_path / "digits", 6)


@pytest.mark.parametrize(("mode", "size"), [("linear", 48), ("scratch", 32)])
def test_a_transformer_at_another_size_from_training_to_export(
    cli: Callable[..., Any], digits: Path, mode: str, size: int
) -> None:
    network = ("--model.name", f"timm:{VIT}", "--data.image_size", size)
    done = cli("train", digits, "--out", "run", "--mode", mode, *network, *SHORT)
    assert done.status == 0, done.err
    assert load_info("run").preprocessing.size == size
    model, _ = load_model("run")
    assert model.backbone.trunk.pos_embed.shape[1] == 1 + (size // 16) ** 2
    done = cli("predict", "run", digits, "--out", "answers.csv")
    assert done.status == 0, done.err
    done = cli("export", "run", "--format", "torch", "--out", "model.pt2", "--images", digits)
    assert done.status == 0, done.err
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason="the extra 'export' is not installed")
    done = cli("export", "run", "--out", "model.onnx", "--images", digits)  # which compares probabilities
    assert done.status == 0, done.err


def test_weights_of_a_run_of_another_size_are_resampled(cli: Callable[..., Any], digits: Path) -> None:
    network = ("--model.name", f"timm:{VIT}")
    done = cli("train", digits, "--out", "small", "--mode", "scratch", *network, "--data.image_size", 32, *SHORT)
    assert done.status == 0, done.err
    from_small = ("--model.weights", "small", "--mode", "linear", "--data.image_size", 64)
    done = cli("train", digits, "--out", "large", *network, *from_small, *SHORT)
    assert done.status == 0, done.err
    small, large = (load_model(run)[0].backbone.state_dict() for run in ("small", "large"))
    assert [name for name in small if not torch.equal(small[name], large[name])] == ["trunk.pos_embed"]


def test_a_size_that_patches_do_not_divide_is_refused(cli: Callable[..., Any]) -> None:
    done = cli("train", "digits", "--out", "run", "--model.name", f"timm:{VIT}", "--data.image_size", 126)
    assert done.status == 2
    assert "--data.image_size" in done.complaint
    assert "112 or 128" in done.complaint
