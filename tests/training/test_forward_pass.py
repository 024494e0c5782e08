"""The forward pass: the largest batch that fits into memory."""

from __future__ import annotations

import pytest

from longtail.errors import LongtailError
from longtail.training.forward_pass import largest_batch


def test_the_largest_batch_is_searched_by_halving() -> None:
    tried: list[int] = []

    def work(batch_size: int) -> int:
        tried.append(batch_size)
        if batch_size > 64:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return batch_size

    assert largest_batch(work, 256) == 64
    assert tried == [256, 128, 64]

    def never(batch_size: int) -> int:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(LongtailError, match="one image"):
        largest_batch(never, 256)
