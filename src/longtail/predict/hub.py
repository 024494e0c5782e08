"""The Hugging Face hub: the model card of a run, its upload, and fetching it by the name ``hf:OWNER/NAME``."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from longtail.counts import FEW_IMAGES
from longtail.data.sources.huggingface import HUB_PREFIX
from longtail.data.sources.registry import last_name
from longtail.errors import LongtailError, UsageError, first_line
from longtail.files import refused_cache, write_atomically, write_table
from longtail.formatting import figure_text
from longtail.models.timm import TIMM_PREFIX
from longtail.run import layout
from longtail.run.model_files import ModelInfo, load_info, load_run
from longtail.run.result import read_adjusted, read_metrics, write_metrics
from longtail.validation import Column, read_table

_SHARED: Final = (layout.MODEL_FILE, layout.WEIGHTS_FILE, layout.ADJUSTED_FILE)
_NAMING_FILES: Final = ("notes", "unreadable")
_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "many": "many-shot classes",
    "medium": "medium-shot classes",
    "few": "few-shot classes",
    "worst_class": "worst class",
}
_HUB_METRICS = ("accuracy", "balanced_accuracy")  # of the same name there
_MOST_CLASSES = 200  # rows of the table; nobody reads a card of thousands


def local_run(run: str | os.PathLike[str], *, with_figures: bool = False) -> str:
    """Return the folder of a run; ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION`` is fetched, or taken from the cache.

    Only ``model.json`` and ``model.safetensors`` are fetched, ``with_figures`` also what :func:`model_card` shows; none
    can hold code.

    Raises:
        LongtailError: The hub cannot be reached, or has no such model.

    Example:
        >>> local_run("runs/photos")
        'runs/photos'
    """
    text = os.fspath(run)
    if not text.startswith(HUB_PREFIX):
        return text
    from huggingface_hub import snapshot_download

    name, _, revision = text.removeprefix(HUB_PREFIX).partition("@")
    with _in_words(f"the model {name!r} could not be fetched"):
        figures = [layout.METRICS_FILE, layout.ADJUSTED_FILE, layout.CONFIG_FILE] if with_figures else []
        return snapshot_download(
            name, revision=revision or None, allow_patterns=[layout.MODEL_FILE, layout.WEIGHTS_FILE, *figures]
        )


def run_everywhere(run: str | os.PathLike[str], folder: str) -> str:
    """Return the name of a run on every machine: its absolute path, or its name on the hub with its commit.

    All machines then fetch the same files, even if others are pushed meanwhile.

    Args:
        run: The run, as it was named.
        folder: Where :func:`local_run` has it; that of a fetched one is called by its commit.

    Example:
        >>> run_everywhere("hf:me/fish@v1", "/cache/models--me--fish/snapshots/5ac2")
        'hf:me/fish@5ac2'
    """
    text = os.fspath(run)
    if text.startswith(HUB_PREFIX):
        return f"{text.partition('@')[0]}@{Path(folder).name}"
    return os.path.abspath(text)  # noqa: PTH100


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
    layout.refuse_swapped(run, repo_id)
    _check_name(repo_id)
    folder = Path(run)
    load_run(folder)  # a model that cannot be loaded is of no use to others
    for name in include:
        if not (folder / name).is_file() or folder.resolve() not in (folder / name).resolve().parents:
            raise LongtailError(f"{folder} holds no file {name!r}: name files of the run after --include.")
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
        if "/" not in repo_id:
            raise HFValidationError("OWNER is the user or organization it belongs to")
    except HFValidationError as error:
        why = first_line(error).rstrip(".")
        raise UsageError(f"{repo_id!r} cannot be a repository; write its name as OWNER/NAME ({why}).") from error


def _stage(folder: Path, staged: Path, include: Sequence[str]) -> None:
    for name in (*_SHARED, *include):
        if (folder / name).is_file():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, staged / name)
            if name.endswith(".parquet"):
                _shorten_paths(folder / name, staged / name)
    if (folder / layout.METRICS_FILE).is_file():
        metrics = read_metrics(folder).plain(as_written=True)
        write_metrics(staged, {name: value for name, value in metrics.items() if name not in _NAMING_FILES})
    if (folder / layout.CONFIG_FILE).is_file():
        config: dict[str, Any] = layout.read_options(folder)
        for section, name in (("data", "source"), ("model", "weights")):
            values = config.get(section) or {}
            if values.get(name):
                config[section] = values | {name: last_name(str(values[name]))}
        layout.write_options(staged, config)
    write_atomically(staged / "README.md", model_card(folder).encode())


def _shorten_paths(path: Path, copy: Path) -> None:
    """Reduce absolute paths in the copy of a table to their last component: the rest reveals the machine."""
    import pyarrow as pa

    columns = {"path": Column("text", required=False, null=True)}
    table = read_table(path, columns, "write it again, or leave it out of --include")
    if "path" in table.column_names:
        paths = [last_name(name) if name and Path(name).is_absolute() else name for name in table["path"].to_pylist()]
        index = table.column_names.index("path")
        write_table(copy, table.set_column(index, "path", pa.array(paths, pa.string())))


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
        raise LongtailError(f"{failed}: write its name as OWNER/NAME ({first_line(error)})") from error
    except errors.LocalTokenNotFoundError as error:
        raise LongtailError(f"{failed}: log in first with `hf auth login`, or set HF_TOKEN.") from error
    except errors.HfHubHTTPError as error:
        refused = getattr(error.response, "status_code", None) in (401, 403, 404)
        hint = "check the name, and log in with `hf auth login`" if refused else "try again later"
        raise LongtailError(f"{failed}: {hint} ({first_line(error)})") from error
    except (library, OSError) as error:
        if why := refused_cache(error):
            raise LongtailError(f"{failed}, {why}.") from None
        raise LongtailError(
            f"{failed}, the hub cannot be reached ({first_line(error)}): connect and try again."
        ) from error


def model_card(run: str | os.PathLike[str]) -> str:
    """Write the model card of a run from its files: metadata in YAML, then Markdown.

    Data, training counts, groups, figures with their intervals, intended use and limits. The figures are those of the
    model as it predicts: of an adjusted run from ``adjusted.json``, else from ``metrics.json``. Where an adjusted run
    has only those before the adjustment, the card says so and the metadata for machines leave them out. Of the source
    only the last name is shown, not the folders of the machine it lies on.

    Args:
        run: The RUN folder; ``metrics.json``, ``adjusted.json`` and ``config.yaml`` may be missing.

    Returns:
        The text of ``README.md``.

    Raises:
        LongtailError: ``model.json`` is missing or damaged, or one of the others is damaged.
    """
    folder = Path(run)
    info = load_info(folder)
    metrics = read_metrics(folder).plain() if (folder / layout.METRICS_FILE).is_file() else {}
    adjusted = None if info.adjustment is None else read_adjusted(folder, info.adjustment)
    config: dict[str, Any] = layout.read_options(folder) if (folder / layout.CONFIG_FILE).is_file() else {}
    test = (metrics if adjusted is None else adjusted).get("test") or {}
    before_adjustment = info.adjustment is not None and adjusted is None
    source = last_name(str(config.get("data", {}).get("source", "")))
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # noqa: S701 - Markdown, whose own characters `cell` takes care of
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"cell": _cell, "percent": figure_text}
    return environment.get_template("card.md.j2").render(
        metadata=_metadata(info, {} if before_adjustment else test, source, config),
        info=info,
        before=before_adjustment,
        source=source,
        config=config,
        metrics=metrics,
        figures=_FIGURES,
        classes=_classes(info, test),
        test=test,
        few=FEW_IMAGES,
        model_file=layout.MODEL_FILE,
        assumes=info.prior if info.adjustment is None else info.adjustment.prior,
    )


def _metadata(info: ModelInfo, test: Mapping[str, Any], source: str, config: Mapping[str, Any]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    on_hub = source.removeprefix(HUB_PREFIX) if source.startswith(HUB_PREFIX) and "/" in source else None
    results = [
        EvalResult(
            task_type="image-classification",
            metric_type=name,
            metric_value=round(test[name], 6),
            dataset_type=on_hub or "imagefolder",
            dataset_name=source,
            dataset_split="test",
        )
        for name in _HUB_METRICS
        if test.get(name) is not None
    ]
    timm_name = info.model.name.removeprefix(TIMM_PREFIX).partition("+")[0]
    pretrained = info.model.name.startswith(TIMM_PREFIX) and config.get("model", {}).get("pretrained")
    return ModelCardData(
        library_name="longtail",
        pipeline_tag="image-classification",
        tags=["image-classification", "long-tailed", *([info.recipe] if info.recipe else [])],
        datasets=[on_hub] if on_hub else None,
        base_model=f"timm/{timm_name}" if pretrained else None,
        model_name=source or info.model.name,
        eval_results=results or None,
    ).to_yaml()


def _classes(info: ModelInfo, test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the class table, rarest last."""
    measured = test.get("per_class") or [{}] * len(info.classes)
    if len(measured) != len(info.classes):
        raise LongtailError(
            f"the figures are of {len(measured)} classes and {layout.MODEL_FILE} of {len(info.classes)}: "
            "copy both from one run."
        )
    absent = dict.fromkeys(("group", "test_count", "recall", "recall_interval"))
    rows = [
        absent | row | {"name": name, "count": count}
        for name, count, row in zip(info.classes, info.counts, measured, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["count"])[:_MOST_CLASSES]


def _cell(text: object) -> str:
    """Escape a text so that it stays in its cell of a table and has no markup."""
    words = " ".join(str(text).split())
    return "".join(f"\\{character}" if character in "\\`*_{}[]<>#|~" else character for character in words)
