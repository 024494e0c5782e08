"""The colours of figures and page, in light and dark: apart for colour-blind readers and legible on their ground."""

from __future__ import annotations

from longtail.counts import GroupName

THEME: dict[str, tuple[str, str]] = {
    "ground": ("#fdfcfa", "#15171a"),
    "raised": ("#f4f2ee", "#1e2125"),
    "ink": ("#1d2024", "#ebe8e2"),
    "muted": ("#5d636b", "#a3a8ae"),
    "rule": ("#dedbd5", "#34383d"),
    "many": ("#28609e", "#7aa7f5"),
    "medium": ("#2f968c", "#5fdcc4"),
    "few": ("#bf4514", "#ff9161"),
    "run0": ("#6a7079", "#9ba1a9"),
    "run1": ("#6f2c87", "#b865b6"),
    "run2": ("#ad7e03", "#e6c34c"),
    "run3": ("#a11c55", "#be5175"),
    "run4": ("#679246", "#a1d583"),
    "run5": ("#1091ba", "#1ac8ed"),
    "run6": ("#7d3f2f", "#bf9680"),
    "run7": ("#1d2025", "#ebe8e3"),
}
"""CSS variable name to (light, dark). Every light value occurs once, so a figure can be recoloured by it."""

GROUP_COLORS: dict[GroupName, str] = {"many": THEME["many"][0], "medium": THEME["medium"][0], "few": THEME["few"][0]}
GROUP_SYMBOLS: dict[GroupName, str] = {"many": "circle", "medium": "diamond", "few": "triangle-up"}
GROUP_LABELS: dict[GroupName, str] = {"many": "Many-shot", "medium": "Medium-shot", "few": "Few-shot"}

GROUND, INK, MUTED, RULE = (THEME[name][0] for name in ("ground", "ink", "muted", "rule"))
RUN_COLORS = tuple(THEME[f"run{index}"][0] for index in range(8))
DASHES = ("solid", "dot", "dashdot")


def run_style(index: int) -> tuple[str, str]:
    """Colour and dash of the ``index``-th configuration; after the last colour the dash changes.

    Example:
        >>> run_style(0), run_style(8)
        (('#6a7079', 'solid'), ('#6a7079', 'dot'))
    """
    return RUN_COLORS[index % len(RUN_COLORS)], DASHES[index // len(RUN_COLORS) % len(DASHES)]
