"""`auto` strengths: the published value where it was published, more scale for more classes, saved with the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from longtail.errors import LongtailError
from longtail.losses.auto import RULES, auto_scale, resolve_auto
from longtail.losses.registry import build_loss, loss_options
from longtail.training.progress import Reporter
from longtail.training.recipe import base_config, config_from_dict, merge
from longtail.training.run import start_run


def test_the_scale_is_the_published_one_for_a_hundred_classes_and_grows_with_the_logarithm() -> None:
    assert auto_scale(100) == pytest.approx(30.0)
    scales = [auto_scale(classes) for classes in (2, 5, 20, 100, 1000, 8142)]
    assert scales == sorted(scales)
    assert scales[-1] < 2 * auto_scale(100)


@pytest.mark.parametrize("classes", [2, 5, 100, 8142])
def test_the_best_class_reaches_nine_tenths_at_the_same_gap_for_any_number_of_classes(classes: int) -> None:
    gap = torch.log(torch.tensor(99 * 9.0)) / 30.0
    cosines = torch.zeros(classes)
    cosines[0] = gap
    assert (auto_scale(classes) * cosines).softmax(0)[0].item() == pytest.approx(0.9, abs=1e-4)


def test_every_rule_is_of_an_option_that_its_loss_has() -> None:
    for name, option in RULES:
        assert option in loss_options(name)
        build_loss(name, [50] * 9 + [5], {option: "auto"})


def test_a_built_loss_has_the_resolved_scale() -> None:
    assert build_loss("gcl", [500] * 19 + [5], {"scale": "auto"}).logit_scale == pytest.approx(22.7)
    assert build_loss("gcl", [500] * 19 + [5], {"scale": 12.0}).logit_scale == 12.0


def test_an_option_without_a_rule_names_those_with_one() -> None:
    with pytest.raises(LongtailError, match=r"no rule for margin: auto; there is one for scale of gcl"):
        resolve_auto("gcl", {"margin": "auto"}, [5, 5])


def test_a_run_saves_what_auto_came_to(tmp_path: Path) -> None:
    own = {
        "data": {"source": "digits", "imbalance_ratio": 10, "image_size": 8}, "model": {"name": "plain-cnn"},
        "stage1": {"loss": {"options": {"scale": "auto"}}},
    }  # fmt: skip
    config = config_from_dict(merge(base_config("demo/gcl", epochs=1), own))
    metrics = start_run(config, tmp_path / "run", Reporter(quiet=True))
    assert metrics["losses"]["stage1"]["scale"] == pytest.approx(19.4)
    assert metrics["losses"]["stage2"]["scale"] == 20.0
