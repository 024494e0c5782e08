"""The command line: one parser over the commands, and every error as one sentence with an exit status."""

from __future__ import annotations

import argparse
import io
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from longtail.commands import (
    adjust,
    analyse,
    cache,
    compare,
    demo,
    evaluate,
    export,
    inspect,
    predict,
    prepare,
    push,
    recipes,
    report,
    train,
)
from longtail.commands.terminal import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, fail, is_disk_full
from longtail.commands.train_options import option_names, training_defaults, without_auto
from longtail.config.parse_errors import explain
from longtail.data.loading.cache_folder import cache_sizes
from longtail.errors import LongtailError, OwnRangeWarning, UsageError, as_usage, nearest
from longtail.version import __version__


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


def _command(module: ModuleType) -> Command:
    return Command(module.GRAMMAR, module.takes, module.run)


COMMANDS: dict[str, Command] = {
    "inspect": _command(inspect),
    "prepare": _command(prepare),
    "train": _command(train),
    "evaluate": _command(evaluate),
    "adjust": _command(adjust),
    "predict": _command(predict),
    "export": _command(export),
    "push": _command(push),
    "compare": _command(compare),
    "analyse": _command(analyse),
    "report": _command(report),
    "recipes": _command(recipes),
    "cache": _command(cache),
    "demo": _command(demo),
}


_format_warning = warnings.formatwarning


def _as_note(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Show a warning of this package as a sentence, and any other as Python does."""
    if issubclass(category, OwnRangeWarning):
        return f"note: {message}\n"
    return _format_warning(message, category, filename, lineno, line)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 1 for a failure, 2 for wrong usage, 130 when interrupted.

    Example:
        >>> main(["recipes", "cifar-lt/glc"])
        2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ± or block characters shows a ?
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # Pillow's; our refusal names the file
    warnings.formatwarning = _as_note
    try:
        return _run(words)
    except LongtailError as error:
        return fail(error.for_command_line(), EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED)
    except BrokenPipeError:  # `longtail ... | head` has read enough
        return EXIT_FAILED
    except OSError as error:
        full = " Free some space and repeat the command." if is_disk_full(error) else ""
        return fail(f"{error}.{full}")
    except KeyboardInterrupt:
        return fail("interrupted.", EXIT_INTERRUPTED)


def _run(words: list[str]) -> int:
    command = next((word for word in words if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        return fail(f"there is no command {command!r}.{nearest(command, COMMANDS)}", EXIT_USAGE)
    words = without_auto(words) if command == "train" else words
    parser = build_parser(command, words)
    try:
        parsed = parser.parse_args(words)
    except ArgumentError as error:
        return fail(_explain(str(error.message), parser, command, words), EXIT_USAGE)
    if parsed.subcommand is None:
        parser.print_help()
        return 0
    _refuse_guesses(_sub_parser(parser, parsed.subcommand), parsed[parsed.subcommand], words)
    before = cache_sizes()
    try:
        return COMMANDS[parsed.subcommand].run(parsed[parsed.subcommand]) or 0
    finally:
        if "--quiet" not in words:
            cache.report_growth(before)


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
                sub.set_defaults(training_defaults(words, known.takes))
        subcommands.add_subcommand(name, sub, help=known.summary)
    return parser


def _refuse_guesses(parser: ArgumentParser, flags: Namespace, words: Sequence[str]) -> None:
    """Read numbers and lists as files of options are read: the parser takes 1:40 for a hundred and 0x10 for sixteen.

    Raises:
        UsageError: A number would have to be guessed.
    """
    places = {option: action.dest for action in parser._actions for option in action.option_strings}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, text = word.partition("=")
        whole = option if option in places else option.rpartition(".")[0]  # of a loss, --stage1.loss.options.tau 1
        value = flags.get(places.get(whole, ""))
        is_text = isinstance(value, list) and all(isinstance(part, str) for part in value)
        if is_text or isinstance(value, str | bool | None):
            continue
        from longtail.config.yaml_document import parse_yaml

        with as_usage():
            parse_yaml(text if equals else following, option)


def _explain(message: str, parser: ArgumentParser, command: str | None, words: Sequence[str] = ()) -> str:
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
        hint = _option_hint(word, actions, words) if word.startswith("-") else ""
        help_command = " ".join(["longtail", *([command] if command else []), "--help"])
        hint = hint or f" '{help_command}' lists them all."
        return f"unknown {'option' if word.startswith('-') else 'argument'} {word!r}.{hint}"
    missing = re.search(r"arguments are required: (.*)", message)
    if missing and command is not None:
        names = [name.removeprefix(f"{command}.") for name in missing.group(1).split(", ")]
        words = " and ".join(spelt.get(name, {"runs": "RUN"}.get(name, name.upper())) for name in names)
        return f"{words} missing: longtail {command} {COMMANDS[command].grammar}"
    return explain(message, lambda key: spelt.get(key, key.upper()))


def _option_hint(asked: str, actions: Sequence[argparse.Action], words: Sequence[str]) -> str:
    """Suggest options for an unknown one; those of stage 2 only if there is a stage 2 or the user named one."""
    epochs = next((action.default for action in actions if action.dest == "stage2.epochs"), None)
    second = bool(epochs) or any(word.startswith("--stage2.") for word in words)
    shown = [option for action in actions if action.help != argparse.SUPPRESS for option in action.option_strings]
    hint = nearest(asked, [option for option in shown if second or not option.startswith("--stage2.")])
    if not hint.startswith(" Did") and "--set" in shown:  # how `compare` takes the options of its runs
        options = [name for name in option_names() if name not in {"recipe", "reasons", "training.seed"}]
        hint = re.sub(r"'(\S+)'", r"'--set \1=VALUE'", nearest(asked, options))
    return hint if hint.startswith(" Did") else ""


def _sub_parser(parser: ArgumentParser, command: str) -> ArgumentParser:
    subcommands: Any = parser._subcommands_action
    found: ArgumentParser = subcommands._name_parser_map[command]
    return found
