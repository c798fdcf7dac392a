"""Look at a table and write the settings file of a use case for it, with the reason for every decision."""

import os
import re
from pathlib import Path

from afterfit import sources
from afterfit.commands.console import Answer
from afterfit.data import read
from afterfit.draft import draft
from afterfit.errors import SettingsError
from afterfit.usecase import Source


def command(data: str, target: str, time: str = "", name: str = "", out: str = "usecase.yaml") -> Answer:
    """Write a settings file; see scripts/init.py for the options."""
    place = Path(out)
    if place.exists():
        raise SettingsError(
            f"'{place}' exists already and is not overwritten: give another name with --out, or delete it."
        )
    sources.writable(place)
    table = read(Source(path=data), Path.cwd())
    remote = "://" in data
    path = data if remote else os.path.relpath(Path(data).expanduser().resolve(), place.resolve().parent)
    written = draft(table, name=name or _name(data), path=path, target=target, time=time or None)
    place.write_text(written.text, "utf-8")
    lines = [f"Wrote {place} for {len(table):,} rows and {len(table.columns)} columns of {data}."]
    lines += [f"  {note.column or 'the table'}: {note.decision} ({note.reason})" for note in written.notes]
    then = f"mlflow run . --env-manager local --experiment-name {name or _name(data)} -P config={place}"
    lines.append(f"Look it over, then: {then}")
    notes = [{"column": note.column, "decision": note.decision, "reason": note.reason} for note in written.notes]
    return Answer(tuple(lines), {"out": str(place), "rows": len(table), "columns": len(table.columns), "notes": notes})


def _name(path: str) -> str:
    stem = re.sub(r"(\.csv|\.gz|\.parquet|\.pq)+$", "", Path(path).name, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._")[:80] or "usecase"
