"""Arguments of a command: help and values for the parameters of its function, from the words that a user typed."""

from __future__ import annotations

import argparse
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from longtail.config.options import choices_of, flatten, groups_of
from longtail.config.schema import RunConfig, defaults, option_types
from longtail.errors import UsageError, as_usage, nearest

Command: TypeAlias = Callable[..., Any]
SHORT: Final = {
    "data.imbalance_ratio": "--imbalance-ratio",
    "data.image_column": "--image-column",
    "data.label_column": "--label-column",
    "data.split_column": "--split-column",
    "data.group_column": "--group-column",
    "data.folds": "--folds",
    "training.engine": "--engine",
    "training.metric": "--metric",
    "training.seed": "--seed",
    "training.tracker": "--tracker",
    "training.keep_checkpoints": "--keep-checkpoints",
}
"""Options of a run that have a short flag."""

COLUMNS: Final = ("data.image_column", "data.label_column", "data.split_column")
"""Those that name the columns of a table."""


@dataclass(frozen=True)
class RunOptions:
    """Marks the parameter of a command that takes options of a run, by their dotted names.

    Attributes:
        short: The options that have the flags of :data:`SHORT`.
        dotted: Whether each option has a flag such as ``--stage1.epochs``.
        shown: Those of them that ``--help`` explains; ``--help-all`` explains all.
    """

    short: Sequence[str] = tuple(SHORT)
    dotted: bool = True
    shown: Sequence[str] = ()


@dataclass(frozen=True)
class Argument:
    """One argument of a command.

    Attributes:
        name: Name of the parameter, or dotted name of an option of a run.
        kind: Its type; a text in its ``Annotated`` is the word that stands for a value.
        flag: Flag as typed; empty for a positional argument.
        required: Whether it has to be given.
        options: For an option of a run, name of the parameter that takes it.
        shown: Whether ``--help`` explains it.
    """

    name: str
    kind: Any
    flag: str = ""
    required: bool = False
    options: str = ""
    shown: bool = True

    @property
    def is_switch(self) -> bool:
        """Whether the flag alone means true."""
        return self.kind is bool and not (self.options and self.flag == f"--{self.name}")

    @property
    def is_optional(self) -> bool:
        """Whether the flag may stand without a value, which is then the empty text."""
        return _base(self.kind) is str and self.metavar.startswith("[")

    @property
    def is_list(self) -> bool:
        """Whether it takes several words, after one flag or each after its own."""
        return _base(self.kind) in {list, Sequence} and not self.options

    @property
    def metavar(self) -> str:
        """The word that stands for a value."""
        texts = [mark for mark in _marks(self.kind) if isinstance(mark, str)]
        return texts[0] if texts else "|".join(choices_of(self.kind)) or _METAVARS.get(_base(self.kind), "TEXT")

    @property
    def usage(self) -> str:
        """The flag with its value, as it is typed."""
        typed = self.flag if self.is_switch else f"{self.flag} {self.metavar}".lstrip()
        return typed if self.required else f"[{typed}]"


_METAVARS: Final[dict[Any, str]] = {int: "N", float: "X", bool: "true|false", list: "[...]", dict: "{...}"}
_HELP: Final = {
    "-h": "show this help",
    "--help": "show this help",
    "--help-all": "show every option, those of a run by group",
}


def _marks(kind: Any) -> list[Any]:
    """Return the marks in the ``Annotated`` of a type, or of the members of a union."""
    parts = get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)
    return [mark for part in parts for mark in getattr(part, "__metadata__", ())]


def _base(kind: Any) -> Any:
    """The type without its range and without None: ``int`` of ``Annotated[int, Ge(0)] | None``."""
    if get_origin(kind) in {Annotated, Union, UnionType}:
        return _base(get_args(kind)[0])
    return str if get_origin(kind) is Literal else get_origin(kind) or kind


