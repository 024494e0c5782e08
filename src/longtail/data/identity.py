"""Which images these are: hashes by which what was computed of them is found again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import PIL

from longtail.data.decoding import Decoder
from longtail.data.image_data import Encoded, Split, gone
from longtail.errors import UnreadableImageError

FORMAT = 1  # of decoded images; raise it when they are decoded or laid out differently


def image_key(decoder: Decoder) -> str:
    """Hash the stored images of a split, in order, and the size they are brought to.

    An embedded image counts by its bytes, a photo by path, size and times of its last change: to read all photos takes
    about as long as a cache of their pixels saves. Features cost far more, and go by :func:`image_hashes`.

    Raises:
        UnreadableImageError: A file has gone since the source was read.
    """
    digest = hashlib.sha256(f"{scaling(decoder)};".encode())
    for _, stored in decoder.split.scan():
        content, path = stored["bytes"], stored["path"]
        if content is not None:
            digest.update(b"bytes %d;" % len(content) + content)
        elif path is not None:
            try:
                status = os.stat(path)  # noqa: PTH116 - a million of them: no Path is made of each
            except FileNotFoundError:
                raise gone(path) from None
            name = os.fsencode(path)
            # The second time cannot be set: it tells a file that was rewritten and given its old date.
            times = (status.st_mtime_ns, status.st_ctime_ns)
            digest.update(b"file %d %d %d %d;" % (len(name), status.st_size, *times) + name)
        else:
            digest.update(b"nothing;")
    return digest.hexdigest()


def image_hashes(split: Split) -> list[bytes]:
    """Hash each stored image by its bytes alone: 32 bytes, the same wherever the file lies and whatever its name.

    Raises:
        UnreadableImageError: A file has gone since the source was read, or cannot be read.

    Example:
        >>> import numpy as np
        >>> first, second, third = image_hashes(Split.from_arrays(np.uint8([[[0]], [[9]], [[0]]]), [0, 0, 1]))
        >>> first == third, first == second
        (True, False)
    """
    return [hashlib.sha256(_content(stored)).digest() for _, stored in split.scan()]


def _content(stored: Encoded) -> bytes:
    if stored["bytes"] is not None or stored["path"] is None:
        return stored["bytes"] or b""
    try:
        return Path(stored["path"]).read_bytes()
    except FileNotFoundError:
        raise gone(stored["path"]) from None
    except OSError as error:
        raise UnreadableImageError(f"{stored['path']!r} cannot be read ({error.strerror}).") from error


def scaling(decoder: Decoder) -> str:
    """What decoded pixels follow from beside the stored image; another Pillow may decode to slightly other ones."""
    return f"{FORMAT} {PIL.__version__} {decoder.resize} {decoder.size} {decoder.interpolation}"
