"""The code that travels with a model: its digest, and whether it is still the code that was logged."""

import hashlib
from pathlib import Path

from afterfit.errors import BundleError


def code_digest(package: Path) -> str:
    """Sha256 over the names and contents of a package's files; caches left aside."""
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(package).as_posix()
            whole.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def check_code(home: Path, expected: str, loader: str) -> None:
    """Hold the code that travels with a model against what was logged.

    Args:
        home: the model's folder, with the package in `code/afterfit` and the file that MLflow runs beside MLmodel.
        expected: the package's digest, as the bundle's manifest has it.
        loader: the name of the file that MLflow runs, a copy of the one of that name in the package.

    Raises:
        BundleError: a file is missing, or another one than was logged.
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
