"""longtail predict: images into a table of labels and probabilities."""

from __future__ import annotations

from typing import Literal

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from longtail.commands.destination import destination, refuse_terminal
from longtail.commands.terminal import as_dict
from longtail.config.schema import TrainingConfig
from longtail.errors import LongtailError
from longtail.predict.journal import SUFFIXES, Format, table_format

GRAMMAR = "RUN IMAGES --out FILE.csv"


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument("run", type=str, help="RUN folder, or hf:OWNER/NAME")
    parser.add_argument(
        "images", type=str, help="an image, a folder, a pattern such as 'photos/*.jpg', a CSV or a Parquet file"
    )
    parser.add_argument(
        "--out", type=str, required=True, metavar="FILE.csv", help="where to write, also .tsv, .parquet or -"
    )
    parser.add_argument("--format", type=Format | None, default=None, help="csv, tsv or parquet, for a stream")
    parser.add_argument("--top-k", type=int, default=5, help="classes per image")
    parser.add_argument("--prior", type=str | None, default=None, help="classes to expect: uniform, train or a FILE")
    parser.add_argument("--image-column", type=str | None, default=None, help="column of the images in a table")
    parser.add_argument("--restart", action="store_true", help="begin anew even if an unfinished FILE.part is there")
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time")
    parser.add_argument("--device", type=Literal["auto", "cpu"], default="auto", help="auto: an accelerator if any")


def run(flags: Namespace) -> None:
    """Classify images into a CSV, TSV or Parquet file."""
    predict_command(**as_dict(flags))


def predict_command(
    run: str,
    images: str,
    out: str,
    *,
    top_k: int = 5,
    prior: str | None = None,
    image_column: str | None = None,
    restart: bool = False,
    format: Format | None = None,  # noqa: A002 - as it is typed
    batch_size: int = 64,
    device: str = "auto",
) -> None:
    """Classify images into a CSV, TSV or Parquet file."""
    from longtail.predict.predict import predict_images
    from longtail.training.engine import Engine

    inputs = [images, *([] if prior is None else [prior])]
    table = destination(out, tuple(SUFFIXES), example="predictions.csv", inputs=inputs)
    if table_format(table.path, format) == "parquet":
        refuse_terminal(table.path, "Parquet")
    place = Engine(TrainingConfig(device="cpu" if device == "cpu" else "auto")).device
    report = predict_images(
        run, images, table.path, top_k=top_k, prior=prior, image_column=image_column, restart=restart, format=format,
        batch_size=batch_size, device=place, console=Console(stderr=True),
    )  # fmt: skip
    if not report.predicted and not report.earlier:
        source = "the lines above say" if table.is_stream else f"{out}.skipped.csv says"
        raise LongtailError(f"none of the {report.skipped} files in {images!r} can be read as an image: {source} why.")
