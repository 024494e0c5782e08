"""Paths of images as tables of other systems write them."""

from __future__ import annotations

import os
import unicodedata


def locate(folder: str | os.PathLike[str], path: str) -> str:
    r"""Return the file that a path of a table names, where it is written otherwise than on this disk.

    If there is no such file, it is looked for without surrounding white space, with the backslashes of Windows as
    slashes, and with its letters in Unicode's composed and decomposed form, as names look alike in both.

    Args:
        folder: What the path is relative to.
        path: As the table has it.

    Returns:
        The first of these files that exists, else the path as it is, in the folder.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> (folder / "birds").mkdir()
        >>> (folder / "birds" / "Cafe\u0301.png").touch()
        >>> locate(folder, "birds\\Caf\u00e9.png") == str(folder / "birds" / "Cafe\u0301.png")
        True
        >>> locate("photos", "gone.png")
        'photos/gone.png'
    """
    stripped = path.strip()
    as_it_is = os.path.join(folder, path)  # noqa: PTH118 - of each of a million rows
    if path == stripped and path.isascii() and "\\" not in path:
        return as_it_is
    slashes = stripped.replace("\\", "/")
    forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in (stripped, slashes)]
    files = (os.path.join(folder, name) for name in (path, stripped, slashes, *forms))  # noqa: PTH118
    return next(filter(os.path.isfile, files), as_it_is)
