"""What of a log cannot be read: a sentence that names the file, and whether the rest is read all the same.

Without more said, damage is an error. Inside `skipping(True)` it is left out, and what was left out is listed there.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import pyarrow as pa

from afterfit.errors import LogError
from afterfit.prediction_log.arrow import FEATURE, LOG_TYPES, REST

DAMAGE = (
    pa.ArrowException, OSError, sqlite3.Error, ValueError, TypeError, LookupError, EOFError, OverflowError,
    MemoryError, AttributeError,
)  # fmt: skip
"""What decoders raise of bytes that they do not understand."""
WHAT_NOW = "Bring it back from a copy, or leave it out with --skip_damaged."
REQUIRED: dict[str, tuple[str, ...]] = {
    "answers": (
        "prediction_id", "time", "version", "shadow", "key", "prediction", "probability", "probabilities", "lower",
        "upper", "confidence", "warnings", "error", "seconds",
    ),
    "outcomes": ("prediction_id", "key", "value", "time"),
}  # fmt: skip
"""The columns that every part has since the first release."""
NEVER_MISSING = ("time", "version", "shadow")
"""Columns that are missing in no row: rows are chosen by them."""
PLAIN = (pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string())
"""The types of features, predictions and outcomes."""
_left_out: ContextVar[list[str] | None] = ContextVar("left_out", default=None)


@contextmanager
def skipping(wanted: bool) -> Iterator[list[str]]:  # noqa: FBT001 - the option's own value
    """Leave out what is damaged, if so wanted, in all that is read meanwhile; gives the sentences on what was."""
    left_out: list[str] = []
    token = _left_out.set(left_out if wanted else None)
    try:
        yield left_out
    finally:
        _left_out.reset(token)


def may_skip() -> bool:
    """Whether damage is to be left out."""
    return _left_out.get() is not None


def leave_out(sentence: str, error: BaseException | None = None) -> None:
    """Note what is left out.

    Raises:
        LogError: nothing is to be left out.
    """
    left_out = _left_out.get()
    if left_out is None:
        raise LogError(f"{sentence} {WHAT_NOW}") from error
    if sentence not in left_out:
        left_out.append(sentence)


@contextmanager
def guarded(place: object, what: str = "It") -> Iterator[None]:
    """Read something that may be damaged: an error of any decoder becomes a sentence, or what was being read is left.

    Args:
        place: the file or address.
        what: what cannot be read of it.

    Raises:
        LogError: it is damaged, and damage is not to be left out.
        FileNotFoundError: it is gone.
    """
    try:
        yield
    except FileNotFoundError:
        raise  # it is gone, and not damaged
    except DAMAGE as error:
        leave_out(f"{place}: damaged. {what} cannot be read: {said(error)}.", error)


def said(error: BaseException) -> str:
    """An error's own words in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join((text or type(error).__name__).split())[:300].rstrip(".")


def check_schema(kind: str, schema: pa.Schema) -> None:
    """Whether a part has the columns and types that parts have.

    Raises:
        ValueError: it has not, in words.
    """
    names, own = schema.names, LOG_TYPES if kind == "outcomes" else {*LOG_TYPES, REST}
    absent = [name for name in REQUIRED[kind] if name not in names]
    strange = [name for name in names if name not in own and not name.startswith(FEATURE)]
    doubled = [name for name, count in Counter(names).items() if count > 1]
    wrong = [f"{field.name} ({field.type})" for field in schema if not _fits(field)]
    told = {"lacks": absent, "has unknown": strange, "has twice": doubled, "has in another type": wrong}
    found = [f"{words} {', '.join(some[:5])}" for words, some in told.items() if some]
    if found:
        raise ValueError(f"its table {' and '.join(found)}, which a part of {kind} must not")


def _fits(field: pa.Field) -> bool:
    """Whether a column has the type that it must have; one that is missing in all rows may have none."""
    wanted = LOG_TYPES.get(field.name)
    if wanted is None:
        known = field.name in LOG_TYPES or field.name.startswith(FEATURE)
        return not known or field.type in PLAIN
    return field.type == wanted or (pa.types.is_null(field.type) and field.name not in NEVER_MISSING)


def check_rows(table: pa.Table) -> None:
    """Whether all rows can be chosen by.

    Raises:
        ValueError: they cannot, in words.
    """
    for name in NEVER_MISSING:
        if name in table.column_names and table[name].null_count:
            raise ValueError(f"{table[name].null_count:,} rows have no {name}")
