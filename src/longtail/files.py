"""write_atomically: a file that is whole under its name, or not there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from longtail.errors import LongtailError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, bring it to the disk, and only then give it its name.

    Args:
        path: The file; missing folders above it are made.
        data: Its content.

    Raises:
        LongtailError: No space, no permission, or another refusal of the system. A file of that name stays as it was.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_atomically(folder / "a.txt", b"whole")
        >>> [file.name for file in folder.iterdir()]
        ['a.txt']
    """
    temporary = path if is_device(path) else path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if temporary != path:
                os.fsync(file.fileno())
        if temporary != path:
            temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary != path:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def is_device(path: Path) -> bool:
    """Whether a path is a device or a pipe, such as ``/dev/stdout``: written to as it is, never replaced by a file.

    Example:
        >>> is_device(Path("/dev/null")), is_device(Path("new.csv"))
        (True, False)
    """
    return path.exists() and not path.is_file() and not path.is_dir()


def cannot_write(path: Path, error: OSError) -> LongtailError:
    """Return the error that tells a user why a file was not written and what to do.

    Example:
        >>> print(cannot_write(Path("a.csv"), OSError(28, "No space left on device")))
        a.csv cannot be written (No space left on device): free some space or name another folder.
    """
    return LongtailError(f"{path} cannot be written ({error.strerror}): free some space or name another folder.")
