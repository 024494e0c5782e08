"""Every kind of image a folder may hold becomes RGB, or an error that names it."""

from __future__ import annotations

import errno
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from longtail.data import decode as images
from longtail.data.decode import decode, to_rgb
from longtail.data.square import Square, read_square
from longtail.errors import LATER, LongtailError, OwnRangeWarning, UnreadableImageError

RAMP = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
PHOTO = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_grayscale_repeats_its_one_channel() -> None:
    result = np.asarray(decode(encoded(Image.fromarray(RAMP))))
    assert np.array_equal(result, np.repeat(RAMP[..., None], 3, axis=2))


def test_palette_colors_survive() -> None:
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


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, depth: int, kind: int, row: bytes, clear: tuple[int, ...]) -> bytes:
    """A PNG of one row, kind 0 gray and 2 RGB, with a transparent color in the file's own numbers."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0))
    trns = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
    return b"\x89PNG\r\n\x1a\n" + header + trns + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(3, 16, 0, struct.pack(">3H", 0, 300, 65535), (300,)), [0, 255, 255]),
        (png(3, 16, 0, struct.pack(">3H", 0, 300, 65535), (0,)), [255, 1, 255]),
        (png(3, 8, 0, bytes([0, 7, 9]), (7,)), [0, 255, 9]),
        (png(4, 2, 0, b"\x1b", (1,)), [0, 255, 170, 255]),
        (png(2, 4, 0, b"\x1f", (1,)), [255, 255]),
        (png(2, 1, 0, b"\x40", (1,)), [0, 255]),
        (png(2, 8, 2, bytes([1, 2, 3, 9, 9, 9]), (1, 2, 3)), [255, 9]),
        (png(2, 16, 2, struct.pack(">6H", 1287, 1287, 1287, 1799, 1799, 1799), (1287,) * 3), [255, 7]),
    ],
    ids=["16", "16-black", "8", "4", "2", "1", "rgb", "rgb-16"],
)
def test_a_transparent_color_is_white_at_every_depth(data: bytes, expected: list[int]) -> None:
    assert np.asarray(decode(data))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("I;16", 65535, (255,) * 3),
        ("I;16B", 257, (1,) * 3),
        ("I", 257, (1,) * 3),
        ("F", 1.0, (255,) * 3),
        ("1", 1, (255,) * 3),
        ("L", 7, (7,) * 3),
        ("LA", (7, 0), (255,) * 3),
        ("La", (0, 0), (255,) * 3),
        ("PA", (7, 0), (255,) * 3),
        ("RGBA", (1, 2, 3, 0), (255,) * 3),
        ("RGBa", (0, 0, 0, 0), (255,) * 3),
        ("RGBX", (1, 2, 3, 4), (1, 2, 3)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (128, 128, 128), (128,) * 3),
        ("LAB", (255, 128, 128), (255, 255, 255)),
        ("HSV", (0, 255, 255), (255, 0, 0)),
    ],
)
@pytest.mark.filterwarnings("ignore::longtail.errors.OwnRangeWarning")
def test_every_mode_becomes_rgb(mode: str, color: object, expected: tuple[int, ...]) -> None:
    pixel = to_rgb(Image.new(mode, (2, 2), color)).getpixel((0, 0))
    assert np.abs(np.subtract(pixel, expected)).max() <= 3  # of a conversion through another color space


@pytest.mark.parametrize(
    ("values", "warned"),
    [(np.float32([[0, 0.9]]), True), (np.int32([[0, 70000]]), True), (np.int32([[0, 7]]), False), (RAMP, False)],
    ids=["float", "int-beyond-16-bits", "int-of-16-bits", "8 bits"],
)
def test_scaling_by_the_range_of_one_image_is_said(values: np.ndarray, warned: bool) -> None:
    images._say_own_range.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode(encoded(Image.fromarray(values), "TIFF"))
    assert [issubclass(warning.category, OwnRangeWarning) for warning in caught] == [True] * warned


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes cut off, changed at a few places (in the header, as a rule), or with a part left out."""
    changed, kind = bytearray(data), rng.integers(10)
    if kind < 3:
        return data[: rng.integers(len(data))]
    if kind == 3:
        first, last = sorted(rng.integers(len(data), size=2))
        return data[:first] + data[last:]
    for _ in range(rng.choice([1, 2, 8])):
        changed[rng.integers(min(len(data), rng.choice([64, 400, 10**6])))] = rng.choice(
            [0, 128, 255, rng.integers(256)]
        )
    return bytes(changed)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "MPO"])
