"""The command line: inspect, train, evaluate, predict, compare, report, recipes, demo; each a thin call."""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from longtail import __version__
from longtail.complaints import explain
from longtail.errors import LongtailError, nearest
from longtail.training.config import RunConfig, Tracker

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
# Short flags of `train` and the option of the configuration each one sets.
SHORT = {
    "imbalance_ratio": "data.imbalance_ratio",
    "group_column": "data.group_column",
    "seed": "training.seed",
    "tracker": "training.tracker",
}


@dataclass(frozen=True)
class Command:
    """One command of the grammar.

    Attributes:
        grammar: The words after its name.
        takes: Adds its arguments to a parser.
        run: Does it, and returns the exit status.
    """

    grammar: str
    takes: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int | None]

    @property
    def summary(self) -> str:
        """One sentence."""
        return (self.run.__doc__ or "").splitlines()[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 1 for a failure, 2 for wrong usage, 130 when interrupted.

    Example:
        >>> main(["recipes", "cifar-lt/glc"])
        1
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ± or block characters shows a ?
    try:
        return _run(words)
    except LongtailError as error:
        return _fail(str(error))
    except BrokenPipeError:  # `longtail ... | head` has read enough
        return EXIT_FAILED
    except OSError as error:
        from longtail.commands import is_disk_full

        full = " Free some space and repeat the command." if is_disk_full(error) else ""
        return _fail(f"{error}.{full}")
    except KeyboardInterrupt:
        return _fail("interrupted.", EXIT_INTERRUPTED)


def _run(words: list[str]) -> int:
    command = next((word for word in words if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        return _fail(f"there is no command {command!r}.{nearest(command, COMMANDS)}", EXIT_USAGE)
    parser = build_parser(command, words)
    try:
        parsed = parser.parse_args(words)
    except ArgumentError as error:
        return _fail(_explain(str(error.message), parser, command), EXIT_USAGE)
    if parsed.subcommand is None:
        parser.print_help()
        return 0
    return COMMANDS[parsed.subcommand].run(parsed[parsed.subcommand]) or 0


def build_parser(command: str | None = None, words: Sequence[str] = ()) -> ArgumentParser:
    """Return the parser; only the sub-parser of ``command`` gets its options, so that help stays fast.

    Example:
        >>> "recipes" in build_parser().format_help()
        True
    """
    # An abbreviation would be read twice and differently, and hide a misspelt option.
    options: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False, "default_env": False}
    parser = ArgumentParser(
        prog="longtail",
        usage="longtail COMMAND ...",
        description="Long-tailed image recognition: train, evaluate and use classifiers that keep their rare classes.",
        version=__version__,
        **options,
    )
    subcommands = parser.add_subcommands(required=False, metavar="COMMAND")
    for name, known in COMMANDS.items():
        sub = ArgumentParser(usage=f"longtail {name} {known.grammar}", description=known.summary, **options)
        if name == command:
            known.takes(sub)
            if name == "train":
                sub.set_defaults(_training_defaults(words))
        subcommands.add_subcommand(name, sub, help=known.summary)
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
    parser.add_argument("--tracker", type=Tracker | None, default=None, help="log to this experiment tracker too")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors and the result")
    parser.add_class_arguments(RunConfig)
    groups = _groups()
    for action in parser._actions:
        if action.dest in groups:  # takes a file of options, as --config does for all of them
            action.help = argparse.SUPPRESS


def _takes_preparation(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=str, help="SOURCE, see 'longtail inspect --help'")
    parser.add_argument("--out", type=str, required=True, metavar="DIR", help="the folder to make; train on hf:DIR")
    parser.add_argument("--size", type=int, default=256, help="shorter side after scaling, and side of the centre crop")
    parser.add_argument("--skip-bad", action="store_true", help="list unreadable images and go on without them")
    parser.add_argument("--label-column", type=str | None, default=None, help="column of the label")
    parser.add_argument("--image-column", type=str | None, default=None, help="column of the image")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors and the result")


def _takes_evaluation(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="RUN folder")
    parser.add_argument("source", type=str, nargs="?", default=None, help="another SOURCE; its test split is used")
    parser.add_argument("--split", type=str, default="test", help="split to evaluate on")
    parser.add_argument("--label-column", type=str | None, default=None, help="column of the label in SOURCE")
    parser.add_argument("--image-column", type=str | None, default=None, help="column of the image in SOURCE")
    parser.add_argument("--json", action="store_true", help="print all metrics as JSON")


def _takes_prediction(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="RUN folder")
    parser.add_argument("images", type=str, help="an image, a folder, or a pattern such as 'photos/*.jpg'")
    parser.add_argument("--out", type=str, required=True, metavar="FILE.csv", help="where to write")
    parser.add_argument("--top-k", type=int, default=5, help="classes per image")
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time")
    parser.add_argument("--device", type=Literal["auto", "cpu"], default="auto", help="auto: an accelerator if any")


def _takes_comparison(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=str, nargs="*", help="RUN folders to compare; with --recipe, the SOURCE")
    parser.add_argument("--grid", type=str | None, default=None, metavar="FILE", help="train the runs in this file")
    parser.add_argument("--recipe", type=str, action="append", default=[], help="train this recipe first; repeat it")
    parser.add_argument("--seeds", type=int | None, default=None, help="runs of each recipe, with seeds from 0 up")
    parser.add_argument("--epochs", type=int | None, default=None, help="epochs of stage 1; the rest scales with it")
    parser.add_argument("--imbalance-ratio", type=float | None, default=None, help="cut the training split to it")
    parser.add_argument("--set", type=str, action="append", default=[], metavar="KEY=VALUE", help="option of all runs")
    parser.add_argument("--tracker", type=Tracker | None, default=None, help="experiment tracker of all runs")
    parser.add_argument("--out", type=str | None, default=None, metavar="DIR", help="folder of the trained runs")
    parser.add_argument("--jobs", type=int | None, default=None, help="runs trained at once; 1 on a CPU")
    parser.add_argument("--baseline", type=str | None, default=None, metavar="NAME", help="what the others differ from")
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
        if flags.source:
            raise LongtailError(f"--resume goes on with the images of the run: leave {flags.source!r} out.")
        return resume_command(flags.resume, quiet=flags.quiet)
    if not flags.recipe and flags.config is None:
        raise LongtailError("say how to train: --recipe NAME; 'longtail recipes' lists them.")
    if flags.out is None:
        raise LongtailError("say where the run goes: --out RUN.")
    return train_command(_run_config(flags), flags.out, quiet=flags.quiet)


def prepare(flags: Namespace) -> None:
    """Decode and resize all images of a SOURCE once, into a folder that loads many times faster."""
    from longtail.commands import prepare_command

    prepare_command(**_as_dict(flags))


def evaluate(flags: Namespace) -> None:
    """Evaluate a RUN on its own test split, or on another SOURCE."""
    from longtail.commands import evaluate_command

    evaluate_command(**_as_dict(flags))


def predict(flags: Namespace) -> None:
    """Classify images into a CSV file."""
    from longtail.commands import predict_command

    predict_command(**_as_dict(flags))


def compare(flags: Namespace) -> int:
    """Compare runs in one table, or train a grid of runs first: groups, mean ± std, paired differences."""
    from longtail.commands import compare_command, grid_command

    if flags.grid is not None or flags.recipe:
        _check_grid_words(flags)
        return grid_command(flags.runs[0] if flags.runs else "", **_as_dict(flags, without="runs"))
    to_train = ("seeds", "epochs", "imbalance_ratio", "set", "tracker", "out", "jobs")
    misplaced = next((_spelt(name) for name in to_train if flags[name]), None)
    if misplaced is not None:
        raise LongtailError(f"{misplaced} is for runs still to be trained: add --recipe NAME or --grid FILE.yaml.")
    if not flags.runs:
        return _fail(f"RUN missing: longtail compare {_COMPARE.splitlines()[0]}", EXIT_USAGE)
    compare_command(flags.runs, baseline=flags.baseline, csv=flags.csv)
    return 0


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


_TRAIN = """SOURCE --recipe NAME --out RUN
                      [--imbalance-ratio 100] [--epochs N] [--seed N] [--any.option VALUE]
       longtail train --resume RUN"""
_COMPARE = """RUN RUN ... [--baseline NAME] [--csv FILE.csv]
       longtail compare SOURCE --recipe NAME --recipe NAME --out DIR
                      [--seeds 3] [--epochs N] [--set KEY=VALUE] [--jobs N]
       longtail compare --grid FILE.yaml [--out DIR] [--jobs N]"""
COMMANDS: dict[str, Command] = {
    "inspect": Command("SOURCE [--json]", _takes_source, inspect),
    "prepare": Command("SOURCE --out DIR [--size 256] [--skip-bad]", _takes_preparation, prepare),
    "train": Command(_TRAIN, _takes_training, train),
    "evaluate": Command("RUN [SOURCE] [--split NAME] [--json]", _takes_evaluation, evaluate),
    "predict": Command("RUN IMAGES --out FILE.csv", _takes_prediction, predict),
    "compare": Command(_COMPARE, _takes_comparison, compare),
    "report": Command("RUN ... --out FILE.html", _takes_report, report),
    "recipes": Command("[NAME]", _takes_recipe, recipes),
    "demo": Command("[--out FOLDER] [--epochs N]", _takes_demo, demo),
}


# --- from words to a configuration ------------------------------------------------------------------------------------


def _training_defaults(words: Sequence[str]) -> dict[str, Any]:
    """Read ahead what decides where every other option starts from: recipe, configuration file, epochs, losses."""
    from longtail.training.recipe import base_config, flatten, merge

    _check_words(words)
    epochs = _value(words, "--epochs")
    if epochs is not None and not re.fullmatch(r"[+-]?\d+", epochs):
        raise LongtailError(f"--epochs takes a whole number, got {epochs!r}.")
    config = base_config(_value(words, "--recipe"), _value(words, "--config"), int(epochs) if epochs else None)
    for stage in ("stage1", "stage2"):
        loss = _value(words, f"--{stage}.loss.name")
        if loss is not None:  # another loss than the recipe's starts with options of its own
            config = merge(config, {stage: {"loss": {"name": loss}}})
    options = {f"{stage}.loss.options": config[stage]["loss"]["options"] for stage in ("stage1", "stage2")}
    return {key: value for key, value in flatten(config).items() if ".loss.options" not in key} | options


def _check_words(words: Sequence[str]) -> None:
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    if "--resume" in given:
        other = [option for option in given if option not in {"--resume", "--quiet", "--help"}]
        if other:
            raise LongtailError(f"--resume goes on with the configuration of the run: leave {other[0]} out.")
    groups = _groups()
    for option in given:
        group = option.removeprefix("--")
        if group in groups:
            member = next(name for name in _option_names() if name.startswith(f"{group}."))
            raise LongtailError(f"{option} is a group: set options in it, such as --{member}, or use --config FILE.")


def _option_names() -> list[str]:
    from longtail.training.recipe import flatten

    return list(flatten(asdict(RunConfig())))


def _groups() -> set[str]:
    """Dotted names that hold options and are none themselves: ``data``, ``stage1.loss`` and so on."""
    return {name.rsplit(".", depth)[0] for name in _option_names() for depth in range(1, name.count(".") + 1)}


def _value(words: Sequence[str], flag: str) -> str | None:
    """The last value of a flag, as the parser will read it."""
    found = None
    for index, word in enumerate(words):
        if word == flag:
            if index + 1 == len(words) or words[index + 1].startswith("--"):
                raise LongtailError(f"{flag} needs a value.")
            found = words[index + 1]
        elif word.startswith(f"{flag}="):
            found = word.removeprefix(f"{flag}=")
    return found


def _run_config(flags: Namespace) -> RunConfig:
    from longtail.training.recipe import config_from_dict

    values = {key: _plain(flags[key]) for key in asdict(RunConfig())}
    for short, option in SHORT.items():
        if flags[short] is not None:
            section, name = option.split(".")
            values[section][name] = flags[short]
    values["data"]["source"] = flags.source or values["data"]["source"]
    if not values["data"]["source"]:
        raise LongtailError("name the images: longtail train SOURCE --recipe NAME --out RUN.")
    return config_from_dict(values)


def _plain(value: Any) -> Any:
    return value.as_dict() if isinstance(value, Namespace) else value


def _as_dict(flags: Namespace, without: str = "") -> dict[str, Any]:
    return {key: value for key, value in flags.as_dict().items() if key != without}


def _spelt(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_grid_words(flags: Namespace) -> None:
    if flags.grid is None:
        if len(flags.runs) != 1:
            raise LongtailError("--recipe trains on one SOURCE: longtail compare SOURCE --recipe NAME --out DIR.")
        return
    given = next((name for name in ("recipe", "seeds", "epochs", "imbalance_ratio", "set") if flags[name]), None)
    if given is not None or flags.runs:
        word = _spelt(given) if given is not None else repr(flags.runs[0])
        raise LongtailError(f"--grid takes its runs from the file: leave {word} out, or write it there.")


def _explain(message: str, parser: ArgumentParser, command: str | None) -> str:
    """Turn a parser's complaint into one sentence, with the nearest right option where a name was wrong.

    Example:
        >>> _explain("unrecognized arguments: --epohcs 3", build_parser("train"), "train")
        "unknown option '--epohcs'. Did you mean '--epochs'?"
    """
    actions = (parser if command is None else _sub_parser(parser, command))._actions
    known = {option: action.dest for action in actions for option in action.option_strings}
    spelt = {dest: option for option, dest in reversed(known.items())}
    unknown = re.search(r"[Uu]nrecognized arguments: (\S+)", message)
    if unknown:
        word = unknown.group(1).partition("=")[0]
        hint = nearest(word, known) if word.startswith("-") else ""
        help_command = " ".join(["longtail", *([command] if command else []), "--help"])
        hint = hint if hint.startswith(" Did") else f" '{help_command}' lists them all."
        return f"unknown {'option' if word.startswith('-') else 'argument'} {word!r}.{hint}"
    missing = re.search(r"arguments are required: (.*)", message)
    if missing and command is not None:
        names = [name.removeprefix(f"{command}.") for name in missing.group(1).split(", ")]
        words = " and ".join(spelt.get(name, {"runs": "RUN"}.get(name, name.upper())) for name in names)
        return f"{words} missing: longtail {command} {COMMANDS[command].grammar}"
    return explain(message, lambda key: spelt.get(key, key.upper()))


def _sub_parser(parser: ArgumentParser, command: str) -> ArgumentParser:
    subcommands: Any = parser._subcommands_action
    found: ArgumentParser = subcommands._name_parser_map[command]
    return found


def _fail(message: str, status: int = EXIT_FAILED) -> int:
    sys.stderr.write(f"longtail: {' '.join(message.splitlines())}\n")
    return status
