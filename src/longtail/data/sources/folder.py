"""The source ``folder:``: class subfolders of images, and the walk that lists them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from longtail.data.class_names import normalize_class_name, order_classes
from longtail.data.dataset import SPLIT_NAMES, Finding, ImageData, Severity, Split
from longtail.data.decode import is_image_path, is_unread_path
from longtail.data.sources.columns import Columns, merged_names, untrained
from longtail.data.sources.table_splits import split_name
from longtail.errors import LongtailError, listed

_NESTED = 0.9  # share of images deeper than their class folder from which on subfolders may be the classes


def load_folder(spec: str, columns: Columns = Columns()) -> ImageData:  # noqa: B008  (frozen)
    """Read class sub-folders, directly under the path or under its ``train/``, ``val/`` and ``test/``.

    Classes are sorted by name, whole numbers by value; a folder without images is a class with none, and folders whose
    names differ only in Unicode form or white space around them are one class. Images may lie deeper than their class
    folder. Hidden files and folders, those of a system (``__MACOSX``, ``@eaDir``) and files that are not images by
    their name are left out, with a finding. Links are followed, also out of the folder, except those that lead
    back to a folder above them.

    Raises:
        LongtailError: No such folder, no class folders, no image at all, or a folder that cannot be listed.
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
    name_of = {folder: _class_name(folder, spec) for classes in scans.values() for folder in classes}
    names = order_classes(name_of.values())
    findings += _nested(scans["train"], layout["train"], root, spec)
    splits = {split: _split(classes, name_of, names, root) for split, classes in scans.items()}
    spellings = {name: [folder for folder in name_of if name_of[folder] == name] for name in names}
    findings += [*merged_names(spellings), *walk.findings(), *untrained(names, splits)]
    return ImageData(f"folder:{spec}", tuple(names), splits, tuple(findings))


def _class_name(folder: str, spec: str) -> str:
    name = normalize_class_name(folder)
    if not name:
        raise LongtailError(f"{spec!r} has a folder named {folder!r}, which is only white space: rename it.")
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise LongtailError(f"the folder name {os.fsencode(folder)!r} is not valid UTF-8: rename the folder.")
    return name


def _nested(classes: Mapping[str, list[str]], folder: Path, root: Path, spec: str) -> list[Finding]:
    """Warn if nearly all images lie deeper than the class folders, as in ``2023/spring/SPECIES``."""
    total = sum(map(len, classes.values()))
    deeper = [
        file.rpartition(os.sep)[0]
        for name, files in classes.items()
        for file in files
        if os.sep in file[len(str(folder)) + len(name) + 2 :]
    ]
    places = [os.path.relpath(place, folder) for place in dict.fromkeys(deeper)]
    if len(classes) == 1 and len(places) > 1 and len(deeper) == total:
        above = Path(spec) / folder.relative_to(root) / os.path.commonpath(places)
        raise LongtailError(
            f"{spec!r} has one class folder, {next(iter(classes))!r}, and its images lie deeper ({listed(places)}): "
            f"name the folder that holds the class folders, such as folder:{above}."
        )
    # If all are in, say, an images/ folder of their class, the class folders are clear.
    if len(deeper) < _NESTED * total or len({os.path.basename(place) for place in places}) == 1:  # noqa: PTH119
        return []
    where = f"in {len(places):,} folders ({listed(places)})"
    message = f"the classes are {listed(list(classes))}, but their images lie deeper, {where}"
    remedy = (
        "if those folders are the classes, name the one folder that holds them, "
        "or list the images in a CSV file with the columns path,label"
    )
    return [Finding("warning", message, remedy, "classes-nested")]


def _layout(root: Path, spec: str) -> tuple[dict[str, Path], list[Finding]]:
    """Which folder holds the classes of which split; a class that happens to be named ``train`` stays a class."""
    folders = subfolders(root)
    loose = sum(is_image_path(entry) for entry in root.iterdir() if entry.is_file())
    if not folders:
        what = f"{loose} images but no class sub-folders" if loose else "no class sub-folders"
        raise LongtailError(f"{spec!r} holds {what}: put the images of each class in a folder named after it.")
    findings: list[Finding] = []
    if loose:
        message = f"{loose} images beside the class folders have no class and are left out"
        findings.append(Finding("warning", message, "move each into the folder of its class", "image-without-class"))
    named = [folder for folder in folders if split_name(folder.name) is not None]
    bare = [folder for folder in named if not subfolders(folder)]
    found: dict[str, Path] = {}
    for folder in named:
        split = split_name(folder.name) or ""
        if folder in bare:
            continue
        if split in found:
            raise LongtailError(f"{spec!r} has both {found[split].name}/ and {folder.name}/: remove or merge one.")
        found[split] = folder
    if not found and len(named) < len(folders):
        return {"train": root}, findings
    if "train" not in found:
        _refuse_without_train(list(found.values()), bare, spec)
    findings += [_bare_split(folder) for folder in bare]
    other = [folder.name for folder in folders if folder not in named]
    if other:
        message = f"folders beside train/ that name no split are left out ({', '.join(other[:5])})"
        findings.append(Finding("note", message, "move class folders into train/", "folder-without-split"))
    return {split: found[split] for split in SPLIT_NAMES if split in found}, findings


def _refuse_without_train(filled: Sequence[Path], bare: Sequence[Path], spec: str) -> None:
    empty = ", ".join(f"{folder.name}/" for folder in bare)
    if not filled or "train" in {split_name(folder.name) for folder in bare}:
        raise LongtailError(
            f"{spec!r} has no class sub-folders in its {empty}: "
            "put the images of each class in a folder named after it."
        )
    have = ", ".join(f"{folder.name}/" for folder in filled)
    raise LongtailError(f"{spec!r} has {have} but no train/: name the training folder train.")


def _bare_split(folder: Path) -> Finding:
    """Return a finding for a split folder without class folders."""
    loose = sum(is_image_path(entry) for entry in folder.iterdir() if entry.is_file())
    if loose:
        message = f"{loose} image{'s' * (loose > 1)} in {folder.name}/ without class folders are left out"
        return Finding("warning", message, "move each into the folder of its class", "image-without-class")
    message = f"{folder.name}/ is empty, so that the source has no such split"
    return Finding("note", message, "put class folders in it, or remove it", "split-empty")


def _split(classes: Mapping[str, list[str]], name_of: Mapping[str, str], names: Sequence[str], root: Path) -> Split:
    import datasets

    index = {name: number for number, name in enumerate(names)}
    paths = [path for files in classes.values() for path in files]
    labels = np.repeat([index[name_of[folder]] for folder in classes], [len(files) for files in classes.values()])
    for path in paths:
        if any("\ud800" <= letter <= "\udfff" for letter in path):
            raise LongtailError(f"the file name {os.fsencode(path)!r} is not valid UTF-8: rename the file.")
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    return Split(datasets.Dataset.from_dict({"image": paths, "label": labels}, features=features), root=str(root))


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
