"""Mixing of two images and their labels on whole batches: mixup, CutMix, Remix and CMO."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from longtail.counts import ClassCounts, ClassCountsLike
from longtail.device import standard_gamma


def mixup(
    images: Tensor, labels: Tensor, num_classes: int, alpha: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Blend every image, and its label, with another one of the batch.

    ``x = lam x_i + (1 - lam) x_j`` and the same for the labels, with one ``lam ~ Beta(alpha, alpha)`` a batch and ``j``
    a random permutation of it.

    References:
        [1] Zhang et al., mixup: beyond empirical risk minimization, ICLR 2018, section 2.

    Args:
        images: (N, C, H, W), floating or uint8; uint8 becomes float32 in the same range, 0 to 255. Features (N, D) are
            mixed as well.
        labels: Class indices (N,), or probabilities (N, num_classes).
        num_classes: Number of classes.
        alpha: Strength > 0; small values mix most batches only slightly, 1 draws ``lam`` uniformly.
        generator: Source of all randomness, on any device; torch's global one when not given.

    Returns:
        The mixed images, and label probabilities of shape (N, num_classes), float32 or the dtype of ``labels``.

    Raises:
        ValueError: ``alpha`` is not positive, or the shapes do not fit.

    Example:
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
        >>> mixed, target = mixup(images, labels, 3, alpha=1.0, generator=torch.Generator().manual_seed(0))
        >>> mixed.shape, target.sum(dim=1)
        (torch.Size([4, 3, 8, 8]), tensor([1., 1., 1., 1.]))
    """
    images, target = _floating(images), label_probabilities(labels, num_classes)
    _check(images, target, dimensions=(2, 4))
    keep, partner = beta_sample(alpha, images.device, generator), _partners(images, generator)
    return _blend(images, images[partner], keep), _blend(target, target[partner], keep)


