"""What ``auto`` comes to: the strength of a loss that the papers take, but where what we measured supports another."""

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
# Of the second stage, as published.
STAGE_2 = {("gcl", "scale"): 20.0}
# On the features of a frozen network: above the published value for 5, 20 and 100 classes.
ON_FEATURES = {("fbl", "strength"): 180.0}


def resolve_auto(name: str, options: Mapping[str, Any], *, stage: int = 1, on_features: bool = False) -> dict[str, Any]:
    """Replace every option that says ``auto``.

    Args:
        name: Registered name of the loss.
        options: Its options.
        stage: 1 or 2.
        on_features: No stage trains the backbone.

    Raises:
        LongtailError: There is no rule for an option that says so.

    Example:
        >>> resolve_auto("gcl", {"scale": "auto", "margin": 0.1})
        {'scale': 30.0, 'margin': 0.1}
        >>> resolve_auto("gcl", {"scale": "auto"}, stage=2), resolve_auto("fbl", {"strength": "auto"}, on_features=True)
        ({'scale': 20.0}, {'strength': 180.0})
    """
    rules = RULES | (STAGE_2 if stage == 2 else {}) | (ON_FEATURES if on_features else {})
    resolved = dict(options)
    for key, value in options.items():
        if value == "auto":
            if (name, key) not in rules:
                known = ", ".join(f"{option} of {loss}" for loss, option in rules)
                raise LongtailError(f"loss {name!r} has no rule for {key}: auto; there is one for {known}.")
            resolved[key] = rules[name, key]
    return resolved
