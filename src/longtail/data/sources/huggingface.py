"""The source ``hf:``: a data set saved by Hugging Face ``datasets``, or one of its hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from ssl import SSLCertVerificationError
from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from longtail.data.dataset import ImageData
from longtail.data.sources.image_tables import from_tables
from longtail.data.sources.table_columns import Columns
from longtail.errors import LongtailError, first_line
from longtail.files import refused_cache

if TYPE_CHECKING:
    import datasets

HUB: Final = "hf"
HUB_PREFIX: Final = f"{HUB}:"
"""Before the name of a data set or model of the hub."""
_SAVED_MARKS = ("dataset_dict.json", "state.json")
_PATIENCE, LONG_PATIENCE = 3, 10  # seconds that a hub may take to answer, also over a slow connection


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was written by ``save_to_disk``."""
    return any((path / mark).is_file() for mark in _SAVED_MARKS)


def load_hf(spec: str, columns: Columns) -> ImageData:
    """Read a saved folder of this name, else a data set of the hub.

    Raises:
        LongtailError: The folder is not a saved data set, or the hub cannot be reached or has no such data set.
    """
    import datasets

    path = Path(spec).expanduser()
    if not path.exists():
        return from_tables(f"{HUB_PREFIX}{spec}", download(spec), columns)
    if not path.is_dir() or not is_saved_dataset(path):
        raise LongtailError(f"{spec!r} was not written by save_to_disk: use folder:, csv: or parquet: for it.")
    try:
        saved = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LongtailError(f"the saved data set {str(path)!r} cannot be read ({error}): save it again.") from error
    tables = saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
    return from_tables(f"{HUB_PREFIX}{spec}", tables, columns, root=path)


@contextmanager
def hidden_progress_bars() -> Iterator[None]:
    """Hide the progress bars of ``datasets`` in a ``with`` block."""
    import datasets

    were_hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_hidden:
            datasets.enable_progress_bars()


def download(name: str) -> Mapping[str, datasets.Dataset]:
    """Fetch all splits of a data set of the hub, or take them from the local cache.

    Raises:
        LongtailError: There is no such data set, or no network; the message says what to do instead.
    """
    import datasets

    try:
        with _without_retries():
            loaded = datasets.load_dataset(name)
    except datasets.exceptions.DatasetNotFoundError:
        raise LongtailError(f"the hub has no data set {name!r}, nor is there such a folder: check the name.") from None
    except Exception as error:  # the hub client's errors come from three libraries that share no base class
        if why := refused_cache(error):
            raise LongtailError(f"{name!r} could not be fetched, {why}.") from None
        raise LongtailError(f"{name!r} could not be fetched from the hub{_reason(error)}") from error
    tables: Mapping[str, datasets.Dataset] = loaded
    return tables


@contextmanager
def _without_retries() -> Iterator[None]:
    """Use the local cache at once, not after half a minute of retries, if the hub does not answer."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if not reachable(LONG_PATIENCE):
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def reachable(seconds: float = _PATIENCE) -> bool:
    """Whether the hub answers within ``seconds``, directly or through the configured proxy."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=seconds):  # noqa: S310 - the address of the hub
            return True
    except HTTPError as error:  # an answer, unless it is 502 to 504 of a proxy
        return error.code < HTTPStatus.INTERNAL_SERVER_ERROR
    except URLError as error:  # the client of the hub has certificates that Python may lack
        return isinstance(error.reason, SSLCertVerificationError)
    except (OSError, HTTPException):
        return False


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError) and not isinstance(error, ConnectionError):
        return f" ({first_line(error)}): save it with save_to_disk and use hf:SAVED_DIR."
    return f" ({first_line(error)}): without a network, use a local copy, hf:SAVED_DIR or parquet:FOLDER."
