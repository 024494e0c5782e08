"""Model files of a stranger: nothing in them runs, and nothing in them makes us allocate what the weights do not."""

from __future__ import annotations

import json
import os
import pickle
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import longtail
from longtail.config.recipes import load_recipe
from longtail.errors import LongtailError
from longtail.run.model_files import load_info, load_model


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def change(untrained_run: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    def made(**entries: Any) -> Path:
        run = untrained_run(tmp_path / "run")
        data = json.loads((run / "model.json").read_text())
        for key, value in entries.items():
            data[key] = data[key] | value if isinstance(value, dict) else value
        (run / "model.json").write_text(json.dumps(data))
        return run

    return made


def test_a_pickle_instead_of_weights_is_not_opened(untrained_run: Callable[..., Path], tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    (run / "model.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(LongtailError, match="damaged"):
        longtail.load(run)
    pickle.loads((run / "model.safetensors").read_bytes())
    assert (tmp_path / "mark").exists()  # it would have gone off


def test_yaml_that_would_run_code_is_refused(tmp_path: Path) -> None:
    text = f"!!python/object/apply:os.mkdir ['{tmp_path}/mark']"
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(LongtailError):
        load_recipe(str(tmp_path / "config.yaml"))
    assert not (tmp_path / "mark").exists()
    yaml.unsafe_load(text)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "timm:hf-hub:a/b",
        "timm:hf_hub:a/b",
        "timm:local-dir:/tmp",
        "hf-hub:a/b",
        "timm:../x",
        "longtail.cli",
    ],
)
def test_a_name_imports_and_fetches_nothing(name: str, change: Callable[..., Path]) -> None:
    with pytest.raises(LongtailError, match="no network"):
        load_model(change(model={"name": name}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"preprocessing": {"size": 10**9}}, "preprocessing.size"),
        ({"preprocessing": {"resize": 10**9}}, "preprocessing.resize"),
        ({"preprocessing": {"size": -1}}, "preprocessing.size"),
        ({"preprocessing": {"std": [0, 1, 1]}}, "preprocessing.std.0"),
        ({"preprocessing": {"mean": [0.5] * 9}}, "preprocessing.mean"),
        ({"logit_scale": float("inf")}, "JSON"),
        ({"classes": [], "counts": [], "adjustment": None}, "'classes'"),
        ({"counts": [1, 2, -3]}, "counts.2"),
        ({"model": {"name": "timm:vit_huge_patch14_224"}}, "patches"),
        ({"model": {"name": "timm:vit_huge_patch14_224"}, "preprocessing": {"size": 14}}, "another model"),
        ({"model": {"name": "timm:vit_huge_patch14_224+bottleneck"}, "preprocessing": {"size": 14}}, "network"),
    ],
)
def test_absurd_sizes_are_refused_without_allocating(
    entries: dict[str, Any], message: str, change: Callable[..., Path]
) -> None:
    run = change(**entries)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LongtailError, match=message):
        load_model(run)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes; that network has 2.5 GB


@pytest.mark.parametrize("text", ["[" * 200_000, '{"format_version": ' + "9" * 5000 + "}", '{"a": 1' * 2, "\0"])
def test_json_that_breaks_a_parser_is_one_sentence(
    text: str, untrained_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = untrained_run(tmp_path / "run")
    (run / "model.json").write_text(text)
    with pytest.raises(LongtailError, match=r"model\.json .*JSON"):
        load_info(run)


def test_a_header_that_claims_more_than_the_file_holds(untrained_run: Callable[..., Path], tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    header = json.dumps({"head.weight": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    (run / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 64)
    with pytest.raises(LongtailError, match="damaged"):
        longtail.load(run)


def test_a_run_of_an_older_version_predicts_the_same(untrained_run: Callable[..., Path], tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    data = json.loads((run / "model.json").read_text())
    old = {key: data[key] for key in ("model", "classes", "counts", "preprocessing", "logit_scale", "format_version")}
    new = data | {"adjustment": None, "threshold": None, "prior": "train"}
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    answers = []
    for content in (old, new):
        (run / "model.json").write_text(json.dumps(content))
        answers.append(longtail.load(run).probabilities(image))
    assert np.array_equal(*answers)
    assert longtail.load(run).predict(image)[0].sure is None
