"""Post-hoc adjustment: logit adjustment, tau-normalization and temperature as a gain and an offset of each logit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (as everybody writes it)

from longtail.counts import ClassCounts, ClassCountsLike, FloatArray

Prior: TypeAlias = Literal["train", "uniform"] | tuple[float, ...]
"""A class prior: that of the training data, uniform, or a share of each class."""


@dataclass(frozen=True)
class Adjustment:
    """A post-hoc adjustment as it is applied: ``z'_j = gain_j z_j + offset_j`` on the network's unchanged logits.

    Every adjustment in use has this form: the scale ``S`` of a cosine classifier, a temperature, ``-tau log pi_j`` of
    logit adjustment, an assumed prior, and tau-normalization, which divides ``w_j f`` (without the bias) by
    ``||w_j||^tau``.

    Attributes:
        gain: Factor on each logit, length C.
        offset: Added afterwards, length C.
        chosen: Its origin and the choice that led to it: plain values, for people and reports.
        prior: The class prior that the probabilities assume once it is applied.

    Example:
        >>> Adjustment(gain=(2.0, 2.0), offset=(0.0, 1.0)).apply(torch.tensor([[1.0, 1.0]]))
        tensor([[2., 3.]])
    """

    gain: tuple[float, ...]
    offset: tuple[float, ...]
    chosen: Mapping[str, Any] = field(default_factory=dict)
    prior: Prior = "train"

    def apply(self, logits: Tensor) -> Tensor:
        """Return adjusted logits (N, C), float32 at least, for the network's logits (N, C)."""
        wide = logits if logits.dtype == torch.float64 else logits.float()
        gain, offset = wide.new_tensor([self.gain, self.offset]).unbind()
        return wide * gain + offset


def prior_shares(prior: Prior, class_counts: ClassCountsLike) -> FloatArray:
    """Return the share of each class, float64 (C,), summing to 1.

    Args:
        prior: ``"train"``, ``"uniform"``, or positive shares of any sum, length C.
        class_counts: Training images per class, length C; a class with none counts as one.

    Example:
        >>> prior_shares("train", [75, 25]).tolist(), prior_shares("uniform", [75, 25]).tolist()
        ([0.75, 0.25], [0.5, 0.5])
    """
    counts = ClassCounts.of(class_counts)
    if prior == "train":
        return counts.prior
    shares = np.ones(len(counts)) if prior == "uniform" else np.asarray(prior, dtype=np.float64)
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def logit_adjustment(
    class_counts: ClassCountsLike, tau: float, *, temperature: float = 1.0, scale: float = 1.0, prior: Prior = "train"
) -> Adjustment:
    """Logit adjustment of calibrated logits: ``S z_j / T - tau log pi_j``.

    The temperature comes first, so that ``tau`` gives the class prior that the probabilities then assume: the one the
    network was trained for, divided by ``pi^tau``. ``tau = 1`` on a network trained on the images as they come assumes
    all classes alike; a strength between 0 and 1 assumes ``pi^(1 - tau)``. With ``T = 1`` it is
    :func:`longtail.evaluation.posthoc.logit_adjust`; with ``tau = 0``, temperature scaling.

    References:
        [1] Menon et al., Long-tail learning via logit adjustment, ICLR 2021, equation 9.

    Args:
        class_counts: Training images per class, length C; a class with none counts as one.
        tau: Strength; 0 adjusts nothing.
        temperature: T > 0.
        scale: Factor of the logits in any case: the ``S`` of a cosine classifier.
        prior: The class prior that the network's own probabilities assume.

    Example:
        >>> adjustment = logit_adjustment([75, 25], 1.0)
        >>> adjustment.apply(torch.zeros(1, 2)).softmax(dim=1), adjustment.prior
        (tensor([[0.2500, 0.7500]]), 'uniform')
    """
    frequencies = ClassCounts.of(class_counts).prior
    offset = tuple(float(value) for value in -tau * np.log(frequencies) + 0.0)  # + 0.0 turns -0.0 into 0.0
    after: Prior = prior
    if prior == "train" and tau == 1:
        after = "uniform"
    elif tau != 0:
        logs = np.log(prior_shares(prior, class_counts)) - tau * np.log(frequencies)
        after = tuple(float(value) for value in np.exp(logs - np.logaddexp.reduce(logs)))
    return Adjustment((scale / temperature,) * len(offset), offset, prior=after)


