"""What an inspection prints, and its findings by kind."""

from __future__ import annotations

import io

from rich.console import Console

from longtail.data.audit.inspection import Inspection, render


def printed(inspection: Inspection, width: int = 100, **options: int) -> str:
    out = io.StringIO()
    render(inspection, Console(file=out, width=width), **options)
    return out.getvalue()


def message(inspection: Inspection, kind: str, severity: str = "warning") -> str:
    """Return the message of the one finding of a kind, which has to have that severity."""
    (finding,) = [finding for finding in inspection.findings if finding.kind == kind]
    assert finding.severity == severity
    return finding.message


def kinds(inspection: Inspection) -> list[str]:
    return [finding.kind for finding in inspection.findings]
