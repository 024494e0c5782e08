"""longtail predict: images into a table of labels and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console

from longtail.commands.arguments import given_words, usage
from longtail.commands.output import destination, refuse_inputs, refuse_terminal
from longtail.config.options import Count, EngineName
from longtail.config.schema import TrainingConfig
from longtail.errors import LongtailError, UsageError
from longtail.files import is_stream, output_place
from longtail.remote import Place, RemotePath, place_of


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
    ray: Annotated[str, "[ADDRESS]"] | None = None,
    restart: bool = False,
    batch_size: Count = 64,
    device: Literal["auto", "cpu"] = "auto",
    engine: EngineName = "auto",
) -> None:
    """Classify images into a CSV, TSV or Parquet file.

    Usage:
        longtail predict RUN IMAGES --out FILE.csv [--top-k N] [--prior uniform|train|FILE] [--restart]
        longtail predict RUN IMAGES --shard I/N --out part-I.parquet
        longtail predict RUN IMAGES --out DIR --ray [ADDRESS]
        longtail predict --merge DIR --out FILE.csv

    Args:
        run: RUN folder, or hf:OWNER/NAME
        images: an image, a folder, a pattern such as 'photos/*.jpg', their URL, a CSV or a Parquet file
        out: file to write, also .tsv, .parquet, - or a URL such as s3://bucket/answers.csv
        format: format of a stream
        top_k: classes per image
        prior: classes to expect: uniform, train or a FILE
        image_column: column of the images in a table
        shard: predict the I-th of N shards only, I from 1 to N
        merge: put the parts in this folder together
        ray: predict on a Ray cluster, into parts in --out DIR; without ADDRESS on this machine
        restart: start again even if an unfinished table, or a finished shard, is there
        batch_size: images at a time
        device: auto takes an accelerator, if any
        engine: what runs the network on a CPU; auto takes openvino if it is installed
    """
    given = given_words(predict, locals())
    from longtail.predict.predict import predict_images
    from longtail.predict.ray_pipeline import predict_on_ray
    from longtail.predict.shards import parse_shard
    from longtail.training.engine import Engine

    if merge is not None:
        _merge(merge, out, [words for name, words in given.items() if name not in {"merge", "out", "format"}], format)
        return
    words = {"RUN": run, "IMAGES": images, "--out": out}
    if missing := [word for word, value in words.items() if not value]:
        hint = f" ({ray!r} is the ADDRESS of --ray: type --ray last, or --ray auto)" if ray else ""
        lines = usage("longtail predict", predict).splitlines()
        raise UsageError(f"{' and '.join(missing)} missing{hint}: {lines[0 if ray is None else 2]}")
    common: Any = {
        "top_k": top_k,
        "prior": prior,
        "image_column": image_column,
        "restart": restart,
        "batch_size": batch_size,
        "engine": engine,
        "console": Console(stderr=True),
    }
    if ray is not None:
        if shard is not None:
            raise UsageError("--ray divides the images itself: leave --shard out.")
        if format is not None:
            raise UsageError("--ray writes Parquet: leave --format out, and give it to --merge.")
        report = predict_on_ray(run, images, _folder(out, images), address=ray, device=device, **common)
        if not report.predicted and not report.earlier:
            raise LongtailError(f"none of the {report.skipped} files in {images!r} can be read as an image.")
        return
    part = None if shard is None else parse_shard(shard)
    table = _table(out, [images, *([] if prior is None else [prior])], format)
    network_device = Engine(TrainingConfig(device=device)).device
    report = predict_images(run, images, table, shard=part, format=format, device=network_device, **common)
    if not report.predicted and not report.earlier and part is None:
        source = "the lines above say" if is_stream(report.out) else f"{out}.skipped.csv says"
        raise LongtailError(f"none of the {report.skipped} files in {images!r} can be read as an image: {source} why.")


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
) -> Place:
    """Return the path of the table to write, once it is certain that it can be."""
    from longtail.predict.parts import skipped_path
    from longtail.predict.table import SUFFIXES, table_format

    place = place_of(out) if out != "-" else Path(out)
    if isinstance(place, RemotePath):
        table_format(place, format)  # a name that does not end in one is refused
        return place
    path = destination(str(place), tuple(SUFFIXES), example="predictions.csv", inputs=inputs).path
    refuse_inputs(skipped_path(path), inputs, f"the list of files that --out {out} leaves out")
    if table_format(path, format) == "parquet":
        refuse_terminal(path, "Parquet")
    return path


def _folder(out: str, images: str) -> Place:
    """Return the folder of the parts that a cluster writes."""
    from longtail.predict.ray_pipeline import SKIPPED

    path = output_place(out)
    if path.suffix.lower() in {".csv", ".tsv", ".parquet"} or is_stream(path) or path.is_file():
        raise UsageError(f"--ray writes a folder of parts, not {out}: name a folder, and make the table by --merge.")
    refuse_inputs(path / SKIPPED, [images], f"--out {out}")
    return path
