"""Training state divided among processes: each keeps its share of the weights, their gradients and the optimizer's."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def divide(network: Network, device: torch.device) -> Network:
    """Return a copy of a network of which each process keeps a share; a block is whole while it computes.

    References:
        [1] Zhao et al., PyTorch FSDP: experiences on scaling fully sharded data parallel, VLDB 2023.

    Args:
        network: Unchanged; every process has the same.
        device: Of the shares.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    divided = copy.deepcopy(network)
    for parameter in divided.parameters():  # in rows, of which shares are made
        parameter.data = parameter.data.contiguous()
    for block in reversed(list(blocks(divided))):  # inner ones first
        fully_shard(block, mesh=mesh)
    fully_shard(divided, mesh=mesh)
    return divided


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The elements of sequences that consist of layers, such as residual blocks and transformer blocks."""
    for sequence in network.modules():
        if isinstance(sequence, nn.Sequential | nn.ModuleList):
            for block in sequence:
                if any(block.children()) and not isinstance(block, nn.Sequential | nn.ModuleList):
                    yield block


def collect(divided: nn.Module, network: nn.Module) -> None:
    """Copy the weights and buffers of a divided network into the whole one; every process has to call this."""
    network.load_state_dict(undivided(divided.state_dict()))


def undivided(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the shares of all processes together, in host memory; every process has to call this, and gets all.

    Example:
        >>> undivided({"bias": torch.zeros(2)})
        {'bias': tensor([0., 0.])}
    """
    whole: dict[str, Tensor] = {}
    for name, values in tensors.items():
        shares: Any = values
        whole[name] = shares.full_tensor().cpu() if hasattr(values, "full_tensor") else values
    return whole


def share_of(values: Tensor, parameter: Tensor) -> Tensor:
    """Return the share of whole values that this process has of a divided parameter; every process has to call this.

    Args:
        values: The same on every process; those of another shape, such as a count of steps, stay whole.
        parameter: Divided.
    """
    if values.shape != parameter.shape:
        return values
    from torch.distributed.tensor import distribute_tensor

    divided: Any = parameter
    return distribute_tensor(values.to(parameter.device), divided.device_mesh, divided.placements)
