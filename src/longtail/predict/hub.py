"""The Hugging Face hub: upload a run with its model card, and fetch it by the name ``hf:OWNER/NAME``."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from longtail.data.sources import last_name
from longtail.errors import LongtailError, UsageError
from longtail.files import write_atomically, write_yaml
from longtail.predict.card import model_card
from longtail.run.folder import (
    ADJUSTED_FILE,
    CONFIG_FILE,
    METRICS_FILE,
    MODEL_FILE,
    WEIGHTS_FILE,
    read_options,
    refuse_swapped,
)
from longtail.run.model_files import load_run
from longtail.run.result import read_metrics, write_metrics

PREFIX: Final = "hf:"
_SHARED: Final = (MODEL_FILE, WEIGHTS_FILE, ADJUSTED_FILE)
_NAMING_FILES: Final = ("notes", "unreadable")


def local_run(run: str | os.PathLike[str]) -> str:
    """Return the folder of a run; ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION`` is fetched, or taken from the cache.

    Only ``model.json`` and ``model.safetensors`` are fetched; neither can hold code.

    Raises:
        LongtailError: The hub cannot be reached, or has no such model.

    Example:
        >>> local_run("runs/photos")
        'runs/photos'
    """
    text = os.fspath(run)
    if not text.startswith(PREFIX):
        return text
    from huggingface_hub import snapshot_download

    name, _, revision = text.removeprefix(PREFIX).partition("@")
    with _in_words(f"the model {name!r} could not be fetched"):
        return snapshot_download(name, revision=revision or None, allow_patterns=[MODEL_FILE, WEIGHTS_FILE])


def push_run(
    run: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    include: Sequence[str] = (),
) -> str:
    """Upload a finished run to a model repository of the hub, which is made if it does not exist.

    The files uploaded are ``model.json``, ``model.safetensors``, ``metrics.json`` without its notes on the data,
    ``adjusted.json`` of an adjusted run, ``config.yaml`` with the source and the weights it started from cut down to
    their last names, and a model card as ``README.md``. Nothing that shows images or names files of the user's:
    predictions, examples and the report stay, unless ``include`` names them.

    Args:
        run: The RUN folder.
        repo_id: ``OWNER/NAME``.
        private: Make a new repository private.
        revision: The branch, made if it does not exist; the main one by default.
        include: Names of further files of the run.

    Returns:
        The address of the commit.

    Raises:
        UsageError: A name that is not ``OWNER/NAME``.
        LongtailError: Not a finished run, a file it does not have, or whatever the hub refuses.
    """
    refuse_swapped(run, repo_id)
    _check_name(repo_id)
    folder = Path(run)
    load_run(folder)  # a model that cannot be loaded is of no use to others
    missing = [name for name in include if not _is_file_of(folder, name)]
    if missing:
        raise LongtailError(f"{folder} holds no file {missing[0]!r}: name files of the run after --include.")
    with tempfile.TemporaryDirectory(prefix="longtail-push-") as staged:
        _stage(folder, Path(staged), include)
        with _in_words(f"{folder} could not be pushed"):
            return upload(staged, repo_id, private=private, revision=revision)


def _check_name(repo_id: str) -> None:
    """Refuse a repository name that the hub would refuse, before anything is read or sent."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
        why = "" if "/" in repo_id else ": OWNER is the user or organization it belongs to"
    except HFValidationError as error:
        why = f" ({_first(error)})"
    if why or "/" not in repo_id:
        raise UsageError(f"{repo_id!r} cannot be a repository; write its name as OWNER/NAME{why.rstrip('.')}.")


def _is_file_of(folder: Path, name: str) -> bool:
    return (folder / name).is_file() and folder.resolve() in (folder / name).resolve().parents


def _stage(folder: Path, staged: Path, include: Sequence[str]) -> None:
    for name in (*_SHARED, *include):
        if (folder / name).is_file():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, staged / name)
            if name.endswith(".parquet"):
                _shorten_paths(staged / name)
    if (folder / METRICS_FILE).is_file():
        metrics = read_metrics(folder).plain(as_written=True)
        write_metrics(staged, {name: value for name, value in metrics.items() if name not in _NAMING_FILES})
    if (folder / CONFIG_FILE).is_file():
        config: dict[str, Any] = read_options(folder)
        for section, name in (("data", "source"), ("model", "weights")):
            values = config.get(section) or {}
            if values.get(name):
                config[section] = values | {name: last_name(str(values[name]))}
        write_yaml(staged / CONFIG_FILE, config)
    write_atomically(staged / "README.md", model_card(folder).encode())


def _shorten_paths(path: Path) -> None:
    """Reduce absolute paths in a table to their last component: the rest reveals the machine."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    if "path" in table.column_names:
        paths = [last_name(name) if name and Path(name).is_absolute() else name for name in table["path"].to_pylist()]
        index = table.column_names.index("path")
        pq.write_table(table.set_column(index, "path", pa.array(paths, pa.string())), path, compression="zstd")


def upload(folder: str, repo_id: str, *, private: bool, revision: str | None) -> str:
    """Upload a folder to a model repository, which is made if it does not exist; return the address of the commit."""
    from huggingface_hub import HfApi

    api = HfApi()
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    commit: Any = api.upload_folder(
        repo_id=repo_id, folder_path=folder, revision=revision, commit_message="Upload a model of longtail"
    )
    return str(commit.commit_url)


@contextmanager
def _in_words(failed: str) -> Iterator[None]:
    """Turn errors of the hub's client into one sentence with a remedy."""
    from huggingface_hub import errors

    # The client's HTTP library is another one in each of its major versions; all errors of it share this base.
    library: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.HFValidationError as error:
        raise LongtailError(f"{failed}: write its name as OWNER/NAME ({_first(error)})") from error
    except errors.LocalTokenNotFoundError as error:
        raise LongtailError(f"{failed}: log in first with `hf auth login`, or set HF_TOKEN.") from error
    except errors.HfHubHTTPError as error:
        refused = getattr(error.response, "status_code", None) in (401, 403, 404)
        hint = "check the name, and log in with `hf auth login`" if refused else "try again later"
        raise LongtailError(f"{failed}: {hint} ({_first(error)})") from error
    except (library, OSError) as error:
        raise LongtailError(f"{failed}, the hub cannot be reached ({_first(error)}): connect and try again.") from error


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
