"""Column names as tables and settings files share them: cleaned, chosen, and the nearest ones suggested."""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from afterfit.errors import DataError


def clean_names(names: Iterable[Any], where: str) -> list[str]:
    """Column names as text without surrounding white space, as settings files have them; 'Unnamed: 0' where empty.

    Raises:
        DataError: two columns of one name.
    """
    clean = [str(name).strip() or f"Unnamed: {i}" for i, name in enumerate(names)]
    twice = [name for name, count in Counter(clean).items() if count > 1]
    if twice:
        raise DataError(f"{where}: more than one column is named {listed(twice)}: give each its own name")
    return clean


def chosen_columns(names: Sequence[str], columns: Sequence[str] | None, where: str) -> list[str]:
    """The columns asked for, in that order; all where none are.

    Raises:
        DataError: a column is absent; the nearest names are suggested.
    """
    if columns is None:
        return list(names)
    absent = [column for column in columns if column not in names]
    if absent:
        raise DataError("\n".join(f"{where}: {absent_column(column, names)}" for column in absent))
    return list(dict.fromkeys(columns))


def absent_column(column: str, names: Sequence[str]) -> str:
    """The sentence for a column that is not there."""
    lower = {name.lower(): name for name in names}
    near = [lower[name] for name in difflib.get_close_matches(column.lower(), list(lower), n=3, cutoff=0.5)]
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else f"; there are {listed(names)}"
    return f"there is no column '{column}'{hint}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names in quotes for a message, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name[:60]}'" for name in names[:most]) + more
