"""What every sampler shares: one seeded draw an epoch, a rank's share of it, and a state to resume from."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

IndexArray: TypeAlias = npt.NDArray[np.int32] | npt.NDArray[np.int64]


class EpochSampler(Sampler[int], ABC):
    """What all our samplers share: one seeded draw an epoch, of which a rank takes every ``world_size``-th index.

    The whole draw depends on ``(seed, epoch)`` alone, so the k-th batches of size b of all ranks are together the k-th
    batch of size ``b * world_size`` of a single process. Every rank has the same number of indices.

    Args:
        num_images: Images that can be drawn, N.
        num_samples: Indices in an epoch over all ranks; N when not given. Rounded up to a multiple of ``world_size``.
        seed: Seed of the draw, >= 0.
        rank: This process, in ``0 .. world_size - 1``.
        world_size: Number of processes.

    Attributes:
        epoch: The epoch that is drawn; change it by :meth:`set_epoch`.
        position: Indices of this epoch that this rank has consumed; iterating does not move it, :meth:`advance` does.
    """

    def __init__(self, num_images: int, *, num_samples: int | None, seed: int, rank: int, world_size: int) -> None:
        wanted = num_images if num_samples is None else num_samples
        if num_images < 1 or wanted < 1:
            raise ValueError(f"a sampler needs at least one image and one draw, got {num_images} and {wanted}.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in 0..{world_size - 1}, got {rank}: check world_size={world_size}.")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}.")
        self.num_images, self.seed, self.rank, self.world_size = num_images, seed, rank, world_size
        self._length = -(-wanted // world_size)
        self.epoch = 0
        self.position = 0
        self._progress = 0.0
        self._drawn_at: float | None = None

    @abstractmethod
    def _draw(self, random: np.random.Generator, progress: float) -> Iterator[IndexArray]:
        """This rank's indices in blocks, len(self) in all: every ``world_size``-th of the draw, from ``rank`` on."""

    def __len__(self) -> int:
        """Indices of this rank in a whole epoch, wherever the position is: schedules count with it."""
        return self._length

    def __iter__(self) -> Iterator[int]:
        """Yield what is left of this epoch, from :attr:`position` on; never holds the whole draw in memory."""
        left = _skip(self._blocks(), self.position)
        return itertools.chain.from_iterable(block.tolist() for block in left)

    def indices(self) -> torch.Tensor:
        """This rank's indices of the current epoch, int64 of shape (len(self),), the consumed ones included."""
        drawn, filled = np.empty(len(self), dtype=np.int64), 0
        for block in self._blocks():
            drawn[filled : filled + len(block)] = block
            filled += len(block)
        return torch.from_numpy(drawn)

    def _blocks(self) -> Iterator[IndexArray]:
        if self._drawn_at is None:
            self._drawn_at = self._progress
        return self._draw(np.random.default_rng([self.seed, self.epoch]), self._drawn_at)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, whose draw is another than the last one's."""
        if epoch < 0:
            raise ValueError(f"epoch must be 0 or more, got {epoch}.")
        self.epoch, self.position, self._drawn_at = epoch, 0, None

    def advance(self, consumed: int) -> None:
        """Say that this rank has consumed that many more indices."""
        if consumed < 0 or self.position + consumed > len(self):
            raise ValueError(f"cannot advance by {consumed} from {self.position}: this epoch has {len(self)} indices.")
        self.position += consumed

    @property
    def progress(self) -> float:
        """Training progress in [0, 1]; a draw that has begun keeps its own until the next :meth:`set_epoch`."""
        return self._progress

    @progress.setter
    def progress(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"progress is the share of training that is done, in [0, 1], got {value}.")
        self._progress = float(value)

    def state_dict(self) -> dict[str, int | float]:
        """Where this sampler stands: plain numbers, the same on every rank, safe to write as JSON."""
        progress = self._progress if self._drawn_at is None else self._drawn_at
        numbers: dict[str, int | float] = {"epoch": self.epoch, "position": self.position, "seed": self.seed}
        return {**numbers, "progress": progress, "world_size": self.world_size}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue from :meth:`state_dict`, also with another number of ranks where the position can be divided.

        Raises:
            ValueError: The state does not fit this sampler; the sampler is left as it was.
        """
        missing = {"epoch", "position", "seed", "progress", "world_size"} - state.keys()
        if missing:
            raise ValueError(f"a sampler's state must have {sorted(missing)}: give what state_dict() returned.")
        position, uneven = divmod(int(state["position"]) * int(state["world_size"]), self.world_size)
        if uneven:
            raise ValueError(f"resume with {int(state['world_size'])} processes as before, not {self.world_size}.")
        if not 0 <= position <= len(self):
            raise ValueError(f"position {position} is beyond the {len(self)} indices here: resume on the same data.")
        self.progress = float(state["progress"])
        self.seed = int(state["seed"])
        self.epoch, self.position = int(state["epoch"]), position
        self._drawn_at = self._progress if position else None


def _skip(blocks: Iterator[IndexArray], count: int) -> Iterator[IndexArray]:
    """The blocks without their first ``count`` numbers."""
    for block in blocks:
        if count < len(block):
            yield block[count:]
        count = max(0, count - len(block))
