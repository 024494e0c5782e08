"""Make a folder of small JPEGs of many sizes, as plankton imagers leave them, from the images of a data set.

python benchmarks/small_photos.py parquet:cifar100-lt-ir10 small-photos

Training and test images become one folder without splits, ``class_000`` and so on. Each is enlarged to a height of 44
to 58 pixels and a width of up to 6 less or 10 more, so that few are square, and stored as a JPEG of quality 90. What a
run on them reaches says how one option does against another, not how well the images are recognized.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image

from longtail.data.sources.registry import load_source


def main() -> int:
    """Write the images of both splits into the folders of their classes."""
    flags = _flags()
    data, draws, written = load_source(flags.source), random.Random(0), 0
    for name in ("train", "test"):
        split = data.splits[name]
        for index, label in enumerate(split.labels.tolist()):
            height = draws.randint(44, 58)
            width = height + draws.randint(-6, 10)
            folder = flags.out / f"class_{label:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            image = split.image(index).resize((width, height), Image.Resampling.BICUBIC)
            image.save(folder / f"{written:06d}.jpg", quality=90)
            written += 1
    print(f"{flags.out}: {written:,} images, {len(data.classes)} classes")
    return 0


def _flags() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("source", help="SOURCE with train and test splits, see 'longtail inspect --help'")
    options.add_argument("out", type=Path, help="folder to write to")
    return options.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
