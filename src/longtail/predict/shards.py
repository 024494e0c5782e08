"""Shards: a split of images over machines that know nothing of each other, by a hash of each image's path."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from longtail.errors import UsageError


def path_key(path: str) -> int:
    """Hash a path, relative to what was named, to 64 bits (BLAKE2b); the same on every machine and in every version.

    Example:
        >>> path_key("day one/00.png")
        14556990278656845100
    """
    return int.from_bytes(hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Shard:
    """One of ``count`` shards of a collection, counted from 1.

    An image belongs to shard ``path_key(path) % count + 1``. So the shards are disjoint, hold every image, and are
    even up to chance: of n images each has n / count, with a standard deviation below the square root of that. A
    file that is added or removed moves no other one.

    Attributes:
        index: Its number, 1 to ``count``.
        count: Number of shards.

    Raises:
        UsageError: There is no such shard.

    Example:
        >>> shards = [Shard(number, 2) for number in (1, 2)]
        >>> [[name for name in "abcdef" if shard.has(path_key(name))] for shard in shards]
        [['a', 'b', 'e', 'f'], ['c', 'd']]
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            hint = " (add 1 to an index that starts at 0)" if self.index == 0 else ""
            names = f"1/{self.count} to {self.count}/{self.count}" if self.count > 0 else "1/8 to 8/8"
            raise UsageError(f"there is no shard {self}: shards are counted from 1, {names}{hint}.")

    def __str__(self) -> str:
        """Return it as it is typed, ``3/8``."""
        return f"{self.index}/{self.count}"

    def has(self, key: int) -> bool:
        """Whether an image with this :func:`path_key` belongs to it."""
        return key % self.count == self.index - 1


def parse_shard(text: str) -> Shard:
    """Read a shard as it is typed.

    Raises:
        UsageError: It is not of the form I/N, or out of range.

    Example:
        >>> parse_shard("3/8")
        Shard(index=3, count=8)
        >>> parse_shard("0/8")
        Traceback (most recent call last):
        longtail.errors.UsageError: there is no shard 0/8: shards are counted from 1, 1/8 to 8/8 (add 1 to an index
        that starts at 0).
    """
    numbers = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip(), re.ASCII)
    if numbers is None:
        raise UsageError(f"--shard {text} is not of the form I/N, such as 3/8 for the third of eight shards.")
    return Shard(int(numbers[1]), int(numbers[2]))
