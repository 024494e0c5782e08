"""Kill a run at every instant, resume it, and compare it with one that was never killed.

    python benchmarks/resume.py             # every instant: minutes
    python benchmarks/resume.py --kinds     # one instant of each kind: seconds

An instant is a file operation in the RUN folder, or the moment before or after a step of the program: an optimizer
step, a recorded epoch, an evaluation, a checkpoint, the start or the end of a stage. The run has two stages, mixup, a
moving average of the weights, recorded gradients and a validation split, on small digits, in bfloat16. Each child ends
by ``os._exit``, without any clean-up. Weights, figures, predictions, history and recorded gradients have to be the same
to the bit; only times may differ.
"""

from __future__ import annotations

import argparse
import csv
import gc
import io
import json
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import longtail.evaluation.tallies
import longtail.report.page as page
import longtail.run.checkpoint as checkpoint
import longtail.training.experiment as run
from longtail.cli import main as longtail
from longtail.commands.train import resume_command, train_command
from longtail.config.schema import RunConfig
from longtail.files import write_atomically
from longtail.run.layout import read_config
from longtail.training.experiment import Experiment
from longtail.training.tracking import Tracking

OPTIONS = (
    "--recipe",
    "cifar-lt/gcl",
    "--imbalance-ratio",
    "50",
    "--seed",
    "3",
    "--model.name",
    "plain-cnn",
    "--data.image_size",
    "8",
    "--data.validation_fraction",
    "0.2",
    "--stage1.optimizer.lr",
    "0.02",
    "--stage1.epochs",
    "2",
    "--stage1.schedule.milestones",
    "[1]",
    "--stage1.schedule.factors",
    "[0.1]",
    "--stage2.epochs",
    "2",
    "--stage1.batch_size",
    "128",
    "--stage2.batch_size",
    "128",
    "--training.validate_every",
    "1",
    "--training.ema_decay",
    "0.9",
    "--training.record_dynamics",
    "true",
    "--training.precision",
    "bf16",
    "--training.device",
    "cpu",
    "--quiet",
)
KILLED = 77  # exit status of a child that ended itself
OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree"}
STEPS: tuple[tuple[Any, str], ...] = (
    *(
        (Experiment, name)
        for name in ("train_stage", "finish_epoch", "on_step_end", "evaluate", "save_checkpoint", "save")
    ),
    *((run, name) for name in ("build_stage", "MovingAverage", "set_trainable", "write_examples")),
    (Tracking, "log"),
    (checkpoint, "save_file"),
    (checkpoint, "remove_checkpoints"),
    (os, "fsync"),
)
UNNAMED = re.compile(r"\.longtail-[^/]+\.tmp$")  # the end of the name of a file that is being written
Instants = list[str]
# Hardly another moment than those before or after them: left out where one instant of each kind is enough.
BETWEEN = re.compile(
    r"open|os\.(mkdir|remove)|after|.*model\.json"
    r"|before (log|set_trainable|MovingAverage|save_checkpoint|write_examples|remove_checkpoints)$"
)


class Watch:
    """Counts the instants of this process, and ends it at one of them.

    Args:
        out: The RUN folder.
        last: The instant to end at, from 0; None ends at none.
    """

    def __init__(self, out: Path, last: int | None) -> None:
        self.out, self.last = out, last
        self.passed: Instants = []

    def start(self) -> None:
        """Watch file operations and steps from now on; it ends with the process only."""
        for owner, name in STEPS:
            setattr(owner, name, self._watched(getattr(owner, name), name.lstrip("_")))
        page.write_report = self._page
        sys.addaudithook(self._audit)

    def at(self, kind: str) -> None:
        """Pass an instant, or end there."""
        self.passed.append(kind)
        if len(self.passed) - 1 == self.last:
            os._exit(KILLED)

    def _watched(self, work: Callable[..., Any], name: str) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            self.at(f"before {name}")
            result = work(*arguments, **options)
            self.at(f"after {name}")
            return result

        return watched

    def _page(self, _: Sequence[Path], path: Path) -> Path:
        """The file of the report without its content, which is made of files that are compared."""
        write_atomically(path, b"a page")
        return path

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or not isinstance(arguments[0], str | os.PathLike):
            return
        path = str(os.fspath(arguments[0]))
        writes = event != "open" or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if path.startswith(str(self.out)) and writes:
            file = path.removeprefix(str(self.out)).lstrip("/") or "RUN"
            self.at(f"{event} {re.sub(r'[0-9]+', 'N', UNNAMED.sub('.tmp', file))}")


