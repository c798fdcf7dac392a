"""MLflow stores of the tests' own: made from a template, or elsewhere and used where they lie now."""

import shutil
import sqlite3
from contextlib import contextmanager

import pytest


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