def option_flag(name: str) -> str:
    """Return an argument of a command as it is typed.

    Example:
        >>> option_flag("moved_to"), option_flag("data.image_size")
        ('--moved-to', '--data.image_size')
    """
    return f"--{name if '.' in name else name.replace('_', '-')}"


def arguments_of(command: Command) -> list[Argument]:
    """Return the arguments of a command, in the order of its parameters; those after ``*`` have flags.

    Example:
        >>> def evaluate(run: Annotated[str, "RUN"], *, moved_to: str | None = None, json: bool = False) -> None: ...
        >>> [argument.usage for argument in arguments_of(evaluate)]
        ['RUN', '[--moved-to TEXT]', '[--json]']
    """
    hints, arguments = get_type_hints(command, include_extras=True), list[Argument]()
    for name, parameter in inspect.signature(command).parameters.items():
        marks = [mark for mark in _marks(hints[name]) if isinstance(mark, RunOptions)]
        if marks:
            for option, kind in option_types().items():
                if option in marks[0].short:
                    arguments.append(Argument(option, kind, SHORT[option], options=name))
                if marks[0].dotted and option != "reasons":
                    shown = option in marks[0].shown
                    arguments.append(Argument(option, kind, f"--{option}", options=name, shown=shown))
            continue
        flag = option_flag(name) if parameter.kind is parameter.KEYWORD_ONLY else ""
        arguments.append(Argument(name, hints[name], flag, required=parameter.default is parameter.empty))
    return arguments


def parse(program: str, function: Command, words: Sequence[str]) -> dict[str, Any] | str:
    """Return what a user gave to a command, as arguments of its function; or the help that was asked for.

    Args:
        program: Command as typed, such as ``longtail evaluate``.
        function: Its function, see :func:`arguments_of`.
        words: The words after that.

    Raises:
        UsageError: An argument is unknown or missing, or a value has the wrong type or is out of range.

    Example:
        >>> def evaluate(run: Annotated[str, "RUN"], *, moved_to: str | None = None, json: bool = False) -> None: ...
        >>> parse("longtail evaluate", evaluate, ["r", "--json"])
        {'run': 'r', 'json': True}
    """
    arguments = arguments_of(function)
    flags = {argument.flag: argument for argument in arguments if argument.flag}
    try:
        typed, rest = _parser(flags).parse_known_args(words)
    except argparse.ArgumentError as error:
        has_value = str(error.argument_name) in flags and not flags[str(error.argument_name)].is_switch
        raise UsageError(f"{error.argument_name} {'needs a value' if has_value else 'takes no value'}.") from error
    texts = vars(typed)
    if texts.keys() & _HELP.keys():
        return _help(program, function, arguments, everything="--help-all" in texts)
    positionals, parts = _divide(program, rest, flags, texts)
    values = _take(program, function, arguments, positionals, texts)
    options = {flags[flag].name: _value(text, flags[flag]) for flag, text in texts.items() if flags[flag].options}
    options |= {flag.removeprefix("--"): _read(text, Any, flag) for flag, text in parts.items()}
    return values | {argument.options: options for argument in arguments if argument.options}


def _parser(flags: Mapping[str, Argument]) -> argparse.ArgumentParser:
    # An abbreviation would hide a misspelled option.
    parser = argparse.ArgumentParser(
        argument_default=argparse.SUPPRESS, add_help=False, allow_abbrev=False, exit_on_error=False
    )
    for flag in _HELP:
        parser.add_argument(flag, dest=flag, action="store_true")
    for flag, argument in flags.items():
        several = {"action": "extend", "nargs": "+" if argument.metavar.endswith("...") else 1}
        takes: Any = {"action": "store_true"} if argument.is_switch else several if argument.is_list else {}
        takes |= {"nargs": "?", "const": ""} if argument.is_optional else {}
        parser.add_argument(flag, dest=flag, **takes)
    return parser


