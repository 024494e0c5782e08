"""Heads: linear and cosine classifiers, and either with one learned scale per class."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from longtail.errors import LongtailError, nearest

HeadName: TypeAlias = Literal["linear", "cosine", "scaled-linear", "scaled-cosine"]
HEAD_NAMES: tuple[HeadName, ...] = get_args(HeadName)
_SMALLEST_NORM = 1e-12


class LinearHead(nn.Linear):
    """``z = W f + b``: a linear layer with Kaiming-normal weights and a bias that starts at zero.

    Args:
        num_features: Feature size D.
        num_classes: Classes C.

    Example:
        >>> LinearHead(64, 10)(torch.zeros(2, 64)).tolist() == [[0.0] * 10] * 2
        True
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__(num_features, num_classes)

    def reset_parameters(self) -> None:
        """Draw the weights anew and set the bias to zero."""
        nn.init.kaiming_normal_(self.weight)
        nn.init.zeros_(self.bias)


class CosineHead(nn.Module):
    """``cos_j``: the cosine between the feature and the weight of each class, in [-1, 1].

    Both are divided by their Euclidean norm, so neither the length of a feature nor that of a class weight, which
    grows with the number of training images, takes part in the decision. It computes in float32 where its input is
    half precision, autocast included, because the losses magnify a cosine by 15 to 30. A feature of norm zero has
    cosine 0 with every class and a finite gradient.

    Args:
        num_features: Feature size D.
        num_classes: Classes C.

    Example:
        >>> head = CosineHead(3, 2)
        >>> feature = torch.tensor([[1.0, 2.0, 3.0]])
        >>> torch.allclose(head(feature), head(10 * feature))
        True
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.in_features = num_features
        self.out_features = num_classes
        self.weight = nn.Parameter(torch.empty(num_classes, num_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every class weight anew, a random direction of norm one."""
        nn.init.normal_(self.weight)
        with torch.no_grad():
            self.weight.copy_(_unit_rows(self.weight))

    def forward(self, features: Tensor) -> Tensor:
        """Return cosines of shape (N, C), float32 or float64, for features of shape (N, D)."""
        with torch.autocast(features.device.type, enabled=False):
            cosine = F.linear(_unit_rows(_at_least_float32(features)), _unit_rows(_at_least_float32(self.weight)))
        # Rounding may leave a cosine at 1 + 1e-7, of which no angle can be taken.
        return cosine.clamp(-1.0, 1.0)

    def extra_repr(self) -> str:
        """Return the sizes, shown when a model is printed."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


class ScaledHead(nn.Module):
    """A trained head held fixed, with one learned factor per class on its logits (learnable weight scaling, LWS).

    Source: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020, section 4.

    Args:
        head: A head with logits of shape (N, C); its parameters stop being trained.
        num_classes: Classes C.

    Example:
        >>> head = ScaledHead(LinearHead(4, 3), 3)
        >>> [name for name, value in head.named_parameters() if value.requires_grad]
        ['scale_logits']
    """

    def __init__(self, head: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.head = head.requires_grad_(False)
        self.scale_logits = nn.Parameter(torch.ones(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Return ``s_j z_j``, shape (N, C), for features of shape (N, D)."""
        return cast("Tensor", self.head(features)) * self.scale_logits


def build_head(name: str, num_features: int, num_classes: int) -> nn.Module:
    """Return a new head by its name: ``linear``, ``cosine``, ``scaled-linear`` or ``scaled-cosine``.

    Raises:
        LongtailError: A name that is none of these.

    Example:
        >>> build_head("cosine", 64, 10)
        CosineHead(in_features=64, out_features=10)
    """
    if name not in HEAD_NAMES:
        raise LongtailError(f"There is no head {name!r}.{nearest(name, HEAD_NAMES)}")
    plain = LinearHead if name.endswith("linear") else CosineHead
    head = plain(num_features, num_classes)
    return ScaledHead(head, num_classes) if name.startswith("scaled-") else head


def linear_map(head: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return the weight (C, D) and the bias (C,) of a head, float32 on the CPU; the bias of a cosine head is None.

    The learned scale of each class, where there is one, is multiplied in.

    Example:
        >>> weight, bias = linear_map(build_head("scaled-linear", 4, 3))
        >>> weight.shape, bias.shape, linear_map(CosineHead(4, 3))[1]
        (torch.Size([3, 4]), torch.Size([3]), None)
    """
    plain: Any = head.head if isinstance(head, ScaledHead) else head
    scale = head.scale_logits.detach().cpu().float() if isinstance(head, ScaledHead) else torch.ones(1)
    bias = getattr(plain, "bias", None)
    weight = plain.weight.detach().cpu().float() * scale[:, None]
    return weight, None if bias is None else bias.detach().cpu().float() * scale


def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _unit_rows(rows: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    # Dividing by one, not by a tiny number, keeps the gradient of a zero row at ordinary size.
    return rows / torch.where(norm > _SMALLEST_NORM, norm, torch.ones_like(norm))
