"""Logged rows as typed Arrow columns, and back to one type where parts differ.

JSON's types are kept where a column has one: numbers, truth values, texts. In a column that mixes them a number
becomes its text as a category has it (1 and 1.0 are "1"), which a contract reads like the number itself; truth values
among numbers become 1 and 0, among texts "True" and "False", the one case in which a column of numbers is read unlike
the row was: there "True" is no number. Lists and objects become what Python prints of them, as a contract reads them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from afterfit.contract.values import EXACT, read_category
from afterfit.prediction_log.entries import UNREADABLE, text_of
from afterfit.prediction_log.spool_file import TABLES

FEATURE = "f:"
"""What a feature's column in a part begins with, so that none is taken for one of the log's own."""
REST = "rest"
MOST_FEATURES = 500
"""Features of a part with a column each, the most frequent ones; rarer names stand as JSON in `rest`."""
LONGEST_NAME = 1_000
"""Characters of a feature's name above which it stands in `rest` too."""
MISFITS = (
    pa.ArrowException,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What the making of a table says of a row that it cannot hold."""
MOST_SAID = 200
"""Characters of that which are kept."""
TEXT = pa.string()
TIME = pa.timestamp("us")
LOG_TYPES: dict[str, pa.DataType | None] = {
    "prediction_id": TEXT, "time": TIME, "version": TEXT, "shadow": pa.bool_(), "key": TEXT, "prediction": None,
    "probability": pa.float64(), "probabilities": TEXT, "lower": pa.float64(), "upper": pa.float64(),
    "confidence": pa.float64(), "warnings": TEXT, "error": TEXT, "seconds": pa.float64(), "value": None,
}  # fmt: skip
"""The types of the log's own columns; None for a JSON scalar, which gets the type that came, as features do."""


def answers_table(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Rows of the spool's answers as a table: the log's own columns, `rest`, and `f:<name>` for each feature."""
    own = _columns("answers", rows)
    features, rest = _expanded(own.pop("features"))
    columns = {name: _own(name, values) for name, values in own.items()}
    return pa.table({**columns, REST: pa.array(rest, TEXT), **{FEATURE + n: typed(v) for n, v in features.items()}})


def outcomes_table(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Rows of the spool's outcomes as a table."""
    return pa.table({name: _own(name, values) for name, values in _columns("outcomes", rows).items()})


def bounded(tables: Sequence[pa.Table]) -> Sequence[pa.Table]:
    """Tables that will be one part, with at most `MOST_FEATURES` features together; the rarer ones stand in `rest`."""
    counts: Counter[str] = Counter()
    for table in tables:
        for name in table.column_names:
            if name.startswith(FEATURE):
                counts[name] += table.num_rows - table[name].null_count
    if len(counts) <= MOST_FEATURES:
        return tables
    kept = {name for name, _ in counts.most_common(MOST_FEATURES)}
    return [_narrowed(table, kept) for table in tables]


def _narrowed(table: pa.Table, kept: Collection[str]) -> pa.Table:
    rare = [name for name in table.column_names if name.startswith(FEATURE) and name not in kept]
    if not rare:
        return table
    rest = table[REST].to_pylist() if REST in table.column_names else [None] * table.num_rows
    more: dict[int, dict[str, Any]] = {}
    for name in rare:
        for at, value in enumerate(table[name].to_pylist()):
            if value is not None:
                more.setdefault(at, {})[name.removeprefix(FEATURE)] = value
    for at, values in more.items():
        before = rest[at]
        known = {} if before is None else _loaded(before)
        rest[at] = _json({**(known if isinstance(known, dict) else {"": known}), **values})
    others = table.drop_columns([*rare, *({REST} & {*table.column_names})])
    return others.append_column(REST, pa.array(rest, TEXT))


def readable_tables(table: str, rows: Sequence[tuple[Any, ...]]) -> list[pa.Table]:
    """Rows of a spool as tables; a row that no table can hold is kept as text, and its error says so."""
    to_table = answers_table if table == "answers" else outcomes_table
    try:
        return [to_table(rows)]
    except MISFITS as error:
        if len(rows) > 1:
            half = len(rows) // 2
            return readable_tables(table, rows[:half]) + readable_tables(table, rows[half:])
        return [to_table([_as_text(table, rows[0], error)])]


def _as_text(table: str, row: tuple[Any, ...], error: Exception) -> tuple[Any, ...]:
    """A row as far as any table can hold it: its features, or an outcome's value, as one text."""
    columns = dict(zip(TABLES[table], row, strict=True))
    time = columns["time"] if type(columns["time"]) is int and abs(columns["time"]) < EXACT else 0
    known: dict[str, Any] = dict.fromkeys(columns) | {"prediction_id": _plain(columns["prediction_id"]), "time": time}
    if table == "outcomes":
        value = columns["value"]
        is_scalar = isinstance(value, bytes | str) and isinstance(_loaded(value), str | int | float)
        return tuple({**known, "value": value if is_scalar else text_of(_plain(value))}.values())
    said = f"{type(error).__name__}: {error}"[:MOST_SAID]
    known |= {"version": _plain(columns["version"]), "shadow": bool(columns["shadow"])}
    known |= {"features": text_of(_plain(columns["features"])), "error": text_of({**UNREADABLE, "value": said})}
    return tuple(known.values())


def _plain(value: Any) -> str | None:
    """A text that any encoding can hold."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return None if text is None else str(text).encode("utf-8", "replace").decode()


def canonical(key: str | None) -> str | None:
    """A key's text such that equal values have equal texts: 12, 12.0 and "12" are one key."""
    if key is None:
        return None
    try:
        values = orjson.loads(key)
    except orjson.JSONDecodeError:
        return key
    if not isinstance(values, list):
        return key
    return _json([value if type(value) is str and value.strip() else read_category(value) for value in values])


def typed(values: Sequence[Any]) -> pa.Array:
    """JSON values as one array of integers, floats, booleans or texts; see the module for mixed ones."""
    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeError):
        return _mixed(values)
    if pa.types.is_integer(array.type) and not _exact(array):
        return _mixed(values)
    return array if _rank(array.type) is not None else _mixed(values)


def common(types: Iterable[pa.DataType]) -> pa.DataType:
    """The type that columns of several parts have together."""
    kinds = {type_ for type_ in types if not pa.types.is_null(type_)}
    if len(kinds) <= 1:
        return next(iter(kinds), pa.null())
    return TEXT if TEXT in kinds else pa.float64()


def cast(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    """A column in the type that `common` found."""
    if column.type == type_:
        return column
    if type_ != TEXT or pa.types.is_null(column.type):
        return column.cast(pa.uint8()).cast(type_) if pa.types.is_boolean(column.type) else column.cast(type_)
    coded = column.combine_chunks().dictionary_encode()
    texts = pa.array([read_category(value) for value in coded.dictionary.to_pylist()], TEXT)
    return pa.chunked_array([texts.take(coded.indices)])


def _columns(table: str, rows: Sequence[tuple[Any, ...]]) -> dict[str, Sequence[Any]]:
    """The values of each of a spool table's columns."""
    names = TABLES[table]
    return dict(zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True))


def _own(name: str, values: Sequence[Any]) -> pa.Array:
    """One of the log's own columns in its type."""
    type_ = LOG_TYPES[name]
    if type_ is None:
        return typed([None if value is None else _loaded(value) for value in values])
    if name == "key":
        return pa.array([canonical(value) for value in values], TEXT)
    if pa.types.is_boolean(type_):
        return pa.array([bool(value) for value in values], type_)
    if type_ == TIME:
        return pa.array(values, pa.int64()).cast(TIME)
    if type_ == TEXT:
        return pa.array(
            [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values], TEXT
        )
    return pa.array(values, type_)


def _loaded(text: bytes | str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def _expanded(features: Sequence[bytes]) -> tuple[dict[str, list[Any]], list[str | None]]:
    """Values by name, and what has no column: rare names, and text that is no JSON object."""
    rows = [_loaded(text) for text in features]
    rest: list[str | None] = [None if isinstance(row, dict) else _json(row) for row in rows]
    dicts: list[dict[str, Any]] = [row if isinstance(row, dict) else {} for row in rows]
    names = list(dict.fromkeys(chain.from_iterable(dicts)))
    kept = [name for name in names if len(name) <= LONGEST_NAME]
    if len(kept) > MOST_FEATURES:
        counts = Counter(chain.from_iterable(dicts))
        kept = sorted(kept, key=lambda name: -counts[name])[:MOST_FEATURES]
    if len(kept) < len(names):
        chosen = {*kept}
        names = [name for name in names if name in chosen]
        for at, row in enumerate(dicts):
            rare = {name: value for name, value in row.items() if name not in chosen}
            rest[at] = _json(rare) if rare else rest[at]
    return {name: [row.get(name) for row in dicts] for name in names}, rest


def _exact(numbers: pa.Array) -> bool:
    ends = pc.min_max(numbers).as_py()
    return ends["min"] is None or (ends["min"] >= -EXACT and ends["max"] <= EXACT)


def _rank(type_: pa.DataType) -> int | None:
    return next(
        (i for i, known in enumerate((pa.null(), pa.bool_(), pa.int64(), pa.float64(), TEXT)) if known == type_), None
    )


def _mixed(values: Sequence[Any]) -> pa.Array:
    if all(
        value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) <= EXACT)
        for value in values
    ):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else _text(value) for value in values], TEXT)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else read_category(value)


def _json(value: Any) -> str:
    return text_of(value).decode()
