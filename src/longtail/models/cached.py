"""Published weights that an earlier download left on this machine, for the times without a network."""

from __future__ import annotations

from pathlib import Path

# What timm looks for in a repository that names no file of its own, in this order.
_FILES = ("model.safetensors", "pytorch_model.bin")


def cached_weights(name: str) -> Path | None:
    """Return the file of a timm network's weights in the cache of the Hugging Face hub, or None. Asks no network.

    Args:
        name: A name of timm; what follows a ``+`` is ours and has no published weights.

    Example:
        >>> cached_weights("no-such-network") is None
        True
    """
    from huggingface_hub import try_to_load_from_cache

    from longtail.models.backbones import timm_module

    config = timm_module().get_pretrained_cfg(name.partition("+")[0], allow_unregistered=True)
    if config is None or not config.hf_hub_id:
        return None
    repository, _, revision = str(config.hf_hub_id).partition("@")
    for file in (config.hf_hub_filename,) if config.hf_hub_filename else _FILES:
        found = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(found, str):  # else it is unknown, or known not to exist
            return Path(found)
    return None
