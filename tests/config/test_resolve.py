"""One configuration of recipe, mode and options: what is laid over what, and what follows from it."""

from __future__ import annotations

import pytest

from longtail.config.build import build
from longtail.config.resolve import complete, resolve
from longtail.errors import UsageError


@pytest.mark.parametrize("recipe", ["images/gcl", "cifar-lt/ce"])
def test_a_fit_goes_over_any_recipe_and_is_crop_by_default(recipe: str) -> None:
    assert resolve({"recipe": recipe}).data.fit == "crop"
    config = resolve({"recipe": recipe, "data.fit": "pad"})
    assert (config.data.fit, config.data.resize) == ("pad", resolve({"recipe": recipe}).data.resize)


def test_the_head_follows_the_loss() -> None:
    for name, head in (("gcl", "cosine"), ("fbl", "linear"), ("ldam", "cosine"), ("cross-entropy", "linear")):
        assert complete(build({"stage1": {"loss": {"name": name}}})).model.head == head


@pytest.mark.parametrize("option", ["stage1.optimizer.lr", "stage2.epochs", "stage2.batch_size", "model.tau"])
def test_what_is_chosen_with_the_classifier_is_refused_where_it_is_given(option: str) -> None:
    given = {"recipe": "images/portfolio", "mode": "linear", "data.source": "digits"}
    assert resolve(given, epochs=3, batch_size=8).stage1.batch_size == 8
    value = 1 if option.startswith("stage2") else 0.5
    with pytest.raises(UsageError, match=option):
        resolve(given | {option: value})
    needed = {"model.standardize": True} if option == "model.tau" else {}
    named = resolve(given | {option: value, "stage1.loss.name": "gcl"} | needed)
    assert named.stage1.loss.name == "gcl"
