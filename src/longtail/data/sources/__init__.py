"""The forms of a SOURCE, and its path, absolute to work from any folder or short to show."""

from __future__ import annotations

from pathlib import Path
from typing import Final

NAMED_SOURCES: Final = frozenset({"cifar10", "cifar100", "digits", "mnist5k"})
"""Built-in sources, which have a name and no path."""
PACKAGED_SOURCES: Final = frozenset({"digits", "mnist5k"})
"""Built-in sources that come with an installed package."""
PATH_PREFIXES: Final = frozenset({"folder", "csv", "parquet", "hf"})
"""Prefixes, before the colon, of sources with a path or a name on the hub."""
_HUB: Final = "hf"


def source_path(spec: str) -> Path | None:
    """Return the absolute path of a SOURCE; None for a built-in data set or one of the Hugging Face hub.

    Example:
        >>> source_path("csv:/data/birds.csv").as_posix(), source_path("digits"), source_path("hf:owner/set")
        ('/data/birds.csv', None, None)
    """
    prefix, colon, rest = spec.partition(":")
    if not (colon and prefix in PATH_PREFIXES):
        path = Path(spec)
        return path.absolute() if spec and spec not in NAMED_SOURCES and _is_local(path) else None
    path = Path(rest).expanduser()
    return path.absolute() if rest and (prefix != _HUB or _is_local(path)) else None


def absolute_source(spec: str) -> str:
    """Return a SOURCE with an absolute path; a SOURCE without a path is returned unchanged.

    Example:
        >>> absolute_source("folder:photos") == f"folder:{Path('photos').absolute()}", absolute_source("digits")
        (True, 'digits')
    """
    path = source_path(spec)
    if path is None:
        return spec
    prefix, colon, _ = spec.partition(":")
    return f"{prefix}:{path}" if colon and prefix in PATH_PREFIXES else str(path)


def last_name(source: str, parts: int = 1) -> str:
    """Return a SOURCE without its parent folders; the name of a data set on the hub is kept whole.

    Args:
        source: The SOURCE, or any path.
        parts: Number of path components to keep.

    Example:
        >>> last_name("folder:/home/me/photos/"), last_name("hf:owner/set"), last_name("digits")
        ('folder:photos', 'hf:owner/set', 'digits')
        >>> last_name("folder:/home/me/photos/", parts=2)
        'folder:me/photos'
    """
    prefix, colon, rest = source.partition(":")
    if prefix not in PATH_PREFIXES:
        prefix, colon, rest = "", "", source
    if prefix == _HUB and not Path(rest).is_absolute() and rest.count("/") <= 1:
        return source
    names = [part for part in Path(rest).parts if part != Path(rest).anchor]
    return prefix + colon + "/".join(names[-parts:])


def _is_local(path: Path) -> bool:
    return path.is_absolute() or path.exists()
