"""From Python: three lines, and the same answers for a path, a Pillow image and an array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import longtail
from longtail.errors import LongtailError
from longtail.predict.images import LeftOut, find_images
from longtail.run.model_files import load_run


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(1)
    paths = [tmp_path / "photos" / f"{name}.png" for name in "abc"]
    paths[0].parent.mkdir()
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (21, 17, 3), dtype=np.uint8)).save(path)
    return paths


def test_three_lines(ready: Path, pictures: list[Path]) -> None:
    model = longtail.load(ready)
    rows = model.predict(pictures[0].parent, top_k=2)
    assert [Path(row.name).name for row in rows] == ["a.png", "b.png", "c.png"]
    for row in rows:
        assert row.label == row.top[0][0] in model.classes
        assert row.confidence == row.top[0][1] >= row.top[1][1]
        assert row.sure == (row.confidence >= 0.4)
        assert (len(row.top), row.problem) == (2, "")


def test_every_kind_of_image_gives_the_same(ready: Path, pictures: list[Path]) -> None:
    model = longtail.load(ready)
    expected = model.probabilities(pictures[0].parent)
    opened = [Image.open(path) for path in pictures]
    arrays = [np.asarray(image) for image in opened]
    names = [str(path) for path in pictures]
    mixture = [pictures[0], opened[1], arrays[2]]
    for images in (pictures, map(str, pictures), np.array(names), opened, arrays, np.stack(arrays), mixture):
        np.testing.assert_allclose(model.probabilities(images), expected, atol=1e-6)
    for of_paths in (np.array(names), np.array(pictures, dtype=object)):
        assert [row.name for row in model.predict(of_paths)] == names
    np.testing.assert_allclose(model.probabilities(arrays[1], batch_size=1), expected[1:2], atol=1e-6)
    np.testing.assert_allclose(model.probabilities(opened[1].convert("RGBA")), expected[1:2], atol=1e-6)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)


def test_probabilities_are_softmax_of_the_adjusted_scores(ready: Path) -> None:
    network, info = load_run(ready)
    pixels = np.random.default_rng(2).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.5, 0.4, 0.3), (0.2, 0.2, 0.25)))
    with torch.no_grad():
        logits = network(((torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std)[None])
    scores = logits * torch.tensor([9.0, 8.0, 7.0]) + torch.tensor([0.0, 0.5, -1.0])
    probabilities = longtail.load(ready).probabilities(pixels)
    np.testing.assert_allclose(probabilities, scores.softmax(1).numpy(), atol=1e-5)
    assert info.adjustment is not None


def test_a_prior_shifts_the_probabilities(ready: Path, pictures: list[Path]) -> None:
    plain = longtail.load(ready).probabilities(pictures)
    shifted = longtail.load(ready, prior="train").probabilities(pictures)  # the run's assume a uniform one
    expected = plain * np.array([500, 50, 2])
    np.testing.assert_allclose(shifted, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)


def test_unreadable_images_keep_their_place(ready: Path, pictures: list[Path]) -> None:
    pictures[1].write_text("no image")
    model = longtail.load(ready)
    rows = model.predict(pictures, batch_size=2)
    assert [row.label is None for row in rows] == [False, True, False]
    assert "b.png'" in rows[1].problem
    with pytest.raises(LongtailError, match=r"b\.png'"):
        model.probabilities(pictures)
    pictures[1].write_bytes(pictures[0].read_bytes()[:900])
    rows = model.predict([Image.open(path) for path in pictures])  # Pillow decodes only where the pixels are needed
    assert [row.label is None for row in rows] == [False, True, False]
    assert "b.png'" in rows[1].problem


def test_no_images_give_no_rows(ready: Path) -> None:
    model = longtail.load(ready)
    assert model.predict([]) == []
    assert model.probabilities([]).shape == (0, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (3, "int is"),
        ([3], "int is"),
        (torch.zeros(1, 3, 8, 8), "Tensor is"),
        ("nowhere", "no file"),
        (np.zeros((8, 8, 3)), "float64"),
        (np.zeros((3, 8, 9), np.uint8), "an image"),
    ],
)
def test_values_that_are_not_images(images: object, message: str, ready: Path) -> None:
    with pytest.raises(LongtailError, match=message):
        longtail.load(ready).probabilities(images)


def test_a_wrong_option_is_one_sentence(ready: Path, pictures: list[Path]) -> None:
    with pytest.raises(LongtailError, match="batch_size"):
        longtail.load(ready).probabilities(pictures, batch_size=0)
    with pytest.raises(LongtailError, match="dict"):
        longtail.load(ready, prior={"lynx": 1})  # type: ignore[arg-type]
    for device in ("foo", "cpu:x", *(() if torch.cuda.is_available() else ("cuda",))):
        with pytest.raises(LongtailError, match="this machine"):
            longtail.load(ready, device=device)


def test_a_table_is_read_row_by_row(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("path,label\n" + '"a,\nb.png",x\n' + "c.png\n" + '"open,\n')
    rows = find_images(table).items(LeftOut())
    assert [next(rows).name, next(rows).name] == ["a,\nb.png", "c.png"]
    table.write_bytes(b"path\nx\0.png\n" + b"caf\xe9.png\n")
    assert [item.source for item in find_images(table).items(LeftOut())][-1] == f"{tmp_path}/caf\udce9.png"
    (tmp_path / "t.parquet").write_text("no parquet")
    with pytest.raises(LongtailError, match="Parquet"):
        find_images(tmp_path / "t.parquet")
