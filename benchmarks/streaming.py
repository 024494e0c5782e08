"""Rate of folders of JPEGs streamed into batches, against the pure decode rate, a plain DataLoader, and `prepare`.

python benchmarks/streaming.py --json docs/performance/streaming.json

Photo-like JPEGs are made in a temporary folder. Each round measures every side once, so that a machine that slows down
slows all of them; the medians of the rounds are compared. The files stay in the page cache: this is decoding, not disk.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import common
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from longtail.data.dataset import Split
from longtail.data.loading.loaders import StreamingLoader
from longtail.data.loading.prepare import write_resized
from longtail.data.loading.workers import Decoder
from longtail.data.sources.registry import load_source
from longtail.data.square import Square
from longtail.device import cores

WIDTH, HEIGHT, QUALITY = 1000, 750, 90
RESIZE, SIZE, BATCH = 256, 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PlainImages(Dataset[tuple[torch.Tensor, int]]):
    """The usual code: open, decode, resize and crop with Pillow, scale and normalize, one image at a time."""

    def __init__(self, split: Split) -> None:
        self.paths = [split.path(row) for row in range(len(split))]
        self.labels = split.labels.tolist()
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[row]) as file:
            image = file.convert("RGB")
        scale = RESIZE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
        pixels = torch.from_numpy(np.array(image.crop((left, top, left + SIZE, top + SIZE))))
        return (pixels.permute(2, 0, 1).float() / 255 - self.mean) / self.std, self.labels[row]


def make_photos(folder: Path, count: int) -> None:
    """Write JPEGs with large shapes, gradients and grain, as photos have them, in two class folders."""

    def make(number: int) -> None:
        rng = np.random.default_rng(number)
        shapes = Image.fromarray(rng.integers(0, 255, (HEIGHT // 50, WIDTH // 50, 3), dtype=np.uint8))
        smooth = np.asarray(shapes.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float32)
        grain = rng.normal(0, 8, (HEIGHT, WIDTH, 1)).astype(np.float32)
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"class{number % 2}" / f"{number:05}.jpg", quality=QUALITY)

    for name in ("class0", "class1"):
        (folder / name).mkdir(parents=True)
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(make, range(count)))


def decode_share(decoder: Decoder, rows: range, ready: multiprocessing.synchronize.Barrier) -> None:
    """Decode some rows and throw them away: nothing is collated, sent or waited for."""
    torch.set_num_threads(1)
    ready.wait()
    for row in rows:
        decoder.pixels(row)


def pure_decode_seconds(decoder: Decoder) -> float:
    """Seconds that all cores together need for all rows, from the moment every process is ready."""
    workers, context = cores(), multiprocessing.get_context("fork")
    ready = context.Barrier(workers + 1)
    shares = [range(start, len(decoder.split), workers) for start in range(workers)]
    processes = [context.Process(target=decode_share, args=(decoder, share, ready)) for share in shares]
    for process in processes:
        process.start()
    ready.wait()
    begun = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - begun


def epoch_seconds(loader: StreamingLoader) -> float:
    """Seconds of an epoch over our loader, in random order."""
    rows = torch.randperm(len(loader.labels))
    begun = time.perf_counter()
    for _ in loader.batches(rows, BATCH):
        pass
    return time.perf_counter() - begun


def plain_seconds(loader: DataLoader[tuple[torch.Tensor, int]]) -> float:
    """Seconds of an epoch over the plain loader."""
    begun = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - begun


def rates(sides: Mapping[str, Callable[[], float]], images: int, repeats: int) -> dict[str, float]:
    """Images per second of each side: the median of several rounds, after one that starts workers and warms caches."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(repeats + 1):
        for name, measure in sides.items():
            took = measure()
            if round_number:
                seconds[name].append(took)
    return {name: images / median(taken) for name, taken in seconds.items()}


def streaming(split: Split) -> StreamingLoader:
    """Our loader over a split, with a worker for each core."""
    return StreamingLoader(
        Decoder(split, Square(SIZE, RESIZE)), torch.from_numpy(split.labels.copy()), torch.device("cpu"), cores()
    )


def measure(folder: Path, images: int, repeats: int) -> list[common.Row]:
    """Make the photos, measure all sides, and return one row for each goal."""
    make_photos(folder / "photos", images)
    source = load_source(f"folder:{folder / 'photos'}")
    write_resized(source, folder / "prepared", RESIZE)
    split = source.splits["train"]
    prepared = load_source(f"hf:{folder / 'prepared'}").splits["train"]
    ours, ready = streaming(split), streaming(prepared)
    plain = DataLoader(
        PlainImages(split),
        BATCH,
        shuffle=True,
        num_workers=cores(),
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    measured = rates(
        {
            "floor": lambda: pure_decode_seconds(Decoder(split, Square(SIZE, RESIZE))),
            "streaming": lambda: epoch_seconds(ours),
            "plain": lambda: plain_seconds(plain),
            "prepared": lambda: epoch_seconds(ready),
        },
        images,
        repeats,
    )
    unit, cpu = "images/s", torch.device("cpu")
    photos = f"{WIDTH} x {HEIGHT} JPEGs"
    return [
        common.row(
            f"streaming {photos}", measured["streaming"], measured["plain"], unit, floor=measured["floor"], device=cpu
        ),
        common.row(
            f"prepared images against {photos}",
            measured["prepared"],
            measured["streaming"],
            unit,
            floor=copied(),
            device=cpu,
        ),
    ]


def copied() -> float:
    """Images a second whose pixels memory lets through, once read and once written."""
    return common.memory_bandwidth() / (2 * 3 * SIZE * SIZE)


def main() -> None:
    """Measure, show and write."""
    parser = common.parser(__doc__ or "")
    parser.add_argument("--images", type=int, default=1024, help="photos to make")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options.images, options.repeats)
    common.show(rows)
    common.rows_to_json(options.json, rows)


if __name__ == "__main__":
    main()
