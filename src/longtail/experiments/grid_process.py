"""RunProcess: the process that trains one run of a grid, on this machine or on one of a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from longtail.device import JOBS, cores
from longtail.errors import LongtailError
from longtail.experiments.grid_plan import PlannedRun, state_of
from longtail.run.layout import log_file, write_config
from longtail.run.origin import continued


def train_command(run: PlannedRun) -> list[str]:
    """Return the command that trains a run, from its start or from its checkpoint."""
    folder = str(run.folder)
    return [sys.executable, "-m", "longtail", "--grid-lock", folder, "train", "--resume", folder]


def shared_environment(jobs: int, threads: int | None = None) -> dict[str, str]:
    """Return the environment of the process of a run.

    Args:
        jobs: Runs that share this machine.
        threads: Threads that compute; of several jobs each gets its share of the cores when not given.
    """
    environment = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}  # its output is a file
    if jobs > 1:
        environment[JOBS] = str(jobs)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    elif jobs > 1:
        share = max(1, cores() // jobs)
        limit = environment.get("OMP_NUM_THREADS", "")
        environment["OMP_NUM_THREADS"] = str(min(share, int(limit)) if limit.isdigit() else share)
    return environment


class RunProcess:
    """The process that trains one run; all that it says goes to the log of the run.

    Args:
        run: The run.
        command: As :func:`train_command` returns it.
        environment: As :func:`shared_environment` returns it.
    """

    def __init__(self, run: PlannedRun, command: Sequence[str], environment: dict[str, str]) -> None:
        self.run = run
        write_config(run.folder, run.config if state_of(run) == "new" else continued(run.folder, run.config))
        self._log = log_file(run.folder)
        with self._log.open("ab") as log:
            self._begin = log.tell()
            # A group of its own: Ctrl-C reaches the grid alone, which then tells its processes. They stop by themselves
            # when their standard input closes, as it does when the grid, or the task of a cluster, is killed.
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ask it to save and stop."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def wait(self) -> str:
        """Wait for its end, and return the reason of its failure in one sentence; empty where it did not fail."""
        status = self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        # An earlier process of a lost grid may have held the lock, and finished the run.
        if status == 0 or self._is_finished:
            return ""
        try:
            log = self._log.read_bytes()[self._begin :]
        except OSError:  # removed, or its disk fails
            log = b""
        output = log.decode(errors="replace").splitlines()
        messages = [line.removeprefix("longtail: ") for line in output if line.startswith("longtail: ")]
        if messages:
            return messages[-1]
        if status < 0:
            return f"its process was killed by signal {-status}, perhaps for want of memory: run fewer at once."
        last = next((line.strip() for line in reversed(output) if line.strip()), f"it ended with status {status}")
        return f"{last} (its output is in {self._log})"

    @property
    def _is_finished(self) -> bool:
        try:
            return state_of(self.run) == "finished"
        except (LongtailError, OSError):
            return False
