"""longtail predict: images into a table of labels and probabilities."""

from __future__ import annotations

from typing import Annotated, Literal

from rich.console import Console

from longtail.commands.output import destination, refuse_terminal
from longtail.config.schema import Count, EngineName, TrainingConfig
from longtail.errors import LongtailError
from longtail.files import is_stream


def predict(
    run: Annotated[str, "RUN"],
    images: Annotated[str, "IMAGES"],
    *,
    out: Annotated[str, "FILE.csv"],
    format: Literal["csv", "tsv", "parquet"] | None = None,  # noqa: A002 - as it is typed
    top_k: Count = 5,
    prior: Annotated[str, "uniform|train|FILE"] | None = None,
    image_column: Annotated[str, "NAME"] | None = None,
    restart: bool = False,
    batch_size: Count = 64,
    device: Literal["auto", "cpu"] = "auto",
    engine: EngineName = "auto",
) -> None:
    """Classify images into a CSV, TSV or Parquet file.

    Args:
        run: RUN folder, or hf:OWNER/NAME
        images: an image, a folder, a pattern such as 'photos/*.jpg', a CSV or a Parquet file
        out: file to write, also .tsv, .parquet or -
        format: format of a stream
        top_k: classes per image
        prior: classes to expect: uniform, train or a FILE
        image_column: column of the images in a table
        restart: start again even if an unfinished FILE.part is there
        batch_size: images at a time
        device: auto takes an accelerator, if any
        engine: what runs the network on a CPU; auto takes openvino if it is installed
    """
    from longtail.predict.journal import SUFFIXES, table_format
    from longtail.predict.predict import predict_images
    from longtail.training.engine import Engine

    inputs = [images, *([] if prior is None else [prior])]
    table = destination(out, tuple(SUFFIXES), example="predictions.csv", inputs=inputs)
    if table_format(table.path, format) == "parquet":
        refuse_terminal(table.path, "Parquet")
    report = predict_images(
        run,
        images,
        table.path,
        top_k=top_k,
        prior=prior,
        image_column=image_column,
        restart=restart,
        format=format,
        batch_size=batch_size,
        device=Engine(TrainingConfig(device=device)).device,
        engine=engine,
        console=Console(stderr=True),
    )
    if not report.predicted and not report.earlier:
        source = "the lines above say" if is_stream(table.path) else f"{out}.skipped.csv says"
        raise LongtailError(f"none of the {report.skipped} files in {images!r} can be read as an image: {source} why.")
