"""Heads: linear and cosine classifiers, either with one learned scale per class or on standardized features."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from longtail.device import float64_device
from longtail.errors import LongtailError, nearest

HeadName: TypeAlias = Literal[
    "linear", "cosine", "scaled-linear", "scaled-cosine", "standardized-linear", "standardized-cosine"
]
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

    def start_from(self, features: Tensor, labels: Tensor) -> None:
        """Start at zero, where all classes are equally likely; see :meth:`CosineHead.start_from`."""
        del features, labels
        nn.init.zeros_(self.weight)
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

    def start_from(self, features: Tensor, labels: Tensor) -> None:
        """Start at the mean direction of each class's features (N, D): the nearest-class-mean classifier.

        Args:
            features: float32 (N, D).
            labels: Class indices, int64 (N,). A class without images keeps the direction that it has.

        Source: Mensink et al., Distance-Based Image Classification, TPAMI 35(11), 2013.

        Example:
            >>> head = CosineHead(2, 2)
            >>> head.start_from(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))
            >>> head.weight.tolist()
            [[1.0, 0.0], [0.0, 1.0]]
        """
        with torch.no_grad():
            sums = torch.zeros_like(self.weight).index_add_(0, labels, _unit_rows(features.to(self.weight.dtype)))
            self.weight.copy_(torch.where(sums.any(dim=1, keepdim=True), _unit_rows(sums), self.weight))

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


class StandardizedHead(nn.Module):
    """A head on standardized features: ``head((f - mean) / deviation) + offset``.

    The features of a backbone differ in size by orders of magnitude, and a classifier with one learning rate and one
    weight decay for all of them learns from the largest first. Mean and deviation belong to the weights, so that the
    model takes features as they are; those of a linear head can be folded into it, see :func:`folded`. The offset of
    each class is zero while the head is trained; logit adjustment sets it afterwards.

    Args:
        head: A linear or cosine head.
        num_features: Feature size D.
        num_classes: Classes C.

    Example:
        >>> head = StandardizedHead(LinearHead(1, 2), 1, 2)
        >>> head.start_from(torch.tensor([[5.0], [9.0]]), torch.tensor([0, 1]))
        >>> head.mean.item(), head.deviation.item()
        (7.0, 2.0)
    """

    mean: Tensor
    deviation: Tensor
    offset: Tensor

    def __init__(self, head: LinearHead | CosineHead, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("deviation", torch.ones(num_features))
        self.register_buffer("offset", torch.zeros(num_classes))

    def reset_parameters(self) -> None:
        """Draw the weights of the head anew; mean and deviation stay."""
        self.head.reset_parameters()

    def start_from(self, features: Tensor, labels: Tensor) -> None:
        """Take mean and deviation from features (N, D), and start the head from their standardized form."""
        mean, deviation = standardization(features)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)
        self.head.start_from(self.standardize(features), labels)

    def standardize(self, features: Tensor) -> Tensor:
        """Return the features (N, D) that the head itself takes."""
        return (_at_least_float32(features) - self.mean) / self.deviation

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of the head, shape (N, C), for features of shape (N, D)."""
        return cast("Tensor", self.head(self.standardize(features))) + self.offset


def standardization(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (D,) of features (N, D); the deviation of a constant feature is 1.

    Example:
        >>> standardization(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
        (tensor([2., 7.]), tensor([1., 1.]))
    """
    exact = features.to(float64_device(features.device)).double()
    deviation, mean = torch.std_mean(exact, dim=0, correction=0)
    varies = deviation > 1e-6 * mean.abs().clamp(min=1e-6)  # rounding a constant does not make it vary
    return mean.float().to(features.device), torch.where(varies, deviation, 1.0).float().to(features.device)


def folded(head: nn.Module) -> nn.Module:
    """Return a head with the same logits, without standardization if that can be folded into its weights.

    A linear head takes it in: ``W (f - mean) / deviation + b`` is ``(W / deviation) f + (b - W mean / deviation)``.
    A cosine head cannot, as it divides by the length of the standardized feature.

    Example:
        >>> head = StandardizedHead(LinearHead(3, 2), 3, 2)
        >>> head.start_from(torch.randn(9, 3), torch.zeros(9, dtype=torch.int64))
        >>> type(folded(head)).__name__, type(folded(StandardizedHead(CosineHead(3, 2), 3, 2))).__name__
        ('LinearHead', 'StandardizedHead')
    """
    if not isinstance(head, StandardizedHead) or not isinstance(head.head, LinearHead):
        return head
    device = head.mean.device
    plain = LinearHead(head.head.in_features, head.head.out_features).to(device)
    values = (head.head.weight, head.deviation, head.head.bias, head.offset, head.mean)
    with torch.no_grad():
        weight, deviation, bias, offset, mean = (each.to(float64_device(device)).double() for each in values)
        weight = weight / deviation
        plain.weight.copy_(weight.float())
        plain.bias.copy_((bias + offset - weight @ mean).float())
    return plain


def build_head(name: str, num_features: int, num_classes: int) -> nn.Module:
    """Return a new head by its name: ``linear`` or ``cosine``, alone or after ``scaled-`` or ``standardized-``.

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
    if name.startswith("standardized-"):
        return StandardizedHead(head, num_features, num_classes)
    return ScaledHead(head, num_classes) if name.startswith("scaled-") else head


def linear_map(head: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return the weight (C, D) and the bias (C,) of a head, float32 on the CPU; the bias of a cosine head is None.

    The learned scale of each class, where there is one, is multiplied in. The weight of a standardized cosine head
    meets standardized features, see :func:`classify`.

    Example:
        >>> weight, bias = linear_map(build_head("scaled-linear", 4, 3))
        >>> weight.shape, bias.shape, linear_map(CosineHead(4, 3))[1]
        (torch.Size([3, 4]), torch.Size([3]), None)
    """
    head = folded(head)
    plain: Any = head.head if isinstance(head, ScaledHead | StandardizedHead) else head
    scale = head.scale_logits.detach().cpu().float() if isinstance(head, ScaledHead) else torch.ones(1)
    bias = getattr(plain, "bias", None)
    weight = plain.weight.detach().cpu().float() * scale[:, None]
    return weight, None if bias is None else bias.detach().cpu().float() * scale


def classify(head: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits (N, C) of a head and the features (N, D) that its weights meet: standardized, if it does that.

    Example:
        >>> logits, features = classify(LinearHead(2, 3), torch.ones(1, 2))
        >>> logits.shape, features.tolist()
        (torch.Size([1, 3]), [[1.0, 1.0]])
    """
    if not isinstance(head, StandardizedHead):
        return head(features), features
    standardized = head.standardize(features)
    return head.head(standardized) + head.offset, standardized


def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _unit_rows(rows: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    # Dividing by one, not by a tiny number, keeps the gradient of a zero row at ordinary size.
    return rows / torch.where(norm > _SMALLEST_NORM, norm, torch.ones_like(norm))