def main() -> None:
    """Run the benchmark from the command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kinds", action="store_true", help="one instant of each kind only")
    options.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the outcome of each instant")
    words = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = kill_everywhere(Path(folder).resolve(), kinds=words.kinds)
    if words.json is not None:
        words.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    show(rows)
    raise SystemExit(any(row["difference"] for row in rows))


def kill_everywhere(folder: Path, *, kinds: bool) -> list[dict[str, Any]]:
    """Return one row for each instant: its number, its kind, and what differs, which is empty where nothing does."""
    straight, listed = folder / "straight", folder / "instants.json"
    with redirect_stdout(None):
        if status := longtail(["train", "digits", *OPTIONS, "--out", str(straight)]):
            raise SystemExit(f"the run itself ended with status {status}")
    wanted, config = contents(straight), read_config(straight)
    gc.collect()
    gc.freeze()  # a child has little to look through
    in_child(lambda: train(config, folder / "watched", None, listed))
    instants: Instants = json.loads(listed.read_text(encoding="utf-8"))
    return [
        {
            "instant": index,
            "kind": instants[index],
            "difference": killed_and_resumed(config, folder / "run", index, wanted),
        }
        for index in (chosen(instants) if kinds else range(len(instants)))
    ]


def chosen(instants: Instants) -> Iterator[int]:
    """One instant of each kind: that in the middle, which is near the boundary of the stages."""
    places: dict[str, list[int]] = {}
    for index, kind in enumerate(instants):
        if not BETWEEN.match(kind):
            places.setdefault(kind, []).append(index)
    for each in places.values():
        yield each[len(each) // 2]


def killed_and_resumed(config: RunConfig, out: Path, index: int, wanted: dict[str, Any]) -> str:
    """Kill a run at an instant, resume it until it is finished, and name the differences from one never killed."""
    shutil.rmtree(out, ignore_errors=True)
    if in_child(lambda: train(config, out, index)) != KILLED:
        return "it was not ended there"
    if in_child(lambda: resume(config, out)):
        return "it could not be resumed"
    ours = contents(out)
    return ", ".join(name for name in sorted(wanted.keys() | ours.keys()) if wanted.get(name) != ours.get(name))


def train(config: RunConfig, out: Path, last: int | None, listed: Path | None = None) -> int:
    """Train in a watched process; write the list of its instants where it reaches the end."""
    watch = Watch(out, last)
    watch.start()
    status = train_command(config, str(out), quiet=True)
    if listed is not None:
        listed.write_text(json.dumps(watch.passed), encoding="utf-8")
    return status


def resume(config: RunConfig, out: Path) -> int:
    """Go on as the program says: with --resume where there is a configuration, else with the same command."""
    Watch(out, None).start()
    if not (out / "config.yaml").is_file():
        return train_command(config, str(out), quiet=True)
    return resume_command(str(out), quiet=True)


def in_child(work: Callable[[], int]) -> int:
    """Fork a process that does the work and ends; return its exit status."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(out: Path) -> dict[str, Any]:
    """Contents of a finished run, by file, without its times."""
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    held: dict[str, Any] = {"metrics.json": [metrics[name] for name in ("test", "validation", "stages", "data_hash")]}
    rows = csv.reader(io.StringIO((out / "history.csv").read_text(encoding="utf-8")))
    held["history.csv"] = [row[:-3] for row in rows]  # the last three are times
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name not in {*held, "report.html"} and path.suffix != ".tmp":
            held[str(path.relative_to(out))] = path.read_bytes()
    return held


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table by kind."""
    table = Table("kind", "instants", "identical", "what differs", box=None)
    total, same = (Counter(row["kind"] for row in rows if each or not row["difference"]) for each in (True, False))
    for kind in total:
        differences = dict.fromkeys(row["difference"] for row in rows if row["kind"] == kind and row["difference"])
        table.add_row(kind, str(total[kind]), str(same[kind]), "; ".join(differences))
    Console(width=160).print(table)
    print(f"{same.total()} of {total.total()} instants: the same run to the bit")


if __name__ == "__main__":
    main()
