"""LongTailLoss: class counts, training progress, and targets and options as in ``torch.nn.CrossEntropyLoss``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypedDict, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from longtail.counts import ClassCounts, ClassCountsLike
from longtail.losses.soft_targets import AdjustedLogits, Reduction, ReductionOptions, mean_divisor, soft_cross_entropy

__all__ = ["AdjustedLogits", "AutoValue", "CommonOptions", "HeadKind", "LongTailLoss", "check_range"]

HeadKind = Literal["linear", "cosine"]
_LARGEST_COSINE = 1.05  # rounding in half precision may exceed 1


class CommonOptions(TypedDict, total=False):
    """The options every loss takes, with the meaning they have in ``torch.nn.CrossEntropyLoss``."""

    weight: Tensor | Sequence[float] | None
    reduction: Reduction
    ignore_index: int
    label_smoothing: float


class AutoValue(NamedTuple):
    """The number that ``auto`` stands for as the value of an option.

    Attributes:
        stage1: In the first stage.
        stage2: In the second; ``None`` where it is the same.
        on_features: Value where no stage trains the backbone; ``None`` if it is the same.
    """

    stage1: float
    stage2: float | None = None
    on_features: float | None = None

    def resolve(self, *, stage: int = 1, on_features: bool = False) -> float:
        """The number for a stage, on features or on images.

        Example:
            >>> AutoValue(30.0, stage2=20.0).resolve(stage=2), AutoValue(30.0).resolve(stage=2)
            (20.0, 30.0)
        """
        if on_features and self.on_features is not None:
            return self.on_features
        return self.stage2 if stage == 2 and self.stage2 is not None else self.stage1


class LongTailLoss(nn.Module):
    """Softmax cross-entropy whose logits are adjusted by class frequency.

    A method overrides :meth:`adjust_logits`; targets, weights and reductions are handled here.

    The weighted mean is that of PyTorch. For class indices it divides by the sum of the weights of the labels *in this
    call*; so the mean over micro-batches, or over ranks, of such losses is not the loss of the whole batch unless all
    of them hold the same sum of weights. For the exact value, take ``reduction="sum"`` and divide by the sum of
    :meth:`mean_divisor` over all micro-batches and ranks. For probabilities it divides by the number of samples, and
    equal parts average exactly.

    Args:
        class_counts: Training images per class, length C.
        weight: Weight of each class, shape (C,).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        ignore_index: The label that contributes nothing (class indices only).
        label_smoothing: Share of the target spread evenly over the classes, in [0, 1].

    Raises:
        ValueError: An option outside its range; logits, targets or features whose shapes do not fit; or plain logits at
            the first call of a loss that is defined on cosines.
    """

    needs_features: bool = False
    """Whether ``forward`` must be given the features."""
    needs_classifier: bool = False
    """Whether :meth:`attach_classifier` must be called before the first ``forward``."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names of the loss, in lower case with hyphens, for "did you mean"."""
    head: HeadKind = "linear"
    """The classifier the method is made for: plain logits, or cosines in [-1, 1]."""
    auto_values: ClassVar[Mapping[str, AutoValue]] = {}
    """The options that take ``auto``, with its value: the published one unless we measured a better one."""
    scale: float = 1.0
    """``S``, the factor of all logits."""
    prior_exponent: float = 0.0
    """The ``tau`` for which ``tau log pi_j`` is added to the logits, ``pi`` the class prior; 0 for no adjustment.

    A network trained with such a loss assumes ``pi^(1 - tau)`` in place of the class prior, which decides what
    ``--prior`` and post-hoc adjustment still have to take out.
    """
    focal_gamma: float = 0.0
    focal_detached: bool = True
    _empty_is_zero: bool = False
    _saw_cosines: bool = False

    weight: Tensor | None
    class_counts: Tensor
    _progress: Tensor
    __call__: Callable[..., Tensor]

    def __init__(
        self,
        class_counts: ClassCountsLike,
        *,
        weight: Tensor | Sequence[float] | None = None,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        counts = ClassCounts.of(class_counts)
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}.")
        self.num_classes = counts.num_classes
        self.reduction: Reduction = reduction
        self.ignore_index = ignore_index
        self.label_smoothing = check_range("label_smoothing", label_smoothing, 0.0, 1.0)
        self.register_buffer("class_counts", counts.tensor())
        self.register_buffer("weight", None if weight is None else _class_weight(weight, counts.num_classes))
        self.register_buffer("_progress", torch.zeros((), dtype=torch.float32))
        self.register_load_state_dict_pre_hook(_refuse_other_counts)  # type: ignore[no-untyped-call]

    def adjust_logits(self, logits: Tensor, _features: Tensor | None, /) -> AdjustedLogits:
        """Return the logits that go into softmax, adjusted by class frequency; by default unchanged.

        Args:
            logits: Shape (N, C), float32 or float64; cosines where :attr:`head` is ``"cosine"``.
            _features: Shape (N, D), present where :attr:`needs_features`.
        """
        return AdjustedLogits(logits)

    @property
    def logit_scale(self) -> float:
        """Factor ``S`` of the unchanged logits before softmax, where probabilities are wanted at test time."""
        return self.scale

    @property
    def progress(self) -> float:
        """Training progress in [0, 1]; 0 when new. Setting it costs no device synchronization and no recompilation."""
        return float(self._progress)

    @progress.setter
    def progress(self, value: float) -> None:
        self._progress.fill_(check_range("progress", value, 0.0, 1.0))

    @property
    def current_weight(self) -> Tensor | None:
        """The class weights at this progress, shape (C,); ``None`` if every label weighs the same."""
        return self.weight

    def sample_noise(self, like: Tensor) -> Tensor:
        """Fresh noise for one step, shaped like ``like``; zeros for a loss without randomness."""
        return torch.zeros_like(like)

    def attach_classifier(self, classifier: nn.Module, /) -> None:
        """Hand over the classifier whose weight the loss reads; only where :attr:`needs_classifier`."""
        raise ValueError(f"{type(self).__name__} reads no classifier: do not attach the {type(classifier).__name__}.")

    def count_empty_as_zero(self) -> None:
        """Make the mean over no labels 0, with zero gradient, from now on.

        By default it is nan, as in ``torch.nn.CrossEntropyLoss``, if all labels are ignored or have weight 0. A
        training loop that adds up parts of a batch needs 0.

        Example:
            >>> from longtail.losses import CrossEntropyLoss
            >>> loss, logits, ignored = CrossEntropyLoss([3, 1]), torch.zeros(1, 2), torch.tensor([-100])
            >>> before = loss(logits, ignored)
            >>> loss.count_empty_as_zero()
            >>> before, loss(logits, ignored)
            (tensor(nan), tensor(0.))
        """
        self._empty_is_zero = True

    @property
    def may_be_empty(self) -> bool:
        """Whether a label in ``0 .. C-1`` may not count: it is ignored or has weight 0."""
        weight = self.current_weight
        return (weight is not None and bool((weight == 0).any())) or 0 <= self.ignore_index < self.num_classes

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            logits: Shape (N, C), (C,) or (N, C, d1, ...); half precisions are computed in float32.
            target: Class indices, shape (N,), () or (N, d1, ...); or class probabilities, shaped like ``logits``.
            features: Shape (N, D), (D,) or (N, D, d1, ...), the input of the classifier; only where
                :attr:`needs_features`.

        Returns:
            A scalar, or one loss per target for ``reduction="none"``.
        """
        return self.weighted_forward(logits, target, features, weight=self.current_weight)

    def weighted_forward(
        self, logits: Tensor, target: Tensor, features: Tensor | None, *, weight: Tensor | None
    ) -> Tensor:
        """Compute :meth:`forward` with these class weights, shape (C,), in place of the loss's own."""
        if self.needs_features and features is None:
            raise ValueError(f"{type(self).__name__} needs the features: call loss(logits, target, features).")
        features = features if self.needs_features else None
        logits, target, features, shape = as_rows(logits, target, features, self.num_classes)
        if target.ndim > 1 and self.ignore_index >= 0:
            raise ValueError("ignore_index works with class indices, not with probabilities: leave it at -100.")
        if self.head == "cosine" and not torch.compiler.is_compiling() and not self._saw_cosines:
            check_cosines(type(self).__name__, logits)
            self._saw_cosines = True  # only once, as the check synchronizes with the device
        adjusted = self.adjust_logits(logits, features)
        options = self._reduction_options(None if weight is None else weight.to(logits.dtype))
        losses = soft_cross_entropy(adjusted, target, options)
        return losses.reshape(shape) if self.reduction == "none" else losses

    def mean_divisor(self, target: Tensor) -> Tensor:
        """The divisor of ``reduction="mean"`` for this target, a float32 scalar; see the note on the weighted mean.

        Args:
            target: As for :meth:`forward`, batched.
        """
        soft = target.is_floating_point()
        flat = target.movedim(1, -1).reshape(-1, self.num_classes) if soft else target.reshape(-1)
        return mean_divisor(flat, self._reduction_options(self.current_weight), self._progress)

    def extra_repr(self) -> str:
        """The options that are plain numbers or names, for ``print(loss)``."""
        shown = {name: value for name, value in vars(self).items() if not name.startswith("_") and name != "training"}
        return ", ".join(f"{name}={value}" for name, value in shown.items() if isinstance(value, int | float | str))

    def _reduction_options(self, weight: Tensor | None) -> ReductionOptions:
        return ReductionOptions(
            weight=weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            focal_gamma=self.focal_gamma,
            focal_detached=self.focal_detached,
            empty_is_zero=self._empty_is_zero,
        )

    def _table(self, name: str, values: npt.NDArray[np.float64]) -> None:
        """Keep a table made of the class counts; it moves with the module and is remade, not loaded."""
        self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32), persistent=False)


