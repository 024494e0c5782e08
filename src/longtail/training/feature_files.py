"""Files of features in the cache: rows under the hashes of their images, found again by any run that needs them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

from longtail.data.loading.cache import files_on_disk, kept_on_disk
from longtail.data.loading.cache_folder import Contents
from longtail.data.loading.loaders import split_rows

AT_ONCE = 4096  # images whose features are stored in one file
_HASH, _KEY = 32, 40  # bytes of an image's hash, letters of a hash in a file's name


def short_hash(content: bytes) -> str:
    """Return the beginning of a hash, for the name of a file.

    Example:
        >>> len(short_hash(b"example"))
        40
    """
    return hashlib.sha256(content).hexdigest()[:_KEY]


def any_stored(keys: Sequence[str]) -> bool:
    """Whether any rows are stored under these keys."""
    return any(files_on_disk(f"{key}-") for key in keys)


def views_on_disk(
    keys: Sequence[str],
    hashes: Sequence[bytes],
    out: Tensor,
    compute: Callable[[Tensor, Sequence[int]], Sequence[Tensor]],
    contents: Contents,
    warn: Callable[[str], object],
    begin: Callable[[int], object] = lambda _: None,
) -> None:
    """Fill several views with one row per hash, from disk where stored; the rest is computed and stored.

    Views that lack the same rows are computed together, so that each image is decoded once. A call adds one file per
    view for every :data:`AT_ONCE` missing rows: the hashes, then the rows. An interruption loses no more than that.

    Args:
        keys: Hashes of everything else that the rows of each view depend on, V of them.
        hashes: 32 bytes each, N of them.
        out: float32 (V, N, D), written to.
        compute: From indices of hashes, int64 (M,), and numbers of views to their rows, float32 (M, D) for each view.
        contents: Description of the features, with the number of the first view.
        warn: Called with one sentence where the disk cannot be used.
        begin: Called with the number of rows to compute, before the first of them, unless all are stored.
    """
    places: dict[bytes, list[int]] = defaultdict(list)
    for index, name in enumerate(hashes):
        places[name].append(index)
    together: dict[tuple[bytes, ...], list[int]] = defaultdict(list)
    for view, key in enumerate(keys):
        missing = dict(places)
        for stored in files_on_disk(f"{key}-"):
            _take(stored, out[view], missing)
        together[tuple(missing)].append(view)
    if missing_rows := sum(len(names) * len(views) for names, views in together.items()):
        begin(missing_rows)
    for names, views in together.items():
        for part in split_rows(torch.arange(len(names)), AT_ONCE) if names else ():
            wanted = {names[index]: places[names[index]] for index in part.tolist()}
            # Sorted, so that processes that want the same images in any order wait for the one that computes them.
            part_key = short_hash(b"".join(sorted(wanted)))
            computed = cache(partial(compute, torch.tensor([rows[0] for rows in wanted.values()]), views))
            size = len(wanted) * (_HASH + 4 * out.shape[2])
            for number, view in enumerate(views):
                about = replace(contents, images=len(wanted), view=contents.view + view)
                write = partial(_write_part, b"".join(wanted), computed, number)
                stored = kept_on_disk(f"{keys[view]}-{part_key}", size, write, about, warn=warn)
                _take(stored, out[view], dict(wanted))


def _write_part(names: bytes, computed: Callable[[], Sequence[Tensor]], number: int, file: Tensor) -> None:
    """Write the hashes of some images, and their rows in one of the computed views."""
    rows = computed()[number]
    file[len(names) :].view(torch.float32).view_as(rows).copy_(rows)
    file[: len(names)] = torch.frombuffer(bytearray(names), dtype=torch.uint8)


def _take(stored: Tensor, rows: Tensor, missing: dict[bytes, list[int]]) -> None:
    """Copy the contents of a file into the rows (N, D), and remove them from what is missing."""
    count, rest = divmod(len(stored), _HASH + 4 * rows.shape[1])
    if rest:  # it was cut short
        return
    names, values = stored[: count * _HASH].numpy().tobytes(), stored[count * _HASH :]
    stored_names = [names[at : at + _HASH] for at in range(0, len(names), _HASH)]
    pairs = [(index, place) for place, name in enumerate(stored_names) for index in missing.pop(name, ())]
    if pairs:
        ours, theirs = torch.tensor(pairs).T
        rows[ours] = values.view(torch.float32).view(count, -1)[theirs]
