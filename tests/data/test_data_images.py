"""Every kind of image a folder may hold becomes RGB, or an error that names it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longtail.data import images
from longtail.data.images import decode, to_rgb, to_uint8
from longtail.errors import LongtailError

RAMP = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
PHOTO = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_grayscale_repeats_its_one_channel() -> None:
    result = np.asarray(decode(encoded(Image.fromarray(RAMP))))
    assert np.array_equal(result, np.repeat(RAMP[..., None], 3, axis=2))


def test_palette_colours_survive() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert decode(encoded(image)).getpixel((1, 0)) == (200, 100, 50)


def test_palette_transparency_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    result = decode(encoded(image, transparency=0))
    assert [result.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 50)]


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 0), (128, 127)])
def test_rgba_is_laid_over_white(alpha: int, expected: int) -> None:
    result = decode(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, alpha))))
    assert result.getpixel((0, 0)) == (expected,) * 3


def test_cmyk_jpeg() -> None:
    red = decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)).getpixel((8, 8))
    assert np.allclose(np.array(red), (255, 0, 0), atol=6)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    wide = RAMP.astype(np.uint16) * 257
    result = np.asarray(decode(encoded(Image.fromarray(wide))))
    assert np.array_equal(result[..., 0], RAMP)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_other_wide_types_keep_their_order(dtype: type) -> None:
    values: np.ndarray = (RAMP.astype(np.float64) * 257).astype(dtype)
    result = np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[..., 0]
    assert np.array_equal(result, RAMP)


def test_float_image_in_unit_range_and_with_nan() -> None:
    values = np.array([[0.0, 0.5, 1.0, np.nan]], dtype=np.float32)
    assert np.asarray(to_rgb(Image.fromarray(values)))[0, :, 0].tolist() == [0, 128, 255, 0]


def test_values_below_zero_are_scaled_by_their_own_range() -> None:
    values = np.array([[-100, 0, 100]], dtype=np.int32)
    assert np.asarray(to_rgb(Image.fromarray(values)))[0, :, 0].tolist() == [0, 128, 255]


def test_one_bit_image() -> None:
    assert decode(encoded(Image.new("1", (2, 2), 1))).getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation_turns_the_image() -> None:
    image = Image.new("RGB", (30, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    assert decode(encoded(image, "JPEG", exif=exif)).size == (10, 30)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    animated = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(animated).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_truncated_file_is_named(tmp_path: Path, kind: str) -> None:
    content = encoded(Image.fromarray(PHOTO), kind)
    file = tmp_path / "cut.jpg"
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(LongtailError, match=r"cut\.jpg.*(remove|fetch)"):
        decode(file)


@pytest.mark.parametrize("content", [b"", b"this is no photograph", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "text.jpg"
    file.write_bytes(content)
    with pytest.raises(LongtailError, match=r"text\.jpg"):
        decode(file)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match=r"gone\.png' does not exist"):
        decode(tmp_path / "gone.png")
    with pytest.raises(LongtailError, match="cannot be opened"):
        decode(tmp_path)


def test_bytes_are_named_by_the_caller() -> None:
    with pytest.raises(LongtailError, match="'row 7' is not an image"):
        decode(b"nothing", name="row 7")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 50_000])
def test_a_huge_image_is_refused_unread(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)  # a PNG that says how large it is, and no more
    chunks = [(b"IHDR", header), (b"IDAT", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    with pytest.raises(LongtailError, match=rf"huge\.png' is {side:,} x {side:,}, more than 89,478,485 pixels"):
        decode(b"\x89PNG\r\n\x1a\n" + body, name="huge.png")


def test_the_limit_is_inclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    assert decode(encoded(Image.new("L", (10, 10)))).size == (10, 10)
    with pytest.raises(LongtailError, match="11 x 10"):
        decode(encoded(Image.new("L", (11, 10))))


def test_an_image_of_the_right_size_is_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(to_uint8(Image.fromarray(pixels), 40, 32), pixels)


def test_scale_then_crop_agrees_with_the_two_steps() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    smooth = Image.fromarray(pixels).resize((120, 80), Image.Resampling.BICUBIC)
    two_steps = smooth.resize((60, 40), Image.Resampling.BICUBIC).crop((14, 4, 46, 36))
    ours = to_uint8(smooth, 40, 32).astype(int)
    assert np.abs(ours - np.asarray(two_steps)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7)])
def test_any_shape_becomes_the_square(size: tuple[int, int]) -> None:
    assert to_uint8(Image.new("RGB", size, "red"), None, 16).tolist() == [[[255, 0, 0]] * 16] * 16


def test_a_resize_below_the_crop_is_refused() -> None:
    with pytest.raises(ValueError, match="at least size"):
        to_uint8(Image.new("RGB", (9, 9)), 16, 32)
