"""Values from files of others, checked by pydantic: what does not fit is one sentence with field, type and value."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

from longtail.errors import LongtailError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import ErrorDetails

Value = TypeVar("Value")
_SHOWN: Final = 60  # characters of a value in an error


def validate(adapter: TypeAdapter[Value], value: Any, where: str, remedy: str = "correct it") -> Value:
    """Return a value as the type of an adapter.

    Args:
        adapter: The type, as pydantic's ``TypeAdapter``.
        value: Plain values, or JSON as bytes, which is parsed strictly: no NaN, no text for numbers.
        where: What the value is, such as the path of its file.
        remedy: What to do about an error, without a period.

    Raises:
        LongtailError: The value does not fit the type; its cause is pydantic's error, with all fields that do not fit.

    Example:
        >>> from pydantic import TypeAdapter
        >>> validate(TypeAdapter(dict[str, int]), {"epochs": "many"}, "mine.yaml")
        Traceback (most recent call last):
        longtail.errors.LongtailError: mine.yaml: 'epochs' should be a valid integer, not 'many': correct it.
    """
    from pydantic import ValidationError

    try:
        if isinstance(value, bytes):
            return adapter.validate_json(value, strict=True)
        return adapter.validate_python(value)
    except ValidationError as error:
        raise LongtailError(f"{where}: {describe(error)}: {remedy}.") from error


def describe(error: ValidationError) -> str:
    """Return the first problem of a validation as a clause: the field, the type it should have, the value."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])[:_SHOWN]
    name = repr(field) if field else "the value"
    match problem["type"]:
        case "missing":
            return f"{name} is missing"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"{name} is not known"
        case "json_invalid":
            return f"not valid JSON ({problem['ctx']['error']})"
        case "value_error":
            return f"{name}: {problem['ctx']['error']}" if field else str(problem["ctx"]["error"])
    return f"{name} {_requirement(problem)}, not {shown(problem['input'])}"


def _requirement(problem: ErrorDetails) -> str:
    """What a value should be, as pydantic says it, without its remarks on how it tried to parse it."""
    return problem["msg"].removeprefix("Input ").partition(", unable to parse")[0]


def shown(value: Any) -> str:
    """Return a value for an error, cut where it is long.

    Example:
        >>> shown("a" * 100), shown(10**5000)
        ("'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'", 'a number of too many digits')
    """
    try:
        return _REPR.repr(value)
    except ValueError:
        return "a number of too many digits"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = _SHOWN
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 4
