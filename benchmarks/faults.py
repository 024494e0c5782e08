"""End machines and processes at random moments, fill memory, fail a store: is anything lost, there twice, or waiting?

    python benchmarks/faults.py --times 20 --json docs/performance/faults/faults.json      # hours on two cores
    python benchmarks/faults.py --kinds prediction-node train-rank --times 3

Every kind is whole commands on small work (digits), done undisturbed first, which gives the result to be reached and
the seconds that moments are drawn from. A command has to end within ``--timeout`` (it is killed then, a problem), with
status 0 or with a status and one sentence; it is then repeated, as the sentence says, up to three times. In the end,
the weights of each run have to be those of the undisturbed one to the bit, and each image in the table once, in its
order, with its class, unreadable ones in the list of those.

``grid-*`` and ``prediction-*`` use a cluster of a head and two nodes on this machine (``local_cluster.py``): ``node``
ends all processes of a node at once (SIGKILL), ``nodes`` those of both, ``worker`` one process that does a task,
``agent`` one that a node does not outlive, ``head`` those of the head. ``prediction-memory`` has the object stores
full, of a cluster that may not spill to the disk. ``train-rank`` kills one of two processes under torchrun.
``*-twice`` gives the same command twice at once. ``store-*`` reads, and writes, a store of which 5 % of the calls fail
and 1 % of the reads end early.
"""

from __future__ import annotations

import argparse
import importlib
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import psutil
import torch
from fault_work import (
    Command,
    Grid,
    LocalPrediction,
    OneTraining,
    Prediction,
    Result,
    StorePrediction,
    Stream,
    Training,
    Work,
    problem_of,
)
from flaky_store import SEED
from local_cluster import LocalCluster, agents, busy_workers

from longtail.version import versions

TRIES = 4  # of a command


@dataclass
class Stage:
    """Where cases are played: their folder, their cluster, and what is random.

    Attributes:
        folder: What is made in it is thrown away.
        timeout: Seconds that a command may take.
        draw: The random moments, victims, and so on.
        cluster: The cluster, where there is one now.
    """

    folder: Path
    timeout: float
    draw: random.Random
    cluster: LocalCluster | None = None

    def start(self, work: Work, out: Path) -> Command:
        """Give the command of a work."""
        address = self.need_cluster().address if work.is_clustered else ""
        return Command(work.words(out, address), self.folder, {SEED: str(self.draw.randrange(10**6))})

    def need_cluster(self, *, spills: bool = True) -> LocalCluster:
        """Return a cluster that is whole."""
        self.cluster = self.cluster or LocalCluster(nodes=2, cores=1, spills=spills)
        self.cluster.restore()
        return self.cluster

    def drop_cluster(self) -> None:
        """End what is left of the cluster."""
        if self.cluster is not None:
            self.cluster.shut_down()
            self.cluster = None


Case = Callable[[Stage, Work, Path, float], tuple[float, bool, list[Result]]]
"""Plays a case; returns its moment, whether there was anything to disturb, and what came of its commands."""
Fault = Callable[[Stage, Command], bool]
"""Does something to a command or its cluster; whether there was something to do it to."""


def nothing(_: Stage, __: Command) -> bool:
    """The fault is in the work itself."""
    return True


def lose_node(stage: Stage, _: Command) -> bool:
    """End a node."""
    assert stage.cluster is not None
    stage.cluster.remove(stage.draw.randrange(len(stage.cluster.nodes)))
    return True


def lose_nodes(stage: Stage, command: Command) -> bool:
    """End all nodes; the head stays."""
    assert stage.cluster is not None
    for _ in stage.cluster.nodes[:]:
        lose_node(stage, command)
    return True


def kill_one(stage: Stage, processes: list[psutil.Process]) -> bool:
    """End one of several processes; whether there was one."""
    if processes:
        stage.draw.choice(processes).kill()
    return bool(processes)


def lose_worker(stage: Stage, _: Command) -> bool:
    """End a process that does a task."""
    return kill_one(stage, busy_workers())


def lose_agent(stage: Stage, command: Command) -> bool:
    """End an agent, which its node does not outlive, perhaps that of the command."""
    command.when_over(stage.drop_cluster)
    return kill_one(stage, agents())


def lose_head(stage: Stage, command: Command) -> bool:
    """End the head; what is left of the cluster goes when the command has ended."""
    assert stage.cluster is not None
    stage.cluster.kill_head()
    command.when_over(stage.drop_cluster)
    return True


def lose_rank(stage: Stage, command: Command) -> bool:
    """End one of the processes of a run."""
    return kill_one(stage, [child for child in command.children() if "longtail" in " ".join(child.cmdline()[:4])])


def disturbed(fault: Fault) -> Case:
    """Begin a work anew, do something to it at a random moment, and repeat what ended early."""

    def case(stage: Stage, work: Work, out: Path, seconds: float) -> tuple[float, bool, list[Result]]:
        moment, results, happened = stage.draw.uniform(0, seconds), list[Result](), list[bool]()
        while not results or (results[-1].status not in {0, None} and len(results) < TRIES):
            command = stage.start(work, out)
            strike = threading.Timer(moment, lambda given: happened.append(fault(stage, given)), [command])
            if not results:
                strike.start()
            results.append(command.wait(stage.timeout))
            strike.cancel()
            if strike.is_alive():
                strike.join()
        return moment, any(happened), results

    return case


