"""The path of a SOURCE: absolute for the run, short for whoever reads of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from longtail.data.sources.builtin import NAMES, PACKAGED
from longtail.data.sources.registry import absolute_source, source_path


def test_packaged_sources_have_a_name() -> None:
    assert set(NAMES) > PACKAGED


@pytest.mark.parametrize("prefix", ["", "folder:", "csv:", "parquet:", "hf:"])
def test_a_path_becomes_absolute_once(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    absolute = absolute_source(f"{prefix}photos")
    assert absolute == f"{prefix}{tmp_path / 'photos'}"
    assert absolute_source(absolute) == absolute
    assert source_path(absolute) == tmp_path / "photos"


@pytest.mark.parametrize("name", ["digits", "cifar10", "hf:owner/set", ""])
def test_names_stay_as_they_are(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (absolute_source(name), source_path(name)) == (name, None)
