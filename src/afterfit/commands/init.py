"""Look at a table and write the settings file of a use case for it, with the reason for every decision."""

import os
import re
from pathlib import Path

from afterfit.data import files
from afterfit.data.loading import read
from afterfit.data.scaffold import draft
from afterfit.errors import SettingsError
from afterfit.lifecycle.result import CommandResult
from afterfit.settings import Source


def command(data: str, target: str, time: str = "", name: str = "", out: str = "usecase.yaml") -> CommandResult:
    """Write a settings file; see scripts/init.py for the options."""
    place = Path(out)
    if place.exists():
        raise SettingsError(
            f"'{place}' exists already and is not overwritten: give another name with --out, or delete it."
        )
    named = name or _name(data)
    if named != _plain(named):
        raise SettingsError(
            f"--name '{name}' cannot name a model: letters, digits, '-', '_' and '.', at most 80 and a letter or digit "
            f"at both ends. '{_plain(name)}' would do."
        )
    table = read(Source(path=data), Path.cwd())
    remote = "://" in data
    path = data if remote else os.path.relpath(Path(data).expanduser().resolve(), place.resolve().parent)
    written = draft(table, name=named, path=path, target=target, time=time or None)
    files.check_writable(place).write_text(written.text, "utf-8")
    lines = [f"Wrote {place} for {len(table):,} rows and {len(table.columns)} columns of {data}."]
    lines += [f"  {note.column or 'the table'}: {note.decision} ({note.reason})" for note in written.notes]
    then = f"mlflow run . --env-manager local --experiment-name {named} -P config={place}"
    lines.append(f"Look it over, then: {then}")
    notes = [{"column": note.column, "decision": note.decision, "reason": note.reason} for note in written.notes]
    return CommandResult(
        tuple(lines), {"out": str(place), "rows": len(table), "columns": len(table.columns), "notes": notes}
    )


def _name(path: str) -> str:
    return _plain(re.sub(r"(\.csv|\.gz|\.parquet|\.pq)+$", "", Path(path).name, flags=re.IGNORECASE))


def _plain(text: str) -> str:
    """What of a text can name a registered model and an experiment."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")[:80] or "usecase"
