"""The optimizer of a stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from longtail.config.stage import OptimizerConfig
from longtail.device import can_fuse, prepare_torchvision


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer over the trainable parameters.

    Example:
        >>> make_optimizer(OptimizerConfig(lr=0.5), nn.Linear(2, 2)).param_groups[0]["lr"]
        0.5
    """
    groups = parameter_groups(model, config)
    options: Any = {"lr": config.lr, "weight_decay": config.weight_decay}
    momentum: Any = {"momentum": config.momentum, "nesterov": config.nesterov}
    if config.name == "muon":
        return _muon(config, model, groups, options | momentum)
    options["fused"] = can_fuse(parameter for group in groups for parameter in group["params"])
    if config.name == "adam":
        return torch.optim.Adam([part for group in groups for part in _split_by_penalty(group)], **options)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, **options)
    return torch.optim.SGD(groups, **options, **momentum)


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """The trainable parameters in one group; with ``layer_decay``, in groups of falling learning rate.

    References:
        [1] Clark et al., ELECTRA, ICLR 2020: layer-wise learning-rate decay; as timm implements it.

    Example:
        >>> [len(group["params"]) for group in parameter_groups(nn.Linear(2, 2), OptimizerConfig())]
        [2]
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.layer_decay is None:
        return [{"params": trainable}]
    from timm.optim import param_groups_layer_decay

    backbone: Any = model.get_submodule("backbone")
    layers = param_groups_layer_decay(
        backbone.trunk, weight_decay=config.weight_decay, layer_decay=config.layer_decay, verbose=False
    )
    below = {parameter for group in layers for parameter in group["params"]}
    above = [parameter for parameter in trainable if parameter not in below]
    return [*layers, {"params": above, "lr_scale": 1.0, "weight_decay": config.weight_decay}]


def _split_by_penalty(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Divide a group of parameters: biases and normalization are free, as the intercepts of logistic regression."""
    parts = [[each for each in group["params"] if (each.ndim > 1) is penalized] for penalized in (True, False)]
    return [group | {"params": parts[0]}, group | {"params": parts[1], "weight_decay": 0.0}]


def _muon(
    config: OptimizerConfig, model: nn.Module, groups: list[dict[str, Any]], options: dict[str, Any]
) -> torch.optim.Optimizer:
    """Muon for matrices and convolutions of the backbone; SGD or AdamW for the classifier and all vectors.

    References:
        [1] Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
    """
    prepare_torchvision()
    from timm.optim import Muon

    hidden = {value for name, value in model.named_parameters() if name.startswith("backbone.") and value.ndim > 1}
    matrices = [group | {"params": [each for each in group["params"] if each in hidden]} for group in groups]
    others = [group | {"params": [each for each in group["params"] if each not in hidden]} for group in groups]
    matrices, others = ([group for group in part if group["params"]] for part in (matrices, others))
    if config.sgd_lr is None or not others:
        adamw = [group | {"use_fallback": True} for group in others]
        muon: torch.optim.Optimizer = Muon([*matrices, *adamw], **options)
        return muon
    usual = OptimizerConfig()
    ratio = config.sgd_lr / config.lr
    for group in others:
        group["lr_scale"] = ratio * group.get("lr_scale", 1.0)
        group["weight_decay"] = usual.weight_decay
    sgd = torch.optim.SGD(others, lr=config.sgd_lr, momentum=usual.momentum, nesterov=config.nesterov)
    return JointOptimizer(Muon(matrices, **options), sgd) if matrices else sgd


class JointOptimizer(torch.optim.Optimizer):
    """Several optimizers of different parameters as one, whose groups and state are theirs.

    Example:
        >>> one, two = (nn.Parameter(torch.ones(1)) for _ in range(2))
        >>> joint = JointOptimizer(torch.optim.SGD([one], lr=0.5), torch.optim.AdamW([two], lr=0.25))
        >>> (one.sum() + two.sum()).backward(); joint.step()
        >>> one.item(), round(two.item(), 3)
        (0.5, 0.748)
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Let each make its step."""
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a loaded state, and hand each optimizer its groups."""
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            own = [next(groups) for _ in part.param_groups]
            part.__setstate__({"state": self.state, "param_groups": own})
