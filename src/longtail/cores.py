"""How many cores a process may use, and how those of a machine are divided; loads no PyTorch."""

from __future__ import annotations

import os

import psutil

# How many runs of a grid share this machine: the grid says so to the processes that train them.
JOBS = "LONGTAIL_JOBS"


def cores() -> int:
    """How many cores this process may use.

    Example:
        >>> cores() >= 1
        True
    """
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1


def runs_at_once() -> int:
    """How many runs of a grid share this machine, this one included.

    Example:
        >>> runs_at_once() >= 1
        True
    """
    return _number(JOBS)


def default_workers() -> int:
    """Processes that decode: one a core, the cores divided among the processes and runs that share the machine.

    Example:
        >>> default_workers() >= 1
        True
    """
    return max(1, cores() // (runs_at_once() * _number("LOCAL_WORLD_SIZE")))  # as torchrun and accelerate set it


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    return max(1, int(text)) if text.isdigit() else 1
