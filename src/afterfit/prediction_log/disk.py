"""A log's files on a local disk: whole, safely there when a call returns, and for nobody but their owner to read."""

import os
import time
from contextlib import suppress
from pathlib import Path

FILE_MODE, FOLDER_MODE = 0o600, 0o700
"""Answers hold people's data: only who runs the server reads them."""
OTHERS = 0o077


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each new name safely on disk; new ones are their owner's only."""
    missing = [folder, *folder.parents]
    missing = missing[: next(i for i, above in enumerate(missing) if above.exists())]
    for new in reversed(missing):
        new.mkdir(mode=FOLDER_MODE, exist_ok=True)  # another process may have made it just now
        sync_folder(new.parent)
    if not missing:
        sync_folder(folder.parent)  # whoever made it may not have come so far yet


def narrow(path: Path) -> None:
    """Take away what others may do with a file or folder of ours; somebody else's stays as it is."""
    if os.name != "posix":
        return
    with suppress(FileNotFoundError):
        status = path.stat()
        if status.st_uid == os.geteuid() and status.st_mode & OTHERS:
            path.chmod(status.st_mode & ~OTHERS & 0o7777)


def make_file(path: Path) -> None:
    """An empty file of its owner only, where there is none yet; an existing one of ours is narrowed."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE))
    narrow(path)


def write_file(place: Path, content: bytes) -> None:
    """Write a file under a temporary name, safely on disk, and rename it: it is whole, or as it was before."""
    draft = place.with_name(f".{place.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(place.parent)


def sync_file(path: Path) -> None:
    """What was written to a file, safely on disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def identity(path: Path) -> tuple[int, int] | None:
    """Which file lies at a path: its device and number; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def sync_folder(folder: Path) -> None:
    """A new or renamed name in a folder, safely on disk."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def age(path: Path) -> float:
    """Seconds since a file was last written; none for one that is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
