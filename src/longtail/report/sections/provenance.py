"""How the runs were made: options, seeds, data, versions, hardware and time, as rows of words."""

from __future__ import annotations

import json
from collections.abc import Sequence

from longtail.compare.seeds import flatten
from longtail.compare.table import Comparison, Row
from longtail.report.section import Section
from longtail.run.read import Table
from longtail.run.result import RunResult
from longtail.text import duration

ABSENT = "\u2013"


def build(comparison: Comparison) -> Section:
    """The last section of the page."""
    return Section("made", "How it was made", partial="provenance.html.j2", data=provenance(comparison.final))


def provenance(rows: Sequence[Row]) -> dict[str, object]:
    """What the last section of the page shows.

    Returns:
        ``labels`` of the configurations, ``differing`` and ``shared`` options as (name, values), and ``runs``: one list
        of (term, words) for each run.
    """
    labels = [row.label for row in rows]
    differing, shared = _options(rows)
    runs = [{"name": _run_name(row, run), "facts": _facts(run)} for row in rows for run in row.runs]
    return {"labels": labels, "differing": differing, "shared": shared, "runs": runs, "versions": _versions(rows)}


def _options(rows: Sequence[Row]) -> tuple[list[tuple[str, list[str]]], list[tuple[str, str]]]:
    """Options that differ between configurations, and those they share; values of several seeds are joined."""
    tables = [[flatten(run.config) for run in row.runs] for row in rows]
    names = list(dict.fromkeys(name for row in tables for table in row for name in table))
    values = {name: [_joined([table.get(name) for table in row]) for row in tables] for name in names}
    differing = [(name, cells) for name, cells in values.items() if len(set(cells)) > 1]
    shared = [(name, cells[0]) for name, cells in values.items() if len(set(cells)) == 1]
    return differing, shared


def _joined(values: Sequence[str | None]) -> str:
    return ", ".join(dict.fromkeys(_words(value) for value in values))


def _words(text: str | None) -> str:
    """A JSON value as a person writes it; an absent option is a dash."""
    if text is None:
        return ABSENT
    value = json.loads(text)
    if isinstance(value, str):
        return value or ABSENT
    return {"null": "none", "true": "yes", "false": "no"}.get(text, text)


def _run_name(row: Row, run: RunResult) -> str:
    return row.label if len(row.runs) == 1 else f"{row.label}, seed {run.seed}"


def _facts(run: RunResult) -> list[tuple[str, str]]:
    seeds = ", ".join(
        f"{name.removesuffix('_seed').replace('seed', 'training')} {value}" for name, value in run.seeds.items()
    )
    facts = [("Folder", run.folder.name), ("Seeds", seeds), ("Data", _short_hash(run.data_hash))]
    facts += [("Adjusted", f"{run.adjustment}; not in these figures" if run.adjustment else "")]
    facts += [("Hardware", _flat(run.hardware)), ("Time", _time(run.seconds))]
    return [(term, words) for term, words in facts if words]


def _short_hash(text: str) -> str:
    kind, _, value = text.rpartition(":")
    return f"{kind} {value[:12]}".strip()


def _time(seconds: Table) -> str:
    parts = {name: float(value) for name, value in seconds.items() if isinstance(value, int | float) and value > 0}
    total = parts.pop("total", None) or sum(parts.values())
    if not total:
        return ""
    inner = ", ".join(f"{name.replace('stage', 'stage ')} {duration(value)}" for name, value in parts.items())
    return duration(total) + (f" ({inner})" if len(parts) > 1 else "")


def _flat(table: Table) -> str:
    return ", ".join(
        f"{name.rsplit('.', 1)[-1].replace('_', ' ')} {_words(value)}" for name, value in flatten(table).items() if name
    )


def _versions(rows: Sequence[Row]) -> str:
    """Versions of all runs; where runs disagree, every value."""
    tables = [flatten(run.versions) for row in rows for run in row.runs]
    names = list(dict.fromkeys(name for table in tables for name in table if name))
    return ", ".join(
        f"{name} {' / '.join(dict.fromkeys(_words(t[name]) for t in tables if name in t))}" for name in names
    )