def _divide(
    program: str, rest: Sequence[str], flags: Mapping[str, Argument], texts: Mapping[str, Any]
) -> tuple[list[str], dict[str, str]]:
    """Divide the remaining words into positional ones and options of a loss, which have no flags of their own."""
    positionals, parts, words = list[str](), dict[str, str](), iter(rest)
    for word in words:
        flag, equals, text = word.partition("=")
        option = flags.get(flag.rpartition(".")[0])
        if word == "--":
            positionals += words
        elif option is not None and _base(option.kind) is dict:
            value = text if equals else next(words, None)
            if value is None:
                raise UsageError(f"{flag} needs a value.")
            parts[flag] = value
        elif word.startswith("-") and word != "-":
            raise UsageError(_unknown(program, flag, flags, texts))
        else:
            positionals.append(word)
    return positionals, parts


def given_words(function: Command, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments of a command that are not as when they are left out, each as a user knows it.

    Args:
        function: The command.
        values: Its arguments by name.
    """
    return {
        each.name: repr(values[each.name]) if each.kind is not each.KEYWORD_ONLY else option_flag(each.name)
        for each in inspect.signature(function).parameters.values()
        if values[each.name] != each.default
    }


def _take(
    program: str, function: Command, arguments: Sequence[Argument], positionals: list[str], texts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of the parameters, apart from options of a run."""
    values: dict[str, Any] = {}
    missing = []
    for argument in (each for each in arguments if not each.options):
        if argument.flag in texts:
            values[argument.name] = _value(texts[argument.flag], argument)
        elif positionals and not argument.flag:
            values[argument.name] = positionals[:] if argument.is_list else positionals[0]
            del positionals[: None if argument.is_list else 1]
        elif argument.required:
            missing.append(argument.flag or argument.metavar.partition(" ")[0])
    if missing:
        raise UsageError(f"{' and '.join(missing)} missing: {usage(program, function).splitlines()[0]}")
    if positionals:
        hint = " Put a pattern in quotes, or name the folder." if Path(positionals[0]).exists() else ""
        raise UsageError(f"unknown argument {positionals[0]!r}.{hint} '{program} --help' lists them all.")
    return values


def _value(text: Any, argument: Argument) -> Any:
    """Read and check the value of an argument with a flag."""
    from longtail.config.build import check_value

    return check_value(_read(text, argument.kind, argument.flag), argument.kind, argument.flag)


def _read(text: Any, kind: Any, flag: str) -> Any:
    """Read a value as files of options are read: neither 1:40 nor 0x10 is a number."""
    if not isinstance(text, str):  # a switch, or several words
        return text
    if _base(kind) is str:
        return None if text in {"null", "~"} and type(None) in get_args(kind) else text
    from longtail.config.build import parse_yaml

    with as_usage():
        return parse_yaml(text, flag).values


def _unknown(program: str, flag: str, flags: Mapping[str, Argument], texts: Mapping[str, Any]) -> str:
    """Describe an unknown flag, with the nearest right one; that of a later stage only if there is one."""
    from longtail.config.recipes import list_recipes, load_recipe

    group = flag.removeprefix("--") + "."
    if "--stage1.epochs" in flags and group in groups_of(RunConfig):
        member = next(name for name in option_types() if name.startswith(group))
        return f"{flag} is a group: set options in it, such as --{member}, or use --config FILE."
    second = any(typed.startswith("--stage2.") for typed in texts)
    if texts.get("--recipe") in list_recipes():
        second |= load_recipe(texts["--recipe"]).config["stage2"]["epochs"] > 0
    tuned = any(typed.startswith("--finetune.") for typed in texts)
    names = [name for name in (*flags, *_HELP) if second or not name.startswith("--stage2.")]
    names = [name for name in names if tuned or not name.startswith("--finetune.")]
    hint = nearest(flag, names, list_all=False)
    if not hint and "--set" in flags:  # how `compare` takes the options of its runs
        options = [name for name in option_types() if name not in {"recipe", "reasons", "training.seed"}]
        hint = nearest(flag, options, list_all=False, show=lambda name: f"--set {name}=VALUE")
    everything = f" '{program} --help' lists them all."
    return f"unknown option {flag!r}.{hint or everything}"


Columns: TypeAlias = Annotated[Mapping[str, Any], RunOptions(short=COLUMNS, dotted=False)]
"""Options that name the columns of a table, by their dotted names."""


def last_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a run as keyword arguments, each by the last part of its name.

    Example:
        >>> last_names({"data.label_column": "species"})
        {'label_column': 'species'}
    """
    return {name.rpartition(".")[2]: value for name, value in options.items()}


def usage(program: str, function: Command) -> str:
    """Return how a command is typed: what its docstring says under ``Usage``, or its arguments on one line.

    Example:
        >>> def evaluate(run: Annotated[str, "RUN"], *, moved_to: str | None = None, json: bool = False) -> None: ...
        >>> usage("longtail evaluate", evaluate)
        'longtail evaluate RUN [--moved-to TEXT] [--json]'
    """
    _, _, forms = inspect.cleandoc(function.__doc__ or "").partition("\nUsage:\n")
    if forms:
        return textwrap.dedent(forms.partition("\n\n")[0])
    typed = sorted(arguments_of(function), key=lambda argument: (bool(argument.flag), not argument.required))
    return " ".join([program, *(argument.usage for argument in typed)])


def summary(function: Command) -> str:
    """Return the first line of the docstring of a command."""
    return inspect.cleandoc(function.__doc__ or "").partition("\n")[0]


def _help(program: str, function: Command, arguments: Sequence[Argument], *, everything: bool) -> str:
    forms = [
        textwrap.fill(line, 110, subsequent_indent=" " * 17, break_on_hyphens=False, break_long_words=False)
        for line in usage(program, function).splitlines()
    ]
    parser = argparse.ArgumentParser(
        prog=program,
        usage="\n       ".join(forms).replace("%", "%%"),
        description=summary(function),
        add_help=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=110),
    )
    texts = {
        prefix + name: text
        for prefix, group in groups_of(RunConfig).items()
        for name, text in _explanations(group).items()
    } | _explanations(function)
    # Those of a run stand below whatever recipe and images choose, so that a short help would mislead.
    values = flatten(defaults()) if everything else {}
    values |= {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    titles = dict.fromkeys(each.name.partition(".")[0] for each in arguments if "." in each.name)
    groups = {title: parser.add_argument_group(title) for title in ("arguments", "options", *titles)}
    for argument in (each for each in arguments if everything or each.shown):
        title = "options" if argument.flag else "arguments"
        if everything and "." in argument.name and argument.flag == f"--{argument.name}":
            title = argument.name.partition(".")[0]
        extra: dict[str, Any] = {"action": "store_true"} if argument.is_switch else {"metavar": argument.metavar}
        name, text, value = argument.flag or argument.name, texts.get(argument.name, ""), values.get(argument.name)
        # A default that tells nothing, as that of a switch, is left out.
        if value not in (None, inspect.Parameter.empty, "", (), [], {}) and value is not False:
            text += f" (default: {value if isinstance(value, str) else json.dumps(value)})"
        groups[title].add_argument(name, help=text.replace("%", "%%"), **extra)
    for flag in ("--help", *(() if all(argument.shown for argument in arguments) else ("--help-all",))):
        groups["options"].add_argument(flag, action="store_true", help=_HELP[flag])
    return parser.format_help()


def _explanations(documented: Any) -> dict[str, str]:
    """The descriptions of parameters or attributes in a docstring, in plain words."""
    import docstring_parser

    explained = {}
    for each in docstring_parser.parse(documented.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE).params:
        text = re.sub(r"(?::\w+:)?`+([^`]*)`+", r"\1", " ".join((each.description or "").split())).rstrip(".")
        explained[each.arg_name] = text[:1].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else text
    return explained
