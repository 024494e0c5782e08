"""GCL, Gaussian clouded logits: noise that grows towards the tail, on each cosine or on the feature."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from longtail.counts import ClassCounts, ClassCountsLike
from longtail.losses.base import AdjustedLogits, AutoValue, CommonOptions, LongTailLoss, check_range


def gcl_logits(
    cosine: Tensor,
    noise: Tensor,
    tail_weight: Tensor,
    *,
    scale: float = 30.0,
    amplitude: float,
    margin: float = 0.0,
    signed: bool = False,
) -> AdjustedLogits:
    """``S (cos_j - A |e_j| w_j)``, less ``S m`` for the label.

    Args:
        cosine: Cosine logits, shape (N, C), in [-1, 1].
        noise: ``e``, shape (N, C), in [-1, 1].
        tail_weight: ``w_j`` in [0, 1], 0 at the head and 1 at the tail, shape (C,).
        scale: ``S``.
        amplitude: ``A``.
        margin: ``m``.
        signed: Take ``e`` in place of ``|e|``.

    Example:
        >>> cosine, noise = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.4, 0.4]])
        >>> gcl_logits(cosine, noise, torch.tensor([0.0, 1.0]), amplitude=0.5).logits
        tensor([[15.,  9.]])
    """
    # Equation 21: c_j = cos_j - A |e_j| w_j, and c_y less m, all times S
    tail_weight = tail_weight.to(cosine.dtype)
    depth = -scale * amplitude * tail_weight
    cloud = noise * depth if signed else noise.abs().mul_(depth)
    clouded = cloud.add_(cosine, alpha=scale)  # in place: to touch new memory costs more than the sum
    return AdjustedLogits(clouded, label_shift=torch.full_like(tail_weight, -scale * margin) if margin else None)


class GCLLoss(LongTailLoss):
    """``CE(S c, y)`` on a cosine classifier with ``c_j = cos_j - A |e_j| w_j``, and ``c_y`` less the margin ``m``.

    ``e`` is drawn anew for every sample, class and call, and ``w_j`` is the tail weight. The noise keeps tail samples
    away from softmax saturation and gives their classes room in the embedding. Stage 2 retrains the classifier with
    ``focal_gamma=1``: ``mean_i (1 - p_i)^g CE_i``, ``p_i = exp(-CE_i)`` a constant in the gradient.

    References:
        [1] Li, Cheung, Lu, Long-Tailed Visual Recognition via Gaussian Clouded Logit Adjustment, CVPR 2022,
            arXiv 2305.11733.
        [2] Li et al., Adjusting Logit in Gaussian Form for Long-Tailed Visual Recognition, IEEE TAI 5(10), 2024,
            arXiv 2305.10648 (the Euclidean form).

    Args:
        class_counts: Training images per class, length C.
        scale: ``S``; 30 in stage 1, 20 in stage 2 on CIFAR.
        noise: ``A``, the amplitude on the smallest class.
        margin: ``m`` in [0, 2]; 0 in stage 1, 0.1 in stage 2.
        focal_gamma: ``g`` of the focal form; 0 for none.
        signed: Draw ``e`` instead of ``|e|``.
        **common: ``weight``, ``reduction``, ``ignore_index``, ``label_smoothing``; see :class:`LongTailLoss`.

    Raises:
        ValueError: An option outside its range.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> loss = GCLLoss([500, 50, 5])
        >>> bool(loss(torch.tensor([[0.6, 0.1, 0.4]]), torch.tensor([2])) > 6.0)
        True
    """

    head = "cosine"
    auto_values = MappingProxyType({"scale": AutoValue(30.0, stage2=20.0), "noise": AutoValue(0.5)})  # of CIFAR-LT
    _tail_weight: Tensor

    def __init__(
        self,
        class_counts: ClassCountsLike,
        *,
        scale: float = 30.0,
        noise: float = 0.5,
        margin: float = 0.0,
        focal_gamma: float = 0.0,
        signed: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(class_counts, **common)
        self.scale = check_range("scale", scale, 0.0, above=True)
        self.noise = check_range("noise", noise, 0.0)
        self.margin = check_range("margin", margin, 0.0, 2.0)
        self.focal_gamma = check_range("focal_gamma", focal_gamma, 0.0)
        self.signed = signed
        self._table("_tail_weight", ClassCounts.of(class_counts).tail_weight)

    def sample_noise(self, like: Tensor) -> Tensor:
        """Fresh ``e``, signed and clamped to [-1, 1], shape (N, C) for cosine logits ``like``.

        Example:
            >>> _ = torch.manual_seed(0)
            >>> cloud = GCLLoss([9, 1]).sample_noise(torch.empty(5000, 2))
            >>> round(cloud.std().item(), 2), cloud.abs().max().item() <= 1
            (0.33, True)
        """
        # Equation 20: e = clamp(Normal(0, 1/3), -1, 1), anew for every sample, class and step
        return torch.randn_like(like).div_(3).clamp_(-1.0, 1.0)

    def adjust_logits(self, logits: Tensor, _features: Tensor | None, /) -> AdjustedLogits:
        """``S c``."""
        return gcl_logits(logits, self.sample_noise(logits), self._tail_weight, **self._cloud)

    @property
    def _cloud(self) -> dict[str, Any]:
        """The options of the noise and the margin, as the functions of the logits name them."""
        return {"scale": self.scale, "amplitude": self.noise, "margin": self.margin, "signed": self.signed}


def feature_noise_logits(
    logits: Tensor, noise: Tensor, weight: Tensor, log_deficit: Tensor, *, strength: float, signed: bool = False
) -> Tensor:
    """``z_j - A d_j |<v_j, noise>|``, shape (N, C).

    Args:
        logits: Linear logits ``z``, shape (N, C).
        noise: One vector a sample, shape (N, D).
        weight: The classifier's weight ``v``, shape (C, D).
        log_deficit: ``d_j = log n_max - log n_j``, shape (C,).
        strength: ``A``.
        signed: Take ``<v_j, noise>`` without the absolute value.

    Example:
        >>> noise, weight = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [-2.0, 1.0]])
        >>> feature_noise_logits(torch.zeros(1, 2), noise, weight, torch.tensor([0.0, 3.0]), strength=0.5)
        tensor([[ 0., -3.]])
    """
    # Equation 26: z'_j = z_j - A d_j |<v_j, noise>|
    carried = noise @ weight.to(logits.dtype).T
    log_deficit = log_deficit.to(logits.dtype)
    # |x| is x sign(x): the sign is no part of the gradient, so it and the deficit are one factor of both passes.
    factor = log_deficit if signed else carried.detach().sign().mul_(log_deficit)
    return torch.addcmul(logits, carried, factor, value=-strength)


class FeatureNoiseLoss(LongTailLoss):
    """``CE(z', y)`` on a linear classifier, ``z'_j = z_j - A d_j |<v_j, noise>|``, ``noise ~ Normal(0, I)`` a sample.

    The same as moving the feature against each class by an amplitude that grows as the class shrinks. The weight of
    the classifier is read at every call and receives a gradient through the noise.

    References:
        [1] Li, Cheung, Lu, Long-Tailed Visual Recognition via Gaussian Clouded Logit Adjustment, CVPR 2022,
            arXiv 2305.11733.

    Args:
        class_counts: Training images per class, length C.
        strength: ``A``; no value is published: choose it on validation data.
        classifier: The last linear layer, with a ``weight`` of shape (C, D); or give it to :meth:`attach_classifier`.
        signed: Take ``<v_j, noise>`` without the absolute value.
        **common: ``weight``, ``reduction``, ``ignore_index``, ``label_smoothing``; see :class:`LongTailLoss`.

    Raises:
        ValueError: ``strength`` is negative, no classifier is attached, or its weight does not fit.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> classifier, features = nn.Linear(4, 3), torch.randn(2, 4)
        >>> loss = FeatureNoiseLoss([500, 50, 5], classifier=classifier)
        >>> loss(classifier(features), torch.tensor([0, 2]), features).shape
        torch.Size([])
    """

    needs_features = True
    needs_classifier = True
    _log_deficit: Tensor

    def __init__(
        self,
        class_counts: ClassCountsLike,
        *,
        strength: float = 0.5,
        classifier: nn.Module | None = None,
        signed: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(class_counts, **common)
        self.strength, self.signed = check_range("strength", strength, 0.0), signed
        self._table("_log_deficit", ClassCounts.of(class_counts).log_deficit)
        # In a tuple, so that it is not a submodule: the model owns and saves it.
        self._classifier: tuple[nn.Module, ...] = ()
        if classifier is not None:
            self.attach_classifier(classifier)

    def attach_classifier(self, classifier: nn.Module) -> None:
        """Read the weight of this layer from now on; the loss keeps a reference, not a submodule.

        Raises:
            ValueError: It has no ``weight`` of shape (C, D).
        """
        weight = getattr(classifier, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.ndim != 2 or len(weight) != self.num_classes:
            raise ValueError(
                f"the classifier needs a weight of shape ({self.num_classes}, D): attach the model's last linear layer."
            )
        self._classifier = (classifier,)

    def sample_noise(self, like: Tensor) -> Tensor:
        """Fresh ``Normal(0, I)``, shape (N, D) for features ``like``."""
        return torch.randn_like(like)

    def adjust_logits(self, logits: Tensor, features: Tensor | None, /) -> AdjustedLogits:
        """``z'``."""
        assert features is not None  # forward has raised a clear error already
        if not self._classifier:
            raise ValueError("FeatureNoiseLoss needs the classifier: call loss.attach_classifier(model.head) first.")
        weight = self._classifier[0].weight
        assert isinstance(weight, torch.Tensor)  # checked when it was attached
        if weight.shape[1] != features.shape[1]:
            raise ValueError(
                f"features of size {features.shape[1]} do not fit a classifier of {weight.shape[1]} inputs: give the "
                "loss the classifier's own input."
            )
        noise = self.sample_noise(features)
        with torch.autocast(logits.device.type, enabled=False):
            changed = feature_noise_logits(
                logits, noise, weight, self._log_deficit, strength=self.strength, signed=self.signed
            )
        return AdjustedLogits(changed)
