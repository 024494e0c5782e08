"""The tables of a run."""

from __future__ import annotations

import csv
from pathlib import Path

from longtail.run.tables import write_confusion


def test_the_confusion_matrix_of_many_classes_is_a_list(tmp_path: Path) -> None:
    names = [f"class, {index}" for index in range(1001)]
    write_confusion(tmp_path, {"label": [3, 3, 1000, 3], "prediction": [3, 7, 0, 7]}, names)
    assert list(csv.reader((tmp_path / "confusion.csv").read_text().splitlines())) == [
        ["true", "predicted", "images"],
        [names[3], names[7], "2"],
        [names[3], names[3], "1"],
        [names[1000], names[0], "1"],
    ]
