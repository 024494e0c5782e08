"""The source ``parquet:``: a Parquet file, or a folder with one or more for each split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from longtail.data.dataset import ImageData, empty_split_finding
from longtail.data.loading.cache_folder import keep_table
from longtail.data.sources.huggingface import hidden_progress_bars
from longtail.data.sources.image_tables import from_tables
from longtail.data.sources.table_columns import Columns
from longtail.data.sources.table_splits import divide_files, unread_files
from longtail.errors import LongtailError, first_line
from longtail.files import refused_cache

if TYPE_CHECKING:
    import datasets
    import pyarrow.parquet as pq

_WORTH_A_PROGRESS_BAR = 500_000_000  # bytes


def load_parquet(spec: str, columns: Columns) -> ImageData:
    """Read a Parquet file (all of it for training), or a folder with ``train.parquet``, ``test-00000.parquet``, ...

    Raises:
        LongtailError: There is no such path, no Parquet file, or one that cannot be read.
    """
    path = Path(spec).expanduser()
    if not path.exists():
        raise LongtailError(f"{spec!r} does not exist: check the path after parquet:.")
    files = {"train": [path]} if path.is_file() else parquet_files(path)
    if not files:
        raise LongtailError(f"{spec!r} holds no train.parquet, test.parquet or data/train-*.parquet: check the path.")
    filled = {name: [part for part in parts if _num_rows(part)] for name, parts in files.items()}
    if not filled.get("train", True):
        raise LongtailError(f"{spec!r} holds no images to train on: its training table has no rows; add some.")
    where = str(path.absolute())
    tables = {name: keep_table(where, parts, partial(_read, parts)) for name, parts in filled.items() if parts}
    data = from_tables(f"parquet:{spec}", tables, columns, root=path if path.is_dir() else path.parent)
    findings = [empty_split_finding(name) for name, parts in filled.items() if not parts]
    unread = sorted(_tables(path) - {part for parts in files.values() for part in parts}) if path.is_dir() else []
    findings += unread_files([file.name for file in unread])
    return replace(data, findings=(*data.findings, *findings))


def parquet_files(folder: Path) -> Mapping[str, Sequence[Path]]:
    """List the Parquet files of a folder (or its ``data/``) by split, see :func:`divide_files`.

    Example:
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> for name in ("train-0.parquet", "train-1.parquet", "val.parquet"): (folder / name).touch()
        >>> {split: len(files) for split, files in parquet_files(folder).items()}
        {'train': 2, 'validation': 1}
    """
    return divide_files(_tables(folder))


def _tables(folder: Path) -> set[Path]:
    """List the Parquet files of a folder, else of its ``data/``, without hidden ones, which systems add."""
    directly, below = (
        {file for file in folder.glob(pattern) if not file.name.startswith(".")}
        for pattern in ("*.parquet", "data/*.parquet")
    )
    return directly or below


@contextmanager
def open_parquet(path: str | Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file to be read page by page, not a row group at a time.

    Raises:
        LongtailError: It is missing or broken; ``datasets`` would not name it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        try:
            source = stack.enter_context(Path(path).open("rb"))  # PyArrow itself opens none whose path is not UTF-8
            file = stack.enter_context(pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20))
        except (pa.ArrowException, OSError) as error:
            raise LongtailError(
                f"{str(path)!r} is not a readable Parquet file ({first_line(error)}): fetch it again."
            ) from None
        yield file


def _num_rows(file: Path) -> int:
    with open_parquet(file) as table:
        return int(table.metadata.num_rows)


def _read(files: Sequence[Path], folder: Path | None) -> datasets.Dataset:
    """Read files as one table, whose rows ``datasets`` maps from the folder, else from its own cache."""
    import datasets

    is_small = sum(file.stat().st_size for file in files) < _WORTH_A_PROGRESS_BAR
    try:
        with hidden_progress_bars() if is_small else nullcontext():
            return datasets.Dataset.from_parquet(
                [str(file) for file in files], cache_dir=None if folder is None else str(folder)
            )
    except Exception as error:  # datasets wraps Arrow's errors in its own, which share no base class
        reason = first_line(error.__cause__ or error)
        names = ", ".join(file.name for file in files[:3])
        if folder is None and (why := refused_cache(error)):
            raise LongtailError(f"{names} cannot be read without a cache: {why}, or LONGTAIL_CACHE.") from None
        raise LongtailError(f"{names} cannot be read as one table ({reason}): write them again.") from error
