"""What ``auto`` comes to: the strength of a loss from the number of classes, where no published value fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from longtail.counts import ClassCounts
from longtail.errors import LongtailError

if TYPE_CHECKING:
    from longtail.counts import ClassCountsLike

_PUBLISHED_SCALE, _PUBLISHED_CLASSES, _SURE = 30.0, 100, 0.9


def auto_scale(num_classes: int) -> float:
    """The scale S of a cosine classifier: as sure with C classes as the published 30 is with 100.

    A softmax over C cosines gives its best class the probability p only where that is ahead of all others by a gap d
    with ``S d >= ln((C - 1) p / (1 - p))``. The published S = 30 on 100 classes can be p = 0.9 sure at a gap of 0.23;
    the same gap is asked of any other number of classes.

    Args:
        num_classes: C, at least 2.

    Returns:
        S, from 9.7 for two classes up.

    Example:
        >>> [round(auto_scale(classes), 1) for classes in (5, 20, 100, 1000, 8142)]
        [15.8, 22.7, 30.0, 40.2, 49.5]
    """
    odds = _SURE / (1 - _SURE)
    needed = math.log((num_classes - 1) * odds)
    return _PUBLISHED_SCALE * needed / math.log((_PUBLISHED_CLASSES - 1) * odds)


def _scale(counts: ClassCounts) -> float:
    return auto_scale(max(counts.num_classes, 2))


# The others do not depend on the number of classes: no other value was better in all of our searches (docs/methods.md).
RULES: dict[tuple[str, str], Callable[[ClassCounts], float]] = {
    ("gcl", "scale"): _scale,
    ("agcl", "scale"): _scale,
    ("gcl", "noise"): lambda _: 0.5,
    ("agcl", "noise"): lambda _: 0.1,
    ("fbl", "strength"): lambda _: 60.0,
}


def resolve_auto(name: str, options: Mapping[str, Any], class_counts: ClassCountsLike) -> dict[str, Any]:
    """Replace every option that says ``auto``.

    Args:
        name: Registered name of the loss.
        options: Its options.
        class_counts: Training images per class, length C.

    Raises:
        LongtailError: There is no rule for an option that says so.

    Example:
        >>> resolve_auto("gcl", {"scale": "auto", "margin": 0.1}, [500] * 5)
        {'scale': 15.8, 'margin': 0.1}
    """
    resolved = dict(options)
    for key, value in options.items():
        if value == "auto":
            if (name, key) not in RULES:
                known = ", ".join(f"{option} of {loss}" for loss, option in RULES)
                raise LongtailError(f"loss {name!r} has no rule for {key}: auto; there is one for {known}.")
            resolved[key] = round(RULES[name, key](ClassCounts.of(class_counts)), 1)
    return resolved
