"""Read a table and write a settings file of a use case for it, with the reason for every choice."""

import os
import re
from pathlib import Path

from afterfit.data import files
from afterfit.data.loading import read
from afterfit.data.reading import TableReading
from afterfit.errors import SettingsError
from afterfit.lifecycle.result import CommandResult
from afterfit.scaffold.drafting import draft
from afterfit.settings import Source


def command(data: str, target: str, time: str = "", name: str = "", out: str = "usecase.yaml") -> CommandResult:
    """Write a settings file; see scripts/init.py for the options."""
    place = Path(out)
    if place.exists():
        raise SettingsError(
            f"'{place}' exists already and is not overwritten: give another name with --out, or delete it."
        )
    model_name = name or _name(data)
    if model_name != _plain(model_name):
        raise SettingsError(
            f"--name '{name}' cannot name a model: letters, digits, '-', '_' and '.', at most 80 and a letter or digit "
            f"at both ends. '{_plain(name)}' would do."
        )
    table = read(Source(path=data), Path.cwd())
    texts = read(Source(path=data), Path.cwd(), reading=TableReading({}))
    remote = "://" in data
    path = data if remote else os.path.relpath(Path(data).expanduser().resolve(), place.resolve().parent)
    settings = draft(table, name=model_name, path=path, target=target, time=time or None, texts=texts)
    files.check_writable(place).write_text(settings.text, "utf-8")
    lines = [f"Wrote {place} for {len(table):,} rows and {len(table.columns)} columns of {data}."]
    lines += [f"  {name}: read as seconds (it is a duration or a time of day)" for name in _in_seconds(data)]
    lines += [f"  {note.column or 'the table'}: {note.decision} ({note.reason})" for note in settings.notes]
    next_command = f"mlflow run . --env-manager local --experiment-name {model_name} -P config={place}"
    lines.append(f"Look it over, then: {next_command}")
    notes = [{"column": note.column, "decision": note.decision, "reason": note.reason} for note in settings.notes]
    return CommandResult(
        tuple(lines), {"out": str(place), "rows": len(table), "columns": len(table.columns), "notes": notes}
    )


def _in_seconds(data: str) -> list[str]:
    return files.seconds_columns(files.items(data, Path.cwd()))


def _name(path: str) -> str:
    return _plain(re.sub(r"(\.csv|\.gz|\.parquet|\.pq)+$", "", Path(path).name, flags=re.IGNORECASE))


def _plain(text: str) -> str:
    """The text without the characters that a registered model's or an experiment's name may not have."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")[:80] or "usecase"
