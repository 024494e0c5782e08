"""``longtail prepare``: all images of a source decoded and resized once, stored as raw pixels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from filelock import FileLock, Timeout

from longtail.data.dataset import SPLIT_NAMES, ImageData, Split, portable_pixmap
from longtail.data.loading.workers import Block, BlockReader, Decoder
from longtail.data.sources.huggingface import hidden_progress_bars
from longtail.data.square import Fit, Square
from longtail.device import cores
from longtail.errors import LongtailError, UnreadableImageError, UsageError

BATCH_BYTES = 32_000_000  # of pixels in memory; also keeps the offsets of a batch far below 2 GB
_BLOCK_ROWS = 16  # rows that a worker decodes at a time
_TABLE = "data-00000-of-00001.arrow"  # the one table of a split that `save_to_disk` writes for a small one


@dataclass(frozen=True)
class Resized:
    """The result of :func:`write_resized`.

    Attributes:
        images: Number of images by split.
        skipped: One sentence for each image that was left out.
    """

    images: dict[str, int]
    skipped: tuple[str, ...]


def write_resized(
    data: ImageData,
    out: Path,
    size: int,
    *,
    fit: Fit = "crop",
    skip_bad: bool = False,
    workers: int | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Resized:
    """Write all splits of a source as a saved Hugging Face data set of raw ``size`` x ``size`` images.

    Each image is scaled, and cropped, padded or stretched to the square, as in training. Class names, all other
    columns and the paths of the original images are kept. Memory does not grow with the number of images. The
    folder gets its name when it is complete; if the process is killed, the next call starts over.

    Args:
        data: The source.
        out: The folder to write; it must not exist, or be empty.
        size: Side of the images in pixels.
        fit: How an image that is not square becomes one, see :class:`~longtail.data.square.Square`.
        skip_bad: Leave out a damaged image, instead of stopping at it.
        workers: Number of decoding processes; by default the number of cores.
        tick: Called once per image.

    Returns:
        The number of images by split, and what was left out.

    Raises:
        LongtailError: There is an unreadable image, a folder that is not empty, too little space, or another process
            that writes the same folder.

    Example:
        >>> import tempfile
        >>> from longtail.data.sources.registry import load_source
        >>> folder = Path(tempfile.mkdtemp()) / "digits-8"
        >>> write_resized(load_source("digits"), folder, 8, workers=0).images
        {'train': 1438, 'test': 359}
        >>> load_source(str(folder)).splits["test"].image(0).size
        (8, 8)
    """
    if size < 1:
        raise UsageError(f"--size is a number of pixels, at least 1, got {size}.")
    square = Square(size, fit=fit)
    write = partial(_write_split, square=square, skip_bad=skip_bad, workers=workers, tick=tick)
    with whole_folder(out) as unfinished:
        _check_space(data, out, size)
        return _write_all(data, unfinished, write)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder its name once it is complete; if the process fails or is killed, the next call starts over.

    Args:
        out: The folder; it must not exist, or be empty. A link stays, and the folder that it leads to is written.

    Yields:
        The path that the folder has until then, on the same disk, which does not exist yet.

    Raises:
        LongtailError: The folder holds something or cannot be replaced, as a mount point, or another process is
            writing it.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp()) / "shards"
        >>> with whole_folder(out) as folder:
        ...     folder.mkdir()
        ...     (folder / "a.txt").touch()
        >>> [file.name for file in out.iterdir()]
        ['a.txt']
    """
    out = out.resolve()
    _check_folder(out)
    unfinished = out.with_name(f".{out.name}.unfinished")
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = out.with_name(f".{out.name}.lock")
    try:
        with FileLock(lock, timeout=0):
            try:
                _check_folder(out)  # again: another process may have written it in between
                shutil.rmtree(unfinished, ignore_errors=True)  # what a killed process left
                if out.exists():
                    try:  # before the work, not after it
                        out.rmdir()
                    except OSError:  # a mount point that does not look like one
                        raise _irreplaceable(out) from None
                yield unfinished
                unfinished.rename(out)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except Timeout:
        raise LongtailError(f"another process is writing {out}: wait for it, or name another --out.") from None


