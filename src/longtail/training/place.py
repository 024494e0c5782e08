"""refuse_existing: the folder of a new run has to be new, so that nothing is ever overwritten."""

from __future__ import annotations

from pathlib import Path

from longtail.errors import LongtailError, resume_hint
from longtail.files import is_stream, output_path


def refuse_existing(out: Path) -> None:
    """Make sure that a folder is new or empty.

    Raises:
        LongtailError: It holds something already.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> refuse_existing(folder)
        >>> for name in ("config.yaml", "metrics.json", "report.html"): (folder / name).touch()
        >>> refuse_existing(folder)
        Traceback (most recent call last):
        longtail.errors.LongtailError: ... is a finished run: choose another --out, or remove that folder first.
    """
    if is_stream(output_path(out)):
        raise LongtailError(f"{out} is a stream, and a run is a folder: name one with --out.")
    if not out.exists() or (out.is_dir() and all(_is_leftover(path.name) for path in out.iterdir())):
        return
    if all((out / name).is_file() for name in ("config.yaml", "metrics.json", "report.html")):
        raise LongtailError(
            f"{out} exists already and is a finished run: choose another --out, or remove that folder first."
        )
    hint = f"continue it with: {resume_hint(out)}" if (out / "config.yaml").is_file() else "empty it first."
    raise LongtailError(f"{out} exists already: choose another --out, or {hint}")


def _is_leftover(name: str) -> bool:
    """Whether a file is a temporary one of a process killed before it completed its first file."""
    return name.startswith(".") and name.endswith(".tmp")
