"""ClassCounts: the training images of each class, and everything that follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
GroupName = Literal["many", "medium", "few"]
GROUP_NAMES: tuple[GroupName, ...] = ("many", "medium", "few")
FEW_IMAGES = 5
"""Figures of a class with fewer images than this say next to nothing, and are marked wherever they are shown."""


@dataclass(frozen=True)
class ClassCounts:
    """The number of training images of each class, in label order.

    Losses, samplers, shot groups and reports take this object and nothing else about the data. A class with zero
    images is kept; it counts as one image wherever a logarithm or a ratio is taken.

    Args:
        counts: Images per class, shape (C,), integers >= 0; at least two classes and one image in all. Those of a
            mapping, such as a ``Counter`` of labels or a pandas Series, are taken by their keys, ``0 .. C-1``.
        names: Class names, shape (C,), unique; ``"0"``, ``"1"``, ... when not given.

    Raises:
        ValueError: Fewer than two classes, a negative or fractional count, no image at all, names that do not fit, or a
            mapping with other keys.

    Example:
        >>> counts = ClassCounts([500, 50, 5], names=["cat", "lynx", "margay"])
        >>> counts.imbalance_ratio
        100.0
        >>> counts.tail_weight.round(2).tolist()
        [0.0, 0.5, 1.0]
        >>> counts.groups()["few"].tolist()
        [2]
    """

    counts: tuple[int, ...]
    names: tuple[str, ...] = field(default=())

    def __init__(self, counts: ClassCountsLike, names: Sequence[str] | None = None) -> None:
        object.__setattr__(self, "counts", _whole_numbers(counts))
        numbered = range(len(self.counts))
        given = names if names is not None else counts.names if isinstance(counts, ClassCounts) else numbered
        object.__setattr__(self, "names", tuple(map(str, given)))
        if len(self.counts) < 2:
            raise ValueError(f"ClassCounts needs at least 2 classes, got {len(self.counts)}: add a second class.")
        if min(self.counts) < 0:
            raise ValueError(f"ClassCounts takes counts >= 0, got {min(self.counts)}.")
        if sum(self.counts) == 0:
            raise ValueError("ClassCounts needs at least one image in all; every count given is 0.")
        if len(self.names) != len(self.counts):
            raise ValueError(f"{len(self.names)} class names do not fit {len(self.counts)} counts.")
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"class names must be unique; {twice!r} appears twice.")

    @classmethod
    def of(cls, counts: ClassCountsLike) -> ClassCounts:
        """Return ``counts`` itself if it is a ClassCounts already, else build one.

        Example:
            >>> ClassCounts.of([3, 1]).total
            4
        """
        return counts if isinstance(counts, ClassCounts) else cls(counts)

    @classmethod
    def from_labels(cls, labels: Iterable[int], classes: int | Sequence[str]) -> ClassCounts:
        """Count labels in ``0 .. C-1``; classes that never appear are kept with a count of zero.

        Args:
            labels: Class indices, shape (N,).
            classes: The number of classes C, or their names.

        Raises:
            ValueError: A label is outside ``0 .. C-1``.

        Example:
            >>> ClassCounts.from_labels([0, 0, 2], classes=3).counts
            (2, 0, 1)
        """
        names = None if isinstance(classes, int | np.integer) else classes
        size = int(classes) if isinstance(classes, int | np.integer) else len(classes)
        values = np.asarray(labels if isinstance(labels, np.ndarray) else list(labels), dtype=np.int64)
        if values.size and (values.min() < 0 or values.max() >= size):
            wrong = int(values.min()) if values.min() < 0 else int(values.max())
            raise ValueError(f"label {wrong} is outside 0..{size - 1}; give the right number of classes.")
        return cls(np.bincount(values, minlength=size), names)

    def __len__(self) -> int:
        return len(self.counts)

    def __iter__(self) -> Iterator[int]:
        return iter(self.counts)

    def __getitem__(self, index: int) -> int:
        return self.counts[index]

    @property
    def num_classes(self) -> int:
        """The number of classes C, those without images included."""
        return len(self.counts)

    @property
    def total(self) -> int:
        """The number of images, the sum of all counts."""
        return sum(self.counts)

    @property
    def imbalance_ratio(self) -> float:
        """``n_max / n_min``, at least 1; a class with zero images counts as one."""
        safe = self.at_least_one
        return float(safe.max() / safe.min())

    @property
    def array(self) -> IntArray:
        """The counts as an integer array, shape (C,)."""
        return np.array(self.counts, dtype=np.int64)

    @property
    def at_least_one(self) -> FloatArray:
        """The counts with zeros raised to one, float, shape (C,): what logarithms are taken of."""
        return np.maximum(self.array, 1).astype(np.float64)

    @property
    def log_deficit(self) -> FloatArray:
        """``d_j = log n_max - log n_j``, shape (C,): 0 for the largest class, growing towards the tail."""
        # Equation 1: d_j = log n_max - log n_j
        logs = np.log(self.at_least_one)
        return np.asarray(logs.max() - logs, dtype=np.float64)

    @property
    def tail_weight(self) -> FloatArray:
        """``d_j / max_k d_k``, shape (C,), in [0, 1]: 0 at the head, 1 at the tail, all zeros for equal counts."""
        # Equation 2: w_j = d_j / max_k d_k
        deficit = self.log_deficit
        top = deficit.max()
        return deficit / top if top > 0 else deficit

    @property
    def prior(self) -> FloatArray:
        """Class frequencies ``pi_j`` of the training data, shape (C,), summing to 1; zeros counted as one image."""
        safe = self.at_least_one
        return np.asarray(safe / safe.sum(), dtype=np.float64)

    def tensor(self, device: torch.device | str | None = None) -> torch.Tensor:
        """The counts as an int64 tensor, shape (C,)."""
        import torch

        return torch.tensor(self.counts, dtype=torch.int64, device=device)

    def groups(
        self, *, many: int = 100, few: int = 20, by: Literal["threshold", "thirds"] = "threshold"
    ) -> dict[GroupName, IntArray]:
        """Split the classes into shot groups by their training counts.

        Args:
            many: A class with more images than this is many-shot (``by="threshold"``).
            few: A class with fewer images than this is few-shot.
            by: ``"threshold"``, or ``"thirds"``: the largest, middle and smallest third of the classes. Of classes
                with as many images that a cut falls among, the first are in the larger group.

        Returns:
            Class indices for ``many``, ``medium`` and ``few``; a group may be empty.

        Raises:
            ValueError: ``few`` exceeds ``many + 1``, so that a class would fall in two groups.

        Example:
            >>> {name: len(rows) for name, rows in ClassCounts([300, 100, 20, 19]).groups().items()}
            {'many': 1, 'medium': 2, 'few': 1}
        """
        if by == "thirds":
            order = np.argsort(-self.array, kind="stable")
            parts = [np.sort(part).astype(np.int64) for part in np.array_split(order, 3)]
            return dict(zip(GROUP_NAMES, parts, strict=True))
        if few > many + 1:
            raise ValueError(f"few={few} must not exceed many={many} + 1, or a class is in two groups.")
        counts = self.array
        masks = (counts > many, (counts <= many) & (counts >= few), counts < few)
        return {name: np.flatnonzero(mask) for name, mask in zip(GROUP_NAMES, masks, strict=True)}

    def group_of(self, **options: Any) -> list[GroupName]:
        """The group name of each class, a list of length C; options as for :meth:`groups`.

        Example:
            >>> ClassCounts([300, 50, 5]).group_of()
            ['many', 'medium', 'few']
        """
        names = {row: name for name, rows in self.groups(**options).items() for row in rows}
        return [names[row] for row in range(self.num_classes)]

    def permute(self, order: Sequence[int]) -> ClassCounts:
        """The same classes in another order: new class ``i`` is old class ``order[i]``.

        Example:
            >>> ClassCounts([5, 3, 1]).permute([2, 0, 1]).counts
            (1, 5, 3)
        """
        if sorted(order) != list(range(self.num_classes)):
            raise ValueError(f"order must name each of 0..{self.num_classes - 1} once.")
        return ClassCounts([self.counts[i] for i in order], [self.names[i] for i in order])


def _whole_numbers(counts: ClassCountsLike) -> tuple[int, ...]:
    if isinstance(counts, ClassCounts):
        return counts.counts
    if hasattr(counts, "to_dict"):  # a pandas Series: that of value_counts() is in the order of the counts
        counts = counts.to_dict()
    if isinstance(counts, Mapping):
        if counts.keys() != set(range(len(counts))):
            raise ValueError(
                f"a mapping of counts needs the keys 0..{len(counts) - 1}: give one count a class, in label order."
            )
        counts = [counts[label] for label in range(len(counts))]
    values = np.asarray(counts.tolist() if hasattr(counts, "tolist") else list(counts))
    if values.ndim != 1:
        raise ValueError(f"ClassCounts takes one count per class, got an array of shape {values.shape}.")
    is_whole = np.issubdtype(values.dtype, np.number) and np.all(np.isfinite(values) & (values == np.floor(values)))
    if values.size and not is_whole:
        raise ValueError("ClassCounts takes whole numbers of images, got a fraction or a non-number.")
    return tuple(int(value) for value in values)


if TYPE_CHECKING:
    ClassCountsLike: TypeAlias = Sequence[int] | Mapping[int, int] | npt.NDArray[Any] | torch.Tensor | ClassCounts
else:
    ClassCountsLike = Any