def twice(stage: Stage, work: Work, out: Path, seconds: float) -> tuple[float, bool, list[Result]]:
    """Give a command twice, the second time at a random moment of the first."""
    moment = stage.draw.uniform(0, seconds)
    first = stage.start(work, out)
    threading.Event().wait(moment)
    second = stage.start(work, out)
    return moment, True, [first.wait(stage.timeout), second.wait(stage.timeout)]


def full_memory(stage: Stage, work: Work, out: Path, seconds: float) -> tuple[float, bool, list[Result]]:
    """Begin a work while the object stores are full and must not spill, and repeat it when there is room again."""
    del seconds
    share = stage.draw.uniform(0.9, 1.0)  # what is left may be enough, or not
    stage.drop_cluster()
    with stage.need_cluster(spills=False).filled(share):
        results = [stage.start(work, out).wait(stage.timeout)]
    while results[-1].status not in {0, None} and len(results) < TRIES:
        results.append(stage.start(work, out).wait(stage.timeout))
    stage.drop_cluster()
    return share, True, results


KINDS: dict[str, tuple[type[Work], Case]] = {
    "prediction-node": (Prediction, disturbed(lose_node)),
    "prediction-nodes": (Prediction, disturbed(lose_nodes)),
    "prediction-worker": (Prediction, disturbed(lose_worker)),
    "prediction-agent": (Prediction, disturbed(lose_agent)),
    "prediction-head": (Prediction, disturbed(lose_head)),
    "prediction-memory": (Prediction, full_memory),
    "prediction-twice": (Prediction, twice),
    "grid-node": (Grid, disturbed(lose_node)),
    "grid-nodes": (Grid, disturbed(lose_nodes)),
    "grid-worker": (Grid, disturbed(lose_worker)),
    "grid-agent": (Grid, disturbed(lose_agent)),
    "grid-head": (Grid, disturbed(lose_head)),
    "grid-twice": (Grid, twice),
    "train-rank": (Training, disturbed(lose_rank)),
    "train-twice": (OneTraining, twice),
    "local-twice": (LocalPrediction, twice),
    "store-prediction": (StorePrediction, disturbed(nothing)),
    "store-stream": (Stream, disturbed(nothing)),
}


def judged(stage: Stage, kind: str, number: int, seconds: float, work: Work) -> dict[str, Any]:
    """Play a case, and say what came of it."""
    out = stage.folder / f"{kind}-{number}"
    moment, happened, results = KINDS[kind][1](stage, work, out, seconds)
    problem = problem_of(results, has_agent=work.has_agent) or work.difference(out)
    shutil.rmtree(out, ignore_errors=True)
    return {
        "kind": kind,
        "number": number,
        "moment": round(moment, 2),
        "happened": happened,
        "seconds": [round(result.seconds, 1) for result in results],
        "status": [result.status for result in results],
        "said": [result.sentence.replace(str(stage.folder), "") for result in results if result.status],
        "problem": problem,
    }


def main() -> None:
    """Make what is worked on, then disturb each kind of work so many times, and say what came of it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--times", type=int, default=20, help="cases of each kind")
    options.add_argument("--kinds", nargs="+", default=None, metavar="KIND", help="such as prediction-node; all")
    options.add_argument("--timeout", type=float, default=400.0, help="seconds that a command may take")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the rows to this file")
    flags = options.parse_args()
    rows, prepared = list[dict[str, Any]](), dict[type[Work], tuple[Work, float]]()
    facts = {
        "device": common.row("", 1, None, "", device=torch.device("cpu"))["device"],
        "versions": package_versions(),
    }
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), flags.timeout, random.Random(flags.seed))
        try:
            for number in range(flags.times):  # in turns, so that all kinds see the same machine
                for kind in flags.kinds or KINDS:
                    try:
                        work, seconds = prepared_work(stage, KINDS[kind][0], prepared)
                        row = judged(stage, kind, number, seconds, work)
                    except Exception as error:  # of a machine that is too busy to start a cluster
                        print(f"{kind}: not played, {type(error).__name__}: {error}", flush=True)
                        stage.drop_cluster()
                        continue
                    rows.append(row)
                    print(row, flush=True)
                    common.rows_to_json(flags.json, [row | facts for row in rows])
        finally:
            stage.drop_cluster()
    bad = [row for row in rows if row["problem"]]
    print(f"{len(rows)} cases, {sum(row['happened'] for row in rows)} of them hit, {len(bad)} with a problem")
    sys.exit(bool(bad))


def prepared_work(stage: Stage, made: type[Work], prepared: dict[type[Work], tuple[Work, float]]) -> tuple[Work, float]:
    """Return a work whose right result is known, and its seconds undisturbed."""
    if made not in prepared:
        work = made(stage.folder)
        seconds = work.prepare(stage.need_cluster().address if work.is_clustered else "")
        print(f"{made.__name__}: {seconds:.1f} s undisturbed", flush=True)
        prepared[made] = work, seconds
    return prepared[made]


def package_versions() -> dict[str, str]:
    """Versions of what takes part."""
    ours = versions()
    known = {name: ours[name] for name in ("python", "torch", "longtail")}
    return known | {"ray": importlib.import_module("ray").__version__}


if __name__ == "__main__":
    main()
