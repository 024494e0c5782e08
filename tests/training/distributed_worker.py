"""One process of a distributed run: trains through the command line, notes the rows it saw, stops and resumes."""

from __future__ import annotations

import contextlib
import io
import json
import os
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
from longtail.experiments.evaluate import evaluate_run
from longtail.training.experiment import start_run

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
    assert main(["train", "--config", config, "--out", stopped, "--resume", "auto", "--quiet"]) == 0

    # Batch normalization, whose statistics differ between the processes while they train.
    normalized = f"{out}-normalized"
    options = ["--model.name", "resnet20", "--stage1.epochs", "1"]
    assert main(["train", "--config", config, "--out", normalized, "--quiet", *options]) == 0
    evaluate(Path(normalized), Path(normalized) / "evaluated.json")

    disagree(
        folder.parent / "disagreeing", {"photos": (("ant", "bee"), ("bee", "cat")), "absent": (("ant", "bee"), ())}
    )
    PartialState().destroy_process_group()


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
    from two_processes import fork  # here: who collects doctests imports this file without its path

    fork(work, *sys.argv[1:])
