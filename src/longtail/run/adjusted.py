"""``adjusted.json``: the figures of a run after ``longtail adjust``, beside those of ``metrics.json`` before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from longtail.errors import LongtailError
from longtail.evaluation.posthoc import Adjustment
from longtail.files import write_atomically
from longtail.run.folder import ADJUSTED_FILE

FORMAT: Final = 1


def write_adjusted(folder: Path, adjustment: Adjustment, figures: Mapping[str, Any]) -> None:
    """Write the figures of each split after an adjustment, whole or not at all.

    Args:
        folder: The RUN folder.
        adjustment: What they were measured with.
        figures: By split, ``validation`` and ``test``, what ``metrics.json`` holds for it; None without the split.

    Raises:
        LongtailError: The file cannot be written; the one before stays.
    """
    head = {"format": FORMAT, "adjustment": fingerprint(adjustment), "chosen": dict(adjustment.chosen)}
    table = head | dict(figures)
    write_atomically(folder / ADJUSTED_FILE, f"{json.dumps(table, indent=2, ensure_ascii=False)}\n".encode())


def read_adjusted(folder: Path, adjustment: Adjustment) -> dict[str, Any] | None:
    """Return the figures of a run after this very adjustment; None where there are none, or those of another one.

    Raises:
        LongtailError: The file is damaged or of a newer format.
    """
    path = folder / ADJUSTED_FILE
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise LongtailError(f"{path} is damaged: delete it and run `longtail adjust` again.") from error
    if not isinstance(table, dict):
        raise LongtailError(f"{path} holds no figures: delete it and run `longtail adjust` again.")
    if table.get("format") != FORMAT:
        raise LongtailError(f"{path} has format {table.get('format')}, this longtail reads {FORMAT}: update longtail.")
    return table if table.get("adjustment") == fingerprint(adjustment) else None


def remove_adjusted(folder: Path) -> None:
    """Take the figures away, with the adjustment that they are of.

    Raises:
        LongtailError: The system refuses.
    """
    path = folder / ADJUSTED_FILE
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise LongtailError(f"{path} cannot be removed ({error.strerror}): remove it by hand.") from error


def fingerprint(adjustment: Adjustment) -> str:
    """Tell an adjustment from others by what it does to the logits.

    Example:
        >>> from dataclasses import replace
        >>> one, other = Adjustment((1.0,), (0.0,)), Adjustment((1.0,), (0.5,))
        >>> fingerprint(one) == fingerprint(replace(one, chosen={"tau": 1})), fingerprint(one) == fingerprint(other)
        (True, False)
    """
    return hashlib.sha256(json.dumps([adjustment.gain, adjustment.offset]).encode()).hexdigest()[:16]
