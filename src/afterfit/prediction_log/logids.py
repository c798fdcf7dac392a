"""Which prediction ids a log knows: 64-bit hashes, sorted, in a small file beside each sealed part."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from afterfit.prediction_log.store import Bucket, Folder, Part, Store, content

Hashes = npt.NDArray[np.uint64]


def hashes(texts: Sequence[str | None] | pa.ChunkedArray) -> Hashes:
    """(n,) uint64 for n texts; a missing one has the hash of an empty text."""
    values = texts.to_pylist() if isinstance(texts, pa.ChunkedArray | pa.Array) else list(texts)
    objects = np.empty(len(values), dtype=object)
    objects[:] = [value or "" for value in values]
    return np.asarray(pd.util.hash_array(objects, categorize=False), dtype=np.uint64)


def index(ids: Sequence[str | None] | pa.ChunkedArray) -> bytes:
    """The file that lists a part's ids: their sorted hashes as numpy writes them."""
    file = io.BytesIO()
    np.save(file, np.sort(hashes(ids)), allow_pickle=False)
    return file.getvalue()


def held(store: Store, cache: Path, part: Part, wanted: Hashes) -> npt.NDArray[np.bool_]:
    """Which of the wanted hashes a part's index lists; an index on S3 is fetched once, into the cache.

    Raises:
        FileNotFoundError: the part has no index (any more).
    """
    listed: Any = np.load(_local(store, cache, part.index()), mmap_mode="r", allow_pickle=False)
    if not len(listed):
        return np.zeros(len(wanted), dtype=np.bool_)
    at = np.minimum(np.searchsorted(listed, wanted), len(listed) - 1)
    return np.asarray(listed[at] == wanted)


def _local(store: Store, cache: Path, part: Part) -> Path:
    if isinstance(store, Folder):
        return store.path / part.name
    assert isinstance(store, Bucket)  # noqa: S101 - there are two kinds
    kept = Folder(cache)
    if not (cache / part.name).exists():
        kept.put(part, content(store, part))
    return cache / part.name
