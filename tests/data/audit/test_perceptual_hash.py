"""The hash of what an image looks like, and the search for near ones against a search through all pairs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from longtail.data.audit import perceptual_hash as perceptual
from longtail.data.audit.perceptual_hash import MAX_DISTANCE, look_hash, near_groups, pixel_digest

PHOTOS = [Image.fromarray(pixels) for pixels in load_sample_images().images]  # two real photographs, 640 x 427


def distance(one: Image.Image, other: Image.Image) -> int:
    return (int.from_bytes(look_hash(one)) ^ int.from_bytes(look_hash(other))).bit_count()


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def tiles() -> list[Image.Image]:
    """Pieces of two photographs, 80 x 60 each, but for those that show little more than sky."""
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
        far = np.array([distance(piece, change(piece)) for piece in pieces])
        assert np.mean(far <= MAX_DISTANCE) > 0.9, far
    all_far = [distance(one, other) for index, one in enumerate(pieces[::4]) for other in pieces[::4][:index]]
    assert min(all_far) > MAX_DISTANCE


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


def test_crowded_buckets_stay_one_group_at_linear_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    real = perceptual._expanded

    def counting(*arrays: np.ndarray) -> object:
        nonlocal compared
        for one, other in real(*arrays):
            compared += len(one)
            yield one, other

    monkeypatch.setattr(perceptual, "_expanded", counting)
    hashes = np.zeros((3000, 4), dtype=np.uint64)
    hashes[:, 0] = np.arange(3000) % 4
    assert set(near_groups(hashes).tolist()) == {0}
    assert compared < 3000 * perceptual._WINDOW * 40


def test_nothing_and_one() -> None:
    assert near_groups(np.empty((0, 4), dtype=np.uint64)).tolist() == []
    assert near_groups(np.ones((1, 4), dtype=np.uint64)).tolist() == [0]


def test_more_than_the_bands_can_find_is_refused() -> None:
    with pytest.raises(ValueError, match="max_distance=32"):
        near_groups(np.ones((1, 4), dtype=np.uint64), 32)
