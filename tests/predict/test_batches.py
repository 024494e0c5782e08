"""A predictor called on batches of rows, as map_batches of Ray Data calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import longtail
from longtail.errors import LongtailError, UsageError
from longtail.predict import Predictor

COLUMNS = ["prediction", "confidence", "sure", "label_1", "probability_1", "label_2", "probability_2", "problem"]


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(5)
    for name in "abcde":
        Image.fromarray(rng.integers(0, 256, (12, 15, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    return [str(tmp_path / f"{name}.png") for name in "abcde"]


def arrays(paths: list[str]) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def objects(values: list[Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def kinds(paths: list[str]) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    data = [Path(path).read_bytes() for path in paths]
    return {
        "paths": {"path": objects(paths)},
        "paths of numpy": {"path": np.array(paths)},
        "bytes": {"bytes": objects(data)},
        "arrays of one shape": {"image": arrays(paths)},
        "arrays": {"image": objects(list(arrays(paths)))},
        "pictures": {"image": objects([Image.open(path) for path in paths])},
        "as Hugging Face": {"image": objects([{"bytes": each, "path": None} for each in data])},
        "bytes before paths": {"bytes": objects(data), "path": objects(["nowhere.png"] * len(data))},
    }


@pytest.mark.parametrize(
    "kind",
    [
        "paths",
        "paths of numpy",
        "bytes",
        "arrays of one shape",
        "arrays",
        "pictures",
        "as Hugging Face",
        "bytes before paths",
    ],
)
def test_a_batch_gets_the_predictions_of_its_images(kind: str, ready: Path, paths: list[str]) -> None:
    batch = kinds(paths)[kind]
    done = Predictor(ready, top_k=2, batch_size=2)(batch)
    expected = longtail.load(ready).predict(paths, top_k=2)
    assert [name for name in done if name != "path"] == COLUMNS
    assert done["prediction"].tolist() == [row.label for row in expected]
    assert done["sure"].tolist() == ["yes" if row.sure else "no" for row in expected]
    assert done["label_2"].tolist() == [row.top[1][0] for row in expected]
    np.testing.assert_allclose(done["probability_2"], [row.top[1][1] for row in expected], atol=2e-6)
    assert done["confidence"].dtype == np.float64
    assert done["problem"].tolist() == [None] * 5


def test_other_columns_stay_and_pixels_go(ready: Path, paths: list[str]) -> None:
    batch = kinds(paths)["bytes before paths"] | {"id": np.arange(5), "image": arrays(paths)}
    done = Predictor(ready)(batch)
    assert done["id"].tolist() == [0, 1, 2, 3, 4]
    assert done["path"].tolist() == ["nowhere.png"] * 5
    assert not {"bytes", "image"} & done.keys()
    assert [name for name in done if name.startswith("label_")] == ["label_1", "label_2", "label_3"]  # three classes


def test_an_image_that_cannot_be_read_keeps_its_row(ready: Path, paths: list[str]) -> None:
    Path(paths[1]).write_text("no image")
    done = Predictor(ready)({"path": objects([*paths[:2], None, "nowhere.png"])})
    assert [label is None for label in done["prediction"]] == [False, True, True, True]
    assert np.isnan(done["confidence"]).tolist() == [False, True, True, True]
    problems = done["problem"].tolist()
    assert problems[0] is None
    assert "b.png" in problems[1]
    assert "no image in this row" in problems[2]
    assert "nowhere.png" in problems[3]


def test_an_empty_batch_has_the_columns(ready: Path) -> None:
    done = Predictor(ready, top_k=2)({"path": objects([])})
    assert [name for name in done if name != "path"] == COLUMNS
    assert all(len(values) == 0 for values in done.values())


def test_what_it_cannot_be_called_with(ready: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'picture'"):
        Predictor(ready)({"picture": np.zeros((1, 8, 8, 3), np.uint8)})
    with pytest.raises(UsageError, match="top_k"):
        Predictor(ready, top_k=0)
    with pytest.raises(LongtailError, match="run"):
        Predictor(tmp_path / "nowhere")
