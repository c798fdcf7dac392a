"""MLflow stores of the tests' own: made from a template, or elsewhere and used where they lie now."""

import shutil
import sqlite3
from contextlib import closing, contextmanager
from functools import lru_cache

import pytest


def made_once(file):
    """Make an empty store in that file, and let what costs time at each further one of this process be done once.

    The tables of a fresh SQLite file are copied from that one instead of migrated from MLflow's first release on; the
    newest revision of the tables, which is the package's, is looked up once; and SQLite does not wait for the disk:
    what is written must outlive processes here, and not the machine.
    """
    import mlflow
    from mlflow.store.db import utils
    from mlflow.store.model_registry import sqlalchemy_store
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def hurry(connection, _):
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", hurry)
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    migrated = utils._initialize_tables

    def copied(engine):
        if engine.dialect.name != "sqlite":
            migrated(engine)
            return
        with closing(sqlite3.connect(file)) as source, closing(engine.raw_connection()) as target:
            source.backup(target.driver_connection)
            target.driver_connection.execute("DELETE FROM experiments")  # the first one is made for its own folder
            target.driver_connection.commit()

    utils._initialize_tables = sqlalchemy_store._initialize_tables = copied
    utils._get_latest_schema_revision = lru_cache(utils._get_latest_schema_revision)


@contextmanager
def working_in(folder, database=None):
    """This process in that folder with the store there, as a user's would be; a database that is given is copied."""
    import mlflow

    if database is not None:
        shutil.copy(database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        patch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
        try:
            yield folder
        finally:
            while mlflow.active_run() is not None:
                mlflow.end_run()


def know_folder(folder, before):
    """In the texts of the database in a folder, put that folder in the place of the one in which it was made."""
    change = (str(before), str(folder))
    with sqlite3.connect(folder / "mlflow.db") as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, kind, *_ in database.execute(f"PRAGMA table_info({table})").fetchall():
                if kind.startswith(("VARCHAR", "TEXT")):
                    told = f'UPDATE {table} SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)'  # noqa: S608 - names are the schema's own
                    database.execute(told, (*change, change[0]))
    database.close()
