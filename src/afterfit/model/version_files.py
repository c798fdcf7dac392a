"""The files of a version as they were logged: each by its path and content, no other beside them, checked unloaded.

A version carries the list of its files, and its list's sha256 is recorded at registration. Not in the list are the list
itself, its signature, and the one file that MLflow writes into a version that it has fetched. Versions of older
releases have no list: their bundle and their code have a digest each, and any file beside these is refused by its name.

What is checked must be what is loaded: check a private copy, and load from that.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from afterfit.errors import BundleError
from afterfit.model.signing import check_signature, signed

BUNDLE, LOADER = "artifacts/bundle", "served.py"
"""The folder of a version's bundle, and the file of this package that MLflow runs to load a version."""
FILES = ("contract.json", "encoder.json", "estimator.skops", "example.json", "manifest.json", "rows.npy")
PROFILE = "profile.json"
"""What the training window looked like. Bundles of older releases have none; where it is, the digest covers it."""
OUT_OF_FOLD = "unseen.npz"
"""The last fold's predictions for rows that its fit had not seen. Optional, like the profile."""
ERRORMAP = "errormap.json"
"""Where and by how much answers for rows unseen were off. Optional too."""
OPTIONAL = (PROFILE, OUT_OF_FOLD, ERRORMAP)
LIST, SIGNATURE = "files.json", "files.sig"
NOTED = "registered_model_meta"
"""The file in which MLflow notes the registered version beside a model that it downloaded."""
FORMAT = 1
MOST_BYTES = 10_000_000
"""A longer list is none of ours."""
BESIDE = frozenset({"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", LOADER, NOTED})
"""Files of an older version beside its bundle and its code."""
WHAT_NOW = "Train and register it again, or find out who changed it."


def write_list(home: Path, name: str, expected: str) -> tuple[str, list[Path]]:
    """Write the list of a version's files into a copy of it, and its signature where the environment has a key.

    Args:
        home: a private copy of the folder with the MLmodel file, as it was logged just now.
        name: the registered model that it may become a version of.
        expected: its bundle's digest.

    Returns:
        The list's digest, and the files that were written.

    Raises:
        BundleError: the folder holds another bundle, other code, or what no version may hold: links, bytecode.
    """
    what = f"The model of {name} that was logged just now"
    _check_digests(home, what, expected)
    found = {path: _sha256(home / path) for path in _files_in(home, what) if path != NOTED}
    _refuse_bytecode(what, found)
    content = json.dumps({"format": FORMAT, "model": name, "files": found}, indent=1, sort_keys=True).encode()
    written = {LIST: content}
    signature = signed(content)
    if signature is not None:
        written[SIGNATURE] = signature.encode()
    for file, text in written.items():
        (home / file).write_bytes(text)
    return hashlib.sha256(content).hexdigest(), [home / file for file in written]


