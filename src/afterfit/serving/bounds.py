"""What a body may unfold to. A short body can hold a name once for many rows, or a value deep within others.

The limits are those of the settings (`serving`); they are checked on numbers that a body tells before it is unfolded.
"""

from collections.abc import Collection, Sequence
from typing import Any

from afterfit.prediction_log.entries import unfolded_bytes
from afterfit.serving.engine import Engine, Row
from afterfit.serving.http_errors import HttpError
from afterfit.settings import Serving

DEPTH = 32
"""How deep JSON may be nested where no settings say so."""
MOST_COLUMNS = 10_000
NESTED = frozenset({dict, list})


def check_depth(content: Any, body: bytes, most: int) -> None:
    """Refuse what is nested deeper than `most`.

    Brackets are counted in the text first: what has no more of them than rows and levels is not looked through.

    Raises:
        HttpError: 400.
    """
    brackets = body.count(b"{") + body.count(b"[")
    if brackets <= most:
        return
    level, depth = [content], 0
    while level:
        depth += 1
        brackets -= len(level)
        if depth + brackets <= most:  # brackets within texts count too, so that there may be fewer levels, and not more
            return
        if depth > most:
            raise HttpError(400, f"The body is nested too deep: lists and objects may be {most} deep.", "too_deep")
        level = [
            value
            for outer in level
            if type(outer) in NESTED
            for value in (outer.values() if type(outer) is dict else outer)
            if type(value) in NESTED
        ]


def check_rows(count: int, limits: Serving, *, more: bool = False) -> None:
    """Refuse too many rows; with `more` the rest was not counted.

    Raises:
        HttpError: 413.
    """
    if count > limits.rows:
        came = "more" if more else str(count)
        raise HttpError(413, f"A request may have {limits.rows} rows; this one has {came}.")


def check_unfolded(names: Collection[str], rows: int, limits: Serving, values: int = 0) -> None:
    """Refuse rows that all have these names, and together values of so many bytes, where they would take too much.

    Raises:
        HttpError: 413.
    """
    check_rows(rows, limits)
    size = unfolded_bytes(names, rows) + values
    if size > limits.unfolded_bytes:
        raise HttpError(
            413,
            f"The body unfolds to {size:,} bytes ({rows:,} rows of {len(names):,} columns), and "
            f"{limits.unfolded_bytes:,} are taken: send fewer rows at once, shorter names or shorter texts.",
        )


def check_unknown(rows: Sequence[Row], engine: Engine, limits: Serving) -> None:
    """Refuse a row with too many columns that the contract does not know: the log would keep each of them.

    Raises:
        HttpError: 422.
    """
    widest = len(rows[0]) if len(rows) == 1 else max(map(len, rows), default=0)
    if widest <= limits.unknown_columns:
        return
    for number, row in enumerate(rows):
        if len(row) <= limits.unknown_columns:
            continue
        foreign = sum(name not in engine.columns and name not in engine.beside for name in row)
        if foreign > limits.unknown_columns:
            raise HttpError(
                422,
                f"Row {number} has {foreign:,} columns that the model does not know, and may have "
                f"{limits.unknown_columns:,}: leave them out.",
            )
