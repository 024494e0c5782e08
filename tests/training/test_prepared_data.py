"""Prepared data: facts for the automatic choices, and folds that cannot be cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from longtail.config.build import build
from longtail.config.options import nested
from longtail.config.schema import DataConfig
from longtail.data.dataset import ImageData, Split
from longtail.errors import LongtailError
from longtail.training import prepared_data
from longtail.training.engine import Engine
from longtail.training.prepared_data import inspect_environment, make_transform, prepare_data


def test_it_looks_at_the_images_themselves() -> None:
    facts, _ = inspect_environment(build({"data": {"source": "digits", "imbalance_ratio": 10.0}}))
    assert (facts.classes, facts.side, facts.gpu, facts.hub, facts.cached) == (10, 8, "", False, frozenset())
    assert facts.imbalance_ratio > 9
    assert 300 < facts.images < 900


def test_images_are_listed_where_other_processes_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    events, agree, read = list[str](), Engine.agree, prepared_data.read_source

    def recorded_agree(engine: Engine, make: Callable[[], Any], facts: Any) -> Any:
        events.append("wait")
        made = agree(engine, make, facts)
        events.append("done")
        return made

    def recorded_read(config: DataConfig) -> ImageData:
        events.append("list")
        return read(config)

    monkeypatch.setattr(Engine, "agree", recorded_agree)
    monkeypatch.setattr(prepared_data, "read_source", recorded_read)
    inspect_environment(build({"data": {"source": "digits"}}))
    assert events == ["wait", "list", "done"]


@pytest.mark.parametrize(
    ("options", "is_asked"),
    [
        ({}, True),
        ({"model.name": "timm:resnet50"}, False),
        ({"recipe": "images/gcl"}, False),
        ({"mode": "lora"}, False),
    ],
)
def test_networks_are_fetched_only_where_they_are_compared(
    options: dict[str, str], is_asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def networks(*, download: bool, ask: object) -> tuple[()]:
        del ask
        asked.append(download)
        return ()

    monkeypatch.setattr(prepared_data, "candidate_networks", networks)
    config = build(nested({"data.source": "digits", **options}))
    inspect_environment(config, given=options, download=True, ask=lambda _: True)
    assert asked == [is_asked]


def _source(monkeypatch: pytest.MonkeyPatch, counts: Sequence[int], films: Sequence[object] | None = None) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    split = Split.from_arrays(
        np.zeros((len(labels), 2, 2), np.uint8), labels, None if films is None else {"film": films}
    )
    data = ImageData("mine", tuple(map(str, range(len(counts)))), {"train": split, "test": split.select([0])})
    monkeypatch.setattr("longtail.training.prepared_data.load_source", lambda *_, **__: data)


def test_a_class_too_small_for_the_folds_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    _source(monkeypatch, [9, 2, 1])
    tested = np.zeros(3, dtype=int)
    for fold in range(3):
        prepared = prepare_data(DataConfig(source="mine", folds=3, fold=fold, validation_fraction=0))
        tested += np.bincount(prepared.data.splits["test"].labels, minlength=3)
        assert min(prepared.counts) >= 1
    assert tested.tolist() == [9, 2, 0]
    untouched, never = prepared.notes
    assert "test split" in untouched
    assert never.startswith("1 of 12 images")
    assert "'2' 1 (" in never


def test_what_shares_the_only_group_of_a_class_is_never_judged_and_counted_by_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The only images of class 2 are in film a, with three of class 0.
    _source(monkeypatch, [12, 6, 2], ["a"] * 3 + ["b", "c", "d"] * 3 + ["b", "c", "d"] * 2 + ["a"] * 2)
    prepared = prepare_data(DataConfig(source="mine", folds=3, fold=0, group_column="film", validation_fraction=0))
    note = prepared.notes[-1]
    assert note.startswith("5 of 20 images")
    assert "'0' 3, '2' 2 (" in note


def test_one_run_needs_to_know_its_fold() -> None:
    with pytest.raises(LongtailError, match=r"--data\.fold"):
        prepare_data(DataConfig(source="digits", folds=3))


def test_a_configurations_options_reach_the_batch() -> None:
    config = DataConfig(policy="rand-augment", policy_operations=1, policy_magnitude=4, cutout=8)
    transform = make_transform(config)
    assert (transform.policy, transform.policy_operations, transform.policy_magnitude) == ("rand-augment", 1, 4)
    assert transform.cutout == 8