def tau_normalization(weight: Tensor, bias: Tensor | None, tau: float, *, temperature: float = 1.0) -> Adjustment:
    """Tau-normalization of a linear classifier, from its logits: ``(z_j - b_j) / (T ||w_j||^tau)``.

    It equals the classifier with the weights of :func:`longtail.evaluation.posthoc.tau_normalize` and no bias. Its
    probabilities are taken to assume a uniform prior, which is its purpose; no formula says so.

    References:
        [1] Kang et al., Decoupling representation and classifier for long-tailed recognition, ICLR 2020, equation 4.

    Args:
        weight: The classifier's weights (C, D).
        bias: Its bias (C,), which is taken out, or None.
        tau: 0 takes out the bias alone, 1 makes all lengths equal.
        temperature: T > 0.

    Example:
        >>> weight, bias = torch.tensor([[3.0, 4.0], [0.0, 0.5]]), torch.tensor([1.0, 1.0])
        >>> tau_normalization(weight, bias, 1.0).apply(torch.tensor([[11.0, 1.5]]))
        tensor([[2., 1.]])
    """
    length = weight.detach().double().norm(dim=1)
    gain = torch.where(length > 0, length, 1.0) ** -tau / temperature
    removed = torch.zeros_like(gain) if bias is None else bias.detach().double()
    return Adjustment(tuple(gain.tolist()), tuple((-removed * gain + 0.0).tolist()), prior="uniform")


TEMPERATURES = (1e-3, 1e3)
"""The range of fitted temperatures; an end of it says that the data has no best one."""
_STEPS = 60  # Newton needs about six; bisection alone would need 40


def logit_adjust(logits: Tensor, class_counts: ClassCountsLike, tau: float = 1.0) -> Tensor:
    """Take the training frequencies out of the logits: ``z_j - tau log pi_j``.

    For a model trained by plain cross-entropy, ``tau = 1`` gives the prediction that is best for balanced accuracy.
    Choose another ``tau`` on validation data only. Cosine logits must be multiplied by the loss's scale first.

    References:
        [1] Menon et al., Long-tail learning via logit adjustment, ICLR 2021, equation 9.

    Args:
        logits: (..., C), floating.
        class_counts: Training images per class, shape (C,); a class with none counts as one.
        tau: Strength; 0 changes nothing.

    Returns:
        Adjusted logits, the shape and dtype of ``logits``.

    Raises:
        ValueError: The number of classes differs.

    Example:
        >>> logit_adjust(torch.zeros(1, 2), [75, 25]).softmax(dim=1)
        tensor([[0.2500, 0.7500]])
    """
    prior = torch.from_numpy(ClassCounts.of(class_counts).prior)
    if logits.shape[-1] != len(prior):
        raise ValueError(f"logits of {logits.shape[-1]} classes do not fit {len(prior)} class counts.")
    # Equation 33: z_j - tau log pi_j
    return logits - tau * prior.log().to(logits)


def tau_normalize(weight: Tensor, tau: float = 1.0) -> Tensor:
    """Divide each class's weight vector by its length to the power tau: ``w_j / ||w_j||^tau``.

    Head classes grow longer weights in training, and longer weights win. The bias is to be left out afterwards, as in
    the paper. Choose ``tau`` on validation data only.

    References:
        [1] Kang et al., Decoupling representation and classifier for long-tailed recognition, ICLR 2020, equation 4.

    Args:
        weight: Classifier weights (C, D).
        tau: 0 changes nothing, 1 makes all lengths equal.

    Returns:
        The new weights (C, D); a zero vector stays zero.

    Example:
        >>> tau_normalize(torch.tensor([[3.0, 4.0], [0.0, 0.5]])).norm(dim=1)
        tensor([1., 1.])
    """
    # Equation 34: w_j / ||w_j||^tau
    length = weight.norm(dim=1, keepdim=True)
    return torch.where(length > 0, weight / length.clamp_min(torch.finfo(weight.dtype).tiny) ** tau, weight)


