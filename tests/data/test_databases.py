import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from afterfit.data.databases import mask_secrets
from afterfit.data.loading import describe, read, stream
from afterfit.errors import DataError, SettingsError, SourceError
from afterfit.settings import Source


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "sales.db"
    connection = sqlite3.connect(path)
    connection.execute("create table sales (id integer, day text, amount real, note text)")
    rows = [(i, f"2024-01-{i % 28 + 1:02}", None if i % 3 else i / 2, None if i < 50 else "10%:x") for i in range(100)]
    connection.executemany("insert into sales values (?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"


def query(url, text):
    return Source(sql=url, query=text)


def test_a_query_is_read_whole_and_in_parts(database, tmp_path):
    source = query(database, "select * from sales order by id")
    whole = read(source, tmp_path, columns=["id", "note"])
    assert whole.columns.tolist() == ["id", "note"]
    assert whole["id"].tolist() == list(range(100))
    assert [len(part) for part in stream(source, tmp_path, rows=30)] == [30, 30, 30, 10]


def test_colons_and_percent_signs_in_a_query_stand_for_themselves(database, tmp_path):
    text = "select ':a' as x, '12:30:45' as y, id from sales where note like '10%:x' and id < 60"
    frame = read(query(database, text), tmp_path)
    assert (len(frame), frame["x"].iloc[0], frame["y"].iloc[0]) == (10, ":a", "12:30:45")


def test_the_address_may_stand_in_an_environment_variable(database, tmp_path, monkeypatch):
    monkeypatch.setenv("SALES_DATABASE", database)
    source = query("${SALES_DATABASE}", "select id from sales")
    assert len(read(source, tmp_path)) == 100
    assert describe(source) == "${SALES_DATABASE}: select id from sales"
    monkeypatch.delenv("SALES_DATABASE")
    with pytest.raises(SettingsError, match="variable SALES_DATABASE, and that is not set"):
        read(source, tmp_path)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("select * from sale", SourceError, "no such table: sale"),
        ("selekt 1", SourceError, "begins with 'selekt'"),
        ("select 1 +", SourceError, "syntax error|incomplete input"),
        ("select * from sales where id < 0", DataError, "the query gives no row"),
        ("select id, amount as id from sales", DataError, "more than one column is named 'id'"),
        ("create table t (a integer)", SourceError, "must be a SELECT"),
    ],
)
def test_a_query_that_cannot_be_used_is_refused_in_a_sentence(database, tmp_path, text, kind, message):
    with pytest.raises(kind, match=message):
        read(query(database, text), tmp_path)


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("sqlite:////nowhere/at/all.db", SourceError, "the database is not reachable or refuses"),
        ("mssql+pymssql://me:hunter2@h/d", SettingsError, "driver of this database is not installed"),
        ("nosuchbase://me:hunter2@h/d", SettingsError, "no database of the kind 'nosuchbase'"),
        ("me hunter2 at h", SettingsError, "source.sql is no database address"),
    ],
)
def test_a_database_that_is_not_there_is_named_without_its_password(tmp_path, url, kind, message):
    with pytest.raises(kind, match=message) as caught:
        read(query(url, "select 1"), tmp_path)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_secret_of_an_address_is_shown():
    shown = mask_secrets("postgresql://me:hunter2@db:5432/sales?sslpassword=hunter2&connect_timeout=3")
    assert shown == "postgresql://me:***@db:5432/sales?connect_timeout=3&sslpassword=***"
    assert mask_secrets("me:hunter2 no url") == "the database"


def rows_and_files(url):
    path = Path(url.removeprefix("sqlite:///"))
    connection = sqlite3.connect(path)
    state = list(connection.iterdump()), connection.execute("pragma user_version").fetchone()
    connection.close()
    return state, sorted(file.name for file in path.parent.iterdir())


NO_QUERIES = [
    "drop table sales",
    "  DROP\tTABLE sales",
    "/* select */ drop table sales",
    "-- select\ndelete from sales",
    "create table t as select 1",
    "insert into sales select * from sales returning id",
    "pragma user_version = 7",
    "update sales set id = 0 returning id",
    "attach 'other.db' as o",
    "vacuum into 'other.db'",
    "begin",
    "explain select 1",
    "select 1; drop table sales",
    "select ';' ; delete from sales;",
    "select 1;;select 2",
    "select 1 drop table sales",
    "with x as (select 1) delete from sales",
    "with x as (delete from sales returning id) select * from x",
    "with x as (select 1 as id) insert into sales (id) select id from x returning id",
    "reindex",
    "\ufeffdrop table sales",
    "select * into other from sales",
    "/*! drop table sales */ select 1",
    "/* /* */ drop table sales; /* */ */ select 1",
    "(delete from sales)",
    "replace into sales (id) values (1)",
    "",
    " ;",
    "-- nothing",
    "\0",
    "$$select$$",
    "'select'",
]


@pytest.mark.parametrize("text", NO_QUERIES)
def test_what_is_no_query_is_refused_before_it_runs(database, tmp_path, text):
    before = rows_and_files(database)
    with pytest.raises(SourceError, match="must be a SELECT that only reads"):
        read(query(database, text), tmp_path)
    assert rows_and_files(database) == before


@pytest.mark.parametrize("text", NO_QUERIES)
def test_a_connection_changes_nothing_even_where_the_words_are_let_through(database, tmp_path, text, monkeypatch):
    monkeypatch.setattr("afterfit.data.databases.require_query", lambda query: query)
    before = rows_and_files(database)
    with suppress(SourceError, DataError):
        read(query(database, text), tmp_path)
    assert rows_and_files(database) == before


@pytest.mark.parametrize(
    "text",
    [
        "select 1 as x;",
        "select 1 as x ; -- and; no more",
        "WITH x AS (select 1 as i) SELECT i FROM x",
        "values (1)",
        "select 'drop table; into' as x",
        "/* a; b */ select replace('insert', 'in', 'out') as x",
        'select 1 as "into", 2 as [delete]',
        "select count(*) as updates, max(id) load from sales",
        "\ufeffselect 1 as x",
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3) select i from n",
    ],
)
def test_a_query_of_any_kind_is_read(database, tmp_path, text):
    assert len(read(query(database, text), tmp_path))


def test_a_sqlite_file_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(SourceError, match="there is no such file"):
        read(query(f"sqlite:///{tmp_path}/none.db", "select 1"), tmp_path)
    assert not list(tmp_path.iterdir())
