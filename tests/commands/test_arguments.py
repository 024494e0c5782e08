"""The words of the command line: help, misspelled names, wrong values, and what must not be imported to say so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import requested

from longtail import __version__
from longtail.cli import ALIASES, COMMANDS
from longtail.commands.arguments import arguments_of, parse
from longtail.commands.train import train
from longtail.config.build import build
from longtail.config.options import merge
from longtail.config.resolve import complete
from longtail.experiments.grid_plan import Grid
from longtail.run.layout import read_config

Cli = Callable[..., "object"]
SOURCES = Path(__file__).parents[2] / "src"


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(SOURCES)} | variables
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], [], ["train", "--help"], ["recipes"], ["train", "--epohcs", "3"]])
def test_help_lists_and_complaints_load_no_heavy_library(words: list[str]) -> None:
    code = (
        "import sys, json\nfrom longtail.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'datasets', 'timm', 'accelerate', 'plotly', 'numpy', 'sklearn', 'pyarrow'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_an_audit_loads_no_pytorch() -> None:
    code = "import sys\nfrom longtail.cli import main\nmain(['inspect', 'digits', '--max-images', '50'])\n"
    done = python(f"{code}print('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def test_no_words_and_help_show_every_command(cli: Cli) -> None:
    for words in ([], ["--help"], ["-h"]):
        shown = cli(*words)
        assert shown.status == 0
        assert all(f"    {command} " in shown.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_a_help_that_starts_with_its_grammar(cli: Cli, command: str) -> None:
    shown = cli(command, "--help")
    assert shown.status == 0
    assert shown.out.startswith(f"usage: longtail {command} ")
    assert shown.err == ""
    assert not re.search(r"``|:\w+:|Optional|Union|NoneType|class '", shown.out)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_argument_is_explained(command: str) -> None:
    arguments = [argument for argument in arguments_of(COMMANDS[command]) if argument.shown]
    text = str(parse(f"longtail {command}", COMMANDS[command], ["--help"]))
    for argument in arguments:
        assert re.search(rf"  {re.escape(argument.flag or argument.metavar.partition(' ')[0])}\b.*\n? +\w", text), (
            argument
        )


def test_the_british_spelling_of_a_command_stays(cli: Cli) -> None:
    assert ALIASES == {"analyse": "analyze"}
    assert cli("analyse", "--help").out == cli("analyze", "--help").out


def test_the_help_of_train_explains_what_people_need_and_all_options_on_request(cli: Cli) -> None:
    short, text = cli("train", "--help").out, cli("train", "--help-all").out
    assert len(re.findall(r"^  --", short, re.MULTILINE)) == 31 + 2  # and --help, --help-all
    assert "--training.clip_norm" not in short
    for option in ("--data.imbalance_profile", "--stage2.schedule.warmup_epochs", "--training.clip_norm", "--epochs"):
        assert option in text
    assert "moving average" in text


def test_the_help_tells_the_defaults(cli: Cli) -> None:
    shown, text = cli("predict", "--help").out, cli("train", "--help-all").out
    assert re.search(r"--top-k N .*\(default: 5\)", shown)
    assert re.search(r"--stage1.optimizer.lr X .*\(default: 0.1\)", text)
    assert re.search(r"--data.cutout N [^-]*\(default: 0\)", text)
    assert "default: null" not in text
    # What a recipe or the images choose is not the default of the schema.
    assert "default" not in cli("train", "--help").out


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"longtail {__version__}\n"


def test_python_m_longtail_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "longtail", "trian"],
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("longtail: ")
    assert "'train'" in done.stderr


def test_a_terminal_that_knows_only_ascii_is_no_reason_to_fail() -> None:
    code = "from longtail.cli import main; raise SystemExit(main(['--help']))"
    assert python(code, PYTHONIOENCODING="ascii").returncode == 0


# --- misspelled names -------------------------------------------------------------------------------------------------

TRAIN = ("train", "digits", "--recipe", "cifar-lt/gcl", "--out", "never-made")
ONE_STAGE = ("train", "digits", "--recipe", "cifar-lt/ce", "--out", "never-made")


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["trian", "digits"], "'train'"),
        (["reciepes"], "'recipes'"),
        (["train", "digits", "--recipe", "cifar-lt/glc", "--out", "x"], "'cifar-lt/gcl'"),
        (["train", "digits", "--recipe=gcl", "--out", "x"], "/gcl'?"),
        (["recipes", "cifar-lt/mixup-ctr"], "'cifar-lt/mixup-crt'"),
        ([*TRAIN, "--epohcs", "3"], "'--epochs'"),
        ([*TRAIN, "--epoch", "3"], "'--epochs'"),  # no abbreviation either
        ([*TRAIN, "--model.nam", "x"], "'--model.name'"),
        ([*TRAIN, "--imbalance_ratio", "10"], "'--imbalance-ratio'"),
        ([*TRAIN, "--stage1.optimiser.lr", "1"], "'--stage1.optimizer.lr'"),
        ([*TRAIN, "--stage1.loss.name", "balanced-sofmax"], "'balanced-softmax'"),
        ([*TRAIN, "--stage1.loss.options.nose", "1"], "'noise'"),
        ([*TRAIN, "--stage2.loss.options.focal_gama", "1"], "'focal_gamma'"),
        ([*TRAIN, "--stage1.sampler", "class-balnced"], "'class-balanced'"),
        ([*TRAIN, "--data.augmentation", "cropflip"], "'crop-flip'"),
        ([*TRAIN, "--training.precision", "bf61"], "'bf16'"),
        (["inspect", "digts"], "'digits'"),
        (["inspect", "floder:photos"], "'folder'"),
        (["compare", "a", "--cvs", "t.csv"], "'--csv'"),
        (["compare", "digits", "--recipe", "cifar-lt/glc", "--out", "x"], "'cifar-lt/gcl'"),
        (["compare", "digits", "--recipe", "cifar-lt/ce", "--sed", "3"], "'--seeds'"),
        ([*TRAIN, "--tracker", "mlfow"], "'mlflow'"),
        (["predict", "a", "b", "--uot", "t.csv"], "'--out'"),
        ([*TRAIN, "--lr", "0.1"], "'--stage1.optimizer.lr' or '--stage2.optimizer.lr'"),
        ([*TRAIN, "--stage2.lr", "0.1"], "'--stage2.optimizer.lr'"),
        ([*ONE_STAGE, "--lr", "0.1"], "'--stage1.optimizer.lr'"),
        ([*ONE_STAGE, "--lr", "0.1", "--stage2.epochs", "2"], "or '--stage2.optimizer.lr'?"),
        ([*ONE_STAGE, "--lr", "0.1", "--finetune.epochs", "2"], "or '--finetune.optimizer.lr'?"),
        ([*ONE_STAGE, "--wd=1e-4"], "'--stage1.optimizer.weight_decay'"),
        ([*ONE_STAGE, "--batch_size", "32"], "'--batch-size'"),
        ([*ONE_STAGE, "--arch", "x"], "'--model.name'"),
        ([*ONE_STAGE, "--img-size", "64"], "'--data.image_size'"),
        ([*ONE_STAGE, "--letterbox"], "'--data.fit'"),
        ([*TRAIN, "--data.fit", "padd"], "'pad'"),
        ([*ONE_STAGE, "--loss", "gcl"], "'--stage1.loss.name'"),
        ([*ONE_STAGE, "--pretrained"], "'--model.pretrained' or '--model.weights'"),
        ([*ONE_STAGE, "--amp"], "'--training.precision'"),
        ([*ONE_STAGE, "-o", "x"], "'--out'"),
        (["compare", "digits", "--recipe", "cifar-lt/ce", "--lr", "1"], "'--set stage1.optimizer.lr=VALUE'"),
        (["train", "photos", "--recipe", "gcl", "--out", "x"], "mean 'images/gcl', 'cifar-lt/gcl'"),
        (["train", "cifar100", "--recipe", "gcl", "--out", "x"], "mean 'cifar-lt/gcl', 'images/gcl'"),
    ],
)
def test_a_misspelled_name_is_answered_with_the_nearest_right_one(cli: Cli, words: list[str], nearest: str) -> None:
    assert nearest in cli(*words).complaint
    assert not Path("never-made").exists()


@pytest.mark.parametrize("option", ["--temperature", "--dropout", "--patience", "--xyzzy"])
def test_what_is_like_nothing_gets_no_guess(cli: Cli, option: str) -> None:
    complaint = cli(*ONE_STAGE, option, "1").complaint
    assert "mean" not in complaint
    assert "longtail train --help" in complaint


def test_no_digits_were_loaded_to_find_a_misspelled_loss(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtail.training.prepared_data.load_source", lambda *_, **__: pytest.fail("images were read"))
    assert "'noise'" in cli(*TRAIN, "--stage1.loss.options.nose", "1").complaint


# --- wrong values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "takes"),
    [
        (["--epochs", "three"], "whole"),
        (["--epochs", "0"], "at least 1"),
        (["--epochs", "-3"], "at least 1"),
        (["--epochs"], "value"),
        (["--batch-size", "0"], "at least 1"),
        (["--batch-size", "many"], "whole"),
        (["--seed", "x"], "whole"),
        (["--seed"], "value"),
        (["--imbalance-ratio", "lots"], "a number"),
        (["--imbalance-ratio", "1:40"], "plain number"),
        (["--imbalance-ratio", "0.5"], "at least 1"),
        (["--data.imbalance_ratio", "0.5"], "at least 1"),
        (["--seed", "-1"], "at least 0"),
        (["--stage1.batch_size", "0"], "at least 1"),
        (["--quiet=3"], "no value"),
        (["--stage1.optimizer.lr", "big"], "a number"),
        (["--data.mean", "[0.5, x, 0.5]"], "a number"),
        (["--data.mean", "0.5"], "a list"),
        (["--model.pretrained", "maybe"], "true"),
        (["--model.head", "round"], "'cosine'"),
        (["--stage1.loss.options", "5"], "names"),
        (["--training.clip_norm", "x"], "a number"),
        (["--data", "digits"], "group"),
    ],
)
def test_a_wrong_value_is_refused_by_its_flag_before_anything_is_read(cli: Cli, words: list[str], takes: str) -> None:
    outcome = cli(*TRAIN, *words)
    assert outcome.status == 2
    assert outcome.complaint.startswith(words[0].partition("=")[0])
    assert takes in outcome.complaint
    assert not Path("never-made").exists()


@pytest.mark.parametrize("words", [["--epochs", "3", "--epochs"], ["extra"], ["--print_config"]])
def test_what_is_too_much_or_too_little_is_named(cli: Cli, words: list[str]) -> None:
    assert words[-1] in cli(*TRAIN, *words).complaint


def test_what_does_not_fit_together_is_said_before_hours_of_stage_1(cli: Cli) -> None:
    words = ("train", "digits", "--recipe", "cifar-lt/ce", "--out", "never-made")
    second = ("--stage2.epochs", "1", "--stage2.loss.name", "gcl")
    assert "--model.head cosine" in cli(*words, *second).complaint
    assert (
        "--stage1.optimizer.momentum"
        in cli(*words, "--stage1.optimizer.nesterov", "true", "--stage1.optimizer.momentum", "0").complaint
    )
    assert "milestone" in cli(*words, "--stage1.schedule.milestones", "[3]").complaint
    assert "epochs" in cli(*words, "--stage1.epochs", "0").complaint


# --- words missing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["inspect"], "SOURCE missing"),
        (["evaluate"], "RUN missing"),
        (["predict", "r"], "IMAGES and --out missing"),
        (["predict", "r", "i"], "--out missing"),
        (["compare"], "RUN missing"),
        (["report", "r"], "--out missing"),
        (["train"], "--out "),
        (["train", "digits"], "--out "),
        (["train", "--out", "x"], "SOURCE "),
        (["train", "digits", "--recipe", "--out", "x"], "--recipe "),
        (["train", "digits", "--recipe", "cifar-lt/ce"], "--out "),
        (["train", "--recipe", "cifar-lt/ce", "--out", "x"], "SOURCE "),
    ],
)
def test_what_is_missing_is_named_with_the_grammar(cli: Cli, words: list[str], start: str) -> None:
    assert cli(*words).complaint.startswith(start)


@pytest.mark.parametrize(
    "extra",
    [
        ("--epochs", "3"),
        ("--seed=0",),
        ("--data.workers", "0"),
        ("--training.shard", "false"),
        ("--out", "x"),
        ("digits",),
    ],
)
def test_resume_takes_no_other_options(cli: Cli, extra: tuple[str, ...]) -> None:
    complaint = cli("train", "--resume", "some-run", *extra).complaint
    assert "leave" in complaint
    assert extra[0].partition("=")[0] in complaint


# --- the parser underneath --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe", ["cifar-lt/ldam-drw", "cifar-lt/mixup-crt", "demo/gcl", "imagenet-lt/kps-ga", "places-lt/fbl"]
)
def test_a_recipe_passes_through_the_command_line_unchanged(recipe: str) -> None:
    from longtail.config.recipes import load_recipe

    config = requested("digits", "--recipe", recipe, "--out", "x")
    assert config == complete(build(merge(load_recipe(recipe).config, {"data": {"source": "digits"}})))


def test_variables_of_the_environment_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LONGTAIL_TRAIN__SEED", "LONGTAIL_TRAIN__TRAINING__SEED", "TRAIN__SEED"):
        monkeypatch.setenv(name, "77")
    assert requested(*TRAIN[1:]).training.seed == 0


@pytest.mark.parametrize("name", ["5", "null-run", "a: b", "[x]", "with space", "1e3"])
def test_a_folder_may_be_called_anything(name: str) -> None:
    values = parse("longtail train", train, ["digits", "--recipe", "cifar-lt/ce", "--out", name])
    assert isinstance(values, dict)
    assert values["out"] == name


def test_the_last_of_two_values_counts_everywhere() -> None:
    words = ["--recipe", "cifar-lt/ce", "--epochs", "9", "--recipe=cifar-lt/gcl", "--epochs=20"]
    config = requested("digits", "--out", "x", *words)
    assert (config.recipe, config.stage1.epochs, config.stage1.loss.name) == ("cifar-lt/gcl", 20, "gcl")


Call = Callable[..., Any]
NAMED = ("--image-column", "where", "--label-column", "who", "--split-column", "when")


@pytest.fixture
def table(make_folder: Call) -> Path:
    """Six images of two classes, with columns of unusual names."""
    file: Path = make_folder({"a": 6}) / "list.csv"
    rows = [f"a/{row}.png,{'cat' if row % 2 else 'lynx'},{'test' if row > 3 else 'train'}\n" for row in range(6)]
    file.write_text("where,who,when\n" + "".join(rows))
    return file


def test_every_command_takes_the_columns(cli: Call, train: Call, table: Path, tmp_path: Path) -> None:
    source = f"csv:{table}"
    assert json.loads(cli("inspect", source, *NAMED, "--json").out)["counts"] == {"train": [2, 2], "test": [1, 1]}
    assert cli("prepare", source, *NAMED, "--out", tmp_path / "small", "--size", "8", "--quiet").status == 0
    done = train(source, *NAMED, "--data.validation_fraction", "0")
    assert done.status == 0, done.complaint
    config = read_config(tmp_path / "run")
    assert (config.data.image_column, config.data.label_column, config.data.split_column) == ("where", "who", "when")
    assert json.loads(cli("evaluate", tmp_path / "run", "--json").out)["num_images"] == 2  # by the stored configuration
    assert json.loads(cli("evaluate", tmp_path / "run", source, *NAMED, "--json").out)["num_images"] == 2
    assert cli("train", "--resume", tmp_path / "run").status == 0
    refused = cli("evaluate", tmp_path / "run", "--split-column", "when")
    assert (refused.status, "--split-column" in refused.complaint) == (2, True)


def test_a_grid_is_planned_with_the_columns(cli: Call, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[Grid] = []

    def fail_all(grid: Grid, *_: object, **__: object) -> dict[Path, str]:
        planned.append(grid)
        return {run.folder: "not trained here." for run in grid.runs}

    monkeypatch.setattr("longtail.experiments.grid_runner.run_grid", fail_all)
    words = ("compare", f"csv:{table}", "--recipe", "cifar-lt/ce", "--recipe", "cifar-lt/gcl", "--out", "grid")
    done = cli(*words, "--label-column", "kind", "--image-column", "where", "--set", "data.image_column=other")
    assert "2 of 2 runs failed" in done.complaint
    data = [run.config.data for run in planned[0].runs]
    assert {(config.label_column, config.image_column, config.split_column) for config in data} == {
        ("kind", "other", None)
    }
    for misplaced in (("run", "--label-column", "who"), ("--grid", "grid.yaml", "--label-column", "who")):
        refused = cli("compare", *misplaced)
        assert (refused.status, "--label-column" in refused.complaint) == (2, True)


def test_what_is_odd_about_a_table_is_said_when_it_is_trained_on(train: Call, table: Path, tmp_path: Path) -> None:
    rows = [*(f"a/{row}.png,{'cat' if row % 2 else 'lynx'},{'test' if row > 3 else 'train'}" for row in range(6))]
    table.write_text("\n".join(["path,label,part", *rows, "a/0.png,lynx,test", "a/1.png,cat,train", ""]))
    done = train(f"csv:{table}", "--data.validation_fraction", "0")
    assert done.status == 0, done.err
    notes = json.loads((tmp_path / "run" / "metrics.json").read_text())["notes"]
    for text in (done.err, "\n".join(notes)):
        for words in (
            "'part'",
            "held out",
            "once",
        ):
            assert words in " ".join(text.split())


def test_an_advice_names_an_option_that_the_command_has(train: Call, table: Path) -> None:
    complaint = train(f"csv:{table}").complaint
    assert "--image-column" in complaint
    assert "unknown option" not in train(f"csv:{table}", "--image-column", "where", "--label-column", "whom").complaint
