"""Where a log's sealed parts are: a folder, or a prefix on S3; a part is there whole or not at all."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from afterfit.data import s3
from afterfit.errors import SourceError
from afterfit.prediction_log import disk
from afterfit.prediction_log.damage import leave_out
from afterfit.prediction_log.spool_file import translate_errors

DAY = re.compile(r"day=(-?\d+-\d\d-\d\d)")
TRIES = 3
"""How often a part is tried to be written into a folder that somebody clears."""
STALE = 3600.0
"""Seconds after which a draft is what a killed process left."""
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
        return Part("ids", self.day, f"{os.path.splitext(self.file)[0]}.npy")  # noqa: PTH122 - thousands of them at once


def _part(root: object, name: str) -> Part | None:
    """The part of a name such as `answers/day=2026-11-23/x.parquet`; None for anything else that lies about.

    Raises:
        LogError: the day is none; nobody could tell which window its rows are in.
    """
    pieces = name.split("/")
    if len(pieces) != 3 or pieces[-1].startswith((".", "_")) or not pieces[1].startswith("day="):
        return None
    day = DAY.fullmatch(pieces[1])
    with suppress(ValueError):
        if day is not None:
            np.datetime64(day[1], "D")
            return Part(pieces[0], day[1], pieces[2])
    leave_out(f"{root}/{name}: damaged. Its folder must be named by a day, such as day=2026-11-23.")
    return None


def _in_order(parts: dict[Part, int]) -> dict[Part, int]:
    return dict(sorted(parts.items(), key=lambda item: (item[0].day, item[0].file)))


@dataclass(frozen=True, slots=True)
class Folder:
    """Parts in a folder of a file system."""

    path: Path

    @property
    def address(self) -> str:
        """What a message calls it."""
        return str(self.path)

    def place(self, part: Part) -> Path:
        """The part's file."""
        return self.path / part.name

    def parts(self, kind: Kind) -> list[Part]:
        """All parts of a kind, by day and name."""
        return list(self.sizes(kind))

    def sizes(self, kind: Kind) -> dict[Part, int]:
        """All parts of a kind with their sizes in bytes, by day and name."""
        return _in_order({part: size for part, size in self._entries(kind) if part is not None})

    def _entries(self, kind: Kind) -> Iterator[tuple[Part | None, int]]:
        """What lies in the folders of the days, and its size."""
        with translate_errors(self.path / kind, "listed"):
            if not (self.path / kind).exists():
                return
            with os.scandir(self.path / kind) as days:
                folders = [day.path for day in days if day.name.startswith("day=") and day.is_dir()]
            for folder in folders:
                name = f"{kind}/{folder.rpartition(os.sep)[2]}"
                with suppress(FileNotFoundError), os.scandir(folder) as entries:  # cleared meanwhile, or joined
                    for entry in entries:
                        yield _part(self.path, f"{name}/{entry.name}"), entry.stat().st_size

    def put(self, part: Part, content: bytes) -> None:
        """Write a part under a temporary name, safely on disk, and rename it."""
        place = self.path / part.name
        with translate_errors(place, "written"):
            for left in reversed(range(TRIES)):
                disk.make_folder(place.parent)
                for folder in (self.path, place.parent.parent, place.parent):
                    disk.narrow(folder)
                try:
                    disk.write_file(place, content)
                except FileNotFoundError:  # another process cleared the day's folder, which was empty
                    if not left:
                        raise
                    continue
                return

    def clear_drafts(self) -> None:
        """Remove what killed processes had begun to write an hour ago or earlier."""
        with translate_errors(self.path, "cleared"):
            for draft in self.path.glob("*/day=*/.*"):
                if draft.is_file() and disk.age(draft) > STALE:
                    draft.unlink(missing_ok=True)

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
            with suppress(OSError):  # other parts are in it, or another process was quicker
                place.parent.rmdir()

    def age(self, part: Part, now: float) -> float:
        """Seconds since the part was written; none for one that is gone."""
        place = self.path / part.name
        with translate_errors(place, "listed"), suppress(FileNotFoundError):
            return now - place.stat().st_mtime
        return 0.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """Parts below a prefix on S3."""

    address: str

    def place(self, part: Part) -> str:
        """The part's address."""
        return f"{self.address}/{part.name}"

    def parts(self, kind: Kind) -> list[Part]:
        """All parts of a kind, by day and name."""
        return list(self.sizes(kind))

    def sizes(self, kind: Kind) -> dict[Part, int]:
        """All parts of a kind with their sizes in bytes, by day and name."""
        inside = len(s3.bucket_and_key(f"{self.address}/")[1])
        named = {stored.key[inside:]: stored.size for stored in s3.objects_below(f"{self.address}/{kind}/")}
        parts = {_part(self.address, name): size for name, size in named.items()}
        return _in_order({part: size for part, size in parts.items() if part is not None})

    def clear_drafts(self) -> None:
        """Nothing: an object is written in one request."""

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
        """Seconds since the part was written, by the endpoint's clock; none for one that is gone."""
        try:
            return now - s3.modified_at(f"{self.address}/{part.name}")
        except SourceError as error:
            if "no such object" in str(error):
                return 0.0
            raise


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
