"""Which prediction ids a log knows: 64-bit hashes, sorted, in a small file beside each sealed part.

An index is derived from its part. It ends with a seal: how many bytes its part has, and a checksum. One that is absent,
damaged, or of another part is made anew from the part's own ids, so that it is never wrong.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from afterfit.errors import AfterfitError
from afterfit.prediction_log.damage import DAMAGE, check_schema, guarded
from afterfit.prediction_log.store import Bucket, Folder, Part, Store, content

Hashes = npt.NDArray[np.uint64]
Known = npt.NDArray[np.bool_]
SEAL = struct.Struct("<8sQI")
MARK = b"afterfit"
AT_ONCE = 16
"""Indexes that are asked for at once where they lie on S3, whose answers take their time."""
CHECKED = 2**20
"""Bytes of an index up to which all of it is read and checked; of a longer one, only what a search touches."""


def id_hashes(texts: Sequence[str | None] | pa.ChunkedArray) -> Hashes:
    """(n,) uint64 for n texts; a missing one has the hash of an empty text."""
    values = texts.to_pylist() if isinstance(texts, pa.ChunkedArray | pa.Array) else list(texts)
    objects = np.empty(len(values), dtype=object)
    objects[:] = [value or "" for value in values]
    return np.asarray(pd.util.hash_array(objects, categorize=False), dtype=np.uint64)


def index_of(ids: Sequence[str | None] | pa.ChunkedArray, size: int) -> bytes:
    """The file that lists the ids of a part of `size` bytes: their sorted hashes as numpy writes them, and the seal."""
    file = io.BytesIO()
    np.save(file, np.sort(id_hashes(ids)), allow_pickle=False)
    written = file.getvalue()
    return written + SEAL.pack(MARK, size, zlib.crc32(written))


def unknown(store: Store, cache: Path, ids: Iterable[str]) -> set[str]:
    """Which of the ids no sealed part has, by their hashes.

    An index on S3 is fetched once, into the cache.

    Raises:
        LogError: a part is damaged whose index is, too.
        SourceError: S3 refused or does not answer.
    """
    names = np.array(sorted(ids), dtype=object)
    wanted = id_hashes(names.tolist())
    order = np.argsort(wanted)
    names, wanted = names[order], wanted[order]
    sizes = store.sizes("answers")
    left = np.ones(len(names), dtype=np.bool_)
    newest = sorted(sizes, key=lambda part: part.day, reverse=True)
    for known in _asked(store, cache, [(part, sizes[part]) for part in newest], wanted):
        left &= ~known
        if not left.any():
            break
    return set(names[left].tolist())


def _asked(store: Store, cache: Path, parts: Sequence[tuple[Part, int]], wanted: Hashes) -> Iterable[Known]:
    """For each part which of the wanted hashes it lists; those of S3 several at once."""
    ask = partial(_known, store, cache, wanted)
    if isinstance(store, Folder):
        yield from (ask(part, size) for part, size in parts)
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for first in range(0, len(parts), 64 * AT_ONCE):
            some = parts[first : first + 64 * AT_ONCE]
            absent = [(part, size) for part, size in some if not (cache / part.index().name).exists()]
            for (part, _), fetched in zip(absent, pool.map(partial(_fetched, store), absent), strict=True):
                if fetched is not None:
                    _keep(Folder(cache), part, fetched)
            yield from (ask(part, size) for part, size in some)


def _fetched(store: Store, place: tuple[Part, int]) -> bytes | None:
    try:
        return content(store, place[0].index())
    except FileNotFoundError:
        return None


def _known(store: Store, cache: Path, wanted: Hashes, part: Part, size: int) -> Known:
    near = store if isinstance(store, Folder) else Folder(cache)
    listed = _listed(f"{near.path}/{part.index().name}", size)
    if listed is None:
        listed = _made_anew(store, near, part, size)
    if not len(listed):
        return np.zeros(len(wanted), dtype=np.bool_)
    at = np.minimum(np.searchsorted(listed, wanted), len(listed) - 1)
    return np.asarray(listed[at] == wanted)


def _listed(path: str, size: int) -> Hashes | None:
    """The hashes of an index, mapped where it is long; None where it is none of a part of that size."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - thousands of them at once
            length = os.fstat(file.fileno()).st_size
            if length > CHECKED:
                return _mapped(path, length, size)
            whole = file.read(length)
    except OSError:
        return None
    body = whole[: -SEAL.size]
    if len(whole) < SEAL.size or SEAL.unpack(whole[-SEAL.size :]) != (MARK, size, zlib.crc32(body)):
        return None
    start = _start(body)
    return np.frombuffer(body, dtype="<u8", offset=start) if start else None


def _mapped(path: str, length: int, size: int) -> Hashes | None:
    held = np.memmap(path, dtype=np.uint8, mode="r")
    mark, of, _ = SEAL.unpack(held[length - SEAL.size :].tobytes())
    start = _start(held[:128].tobytes())
    if (mark, of) != (MARK, size) or not start or (length - SEAL.size - start) % 8:
        return None
    return np.asarray(np.memmap(path, "<u8", "r", start, ((length - SEAL.size - start) // 8,)))


def _start(head: bytes) -> int:
    """Where the numbers begin in a file of numpy's first format; 0 where it is none."""
    begins = head[:8] == b"\x93NUMPY\x01\x00" and b"'<u8'" in head[10:128]
    return 10 + int.from_bytes(head[8:10], "little") if begins else 0


def _made_anew(store: Store, near: Folder, part: Part, size: int) -> Hashes:
    """The hashes of a part's ids, read from the part, and its index written again as far as that is possible."""
    ids: pa.ChunkedArray = pa.chunked_array([], pa.string())
    try:
        with guarded(store.place(part), "Its ids"), store.open(part) as file:
            check_schema(part.kind, pq.read_schema(file))
            file.seek(0)
            ids = pq.read_table(file, columns=["prediction_id"], page_checksum_verification=True)["prediction_id"]
            made = index_of(ids, size)
            _keep(near, part, made)
            if isinstance(store, Bucket):
                with suppress(AfterfitError):
                    store.put(part.index(), made)
    except FileNotFoundError:  # joined meanwhile, or removed
        pass
    return np.sort(id_hashes(ids))


def _keep(near: Folder, part: Part, made: bytes) -> None:
    with suppress(AfterfitError, *DAMAGE):
        near.put(part.index(), made)
