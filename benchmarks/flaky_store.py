"""The scheme ``flaky://``: files of this machine as a store; 5 % of its calls fail, 1 % of its reads end early.

As a program it is ``longtail`` with that store: ``python flaky_store.py predict RUN flaky:///photos --out ...``.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

FAILS, ENDS_EARLY = 0.05, 0.01
SEED = "FLAKY_SEED"
"""Environment variable: where the random numbers begin."""


class FlakyFileSystem(LocalFileSystem):
    """Local files, most of the time."""

    protocol: ClassVar[str] = "flaky"
    _random: ClassVar[random.Random] = random.Random(int(os.environ.get(SEED, "0")))
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._files = LocalFileSystem(auto_mkdir=True)  # a store knows no folders

    @classmethod
    def _happens(cls, share: float) -> bool:
        with cls._lock:
            return cls._random.random() < share

    @classmethod
    def _may_fail(cls) -> None:
        if cls._happens(FAILS):
            raise OSError("503 Slow Down")

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        # As of a bucket, names begin without a slash to those who put them together again.
        return super()._strip_protocol("/" + str(path).removeprefix("flaky://").lstrip("/"))

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Describe a file or folder."""
        self._may_fail()
        return self._files.info(path, **options)

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        """List a folder."""
        self._may_fail()
        return self._files.ls(path, detail=detail, **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """Return what is in a file, or half of it."""
        self._may_fail()
        data: bytes = self._files.cat_file(path, start=start, end=end, **options)
        return data[: len(data) // 2] if self._happens(ENDS_EARLY) else data

    def put_file(self, *given: Any, **options: Any) -> None:
        """Upload a file."""
        self._may_fail()
        self._files.put_file(*given, **options)

    def rm_file(self, path: str) -> None:
        """Remove a file."""
        self._may_fail()
        self._files.rm_file(path)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "rb":
            self._may_fail()
        file = self._files._open(path, mode, **options)
        return FlakyFile(file) if mode == "rb" else file


class FlakyFile:
    """An open file whose reads fail or end early as those of the store."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> FlakyFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        """Read on, or half as much."""
        FlakyFileSystem._may_fail()
        data: bytes = self._file.read(size)
        return data[: len(data) // 2] if len(data) > 1 and FlakyFileSystem._happens(ENDS_EARLY) else data


fsspec.register_implementation("flaky", FlakyFileSystem)

if __name__ == "__main__":
    from longtail.cli import main

    sys.exit(main())
