"""How alike pictures are by their pixels: changed copies against other things, silhouettes in particular."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

from longtail.data.audit.inspection import inspect_data
from longtail.data.audit.near_copies import (
    BANDS,
    LEAST_LIKENESS,
    MAX_DISTANCE,
    EnoughPairs,
    PixelCheck,
    grays,
    likeness,
    look_hash,
    near_groups,
    pixel_digest,
)
from longtail.data.dataset import ImageData, Split
from longtail.data.sources.registry import load_source
from longtail.report.audit import render_audit

PHOTO = Image.fromarray(load_sample_images().images[0]).crop((100, 100, 340, 280))


def as_jpeg(image: Image.Image, quality: int = 50) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
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


def alike(first: Image.Image, second: Image.Image) -> float:
    (similarity,) = likeness(grays(first)[None], grays(second)[None])
    assert likeness(grays(second)[None], grays(first)[None])[0] == pytest.approx(similarity, abs=0.02)
    return float(similarity)


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


@pytest.mark.parametrize(("first", "second"), [("ring", "disc"), ("disc", "kite"), ("ring", "kite")])
def test_most_of_a_silhouette_is_background_which_proves_nothing(first: str, second: str) -> None:
    agreeing = np.mean(np.asarray(drawn(first)) == np.asarray(drawn(second)))
    assert agreeing > 0.7
    assert alike(drawn(first), drawn(second)) < LEAST_LIKENESS


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
    assert (check.compared, check.is_full) == (2, False)


def test_no_more_pairs_are_compared_than_the_limit_and_that_is_counted() -> None:
    split = split_of([drawn("disc")] * 2 + [as_jpeg(drawn("disc"))] * 2)
    check = PixelCheck([(split, row) for row in range(4)], max_pairs=1)
    assert check(np.array([0, 0, 0]), np.array([1, 2, 3])).tolist() == [True, False, False]
    assert check(np.array([0]), np.array([1])).tolist() == [True]
    assert (check.compared, check.is_full) == (1, True)
    with pytest.raises(EnoughPairs):
        check(np.array([0]), np.array([2]))


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
    audit = inspect_data(data)
    assert [(group.kind, group.labels) for group in audit.duplicates] == [("near", ("round", "round again"))]
    page = render_audit(audit, data)
    assert "Look alike" in page
    assert f"{audit.duplicates[0].images[1].likeness:.0%} like" in page


def test_too_many_pairs_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtail.data.audit.near_copies.MAX_PAIRS", 0)
    pixels = np.stack([np.asarray(image) for image in (drawn("disc"), as_jpeg(drawn("disc")), drawn("kite"))])
    audit = inspect_data(ImageData("mine", ("a", "b"), {"train": Split.from_arrays(pixels, [0, 0, 1])}))
    assert [finding.severity for finding in audit.findings if finding.kind == "near-copies-unchecked"] == ["note"]


PHOTOS = [Image.fromarray(pixels) for pixels in load_sample_images().images]  # two real photographs, 640 x 427


def distance(first: Image.Image, second: Image.Image) -> int:
    return (int.from_bytes(look_hash(first)) ^ int.from_bytes(look_hash(second))).bit_count()


def tiles() -> list[Image.Image]:
    """Pieces of two photographs, 80 x 60 each, without those that show little more than sky."""
    corners = [(photo, left, top) for photo in PHOTOS for left in range(0, 640, 80) for top in range(0, 360, 60)]
    pieces = [photo.crop((left, top, left + 80, top + 60)) for photo, left, top in corners]
    return [piece for piece in pieces if np.asarray(piece.convert("L")).std() > 15]


def test_copies_are_near_and_others_are_not() -> None:
    pieces = tiles()
    assert len(pieces) > 50
    for change in (
        lambda piece: as_jpeg(piece, 75),
        lambda piece: piece.resize((120, 90), Image.Resampling.BICUBIC),
        lambda piece: piece.point(lambda value: min(255, value * 1.1)),
        lambda piece: piece.convert("L").convert("RGB"),
    ):
        distances = np.array([distance(piece, change(piece)) for piece in pieces])
        assert np.mean(distances <= MAX_DISTANCE) > 0.9, distances
    unrelated = [distance(piece, other) for index, piece in enumerate(pieces[::4]) for other in pieces[::4][:index]]
    assert min(unrelated) > MAX_DISTANCE


def test_mirrored_and_turned_images_are_not_found() -> None:
    photo = PHOTOS[0]
    assert distance(photo, photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > MAX_DISTANCE
    assert distance(photo, photo.transpose(Image.Transpose.ROTATE_90)) > MAX_DISTANCE


def test_the_digest_sees_one_changed_pixel_and_no_file_format() -> None:
    photo = PHOTOS[0].copy()
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    assert pixel_digest(Image.open(buffer)) == pixel_digest(photo)
    red, green, blue = photo.getpixel((3, 3))
    photo.putpixel((3, 3), (red ^ 1, green, blue))
    assert pixel_digest(photo) != pixel_digest(PHOTOS[0])


def all_pairs(hashes: np.ndarray, limit: int) -> list[int]:
    """Chains of near pairs, the slow way."""
    bits = np.unpackbits(hashes.view(np.uint8).reshape(len(hashes), -1), axis=1).astype(int)
    near = bits @ (1 - bits.T) + (1 - bits) @ bits.T <= limit
    first = list(range(len(hashes)))
    for _ in first:
        first = [min(first[other] for other in np.flatnonzero(row)) for row in near]
    return first


@pytest.mark.parametrize("limit", [0, 7, MAX_DISTANCE, 31])
def test_no_pair_is_missed(limit: int) -> None:
    random = np.random.default_rng(limit)
    hashes = random.integers(0, 256, (80, 32), dtype=np.uint8)
    for copy, original in enumerate(random.integers(0, 40, 40), start=40):  # flip as many bits as the limit, or more
        hashes[copy] = hashes[original]
        for bit in random.choice(256, limit + int(random.integers(0, 3)), replace=False):
            hashes[copy, bit // 8] ^= 1 << (bit % 8)
    words = hashes.view(np.uint64)
    expected = all_pairs(words, limit)
    assert len(set(expected)) < 80
    assert near_groups(words, limit).tolist() == expected


def test_crowded_buckets_stay_one_group_at_linear_cost() -> None:
    compared = 0

    def reject(left: np.ndarray, _: np.ndarray) -> np.ndarray:
        nonlocal compared
        compared += len(left)
        return np.zeros(len(left), dtype=np.bool_)

    hashes = np.zeros((1500, 4), dtype=np.uint64)
    hashes[:, 0] = np.arange(1500) % 4
    assert set(near_groups(hashes).tolist()) == {0}
    assert len(set(near_groups(hashes, confirm=reject).tolist())) == 1500
    assert compared < 1500**2 * 3, "all pairs of each band would be twice as many"


def noisy_copies(originals: int, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of originals, and of copies of some that differ in up to the largest distance; the first of each group."""
    random = np.random.default_rng(1)
    bits = random.integers(0, 2, (originals, 256), dtype=np.uint8)
    chosen = random.choice(originals, copies, replace=False)
    flipped = np.argsort(random.random((copies, 256)), axis=1)[:, :MAX_DISTANCE]
    copied = bits[chosen]
    np.put_along_axis(copied, flipped, 1 - np.take_along_axis(copied, flipped, axis=1), axis=1)
    hashes = np.packbits(np.concatenate((bits, copied)), axis=1).view(np.uint64)
    return hashes, np.concatenate((np.arange(originals), chosen))


