"""longtail predict: images into a table of labels and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console

from longtail.commands.arguments import usage
from longtail.commands.output import destination, refuse_terminal
from longtail.config.schema import Count, EngineName, TrainingConfig
from longtail.errors import LongtailError, UsageError
from longtail.files import is_stream


def predict(
    run: Annotated[str, "RUN"] = "",
    images: Annotated[str, "IMAGES"] = "",
    *,
    out: Annotated[str, "FILE.csv"] = "",
    format: Literal["csv", "tsv", "parquet"] | None = None,  # noqa: A002 - as it is typed
    top_k: Count = 5,
    prior: Annotated[str, "uniform|train|FILE"] | None = None,
    image_column: Annotated[str, "NAME"] | None = None,
    shard: Annotated[str, "I/N"] | None = None,
    merge: Annotated[str, "DIR"] | None = None,
    restart: bool = False,
    batch_size: Count = 64,
    device: Literal["auto", "cpu"] = "auto",
    engine: EngineName = "auto",
) -> None:
    """Classify images into a CSV, TSV or Parquet file.

    Usage:
        longtail predict RUN IMAGES --out FILE.csv [--top-k N] [--prior uniform|train|FILE] [--restart]
        longtail predict RUN IMAGES --shard I/N --out part-I.parquet
        longtail predict --merge DIR --out FILE.csv

    Args:
        run: RUN folder, or hf:OWNER/NAME
        images: an image, a folder, a pattern such as 'photos/*.jpg', a CSV or a Parquet file
        out: file to write, also .tsv, .parquet or -
        format: format of a stream
        top_k: classes per image
        prior: classes to expect: uniform, train or a FILE
        image_column: column of the images in a table
        shard: predict the I-th of N shards only, I from 1 to N
        merge: put the shards in this folder together
        restart: start again even if an unfinished table, or a finished shard, is there
        batch_size: images at a time
        device: auto takes an accelerator, if any
        engine: what runs the network on a CPU; auto takes openvino if it is installed
    """
    from longtail.predict.predict import predict_images
    from longtail.predict.shards import parse_shard
    from longtail.training.engine import Engine

    if merge is not None:
        given = [repr(word) for word in (run, images) if word]
        given += [flag for flag, value in (("--shard", shard), ("--restart", restart)) if value]
        return _merge(merge, out, given, format)
    words = {"RUN": run, "IMAGES": images, "--out": out}
    if missing := [word for word, value in words.items() if not value]:
        raise UsageError(f"{' and '.join(missing)} missing: {usage('longtail predict', predict).splitlines()[0]}")
    part = None if shard is None else parse_shard(shard)
    report = predict_images(
        run,
        images,
        _table(out, [images, *([] if prior is None else [prior])], format),
        top_k=top_k,
        prior=prior,
        image_column=image_column,
        shard=part,
        restart=restart,
        format=format,
        batch_size=batch_size,
        device=Engine(TrainingConfig(device=device)).device,
        engine=engine,
        console=Console(stderr=True),
    )
    if not report.predicted and not report.earlier and part is None:
        source = "the lines above say" if is_stream(report.out) else f"{out}.skipped.csv says"
        raise LongtailError(f"none of the {report.skipped} files in {images!r} can be read as an image: {source} why.")
    return None


def _merge(
    folder: str,
    out: str,
    given: Sequence[str],
    format: Literal["csv", "tsv", "parquet"] | None,  # noqa: A002
) -> None:
    """Put the shards in a folder together.

    Args:
        folder: The folder.
        out: The table to write, as given.
        given: Other words of the user, which do not fit.
        format: Format of a stream.
    """
    from longtail.predict.merge import merge_parts

    if given:
        raise UsageError(f"--merge puts finished parts together: leave {' and '.join(given)} out.")
    if not out:
        raise UsageError(f"--out missing: {usage('longtail predict', predict).splitlines()[-1]}")
    merge_parts(folder, _table(out, [], format), format=format, console=Console(stderr=True))


def _table(
    out: str,
    inputs: Sequence[str],
    format: Literal["csv", "tsv", "parquet"] | None,  # noqa: A002
) -> Path:
    """Return the path of the table to write, once it is certain that it can be."""
    from longtail.predict.table import SUFFIXES, table_format

    path = destination(out, tuple(SUFFIXES), example="predictions.csv", inputs=inputs).path
    if table_format(path, format) == "parquet":
        refuse_terminal(path, "Parquet")
    return path
