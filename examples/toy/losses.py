"""Losses of the toy by name, each with its classifier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from longtail.errors import LongtailError, nearest
from longtail.losses import LOSSES


@dataclass(frozen=True)
class Contender:
    """A loss of the toy: its title, options and classifier.

    Attributes:
        title: Display name.
        loss: A key of ``LOSSES``.
        options: Options of the loss; a scale of ``auto`` is that of :func:`scale_for`.
        head: Kind of classifier; empty for that of the loss.
    """

    title: str
    loss: str
    options: Mapping[str, Any] = field(default_factory=dict)
    head: str = ""


CONTENDERS: Mapping[str, Contender] = {
    "ce": Contender("Cross-entropy", "cross-entropy"),
    "ce-cosine": Contender("Cross-entropy, cosine classifier", "cross-entropy", {"scale": "auto"}, "cosine"),
    "kps": Contender("KPS", "kps"),
    "fbl": Contender("FBL", "fbl"),
    "gcl": Contender("GCL", "gcl", {"scale": "auto"}),
    "agcl": Contender("AGCL", "agcl", {"scale": "auto"}),
}
"""The methods, and plain cross-entropy on a cosine classifier, to separate the effect of loss and classifier."""


def find_contender(name: str) -> Contender:
    """A loss of the toy by its name there, or any registered loss with its own options.

    Raises:
        LongtailError: No such loss, or one that reads the classifier and is not made for this.

    Example:
        >>> find_contender("gcl").title, find_contender("ldam").title
        ('GCL', 'ldam')
    """
    if name in CONTENDERS:
        return CONTENDERS[name]
    choices = [loss for loss, made in LOSSES.items() if not made.needs_classifier]
    if name not in choices:
        raise LongtailError(f"the toy has no loss {name!r}.{nearest(name, [*CONTENDERS, *choices])}")
    return Contender(name, name)


def scale_for(num_classes: int) -> float:
    """The scale of a cosine classifier that is as sure with C classes as the published 30 is with 100.

    A softmax over C cosines gives its best class the probability p only where that is ahead of all others by a gap d
    with ``S d >= ln((C - 1) p / (1 - p))``. The published S = 30 on 100 classes can be p = 0.9 sure at a gap of 0.23;
    the same gap is asked of any other number of classes. It is an equation, not a measured best.

    Args:
        num_classes: C, at least 2.

    Example:
        >>> [round(scale_for(classes), 1) for classes in (2, 6, 100)]
        [9.7, 16.8, 30.0]
    """
    odds = 9.0  # p / (1 - p)
    return 30.0 * math.log((num_classes - 1) * odds) / math.log(99 * odds)
