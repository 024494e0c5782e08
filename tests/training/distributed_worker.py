"""Processes of distributed runs: they train through the command line, note the rows they saw, stop and resume."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from accelerate import PartialState
from ctrl_c import CtrlC
from PIL import Image
from torch import Tensor

from longtail.cli import main
from longtail.config.build import build, read_config_file
from longtail.config.resolve import complete
from longtail.console import Interrupted, Reporter
from longtail.data.loading.loaders import Batch, ResidentLoader
from longtail.experiments.adjust import AdjustmentOptions, adjust_run
from longtail.experiments.evaluate import evaluate_run
from longtail.training.experiment import Experiment
from longtail.training.launch import start_run
from longtail.training.loop import Progress, StageRun

TRAIN_IMAGES = 1438


def work(config: str, out: str, finished: str) -> None:
    folder = Path(out)
    seen = note_rows()
    assert main(["train", "--config", config, "--out", out, "--quiet"]) == 0
    rank = PartialState().process_index
    (folder / f"rows-{rank}.json").write_text(json.dumps(seen))
    evaluate(Path(finished), folder / "evaluated.json")

    # Ctrl-C in the second epoch, then --resume auto with the same options.
    stopped = f"{out}-stopped"
    with contextlib.suppress(Interrupted):
        start_run(
            complete(build(read_config_file(config).values)),
            Path(stopped),
            Reporter(quiet=True),
            callbacks=[CtrlC(1, 1, 10)],
        )
    if rank == 0:  # for one process to continue
        shutil.copytree(stopped, f"{out}-for-one")
    assert main(["train", "--config", config, "--out", stopped, "--resume", "auto", "--quiet"]) == 0

    # Batch normalization, whose statistics differ between the processes while they train.
    normalized = f"{out}-normalized"
    options = ["--model.name", "resnet20", "--stage1.epochs", "1", "--data.validation_fraction", "0.1"]
    assert main(["train", "--config", config, "--out", normalized, "--quiet", *options]) == 0
    evaluate(Path(normalized), Path(normalized) / "evaluated.json")
    adjust_run(Path(normalized), AdjustmentOptions(tau=0.5))

    disagree(
        folder.parent / "disagreeing", {"photos": (("ant", "bee"), ("bee", "cat")), "absent": (("ant", "bee"), ())}
    )
    PartialState().destroy_process_group()


def wait_for_a_stopped_one(folder: str) -> None:
    """Train; keep what each process says in the end, and let the stopped one go on once the other has given up."""
    Path(folder).mkdir(exist_ok=True)
    rank, pid = int(os.environ["RANK"]), Path(folder) / "pid"
    if rank == 1:
        pid.write_text(str(os.getpid()))
        Experiment.on_step_end = stop_oneself  # type: ignore[method-assign]
    with contextlib.redirect_stderr(io.StringIO()) as complaint:
        status = main(
            [
                "train",
                "digits",
                "--recipe",
                "cifar-lt/ce",
                "--model.name",
                "plain-cnn",
                "--epochs",
                "1",
                "--out",
                f"{folder}/run",
                "--quiet",
                "--training.timeout",
                "4s",
            ]
        )
    (Path(folder) / f"{rank}.json").write_text(json.dumps([status, complaint.getvalue()]))
    if rank == 0:
        os.kill(int(pid.read_text()), signal.SIGCONT)


def stop_oneself(self: Experiment, stage: StageRun, progress: Progress) -> None:
    """Stop after the third step, in place of what a run does there."""
    del self, stage
    if progress.step == 3:
        os.kill(os.getpid(), signal.SIGSTOP)


def disagree(folder: Path, sources: dict[str, tuple[tuple[str, ...], ...]]) -> None:
    """Train on a relative path that holds other classes for each process; keep status and complaint of both."""
    rank = PartialState().process_index
    here = folder / f"rank-{rank}"
    for name, classes in sources.items():
        for label in classes[rank]:
            (here / name / label).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), (40 * number, 90, 0)).save(here / name / label / f"{number}.png")
        os.chdir(here)
        words = ["train", f"folder:{name}", "--recipe", "cifar-lt/ce", "--out", str(folder / f"run-{name}"), "--quiet"]
        with contextlib.redirect_stderr(io.StringIO()) as err:
            status = main([*words, "--model.name", "plain-cnn", "--data.image_size", "8", "--epochs", "1"])
        (here / f"{name}.json").write_text(json.dumps([status, err.getvalue()]))


def note_rows() -> list[int]:
    seen: list[int] = []
    original = ResidentLoader.batches

    def noting(self: ResidentLoader, rows: Tensor, batch_size: int) -> Iterator[Batch]:
        for batch in original(self, rows, batch_size):
            if len(self.labels) == TRAIN_IMAGES:
                seen.extend(batch.rows.tolist())
            yield batch

    ResidentLoader.batches = noting  # type: ignore[method-assign]
    return seen


def evaluate(run: Path, file: Path) -> None:
    summary = evaluate_run(run)
    if PartialState().is_main_process:
        file.write_text(json.dumps(summary))


if __name__ == "__main__":
    # Here: who collects doctests imports this file without its path; and what a run imports on its way, once for all.
    import sklearn.datasets  # noqa: F401
    from two_processes import run_both

    import longtail.evaluation.tallies
    import longtail.report.page  # noqa: F401

    out = Path(sys.argv[2])
    codes = run_both(work, *sys.argv[1:]) + run_both(wait_for_a_stopped_one, str(out.parent / "waiting"))
    sys.exit(int(any(codes)))
