"""LongTailModel: a backbone, a head on its features, and the freezing that two-stage training needs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn

from longtail.errors import LongtailError, nearest
from longtail.models.backbones import build_backbone
from longtail.models.heads import ScaledHead, build_head, classify, folded

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class LongTailModel(nn.Module):
    """A network in two parts, so that one can be trained without the other.

    Args:
        backbone: Images (N, 3, H, W) to features (N, D).
        head: Features (N, D) to logits (N, C).
        name: The backbone's name, as :func:`longtail.models.build_backbone` takes it.
        head_name: The head's name, as :func:`longtail.models.build_head` takes it.
        num_classes: Classes C.

    Example:
        >>> import torch
        >>> model = build_model("plain-cnn", 10, "cosine")
        >>> logits, features = model(torch.zeros(2, 3, 28, 28), return_features=True)
        >>> logits.shape, features.shape
        (torch.Size([2, 10]), torch.Size([2, 64]))
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, *, name: str, head_name: str, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.name = name
        self.head_name = head_name
        self.num_classes = num_classes
        self._trainable_parts: tuple[str, ...] | None = None  # of a frozen backbone; None where it is not frozen
        self._holds_batch_norm = False

    @property
    def num_features(self) -> int:
        """Feature size D."""
        return cast("int", self.backbone.num_features)

    @property
    def takes_pixels(self) -> bool:
        """Whether the images are pixels in [0, 255], which an engine's backbone normalizes itself."""
        return bool(getattr(self.backbone, "takes_pixels", False))

    def forward(self, images: Tensor, *, return_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (N, C), or these and the features (N, D) of the head, for normalized images (N, 3, H, W)."""
        features = self.backbone(images)
        return classify(self.head, features) if return_features else cast("Tensor", self.head(features))

    def freeze_backbone(self, *, keep: Sequence[str] = ()) -> Self:
        """Hold the backbone as it is: no gradients, and evaluation mode that a later ``train()`` does not lift.

        Evaluation mode is what keeps batch normalization from updating its running statistics, so the backbone stays
        identical to the bit.

        Args:
            keep: Parts of the backbone that are still trained, by module name: ``("trunk.layer4", "bottleneck")``.

        Returns:
            The model itself.

        Raises:
            LongtailError: ``keep`` names a part that the backbone does not have.

        Example:
            >>> model = build_model("resnet20", 10, "linear").freeze_backbone().train()
            >>> model.backbone.training, model.head.training
            (False, True)
        """
        modules = dict(self.backbone.named_modules())
        for part in keep:
            if part not in modules:
                hint = nearest(part, [name for name, _ in self.backbone.named_children()])
                raise LongtailError(f"The backbone {self.name!r} has no part {part!r} to keep training.{hint}")
        self._trainable_parts = tuple(keep)
        self.backbone.requires_grad_(False)
        for part in keep:
            modules[part].requires_grad_(True)
        return self.train(self.training)

    def unfreeze_backbone(self) -> Self:
        """Undo :meth:`freeze_backbone`: gradients everywhere, training mode as the rest of the model."""
        self._trainable_parts = None
        self.backbone.requires_grad_(True)
        return self.train(self.training)

    def freeze_batch_norm(self, frozen: bool = True) -> Self:
        """Hold the running statistics of batch normalization, by which batches are then normalized; or undo that.

        Small batches have other statistics each time. The learned scales and shifts go on training.

        Example:
            >>> model = build_model("resnet20", 10, "linear").freeze_batch_norm().train()
            >>> model.backbone.training, {m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
            (True, {False})
        """
        self._holds_batch_norm = frozen
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for what is frozen, which stays in evaluation mode."""
        super().train(mode)
        if self._holds_batch_norm:
            for module in self.backbone.modules():
                if isinstance(module, _BATCH_NORMS):
                    module.eval()
        if self._trainable_parts is not None:
            self.backbone.eval()
            for part in self._trainable_parts:
                self.backbone.get_submodule(part).train(mode)
        return self

    def with_folded_head(self) -> Self:
        """Return a model with the same logits whose head is as simple as they allow, see :func:`~.heads.folded`.

        Example:
            >>> build_model("plain-cnn", 10, "standardized-linear").with_folded_head().head_name
            'linear'
        """
        head = folded(self.head)
        if head is self.head:
            return self
        result = copy.copy(self)
        result._modules = dict(self._modules) | {"head": head}
        result.head_name = self.head_name.removeprefix("standardized-")
        return result

    def add_logit_scales(self) -> Self:
        """Fix the head and put one learned scale per class on its logits (LWS, Kang et al., ICLR 2020).

        Example:
            >>> build_model("plain-cnn", 10, "linear").add_logit_scales().head_name
            'scaled-linear'
        """
        if not isinstance(self.head, ScaledHead):
            weight = next(self.head.parameters())
            self.head = ScaledHead(self.head, self.num_classes).to(weight.device)
            self.head_name = f"scaled-{self.head_name}"
        return self


def build_model(
    name: str, num_classes: int, head: str = "linear", *, pretrained: bool = False, in_size: int = 32
) -> LongTailModel:
    """Return a new model by the names of its backbone and head.

    Args:
        name: The backbone, as for :func:`longtail.models.build_backbone`: ``resnet32``, ``timm:resnet50``, ...
        num_classes: Classes C.
        head: ``linear`` or ``cosine``, alone or after ``scaled-`` or ``standardized-``.
        pretrained: Load the backbone's published weights (``timm:`` only).
        in_size: Height and width of the images.

    Raises:
        LongtailError: An unknown name, or pretrained weights that cannot be had.

    Example:
        >>> model = build_model("resnet32", 10)
        >>> sum(parameter.numel() for parameter in model.parameters())
        464154
    """
    return with_head(build_backbone(name, pretrained=pretrained, in_size=in_size), num_classes, head, name=name)


def weight_bytes(module: nn.Module) -> Iterator[bytes]:
    """Yield the name and the bytes of each tensor of a module, to hash what follows from its weights.

    Example:
        >>> [part[:6] for part in weight_bytes(nn.Linear(1, 1, bias=False))]
        [b'weight']
    """
    for name, value in module.state_dict().items():
        yield name.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def with_head(backbone: nn.Module, num_classes: int, head: str, *, name: str) -> LongTailModel:
    """Return a model of a backbone and a new head.

    Args:
        backbone: Images (N, 3, H, W), or features, to features (N, ``num_features``).
        num_classes: Classes C.
        head: As for :func:`build_model`.
        name: The backbone's name.

    Raises:
        LongtailError: An unknown head.

    Example:
        >>> with_head(build_backbone("plain-cnn"), 10, "cosine", name="plain-cnn").head
        CosineHead(in_features=64, out_features=10)
    """
    classifier = build_head(head, cast("int", backbone.num_features), num_classes)
    return LongTailModel(backbone, classifier, name=name, head_name=head, num_classes=num_classes)
