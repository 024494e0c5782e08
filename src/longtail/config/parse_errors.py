"""What the option parser complains about, said in one sentence that names the option, what it takes and what it got."""

from __future__ import annotations

import re
from collections.abc import Callable

from longtail.errors import nearest

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a word",
    "list": "a list such as [1, 2]",
    "dict": "names with values such as {a: 1}",
}


def explain(message: str, option: Callable[[str], str] = lambda key: key) -> str:
    '''Turn a complaint of the parser (jsonargparse over argparse) into one sentence for people.

    Args:
        message: The parser's message, perhaps of several lines.
        option: How the user spells a key of the parser, for example ``--imbalance-ratio``.

    Example:
        >>> explain("""Parser key "lr": Expected a <class 'float'>. Got value: big""")
        "lr takes a number, got 'big'."
        >>> explain("""Parser key "head": Expected a typing.Literal['linear', 'cosine']. Got value: cosin""")
        "head takes 'linear' or 'cosine', got 'cosin'. Did you mean 'cosine'?"
    '''
    sentence = " ".join(message.split())
    found = re.search(r'Parser key "([^"]+)": (.*)', sentence)
    if found is None:
        return _explain_words(sentence)
    key, complaint = option(found.group(1)), found.group(2)
    value = re.search(r"(?:Got|Given) value: (.*)", complaint)
    got = f", got {value.group(1)!r}." if value else "."
    choices = re.search(r"Literal\[(.*?)\]", complaint)
    if choices:
        names = re.findall(r"'([^']*)'", choices.group(1))
        hint = nearest(value.group(1), names) if value else ""
        return f"{key} takes {_any_of([repr(name) for name in names])}{got}{hint if hint.startswith(' Did') else ''}"
    kinds = dict.fromkeys(re.findall(r"<class '(\w+)'>", complaint.partition("Given value type")[0]))
    words = [_KINDS[kind] for kind in kinds if kind in _KINDS]
    if words:
        return f"{key} takes {_any_of(words)}{got}"
    return f"{key}: {complaint.rstrip('.')}."


def _explain_words(sentence: str) -> str:
    """Complaints of argparse itself, about words that are missing or too many."""
    found = re.search(r"argument (\S+?): expected (?:one|at least one) argument", sentence)
    if found:
        return f"{found.group(1)} needs a value."
    found = re.search(r"argument (\S+?): ignored explicit argument (.*)", sentence)
    if found:
        return f"{found.group(1)} takes no value, got {found.group(2)}."
    return sentence


def _any_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
