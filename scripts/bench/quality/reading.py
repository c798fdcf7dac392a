"""The same row is read the same, whatever stands beside it in a file, and whatever the format of the file.

Each made table has columns of every kind with values that look like another one: versions such as "1.10", names such as
"NA", "true", "1e3" and "007", whole numbers with gaps, dates with the day first. Its rows are cut into parts at random,
and each part is written as CSV, CSV.gz, Parquet or into a database. Read by the contract that the whole table taught,
each row must have the values, the warnings, the outcome, the fingerprint and the side of the split that it has as a
request of its own; and one more row, odd in every column, must change none of them.
"""

import argparse
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from afterfit import data
from afterfit.contract.contract import Contract, learn
from afterfit.errors import DataError
from afterfit.settings import Source
from afterfit.use_case import UseCase

TEXTS = (
    ("1.1", "1.10", "2.0-beta"), ("NA", "DE", "FR"), ("true", "false", "maybe"), ("1e3", "1000", "x"),
    ("007", "7", "07"),
    ("None", "null", "some"), ("0x1f", "31", "hex"), (" a", "a", "a "), ("2024-01-02", "2024-01-03", "later"),
    ("12,5", "12.5", "half"), ("-", "?", "known"), ("yes", "no", "unsure"), ("inf", "nan", "one"),
    ("é", "e\u0301", "e"),
)  # fmt: skip
WHOLE_NAMES = (("100", "101", "139"), ("1", "2", "3"), ("8", "15", "16"))
LABELS: tuple[tuple[Any, Any], ...] = ((0, 1), (False, True), ("no", "yes"), ("0.5", "x"), ("a", "b"))
FORMATS = ("csv", "csv.gz", "parquet", "sql")
DAY_FIRST = "%d/%m/%Y"


def main() -> None:
    """Read made tables in parts and in every format."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tables", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    differences: list[str] = []
    rows = parts = 0
    for number in range(options.tables):
        with TemporaryDirectory() as folder:
            said, seen, cut = trial(options.seed + number, Path(folder))
        differences += [f"table {options.seed + number}: {text}" for text in said]
        rows, parts = rows + seen, parts + cut
    print(f"{options.tables:,} tables, {rows:,} rows in {parts:,} parts: {len(differences)} differences")
    for text in differences[:20]:
        print(f"  {text}")
    raise SystemExit(1 if differences else 0)


def made(rng: np.random.Generator, rows: int) -> tuple[pd.DataFrame, dict[str, str], tuple[Any, Any]]:
    """A table of Python objects (None for missing), the kinds of its columns, and the target's two labels."""
    texts = TEXTS[rng.integers(len(TEXTS))]
    whole = WHOLE_NAMES[rng.integers(len(WHOLE_NAMES))]
    labels = LABELS[rng.integers(len(LABELS))]
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 366, rows), unit="D")
    moments = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 10**7, rows), unit="s")
    columns: dict[str, list[Any]] = {
        "name": list(rng.choice(texts, rows)),
        "store": [int(text) for text in rng.choice(whole, rows)],
        "amount": [float(x) for x in rng.normal(0, 10.0 ** rng.integers(-8, 9), rows)],
        "count": [int(x) for x in rng.integers(-5, 10**9, rows)],
        "flag": [bool(x) for x in rng.random(rows) < 0.5],
        "day": [day.strftime(DAY_FIRST) for day in days],
        "seen": [moment.to_pydatetime() for moment in moments],
        "when": [moment.strftime(DAY_FIRST + " %H:%M:%S") for moment in moments],
        "target": [labels[int(x)] for x in rng.random(rows) < 0.4],
    }
    columns["target"][:2] = labels
    for name in ("name", "store", "amount", "count", "flag", "day", "seen"):
        if rng.random() < 0.5:
            gaps = rng.random(rows) < 0.2
            columns[name] = [None if gap else value for gap, value in zip(gaps, columns[name], strict=True)]
    kinds = {"name": "category", "store": "category", "amount": "number", "count": "integer", "flag": "boolean"}
    return pd.DataFrame(columns, dtype=object), {**kinds, "day": "datetime", "seen": "datetime"}, labels


def use_case_of(kinds: dict[str, str], rng: np.random.Generator) -> UseCase:
    """Settings of the table: by key, or by content."""
    formats = {"day": DAY_FIRST, "when": DAY_FIRST}
    columns = {"features": list(kinds), "kinds": kinds, "formats": formats}
    given = {"name": "made", "task": "classification", "target": "target", "source": {"path": "t.csv"}}
    key = ["name", "count"] if rng.random() < 0.3 else []
    return UseCase.model_validate({**given, "columns": columns, "key": key, "split": {"share": 0.5}})


def written(frame: pd.DataFrame, kind: str, folder: Path, rng: np.random.Generator) -> Source:
    """A part of the table in a file or a database, in the types that such a source has."""
    table = frame.copy()
    for name in table.columns:
        table[name] = _as_source_has(table[name], kind, rng)
    place = folder / f"part.{kind}"
    if kind == "parquet":
        table.to_parquet(place, index=False)
        return Source(path=str(place))
    if kind == "sql":
        with sqlite3.connect(place) as connection:
            table.to_sql("t", connection, index=False, if_exists="replace")
        connection.close()
        return Source(sql=f"sqlite:///{place}", query="select * from t")
    table.to_csv(place, index=False)
    return Source(path=str(place))


