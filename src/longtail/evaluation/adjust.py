"""Post-hoc adjustment: mending a trained classifier's logits or weights by class frequency, without training."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (as everybody writes it)

from longtail.counts import ClassCounts, ClassCountsLike

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
    return logits / temperature


def fit_temperature(logits: Tensor, target: Tensor, *, weight: Tensor | None = None) -> float:
    """Find the temperature with the least negative log-likelihood, on validation data.

    The likelihood is convex in ``1 / T``, so its slope has one root: Newton's method inside a bracket, in float64.

    Args:
        logits: Validation logits (N, C), floating.
        target: Their classes (N,).
        weight: What each image counts (N,), not negative; all alike when None. Weights ``q_j / v_j`` by class ask for
            the likelihood under a mix of classes ``q`` where the images have the mix ``v``.

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
