"""A store that was made elsewhere and is used where it lies now."""

import sqlite3


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