def temperature_scale(logits: Tensor, temperature: float) -> Tensor:
    """Divide the logits by a temperature: predictions stay, confidences move.

    References:
        [1] Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2.

    Args:
        logits: (..., C), floating.
        temperature: > 0; above 1 lowers the confidence. :func:`fit_temperature` finds it.

    Raises:
        ValueError: ``temperature`` is not positive.

    Example:
        >>> temperature_scale(torch.tensor([2.0, 4.0]), 2.0)
        tensor([1., 2.])
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")
    # Equation 35: z_j / T
    return logits / temperature


def fit_temperature(logits: Tensor, target: Tensor, *, weight: Tensor | None = None) -> float:
    """Find the temperature of least negative log-likelihood, on validation data.

    The likelihood is convex in ``1 / T``, so its slope has one root: Newton's method inside a bracket, in float64.

    Args:
        logits: Validation logits (N, C), floating.
        target: Their classes (N,).
        weight: Weight of each image (N,), not negative; equal when None. Weights ``q_j / v_j`` by class give the
            likelihood under a class prior ``q`` where the images have the prior ``v``.

    Returns:
        The temperature, in [0.001, 1000]; an end of that range where the data has no best one, such as 0.001 when
        every prediction is right.

    Raises:
        ValueError: There are no images, the shapes do not fit, a logit is not finite, or all weights are zero.

    Example:
        >>> logits = torch.tensor([[8.0, 0.0], [8.0, 0.0], [8.0, 0.0], [8.0, 0.0]])
        >>> temperature = fit_temperature(logits, torch.tensor([0, 0, 0, 1]))
        >>> temperature_scale(logits, temperature).softmax(dim=1)[0]
        tensor([0.7500, 0.2500])
    """
    if logits.ndim != 2 or target.shape != logits.shape[:1] or not len(target):
        raise ValueError(f"fit_temperature takes logits (N, C) and N > 0 classes, got {tuple(logits.shape)}.")
    if not logits.isfinite().all():
        raise ValueError("fit_temperature needs finite logits: look for the images whose logits are not.")
    exact = logits.detach().double()
    true = exact.gather(1, target[:, None]).squeeze(1)
    share = _shares(torch.ones_like(true) if weight is None else weight.to(true), true)
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]  # of the inverse temperature
    if _slope(exact, true, share, high)[0] <= 0:
        return 1 / high
    if _slope(exact, true, share, low)[0] >= 0:
        return 1 / low
    inverse = 1.0
    for _ in range(_STEPS):
        slope, curvature = _slope(exact, true, share, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else math.inf
        last, inverse = inverse, step if low <= step <= high else math.sqrt(low * high)
        if abs(inverse - last) <= 1e-9 * inverse:
            break
    return 1 / inverse


def _shares(weight: Tensor, like: Tensor) -> Tensor:
    if weight.shape != like.shape or not bool((weight >= 0).all()) or not 0 < float(weight.sum()) < math.inf:
        raise ValueError(f"weight takes {len(like)} numbers that are not negative, one of them above zero.")
    return weight / weight.sum()


def _slope(logits: Tensor, true: Tensor, share: Tensor, inverse: float) -> tuple[float, float]:
    """First and second derivative of the weighted negative log-likelihood by the inverse temperature."""
    chances = F.softmax(inverse * logits, dim=1)
    mean = (chances * logits).sum(dim=1)
    variance = (chances * (logits - mean[:, None]).square()).sum(dim=1)
    return float(share @ (mean - true)), float(share @ variance)
