"""Every image becomes a square: of the pixels that Pillow makes of it, and of no more of a JPEG than is needed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image, ImageOps

from longtail.data import square as squares
from longtail.data.dataset import portable_pixmap
from longtail.data.decode import decode, open_image
from longtail.data.square import Fit, Interpolation, Square, read_square, shrink, square_of, to_uint8
from longtail.errors import LongtailError

FITS: tuple[Fit, ...] = get_args(Fit)


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


@pytest.mark.parametrize("fit", FITS)
def test_an_image_of_the_right_size_is_left_alone(fit: Fit) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(to_uint8(Image.fromarray(pixels), Square(32, 40, fit=fit)), pixels)


def test_scale_then_crop_agrees_with_the_two_steps() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    smooth = Image.fromarray(pixels).resize((120, 80), Image.Resampling.BICUBIC)
    two_steps = smooth.resize((60, 40), Image.Resampling.BICUBIC).crop((14, 4, 46, 36))
    ours = to_uint8(smooth, Square(32, 40)).astype(int)
    assert np.abs(ours - np.asarray(two_steps)).max() <= 1


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (1, 5000)])
def test_any_shape_becomes_the_square(size: tuple[int, int], fit: Fit) -> None:
    square = Square(16, fit=fit)
    assert to_uint8(Image.new("RGB", size, "red"), square).tolist() == [[[255, 0, 0]] * 16] * 16


def test_a_resize_below_the_crop_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        to_uint8(Image.new("RGB", (9, 9)), Square(32, 16))


def rgb(rows: list[list[int]]) -> Image.Image:
    return Image.fromarray(np.repeat(np.array(rows, dtype=np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # The edges of the wide one: 10 20 30 40 50, 60 70 80 90 100, 10 60, 50 100: a mean of 55.
        (
            [[10, 20, 30, 40, 50], [60, 70, 80, 90, 100]],
            [[55] * 5, [55] * 5, [10, 20, 30, 40, 50], [60, 70, 80, 90, 100], [55] * 5],
        ),
        # One row is first and last row: 2 * (1 + 2 + 3 + 4) and the corners 1, 1 and 4, 4 over 10 are 2.6 of 9.
        ([[1, 2, 3, 4, 9]], [[4] * 5, [4] * 5, [1, 2, 3, 4, 9], [4] * 5, [4] * 5]),
        ([[1], [2], [3], [4], [9]], [[4, 4, value, 4, 4] for value in (1, 2, 3, 4, 9)]),
        # What is inside leaves the color alone: 18 edges of 0, with the corners twice.
        (
            [[0, 0, 0, 0, 0], [0, 200, 200, 200, 0], [0, 0, 0, 0, 0]],
            [[0] * 5, [0] * 5, [0, 200, 200, 200, 0], [0] * 5, [0] * 5],
        ),
    ],
    ids=["wide", "one-row", "one-column", "inside"],
)
def test_padding_is_the_mean_of_the_edges(rows: list[list[int]], expected: list[list[int]]) -> None:
    assert to_uint8(rgb(rows), Square(5, fit="pad"))[..., 0].tolist() == expected


@pytest.mark.parametrize("size", [(300, 200), (200, 301), (33, 224), (20, 9), (1003, 5), (64, 63)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_padded_image_is_what_pillow_makes_of_it(size: tuple[int, int], interpolation: Interpolation) -> None:
    image, method = photo(*size), Image.Resampling[interpolation.upper()]
    ours = to_uint8(image, Square(64, 80, interpolation, "pad"))
    small = np.asarray(ImageOps.contain(image, (64, 64), method) if min(size) > 5 else image.resize((64, 1), method))
    edges = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    color = tuple(int(value) for value in np.rint(edges.mean(axis=0)))
    assert np.array_equal(ours, np.asarray(ImageOps.pad(Image.fromarray(small), (64, 64), color=color)))


@pytest.mark.parametrize("size", [(300, 200), (9, 301), (20, 9)])
def test_a_stretched_image_is_resized_on_both_sides(size: tuple[int, int]) -> None:
    image = photo(*size)
    expected = image.resize((64, 64), Image.Resampling.BICUBIC)
    assert np.array_equal(to_uint8(image, Square(64, 80, fit="stretch")), np.asarray(expected))


@pytest.mark.parametrize("size", [(300, 200), (9, 301), (90, 20)])
@pytest.mark.parametrize(("resize", "side"), [(None, 64), (80, 64), (64, 63)])
def test_by_default_the_center_is_cut_out(size: tuple[int, int], resize: int | None, side: int) -> None:
    image = photo(*size)
    length = min(size) * side / (resize or side)
    left, top = (size[0] - length) / 2, (size[1] - length) / 2
    box = (left, top, left + length, top + length)
    expected = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box))
    for square in (Square(side, resize), Square(side, resize, "bicubic", "crop")):
        assert np.array_equal(to_uint8(image, square), expected)
        assert np.array_equal(square_of(np.asarray(image), square), expected)


# --- no larger than needed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shorter", "size"),
    [
        (750, (1000, 750)),
        (301, (1000, 750)),
        (300, (500, 375)),
        (256, (500, 375)),
        (150, (500, 375)),
        (149, (250, 188)),
        (75, (250, 188)),
        (74, (125, 94)),
        (8, (125, 94)),
    ],
)
def test_a_jpeg_comes_at_the_smallest_fraction_that_is_large_enough(shorter: int, size: tuple[int, int]) -> None:
    with open_image(encoded(photo(1000, 750), "JPEG")) as image:
        extent = shrink(image, Square(shorter))
        assert image.size == size
        assert min(size) >= shorter
        assert extent == (None if size == (1000, 750) else (1000 / (1000 // size[0]), 750 / (1000 // size[0])))


@pytest.mark.parametrize(
    ("fit", "sides", "size"),
    [
        ("crop", (2000, 400), (1000, 200)),
        ("stretch", (2000, 400), (1000, 200)),
        ("pad", (2000, 400), (250, 50)),
        ("pad", (400, 2000), (50, 250)),
        ("pad", (1000, 1000), (250, 250)),
        ("pad", (999, 10), (500, 5)),
    ],
)
def test_padding_needs_fewer_pixels_of_a_long_jpeg(fit: Fit, sides: tuple[int, int], size: tuple[int, int]) -> None:
    with open_image(encoded(photo(*sides), "JPEG")) as image:
        square = Square(160, fit=fit)
        assert shrink(image, square) is not None
        assert image.size == size
        assert min(size) >= square.scaled(*sides)[sides[0] > sides[1]]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_formats_come_whole(kind: str) -> None:
    with open_image(encoded(photo(100, 80), kind)) as image:
        assert shrink(image, Square(8)) is None
        assert image.size == (100, 80)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize(
    ("resize", "size", "fit"),
    [
        *((None, size, fit) for size in (224, 32, 100) for fit in FITS),
        (256, 224, "crop"),
    ],
)
def test_the_pixels_are_those_of_a_whole_decode(
    mode: str, options: dict, resize: int | None, size: int, fit: Fit
) -> None:
    content, square = encoded(photo(1003, 751, mode), "JPEG", quality=95, **options), Square(size, resize, fit=fit)
    whole = to_uint8(decode(content), square)
    assert difference(read_square(content, square), whole) < 0.5
    assert difference(np.roll(whole, 1, axis=1), whole) > 0.5, "a picture that is out of place would be noticed"


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("size", [16, 32, 64, 100, 170])
@pytest.mark.parametrize("fit", FITS)
def test_so_they_are_of_real_photos(name: str, size: int, fit: Fit) -> None:
    content = (Path(sklearn.datasets.__file__).parent / "images" / name).read_bytes()
    with open_image(content) as image:
        assert shrink(image, Square(size, fit=fit)) is not None
    whole = to_uint8(decode(content), Square(size, fit=fit))
    assert difference(read_square(content, Square(size, fit=fit)), whole) < 2.5
    assert difference(np.roll(whole, 1, axis=1), whole) > 3.5, "a picture that is out of place would be noticed"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", FITS)
def test_the_right_side_is_up(orientation: int, mode: str, fit: Fit) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo(901, 603, mode), "JPEG", quality=95, exif=exif)
    whole = to_uint8(decode(content), Square(64, fit=fit))
    assert difference(read_square(content, Square(64, fit=fit)), whole) < 0.5
    assert all(difference(turned, whole) > 5 for turned in (np.rot90(whole), np.rot90(whole, 2), whole[:, ::-1]))


def test_a_truncated_jpeg_is_named_also_at_a_fraction_of_its_size() -> None:
    content = encoded(photo(800, 600), "JPEG")
    with pytest.raises(LongtailError, match=r"'cut\.jpg' .*damaged"):
        read_square(content[: len(content) // 2], Square(64), "cut.jpg")


def test_an_open_image_is_read_as_its_file_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(photo(90, 60), "PNG", exif=exif)
    assert np.array_equal(square_of(Image.open(io.BytesIO(content)), Square(32)), read_square(content, Square(32)))
    with pytest.raises(LongtailError, match=r"'cut\.png' .*damaged"):
        square_of(Image.open(io.BytesIO(content[: len(content) // 2])), Square(32), "cut.png")


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
@pytest.mark.parametrize("fit", FITS)
def test_raw_pixels_are_what_a_decoder_makes_of_them(
    mode: str, width: int, height: int, resize: int | None, size: int, fit: Fit
) -> None:
    content, square = portable_pixmap(np.asarray(photo(width, height, mode))), Square(size, resize, fit=fit)
    ours = read_square(content, square)
    assert np.array_equal(ours, to_uint8(decode(content), square))
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
