"""predict_images: a trained run applied to a file, a folder or a pattern of images, written row by row to a CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, TypeAlias

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from longtail.errors import LongtailError
from longtail.files import cannot_write, is_device
from longtail.inference.load import ModelInfo, load_run
from longtail.inference.stream import Loaded, find_images, read_batches
from longtail.models import LongTailModel

Row: TypeAlias = list[str | float]
_MOST_FILES_SHOWN = 20


@dataclass
class PredictionReport:
    """What became of a set of images.

    Attributes:
        out: The CSV file.
        predicted: How many images have a row in it.
        skipped: Path and problem of every file that could not be read.
    """

    out: Path
    predicted: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        """Return one line: how many images were predicted and how many files were skipped."""
        tail = f", {len(self.skipped):,} unreadable skipped" if self.skipped else ""
        return f"{self.predicted:,} predicted{tail}: {self.out}"


def predict_images(
    run_dir: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    top_k: int = 5,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    workers: int | None = None,
    console: Console | None = None,
) -> PredictionReport:
    """Predict the class of images and write one CSV row for each, in the order of their paths.

    The columns are ``path``, ``prediction`` (the class name), ``confidence`` (its probability), and for the ``top_k``
    likeliest classes ``label_1``, ``probability_1``, ``label_2``, and so on. Rows are written batch by batch, so that
    memory does not grow with the results, to ``out`` with ``.part`` at its end; the file takes its name when the last
    row is in. A file that is no readable image gets no row: the report and the console list it.

    Args:
        run_dir: The RUN folder of ``longtail train``.
        images: A file, a folder (searched to the bottom, hidden files left out), or a pattern such as ``in/**/*.jpg``.
        out: The CSV file; replaced if it exists.
        top_k: How many classes to list per image; all C where there are fewer.
        batch_size: Images per forward pass.
        device: Where the network runs.
        workers: Threads that decode images; by default as many as there are cores.
        console: Where progress and skipped files are shown; None shows nothing.

    Returns:
        The number of rows, and the files that were skipped.

    Raises:
        LongtailError: No such run, no image found, or a CSV that cannot be written.
    """
    if top_k < 1 or batch_size < 1:
        raise LongtailError(f"top_k and batch_size must be at least 1; they are {top_k} and {batch_size}.")
    paths = find_images(images)
    model, info = load_run(run_dir, device=device)
    report = PredictionReport(Path(out))
    console = console if console is not None else Console(quiet=True)
    with _csv_in_parts(report.out) as file, _progress(console) as progress, torch.inference_mode():
        writer = csv.writer(file)
        writer.writerow(_header(min(top_k, len(info.classes))))
        task = progress.add_task("predict", total=len(paths))
        for batch in read_batches(paths, info.preprocessing, batch_size=batch_size, workers=workers):
            rows = _predict_batch(model, info, [one for one in batch if one.pixels is not None], top_k=top_k)
            writer.writerows(rows)
            file.flush()
            report.predicted += len(rows)
            report.skipped += [(one.path, one.problem) for one in batch if one.pixels is None]
            progress.advance(task, len(batch))
    _show_skipped(report, console)
    return report


def probabilities(model: LongTailModel, info: ModelInfo, images: torch.Tensor) -> torch.Tensor:
    """Return class probabilities, float32 (N, C), for uint8 images of shape (N, 3, size, size) on the model's device.

    Args:
        model: A model in evaluation mode.
        info: Its information: normalisation and the factor on its logits.
        images: Images brought to the network's size.
    """
    return torch.softmax(info.scores(model(info.preprocessing.normalise(images))), dim=1)


def _predict_batch(model: LongTailModel, info: ModelInfo, batch: Sequence[Loaded], *, top_k: int) -> list[Row]:
    if not batch:
        return []
    pixels = torch.from_numpy(np.stack([one.pixels for one in batch if one.pixels is not None]))
    device = next(model.parameters()).device
    result = probabilities(model, info, pixels.permute(0, 3, 1, 2).to(device))
    top = result.topk(min(top_k, len(info.classes)), dim=1)
    return [
        _row(one.path, [info.classes[index] for index in labels], values)
        for one, labels, values in zip(batch, top.indices.tolist(), top.values.tolist(), strict=True)
    ]


def _row(path: str, labels: list[str], values: list[float]) -> Row:
    row: Row = [path, labels[0], round(values[0], 6)]
    for label, value in zip(labels, values, strict=True):
        row += [label, round(value, 6)]
    return row


def _header(top_k: int) -> list[str]:
    ranked = [f"{name}_{rank}" for rank in range(1, top_k + 1) for name in ("label", "probability")]
    return ["path", "prediction", "confidence", *ranked]


@contextmanager
def _csv_in_parts(out: Path) -> Iterator[TextIO]:
    part = out if is_device(out) else out.with_name(f"{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # A file name that is no valid UTF-8 is written back as the bytes it came from.
        with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield file
        if part != out:
            part.replace(out)
    except OSError as error:
        raise cannot_write(out, error) from error


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _show_skipped(report: PredictionReport, console: Console) -> None:
    for _, problem in report.skipped[:_MOST_FILES_SHOWN]:
        console.print(f"skipped: {problem}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    hidden = len(report.skipped) - _MOST_FILES_SHOWN
    if hidden > 0:
        console.print(f"skipped: {hidden:,} more", style="yellow", highlight=False)
    console.print(str(report), markup=False, highlight=False, soft_wrap=True)