def check_range(name: str, value: float, low: float, high: float = float("inf"), *, above: bool = False) -> float:
    """Return a value with ``low <= value <= high``, a number of numpy as a plain one, and raise for any other.

    Args:
        name: What it is called in the message.
        value: The value.
        low: The least value.
        high: The greatest value.
        above: The value must be above ``low``.

    Raises:
        TypeError: ``value`` is not a number.
        ValueError: It is outside the range, or NaN.

    Example:
        >>> check_range("scale", -1.0, 0.0)
        Traceback (most recent call last):
        ValueError: scale must be at least 0, got -1.0.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not low <= value <= high or value == float("inf") or (above and value == low):
        limits = f"in [{low:g}, {high:g}]"
        if high == float("inf"):
            limits = f"{'above' if above else 'at least'} {low:g}"
        raise ValueError(f"{name} must be {limits}, got {value}.")
    return value


def check_cosines(name: str, logits: Tensor) -> None:
    """Raise if the logits given to a loss defined on cosines are not cosines.

    Args:
        name: The class of the loss.
        logits: Any shape. They pass if their values cannot be read, as under vmap or during CUDA graph capture.

    Raises:
        ValueError: A value outside [-1, 1] by more than rounding in half precision.

    Example:
        >>> check_cosines("GCLLoss", torch.tensor([[5.0, 0.0]]))
        Traceback (most recent call last):
        ValueError: GCLLoss is defined on cosines in [-1, 1], and these logits reach 5: make the last layer a ...
    """
    if logits.is_meta or (logits.is_cuda and torch.cuda.is_current_stream_capturing()) or not logits.numel():
        return
    try:
        largest = float(logits.detach().abs().max())
    except RuntimeError:  # under vmap
        return
    if largest > _LARGEST_COSINE:
        raise ValueError(
            f"{name} is defined on cosines in [-1, 1], and these logits reach {largest:.3g}: make the last layer a "
            "longtail.models.CosineHead(features, classes)."
        )


def _refuse_other_counts(loss: LongTailLoss, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Raise if a state to be loaded is of other class counts than the loss."""
    theirs = state_dict.get(f"{prefix}class_counts")
    if isinstance(theirs, Tensor) and theirs.tolist() != loss.class_counts.tolist():
        raise ValueError(
            f"this state belongs to a {type(loss).__name__} of other class counts: build the loss from the counts the "
            "state was saved with."
        )


