"""Tables from any database that SQLAlchemy knows, as a stream of frames; no message contains a password."""

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, ResourceClosedError, SQLAlchemyError

from afterfit.data.column_names import choose_columns, clean_names
from afterfit.data.files import LARGEST_EXACT
from afterfit.data.sql_queries import require_query
from afterfit.errors import DataError, SettingsError, SourceError
from afterfit.texts.redaction import learn_settings, redact

ROWS = 65_536

READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
}
"""What makes a connection one that only reads, by the kind of database. Others are never committed to."""
SQLITE_READS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
"""What SQLite may do for a query."""


def frames(address: str, query: str, columns: Sequence[str] | None = None, rows: int = ROWS) -> Iterator[pd.DataFrame]:
    """The rows of a query in frames of at most `rows` rows, by a cursor on the server where the driver has one.

    Args:
        address: a SQLAlchemy URL, or `${NAME}` for the URL in an environment variable.
        query: one SELECT that only reads; colons and percent signs in it stand for themselves.
        columns: the columns to return, in that order; all where None.
        rows: the most rows of one frame.

    Raises:
        SettingsError: the address is no database address, or needs a driver that is not installed.
        SourceError: the database does not answer or refuses, or the query fails or is none.
        DataError: no rows, duplicate column names, or an absent column.
    """
    query = require_query(query)
    url = _parse_url(address)
    with _translate_errors(url):
        engine = _reading_engine(url)
    try:
        with _translate_errors(url), engine.connect() as connection:
            yield from _rows(connection, query, columns, rows, mask_secrets(address))
    finally:
        engine.dispose()


def mask_secrets(address: str) -> str:
    """The address without its password and without any secret in its options; a variable's name stays as it is."""
    if _variable_name(address):
        return address
    try:
        url = sa.make_url(address)
    except (ArgumentError, ValueError):
        return "the database"
    return redact(url.render_as_string(hide_password=True))


def _reading_engine(url: sa.URL) -> sa.Engine:
    """An engine whose connections only read; a SQLite file that is not there is not made.

    Raises:
        SourceError: there is no such SQLite file.
    """
    backend, arguments = url.get_backend_name(), {}
    if backend == "sqlite" and url.database and url.database != ":memory:" and "uri" not in url.query:
        if not Path(url.database).exists():
            raise SourceError(
                f"{mask_secrets(str(url))}: the database is not reachable or refuses: there is no such file"
            )
    elif backend == "duckdb":
        arguments = {"connect_args": {"read_only": True}}
    engine = sa.create_engine(url, **arguments)
    sa.event.listen(engine, "connect", partial(_only_read, backend))
    return engine


def _only_read(backend: str, connection: Any, _: Any) -> None:
    if backend in READ_ONLY:
        cursor = connection.cursor()
        cursor.execute(READ_ONLY[backend])
        cursor.close()
        if backend != "sqlite":
            connection.commit()
    if backend == "sqlite" and hasattr(connection, "set_authorizer"):
        connection.set_authorizer(_sqlite_may)


def _sqlite_may(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action in SQLITE_READS else sqlite3.SQLITE_DENY


def _rows(
    connection: sa.Connection, query: str, columns: Sequence[str] | None, rows: int, where: str
) -> Iterator[pd.DataFrame]:
    statement = sa.text(re.sub(r"(?<!\\):(?=\w)", r"\\:", query))
    result = connection.execution_options(stream_results=True, yield_per=rows).execute(statement)
    names = clean_names(result.keys(), where)
    chosen = choose_columns(names, columns, where)
    empty = True
    for part in result.partitions(rows):
        empty = False
        yield _frame(part, names)[chosen]
    if empty:
        raise DataError(f"{where}: the query gives no row: {_shorten(query)}")


def _frame(part: Sequence[Any], names: list[str]) -> pd.DataFrame:
    columns = zip(*part, strict=True)
    return pd.DataFrame({name: _column(values) for name, values in zip(names, columns, strict=True)})


def _column(values: Sequence[Any]) -> "pd.Series[Any]":
    """A column as its database has it: decimals as floats, and whole numbers with gaps without losing digits."""
    kinds = {type(value) for value in values if value is not None}
    if Decimal in kinds:
        return pd.Series([None if value is None else float(value) for value in values], dtype=float)
    if kinds == {int} and None in values and max(abs(value) for value in values if value is not None) > LARGEST_EXACT:
        return pd.Series(values, dtype=object)
    return pd.Series(values)


def _variable_name(address: str) -> str | None:
    match = re.fullmatch(r"\$\{?(\w+)\}?", address)
    return match.group(1) if match else None


def _parse_url(address: str) -> sa.URL:
    name = _variable_name(address)
    if name is not None and name not in os.environ:
        raise SettingsError(f"source.sql is the environment variable {name}, and that is not set")
    try:
        return sa.make_url(os.environ[name] if name else address)
    except (ArgumentError, ValueError):
        subject = f"the value of the variable {name}" if name else "source.sql"
        raise SettingsError(
            f"{subject} is no database address: write dialect://user:password@host/database, or ${{NAME}} for an "
            "environment variable that holds one"
        ) from None


@contextmanager
def _translate_errors(url: sa.URL) -> Iterator[None]:
    """Raise the errors of SQLAlchemy and of drivers as one sentence each, without the password.

    The original error is not chained, since drivers repeat the whole address in it.
    """
    where = mask_secrets(url.render_as_string(hide_password=False))
    try:
        yield
    except NoSuchModuleError:
        raise SettingsError(f"{where}: SQLAlchemy knows no database of the kind '{url.drivername}'") from None
    except ImportError as error:
        raise SettingsError(
            f"{where}: the driver of this database is not installed ({error}): install it, or name another as "
            "dialect+driver://"
        ) from None
    except ResourceClosedError:
        raise SourceError(f"{where}: the query returns no table: it must be a SELECT") from None
    except OperationalError as error:
        raise SourceError(f"{where}: the database is not reachable or refuses: {_error_text(error, url)}") from None
    except SQLAlchemyError as error:
        raise SourceError(f"{where}: the query fails: {_error_text(error, url)}") from None


def _error_text(error: SQLAlchemyError, url: sa.URL) -> str:
    learn_settings(url.render_as_string(hide_password=False))
    learn_settings(str(url.password or ""), "password")
    return _shorten(str(getattr(error, "orig", None) or error))


def _shorten(text: str) -> str:
    return " ".join(redact(text).split())[:300]
