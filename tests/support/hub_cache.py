"""The cache of the Hugging Face hub as an earlier download leaves it: a stand-in for published weights."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save
from torch import nn


def write_weights(cache: Path, repository: str, content: nn.Module | bytes) -> Path:
    """Write one snapshot of a repository, and the branch that points there; return the file of weights.

    Args:
        cache: What ``huggingface_hub.constants.HF_HUB_CACHE`` is set to.
        repository: ``timm/NAME``.
        content: A network, or the bytes of the file.
    """
    root = cache / f"models--{repository.replace('/', '--')}"
    path = root / "snapshots" / "c0ffee" / "model.safetensors"
    for file, data in (
        (root / "refs" / "main", b"c0ffee"),
        (path, content if isinstance(content, bytes) else save(content.state_dict())),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path
