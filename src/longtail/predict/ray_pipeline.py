"""predict_on_ray: images over the machines of a Ray cluster, into a folder of finished parts."""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from longtail.config.schema import EngineName
from longtail.console import Bar, Reporter
from longtail.errors import LongtailError, UsageError, first_line
from longtail.files import output_place, remove, write_atomically
from longtail.models.preprocessing import Preprocessing
from longtail.predict.hub import local_run
from longtail.predict.images import Item, find_images
from longtail.predict.merge import COMPLETE
from longtail.predict.part_folder import PartFolder
from longtail.predict.parts import KEY, POSITION, Job, Part, list_parts, remove_doubles, rows_of, write_part
from longtail.predict.predict import Chosen, PredictionReport, job_of, part_rows
from longtail.predict.predictor import Prediction, Predictor, read_item
from longtail.predict.table import PROBLEM, RAW_PATH, open_table
from longtail.predict.target_prior import read_prior, with_prior
from longtail.ray_cluster import Head, connected, stopped
from longtail.remote import Place, RemotePath, is_url
from longtail.run.layout import refuse_swapped
from longtail.run.model_files import load_info

SKIPPED: Final = "_skipped.csv"
"""List of the images that could not be read, in the folder of the parts; readers of Parquet pass over a leading _."""
_PARTS = 200  # of a prediction, at least, if it has images enough
_LEAST_IMAGES, _MOST_IMAGES = 64, 10_000  # of a part
_MOST_PIXELS = 64 * 2**20  # bytes of the decoded images of a block on its way to a GPU
_WRITERS = 2  # of what comes from GPUs, each a process; writing is little work
_GPU = "cuda"


