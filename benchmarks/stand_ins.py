"""Make stand-ins of the usual long-tailed data sets: their number of images, classes and tail, from photos of your own.

python benchmarks/stand_ins.py imagenet-lt folder:photos stand-ins/imagenet-lt
python benchmarks/stand_ins.py inaturalist folder:photos stand-ins/inaturalist

Each image is another crop of one of a few hundred photos, of another size and quality, with grain, so that no two files
are alike and each costs what a photo costs to decode. Its classes mean nothing: they are for time and memory, not for
accuracy. ``OUT/train`` and ``OUT/test`` hold a folder for each class. Per image it takes 1 to 8 ms of a core. With
``--images`` there are fewer training images of all the classes.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from longtail.data.sources.registry import load_source
from longtail.device import cores

PHOTOS = 400
PER_TASK = 250
TESTED = 2  # images of each class
TILE = 2_048  # side of the grain that is laid over the images, in pixels


@dataclass(frozen=True)
class Shape:
    """What a data set looks like from outside.

    Attributes:
        images: Training images.
        classes: Number of classes.
        largest: Images of the largest class.
        smallest: Images of the smallest class.
        sides: Range of the longer side in pixels.
        grain: Standard deviation of the noise, in grey levels: it decides how large a file is.
    """

    images: int
    classes: int
    largest: int
    smallest: int
    sides: tuple[int, int]
    grain: float

    def counts(self) -> np.ndarray:
        """Return the images of each class, the largest first: a tail that falls like a power and adds up exactly.

        Example:
            >>> counts = Shape(100, 5, 60, 2, (30, 40), 0).counts()
            >>> counts.tolist(), int(counts.sum())
            ([60, 26, 9, 3, 2], 100)
        """
        rank = np.arange(self.classes) / (self.classes - 1)
        low, high = 0.0, 1000.0
        for _ in range(60):  # the sum falls with the power
            power = (low + high) / 2
            sizes = self.smallest + (self.largest - self.smallest) * (1 - rank) ** power
            low, high = (power, high) if sizes.sum() > self.images else (low, power)
        counts = np.floor(sizes).astype(int)
        middle = np.argsort(-(sizes - counts)[1:-1], kind="stable")[: self.images - counts.sum()] + 1
        counts[middle] += 1
        return np.sort(counts)[::-1]


SHAPES = {
    "imagenet-lt": Shape(115_846, 1_000, 1_280, 5, (500, 750), 12),
    "inaturalist": Shape(437_513, 8_142, 1_000, 2, (64, 112), 3),
    "places-lt": Shape(62_500, 365, 4_980, 5, (256, 400), 6),
}


def main() -> int:
    """Write the images of both splits."""
    flags = _flags()
    shape = SHAPES[flags.name]
    shape = replace(shape, images=flags.images or shape.images)
    photos = read_photos(flags.source)
    grain = np.random.default_rng(0).normal(0, shape.grain, (TILE, TILE)).astype(np.int16)
    images = list(files(shape))
    tasks = [images[start : start + PER_TASK] for start in range(0, len(images), PER_TASK)]
    for folder in {(flags.out / name).parent for _, name in images}:
        folder.mkdir(parents=True, exist_ok=True)
    work = partial(write, sides=shape.sides, photos=photos, grain=grain, out=flags.out)
    with multiprocessing.get_context("fork").Pool(cores()) as pool:
        written = sum(track(pool.imap_unordered(work, tasks), "writing", len(tasks)))
    print(f"{flags.out}: {len(images):,} images of {written / len(images) / 1e3:.1f} KB")
    return 0


def read_photos(source: str) -> list[Image.Image]:
    """Read some photos of a source, evenly over its training images, at least 256 pixels wide and high."""
    split = load_source(source).splits["train"]
    rows = np.unique(np.linspace(0, len(split) - 1, PHOTOS).astype(int))
    photos = [split.image(int(row)).convert("RGB") for row in rows]
    return [photo.resize([max(256, side) for side in photo.size], Image.Resampling.BICUBIC) for photo in photos]


def files(shape: Shape) -> Iterator[tuple[int, str]]:
    """Yield the number and the path of each image, training images in an order in which classes are mixed."""
    labels = np.repeat(np.arange(shape.classes), shape.counts())
    np.random.default_rng(0).shuffle(labels)
    for number, label in enumerate(labels):
        yield number, f"train/{label:05}/{number:07}.jpg"
    for number in range(TESTED * shape.classes):
        yield len(labels) + number, f"test/{number // TESTED:05}/{number:07}.jpg"


def write(
    task: list[tuple[int, str]], *, sides: tuple[int, int], photos: list[Image.Image], grain: np.ndarray, out: Path
) -> int:
    """Write some images, and return their size in bytes."""
    size = 0
    for number, name in task:
        random = np.random.default_rng(number)
        photo = photos[random.integers(len(photos))]
        share, place = random.uniform(0.5, 1, 2), random.uniform(size=2)
        left, top = (place * (1 - share) * photo.size).tolist()
        box = (left, top, left + share[0] * photo.width, top + share[1] * photo.height)
        longer = random.integers(sides[0], sides[1], endpoint=True)
        width, height = (int(side) for side in np.ceil(longer * np.array([1, random.uniform(0.6, 1)])))
        pixels = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR, box))
        x, y = random.integers(TILE - width), random.integers(TILE - height)
        noisy = (pixels + grain[y : y + height, x : x + width, None]).clip(0, 255).astype(np.uint8)
        file = out / name
        Image.fromarray(noisy).save(file, quality=int(random.integers(75, 96)))
        size += file.stat().st_size
    return size


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(SHAPES))
    parser.add_argument("source", help="photos")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--images", type=int, help="training images, of all classes")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
