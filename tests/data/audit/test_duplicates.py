"""Copies in a source: what is grouped, and what is said of copies across labels, splits, and within one class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from longtail.data.audit.inspection import Inspection, inspect_data, inspect_source
from longtail.data.dataset import ImageData, Split

PHOTOS = [Image.fromarray(pixels) for pixels in load_sample_images().images]


def piece(number: int) -> Image.Image:
    """One of 40 different pieces of two real photographs."""
    row, column = divmod(number // 2, 5)
    return PHOTOS[number % 2].crop((column * 120, row * 100, column * 120 + 110, row * 100 + 90))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six pieces a class, in train and test, no two alike."""
    for number in range(24):
        folder = tmp_path / "photos" / ("train" if number < 12 else "test") / ("cat" if number % 4 < 2 else "lynx")
        folder.mkdir(parents=True, exist_ok=True)
        piece(number).save(folder / f"{number}.png")
    return tmp_path / "photos"


def findings_of(audit: Inspection, about: str = "copies") -> dict[str, tuple[str, str, tuple[str, ...]]]:
    return {f.kind: (f.severity, f.message, f.images) for f in audit.findings if about in f.kind}


def advice(audit: Inspection) -> str:
    (remedy,) = [finding.remedy for finding in audit.findings if finding.kind == "exact-copies"]
    return remedy


def test_different_images_are_no_copies(source: Path) -> None:
    audit = inspect_source(str(source))
    assert (audit.duplicates, findings_of(audit)) == ((), {})


def test_a_copy_under_another_label_in_another_format(source: Path) -> None:
    piece(0).save(source / "train" / "lynx" / "zero.bmp")
    audit = inspect_source(str(source))
    (group,) = audit.duplicates
    assert (group.kind, group.labels, group.splits) == ("exact", ("cat", "lynx"), ("train",))
    severity, message, images = findings_of(audit)["exact-copies-across-labels"]
    assert severity == "warning"
    assert message.startswith("1 group ")
    assert "'train/cat/0.png' in 'cat' = 'train/lynx/zero.bmp'" in message
    assert images == ("train/cat/0.png", "train/lynx/zero.bmp")


def test_copies_in_train_and_test(source: Path) -> None:
    piece(1).save(source / "test" / "cat" / "one.tif")
    piece(4).resize((220, 180), Image.Resampling.BICUBIC).save(source / "test" / "cat" / "four.jpg", quality=80)
    audit = inspect_source(str(source))
    severity, message, _ = findings_of(audit)["exact-copies-across-splits"]
    assert severity == "warning"
    assert message.startswith("1 test image ")
    assert "('train/cat/1.png' = 'test/cat/one.tif')" in message
    assert findings_of(audit)["near-copies-across-splits"][2] == ("train/cat/4.png", "test/cat/four.jpg")
    (near,) = [group for group in audit.duplicates if group.kind == "near"]
    first, second = (image.likeness for image in near.images)
    assert first == 1
    assert second is not None
    assert 0.88 <= second < 1
    assert {group.kind: group.splits for group in audit.duplicates} == dict.fromkeys(
        ("exact", "near"), ("train", "test")
    )


def test_copies_within_a_class_are_a_note_where_the_test_stands(source: Path) -> None:
    for name in ("again", "and-again"):
        piece(1).save(source / "train" / "cat" / f"{name}.png")
    audit = inspect_source(str(source))
    severity, message, images = findings_of(audit)["exact-copies"]
    assert severity == "note"
    assert "3 images in 1 group" in message
    assert len(images) == 3
    undivided = inspect_source(str(source / "train"))
    assert findings_of(undivided)["exact-copies"][0] == "warning", "some of them may be held out to test on"
    assert "CSV" in advice(undivided)  # a folder has no columns to name
    pixels = np.stack([np.asarray(piece(number).resize((32, 32))) for number in (0, 0, 1)])
    split = Split.from_arrays(pixels, [0, 0, 1], {"film": ["x", "x", "y"]})
    table = inspect_data(ImageData("mine", ("a", "b"), {"train": split}))
    assert "--group-column" in advice(table)
    assert "CSV" not in advice(table)


