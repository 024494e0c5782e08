"""Numbers and lists as text: percentages, intervals, differences, durations."""

from __future__ import annotations

import math
from collections.abc import Sequence

MINUS, EN_DASH = "\u2212", "\u2013"


def percent(value: float | None, digits: int = 1, *, unit: bool = True) -> str:
    """A fraction as a percentage, or ``n/a``; the only place that writes one.

    Example:
        >>> percent(0.3841), percent(0.12345, 2), percent(0.3841, unit=False), percent(None)
        ('38.4%', '12.35%', '38.4', 'n/a')
    """
    return "n/a" if value is None else f"{100 * value:.{digits}f}{'%' if unit else ''}"


def interval_text(bounds: Sequence[float] | None, to: str = EN_DASH) -> str:
    """The bounds of an interval in percent; empty where there is none.

    Example:
        >>> interval_text((0.123, 0.5)), interval_text((0.123, 0.5), " to "), interval_text(None)
        ('12.3–50.0', '12.3 to 50.0', '')
    """
    return "" if bounds is None else to.join(percent(bound, unit=False) for bound in bounds)


def figure_text(value: float | None, bounds: Sequence[float] | None = None, *, unit: bool = True) -> str:
    """A fraction as a percentage, with its interval in brackets where it has one.

    Example:
        >>> figure_text(0.384, [0.3741, 0.3939]), figure_text(0.384, unit=False)
        ('38.4% (37.4–39.4)', '38.4')
    """
    return percent(value, unit=unit) + ("" if value is None or bounds is None else f" ({interval_text(bounds)})")


def signed(value: float | None) -> str:
    """A difference in percentage points with its sign; a true minus, and no sign on a rounded zero.

    Example:
        >>> signed(0.0312), signed(-0.0312), signed(0.0001), signed(None)
        ('+3.1', '−3.1', '0.0', 'n/a')
    """
    if value is None:
        return "n/a"
    text = percent(abs(value), unit=False)
    return text if float(text) == 0 else ("+" if value > 0 else MINUS) + text


def number(value: float, spec: str = ".2f") -> str:
    """A number by a format, with a true minus, and no sign on a rounded zero; ``n/a`` where it is not finite.

    Example:
        >>> number(-0.5), number(-0.001), number(0.5, ".1%"), number(float("nan"))
        ('−0.50', '0.00', '50.0%', 'n/a')
    """
    if not math.isfinite(value):
        return "n/a"
    text = f"{abs(value):{spec}}"
    return MINUS + text if value < 0 and any(digit in text for digit in "123456789") else text


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
    """A number of seconds in hours, minutes and seconds.

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


def duration_text(seconds: float) -> str:
    """Write a duration in words, in the unit that suits it.

    Example:
        >>> duration_text(23), duration_text(70), duration_text(660), duration_text(9000)
        ('20 seconds', 'a minute', '11 minutes', '2.5 hours')
    """
    minutes = seconds / 60
    if minutes < 0.75:
        return f"{max(10 * round(seconds / 10), 5)} seconds"
    if minutes < 1.5:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