def test_of_many_hashes_only_copies_are_confirmed_and_all_of_them() -> None:
    hashes, expected = noisy_copies(50_000, 500)
    confirmed: list[int] = []
    bands: list[int] = []

    def confirm(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        confirmed.append(len(left))
        return expected[left] == expected[right]

    assert np.array_equal(near_groups(hashes, confirm=confirm, progress=bands.append), expected)
    assert sum(confirmed) == 500
    assert (bands[0], bands[-1], sorted(bands)) == (0, BANDS, bands)


def test_the_nearest_pairs_are_confirmed_first_and_the_search_ends_when_told() -> None:
    hashes = np.zeros((4, 4), dtype=np.uint64)
    hashes[1:, 0] = [0b11, 0b1111000, 0b1]  # 2, 4 and 1 bits from the first
    asked: list[tuple[int, int]] = []

    def confirm(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        if asked:
            raise EnoughPairs
        asked.extend(zip(np.minimum(left, right).tolist(), np.maximum(left, right).tolist(), strict=True))
        return np.arange(len(left)) == 0

    first = near_groups(hashes, confirm=confirm)
    assert set(asked[:2]) == {(0, 3), (1, 3)}
    assert len(set(first.tolist())) == 3


def test_nothing_and_one() -> None:
    assert near_groups(np.empty((0, 4), dtype=np.uint64)).tolist() == []
    assert near_groups(np.ones((1, 4), dtype=np.uint64)).tolist() == [0]


def test_more_than_the_bands_can_find_is_refused() -> None:
    with pytest.raises(ValueError, match="max_distance=32"):
        near_groups(np.ones((1, 4), dtype=np.uint64), 32)
