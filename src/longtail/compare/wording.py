"""Numbers as words: percentages, spreads, differences, and when a difference is no evidence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from longtail.evaluation.intervals import LEVEL
from longtail.evaluation.significance import EVIDENCE, Difference

MINUS, EN_DASH = "\u2212", "\u2013"
SURE = f"{100 * LEVEL:g} %"
"""The level of all intervals, as a sentence writes it."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over ``n`` runs; ``std`` is None for a single run.

    Attributes:
        mean: Of the runs.
        std: Their deviation.
        n: How many runs.

    Example:
        >>> Spread.of([0.25, 0.75]).mean
        0.5
        >>> Spread.of([None]) is None
        True
    """

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread | None:
        """Fold the values that were measured; None where none was."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def percent(value: float | None, *, unit: bool = True) -> str:
    """A fraction as a percentage with one decimal, or ``n/a``.

    Example:
        >>> percent(0.3841), percent(0.3841, unit=False), percent(None)
        ('38.4%', '38.4', 'n/a')
    """
    return "n/a" if value is None else f"{100 * value:.1f}{'%' if unit else ''}"


def spread_text(spread: Spread | None) -> str:
    """Mean and deviation in percent, as a table cell holds them.

    Example:
        >>> spread_text(Spread(0.384, 0.0031, 3)), spread_text(None)
        ('38.4 ± 0.3', 'n/a')
    """
    if spread is None:
        return "n/a"
    return percent(spread.mean, unit=False) + ("" if spread.std is None else f" ± {100 * spread.std:.1f}")


def interval_text(ends: tuple[float, float] | None) -> str:
    """The ends of an interval in percent; nothing where there is none.

    Example:
        >>> interval_text((0.123, 0.5)), interval_text(None)
        ('12.3–50.0', '')
    """
    return "" if ends is None else f"{percent(ends[0], unit=False)}{EN_DASH}{percent(ends[1], unit=False)}"


def mean_interval(found: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """One interval for several runs on the same images: the mean of the ends; None where a run has none.

    More runs do not make it narrower, as they do not bring more images.

    Example:
        >>> mean_interval([(0.25, 0.5), (0.5, 0.75)]), mean_interval([(0.25, 0.5), None])
        ((0.375, 0.625), None)
    """
    known = [ends for ends in found if ends is not None]
    if not known or len(known) < len(found):
        return None
    return statistics.fmean(low for low, _ in known), statistics.fmean(high for _, high in known)


def signed(value: float | None) -> str:
    """A difference in percentage points with its sign; a true minus, and no sign on a rounded zero.

    Example:
        >>> signed(0.0312), signed(-0.0312), signed(0.0001), signed(None)
        ('+3.1', '−3.1', '0.0', 'n/a')
    """
    if value is None:
        return "n/a"
    text = f"{100 * abs(value):.1f}"
    return text if float(text) == 0 else ("+" if value > 0 else MINUS) + text


def number(value: float, digits: int = 2) -> str:
    """A plain number with a true minus, and no sign on a rounded zero; ``n/a`` where it is not finite.

    Example:
        >>> number(-0.5), number(-0.001), number(2, digits=0), number(float("nan"))
        ('−0.50', '0.00', '2', 'n/a')
    """
    if not math.isfinite(value):
        return "n/a"
    return f"{MINUS if round(value, digits) < 0 else ''}{abs(value):.{digits}f}"


def mark(change: Difference | None) -> str:
    """The mark after a difference in a table: * for evidence, i or s if it holds over images or seeds alone.

    Example:
        >>> mark(Difference(0.03, None, 1, images=(0.01, 0.05))), mark(Difference(0.03, None, 1))
        ('*', '')
        >>> mark(Difference(0.03, 0.04, 3, images=(0.01, 0.05), seeds=(-0.069, 0.129)))
        'i'
    """
    if change is None or change.holds is None or abs(change.mean) < EVIDENCE:
        return ""
    return "*" if change.is_evidence else {"images": "i", "seeds": "s"}.get(change.holds, "")


def difference_text(change: Difference | None) -> str:
    """Phrase a difference without overclaiming, naming the intervals it holds over.

    Example:
        >>> difference_text(Difference(0.031, None, 1, images=(0.01, 0.052)))
        '3.1 points higher (holds over images)'
        >>> difference_text(Difference(-0.031, 0.01, 3, images=(-0.05, -0.01), seeds=(-0.056, -0.006)))
        '3.1 points lower (holds over images and seeds)'
        >>> difference_text(Difference(0.03, 0.04, 3, images=(0.01, 0.05), seeds=(-0.069, 0.129)))
        'no clear difference (+3.0 points: holds over images, not over seeds, 95 % interval −6.9 to +12.9)'
        >>> difference_text(Difference(0.003, 0.0001, 3, images=(0.001, 0.004)))
        'no difference (+0.3 points)'
        >>> difference_text(Difference(0.031, 0.01, 2))
        '+3.1 points, but 2 seeds without an interval show no more than themselves'
    """
    if change is None:
        return "not measured"
    points = f"{signed(change.mean)} points"
    if change.interval is None:
        seeds = "one seed" if change.n == 1 else f"{change.n} seeds"
        show = "shows no more than itself" if change.n == 1 else "show no more than themselves"
        return f"{points}, but {seeds} without an interval {show}"
    if change.is_evidence:
        direction = "higher" if change.mean > 0 else "lower"
        return f"{100 * abs(change.mean):.1f} points {direction} (holds over {change.holds})"
    if change.is_none:
        return f"no difference ({points})"
    return f"no clear difference ({points}{_why_unclear(change)})"


def _why_unclear(change: Difference) -> str:
    """Why a difference is not clear: which interval contains zero, or that the difference is small."""
    failed = {"images": change.seeds, "seeds": change.images}.get(change.holds or "")
    low, high = failed or change.interval or (0.0, 0.0)
    interval = f"{SURE} interval {signed(low)} to {signed(high)}"
    if failed is not None:
        other = "seeds" if change.holds == "images" else "images"
        return f": holds over {change.holds}, not over {other}, {interval}"
    return f", {interval}" if change.holds == "neither" else f", {interval}: under half a point"


def class_word(name: str) -> str:
    """A class name as a sentence uses it: a bare number is called a class.

    Example:
        >>> class_word("lynx"), class_word("7")
        ('lynx', 'class 7')
    """
    return f"class {name}" if name.replace(".", "").isdigit() else name


def sentence_case(text: str) -> str:
    """Raise the first letter of ``class 7`` at the head of a sentence; names keep their own spelling.

    Example:
        >>> sentence_case("class 7"), sentence_case("lynx")
        ('Class 7', 'lynx')
    """
    return f"C{text[1:]}" if text.startswith("class ") else text


def listing(words: Sequence[str]) -> str:
    """Join words as a sentence does.

    Example:
        >>> listing(["a"]), listing(["a", "b"]), listing(["a", "b", "c"])
        ('a', 'a and b', 'a, b and c')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    Example:
        >>> duration(42.3), duration(200), duration(7320)
        ('42 s', '3 min 20 s', '2 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
