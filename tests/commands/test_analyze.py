"""`longtail analyze`: what it prints, and the options it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longtail.run.model_files import load_info

Call = Callable[..., Any]


def test_it_reports_the_images_of_each_split(cli: Call, finished: Any, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    done = cli("analyze", run, "--projection", "none")
    assert done.status == 0, done.err
    tested = json.loads((run / "metrics.json").read_text())["test"]["num_images"]
    assert all(words in done.out for words in (f"{sum(load_info(run).counts)} training", f"{tested} test"))


@pytest.mark.parametrize(
    ("words", "status", "key"),
    [
        (("--projection", "tnse"), 1, "'tsne'"),
        (("--projection", "none,pca"), 2, "none"),
        (("--seed", "-1"), 2, "--seed"),
    ],
)
def test_wrong_options_are_refused(cli: Call, finished: Any, words: tuple[str, ...], status: int, key: str) -> None:
    refused = cli("analyze", finished.folder, *words)
    assert (refused.status, key in refused.complaint) == (status, True)


def test_a_run_that_does_not_exist_is_named(cli: Call) -> None:
    assert "nowhere" in cli("analyze", "nowhere").complaint