def _class_weight(weight: Tensor | Sequence[float], num_classes: int) -> Tensor:
    values = torch.as_tensor(weight, dtype=torch.float32).detach().clone()
    if values.shape != (num_classes,):
        raise ValueError(f"weight needs one number for each of {num_classes} classes, got {tuple(values.shape)}.")
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise ValueError("weight must hold finite numbers >= 0.")
    if not bool(values.any()):
        raise ValueError("weight must be above 0 for at least one class: otherwise nothing would be trained.")
    return values


def as_rows(
    logits: Tensor, target: Tensor, features: Tensor | None, num_classes: int
) -> tuple[Tensor, Tensor, Tensor | None, torch.Size]:
    """Check the inputs of a loss and move every dimension but the class into one of size M.

    Args:
        logits: Shape (N, C), (C,) or (N, C, d1, ...).
        target: Indices, shaped like ``logits`` without the class, or probabilities, shaped like ``logits``.
        features: Shaped like ``logits`` with D for C, or ``None``.
        num_classes: C.

    Returns:
        The logits, float32 or float64 (M, C); the target, class indices (M,) or probabilities (M, C); the features
        (M, D), or ``None``; and the shape of one loss per target.

    Raises:
        ValueError: The shapes do not fit one another.
        TypeError: The logits or probabilities are not floating point, or the indices not integers.

    Example:
        >>> target = torch.zeros(2, 5, dtype=torch.int64)
        >>> logits, target, _, shape = as_rows(torch.zeros(2, 3, 5), target, None, num_classes=3)
        >>> logits.shape, target.shape, shape
        (torch.Size([10, 3]), torch.Size([10]), torch.Size([2, 5]))
    """
    # Float32 rows and one index for each, as in nearly every training step, are returned as they are.
    plain = logits.dtype == torch.float32 and target.dtype == torch.int64 and target.ndim == 1
    if features is None and plain and logits.shape == (*target.shape, num_classes):
        return logits, target, None, target.shape
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}.")
    dim = 0 if logits.ndim == 1 else 1
    if logits.ndim == 0 or logits.shape[dim] != num_classes:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} do not fit {num_classes} classes: build the loss from the class "
            "counts of this data, and the classifier with as many outputs."
        )
    rows, shape = _flat(logits, dim), logits.movedim(dim, -1).shape[:-1]
    labels = _flat_target(target, logits, dim, shape)
    if features is None:
        return rows, labels, None, shape
    if features.ndim != logits.ndim or features.movedim(dim, -1).shape[:-1] != shape:
        raise ValueError(
            f"features of shape {tuple(features.shape)} do not fit logits of shape {tuple(logits.shape)}: give one "
            "feature vector for each row of logits."
        )
    return rows, labels, _flat(features, dim).to(rows.dtype), shape


def _flat_target(target: Tensor, logits: Tensor, dim: int, shape: torch.Size) -> Tensor:
    if target.shape == logits.shape:
        if not target.is_floating_point():
            raise TypeError(f"a target shaped like the logits holds probabilities, but it is of {target.dtype}.")
        return _flat(target, dim)
    if target.shape != shape:
        raise ValueError(
            f"target of shape {tuple(target.shape)} does not fit logits of shape {tuple(logits.shape)}: give class "
            f"indices of shape {tuple(shape)} or probabilities of shape {tuple(logits.shape)}."
        )
    if target.is_floating_point() or target.dtype == torch.bool:
        raise TypeError(f"class indices must be integers, got {target.dtype}: call target.long().")
    return target.reshape(-1).long()


def _flat(values: Tensor, dim: int) -> Tensor:
    """``values`` as rows, shape (M, values.shape[dim]); half precisions raised to float32."""
    # Rows already: two views less to differentiate, which a small batch would notice.
    rows = values if values.ndim == 2 else values.movedim(dim, -1).reshape(-1, values.shape[dim])
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
