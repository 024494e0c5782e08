"""The source ``folder:``: class sub-folders of images, as people have them on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from longtail.data.columns import Columns, split_name, untrained
from longtail.data.image_data import SPLIT_NAMES, Finding, ImageData, Split
from longtail.data.images import is_image_path
from longtail.data.walk import Walk, subfolders
from longtail.errors import LongtailError, UsageError


def load_folder(spec: str, columns: Columns = Columns()) -> ImageData:  # noqa: B008  (frozen)
    """Read class sub-folders, directly under the path or under its ``train/``, ``val/`` and ``test/``.

    Classes are sorted by name; a folder without images is a class with none. Images may lie deeper than their class
    folder; hidden files and files that are not images by their name are passed over. Links are followed, also out of
    the folder, but for those that lead back to a folder above them.

    Raises:
        LongtailError: No such folder, no class folders, no image at all, or a folder that cannot be listed.
    """
    if columns.image or columns.label:
        raise UsageError(
            "folder: takes classes from its sub-folders: leave out label_column and image_column.",
            options={"label_column": "--label-column", "image_column": "--image-column"},
        )
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
    names = sorted({name for classes in scans.values() for name in classes})
    splits = {split: _split(classes, names, root) for split, classes in scans.items()}
    return ImageData(f"folder:{spec}", tuple(names), splits, (*findings, *walk.findings(), *untrained(names, splits)))


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
    found: dict[str, Path] = {}
    for folder in folders:
        split = split_name(folder.name)
        if split is None or not subfolders(folder):
            continue
        if split in found:
            raise LongtailError(f"{spec!r} has both {found[split].name}/ and {folder.name}/: remove or merge one.")
        found[split] = folder
    if not found:
        return {"train": root}, findings
    if "train" not in found:
        have = ", ".join(f"{folder.name}/" for folder in found.values())
        raise LongtailError(f"{spec!r} has {have} but no train/: name the training folder train.")
    other = [folder.name for folder in folders if folder not in found.values()]
    if other:
        message = f"folders beside train/ that name no split are left out ({', '.join(other[:5])})"
        findings.append(Finding("note", message, "move class folders into train/", "folder-without-split"))
    return {split: found[split] for split in SPLIT_NAMES if split in found}, findings


def _split(classes: Mapping[str, list[str]], names: list[str], root: Path) -> Split:
    import datasets

    index = {name: number for number, name in enumerate(names)}
    paths = [path for files in classes.values() for path in files]
    labels = np.repeat([index[name] for name in classes], [len(files) for files in classes.values()])
    for path in paths:
        if any("\ud800" <= letter <= "\udfff" for letter in path):
            raise LongtailError(f"the file name {os.fsencode(path)!r} is not valid UTF-8: rename the file.")
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    return Split(datasets.Dataset.from_dict({"image": paths, "label": labels}, features=features), root=str(root))
