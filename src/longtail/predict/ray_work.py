"""Work: what the machines of a cluster do with blocks of images, from their paths to a written part."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from longtail.config.options import EngineName
from longtail.errors import LongtailError
from longtail.models.preprocessing import Preprocessing
from longtail.predict.hub import local_run
from longtail.predict.images import Item, escaped
from longtail.predict.parts import KEY, POSITION, Job, write_part
from longtail.predict.predict import Listed, model_digest, part_rows, until_store_fails
from longtail.predict.predictor import Predictor, read_item
from longtail.predict.table import PROBLEM
from longtail.predict.target_prior import with_prior
from longtail.remote import Place, is_url

GPU: Final = "cuda"
IS_NEW: Final = "is_new"
"""The column of a block that says of each image whether no earlier command tried to get it, in vain."""
_MOST_PIXELS = 64 * 2**20  # bytes of the decoded images of a block on its way to a GPU
_FETCHES = 16  # images that are fetched from a store at a time by a task of one core


@dataclass(frozen=True)
class Work:
    """What is done with the images, the same on every machine.

    Attributes:
        run: The RUN folder, or ``hf:OWNER/NAME@COMMIT``.
        device: Device of the network.
        engine: As for :class:`~longtail.predict.predictor.Predictor`.
        prior: The share of each class to expect, if not the run's own.
        top_k: As there.
        batch_size: As there.
        look: The size and interpolation of the network's input.
        job: What the predictions depend on.
        folder: Where parts are written.
        command: What tells its parts from those of the commands before it.
    """

    run: str
    device: str
    engine: EngineName
    prior: tuple[float, ...] | None
    top_k: int
    batch_size: int
    look: Preprocessing
    job: Job
    folder: Place
    command: str

    @property
    def most_decoded(self) -> int:
        """Most images of a block that is sent decoded."""
        return max(16, min(1024, _MOST_PIXELS // (3 * self.look.size**2)))


def predict_part(block: pa.Table, work: Work) -> int:
    """Read, decode and predict the images of a block of paths, write their part, and return their number: a task."""
    predictor = _predictor(work.job.model, work.run, work.device, work.engine, work.prior)
    sources = [os.fsdecode(source) for source in block["source"].to_pylist()]
    items = (
        Item(os.fsdecode(name), source, problem)
        for name, source, problem in zip(block["name"].to_pylist(), sources, block[PROBLEM].to_pylist(), strict=True)
    )
    threads = _FETCHES if any(map(is_url, sources)) else 1
    tables = _rows(items, block, predictor, work, threads)
    return sum(int(write_rows(rows, work)["images"][0].as_py()) for rows in tables)


@lru_cache(maxsize=1)
def _predictor(
    model: str,
    run: str,
    device: str,
    engine: EngineName,
    prior: tuple[float, ...] | None,
) -> Predictor:
    """Return the predictor of this process, which does many blocks.

    Raises:
        LongtailError: The run is not of the digest ``model`` any more.
    """
    folder = local_run(run)
    predictor = Predictor(folder, device=device, engine=engine)
    if model_digest(folder) != model:  # of what has been read by now
        raise LongtailError(f"{run} has changed since its predictions began: begin anew with --restart.")
    if prior is not None:
        predictor.info = with_prior(predictor.info, prior)
    return predictor


def _rows(items: Iterable[Item], block: pa.Table, predictor: Predictor, work: Work, threads: int) -> Iterator[pa.Table]:
    """Yield the rows of a block in one table, also of those images of it that come before a store fails for good."""
    stream = predictor.stream(items, workers=threads, total=len(block), top_k=work.top_k, batch_size=work.batch_size)
    places = map(Listed, *(block[name].to_pylist() for name in (POSITION, KEY, IS_NEW)))
    for batch in until_store_fails(zip(stream, places, strict=True), len(block)):
        yield part_rows(batch, work.job)


def decode(block: pa.Table, look: Preprocessing) -> pa.Table:
    """Read the images of a block and bring them to the network's square; raw pixels behind the header of a PPM."""
    header = f"P6\n{look.size} {look.size}\n255\n".encode()
    pixels: list[bytes | None] = []
    problems: list[str] = []
    columns = (block[name].to_pylist() for name in ("source", "name", PROBLEM))
    for source, name, problem in zip(*columns, strict=True):
        item = read_item(Item(os.fsdecode(name), os.fsdecode(source), problem), look)
        problems.append(item.problem)
        pixels.append(None if item.problem else header + item.source.tobytes())  # type: ignore[union-attr]
    block = block.drop_columns(["source", PROBLEM])
    return block.append_column("image", pa.array(pixels, pa.large_binary())).append_column(
        PROBLEM, pa.array(list(map(escaped, problems)), pa.string())
    )


class PredictingActor:
    """A predictor on a GPU, from decoded images to rows of a part."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._predictor = _predictor(work.job.model, work.run, work.device, work.engine, work.prior)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return the rows of a block of decoded images.

        If a store fails for good, the rows before are written here, so that the next command gets past their images.

        Raises:
            LongtailError: It does.
        """
        columns: tuple[list[Any], ...] = tuple(block[name].to_pylist() for name in ("name", "image", PROBLEM))
        items = (Item(os.fsdecode(name), image or b"", problem) for name, image, problem in zip(*columns, strict=True))
        tables = list[pa.Table]()
        try:
            for rows in _rows(items, block, self._predictor, self._work, threads=1):
                tables.append(rows)
        except LongtailError:
            if tables:
                write_rows(pa.concat_tables(tables), self._work)
            raise
        return pa.concat_tables(tables)


def write_rows(rows: pa.Table, work: Work) -> pa.Table:
    """Write a part, and return its number of images.

    It is called by what is in it, so that work that this command does again replaces it.

    Returns:
        A table of one row, with the column ``images``.
    """
    rows = rows.sort_by(POSITION)  # blocks come as they are done
    digest = hashlib.blake2b(rows[KEY].to_numpy().tobytes(), key=work.command.encode(), digest_size=8).hexdigest()
    name = f"part-{pc.min(rows[POSITION]).as_py():012}-{digest}.parquet"
    write_part(work.folder / name, work.job, [rows])
    return pa.table({"images": [len(rows)]})
