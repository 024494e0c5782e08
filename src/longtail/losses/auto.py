"""What ``auto`` comes to: the strength of a loss that the papers take, as none that we measured is better founded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longtail.errors import LongtailError

# Of CIFAR-LT; none published for E. No rule by the number of classes held in what we measured (docs/methods.md).
RULES: dict[tuple[str, str], float] = {
    ("gcl", "scale"): 30.0,
    ("agcl", "scale"): 30.0,
    ("gcl", "noise"): 0.5,
    ("agcl", "noise"): 0.1,
    ("fbl", "strength"): 60.0,
}


def resolve_auto(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Replace every option that says ``auto``.

    Args:
        name: Registered name of the loss.
        options: Its options.

    Raises:
        LongtailError: There is no rule for an option that says so.

    Example:
        >>> resolve_auto("gcl", {"scale": "auto", "margin": 0.1})
        {'scale': 30.0, 'margin': 0.1}
    """
    resolved = dict(options)
    for key, value in options.items():
        if value == "auto":
            if (name, key) not in RULES:
                known = ", ".join(f"{option} of {loss}" for loss, option in RULES)
                raise LongtailError(f"loss {name!r} has no rule for {key}: auto; there is one for {known}.")
            resolved[key] = RULES[name, key]
    return resolved
