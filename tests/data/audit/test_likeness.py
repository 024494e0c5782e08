"""How alike pictures are by their pixels: changed copies against other things, silhouettes in particular."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

from longtail.data.audit.audit import inspect_data
from longtail.data.audit.likeness import LEAST_LIKENESS, PixelCheck, grays, likeness
from longtail.data.audit.perceptual_hash import look_hash, near_groups
from longtail.data.dataset import ImageData, Split
from longtail.data.sources.registry import load_source
from longtail.report.audit import render_audit

PHOTO = Image.fromarray(load_sample_images().images[0]).crop((100, 100, 340, 280))


def as_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50)
    return Image.open(buffer).convert("RGB")


def drawn(shape: str, fill: int = 0) -> Image.Image:
    image = Image.new("L", (120, 100), 255)
    pen = ImageDraw.Draw(image)
    if shape == "ring":
        pen.ellipse((10, 10, 110, 90), fill=fill)
        pen.ellipse((45, 35, 75, 65), fill=255)
    elif shape == "disc":
        pen.ellipse((10, 10, 110, 90), fill=fill)
    else:
        pen.polygon([(10, 50), (60, 10), (110, 50), (60, 90)], fill=fill)
    return image.convert("RGB")


def alike(one: Image.Image, other: Image.Image) -> float:
    (found,) = likeness(grays(one)[None], grays(other)[None])
    assert likeness(grays(other)[None], grays(one)[None])[0] == pytest.approx(found, abs=0.02)
    return float(found)


@pytest.mark.parametrize(
    "change",
    [
        as_jpeg,
        lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
        lambda image: image.crop((2, 1, image.width - 2, image.height - 1)),
        lambda image: image.point(lambda value: min(255, round(value * 1.1))),
        lambda image: image.convert("L").convert("RGB"),
    ],
    ids=["jpeg", "half", "cropped", "brighter", "gray"],
)
@pytest.mark.parametrize("image", [PHOTO, drawn("ring"), drawn("disc", 90), drawn("kite")], ids=["photo", *"rdk"])
def test_a_changed_copy_is_alike(image: Image.Image, change: Callable[[Image.Image], Image.Image]) -> None:
    assert alike(image, change(image)) >= LEAST_LIKENESS


def test_a_picture_is_like_itself_whatever_it_shows() -> None:
    faint = Image.fromarray((120 + np.asarray(PHOTO.convert("L")) / 32).astype(np.uint8)).convert("RGB")
    for image in (PHOTO, faint, drawn("ring"), Image.new("RGB", (9, 9), "red")):
        assert alike(image, image) == pytest.approx(0 if image.size == (9, 9) else 1)


@pytest.mark.parametrize(("one", "other"), [("ring", "disc"), ("disc", "kite"), ("ring", "kite")])
def test_most_of_a_silhouette_is_background_which_proves_nothing(one: str, other: str) -> None:
    agreeing = np.mean(np.asarray(drawn(one)) == np.asarray(drawn(other)))
    assert agreeing > 0.7
    assert alike(drawn(one), drawn(other)) < LEAST_LIKENESS


def test_one_outline_with_another_drawing_inside_is_another_thing() -> None:
    random = np.random.default_rng(0)
    mask = np.asarray(drawn("disc").convert("L")) == 0
    pictures = []
    for _ in range(2):
        texture = Image.fromarray(random.integers(0, 180, (10, 12), dtype=np.uint8)).resize((120, 100))
        pictures.append(Image.fromarray(np.where(mask, np.asarray(texture), 255).astype(np.uint8)).convert("RGB"))
    first, second = pictures
    assert alike(first, as_jpeg(first)) >= LEAST_LIKENESS
    assert alike(first, second) < LEAST_LIKENESS


def split_of(images: list[Image.Image]) -> Split:
    return Split.from_arrays(np.stack([np.asarray(image) for image in images]), [0] * len(images))


def test_images_are_decoded_once_and_pairs_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_of([drawn("disc"), drawn("ring"), as_jpeg(drawn("disc")), drawn("kite")])
    decoded: list[int] = []
    real = Split.image

    def counting(self: Split, row: int) -> Image.Image:
        decoded.append(row)
        return real(self, row)

    monkeypatch.setattr(Split, "image", counting)
    check = PixelCheck([(split, row) for row in range(4)])
    for _ in range(2):
        assert check(np.array([0, 0, 2]), np.array([1, 2, 0])).tolist() == [False, True, True]
    assert sorted(decoded) == [0, 1, 2]
    assert check.unchecked == 0


def test_no_more_pairs_are_compared_than_the_limit_and_that_is_counted() -> None:
    split = split_of([drawn("disc")] * 2 + [as_jpeg(drawn("disc"))] * 2)
    check = PixelCheck([(split, row) for row in range(4)], max_pairs=1)
    assert check(np.array([0, 0, 0]), np.array([1, 2, 3])).tolist() == [True, False, False]
    assert check.unchecked == 2
    assert check(np.array([0]), np.array([1])).tolist() == [True]


def test_another_shape_of_the_picture_and_a_file_that_went_are_not_alike(tmp_path: Path) -> None:
    for name, image in {"a": PHOTO, "b": PHOTO.resize((240, 140)), "c": PHOTO.resize((120, 90)), "d": PHOTO}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        image.save(tmp_path / "photos" / name / "1.png")
    split = load_source(f"folder:{tmp_path / 'photos'}").splits["train"]
    (tmp_path / "photos" / "d" / "1.png").unlink()
    check = PixelCheck([(split, row) for row in range(4)])
    assert check(np.array([0, 0, 0]), np.array([1, 2, 3])).tolist() == [False, True, False]


def test_silhouettes_whose_hashes_agree_are_no_copies(tmp_path: Path) -> None:
    """A round body and a long one, each cut out tightly, are the same picture once scaled to a square."""
    large = Image.new("L", (960, 960), 255)
    outline = [(40, 400), (200, 60), (420, 300), (760, 40), (920, 520), (640, 640), (700, 900), (300, 800), (240, 560)]
    ImageDraw.Draw(large).polygon(outline, fill=40)
    for name, size in {"round": (120, 120), "long": (120, 48), "round again": (60, 60)}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        large.resize(size, Image.Resampling.LANCZOS).save(tmp_path / "photos" / name / f"{name}.png")
    split = load_source(f"folder:{tmp_path / 'photos'}").splits["train"]
    hashes = np.frombuffer(b"".join(look_hash(split.image(row)) for row in range(3)), np.uint64).reshape(-1, 4)
    assert set(near_groups(hashes)) == {0}
    data = load_source(f"folder:{tmp_path / 'photos'}")
    found = inspect_data(data)
    assert [(group.kind, group.labels) for group in found.duplicates] == [("near", ("round", "round again"))]
    page = render_audit(found, data)
    assert "Look alike" in page
    assert f"{found.duplicates[0].images[1].likeness:.0%} like the first".replace("%", " %") in page


def test_too_many_pairs_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtail.data.audit.likeness.MAX_PAIRS", 0)
    pixels = np.stack([np.asarray(image) for image in (drawn("disc"), as_jpeg(drawn("disc")), drawn("kite"))])
    found = inspect_data(ImageData("mine", ("a", "b"), {"train": Split.from_arrays(pixels, [0, 0, 1])}))
    assert [finding.severity for finding in found.findings if finding.kind == "near-copies-unchecked"] == ["note"]
