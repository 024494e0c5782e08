"""One configuration of recipe, mode and options: what is laid over what, and what follows from it."""

from __future__ import annotations

import pytest

from longtail.config.auto import Facts
from longtail.config.build import Document, build, with_options
from longtail.config.options import nested
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


@pytest.mark.parametrize("facts", [None, Facts(images=2700, classes=23, imbalance_ratio=177.0, side=300)])
@pytest.mark.parametrize("in_file", [False, True])
def test_without_a_first_stage_the_epochs_are_those_of_the_second(in_file: bool, facts: Facts | None) -> None:
    recipe = "cifar-lt/gcl" if facts is None else "images/gcl"
    options = {"stage1.epochs": 0, "stage2.optimizer.lr": 0.5}
    file = Document("file.yaml", nested(options)) if in_file else None
    config = resolve({"recipe": recipe} | ({} if in_file else options), file=file, epochs=10, facts=facts)
    assert [stage.epochs for stage in (config.stage1, config.stage2)] == [0, 10]
    assert config.stage2.optimizer.lr == 0.5


@pytest.mark.parametrize("stage", ["stage2", "finetune"])
def test_a_new_classifier_of_a_stage_that_trains_all_is_refused_and_stored_runs_go_on(stage: str) -> None:
    options = {f"{stage}.epochs": 2, f"{stage}.train": "all"}
    config = resolve({"recipe": "cifar-lt/ce"}, options)
    with pytest.raises(UsageError, match=f"--{stage}.reset_classifier false") as error:
        resolve({"recipe": "cifar-lt/ce"}, options, {f"{stage}.reset_classifier": True})
    assert "--finetune.train" not in str(error.value)  # which takes nothing but all
    stored = with_options(config, {f"{stage}.reset_classifier": True})
    assert complete(stored) == stored
