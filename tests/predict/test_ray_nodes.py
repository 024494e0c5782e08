"""A prediction on two Ray nodes of one core, one of which, or a worker, is lost half way: each image is there once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from ray_nodes import ray_nodes, when

from longtail.predict import ray_pipeline
from longtail.predict.merge import merge_parts
from longtail.predict.predict import predict_images
from longtail.predict.ray_pipeline import SKIPPED, predict_on_ray

pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'longtail[ray]'")
pytestmark = pytest.mark.timeout(280)
IMAGES = 480


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_nodes(2, cores=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("photos")
    for number in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / f"{number:03}.png")
    (folder / "broken.png").write_text("no image")
    return folder


def workers() -> list[psutil.Process]:
    """Return the processes that are at work on parts."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.is_running() and "predict_part" in "".join(child.cmdline())]


@pytest.mark.parametrize("lost", ["worker", "node"])
def test_nothing_is_lost_and_nothing_is_there_twice(
    lost: str, cluster: Any, ready: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pipeline, "_LEAST_IMAGES", 16)

    def lose() -> None:
        if lost == "node":
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        else:
            workers()[0].kill()

    out = tmp_path / "parts"
    has_begun = lambda: any(out.glob("part-*.parquet")) and bool(workers())  # noqa: E731
    with when((has_begun, lose)) as done:
        report = predict_on_ray(ready, photos, out, device="cpu", batch_size=16)
    assert done == [0]
    assert (report.predicted, report.skipped) == (IMAGES, 1)
    assert "broken.png" in (out / SKIPPED).read_text()
    merged = merge_parts(out, tmp_path / "merged.csv")
    whole = predict_images(ready, photos, tmp_path / "whole.csv", workers=1)
    rows = [[line.split(",")[:2] for line in table.out.read_text().splitlines()] for table in (merged, whole)]
    assert rows[0] == rows[1]
