"""The source ``folder:``: class sub-folders of images, as people have them on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from longtail.data.audit.checks import listed
from longtail.data.class_names import normalize_class_name, order_classes
from longtail.data.dataset import SPLIT_NAMES, Finding, ImageData, Split
from longtail.data.decode import is_image_path
from longtail.data.sources.columns import Columns, merged_names, untrained
from longtail.data.sources.file_tree import Walk, subfolders
from longtail.data.sources.table_splits import split_name
from longtail.errors import LongtailError

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