def _as_source_has(values: "pd.Series[Any]", kind: str, rng: np.random.Generator) -> "pd.Series[Any]":
    known = values.dropna()
    if not len(known):
        return values
    first = known.iloc[0]
    if set(known) <= {"true", "false"} or all(isinstance(value, bool) for value in known):
        truths = values.map({"true": True, "false": False, True: True, False: False}).astype("boolean")
        return truths if kind == "parquet" and rng.random() < 0.5 else values
    if all(isinstance(value, int) and not isinstance(value, bool) for value in known):
        floats = len(known) < len(values) and rng.random() < 0.5
        return values.astype("float64" if floats else "Int64")
    if isinstance(first, float):
        return values.astype("float64")
    if hasattr(first, "isoformat"):
        return pd.to_datetime(values)
    return values


def trial(seed: int, folder: Path) -> tuple[list[str], int, int]:
    """One table: what differed, in words; its rows; its parts."""
    rng = np.random.default_rng(seed)
    frame, kinds, labels = made(rng, int(rng.integers(20, 60)))
    use_case = use_case_of(kinds, rng)
    contract = learn(frame[list(kinds)], kinds=kinds, formats=use_case.columns.formats)  # type: ignore[arg-type]
    expected = as_requests(contract, use_case, frame, labels)
    said: list[str] = []
    said += [f"with an odd row: {text}" for text in _odd_row_changes(use_case, frame)]
    bare = use_case.model_copy(update={"columns": use_case.columns.model_copy(update={"kinds": {}, "formats": {}})})
    parts = list(_parts(len(frame), rng))
    for rows in parts:
        kind = FORMATS[rng.integers(len(FORMATS))]
        part = frame.iloc[rows].reset_index(drop=True)
        source = written(part, kind, folder, rng)
        by_version = data.inherit(bare, contract, {"when": DAY_FIRST})
        for case, by in ((use_case, "settings"), (by_version, "version")):
            found = as_table(contract, case, source, folder, labels, fingerprints=case is use_case)
            said += _compared(found, expected, rows, f"{kind} of {len(rows)} rows, read by the {by}")
    return said, len(frame), len(parts)


def as_requests(contract: Contract, use_case: UseCase, frame: pd.DataFrame, labels: tuple[Any, Any]) -> dict[str, Any]:
    """What each row is as a request of its own."""
    checked = [
        contract.check_row({name: _json(row[name]) for name in contract.names}) for row in frame.to_dict("records")
    ]
    rows = [frame.iloc[[place]].reset_index(drop=True) for place in range(len(frame))]
    return {
        "values": [tuple(None if value != value else value for value in row.values) for row in checked],  # noqa: PLR0124
        "codes": [sorted({(note["column"], note["code"]) for note in row.warnings + row.errors}) for row in checked],
        "label": [labels.index(label) for label in frame["target"]],
        "fingerprint": [int(data.row_fingerprints(use_case, row)[0]) for row in rows],
    }


def as_table(
    contract: Contract, use_case: UseCase, source: Source, folder: Path, labels: tuple[Any, Any], *, fingerprints: bool
) -> dict[str, Any]:
    """What the rows of a source are as a table."""
    reading = data.reading_of(use_case, [contract])
    frame = pd.concat(list(data.stream(source, folder, reading=reading, rows=17)), ignore_index=True)
    checked = contract.check_frame(frame)
    notes = [checked.warnings_by_row(), checked.errors_by_row()]
    codes = [
        sorted({(note["column"], note["code"]) for some in notes for note in some.get(row, [])})
        for row in range(len(frame))
    ]
    found = {
        "values": list(
            zip(*(_plain(checked.values[column.name], column.kind) for column in contract.columns), strict=True)
        ),
        "codes": codes,
        "label": data.encode_target(use_case, frame["target"], labels).tolist(),
    }
    return {**found, "fingerprint": data.row_fingerprints(use_case, frame).tolist()} if fingerprints else found


def _plain(values: Any, kind: str) -> list[Any]:
    if kind == "datetime":
        return [None if np.isnat(value) else int(value.astype(np.int64)) for value in values]
    return [None if value != value else value for value in values.tolist()]  # noqa: PLR0124


def _json(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _parts(rows: int, rng: np.random.Generator) -> Iterator[np.ndarray[Any, Any]]:
    """All rows, then a cut at random, then the rows with one text: the parts in which types are mistaken."""
    yield np.arange(rows)
    order = rng.permutation(rows)
    cuts = np.sort(rng.choice(np.arange(1, rows), int(rng.integers(1, 6)), replace=False))
    yield from np.split(order, cuts)


def _compared(found: dict[str, Any], expected: dict[str, Any], rows: Any, where: str) -> list[str]:
    said = []
    for what, values in found.items():
        for place, row in enumerate(rows.tolist()):
            if values[place] != expected[what][row]:
                said.append(f"{where}: {what} of row {row} is {values[place]!r}, not {expected[what][row]!r}")
                break
    return said


def _odd_row_changes(use_case: UseCase, frame: pd.DataFrame) -> list[str]:
    """Whether one more row, odd in every column, changes fingerprints or sides of the others."""
    odd = pd.DataFrame([dict.fromkeys(frame.columns, "X1")], dtype=object)
    texts = frame.map(lambda value: None if value is None else str(value))
    longer = pd.concat([texts, odd.assign(target=texts["target"].iloc[0])], ignore_index=True)
    said = []
    if not (data.row_fingerprints(use_case, longer)[:-1] == data.row_fingerprints(use_case, texts)).all():
        said.append("fingerprints changed")
    try:
        before, after = (set(data.split(use_case, some)[1].tolist()) for some in (texts, longer))
    except DataError:  # of so few rows one side may have one class only
        return said
    if after - {len(frame)} != before:
        said.append("rows changed sides")
    return said


if __name__ == "__main__":
    main()
