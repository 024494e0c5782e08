"""The source ``folder:``: class subfolders of images, and the walk that lists them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from longtail.data.class_names import normalize_class_name, order_classes
from longtail.data.dataset import SPLIT_NAMES, Finding, ImageData, Severity, Split
from longtail.data.decode import is_image_path, is_unread_path
from longtail.data.sources.image_tables import merged_names, untrained
from longtail.data.sources.table_columns import Columns
from longtail.data.sources.table_splits import split_name
from longtail.errors import LongtailError, listed

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
        "__pycache__",
        "system volume information",
    }
)
"""Lower-case names of folders added by operating systems and network drives: thumbnails, trash, resource forks."""
_LEFT_OUT: Mapping[str, tuple[Severity, str, str]] = {
    "not-read": ("warning", "in a format that is not read, and left out", "convert to JPEG or PNG to use it"),
    "not-an-image": (
        "note",
        "without the extension of an image, left out",
        "rename it if it is an image, else move it away",
    ),
    "system-folder": (
        "note",
        "hidden or made by a system, left out",
        "rename one that holds images of yours, else delete it",
    ),
    "hidden-file": (
        "note",
        "named like an image but hidden, left out",
        "rename it if it is an image of yours, else delete it",
    ),
    "link-dead": ("warning", "to nowhere, left out", "restore what it led to, or remove it"),
    "link-back": ("warning", "back to a folder above, not followed", "remove it"),
    "link-outside": ("note", "to a place outside the folder, followed", "keep that place as it is"),
}
"""Kinds of findings of a :class:`Walk`: severity, what the files are, remedy."""
_NESTED = 0.9  # least share of images deeper than their class folder to warn about


def load_folder(spec: str, columns: Columns = Columns()) -> ImageData:  # noqa: B008  (frozen)
    """Read class subfolders, directly under the path or under its ``train/``, ``val/`` and ``test/``.

    Classes are sorted by name, whole numbers by value; a folder without images is a class with none, and folders whose
    names differ only in Unicode form or surrounding white space are one class. Images may lie deeper than their class
    folder. Hidden files and folders, system folders (``__MACOSX``, ``@eaDir``) and files without the extension of an
    image are left out, with a finding. Links are followed, also out of the folder, except those back to a folder above
    them.

    Raises:
        LongtailError: There is no such folder, no class folder or no image in it, or a folder that cannot be listed.
    """
    columns.refuse("folder: takes classes from its sub-folders and has no columns")
    root = Path(spec).expanduser().absolute()
    if not root.exists():
        raise LongtailError(f"the folder {spec!r} does not exist: check the path.")
    if not root.is_dir():
        raise LongtailError(f"{spec!r} is a file: name the folder, or use csv:, parquet: for a table.")
    layout, findings = _layout(root, spec)
    walk = Walk(root)
    scans = {split: walk.classes(folder) for split, folder in layout.items()}
    if not any(files for classes in scans.values() for files in classes.values()):
        raise LongtailError(f"{spec!r} holds no images: it needs class sub-folders with image files in them.")
    name_of = {folder: normalize_class_name(folder) for classes in scans.values() for folder in classes}
    for folder, name in name_of.items():
        if not name:
            raise LongtailError(f"{spec!r} has a folder named {folder!r}, which is only white space: rename it.")
        _check_utf8("folder", folder)
    names = order_classes(name_of.values())
    findings += _nested(scans["train"], layout["train"], root, spec)
    splits = {split: _split(classes, name_of, names, root) for split, classes in scans.items()}
    spellings = {name: [folder for folder in name_of if name_of[folder] == name] for name in names}
    findings += [*merged_names(spellings), *walk.findings(), *untrained(names, splits)]
    return ImageData(f"folder:{spec}", tuple(names), splits, tuple(findings))


def _check_utf8(kind: str, name: str) -> None:
    if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
        raise LongtailError(f"the {kind} name {os.fsencode(name)!r} is not valid UTF-8: rename the {kind}.")


def _nested(classes: Mapping[str, list[str]], folder: Path, root: Path, spec: str) -> list[Finding]:
    """Warn if nearly all images lie deeper than the class folders, as in ``2023/spring/SPECIES``."""
    total = sum(map(len, classes.values()))
    deeper = [
        file.rpartition(os.sep)[0]
        for name, files in classes.items()
        for file in files
        if os.sep in file[len(str(folder)) + len(name) + 2 :]
    ]
    parents = [os.path.relpath(parent, folder) for parent in dict.fromkeys(deeper)]
    if len(classes) == 1 and len(parents) > 1 and len(deeper) == total:
        above = Path(spec) / folder.relative_to(root) / os.path.commonpath(parents)
        raise LongtailError(
            f"{spec!r} has one class folder, {next(iter(classes))!r}, and its images lie deeper ({listed(parents)}): "
            f"name the folder that holds the class folders, such as folder:{above}."
        )
    # If all are in, say, an images/ folder of their class, there is no doubt about the class folders.
    if len(deeper) < _NESTED * total or len({Path(parent).name for parent in parents}) == 1:
        return []
    where = f"in {len(parents):,} folders ({listed(parents)})"
    message = f"the classes are {listed(list(classes))}, but their images lie deeper, {where}"
    remedy = (
        "if those folders are the classes, name the one folder that holds them, "
        "or list the images in a CSV file with the columns path,label"
    )
    return [Finding("warning", message, remedy, "classes-nested")]


def _layout(root: Path, spec: str) -> tuple[dict[str, Path], list[Finding]]:
    """Find the folder of the classes of each split; a class that is named ``train`` stays a class."""
    folders = subfolders(root)
    loose = _loose_images(root)
    if not folders:
        contents = f"{loose} images but no class sub-folders" if loose else "no class sub-folders"
        raise LongtailError(f"{spec!r} holds {contents}: put the images of each class in a folder named after it.")
    findings: list[Finding] = []
    if loose:
        findings.append(_without_class(loose, "next to the class folders"))
    named = {folder: split for folder in folders if (split := split_name(folder.name)) is not None}
    bare = [folder for folder in named if not subfolders(folder)]
    folder_of: dict[str, Path] = {}
    for folder, split in named.items():
        if folder in bare:
            continue
        if split in folder_of:
            raise LongtailError(f"{spec!r} has both {folder_of[split].name}/ and {folder.name}/: remove or merge one.")
        folder_of[split] = folder
    if not folder_of and len(named) < len(folders):
        for folder in named:
            message = f"{folder.name}/ is read as a class, and is named like a split"
            remedy = "if it is one, put the class folders into train/ next to it, or move it away"
            findings.append(Finding("warning", message, remedy, "class-or-split"))
        return {"train": root}, findings
    if "train" not in folder_of:
        empty, filled = (", ".join(f"{folder.name}/" for folder in part) for part in (bare, folder_of.values()))
        if not filled or "train" in {named[folder] for folder in bare}:
            raise LongtailError(
                f"{spec!r} has no class sub-folders in its {empty}: "
                "put the images of each class in a folder named after it."
            )
        raise LongtailError(f"{spec!r} has {filled} but no train/: name the training folder train.")
    for folder in named:
        if loose := _loose_images(folder):
            findings.append(_without_class(loose, f"in {folder.name}/ outside of class folders"))
        elif folder in bare:
            message = f"{folder.name}/ is empty, so that the source has no such split"
            findings.append(Finding("note", message, "put class folders in it, or remove it", "split-empty"))
    other = [folder.name for folder in folders if folder not in named]
    if other:
        message = f"folders next to train/ that name no split are left out ({', '.join(other[:5])})"
        findings.append(Finding("note", message, "move class folders into train/", "folder-without-split"))
    return {split: folder_of[split] for split in SPLIT_NAMES if split in folder_of}, findings


def _without_class(images: int, where: str) -> Finding:
    message = f"{images} image{'s' * (images > 1)} {where} left out"
    return Finding("warning", message, "move each into the folder of its class", "image-without-class")


def _loose_images(folder: Path) -> int:
    """Count the images directly in a folder."""
    return sum(is_image_path(entry) for entry in folder.iterdir() if entry.is_file())


def _split(classes: Mapping[str, list[str]], name_of: Mapping[str, str], names: Sequence[str], root: Path) -> Split:
    index = {name: number for number, name in enumerate(names)}
    paths = [path for files in classes.values() for path in files]
    labels = np.repeat([index[name_of[folder]] for folder in classes], [len(files) for files in classes.values()])
    for path in paths:
        _check_utf8("file", path)
    return Split.from_files(paths, labels, root=str(root))


class Walk:
    """Lists the images of class folders and records what is left out on the way.

    Args:
        root: The folder of the source.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("cat/1.jpg", "cat/notes.txt", "lynx/old/2.png"):
        ...     (root / name).parent.mkdir(parents=True, exist_ok=True)
        ...     (root / name).touch()
        >>> walk = Walk(root)
        >>> {name: len(files) for name, files in walk.classes(root).items()}
        {'cat': 1, 'lynx': 1}
        >>> [finding.images for finding in walk.findings()]
        [('cat/notes.txt',)]
    """

    def __init__(self, root: Path) -> None:
        self._folder = root
        self._root = os.path.realpath(root)
        self._left_out: dict[str, dict[str, None]] = {kind: {} for kind in _LEFT_OUT}

    def _record(self, kind: str, path: str) -> None:
        self._left_out[kind][path.removeprefix(str(self._folder) + os.sep)] = None

    def classes(self, folder: Path) -> dict[str, list[str]]:
        """List the image files of each class folder in ``folder``.

        Raises:
            LongtailError: A folder cannot be listed, or was deleted meanwhile.
        """
        for entry in (*sorted(self._folder.iterdir()), *sorted(folder.iterdir())):
            if is_system_folder(entry.name) and entry.is_dir():
                self._record("system-folder", str(entry))
            elif _is_dead(entry):
                self._record("link-dead", str(entry))
        if folder != self._folder and not self._is_followed(str(folder.parent), folder.name):
            return {}
        entries = [entry for entry in subfolders(folder) if self._is_followed(str(folder), entry.name)]
        return {entry.name: list(self._images_below(entry)) for entry in entries}

    def _images_below(self, folder: Path) -> Iterator[str]:
        def refuse(error: OSError) -> None:  # os.walk would skip the folder silently
            raise LongtailError(f"{error.filename!r} cannot be listed ({error.strerror}): restore it, or start again.")

        visited: set[str] = set()
        for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
            target = os.path.realpath(parent)
            if target in visited:  # by two links, or a ring of them
                folders.clear()
                continue
            visited.add(target)
            for name in sorted(filter(is_system_folder, folders)):
                self._record("system-folder", f"{parent}{os.sep}{name}")
            folders[:] = sorted(
                name for name in folders if not is_system_folder(name) and self._is_followed(parent, name)
            )
            for name in sorted(files):
                path = f"{parent}{os.sep}{name}"
                if is_image_path(name):
                    self._is_followed(parent, name)
                    yield path
                elif name.startswith("."):
                    if is_image_path(name.lstrip(".")):
                        self._record("hidden-file", path)
                elif name not in _CLUTTER:
                    kind = "not-read" if is_unread_path(name) else "not-an-image"
                    self._record("link-dead" if _is_dead(Path(path)) else kind, path)

    def _is_followed(self, parent: str, name: str) -> bool:
        """Record where a link leads; one to a folder above itself would repeat the images of other classes."""
        path = f"{parent}{os.sep}{name}"
        if not os.path.islink(path):  # noqa: PTH114 - no Path is made of each of a million
            return True
        target = os.path.realpath(path)
        if Path(os.path.realpath(parent)).is_relative_to(target):
            self._record("link-back", path)
            return False
        if not Path(target).is_relative_to(self._root):
            self._record("link-outside", path)
        return True

    def findings(self) -> list[Finding]:
        """Return one finding for each kind of entry recorded so far."""
        findings = []
        for kind, names in self._left_out.items():
            severity, description, remedy = _LEFT_OUT[kind]
            noun = "link" if kind.startswith("link") else "folder" if kind.endswith("folder") else "file"
            findings += [Finding.about([*names], noun, description, severity, remedy, kind)] if names else []
        return findings


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder by name, including links to folders, without hidden and system folders.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("b", "a", ".git", "__MACOSX"): (root / name).mkdir()
        >>> [entry.name for entry in subfolders(root)]
        ['a', 'b']
    """
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not is_system_folder(entry.name))


def is_system_folder(name: str) -> bool:
    """Whether a folder of this name is hidden, or added by an operating system or a network drive.

    Example:
        >>> [is_system_folder(name) for name in ("@eaDir", ".thumbnails", "lynx")]
        [True, True, False]
    """
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def _is_dead(entry: Path) -> bool:
    """Whether an entry is a link to nowhere."""
    return entry.is_symlink() and not entry.exists() and not entry.name.startswith(".")
