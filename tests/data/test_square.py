"""Every image becomes a square: of the pixels that Pillow makes of it, and of no more of a JPEG than is needed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from longtail.data import square as squares
from longtail.data.dataset import portable_pixmap
from longtail.data.decode import decode, open_image
from longtail.data.square import Square, read_square, shrink, to_uint8
from longtail.errors import LongtailError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A smooth picture without symmetry, as photos are on the scale of a few pixels."""
    shapes = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(shapes).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


def test_an_image_of_the_right_size_is_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(to_uint8(Image.fromarray(pixels), Square(32, 40)), pixels)


def test_scale_then_crop_agrees_with_the_two_steps() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    smooth = Image.fromarray(pixels).resize((120, 80), Image.Resampling.BICUBIC)
    two_steps = smooth.resize((60, 40), Image.Resampling.BICUBIC).crop((14, 4, 46, 36))
    ours = to_uint8(smooth, Square(32, 40)).astype(int)
    assert np.abs(ours - np.asarray(two_steps)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7)])
def test_any_shape_becomes_the_square(size: tuple[int, int]) -> None:
    assert to_uint8(Image.new("RGB", size, "red"), Square(16)).tolist() == [[[255, 0, 0]] * 16] * 16


def test_a_resize_below_the_crop_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        to_uint8(Image.new("RGB", (9, 9)), Square(32, 16))


# --- no larger than needed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shorter", "size"),
    [(750, (1000, 750)), (301, (1000, 750)), (300, (500, 375)), (256, (500, 375)),
     (150, (500, 375)), (149, (250, 188)), (75, (250, 188)), (74, (125, 94)), (8, (125, 94))],
)  # fmt: skip
def test_a_jpeg_comes_at_the_smallest_fraction_that_is_large_enough(shorter: int, size: tuple[int, int]) -> None:
    with open_image(encoded(photo(1000, 750), "JPEG")) as image:
        extent = shrink(image, shorter)
        assert image.size == size
        assert min(size) >= shorter
        assert extent == (None if size == (1000, 750) else (1000 / (1000 // size[0]), 750 / (1000 // size[0])))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_formats_come_whole(kind: str) -> None:
    with open_image(encoded(photo(100, 80), kind)) as image:
        assert shrink(image, 8) is None
        assert image.size == (100, 80)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize(("resize", "size"), [(None, 224), (256, 224), (None, 32), (None, 100)])
def test_the_pixels_are_those_of_a_whole_decode(mode: str, options: dict, resize: int | None, size: int) -> None:
    content = encoded(photo(1003, 751, mode), "JPEG", quality=95, **options)
    whole = to_uint8(decode(content), Square(size, resize))
    assert difference(read_square(content, Square(size, resize)), whole) < 0.5
    assert difference(np.roll(whole, 1, axis=1), whole) > 0.5, "a picture that is out of place would be noticed"


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("size", [16, 32, 64, 100, 170])
def test_so_they_are_of_real_photos(name: str, size: int) -> None:
    content = (Path(sklearn.datasets.__file__).parent / "images" / name).read_bytes()
    with open_image(content) as image:
        assert shrink(image, size) is not None
    whole = to_uint8(decode(content), Square(size))
    assert difference(read_square(content, Square(size)), whole) < 2.5
    assert difference(np.roll(whole, 1, axis=1), whole) > 6, "a picture that is out of place would be noticed"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_right_side_is_up(orientation: int, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo(901, 603, mode), "JPEG", quality=95, exif=exif)
    whole = to_uint8(decode(content), Square(64))
    assert difference(read_square(content, Square(64)), whole) < 0.5
    assert all(difference(turned, whole) > 5 for turned in (np.rot90(whole), np.rot90(whole, 2), whole[:, ::-1]))


def test_a_truncated_jpeg_is_named_also_at_a_fraction_of_its_size() -> None:
    content = encoded(photo(800, 600), "JPEG")
    with pytest.raises(LongtailError, match=r"'cut\.jpg' .*damaged"):
        read_square(content[: len(content) // 2], Square(64), "cut.jpg")


@pytest.mark.parametrize("shape", [(256, 256), (320, 256), (256, 298)])
def test_cutting_out_is_what_scaling_by_one_was(shape: tuple[int, int]) -> None:
    image = photo(*shape)
    left, top = (image.width - 224) / 2, (image.height - 224) / 2
    box = (left, top, left + 224, top + 224)
    scaled = image.resize((224, 224), Image.Resampling.BICUBIC, box=box)
    assert np.array_equal(to_uint8(image, Square(224, 256)), np.asarray(scaled))


# --- raw pixels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (80, 64), (50, 90), (65, 64)])
@pytest.mark.parametrize(("resize", "size"), [(None, 64), (64, 48), (40, 32)])
def test_raw_pixels_are_what_a_decoder_makes_of_them(
    mode: str, width: int, height: int, resize: int | None, size: int
) -> None:
    content = portable_pixmap(np.asarray(photo(width, height, mode)))
    ours = read_square(content, Square(size, resize))
    assert np.array_equal(ours, to_uint8(decode(content), Square(size, resize)))
    assert ours.flags.writeable


def test_raw_pixels_need_no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squares, "opened", lambda *_, **__: pytest.fail("Pillow was asked"))
    assert read_square(portable_pixmap(np.asarray(photo(40, 30))), Square(20, 30)).shape == (20, 20, 3)


@pytest.mark.parametrize(
    "content",
    [b"P6\n40 30\n255\n" + bytes(100), b"P6\n0 3\n255\n", b"P6\n999999 999999\n255\n", b"P6\n4 4\n"],
)
def test_damaged_raw_pixels_are_named(content: bytes) -> None:
    with pytest.raises(LongtailError, match="'row 3'"):
        read_square(content, Square(4), "row 3")


def test_a_pixmap_with_a_comment_or_sixteen_bits_is_left_to_the_decoder() -> None:
    assert read_square(b"P5\n# by hand\n1 1\n255\n\x07", Square(1)).tolist() == [[[7, 7, 7]]]
    assert read_square(b"P5\n1 1\n65535\n\xff\xff", Square(1)).tolist() == [[[255, 255, 255]]]
