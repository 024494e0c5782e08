"""predict_on_ray: images over the machines of a Ray cluster, into a folder of finished parts."""

from __future__ import annotations

import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from longtail.config.options import EngineName
from longtail.console import Bar, Reporter
from longtail.errors import LongtailError, UsageError, first_line
from longtail.files import output_place, remove, write_atomically
from longtail.predict.hub import local_run, run_everywhere
from longtail.predict.images import escaped, find_images
from longtail.predict.merge import COMPLETE
from longtail.predict.part_folder import PartFolder
from longtail.predict.parts import KEY, POSITION, Part, list_parts, remove_repeats, rows_of
from longtail.predict.predict import WARNINGS, Chosen, PredictionReport, job_of
from longtail.predict.predictor import Prediction
from longtail.predict.ray_work import GPU, IS_NEW, PredictingActor, Work, decode, predict_part, write_rows
from longtail.predict.table import PROBLEM, RAW_PATH, open_table
from longtail.predict.target_prior import read_prior, with_prior
from longtail.ray_cluster import Machine, Watch, connected, failed
from longtail.remote import RemotePath, is_url
from longtail.run.layout import refuse_swapped
from longtail.run.model_files import load_info

RETRIES: Final = 20
"""How often a part is begun again after its machine or its process was lost."""
SKIPPED: Final = "_skipped.csv"
"""List of the images that could not be read, in the folder of the parts; readers of Parquet pass over a leading _."""
_PARTS = 200  # of a prediction, at least, if it has images enough
_LEAST_IMAGES, _MOST_IMAGES = 64, 10_000  # of a part
_WRITERS = 2  # of what comes from GPUs, each a process; writing is little work
_PATIENCE = 1.0  # seconds without a part, after which the cluster is looked at


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

    RUN, images and ``out`` are paths that are the same on every machine, or URLs, or for RUN ``hf:OWNER/NAME``. The
    same call continues: finished parts in ``out`` are kept, and at the end each image is in one of them once.

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
    shares = None  # read here, as a file of the user's may be on this machine only
    if prior is not None:
        shares = tuple(read_prior(prior, info, lambda text: reporter.say(f"note: {text}")).tolist())
        info = with_prior(info, shares)
    job = job_of(run, info, images, listing, top_k=top_k, prior=prior, column=image_column)
    report = PredictionReport(output_place(out))
    begun = time.perf_counter()
    with PartFolder(report.out.absolute(), job, restart=restart) as folder, connected(address) as ray:
        report.earlier = folder.count
        if folder.count:
            reporter.say(f"continuing after {folder.count:,} files of an earlier command")
        gpus = int(ray.cluster_resources().get("GPU", 0)) if device == "auto" else 0
        work = Work(
            run=run_everywhere(run_dir, run),
            device=GPU if gpus else "cpu",
            engine=engine,
            prior=shares,
            top_k=top_k,
            batch_size=batch_size,
            look=info.preprocessing,
            job=job,
            folder=folder.folder,
            command=secrets.token_hex(8),
        )
        chosen = Chosen(listing, job, report.left_out, folder, needs_all=True)
        blocks, total = _put_blocks(ray, chosen, images, work)
        if total:
            remove(folder.folder / COMPLETE, "allow writing to it")
            if gpus:
                parts = _parts_by_gpus(blocks, work, gpus, min(_MOST_IMAGES, total // _PARTS))
            else:
                parts = _parts_by_cpus(ray, blocks, work)
            with reporter.bar("predict", folder.count + total) as bar:
                kinds = ("GPU", "CPU") if gpus else ("CPU",)  # images are decoded by cores
                needs = "a GPU and with a core" if gpus else "a core"
                watch = Watch(ray, partial(_have_all, kinds=kinds), needs, reporter.say)
                _wait(parts, watch, bar, report.earlier)
        report.seconds = time.perf_counter() - begun
        _finish(folder, report, total)
    for text in report.lines():
        reporter.say(text, style="yellow" if text.startswith(WARNINGS) else None)
    return report


def _put_blocks(ray: Any, chosen: Chosen, images: str | Path, work: Work) -> tuple[list[Any], int]:
    """List the images into blocks in the object store, small ones first, and return those and the number of images."""
    blocks, total, items = [], 0, chosen.items()
    least = max(_LEAST_IMAGES, work.batch_size)
    most = work.most_decoded if work.device == GPU else _MOST_IMAGES
    while batch := list(islice(items, min(most, max(least, total // _PARTS)))):
        if any(not isinstance(item.source, str) for item in batch):
            raise LongtailError(
                f"{images} holds the images themselves: predict it with --shard I/N, or use longtail.predict.Predictor "
                "in map_batches of ray.data.read_parquet."
            )
        places = list(islice(chosen.places(), len(batch)))
        columns = {
            "name": pa.array([os.fsencode(item.name) for item in batch], pa.binary()),
            "source": pa.array([_everywhere(str(item.source)) for item in batch], pa.binary()),
            PROBLEM: pa.array([escaped(item.problem) for item in batch], pa.string()),
            POSITION: pa.array([listed.position for listed in places], pa.int64()),
            KEY: pa.array([listed.key for listed in places], pa.uint64()),
            IS_NEW: pa.array([listed.is_new for listed in places], pa.bool_()),
        }
        try:
            blocks.append(ray.put(pa.table(columns)))
        except ray.exceptions.RayError as error:  # its memory is full, and so is the disk
            raise LongtailError(failed(first_line(error))) from error
        total += len(batch)
    return blocks, total


def _everywhere(path: str) -> bytes:
    """Return a path, which may be a URL, as it is on every machine."""
    return os.fsencode(path if is_url(path) else os.path.abspath(path))  # noqa: PTH100


def _parts_by_cpus(ray: Any, blocks: list[Any], work: Work) -> Iterator[int | None]:
    """Yield the numbers of images of parts as they are finished, and None now and then while none is.

    A block of paths becomes a part in one task of one core: any core takes it, and another one again if the first is
    lost.
    """
    remote = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(predict_part)
    work = ray.put(work)
    active = [remote.remote(block, work) for block in blocks]
    while active:
        done, active = ray.wait(active, timeout=_PATIENCE)
        yield from ray.get(done) or [None]


def _parts_by_gpus(blocks: list[Any], work: Work, gpus: int, part_images: int) -> Iterator[int | None]:
    """Yield the same where there are GPUs, by Ray Data: tasks decode, an actor for each GPU predicts, tasks write.

    Only tasks that decode take a core, so that nothing that holds one waits for what needs one. A thread waits for the
    parts.
    """
    data = import_module("ray.data")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    data.DataContext.get_current().enable_progress_bars = False  # ours is shown
    decoded = data.from_arrow_refs(blocks).map_batches(
        partial(decode, look=work.look), batch_format="pyarrow", batch_size=None, num_cpus=1
    )
    rows = decoded.map_batches(
        PredictingActor,
        fn_constructor_args=(work,),
        compute=data.ActorPoolStrategy(min_size=1, max_size=gpus),
        batch_format="pyarrow",
        batch_size=4 * work.batch_size,  # which Ray asks for with GPUs
        num_cpus=0,
        num_gpus=1,
    )
    written = rows.map_batches(
        partial(write_rows, work=work),
        batch_format="pyarrow",
        batch_size=part_images if part_images > work.most_decoded else None,
        compute=data.TaskPoolStrategy(size=min(_WRITERS, len(blocks))),
        num_cpus=0,
    )
    numbers: queue.Queue[int | Exception | None] = queue.Queue()

    def receive() -> None:
        try:
            for row in written.iter_rows():
                numbers.put(row["images"])
            numbers.put(None)
        except Exception as error:
            numbers.put(error)

    threading.Thread(target=receive, daemon=True).start()
    while True:
        try:
            number = numbers.get(timeout=_PATIENCE)
        except queue.Empty:
            yield None
            continue
        if number is None:
            return
        if isinstance(number, Exception):
            raise number
        yield number


def _have_all(machines: list[Machine], kinds: tuple[str, ...]) -> bool:
    """Whether there is a machine with each kind of resource."""
    return all(any(machine.get(kind, 0) >= 1 for machine in machines) for kind in kinds)


def _wait(parts: Iterator[int | None], watch: Watch, bar: Bar, earlier: int) -> None:
    """Wait for the parts, draw how far they are, and look now and then whether the cluster is still there."""
    begun = time.perf_counter()
    bar.update(earlier)
    try:
        for number in parts:
            if number is None:
                watch.check()
                continue
            done = bar.done + number
            bar.update(done, f"({(done - earlier) / (time.perf_counter() - begun):,.0f} images/s)")
    except Exception as error:  # Ray has many, and wraps those of tasks in classes of its own
        cause = getattr(error, "cause", None)
        if isinstance(cause, LongtailError):
            raise LongtailError(str(cause)) from error
        if isinstance(error, LongtailError):
            raise
        raise LongtailError(failed(first_line(cause or error))) from error


def _finish(folder: PartFolder, report: PredictionReport, total: int) -> None:
    """Check that each image is in one part, list those that could not be read, and say that the parts are complete."""
    if total or any(part.later for part in folder.parts):
        remove_repeats(list_parts(folder.folder), folder.earlier)
    parts = list_parts(folder.folder)
    if (rows := sum(part.rows for part in parts)) < folder.count + total:
        raise LongtailError(
            f"{folder.folder} has {rows:,} of {folder.count + total:,} images: repeat the command; parts are kept."
        )
    new = [part for part in parts if part.path not in folder.earlier]
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