def remix(
    images: Tensor,
    labels: Tensor,
    class_counts: ClassCountsLike,
    alpha: float,
    generator: torch.Generator | None = None,
    *,
    kappa: float = 3.0,
    tau: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Blend images as :func:`mixup` does, but give a rare class the whole label where it meets a common one.

    With ``n_i``, ``n_j`` the class counts of the two images, the label's share of ``y_i`` is [1, equation 9]

        0       if n_i / n_j >= kappa and lam < tau
        1       if n_i / n_j <= 1 / kappa and 1 - lam < tau
        lam     otherwise

    References:
        [1] Chou et al., Remix: rebalanced mixup, ECCV 2020 workshops.

    Args:
        images: (N, C, H, W), floating or uint8; uint8 becomes float32 in the same range, 0 to 255.
        labels: Class indices (N,).
        class_counts: Training images per class, shape (C,); a class with none counts as one.
        alpha: Strength > 0 of the underlying mixup.
        generator: Source of all randomness, on any device; torch's global one when not given.
        kappa: Ratio of class sizes from which the larger class loses its label, >= 1.
        tau: Share of the image below which it may lose its label, in [0, 1]; 0 is mixup.

    Returns:
        The mixed images, and label probabilities of shape (N, C), float32.

    Raises:
        ValueError: ``alpha``, ``kappa`` or ``tau`` is out of range, or the shapes do not fit.

    Example:
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
        >>> _, target = remix(images, labels, [900, 10], 1.0, torch.Generator().manual_seed(0))
        >>> target.shape
        torch.Size([4, 2])
    """
    if kappa < 1 or not 0 <= tau <= 1:
        raise ValueError(f"remix takes kappa >= 1 and tau in [0, 1], got kappa={kappa} and tau={tau}.")
    if labels.ndim != 1:
        raise ValueError(f"remix takes class indices of shape (N,), got {tuple(labels.shape)}: mix only once.")
    counts = _counts_on(images.device, ClassCounts.of(class_counts))
    images, target = _floating(images), label_probabilities(labels, len(counts))
    _check(images, target)
    keep, partner = beta_sample(alpha, images.device, generator), _partners(images, generator)
    first, second = counts[labels], counts[labels[partner]]
    lost = (first >= kappa * second) & (keep < tau)
    won = (second >= kappa * first) & (1 - keep < tau)
    share = torch.where(lost, 0.0, torch.where(won, 1.0, keep))
    return _blend(images, images[partner], keep), _blend(target, target[partner], share[:, None])


def cutmix(
    images: Tensor, labels: Tensor, num_classes: int, alpha: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of another image of the batch into every image; labels mix by area.

    The rectangle covers ``1 - lam`` of the image before it is clipped at the border, ``lam ~ Beta(alpha, alpha)``, and
    is the same for the whole batch; the label follows the area that is really covered.

    References:
        [1] Yun et al., CutMix: regularization strategy to train strong classifiers, ICCV 2019, equations 1 and 2.

    Args:
        images: (N, C, H, W), any dtype, which is kept.
        labels: Class indices (N,), or probabilities (N, num_classes).
        num_classes: Number of classes.
        alpha: Strength > 0; 1 (the paper's) draws the area uniformly.
        generator: Source of all randomness, on any device; torch's global one when not given.

    Returns:
        The mixed images, and label probabilities of shape (N, num_classes), float32 or the dtype of ``labels``.

    Raises:
        ValueError: ``alpha`` is not positive, or the shapes do not fit.

    Example:
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
        >>> mixed, target = cutmix(images, labels, 3, alpha=1.0, generator=torch.Generator().manual_seed(0))
        >>> mixed.shape, target.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 3]))
    """
    target = label_probabilities(labels, num_classes)
    _check(images, target)
    partner = _partners(images, generator)
    return cmo(images, target, images[partner], target[partner], num_classes, alpha, generator)


def cmo(
    images: Tensor,
    labels: Tensor,
    foreground: Tensor,
    foreground_labels: Tensor,
    num_classes: int,
    alpha: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Context-rich minority oversampling: paste a rectangle of a rare class's image into every ordinary image.

    Labels mix by area as in :func:`cutmix`; what differs is where the pasted images come from: a second batch drawn
    with the inverse class frequency as each image's weight, which is the draw of the ``"class-balanced"`` sampler. The
    wide context of the head classes thus becomes background for the tail.

    References:
        [1] Park et al., The majority can help the minority: context-rich minority oversampling for long-tailed
            classification, CVPR 2022, section 3.2.

    Args:
        images: Backgrounds (N, C, H, W) in the training set's own frequencies; any dtype, which is kept.
        labels: Their classes (N,), or probabilities (N, num_classes).
        foreground: Images to cut from, the same shape and dtype.
        foreground_labels: Their classes (N,), or probabilities (N, num_classes).
        num_classes: Number of classes.
        alpha: Strength > 0; 1 (the paper's) draws the area uniformly.
        generator: Source of all randomness, on any device; torch's global one when not given.

    Returns:
        The mixed images, and label probabilities of shape (N, num_classes), float32 or the dtype of ``labels``.

    Raises:
        ValueError: ``alpha`` is not positive, or the two batches differ in shape.

    Example:
        >>> background, tail = torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8)
        >>> head_labels, tail_labels = torch.zeros(4, dtype=torch.long), torch.full((4,), 2)
        >>> generator = torch.Generator().manual_seed(0)
        >>> mixed, target = cmo(background, head_labels, tail, tail_labels, 3, alpha=1.0, generator=generator)
        >>> bool((mixed.mean(dim=(1, 2, 3)) - target[:, 2]).abs().max() < 1e-6)
        True
    """
    target, pasted = label_probabilities(labels, num_classes), label_probabilities(foreground_labels, num_classes)
    _check(images, target)
    if foreground.shape != images.shape or len(pasted) != len(target):
        raise ValueError(f"cmo pastes like into like: {tuple(foreground.shape)} is not {tuple(images.shape)}.")
    height, width = images.shape[-2:]
    side = (1 - beta_sample(alpha, images.device, generator)).sqrt()
    rows = _random_span(height, side, generator)
    columns = _random_span(width, side, generator)
    inside = rows[:, None] & columns
    share = 1 - inside.float().mean()
    return torch.where(inside, foreground, images), _blend(target, pasted, share)


def label_probabilities(labels: Tensor, num_classes: int) -> Tensor:
    """Return labels as probabilities (N, num_classes): one-hot float32 of indices (N,), probabilities unchanged.

    Example:
        >>> label_probabilities(torch.tensor([1, 0]), 3).tolist()
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    if labels.ndim == 1:
        # Not one_hot, which waits for the device to check the labels.
        hot = torch.zeros(len(labels), num_classes, device=labels.device)
        return hot.scatter_(1, labels.long()[:, None], 1.0)
    if labels.ndim != 2 or labels.shape[1] != num_classes or not labels.is_floating_point():
        raise ValueError(f"labels must be indices (N,) or probabilities (N, {num_classes}), got {tuple(labels.shape)}.")
    return labels


def beta_sample(alpha: float, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Draw one ``Beta(alpha, alpha)`` number, a float32 scalar on ``device``, without waiting for the device.

    It is the ratio of two Gamma numbers, computed from their logarithms: ``Gamma(a)`` is ``Gamma(a + 1) u^(1/a)``, and
    both would underflow to zero for a small ``a``.

    Example:
        >>> 0 <= beta_sample(0.2, torch.device("cpu"), torch.Generator().manual_seed(1)) <= 1
        tensor(True)
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, got {alpha}: leave the mixing out to switch it off.")
    source = device if generator is None else generator.device
    gamma = standard_gamma(torch.full((2,), alpha + 1.0, device=source), generator)
    uniform = 1 - torch.rand(2, device=source, generator=generator)  # in (0, 1]
    logs = gamma.log() + uniform.log() / alpha
    return torch.sigmoid(logs[0] - logs[1]).to(device, non_blocking=True)


@cache
def _counts_on(device: torch.device, counts: ClassCounts) -> Tensor:
    """Training images per class, at least 1, int64 (C,), sent to the device once, since sending waits for it."""
    return counts.tensor(device).clamp_min(1)


def _floating(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.float()


def _partners(images: Tensor, generator: torch.Generator | None) -> Tensor:
    source = images.device if generator is None else generator.device
    return torch.randperm(len(images), device=source, generator=generator).to(images.device, non_blocking=True)


def _check(images: Tensor, target: Tensor, dimensions: tuple[int, ...] = (4,)) -> None:
    if images.ndim not in dimensions or len(images) != len(target):
        raise ValueError(f"mixing takes (N, C, H, W) images and N labels, got {tuple(images.shape)}, {len(target)}.")


def _blend(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(second, first, share.to(first.dtype))


def _random_span(length: int, side: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return which pixels lie within ``side * length`` around a random center, clipped: bool (length,)."""
    source = side.device if generator is None else generator.device
    center = torch.randint(length, (), device=source, generator=generator).to(side.device, non_blocking=True)
    half = (side * length).long() // 2
    pixels = torch.arange(length, device=side.device)
    return (pixels >= center - half) & (pixels < center + half)