def _check_folder(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LongtailError(f"{out} exists already: name another --out, or remove it first.")
    if os.path.ismount(out) or out == Path.cwd():
        raise _irreplaceable(out)


def _irreplaceable(out: Path) -> LongtailError:
    return LongtailError(
        f"{out} is a mount point, or the folder that this command runs in, and cannot be replaced: name a new folder "
        f"in it, such as {out / 'images'}."
    )


def _check_space(data: ImageData, out: Path, size: int) -> None:
    needed = sum(map(len, data.splits.values())) * 3 * size**2
    free = shutil.disk_usage(out.resolve().parent).free
    if needed > free:
        raise LongtailError(
            f"the images take {needed / 1e9:.1f} GB at {size} x {size} pixels and the disk of {out} has "
            f"{free / 1e9:.1f} GB left: free some space, name another --out, or a smaller --size."
        )


def _write_all(data: ImageData, folder: Path, write: Callable[[Split, Path, pa.Schema], list[str]]) -> Resized:
    import datasets

    splits = {name: data.splits[name] for name in SPLIT_NAMES if len(data.splits.get(name, ()))}
    columns = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(data.classes))}
    features = {name: datasets.Features(split.rows.features | columns) for name, split in splits.items()}
    # Let ``datasets`` write all files around the tables, with one empty row; the tables are then replaced.
    empty = {
        name: datasets.Dataset.from_dict({column: [None] for column in kinds}, features=kinds)
        for name, kinds in features.items()
    }
    with hidden_progress_bars():
        datasets.DatasetDict(empty).save_to_disk(str(folder))
    images: dict[str, int] = {}
    skipped: list[str] = []
    for name, split in splits.items():
        problems = write(split, folder / name / _TABLE, features[name].arrow_schema)
        images[name] = len(split) - len(problems)
        skipped += problems
        if not images[name]:
            raise LongtailError(
                f"no image of the {name} split of {data.source!r} can be read; the first: {problems[0]}"
            )
    return Resized(images, tuple(skipped))


def _write_split(
    split: Split,
    table: Path,
    schema: pa.Schema,
    *,
    square: Square,
    skip_bad: bool,
    workers: int | None,
    tick: Callable[[], object],
) -> list[str]:
    """Write one split in pieces; return a sentence for each image that was left out."""
    skipped: list[str] = []
    with table.open("wb") as file:
        with pa.ipc.new_stream(file, schema) as writer:
            for rows, block in _pieces(Decoder(split, square), cores() if workers is None else workers):
                for problem in block.problems.values():
                    if not (skip_bad and isinstance(problem, UnreadableImageError) and problem.is_damage):
                        raise problem
                writer.write_table(_piece(split, rows, block, schema))
                skipped += [str(problem) for problem in block.problems.values()]
                for _ in rows:
                    tick()
        file.flush()
        os.fsync(file.fileno())
    return skipped


def _pieces(decoder: Decoder, workers: int) -> Iterator[tuple[range, Block]]:
    """Decode a split in order; yield rows and their pixels, as many at a time as a batch of the table takes."""
    every = range(len(decoder.split))
    most = max(1, BATCH_BYTES // (3 * decoder.square.size**2))
    step = min(_BLOCK_ROWS, most)
    parts = [every[start : start + step] for start in every[::step]]
    blocks = BlockReader(decoder, workers=min(workers, len(parts))).blocks(parts)
    most -= most % step
    for start in every[::most]:
        rows = every[start : start + most]
        decoded = [next(blocks) for _ in rows[::step]]
        problems = {
            number * step + row: problem
            for number, block in enumerate(decoded)
            for row, problem in block.problems.items()
        }
        yield rows, Block(torch.cat([block.pixels for block in decoded]), problems)


def _piece(split: Split, rows: range, block: Block, schema: pa.Schema) -> pa.Table:
    """Return rows of the new table: new pixels with the old paths, and all other columns unchanged."""
    good = [row for row in range(len(rows)) if row not in block.problems]
    stored = split.rows.with_format("arrow")[rows.start : rows.stop]
    paths = pc.struct_field(stored.column("image"), "path").to_pylist()
    pixels = block.pixels.numpy()
    images = [{"bytes": portable_pixmap(pixels[row]), "path": paths[row]} for row in good]
    columns = [
        pa.array(images, type=field.type)
        if field.name == "image"
        else stored.column(field.name).take(pa.array(good, type=pa.int64())).cast(field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