def test_only_of_exact_copies_is_it_said_to_keep_one(source: Path) -> None:
    """Images that look alike may be of two animals: people have to look."""
    for class_folder in ("train/cat", "train/lynx", "test/cat"):
        piece(4).save(source / class_folder / "again.jpg", quality=80)
    piece(6).save(source / "train" / "lynx" / "six.jpg", quality=80)
    remedies = {finding.kind: finding.remedy for finding in inspect_source(str(source)).findings}
    undivided = {finding.kind: finding.remedy for finding in inspect_source(str(source / "train")).findings}
    near = [remedy for each in (remedies, undivided) for kind, remedy in each.items() if kind.startswith("near")]
    assert len(near) >= 3
    for remedy in near:
        assert "same thing" in remedy
        assert not any(word in remedy for word in ("keep one", "remove", "take it out"))
    assert "--group-column" in remedies["near-copies-across-splits"]


def test_copies_in_validation_and_test(source: Path) -> None:
    for name in ("cat", "lynx"):
        (source / "val" / name).mkdir(parents=True)
    piece(12).save(source / "val" / "cat" / "twelve.png")
    message = findings_of(inspect_source(str(source)))["exact-copies-across-splits"][1]
    assert re.search(r"1 test image .*validation", message)


def test_images_without_detail_are_compared_by_their_pixels_alone() -> None:
    flat = np.stack([np.full((16, 16), shade, np.uint8) for shade in (10, 10, 11, 12)])
    data = inspect_of(flat, [0, 0, 0, 1])
    assert [(group.kind, len(group.images)) for group in data.duplicates] == [("exact", 2)]


def inspect_of(images: np.ndarray, labels: Sequence[int]) -> Inspection:
    return inspect_data(ImageData("mine", ("a", "b"), {"train": Split.from_arrays(images, labels)}))


def test_a_chain_of_near_copies_is_one_group_and_embedded_images_are_named_by_row() -> None:
    gray = np.asarray(piece(0).convert("L").resize((64, 64)), dtype=np.float64)
    shaded = np.stack([np.clip(gray * factor, 0, 255).astype(np.uint8) for factor in (1.0, 0.95, 0.9)])
    (group,) = inspect_of(shaded, [0, 0, 1]).duplicates
    assert (group.kind, group.labels) == ("near", ("a", "b"))
    assert [image.name for image in group.images] == ["train row 0", "train row 1", "train row 2"]


# Rows of the 15 pairs of equal images that a comparison of all pixels finds in this subset of CIFAR-100.
TRAIN = (501, 508, 513, 516, 579, 661, 682, 699, 773, 823, 917, 918, 936, 953, 12275, 12300, 15697, 18212, 19537)
TEST = (119, 126, 140, 170, 213, 214, 216, 3500, 5520, 7289, 7290)


def test_the_known_copies_of_a_real_set_are_found_among_others(shared_data: Path) -> None:
    from longtail.data.sources.registry import load_source

    data = load_source(f"parquet:{shared_data / 'cifar100-lt-ir10'}")
    train, test = (np.array([*rows, *range(5000, 5200)]) for rows in (TRAIN, TEST))
    parts = {"train": data.splits["train"].select(train), "test": data.splits["test"].select(test)}
    exact = [group for group in inspect_data(data.with_splits(**parts)).duplicates if group.kind == "exact"]
    assert [len(group.images) for group in exact] == [2] * 15
    assert sum(len(group.splits) > 1 for group in exact) == 7
    assert sum(len(group.labels) > 1 for group in exact) == 6
    assert all(image.name.endswith(")") for group in exact for image in group.images), "row numbers tell them apart"


def test_near_copies_of_a_real_set_are_of_one_trajectory(shared_data: Path) -> None:
    """Frames of one film of a fish are taken together with their neighbors in the file."""
    from longtail.data.sources.registry import load_source

    data = load_source(f"parquet:{shared_data / 'fish4knowledge'}")
    split = data.splits["train"].select(np.arange(1300, 1900))
    paths = np.array(split.column("trajectory"))
    near = [
        g for g in inspect_data(data.with_splits(train=split, test=split.select([]))).duplicates if g.kind == "near"
    ]
    assert near
    assert all(len({paths[image.index] for image in group.images}) == 1 for group in near)