def digest(folder: Path) -> str:
    """Sha256 over the names and contents of a bundle's files.

    Raises:
        BundleError: a file is missing.
    """
    whole = hashlib.sha256()
    for name in (*FILES, *(name for name in OPTIONAL if (folder / name).is_file())):
        path = folder / name
        if not path.is_file():
            raise BundleError(f"The bundle in '{folder}' is not whole: {name} is missing.")
        whole.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def code_digest(package: Path) -> str:
    """Sha256 over the names and contents of a package's files, without caches."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(package).as_posix()
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def check_code(home: Path, expected: str, loader: str) -> None:
    """Check that the code that travels with a model is the code that was logged.

    Args:
        home: the model's folder, with the package in `code/afterfit` and the file that MLflow runs beside MLmodel.
        expected: the package's digest, as the bundle's manifest has it.
        loader: the name of the file that MLflow runs, a copy of the one of that name in the package.

    Raises:
        BundleError: a file is missing, or differs from the one that was logged.
    """
    package = home / "code" / "afterfit"
    try:
        same = code_digest(package) == expected and (home / loader).read_bytes() == (package / loader).read_bytes()
    except OSError as error:
        raise BundleError(f"The code that travels with the model in '{home}' is not whole: {error}") from error
    if not same:
        raise BundleError(
            f"The code that travels with the model in '{home}' is not the code that it was logged with. "
            "Train and register it again, or find out who changed it."
        )


def private_copy(home: Path, into: Path, what: str) -> Path:
    """Copy a version's files, links as links, into a folder that is nobody else's; gives the copy.

    Raises:
        BundleError: a file cannot be read, or is no file at all.
    """
    try:
        return Path(shutil.copytree(home, into, symlinks=True))
    except OSError as error:  # shutil's own error too
        cause = error.strerror or (error.args[0][0][2] if isinstance(error, shutil.Error) else error)
        raise BundleError(f"The files of {what} cannot be read: {cause}") from error


def check_listed(home: Path, what: str, name: str, expected: str | None, copied: Path | None = None) -> None:
    """Check every file of a version against its list, and the list against what was registered.

    Args:
        home: the folder with the MLmodel file.
        what: the version in words, for errors.
        name: the registered model that it is a version of.
        expected: the list's digest as it was registered; None where no registry is at hand.
        copied: a private folder with copies of the files that will be loaded. These are checked in place of the files
            that they are copies of, so that what is checked is what is loaded.

    Raises:
        BundleError: a file is altered, missing, new or a link, the list is another model's, or it is not signed and
            the environment asks for that. The sentence names the file.
    """
    private = {} if copied is None else {path: copied / path for path in _files_in(copied, what)}
    found = {*_files_in(home, what), *private}
    content = _read_list(home, what, found)
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise BundleError(f"{what} is not the one that was registered: {LIST} was altered. {WHAT_NOW}")
    signature = (home / SIGNATURE).read_text("utf-8", "replace") if SIGNATURE in found else None
    check_signature(what, content, signature)
    listed = _parsed(content, what)
    if listed["model"] != name:
        raise BundleError(f"{what} was made as a version of '{listed['model']}', and not of '{name}'. {WHAT_NOW}")
    _refuse_bytecode(what, found)
    files: Mapping[str, str] = listed["files"]
    for path in sorted(found | files.keys()):
        if path in {LIST, SIGNATURE, NOTED}:
            continue
        if path not in files:
            fault = "is not one of its files"
        elif path not in found:
            fault = "is missing"
        elif _sha256(private.get(path, home / path)) != files[path]:
            fault = "was altered"
        else:
            continue
        raise BundleError(f"{what} is not the one that was registered: {path} {fault}. {WHAT_NOW}")
    _refuse_other_folders(home, what, files)


def check_older(home: Path, what: str, expected: str) -> None:
    """Check a version of an older release, which has no list: its bundle and code by digest, all else by name.

    Bytecode that MLflow's loader left in it is removed: those versions were registered before that was refused.

    Args:
        home: a private copy of the folder with the MLmodel file.
        what: the version in words, for errors.
        expected: the bundle's digest.

    Raises:
        BundleError: as `check_listed` has it.
    """
    check_signature(what, None, None)
    for cache in [path for path in home.rglob("__pycache__") if path.is_dir() and not path.is_symlink()]:
        shutil.rmtree(cache, ignore_errors=True)
    _check_digests(home, what, expected)


def check_alone(home: Path, what: str, name: str) -> None:
    """Check a version that lies in a folder, where no registry is at hand: by its own list, or its own digests.

    Without a registry this finds what was damaged. Who can write to the folder can write a list, too: only a signature
    says who made it.

    Raises:
        BundleError: as `check_listed` has it.
    """
    if (home / LIST).exists():
        check_listed(home, what, name, None)
        return
    try:
        expected = yaml.safe_load((home / "MLmodel").read_text("utf-8"))["metadata"]["digest"]
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise BundleError(f"{what} has no MLmodel file that Afterfit wrote.") from error
    check_older(home, what, str(expected))


def _check_digests(home: Path, what: str, expected: str) -> None:
    found = set(_files_in(home, what))
    bundle = {f"{BUNDLE}/{name}" for name in (*FILES, *OPTIONAL)}
    for path in sorted(found - bundle - BESIDE):
        if not path.startswith("code/afterfit/"):
            raise BundleError(f"{what} is not the one that was registered: {path} is not one of its files. {WHAT_NOW}")
    actual = digest(home / BUNDLE)
    if actual != expected:
        raise BundleError(
            f"{what} is not the one that was registered: its bundle's digest is {actual[:12]}…, registered was "
            f"{expected[:12]}…. {WHAT_NOW}"
        )
    try:
        code = json.loads((home / BUNDLE / "manifest.json").read_bytes())["code"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{what} has no manifest that says what its code is.") from error
    check_code(home, code, LOADER)


def _read_list(home: Path, what: str, found: set[str]) -> bytes:
    if LIST not in found:
        raise BundleError(f"{what} is not the one that was registered: {LIST} is missing. {WHAT_NOW}")
    if (home / LIST).stat().st_size > MOST_BYTES:
        raise BundleError(f"{what} is not the one that was registered: {LIST} was altered. {WHAT_NOW}")
    return (home / LIST).read_bytes()


def _parsed(content: bytes, what: str) -> dict[str, Any]:
    try:
        listed = json.loads(content)
        sound = listed["format"] == FORMAT and isinstance(listed["model"], str) and isinstance(listed["files"], dict)
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise BundleError(f"{what} has a {LIST} that this release cannot read. {WHAT_NOW}")
    return dict(listed)


def _files_in(home: Path, what: str) -> Iterator[str]:
    """The paths of a folder's files, from there and with slashes.

    Raises:
        BundleError: a link, or something that is neither file nor folder, is among them.
    """
    for root, folders, names in os.walk(home):
        for name in (*folders, *names):
            path = Path(root, name)
            relative = path.relative_to(home).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                kind = "a link" if path.is_symlink() else "no file"
                raise BundleError(f"{what} is not the one that was registered: {relative} is {kind}. {WHAT_NOW}")
            if name in names:
                yield relative


def _refuse_bytecode(what: str, paths: "set[str] | dict[str, str]") -> None:
    for path in sorted(paths):
        if "__pycache__" in path.split("/") or path.endswith((".pyc", ".pyo")):
            raise BundleError(
                f"{what} holds bytecode, which no version is registered with: {path}. Python leaves such a file where "
                "MLflow's own loader runs a version where it lies. Delete it, and set PYTHONDONTWRITEBYTECODE=1 there."
            )


def _refuse_other_folders(home: Path, what: str, files: Mapping[str, str]) -> None:
    known = {str(parent) for path in files for parent in Path(path).parents}
    for root, folders, _ in os.walk(home):
        for name in folders:
            relative = Path(root, name).relative_to(home).as_posix()
            if relative not in known:
                raise BundleError(
                    f"{what} is not the one that was registered: {relative} is not one of its folders. {WHAT_NOW}"
                )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
