"""Provenance of the runs: options, seeds, data, versions, hardware and time, as rows of words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from longtail.compare.seeds import json_options
from longtail.compare.table import Comparison, Row
from longtail.formatting import duration
from longtail.report.section import Section
from longtail.run.result import RunResult

ABSENT = "\u2013"


def build(comparison: Comparison) -> Section:
    """The last section of the page."""
    return Section("made", "How it was made", partial="provenance.html.j2", data=provenance(comparison.final))


def provenance(rows: Sequence[Row]) -> dict[str, object]:
    """Gather what the last section of the page shows.

    Returns:
        ``labels`` of the configurations, ``differing`` and ``shared`` options as (name, values), ``runs``: one list of
        (term, words) for each run, and ``versions`` of all runs; where runs disagree, every value.
    """
    tables = [[json_options(run.config) for run in row.runs] for row in rows]
    names = dict.fromkeys(name for row in tables for table in row for name in table)
    values = {name: [_joined([table.get(name) for table in row], ", ") for row in tables] for name in names}
    runs = [run for row in rows for run in row.runs]
    versions = [json_options(run.record.versions) for run in runs]
    packages = dict.fromkeys(name for table in versions for name in table if name)
    return {
        "labels": [row.label for row in rows],
        "differing": [(name, cells) for name, cells in values.items() if len(set(cells)) > 1],
        "shared": [(name, cells[0]) for name, cells in values.items() if len(set(cells)) == 1],
        "runs": [
            {"name": row.label if len(row.runs) == 1 else f"{row.label}, seed {run.seed}", "facts": _facts(run)}
            for row in rows
            for run in row.runs
        ],
        "versions": ", ".join(
            f"{name} {_joined([table[name] for table in versions if name in table], ' / ')}" for name in packages
        ),
    }


def _joined(values: Sequence[str | None], between: str) -> str:
    return between.join(dict.fromkeys(_words(value) for value in values))


def _words(text: str | None) -> str:
    """A JSON value as a person writes it; an absent option is a dash."""
    value = None if text is None else json.loads(text)
    if text is None or isinstance(value, str):
        return value or ABSENT
    return {"null": "none", "true": "yes", "false": "no"}.get(text, text)


def _facts(run: RunResult) -> list[tuple[str, str]]:
    seeds = [
        f"{name.removesuffix('_seed').replace('seed', 'training')} {value}"
        for name, value in run.record.seeds.items()
        if value is not None
    ]
    kind, _, digest = run.record.data_hash.rpartition(":")
    hardware = [
        f"{name.rsplit('.', 1)[-1].replace('_', ' ')} {_words(value)}"
        for name, value in json_options(run.record.hardware).items()
        if name
    ]
    facts = {
        "Folder": run.folder.name,
        "Seeds": ", ".join(seeds),
        "Data": f"{kind} {digest[:12]}".strip(),
        "Seen": "; ".join(draws.words for draws in run.record.draws.values()),
        "Adjusted": f"{run.adjustment}; not in these figures" if run.adjustment else "",
        "Hardware": ", ".join(hardware),
        "Time": _time(run.record.seconds),
    }
    return [(term, words) for term, words in facts.items() if words]


def _time(seconds: Mapping[str, float | None]) -> str:
    parts = {name: float(value) for name, value in seconds.items() if value is not None and value > 0}
    total = parts.pop("total", None) or sum(parts.values())
    stages = [f"{name.replace('stage', 'stage ')} {duration(value)}" for name, value in parts.items()]
    if not total:
        return ""
    return duration(total) + (f" ({', '.join(stages)})" if len(stages) > 1 else "")
