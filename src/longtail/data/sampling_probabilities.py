"""How likely a draw is of each class, for every re-balancing strategy: a function of the class counts."""

from __future__ import annotations

import numpy as np
import torch

from longtail.counts import ClassCounts, ClassCountsLike, FloatArray
from longtail.errors import LongtailError, nearest

STRATEGIES = ("instance", "class-balanced", "square-root", "progressive", "effective-number", "cben")
_CBEN_SPAN = 1e-5  # how far CBEN raises beta from the largest class to the smallest


def class_probabilities(
    class_counts: ClassCountsLike, strategy: str, *, progress: float = 0.0, beta: float = 0.9999
) -> torch.Tensor:
    """Probability that one draw is of each class, for a sampling strategy.

    ========================  ==========================================================================
    ``"instance"``            ``n_j / N``, every image alike
    ``"class-balanced"``      ``1 / C``, every class alike
    ``"square-root"``         ``sqrt(n_j)``, normalised [1]
    ``"progressive"``         ``(1 - t) instance + t class-balanced``, t the training progress [1]
    ``"effective-number"``    ``n_j (1 - b) / (1 - b^n_j)``, normalised [2]
    ``"cben"``                the same with ``b_j = b + 1e-5 minmax(log n_max - log n_j)`` [3]
    ========================  ==========================================================================

    References:
        [1] Kang et al., Decoupling representation and classifier for long-tailed recognition, ICLR 2020, section 4.1.
        [2] Cui et al., Class-balanced loss based on effective number of samples, CVPR 2019, equation 2.
        [3] Li, Cheung, Lu, Long-tailed visual recognition via Gaussian clouded logit adjustment, CVPR 2022, 3.4.

    Args:
        class_counts: Training images per class, shape (C,).
        strategy: One of the names above.
        progress: Training progress t in [0, 1]; only ``"progressive"`` uses it.
        beta: The b of the effective number, in (0, 1); for ``"cben"`` below 0.99999.

    Returns:
        float64 tensor of shape (C,) that sums to 1; a class with zero images has probability 0.

    Raises:
        LongtailError: No such strategy; the message names the nearest one.
        ValueError: ``progress`` or ``beta`` is out of range.

    Example:
        >>> class_probabilities([90, 9, 1, 0], "instance").tolist()
        [0.9, 0.09, 0.01, 0.0]
        >>> class_probabilities([81, 9, 1, 0], "square-root").mul(13).round().tolist()
        [9.0, 3.0, 1.0, 0.0]
    """
    if strategy not in STRATEGIES:
        raise LongtailError(f"There is no sampling strategy {strategy!r}.{nearest(strategy, STRATEGIES)}")
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress is the share of training that is done, in [0, 1], got {progress}.")
    limit = 1.0 - _CBEN_SPAN if strategy == "cben" else 1.0
    if not 0.0 < beta < limit:
        raise ValueError(f"beta must lie between 0 and {limit:g} for {strategy!r}, got {beta}.")
    weights = _class_weights(ClassCounts.of(class_counts), strategy, progress, beta)
    return torch.from_numpy(weights / weights.sum())


def _class_weights(counts: ClassCounts, strategy: str, progress: float, beta: float) -> FloatArray:
    images = counts.array.astype(np.float64)
    present = (images > 0).astype(np.float64)
    match strategy:
        case "instance":
            return images
        case "class-balanced":
            return present
        case "square-root":
            return np.asarray(np.sqrt(images), dtype=np.float64)
        case "progressive":
            return np.asarray((1 - progress) * images / images.sum() + progress * present / present.sum())
        case "effective-number":
            return _effective_number_weights(images, np.full_like(images, beta))
        case _:
            return _effective_number_weights(images, beta + _CBEN_SPAN * counts.tail_weight)


def _effective_number_weights(images: FloatArray, beta: FloatArray) -> FloatArray:
    # expm1 keeps the digits of 1 - b^n where b^n is close to 1, which is where every tail class is.
    lost = -np.expm1(np.maximum(images, 1) * np.log(beta))
    return np.asarray(images * (1 - beta) / lost, dtype=np.float64)
