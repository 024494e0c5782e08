"""`--recipe auto`: the table, what it looks at, and that what the user says wins."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from command_line import requested as read

from longtail.commands.output import outline, outlines
from longtail.config.auto import PACKAGED, STRONG, TOPICS, Facts, choose
from longtail.config.build import build, with_options
from longtail.config.checks import check_config
from longtail.config.resolve import is_whole, resolve
from longtail.config.schema import Choice, RunConfig
from longtail.errors import LongtailError, UsageError
from longtail.experiments.grid_plan import plan_grid, recipe_grid
from longtail.files import write_yaml
from longtail.training import prepared_data

PHOTOS = Facts(images=2700, classes=23, imbalance_ratio=177.0, side=300, packaged=True)
TABLE = [
    (PHOTOS, PACKAGED, "linear", "images/portfolio", 224),
    (replace(PHOTOS, packaged=False, hub=True), PACKAGED, "linear", "images/portfolio", 224),
    (replace(PHOTOS, gpu="H", hub=True), PACKAGED, "finetune", "images/logit-adjustment", 224),
    (replace(PHOTOS, gpu="H", hub=True, candidates=(STRONG,)), STRONG, "finetune", "images/logit-adjustment", 224),
    (replace(PHOTOS, gpu="H", candidates=(STRONG,), images=400), STRONG, "linear", "images/portfolio", 224),
    (replace(PHOTOS, gpu="H"), PACKAGED, "finetune", "images/logit-adjustment", 224),
    (replace(PHOTOS, packaged=False), "resnet20", "scratch", "images/logit-adjustment", 64),
    (replace(PHOTOS, packaged=False, gpu="H"), "timm:resnet18", "scratch", "images/logit-adjustment", 224),
    (replace(PHOTOS, packaged=False, cached=frozenset({PACKAGED})), PACKAGED, "linear", "images/portfolio", 224),
    (replace(PHOTOS, gpu="H", cached=frozenset({STRONG})), STRONG, "finetune", "images/logit-adjustment", 224),
    (replace(PHOTOS, imbalance_ratio=1.5), PACKAGED, "linear", "images/portfolio", 224),
    (replace(PHOTOS, side=32), PACKAGED, "linear", "images/portfolio", 224),
    (replace(PHOTOS, side=32, packaged=False), "resnet32", "scratch", "images/logit-adjustment", 32),
    (replace(PHOTOS, side=32, images=300), PACKAGED, "linear", "images/portfolio", 224),
    (replace(PHOTOS, side=32, images=300, packaged=False), "resnet32", "scratch", "images/logit-adjustment", 32),
]


@pytest.mark.parametrize(("facts", "model", "mode", "recipe", "size"), TABLE)
def test_the_table(facts: Facts, model: str, mode: str, recipe: str, size: int) -> None:
    values, choices = choose(facts)
    config = build(values)
    check_config(config)
    assert (config.model.name, config.mode, config.recipe, config.data.image_size) == (model, mode, recipe, size)
    assert config.model.pretrained == (mode != "scratch")
    length = "auto" if mode == "linear" or not facts.gpu else "recipe"
    assert [choice.by for choice in choices] == ["auto"] * 4 + [length]
    assert [line.partition(":")[0] for line in outline(replace(config, reasons=choices))] == [
        "backbone",
        "image size",
        "training",
        "recipe",
        "length",
    ]


@pytest.mark.parametrize(("given", "size"), [(None, 224), (126, 126)])
def test_a_transformer_for_very_large_images_is_shown_usual_ones(given: int | None, size: int) -> None:
    values, choices = choose(PHOTOS, model="timm:vit_small_patch14_dinov2.lvd142m", image_size=given)
    assert values["data"]["image_size"] == size
    assert choices[1].by == ("user" if given else "auto")


@pytest.mark.parametrize(("images", "epochs", "batch"), [(100, 100, 64), (2700, 71, 64), (500_000, 10, 256)])
def test_the_length_of_linear_training_follows_the_images(images: int, epochs: int, batch: int) -> None:
    values, _ = choose(replace(PHOTOS, images=images), recipe="images/gcl")
    assert (values["stage1"]["epochs"], values["stage1"]["batch_size"]) == (epochs, batch)


@pytest.mark.parametrize(("images", "epochs", "batch"), [(100, 64, 16), (2700, 38, 256), (500_000, 8, 512)])
def test_a_classifier_that_is_chosen_takes_few_steps_on_one_view(images: int, epochs: int, batch: int) -> None:
    values, _ = choose(replace(PHOTOS, images=images))
    stage = values["stage1"]
    assert (stage["loss"]["name"], stage["epochs"], stage["batch_size"]) == ("auto", epochs, batch)
    assert (stage["cached_views"], values["data"]["augmentation"]) == (1, "none")
    assert choose(replace(PHOTOS, images=images), epochs=3)[0]["stage1"]["epochs"] == 3


def test_too_few_images_to_hold_some_out_take_a_method_that_is_named() -> None:
    assert choose(replace(PHOTOS, images=40))[0]["recipe"] == "images/logit-adjustment"


@pytest.mark.parametrize(("images", "epochs"), [(100, 100), (2700, 37), (50_000, 5)])
def test_from_nothing_and_without_a_gpu_training_is_short_and_names_the_remedy(images: int, epochs: int) -> None:
    values, choices = choose(replace(PHOTOS, packaged=False, images=images))
    assert values["stage1"]["epochs"] == epochs
    assert "'longtail[weights]'" in choices[0].reason
    assert choose(replace(PHOTOS, packaged=False, images=images, gpu="H"))[0]["stage1"]["epochs"] == 100
    asked, why = choose(replace(PHOTOS, images=images), mode="scratch")
    assert (asked["model"]["name"], asked["stage1"]["epochs"], "pip" in why[0].reason) == ("resnet20", epochs, False)
    for facts in (replace(PHOTOS, gpu="H", hub=True), replace(PHOTOS, gpu="H", cached=frozenset({STRONG}))):
        asked, why = choose(facts, mode="scratch")
        assert (asked["model"]["name"], asked["model"]["pretrained"]) == ("timm:resnet18", False)
        assert "weights" not in why[0].reason
    # Where weights are what was asked for, their network is named, so that building it says how to get them.
    needs = choose(replace(PHOTOS, packaged=False), mode="linear")[0]["model"]
    assert (needs["name"], needs["pretrained"]) == (PACKAGED, True)


def test_a_network_of_ones_own_is_pretrained_where_its_weights_are_on_the_machine() -> None:
    offline = replace(PHOTOS, packaged=False)
    assert choose(offline, model="timm:resnet50")[0]["mode"] == "scratch"
    assert choose(replace(offline, cached=frozenset({"timm:resnet50"})), model="timm:resnet50")[0]["mode"] == "linear"


def test_without_a_time_limit_only_what_the_images_raise_is_compared() -> None:
    assert build(choose(PHOTOS)[0]).search == RunConfig().search
    long = replace(PHOTOS, elongated=0.5, candidates=("timm:resnet50", PACKAGED))
    search = build(choose(long)[0]).search
    assert (search.fits, search.networks) == (["crop", "pad", "stretch"], [PACKAGED, "timm:resnet50"])
    assert (search.sizes, search.finetuning) == ([], False)
    assert "crop, pad or stretch" in outline(replace(build(choose(long)[0]), reasons=choose(long)[1]))[1]


def test_the_fit_of_the_weights_is_the_first_that_is_compared() -> None:
    model = "timm:coat_lite_medium_384"
    config = choose(replace(PHOTOS, elongated=0.5, cached=frozenset({model})), model=model)[0]
    assert config["search"]["fits"] == ["stretch", "crop", "pad"]


def test_a_time_limit_opens_the_size_and_fine_tuning() -> None:
    search = build(choose(PHOTOS, time_limit=600.0)[0]).search
    assert (search.sizes, search.finetuning) == ([96, 128, 160, 224], True)
    assert not choose(PHOTOS, time_limit=600.0, mode="linear")[0]["search"]["finetuning"]
    values, choices = choose(PHOTOS, time_limit=600.0)
    limited = with_options(build(values), {"training.time_limit": 600.0})
    _, size, mode, *_ = outline(replace(limited, reasons=choices))
    assert "96, 128, 160 or 224 pixels" in size
    assert all(words in size for words in ("compared", "2,000", "10 minutes"))
    assert "all of the network" in mode
    assert "stays as it is" not in mode  # what is still to be compared has no other reason yet


def test_a_loss_that_is_named_leaves_neither_networks_nor_fine_tuning_open() -> None:
    words = ["digits", "--out", "x", "--training.time_limit", "600", "--recipe", "images/portfolio"]
    assert read(*words).search.finetuning
    search = read(*words, "--stage1.loss.name", "gcl").search
    assert (search.finetuning, search.networks, search.sizes) == (False, [], [96, 128, 160, 224])


def test_sizes_that_a_network_does_not_take_are_not_compared() -> None:
    halo = "timm:halonet26t.a1h_in1k"  # whose blocks of 8 pixels divide 256 alone
    assert choose(PHOTOS, model=halo, mode="linear", time_limit=600.0)[0]["search"]["sizes"] == []
    with pytest.raises(UsageError, match="16 pixels"):
        resolve({"model.name": "timm:convnext_atto", "data.image_size": 32, "search.sizes": [16, 32]})


def test_for_tiny_images_a_network_from_nothing_is_tried_too_unless_it_would_replace_what_was_given() -> None:
    tiny = replace(PHOTOS, side=32)
    assert build(choose(tiny, time_limit=600.0, given={"data.fit"})[0]).search.from_nothing == "resnet32"
    assert not build(choose(tiny, time_limit=600.0, given={"finetune.epochs"})[0]).search.finetuning
    replaced = "model.name model.head data.image_size data.augmentation data.mean stage1.batch_size finetune.sampler"
    for options in (
        {"facts": PHOTOS},
        {"mode": "linear"},
        {"epochs": 20},
        {"recipe": "images/portfolio"},
        *({"given": {option}} for option in replaced.split()),
    ):
        assert not build(choose(**{"facts": tiny, "time_limit": 600.0} | options)[0]).search.from_nothing, options


def test_options_of_fine_tuning_are_those_of_its_trial() -> None:
    words = ["digits", "--out", "x", "--finetune.augmentation", "none"]
    config = read(*words, "--training.time_limit", "600")
    assert (config.search.finetuning, config.finetune.augmentation) == (True, "none")
    plain = read("digits", "--out", "x", "--data.augmentation", "none", "--training.time_limit", "600")
    assert (plain.search.finetuning, plain.finetune.augmentation) == (True, None)  # that of the data
    assert read(*words, "--finetune.epochs", "2").finetune.augmentation == "none"
    for without_a_trial in ([], ["--training.time_limit", "600", "--mode", "linear"]):
        with pytest.raises(UsageError, match=r"finetune\.augmentation"):
            read(*words, *without_a_trial)
    with pytest.raises(UsageError, match=r"finetune\.sampler"):  # before anything is trained
        read("digits", "--out", "x", "--finetune.sampler", "unheard-of", "--training.time_limit", "600")


@pytest.mark.parametrize("given", [["--training.time_limit", "600"], ["--finetune.epochs", "2"]])
def test_a_loss_of_fine_tuning_that_needs_a_cosine_classifier_leaves_no_other_to_be_chosen(given: list[str]) -> None:
    words = ["digits", "--out", "x", *given, "--finetune.loss.name"]
    assert read(*words, "gcl").model.head == "cosine"
    assert read(*words, "kps", "--model.head", "cosine").model.head == "cosine"
    assert read(*words, "cross-entropy").model.head == "auto"
    with pytest.raises(UsageError, match=r"model\.head"):
        read(*words, "gcl", "--model.head", "linear")


def test_sizes_of_fine_tuning_need_the_size_that_they_are_scaled_down_from() -> None:
    words = ["digits", "--out", "x", "--training.time_limit", "600", "--finetune.image_sizes", "[128, 224]"]
    with pytest.raises(UsageError, match=r"data\.image_size"):
        read(*words)
    assert read(*words, "--data.image_size", "224").finetune.image_sizes == [128, 224]


def test_what_the_user_gives_is_not_compared() -> None:
    facts = replace(PHOTOS, elongated=0.5, candidates=(PACKAGED, "timm:resnet50"))
    given = {"data.image_size", "data.fit", "model.name"}
    search = build(choose(facts, image_size=128, model=PACKAGED, given=given, time_limit=600.0)[0]).search
    assert (search.networks, search.sizes, search.fits) == ([], [], [])
    patches = replace(facts, candidates=(PACKAGED, "timm:vit_small_patch14_dinov2.lvd142m", "timm:resnet50"))
    search = build(choose(patches, image_size=128, given={"data.image_size"})[0]).search
    assert search.networks == [PACKAGED, "timm:resnet50"]  # those that take 128 pixels
    assert len(build(choose(patches)[0]).search.networks) == 3
    for option in ("data.resize", "data.mean", "model.weights"):
        assert not build(choose(patches, given={option})[0]).search.networks
    config = read("digits", "--out", "x", "--mode", "linear", "--data.image_size", "64", "--training.time_limit", "600")
    assert (config.search.sizes, config.training.time_limit) == ([], 600.0)


def test_what_the_user_chooses_is_kept_and_said() -> None:
    values, choices = choose(PHOTOS, recipe="images/gcl", mode="finetune", model="timm:resnet50", epochs=3)
    assert (values["model"]["name"], values["mode"], values["recipe"]) == ("timm:resnet50", "finetune", "images/gcl")
    assert (values["stage1"]["epochs"], values["data"]["resize"]) == (3, 235)
    assert [choice.option for choice in choices if choice.by == "user"] == ["model.name", "mode", "recipe"]
    assert sum("(yours)" in line for line in outline(replace(build(values), reasons=choices))) == 3


def test_the_command_line_needs_neither_recipe_nor_model() -> None:
    config = read("digits", "--out", "run", "--imbalance-ratio", "50")
    assert config.recipe == "images/portfolio"
    assert [choice.option for choice in config.reasons] == list(TOPICS)
    assert outline(config)[0].startswith("backbone: ")
    named = read("digits", "--out", "run", "--recipe", "auto", "--stage1.batch_size", "32", "--model.name", "resnet20")
    assert (named.stage1.batch_size, named.model.name) == (32, "resnet20")
    assert named.recipe == "images/ce"  # the digits are balanced
    assert (named.mode, named.model.pretrained, named.data.image_size) == ("scratch", False, 32)
    check_config(named)


def test_a_large_network_that_nobody_named_is_fetched_only_if_the_user_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = replace(PHOTOS, hub=True)
    asked: list[str] = []

    def refuse(question: str) -> bool:
        asked.append(question)
        return False

    monkeypatch.setattr(prepared_data, "inspect_environment", lambda *_, **__: (facts, None))
    monkeypatch.setattr("longtail.models.candidate_networks.has_weights", lambda name: name == PACKAGED)
    monkeypatch.setattr("longtail.commands.output.ask_on_terminal", lambda: refuse)
    words = ["digits", "--out", "run", "--mode"]
    with pytest.raises(LongtailError, match="weights"):
        read(*words, "lora")
    read(*words, "linear")
    read(*words, "lora", "--download")
    read(*words, "lora", "--model.name", "timm:vit_tiny_patch16_224")
    assert len(asked) == 1
    monkeypatch.setattr("longtail.commands.output.ask_on_terminal", lambda: None)  # nobody can be asked
    with pytest.raises(LongtailError, match="--download"):
        read(*words, "lora")
    read(*words, "lora", "--download")


def test_the_reasons_are_those_of_what_is_trained() -> None:
    words = ["--stage1.epochs", "2", "--stage1.loss.name", "gcl", "--model.pretrained", "false", "--mode", "linear"]
    config = read("digits", "--out", "run", "--data.image_size", "112", *words)
    assert [choice.by for choice in config.reasons] == ["user"] * 5
    assert [choice.value for choice in config.reasons] == [PACKAGED, 112, "linear", "images/ce", 2]
    key_words = ((PACKAGED, "without"), ("112",), ("linear",), ("images/ce", "gcl"), ("2", "64"))
    for line, words in zip(outline(config), key_words, strict=True):
        assert all(word in line for word in (*words, "(yours)"))
    assert config.data.resize == 128  # as much of the image stays in sight
    assert read("--data.source", "digits", "--out", "run").reasons


def test_a_recipe_for_any_images_leaves_the_rest_to_be_chosen() -> None:
    config = read("digits", "--out", "run", "--recipe", "images/gcl")
    assert (config.recipe, config.model.name, config.mode) == ("images/gcl", PACKAGED, "linear")
    assert len(config.reasons) == 5


@pytest.mark.parametrize(
    ("words", "epochs", "options"),
    [
        ((), None, []),
        (("--epochs", "3", "--mode", "linear", "--data.image_size", "96"), 3, ["mode=linear", "data.image_size=96"]),
    ],
)
def test_a_grid_chooses_what_train_chooses(words: tuple[str, ...], epochs: int | None, options: list[str]) -> None:
    given = recipe_grid("digits", ["images/gcl", "auto"], epochs=epochs, options=["data.imbalance_ratio=10", *options])
    grid = plan_grid(given | {"out": "/runs"})
    for run, recipe in zip(grid.runs, ("images/gcl", "auto"), strict=True):
        alone = read("digits", "--out", "run", "--imbalance-ratio", "10", "--recipe", recipe, *words)
        assert run.config == alone
    assert plan_grid(grid.spec).runs == grid.runs
    outline = outlines({run.name: run.config for run in grid.runs})
    assert [line.partition(":")[0] for line in outline].count("backbone") == 1
    assert any(line.startswith("gcl: recipe: images/gcl (yours)") for line in outline)


@pytest.mark.parametrize("images", [200, 2700])
@pytest.mark.parametrize("batch_size", [None, 128])
@pytest.mark.parametrize(("recipe", "loss"), [("auto", None), ("images/portfolio", None), ("images/gcl", "auto")])
def test_a_grid_leaves_to_a_classifier_to_be_chosen_what_follows_from_it(
    images: int, batch_size: int | None, recipe: str, loss: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_data, "inspect_environment", lambda *_, **__: (replace(PHOTOS, images=images), None))
    options = ["stage1.loss.name=auto"] if loss else []
    given = recipe_grid("digits", [recipe], batch_size=batch_size, options=options)
    grid = plan_grid(given | {"out": "/runs"})
    words = [
        *(["--batch-size", str(batch_size)] if batch_size else []),
        *(["--stage1.loss.name", loss] if loss else []),
    ]
    alone = read("digits", "--out", "run", "--recipe", recipe, *words)
    (run,) = grid.runs
    assert run.config.is_to_be_chosen
    assert replace(run.config, stage2=alone.stage2) == alone
    assert plan_grid(grid.spec).runs == grid.runs


def test_a_grid_that_varies_the_network_leaves_a_named_recipe_as_it_is() -> None:
    varied = {"vary": {"model.name": ["resnet20", "resnet32"]}, "out": "/runs"}
    grid = plan_grid(recipe_grid("digits", ["images/gcl"], options=["mode=scratch"]) | varied)
    assert [(run.config.model.name, run.config.stage1.epochs) for run in grid.runs] == [
        ("resnet20", 100),
        ("resnet32", 100),
    ]
    assert not any(run.config.reasons for run in grid.runs)


def test_modes_that_do_not_fit_tiny_images_get_a_network_they_fit() -> None:
    tiny = replace(PHOTOS, side=32)
    assert choose(tiny, mode="linear")[0]["model"]["name"] == PACKAGED
    assert choose(tiny, mode="lora")[0]["model"]["name"].startswith("timm:vit_")
    assert choose(tiny, mode="scratch")[0]["model"]["name"] == "resnet32"


@pytest.mark.parametrize(("flag", "value"), [("--mode", "linear"), ("--recipe", "images/ce")])
def test_a_whole_configuration_and_what_it_holds_exclude_each_other(flag: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(asdict(RunConfig())))
    with pytest.raises(LongtailError, match=f"leave out {flag}"):
        read("digits", "--out", "run", "--config", str(tmp_path / "config.yaml"), flag, value)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("data: {image_size: 8}\nstage1: {epochs: 7}", ["--data.image_size", "8", "--stage1.epochs", "7"]),
        ("recipe: images/gcl\nmode: scratch", ["--recipe", "images/gcl", "--mode", "scratch"]),
        ("recipe: auto\nmodel: {name: resnet20}", ["--model.name", "resnet20"]),
        (
            "recipe: cifar-lt/gcl\nstage1: {optimizer: {lr: 1e-2}}",
            ["--recipe", "cifar-lt/gcl", "--stage1.optimizer.lr", "0.01"],
        ),
        (
            "data: {imbalance_ratio: 50, source: digits}\nstage1: {loss: {name: gcl, options: {noise: 0.3}}}",
            ["--imbalance-ratio", "50", "--stage1.loss.name", "gcl", "--stage1.loss.options.noise", "0.3"],
        ),
    ],
)
@pytest.mark.parametrize("epochs", [[], ["--epochs", "9"]])
def test_a_file_of_some_options_is_completed_as_those_options_on_the_command_line(
    text: str, flags: list[str], epochs: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    by_file = read("digits", "--out", "run", "--config", str(tmp_path / "mine.yaml"), *epochs)
    by_flags = read("digits", "--out", "run", *flags, *epochs)
    if epochs and "--stage1.epochs" in flags:  # what is said later wins: the file is scaled, the flag stands
        assert (by_file.stage1.epochs, by_flags.stage1.epochs) == (9, 7)
        by_file = replace(with_options(by_file, {"stage1.epochs": 7}), reasons=by_flags.reasons)
    assert by_file == by_flags
    assert bool(by_file.reasons) == ("cifar-lt" not in text)


def test_what_was_chosen_on_one_machine_is_not_chosen_again_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = replace(PHOTOS, gpu="H", cached=frozenset({STRONG}))
    monkeypatch.setattr(prepared_data, "inspect_environment", lambda *_, **__: (facts, None))
    made = read("digits", "--out", "run")
    assert (made.model.name, made.mode) == (STRONG, "finetune")
    assert made.training.precision != "auto"
    write_yaml(tmp_path / "config.yaml", asdict(made))
    monkeypatch.setattr(prepared_data, "inspect_environment", lambda *_, **__: pytest.fail("the images were looked at"))
    monkeypatch.setattr("longtail.device.fast_precision", lambda _: pytest.fail("a precision was chosen"))
    again = read("--out", "run", "--config", str(tmp_path / "config.yaml"))
    assert asdict(again) == asdict(made) | {"reasons": []}
    values = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert is_whole(values)
    for old in ("mode", "reasons"):  # as the first version wrote it
        del values[old]
    assert is_whole(values)
    del values["stage1"]["epochs"]
    assert not is_whole(values)


def test_a_recipe_that_is_named_is_not_chosen_for() -> None:
    config = read("digits", "--out", "run", "--recipe", "cifar-lt/gcl")
    assert (config.recipe, config.mode, config.reasons) == ("cifar-lt/gcl", "", [])
    assert read("digits", "--out", "run", "--recipe", "images/gcl", "--mode", "finetune").mode == "finetune"


def test_what_is_trained_is_said_where_nothing_was_chosen() -> None:
    network, first, second = outline(resolve({"recipe": "cifar-lt/gcl"}, epochs=30))
    assert all(word in network for word in ("resnet32", "32 pixels", "cosine", "cifar-lt/gcl", "from nothing"))
    assert all(word in first for word in ("30 epochs", "all weights", "gcl", "64", "sgd at 0.1", "mixup"))
    assert all(word in second for word in ("5 epochs", "the classifier", "class-balanced"))
    assert len(outline(resolve({"recipe": "images/ce", "mode": "linear"}))) == 2


@pytest.mark.parametrize(("fit", "is_said"), [("crop", False), ("pad", True), ("stretch", True)])
def test_a_fit_other_than_the_usual_is_said(fit: str, is_said: bool) -> None:
    config = resolve({"recipe": "cifar-lt/gcl", "data.fit": fit})
    assert (fit in outline(config)[0]) == is_said
    chosen = Choice("data.image_size", 32, "why")
    assert (fit in outline(replace(config, reasons=[chosen]))[0]) == is_said


def test_sentences_of_earlier_versions_stay_as_they_are() -> None:
    made = resolve({"recipe": "cifar-lt/ce", "reasons": ["training: scratch (yours)"], "mode": "scratch"})
    assert outline(made) == ["training: scratch (yours)"]
    assert outline(with_options(made, {"training.seed": 3})) == outline(made)
