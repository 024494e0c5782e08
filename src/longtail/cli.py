"""The command line: inspect, train, evaluate, predict, compare, report, recipes, demo; each a thin call."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from longtail import __version__
from longtail.errors import LongtailError, nearest
from longtail.training.config import RunConfig

Flags = Mapping[str, Any]
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
# Short flags of `train` and the option of the configuration each one sets.
SHORT = {
    "imbalance_ratio": "data.imbalance_ratio",
    "group_column": "data.group_column",
    "seed": "training.seed",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 1 for a failure, 2 for wrong usage, 130 when interrupted.

    Example:
        >>> main(["recipes", "cifar-lt/glc"])
        1
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except LongtailError as error:
        return _fail(str(error))
    except OSError as error:
        if error.errno == errno.ENOSPC or "No space left" in str(error):
            return _fail(f"no space left on the device ({error}): free some, then repeat or resume; nothing is lost.")
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted.", EXIT_INTERRUPTED)


def _run(words: list[str]) -> int:
    command = next((word for word in words if not word.startswith("-")), None)
    parser = build_parser(command, words)
    if not words:
        parser.print_help()
        return 0
    if command is not None and command not in COMMANDS:
        return _fail(f"there is no command {command!r}.{nearest(command, COMMANDS)}", EXIT_USAGE)
    try:
        parsed = parser.parse_args(words)
    except ArgumentError as error:
        return _fail(_explain(str(error.message), parser, command), EXIT_USAGE)
    if parsed.subcommand is None:
        parser.print_help()
        return 0
    return COMMANDS[parsed.subcommand][1](parsed[parsed.subcommand]) or 0


def build_parser(command: str | None = None, words: Sequence[str] = ()) -> ArgumentParser:
    """Return the parser; only the sub-parser of ``command`` gets its options, so that help stays fast.

    Example:
        >>> "recipes" in build_parser().format_help()
        True
    """
    parser = ArgumentParser(
        prog="longtail",
        description="Long-tailed image recognition: train, evaluate and use classifiers that keep their rare classes.",
        version=f"longtail {__version__}",
        exit_on_error=False,
    )
    commands = parser.add_subcommands(required=False, metavar="COMMAND")
    for name, (describe, function) in COMMANDS.items():
        text = (function.__doc__ or "").splitlines()[0]
        sub = ArgumentParser(description=text, exit_on_error=False)
        if name == command:
            describe(sub)
            if describe is _takes_training:
                sub.set_defaults(_training_defaults(words))
        commands.add_subcommand(name, sub, help=text)
    return parser


# --- what each command takes ------------------------------------------------------------------------------------------


def _takes_source(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=str, help="SOURCE: folder:PATH, csv:FILE, parquet:PATH, hf:ID, cifar100, digits")
    parser.add_argument("--label-column", type=str | None, default=None, help="column of the label")
    parser.add_argument("--image-column", type=str | None, default=None, help="column of the image")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a picture")


def _takes_training(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=str, nargs="?", default="", help="SOURCE, see 'longtail inspect --help'")
    parser.add_argument("--out", type=str | None, default=None, help="the RUN folder to make")
    parser.add_argument("--resume", type=str | None, default=None, metavar="RUN", help="continue a stopped run")
    parser.add_argument("--config", type=str | None, default=None, metavar="FILE", help="config.yaml of another run")
    parser.add_argument("--epochs", type=int | None, default=None, help="epochs of stage 1; the rest scales with it")
    parser.add_argument("--imbalance-ratio", type=float | None, default=None, help="cut the training split to it")
    parser.add_argument("--group-column", type=str | None, default=None, help="rows that share it stay together")
    parser.add_argument("--seed", type=int | None, default=None, help="seed of weights, order, augmentation, noise")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors and the result")
    parser.add_class_arguments(RunConfig)


def _takes_evaluation(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="RUN folder")
    parser.add_argument("source", type=str, nargs="?", default=None, help="another SOURCE; its test split is used")
    parser.add_argument("--split", type=str, default="test", help="split to evaluate on")
    parser.add_argument("--json", action="store_true", help="print all metrics as JSON")


def _takes_prediction(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="RUN folder")
    parser.add_argument("images", type=str, help="an image, a folder, or a pattern such as 'photos/*.jpg'")
    parser.add_argument("--out", type=str, required=True, metavar="FILE.csv", help="where to write")
    parser.add_argument("--top-k", type=int, default=5, help="classes per image")
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time")


def _takes_comparison(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=str, nargs="+", help="RUN folders; the first is what others are compared with")
    parser.add_argument("--csv", type=str | None, default=None, metavar="FILE.csv", help="also write the table here")


def _takes_report(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=str, nargs="+", help="RUN folders")
    parser.add_argument("--out", type=str, required=True, metavar="FILE.html", help="the page to write")


def _takes_recipe(parser: ArgumentParser) -> None:
    parser.add_argument("name", type=str | None, nargs="?", default=None, help="a recipe to print in full")


def _takes_demo(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=str, default="runs/demo", help="folder for the runs and the report; made anew")
    parser.add_argument("--epochs", type=int | None, default=None, help="epochs of stage 1")


# --- what each command does -------------------------------------------------------------------------------------------


def inspect(flags: Namespace) -> None:
    """Show the class histogram, imbalance ratio, shot groups and what looks wrong."""
    from longtail.commands import inspect_command

    inspect_command(**_as_dict(flags))


def train(flags: Namespace) -> int:
    """Train a classifier into a RUN folder."""
    from longtail.commands import resume_command, train_command

    if flags.resume is not None:
        return resume_command(flags.resume, quiet=flags.quiet)
    if flags.out is None:
        raise LongtailError("say where the run goes: --out RUN.")
    return train_command(_run_config(flags), flags.out, quiet=flags.quiet)


def evaluate(flags: Namespace) -> None:
    """Evaluate a RUN on its own test split, or on another SOURCE."""
    from longtail.commands import evaluate_command

    evaluate_command(**_as_dict(flags))


def predict(flags: Namespace) -> None:
    """Classify images into a CSV file."""
    from longtail.commands import predict_command

    predict_command(**_as_dict(flags))


def compare(flags: Namespace) -> None:
    """Compare runs in one table: shot groups, differences, seeds folded into mean ± std."""
    from longtail.commands import compare_command

    compare_command(**_as_dict(flags))


def report(flags: Namespace) -> None:
    """Write one self-contained HTML page about one or several runs."""
    from longtail.commands import report_command

    report_command(**_as_dict(flags))


def recipes(flags: Namespace) -> None:
    """List the recipes, or print one in full with the source of each value."""
    from longtail.commands import recipes_command

    recipes_command(**_as_dict(flags))


def demo(flags: Namespace) -> int:
    """Train plain cross-entropy and Gaussian clouded logits on real handwritten digits, and report."""
    from longtail.commands import demo_command

    return demo_command(**_as_dict(flags))


Describe = Callable[[ArgumentParser], None]
COMMANDS: dict[str, tuple[Describe, Callable[[Namespace], int | None]]] = {
    "inspect": (_takes_source, inspect),
    "train": (_takes_training, train),
    "evaluate": (_takes_evaluation, evaluate),
    "predict": (_takes_prediction, predict),
    "compare": (_takes_comparison, compare),
    "report": (_takes_report, report),
    "recipes": (_takes_recipe, recipes),
    "demo": (_takes_demo, demo),
}


# --- from words to a configuration ------------------------------------------------------------------------------------


def _training_defaults(words: Sequence[str]) -> dict[str, Any]:
    """Read --recipe, --config and --epochs ahead of the rest: they decide what every other option starts from."""
    from longtail.training.recipe import base_config, flatten

    epochs = _value(words, "--epochs")
    if epochs is not None and not epochs.lstrip("+").isdigit():
        raise LongtailError(f"--epochs takes a whole number, got {epochs!r}.")
    config = base_config(_value(words, "--recipe"), _value(words, "--config"), int(epochs) if epochs else None)
    return {key: value for key, value in flatten(config).items() if not _inside_options(key)} | {
        f"{stage}.loss.options": config[stage]["loss"]["options"] for stage in ("stage1", "stage2")
    }


def _inside_options(key: str) -> bool:
    return ".loss.options" in key


def _value(words: Sequence[str], flag: str) -> str | None:
    for index, word in enumerate(words):
        if word == flag and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return None


def _run_config(flags: Namespace) -> RunConfig:
    from longtail.training.recipe import base_config, config_from_dict

    values = {key: _plain(flags[key]) for key in ("recipe", "data", "model", "stage1", "stage2", "training")}
    for short, option in SHORT.items():
        if flags[short] is not None:
            section, name = option.split(".")
            values[section][name] = flags[short]
    values["data"]["source"] = flags.source or values["data"]["source"]
    if not values["data"]["source"]:
        raise LongtailError("name the images: longtail train SOURCE --recipe NAME --out RUN.")
    base = base_config(flags.recipe or None, flags.config, flags.epochs)
    for stage in ("stage1", "stage2"):
        _drop_foreign_options(values[stage]["loss"], base[stage]["loss"])
    return config_from_dict(values, "the command line")


def _drop_foreign_options(loss: dict[str, Any], base: Mapping[str, Any]) -> None:
    """Where --stageN.loss.name names another loss than the recipe, leave the recipe's options for its own loss out."""
    if loss["name"] != base["name"]:
        own = base["options"]
        loss["options"] = {key: value for key, value in loss["options"].items() if own.get(key, loss) != value}


