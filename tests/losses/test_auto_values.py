"""`auto` strengths: the published value, saved with the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from longtail.config.build import build
from longtail.config.options import merge
from longtail.config.recipes import base_config
from longtail.config.resolve import complete
from longtail.console import Reporter
from longtail.errors import LongtailError
from longtail.losses import LOSSES, build_loss, loss_options, resolve_auto
from longtail.training.launch import start_run


def test_every_automatic_value_is_of_an_option_that_its_loss_has() -> None:
    values = [(name, option) for name, made in LOSSES.items() for option in made.auto_values]
    assert {"gcl", "agcl", "fbl"} <= {name for name, _ in values}
    for name, option in values:
        assert option in loss_options(name)
        build_loss(name, [50] * 9 + [5], {option: "auto"})


def test_a_built_loss_has_the_resolved_scale() -> None:
    assert build_loss("gcl", [500] * 19 + [5], {"scale": "auto"}).logit_scale == 30.0
    assert build_loss("gcl", [500] * 19 + [5], {"scale": 12.0}).logit_scale == 12.0


def test_an_option_without_a_rule_names_those_with_one() -> None:
    with pytest.raises(LongtailError, match=r"scale.*gcl"):
        resolve_auto("gcl", {"margin": "auto"})


def test_a_run_saves_what_auto_came_to(tmp_path: Path) -> None:
    overrides = {
        "data": {"source": "digits", "imbalance_ratio": 10, "image_size": 8},
        "model": {"name": "plain-cnn"},
        "stage1": {"loss": {"options": {"scale": "auto"}}},
        "stage2": {"loss": {"options": {"scale": "auto"}}},
    }
    config = complete(build(merge(base_config("demo/gcl", epochs=1), overrides)))
    metrics = start_run(config, tmp_path / "run", Reporter(quiet=True))
    assert metrics["losses"]["stage1"]["scale"] == 30.0
    assert metrics["losses"]["stage2"]["scale"] == 20.0


@pytest.mark.parametrize(("mode", "strength"), [("linear", 180.0), ("scratch", 60.0)])
def test_on_features_the_strength_of_fbl_is_the_one_measured_there(mode: str, strength: float) -> None:
    overrides = {"stage1": {"loss": {"options": {"strength": "auto"}}}}
    config = complete(build(merge(base_config("images/fbl", mode=mode), overrides)))
    assert config.stage1.loss.options["strength"] == strength
