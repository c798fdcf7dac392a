"""Column names as tables and settings files share them: clean names, choosing columns, and suggesting similar names."""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from afterfit.errors import DataError


def clean_names(names: Iterable[Any], where: str) -> list[str]:
    """Column names as text without surrounding white space, as in settings files; 'Unnamed: 0' where one is empty.

    Raises:
        DataError: two columns of one name.
    """
    clean = [str(name).strip() or f"Unnamed: {i}" for i, name in enumerate(names)]
    duplicates = [name for name, count in Counter(clean).items() if count > 1]
    if duplicates:
        raise DataError(f"{where}: more than one column is named {list_names(duplicates)}: give each its own name")
    return clean


def choose_columns(names: Sequence[str], columns: Sequence[str] | None, where: str) -> list[str]:
    """The requested columns in the order of the request; all where it is None.

    Raises:
        DataError: a column is absent; similar names are suggested.
    """
    if columns is None:
        return list(names)
    absent = [column for column in columns if column not in names]
    if absent:
        raise DataError("\n".join(f"{where}: {absent_column_message(column, names)}" for column in absent))
    return list(dict.fromkeys(columns))


def absent_column_message(column: str, names: Sequence[str]) -> str:
    """The sentence for a column that is absent, with similar names or those that there are."""
    name_of_lower = {name.lower(): name for name in names}
    similar = [
        name_of_lower[name] for name in difflib.get_close_matches(column.lower(), list(name_of_lower), n=3, cutoff=0.5)
    ]
    hint = (
        f"; did you mean {' or '.join(repr(name) for name in similar)}?"
        if similar
        else f"; there are {list_names(names)}"
    )
    return f"there is no column '{column}'{hint}"


def list_names(names: Sequence[str], most: int = 12) -> str:
    """Names in quotes for a message, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name[:60]}'" for name in names[:most]) + more
