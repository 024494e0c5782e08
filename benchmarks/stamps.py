"""Make a long-tailed class folder of Debian's package of rubber stamps: photographs and drawings, sorted by category.

apt-get download tuxpaint-stamps-default
dpkg-deb -x tuxpaint-stamps-default_*.deb unpacked
python benchmarks/stamps.py unpacked stamps

Tux Paint's stamps show animals, plants, food, vehicles, letters and more, each in the folder of its category, such as
``animals/birds``. A class is a category with its subcategory; classes with under ``--least`` pictures are left out. A
third of each class is for testing, at random. Pictures are PNG files: what is transparent becomes white, and drawings
in SVG are left out. The package is under the GPL, version 2; single pictures have licenses of their own, which its
documentation lists. Nothing of it is part of this repository.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

STAMPS = Path("usr/share/tuxpaint/stamps")
STYLES = {"cartoon", "plastic", "toys"}  # how a thing is shown, not what it is


def main() -> int:
    """Write the pictures of each class into its folders, one for training and one for testing."""
    flags = _flags()
    classes = pictures_by_class(flags.package / STAMPS, flags.least)
    generator = np.random.default_rng(flags.seed)
    for name, pictures in classes.items():
        tested = set(generator.permutation(len(pictures))[: round(len(pictures) / 3)].tolist())
        for number, picture in enumerate(pictures):
            folder = flags.out / ("test" if number in tested else "train") / name.replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            on_white(picture).save(folder / f"{'-'.join(picture.relative_to(flags.package / STAMPS).parts[1:])}")
    sizes = [len(pictures) for pictures in classes.values()]
    print(f"{flags.out}: {sum(sizes)} pictures, {len(sizes)} classes of {max(sizes)} to {min(sizes)} pictures")
    return 0


def pictures_by_class(root: Path, least: int) -> dict[str, list[Path]]:
    """Return the pictures of each category that has enough of them, in order of their names.

    Raises:
        SystemExit: There are none.
    """
    classes: dict[str, list[Path]] = defaultdict(list)
    for picture in sorted(root.rglob("*.png")):
        category = [part for part in picture.relative_to(root).parent.parts if part not in STYLES]
        classes["/".join(category[:2])].append(picture)
    enough = {name: pictures for name, pictures in classes.items() if len(pictures) >= least}
    if not enough:
        raise SystemExit(f"{root} has no stamps: unpack the package with 'dpkg-deb -x', and name that folder.")
    return enough


def on_white(picture: Path) -> Image.Image:
    """Read a picture and lay it on white."""
    with Image.open(picture) as image:
        layers = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="folder that the package is unpacked into")
    parser.add_argument("out", type=Path, help="class folder to write")
    parser.add_argument("--least", type=int, default=6, metavar="N", help="fewest pictures of a class")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