@pytest.mark.filterwarnings("ignore")  # of Pillow, about what is damaged
def test_no_bytes_are_more_than_an_unreadable_image(kind: str) -> None:
    image, exif = Image.fromarray(PHOTO[:20, :24]), Image.Exif()
    exif[0x0112] = 6
    options = {"save_all": True, "append_images": [image.rotate(90)]} if kind in {"GIF", "MPO"} else {}
    data, rng = encoded(image, kind, exif=exif, **options), np.random.default_rng(0)
    problems = []
    for _ in range(40):
        broken = mutated(data, rng)
        for reader in (decode, lambda source: read_square(source, Square(8))):
            try:
                reader(broken)
            except UnreadableImageError as error:
                problems.append(str(error))
    assert problems
    assert not any("\n" in problem for problem in problems)


def test_a_film_of_a_billion_pixels_is_refused() -> None:
    film = bytearray(encoded(Image.new("P", (8, 8)), "GIF", save_all=True, append_images=[Image.new("P", (8, 8), 1)]))
    offset = film.index(b",") + 5  # of width and height of the first frame, within the image descriptor
    film[offset : offset + 4] = b"\xff" * 4
    film[6:10] = b"\xff" * 4
    with pytest.raises(UnreadableImageError, match="pixels"):
        decode(bytes(film))


@pytest.mark.parametrize("kind", ["AVIF", "TIFF", "WEBP", "GIF"])
def test_an_image_cut_in_the_middle_is_named(kind: str) -> None:
    data = encoded(Image.fromarray(PHOTO), kind)
    with pytest.raises(UnreadableImageError, match=r"'a\.x'"):
        decode(data[: len(data) // 2], "a.x")


def test_one_bit_image() -> None:
    assert decode(encoded(Image.new("1", (2, 2), 1))).getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation_turns_the_image() -> None:
    image = Image.new("RGB", (30, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    assert decode(encoded(image, "JPEG", exif=exif)).size == (10, 30)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
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
    with pytest.raises(LongtailError, match=r"gone\.png' .*exist"):
        decode(tmp_path / "gone.png")
    with pytest.raises(LongtailError, match="be opened"):
        decode(tmp_path)


def test_bytes_are_named_by_the_caller() -> None:
    with pytest.raises(LongtailError, match="'row 7' "):
        decode(b"nothing", name="row 7")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 50_000])
def test_a_huge_image_is_refused_unread(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)  # a PNG that says how large it is, and no more
    chunks = [(b"IHDR", header), (b"IDAT", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    with pytest.raises(LongtailError, match=rf"huge\.png.* {side:,} x {side:,}"):
        decode(b"\x89PNG\r\n\x1a\n" + body, name="huge.png")


def test_the_limit_is_inclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    assert decode(encoded(Image.new("L", (10, 10)))).size == (10, 10)
    with pytest.raises(LongtailError, match="11 x 10"):
        decode(encoded(Image.new("L", (11, 10))))


@pytest.mark.parametrize("name", ["a.nef", "a.DNG", "a.cr2", "a.heic"])
def test_a_file_in_a_format_that_is_not_read_gives_no_preview(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(encoded(Image.fromarray(PHOTO), "TIFF"))
    with pytest.raises(UnreadableImageError, match=f"{name}.*format"):
        decode(tmp_path / name)


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}])
def test_bytes_of_a_raw_format_give_no_preview(tags: dict[int, object]) -> None:
    with pytest.raises(UnreadableImageError, match="format"):
        decode(encoded(Image.fromarray(PHOTO), "TIFF", tiffinfo=tags))


def test_a_page_of_a_tiff_is_an_image() -> None:
    assert decode(encoded(Image.fromarray(PHOTO), "TIFF", tiffinfo={254: 2})).size == (40, 40)


@pytest.mark.parametrize(
    ("error", "is_later", "words"),
    [
        (OSError(errno.EIO, "Input/output error"), True, "Input/output"),
        (OSError(errno.ESTALE, "Stale file handle"), True, "Stale"),
        (OSError(errno.EMFILE, "Too many open files"), True, "Too many"),
        (MemoryError(), True, "memory"),
        (PermissionError(errno.EACCES, "Permission denied"), False, "allow"),
        (OSError(errno.EINVAL, "Invalid argument"), False, "Invalid"),
        (OSError("broken data stream"), False, "broken"),
    ],
)
@pytest.mark.parametrize("moment", ["open", "load"])
def test_a_failure_of_the_machine_is_no_fault_of_the_image(
    error: Exception, is_later: bool, words: str, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2)).save(path)

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(*((Image, "open") if moment == "open" else (ImageFile.ImageFile, "load")), fail)
    with pytest.raises(UnreadableImageError, match=words) as caught:
        decode(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(LATER) == is_later
