"""How a wing names what it holds without loading it."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy(wing: str, homes: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a wing whose names are loaded when they are first used.

    So a served version needs no search library, and a process that only answers needs no MLflow.

    Args:
        wing: the package's dotted name.
        homes: for each module of it the names that it gives to others.
    """
    home_of = {name: f"{wing}.{module}" for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name in home_of:
            return getattr(import_module(home_of[name]), name)
        raise AttributeError(f"module '{wing}' has no attribute '{name}'")

    return get, lambda: sorted(home_of)
