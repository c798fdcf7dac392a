"""Which prediction ids a log knows: 64-bit hashes, sorted, in a small file beside each sealed part.

An index is derived from its part. It ends with a checksum of each block of hashes and a seal, which says how many
bytes the part has. A search proves what it finds: the blocks with the two hashes that an id lies between must be sound.
An index that is absent, damaged, or of another part is made anew from the part's own ids, so that it is never wrong.
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
READ = 2**16
"""Bytes of an index up to which it is read whole; of a longer one, only what a search touches."""
BLOCK = 512
"""Hashes that one checksum is of."""


def id_hashes(texts: Sequence[str | None] | pa.ChunkedArray) -> Hashes:
    """(n,) uint64 for n texts; a missing one has the hash of an empty text."""
    values = texts.to_pylist() if isinstance(texts, pa.ChunkedArray | pa.Array) else list(texts)
    objects = np.empty(len(values), dtype=object)
    objects[:] = [value or "" for value in values]
    return np.asarray(pd.util.hash_array(objects, categorize=False), dtype=np.uint64)


def index_of(ids: Sequence[str | None] | pa.ChunkedArray, size: int) -> bytes:
    """The file that lists the ids of a part of `size` bytes: sorted hashes as numpy writes them, then checksums."""
    file, hashes = io.BytesIO(), np.sort(id_hashes(ids)).astype("<u8")
    np.save(file, hashes, allow_pickle=False)
    sums = [zlib.crc32(hashes[first : first + BLOCK].tobytes()) for first in range(0, len(hashes), BLOCK)]
    checksums = np.array(sums, dtype="<u4").tobytes()
    return file.getvalue() + checksums + SEAL.pack(MARK, size, zlib.crc32(checksums))


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
    known = _found(f"{near.path}/{part.index().name}", size, wanted)
    if known is None:
        listed = _made_anew(store, near, part, size)
        known = np.isin(wanted, listed)
    return known


def _found(path: str, size: int, wanted: Hashes) -> Known | None:
    """Which of the wanted hashes, in order, an index lists; None where it is damaged, or of a part of another size."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - thousands of them at once
            length = os.fstat(file.fileno()).st_size
            short = length <= READ
            whole = np.frombuffer(file.read(length), np.uint8) if short else np.memmap(path, np.uint8, "r")
    except (OSError, ValueError):
        return None
    ends = length - SEAL.size
    start = _start(whole[:128].tobytes())
    if not start or ends < start:
        return None
    mark, of, checksum = SEAL.unpack(whole[ends:].tobytes())
    full, rest = divmod(ends - start, 8 * BLOCK + 4)
    end = start + 8 * BLOCK * full + max(rest - 4, 0)
    sums = whole[end:ends].tobytes()
    if (mark, of) != (MARK, size) or (end - start) % 8 or zlib.crc32(sums) != checksum:
        return None
    return _searched(whole[start:end].view("<u8"), sums, wanted)


def _searched(hashes: Hashes, sums: bytes, wanted: Hashes) -> Known | None:
    """Which of the wanted hashes are among sorted ones; None where a block that it rests on is damaged."""
    n = len(hashes)
    if not n:
        return np.zeros(len(wanted), dtype=np.bool_)
    at = np.searchsorted(hashes, wanted)
    below, above = np.maximum(at - 1, 0), np.minimum(at, n - 1)
    for block in {0} if n <= BLOCK else {*(below // BLOCK).tolist(), *(above // BLOCK).tolist()}:
        (checksum,) = struct.unpack_from("<I", sums, 4 * block)
        if zlib.crc32(hashes[block * BLOCK : (block + 1) * BLOCK].tobytes()) != checksum:
            return None
    if ((at > 0) & (hashes[below] >= wanted)).any() or ((at < n) & (hashes[above] < wanted)).any():
        return None  # a damaged block on the way to these led astray
    return np.asarray(hashes[above] == wanted)


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