def _plain(value: Any) -> Any:
    return value.as_dict() if isinstance(value, Namespace) else value


def _as_dict(flags: Namespace) -> dict[str, Any]:
    return dict(flags.as_dict())


def _explain(message: str, parser: ArgumentParser, command: str | None) -> str:
    """Turn a parser's complaint into one sentence, with the nearest right option where a name was wrong.

    Example:
        >>> _explain("unrecognized arguments: --epohcs 3", build_parser("train"), "train")
        "unknown option '--epohcs'. Did you mean '--epochs'?"
    """
    sentence = " ".join(line.strip() for line in message.splitlines())
    unknown = re.search(r"[Uu]nrecognized arguments: (\S+)", sentence)
    if unknown and command is not None:
        word = unknown.group(1).split("=")[0]
        known = [option for action in _sub_parser(parser, command)._actions for option in action.option_strings]
        hint = nearest(word, known) if word.startswith("-") else ""
        hint = hint if hint.startswith(" Did") else f" 'longtail {command} --help' lists them all."
        return f"unknown {'option' if word.startswith('-') else 'argument'} {word!r}.{hint}"
    wrong = re.search(r'Parser key "([^"]+)": (.*)', sentence)
    return f"--{wrong.group(1)}: {wrong.group(2)}" if wrong else sentence


def _sub_parser(parser: ArgumentParser, command: str) -> ArgumentParser:
    subcommands: Any = parser._subcommands_action
    found: ArgumentParser = subcommands._name_parser_map[command]
    return found


def _fail(message: str, status: int = EXIT_FAILED) -> int:
    sys.stderr.write(f"longtail: {message}\n")
    return status