def predict_on_ray(
    run_dir: str | Path,
    images: str | Path,
    out: str | Path | RemotePath,
    *,
    address: str = "",
    top_k: int = 5,
    batch_size: int = 64,
    device: str = "auto",
    engine: EngineName = "auto",
    prior: str | None = None,
    image_column: str | None = None,
    restart: bool = False,
    console: Console | None = None,
) -> PredictionReport:
    """Predict images on a Ray cluster: list here; there read, decode, predict and write parts.

    RUN, images and ``out`` are paths that are the same on every machine, or URLs. The same call continues: finished
    parts in ``out`` are kept, and at the end each image is in one of them once.

    Args:
        run_dir: As for :func:`longtail.predict.predict.predict_images`.
        images: As there; not a table that holds the images themselves.
        out: Folder of the parts, for :func:`longtail.predict.merge.merge_parts` or anything that reads Parquet.
        address: The cluster, such as ``auto`` or ``head:6379``; a new one on this machine when empty. A cluster
            that this process is connected to already is used as it is.
        top_k: As there.
        batch_size: As there.
        device: ``auto`` takes the GPUs of the cluster, if it has any, else its cores; ``cpu`` its cores.
        engine: As there.
        prior: As there.
        image_column: As there.
        restart: Discard the parts that are there.
        console: As there.

    Returns:
        The number of rows, and the files that could not be read.

    Raises:
        LongtailError: As there; Ray is not installed, or the cluster is gone.
    """
    if top_k < 1 or batch_size < 1:
        raise UsageError(f"top_k and batch_size must be at least 1; they are {top_k} and {batch_size}.")
    refuse_swapped(run_dir, images)
    listing, run = find_images(images, image_column=image_column), local_run(run_dir)
    reporter = Reporter(console or Console(quiet=True), plain_seconds=60.0)
    info = load_info(run)
    if prior is not None:
        info = with_prior(info, read_prior(prior, info, lambda text: reporter.say(f"note: {text}")))
    job = job_of(run, info, images, listing, top_k=top_k, prior=prior, column=image_column)
    report = PredictionReport(output_place(out))
    begun = time.perf_counter()
    with PartFolder(report.out.absolute(), job, restart=restart) as folder, connected(address, "ray.data") as ray:
        _quiet(ray)
        report.earlier = folder.count
        if folder.count:
            reporter.say(f"continuing after {folder.count:,} files of an earlier command")
        gpus = int(ray.cluster_resources().get("GPU", 0)) if device == "auto" else 0
        work = _Work(
            run=os.path.abspath(run),  # noqa: PTH100
            device=_GPU if gpus else "cpu",
            engine=engine,
            prior=prior,
            top_k=top_k,
            batch_size=batch_size,
            look=info.preprocessing,
            job=job,
            folder=folder.folder,
        )
        chosen = Chosen(listing, job, report.left_out, folder.has)
        blocks, total = _put_blocks(ray, chosen, images, work)
        if total:
            remove(folder.folder / COMPLETE, "allow writing to it")
            with reporter.bar("predict", folder.count + total) as bar:
                _wait(ray, _pipeline(ray, blocks, work, gpus, min(_MOST_IMAGES, total // _PARTS)), bar, report.earlier)
        report.seconds = time.perf_counter() - begun
        _finish(folder, report, total)
    for text in report.lines():
        reporter.say(text, style="yellow" if text.startswith("skipped: ") else None)
    return report


@dataclass(frozen=True)
class _Work:
    """What is done with the images, on whatever machine."""

    run: str
    device: str
    engine: EngineName
    prior: str | None
    top_k: int
    batch_size: int
    look: Preprocessing
    job: Job
    folder: Place

    @property
    def most_images(self) -> int:
        """Of a block."""
        most_decoded = max(16, min(1024, _MOST_PIXELS // (3 * self.look.size**2)))
        return most_decoded if self.device == _GPU else _MOST_IMAGES


def _quiet(ray: Any) -> None:
    """Silence what Ray Data draws and says by itself: the bar is ours."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False


def _put_blocks(ray: Any, chosen: Chosen, images: str | Path, work: _Work) -> tuple[list[Any], int]:
    """List the images into blocks in the object store, small ones first, and return those and the number of images."""
    blocks, total, items = [], 0, chosen.items()
    least = max(_LEAST_IMAGES, work.batch_size)
    while batch := list(islice(items, min(work.most_images, max(least, total // _PARTS)))):
        if any(not isinstance(item.source, str) for item in batch):
            raise LongtailError(
                f"{images} holds the images themselves: predict it with --shard I/N, or use longtail.predict.Predictor "
                "in map_batches of ray.data.read_parquet."
            )
        positions, keys = chosen.take(len(batch))
        columns = {
            "name": pa.array([os.fsencode(item.name) for item in batch], pa.binary()),
            "source": pa.array([_everywhere(str(item.source)) for item in batch], pa.binary()),
            PROBLEM: pa.array([item.problem for item in batch], pa.string()),
            POSITION: pa.array(positions, pa.int64()),
            KEY: pa.array(keys, pa.uint64()),
        }
        blocks.append(ray.put(pa.table(columns)))
        total += len(batch)
    return blocks, total


def _everywhere(path: str) -> bytes:
    """Return a path, which may be a URL, as it is on every machine."""
    return os.fsencode(path if is_url(path) else os.path.abspath(path))  # noqa: PTH100


def _pipeline(ray: Any, blocks: list[Any], work: _Work, gpus: int, part_images: int) -> Any:
    """Return the data set of the numbers of images in finished parts, which is computed as it is read.

    On CPUs a block of paths becomes a part in one task, of one core: any core takes it, and another one again if the
    first is lost. For GPUs, tasks decode, an actor for each predicts, and tasks without a core write. So nothing that
    holds a core waits for what needs one.
    """
    whole_blocks: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None}
    data = ray.data.from_arrow_refs(blocks)
    if not gpus:
        return data.map_batches(partial(_predict_part, work=work), num_cpus=1, **whole_blocks)
    rows = data.map_batches(partial(_decode, look=work.look), num_cpus=1, **whole_blocks).map_batches(
        _Actor,
        fn_constructor_args=(work,),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=gpus),
        batch_format="pyarrow",
        batch_size=4 * work.batch_size,  # which Ray asks for with GPUs
        num_cpus=0,
        num_gpus=1,
    )
    return rows.map_batches(
        partial(_write, work=work),
        batch_format="pyarrow",
        batch_size=part_images if part_images > work.most_images else None,
        compute=ray.data.TaskPoolStrategy(size=min(_WRITERS, len(blocks))),
        num_cpus=0,
    )


def _predict_part(block: pa.Table, work: _Work) -> pa.Table:
    """Read, decode and predict the images of a block of paths, and write their part."""
    predictor = _predictor(work.job.model, work.run, work.device, work.engine, work.prior)
    items = (
        Item(os.fsdecode(name), os.fsdecode(source), problem)
        for name, source, problem in zip(*_lists(block, "name", "source", PROBLEM), strict=True)
    )
    return _write(_predict(items, block, predictor, work), work)


@lru_cache(maxsize=1)
def _predictor(model: str, run: str, device: str, engine: EngineName, prior: str | None) -> Predictor:  # noqa: ARG001
    """Return the predictor of this process, which does many blocks; ``model`` tells runs of the same name apart."""
    return Predictor(run, device=device, engine=engine, prior=prior)


def _predict(items: Iterator[Item], block: pa.Table, predictor: Predictor, work: _Work) -> pa.Table:
    """Return the rows of a part."""
    rows = predictor.stream(items, workers=1, total=len(block), top_k=work.top_k, batch_size=work.batch_size)
    return part_rows(list(rows), work.job, *_lists(block, POSITION, KEY))


def _lists(block: pa.Table, *columns: str) -> list[list[Any]]:
    return [block[column].to_pylist() for column in columns]


def _decode(block: pa.Table, look: Preprocessing) -> pa.Table:
    """Read the images of a block and bring them to the network's square; raw pixels behind the header of a PPM."""
    header = f"P6\n{look.size} {look.size}\n255\n".encode()
    pixels: list[bytes | None] = []
    problems: list[str] = []
    for source, name, problem in zip(*_lists(block, "source", "name", PROBLEM), strict=True):
        item = read_item(Item(os.fsdecode(name), os.fsdecode(source), problem), look)
        problems.append(item.problem)
        pixels.append(None if item.problem else header + item.source.tobytes())  # type: ignore[union-attr]
    block = block.drop_columns(["source", PROBLEM])
    return block.append_column("image", pa.array(pixels, pa.large_binary())).append_column(
        PROBLEM, pa.array([problem.encode("utf-8", "backslashreplace").decode() for problem in problems], pa.string())
    )


class _Actor:
    """A predictor on a GPU, from decoded images to rows of a part."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._predictor = Predictor(work.run, device=work.device, engine=work.engine, prior=work.prior)

    def __call__(self, block: pa.Table) -> pa.Table:
        items = (
            Item(os.fsdecode(name), image or b"", problem)
            for name, image, problem in zip(*_lists(block, "name", "image", PROBLEM), strict=True)
        )
        return _predict(items, block, self._predictor, self._work)


def _write(rows: pa.Table, work: _Work) -> pa.Table:
    """Write a part, called by what is in it, so that work that is done again replaces it."""
    rows = rows.sort_by(POSITION)  # blocks come as they are done
    digest = hashlib.blake2b(rows[KEY].to_numpy().tobytes(), digest_size=8).hexdigest()
    name = f"part-{pc.min(rows[POSITION]).as_py():012}-{digest}.parquet"
    write_part(work.folder / name, work.job, [rows])
    return pa.table({"rows": [len(rows)]})


def _wait(ray: Any, written: Any, bar: Bar, earlier: int) -> None:
    """Let the pipeline run, and draw how far it is. A thread waits for the parts, so that the head can be watched."""
    begun, head = time.perf_counter(), Head(ray.get_runtime_context().gcs_address)
    rows: queue.Queue[int | Exception | None] = queue.Queue()

    def receive() -> None:
        try:
            for row in written.iter_rows():
                rows.put(row["rows"])
            rows.put(None)
        except Exception as error:
            rows.put(error)

    threading.Thread(target=receive, daemon=True).start()
    bar.update(earlier)
    while (number := _next(rows, head)) is not None:
        done = bar.done + number
        bar.update(done, f"({(done - earlier) / (time.perf_counter() - begun):,.0f} images/s)")


def _next(rows: queue.Queue[int | Exception | None], head: Head) -> int | None:
    """Return the number of images of the next part, None at the end."""
    while True:
        try:
            number = rows.get(timeout=1.0)
        except queue.Empty:
            head.check()
            continue
        if isinstance(number, Exception):
            cause = getattr(number, "cause", None)
            if isinstance(cause, LongtailError):
                raise LongtailError(str(cause)) from number
            raise LongtailError(stopped(first_line(number))) from number
        return number


def _finish(folder: PartFolder, report: PredictionReport, total: int) -> None:
    """Check that each image is in one part, list those that could not be read, and say that the parts are complete."""
    earlier = {part.path for part in folder.parts}
    if total:
        remove_doubles(list_parts(folder.folder))
    parts = list_parts(folder.folder)
    if (rows := sum(part.rows for part in parts)) != folder.count + total:
        raise LongtailError(
            f"{folder.folder} has {rows:,} of {folder.count + total:,} images: repeat the command; parts are kept."
        )
    new = [part for part in parts if part.path not in earlier]
    report.predicted = sum(part.rows - part.bad for part in new)
    report.count(list(_unread(new)))
    skipped = folder.folder / SKIPPED
    if bad := [part for part in parts if part.bad]:
        with open_table(skipped, ["path", PROBLEM], "csv") as write:
            for table in rows_of(bad, ["path", PROBLEM, RAW_PATH]):
                write(table.filter(pc.is_valid(table[PROBLEM])))
        report.listed_in = str(skipped)
    else:
        remove(skipped, "allow writing to it")
    write_atomically(folder.folder / COMPLETE, b"")


def _unread(parts: list[Part]) -> Iterator[Prediction]:
    """Yield the images of parts that could not be read."""
    for table in rows_of([part for part in parts if part.bad], ["path", PROBLEM]):
        bad = table.filter(pc.is_valid(table[PROBLEM]))
        for path, problem in zip(bad["path"].to_pylist(), bad[PROBLEM].to_pylist(), strict=True):
            yield Prediction(path, problem=problem)
