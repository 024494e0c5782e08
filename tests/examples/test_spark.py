"""The Spark example predicts each image of a folder once, where PySpark and a Java runtime are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

import longtail

SCRIPT = Path(__file__).parents[2] / "examples" / "spark_predict.py"


@pytest.mark.skipif(find_spec("pyspark") is None, reason="PySpark is not installed: pip install pyspark")
@pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java runtime")
def test_each_image_is_in_the_answers_once(ready: Path, make_folder, tmp_path: Path) -> None:
    photos = make_folder({"a/cat": 3, "b/dog": 2})
    (photos / "b" / "broken.png").write_bytes(b"no image")
    environment = os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, str(SCRIPT), str(ready), str(photos), str(tmp_path / "answers")]
    subprocess.run(words, check=True, env=environment, capture_output=True)
    rows = pd.read_parquet(tmp_path / "answers").set_index("path")
    files = sorted(path for path in photos.rglob("*.png"))
    assert sorted(rows.index) == [f"file:{path}" for path in files]
    expected = longtail.load(ready).predict(photos)
    for each in expected:
        row = rows.loc[f"file:{photos / each.name}"]
        assert pd.isna(row["prediction"]) == bool(each.problem) != pd.isna(row["problem"])
        if not each.problem:
            assert row["prediction"] == each.label
            assert row["confidence"] == pytest.approx(each.confidence, abs=1e-5)
