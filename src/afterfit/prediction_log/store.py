"""Where a log's sealed parts are: a folder, or a prefix on S3; a part is there whole or not at all.

Which prediction ids a log knows: 64-bit hashes, sorted, in a small file beside each sealed part.
"""

import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from afterfit.data import s3
from afterfit.errors import SourceError
from afterfit.prediction_log.spool_file import sync_folder, translate_errors

DAY = re.compile(r"day=(-?\d+-\d\d-\d\d)")
Kind = str
"""What a part holds: `answers`, `outcomes`, or `ids` (an index of the answers')."""


@dataclass(frozen=True, slots=True)
class Part:
    """One sealed part: which kind, of which UTC day (`2026-11-23`), and its file's name."""

    kind: Kind
    day: str
    file: str

    @property
    def name(self) -> str:
        """Where it is below the use case's folder."""
        return f"{self.kind}/day={self.day}/{self.file}"

    def index(self) -> "Part":
        """The part that lists the ids of this one."""
        return Part("ids", self.day, f"{Path(self.file).stem}.npy")


def _part(name: str) -> Part | None:
    """The part of a name such as `answers/day=2026-11-23/x.parquet`; None for anything else that lies about."""
    pieces = name.split("/")
    day = DAY.fullmatch(pieces[1]) if len(pieces) == 3 else None
    hidden = pieces[-1].startswith((".", "_"))
    return None if day is None or hidden else Part(pieces[0], day[1], pieces[2])


@dataclass(frozen=True, slots=True)
class Folder:
    """Parts in a folder of a file system."""

    path: Path

    @property
    def address(self) -> str:
        """What a message calls it."""
        return str(self.path)

    def parts(self, kind: Kind) -> list[Part]:
        """All parts of a kind, by day and name."""
        with translate_errors(self.path, "listed"):
            names = [f"{kind}/{file.parent.name}/{file.name}" for file in (self.path / kind).glob("day=*/*")]
        return sorted((part for part in map(_part, names) if part), key=lambda part: (part.day, part.file))

    def put(self, part: Part, content: bytes) -> None:
        """Write a part under a temporary name, safely on disk, and rename it."""
        place = self.path / part.name
        draft = place.with_name(f".{place.name}.{os.getpid()}-{os.urandom(4).hex()}")
        with translate_errors(place, "written"):
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(place)
            finally:
                draft.unlink(missing_ok=True)
            sync_folder(place.parent)

    def open(self, part: Part) -> BinaryIO:
        """The part's bytes.

        Raises:
            FileNotFoundError: there is no such part (any more).
        """
        return (self.path / part.name).open("rb")

    def remove(self, part: Part) -> None:
        """Remove a part, and its day's folder when it was the last one."""
        place = self.path / part.name
        with translate_errors(place, "cleared"):
            place.unlink(missing_ok=True)
            if place.parent.is_dir() and not any(place.parent.iterdir()):
                place.parent.rmdir()

    def age(self, part: Part, now: float) -> float:
        """Seconds since the part was written."""
        return now - (self.path / part.name).stat().st_mtime


@dataclass(frozen=True, slots=True)
class Bucket:
    """Parts below a prefix on S3."""

    address: str

    def parts(self, kind: Kind) -> list[Part]:
        """All parts of a kind, by day and name."""
        prefix = f"{self.address}/{kind}/"
        inside = len(s3.bucket_and_key(f"{self.address}/")[1])
        parts = [_part(stored.key[inside:]) for stored in s3.objects_below(prefix)]
        return sorted((part for part in parts if part), key=lambda part: (part.day, part.file))

    def put(self, part: Part, content: bytes) -> None:
        """Write a part in one request."""
        s3.put(f"{self.address}/{part.name}", content)

    def open(self, part: Part) -> BinaryIO:
        """The part's bytes, read in ranges.

        Raises:
            FileNotFoundError: there is no such part (any more).
        """
        try:
            return s3.open_object(s3.list_objects(f"{self.address}/{part.name}")[0])
        except SourceError as error:
            if "no object of this name" in str(error):
                raise FileNotFoundError(f"{self.address}/{part.name}") from error
            raise

    def remove(self, part: Part) -> None:
        """Remove a part."""
        s3.delete(f"{self.address}/{part.name}")

    def age(self, part: Part, now: float) -> float:
        """Seconds since the part was written, by the endpoint's clock."""
        return now - s3.modified_at(f"{self.address}/{part.name}")


Store = Folder | Bucket


def store(root: str, use_case: str) -> Store:
    """The store of a use case's parts below a folder or an s3:// address."""
    if root.startswith("s3://"):
        s3.bucket_and_key(root)
        return Bucket(f"{root.rstrip('/')}/{use_case}")
    return Folder(Path(root) / use_case)


def content(store: Store, part: Part) -> bytes:
    """All bytes of a part."""
    with store.open(part) as file:
        return bytes(io.BufferedReader(file).read() if isinstance(file, io.RawIOBase) else file.read())


Hashes = npt.NDArray[np.uint64]


def id_hashes(texts: Sequence[str | None] | pa.ChunkedArray) -> Hashes:
    """(n,) uint64 for n texts; a missing one has the hash of an empty text."""
    values = texts.to_pylist() if isinstance(texts, pa.ChunkedArray | pa.Array) else list(texts)
    objects = np.empty(len(values), dtype=object)
    objects[:] = [value or "" for value in values]
    return np.asarray(pd.util.hash_array(objects, categorize=False), dtype=np.uint64)


def id_index(ids: Sequence[str | None] | pa.ChunkedArray) -> bytes:
    """The file that lists a part's ids: their sorted hashes as numpy writes them."""
    file = io.BytesIO()
    np.save(file, np.sort(id_hashes(ids)), allow_pickle=False)
    return file.getvalue()


def known_hashes(store: Store, cache: Path, part: Part, wanted: Hashes) -> npt.NDArray[np.bool_]:
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
