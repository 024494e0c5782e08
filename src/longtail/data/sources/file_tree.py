"""Walk: the image files below class folders, and what else is met on the way: other files, links, loops."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from longtail.data.audit.checks import listed
from longtail.data.dataset import Finding, Severity
from longtail.data.decode import is_image_path, is_unread_path
from longtail.errors import LongtailError

_CLUTTER = frozenset({"Thumbs.db", "desktop.ini"})
SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "#snapshot",
        "@recycle",
        "@recently-snapshot",
        "$recycle.bin",
        "lost+found",
        "system volume information",
        "__pycache__",
    }
)
"""Lower-case names of folders added by operating systems and network drives: thumbnails, trash, resource forks."""


class Walk:
    """Lists the images of class folders and remembers what their owner should know.

    Args:
        root: The folder of the source.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for place in ("cat/1.jpg", "cat/notes.txt", "lynx/old/2.png"):
        ...     (root / place).parent.mkdir(parents=True, exist_ok=True)
        ...     (root / place).touch()
        >>> walk = Walk(root)
        >>> {name: len(files) for name, files in walk.classes(root).items()}
        {'cat': 1, 'lynx': 1}
        >>> [finding.images for finding in walk.findings()]
        [('cat/notes.txt',)]
    """

    def __init__(self, root: Path) -> None:
        self._folder = root
        self._root = os.path.realpath(root)
        self._prefix = str(root) + os.sep
        self._unread: list[str] = []
        self._others: list[str] = []
        self._outside: list[str] = []
        self._back: list[str] = []
        self._dead: list[str] = []
        self._system: list[str] = []
        self._hidden: list[str] = []
        self._pass_over(root)

    def classes(self, folder: Path) -> dict[str, list[str]]:
        """The image files of each class folder in ``folder``.

        Raises:
            LongtailError: A folder cannot be listed, or has gone meanwhile.
        """
        if folder != self._folder:
            self._pass_over(folder)
        self._dead += sorted(str(entry).removeprefix(self._prefix) for entry in folder.iterdir() if _is_dead(entry))
        entries = [entry for entry in subfolders(folder) if self._leads_on(str(folder), entry.name)]
        return {entry.name: list(self._images_below(entry)) for entry in entries}

    def _pass_over(self, folder: Path) -> None:
        """Record the hidden and system folders directly in a folder."""
        skipped = (entry for entry in folder.iterdir() if is_system_folder(entry.name) and entry.is_dir())
        self._system += sorted(str(entry).removeprefix(self._prefix) for entry in skipped)

    def _images_below(self, folder: Path) -> Iterator[str]:
        visited: set[str] = set()
        for parent, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
            place = os.path.realpath(parent)
            if place in visited:  # by two links, or a ring of them
                folders.clear()
                continue
            visited.add(place)
            below = parent.removeprefix(self._prefix) + os.sep
            self._system += sorted(below + name for name in folders if is_system_folder(name))
            folders[:] = sorted(name for name in folders if not is_system_folder(name) and self._leads_on(parent, name))
            for name in sorted(files):
                if is_image_path(name):
                    self._leads_on(parent, name)
                    yield f"{parent}{os.sep}{name}"
                elif name.startswith("."):
                    self._hidden += [below + name] if is_image_path(name.lstrip(".")) else []
                elif name not in _CLUTTER:
                    path = f"{parent}{os.sep}{name}"
                    read = self._unread if is_unread_path(name) else self._others
                    (self._dead if _is_dead(Path(path)) else read).append(path.removeprefix(self._prefix))

    def _leads_on(self, parent: str, name: str) -> bool:
        """Note where a link leads; one to a folder above itself would take the images of other classes along."""
        path = f"{parent}{os.sep}{name}"
        if not Path(path).is_symlink():
            return True
        target = os.path.realpath(path)
        if _is_within(os.path.realpath(parent), target):
            self._back.append(path.removeprefix(self._prefix))
            return False
        if not _is_within(target, self._root):
            self._outside.append(path.removeprefix(self._prefix))
        return True

    def findings(self) -> list[Finding]:
        """One for each kind of thing that was met so far."""
        met: tuple[tuple[Severity, list[str], str, str, str], ...] = (
            (
                "warning",
                self._unread,
                "in a format that is not read, and left out",
                "convert to JPEG or PNG to use it",
                "not-read",
            ),
            (
                "note",
                self._others,
                "without the extension of an image, left out",
                "rename it if it is an image, else move it away",
                "not-an-image",
            ),
            (
                "note",
                self._system,
                "hidden or made by a system, left out",
                "rename one that holds images of yours, else delete it",
                "system-folder",
            ),
            (
                "note",
                self._hidden,
                "named like an image but hidden, left out",
                "rename it if it is an image of yours, else delete it",
                "hidden-file",
            ),
            ("warning", self._dead, "to nowhere, left out", "restore what it led to, or remove it", "link-dead"),
            ("warning", self._back, "back to a folder above, not followed", "remove it", "link-back"),
            (
                "note",
                self._outside,
                "to a place outside the folder, followed",
                "keep that place as it is",
                "link-outside",
            ),
        )
        return [
            Finding(severity, _sentence(kind, names, what), remedy, kind, tuple(names))
            for severity, names, what, remedy, kind in met
            if names
        ]


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder sorted by name, including links to folders, without hidden and system folders.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("b", "a", ".git", "__MACOSX"): (root / name).mkdir()
        >>> [entry.name for entry in subfolders(root)]
        ['a', 'b']
    """
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not is_system_folder(entry.name))


def is_system_folder(name: str) -> bool:
    """Whether a folder of that name is hidden, or added by an operating system or a network drive.

    Example:
        >>> [is_system_folder(name) for name in ("@eaDir", ".thumbnails", "lynx")]
        [True, True, False]
    """
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def _sentence(kind: str, names: list[str], what: str) -> str:
    noun = "link" if kind.startswith("link") else "folder" if kind.endswith("folder") else "file"
    return f"{len(names):,} {noun}{'s' * (len(names) > 1)} {what} ({listed(names)})"


def _is_dead(entry: Path) -> bool:
    """Whether it is a link to nowhere; what it led to, a folder or a file, cannot be known any more."""
    return entry.is_symlink() and not entry.exists() and not entry.name.startswith(".")


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _refuse(error: OSError) -> None:
    """Raise for a folder that cannot be listed: passed over in silence, its class would only be smaller."""
    raise LongtailError(f"{error.filename!r} cannot be listed ({error.strerror}): restore it, or start again.")
