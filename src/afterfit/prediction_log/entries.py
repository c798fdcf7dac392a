"""The records of a spool: an answer, an outcome, and many answers as one record.

A record of many answers is written as two texts, the rows and their answers, and is taken apart only when it is read.
This costs a tenth of as many single records. It is used for a request of many rows, and for many requests that are
written at once. Such a record takes one row number for each of its answers, and has the last of them. So ranges,
backlogs and what is sealed are always counted in answers.
"""

import json
import reprlib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from afterfit.model.answer import Answer


class LogEntry(NamedTuple):
    """One answer; a NamedTuple because it is built 10,000 times a second.

    Attributes:
        prediction_id: the answer's id.
        time: microseconds since 1970 UTC, when it was answered.
        version: which version of the model answered.
        shadow: whether the answer was given behind another one.
        key: JSON list of the use case's key columns' values, or None.
        features: JSON object: the row as received, after private columns were hashed or left out.
        prediction: JSON scalar, or None where there is none.
        probability: of the second of two classes.
        probabilities: JSON object, several classes.
        lower: lower end of a regression's interval.
        upper: upper end of it.
        confidence: probability of the predicted class.
        warnings: JSON list, None where empty.
        error: JSON object, or None.
        seconds: from request to answer, as far as known at writing.
    """

    prediction_id: str
    time: int
    version: str
    shadow: bool
    key: str | None
    features: bytes
    prediction: bytes | None
    probability: float | None
    probabilities: bytes | None
    lower: float | None
    upper: float | None
    confidence: float | None
    warnings: bytes | None
    error: bytes | None
    seconds: float | None


class Outcome(NamedTuple):
    """The true target of an answer, found by the answer's id or by its key.

    Attributes:
        prediction_id: the answer's id, or None.
        key: JSON list of the key columns' values, or None.
        value: JSON scalar: the true target.
        time: when it arrived, microseconds since 1970 UTC.
    """

    prediction_id: str | None
    key: str | None
    value: bytes
    time: int


Record = tuple[Any, ...]
RECORDS = "dataframe_records"
"""Where MLflow's servers take a list of rows."""
TIME, KEY, FEATURES, SECONDS = map(LogEntry._fields.index, ("time", "key", "features", "seconds"))
DUMP = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
CELL = 48
"""Bytes that a value of a row takes beside its text and its name: what memory needs for it, about."""
PIECE = 2**20
"""Bytes of a packed text that are unfolded at once to count them."""
MOST_UNFOLDED = 2**29
"""Bytes that rows may unfold to where no settings say so, and that a record's text may, to be taken apart."""


class BatchRecord(NamedTuple):
    """Many answers as one record.

    Attributes:
        size: how many.
        time: microseconds since 1970 UTC, when they were answered, or the first of them.
        version: which version of the model answered.
        shadow: whether they were given behind others.
        keys: JSON list of their keys, each a text or null; None where there are none.
        features: JSON list of their rows, as the log may hold them; or such a list as it came, under `RECORDS`.
        answers: JSON list of the answers.
        seconds: from request to answer; or of answers to several requests a JSON list of each one's time and seconds.
    """

    size: int
    time: int
    version: str
    shadow: bool
    keys: bytes | None
    features: bytes
    answers: bytes
    seconds: float | bytes | None

    def record(self) -> Record:
        """As a row of the spool: it has no prediction id, and its two texts in place of features and prediction."""
        columns: dict[str, Any] = dict.fromkeys(LogEntry._fields)
        columns |= {"time": self.time, "version": self.version, "shadow": self.shadow, "key": self.keys}
        columns |= {"features": packed(self.features), "prediction": packed(self.answers), "seconds": self.seconds}
        return tuple(columns.values())


def unfolded_bytes(names: Iterable[Any], rows: int) -> int:
    """What names take, about, as objects and as text, when each of so many rows has them."""
    return rows * sum(len(text_of(name)) + CELL for name in names)


def unbatch(record: Record) -> Iterator[Record]:
    """The rows of a record of many answers; a record of one answer as it is.

    Rows that unfold to more than `MOST_UNFOLDED`, or cannot be read, stay packed, and their answers say so: the first
    has them, the others name it. Rows without answers that can be read are one row with all that there is.
    """
    if record[0] is not None:
        yield record
        return
    columns: dict[str, Any] = dict(zip(LogEntry._fields, record, strict=True))
    version, shadow, seconds = columns["version"], columns["shadow"], columns["seconds"]
    try:
        answers = [answer_of_json(answer) for answer in loaded(unpacked(columns["prediction"]))]
        rows = _rows_of(columns["features"], len(answers), answers[0].prediction_id if answers else "")
        keys = [None] * len(answers) if columns["key"] is None else loaded(columns["key"])
        times = loaded(seconds) if isinstance(seconds, bytes) else [(columns["time"], seconds)] * len(answers)
        given = list(zip(answers, keys, times, strict=True))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OSError, pa.ArrowException) as error:
        yield _unreadable(columns, error)
        return
    for row, (answer, key, (time, answer_seconds)) in zip(rows, given, strict=True):
        yield record_of(answer, time, version, shadow, key, row, answer_seconds)


def _rows_of(features: bytes, count: int, first: str) -> Iterable[bytes]:
    """The texts of a record's rows."""
    try:
        rows = loaded(unpacked(features))
        rows = rows[RECORDS] if isinstance(rows, dict) else rows
        if len(rows) == count:
            return map(text_of, rows)
        fault = f"{len(rows)} rows have {count} answers"
    except (ValueError, TypeError, LookupError, RecursionError, OSError, pa.ArrowException) as error:
        fault = str(error)
    note = {"unreadable": f"{fault}: the rows of {count} answers are packed (zstd, base64) with answer {first}"}
    return map(text_of, [{**note, "packed": b64encode(features).decode()}, *[note] * (count - 1)])


def _unreadable(columns: Mapping[str, Any], error: Exception) -> Record:
    """A record that cannot be taken apart, as one row that has no answer."""
    texts = {name: b64encode(columns[name] or b"").decode() for name in ("features", "prediction")}
    note = {"unreadable": f"a record of many answers, packed (zstd, base64): {error}", **texts}
    row = dict.fromkeys(LogEntry._fields) | {name: columns[name] for name in ("time", "version", "shadow")}
    identity = f"unreadable-{sha256(text_of(note)).hexdigest()[:16]}"
    return tuple({**row, "prediction_id": identity, "features": text_of(note), "error": text_of(UNREADABLE)}.values())


UNREADABLE = {"column": None, "code": "unreadable", "value": None, "message": "The log's record cannot be read."}


def answer_of_json(answer: Mapping[str, Any]) -> Answer:
    """An answer as a record of many has it; a field that was not written is None.

    Which task it was is not known of a row with an error, and is not asked: a spool's row has a place for every number.
    """
    return Answer._make(map({**answer, "task": "binary"}.get, Answer._fields))


def batch_record_of(records: Sequence[Record]) -> BatchRecord | None:
    """Answers to several requests as one record; all must be of one version, and all of them shadows or none.

    None where one holds what JSON does not know; then they are to be written one by one.
    """
    _, time, version, shadow, *_ = records[0]
    keys = [record[KEY] for record in records]
    try:
        keys_text = orjson.dumps(keys) if any(keys) else None
        features = list_of([record[FEATURES] for record in records])
        answers = orjson.dumps([json_of_record(record) for record in records], option=DUMP)
        times = orjson.dumps([(record[TIME], record[SECONDS]) for record in records], option=DUMP)
    except TypeError:
        return None
    return BatchRecord(len(records), time, version, shadow, keys_text, features, answers, times)


def json_of_record(record: Record) -> dict[str, Any]:
    """What `answer_of_json` reads: the answer without its version, its texts as they are."""
    identity, _, _, _, _, _, prediction, probability, shares, lower, upper, confidence, warnings, error, _ = record
    return {
        "prediction_id": identity,
        "prediction": prediction and orjson.Fragment(prediction),
        "probability": probability,
        "probabilities": shares and orjson.Fragment(shares),
        "lower": lower,
        "upper": upper,
        "confidence": confidence,
        "warnings": warnings and orjson.Fragment(warnings),
        "error": error and orjson.Fragment(error),
    }


def ids_in_batch_record(answers: bytes) -> set[str]:
    """The prediction ids in the packed answers of a record of many."""
    return {answer["prediction_id"] for answer in loaded(unpacked(answers))}


def record_of(  # noqa: PLR0917 - a spool's row in its order; called for every answer
    answer: Answer,
    time: int,
    version: str,
    shadow: bool,  # noqa: FBT001 - as above
    key: str | None,
    features: bytes,
    seconds: float | None,
) -> Record:
    """One answer as a row of the spool."""
    identity, prediction, probability, shares, lower, upper, confidence, _, warnings, error, _ = answer
    return (
        identity,
        time,
        version,
        shadow,
        key,
        features,
        None if prediction is None else text_of(prediction),
        probability,
        None if shares is None else text_of(shares),
        lower,
        upper,
        confidence,
        text_of(warnings) if warnings else None,
        None if error is None else text_of(error),
        seconds,
    )


def packed(text: bytes) -> bytes:
    """A text compressed, which costs less than to write it as it is."""
    made: bytes = pa.Codec("zstd", compression_level=1).compress(text, asbytes=True)
    return made


def unpacked(packed_text: bytes) -> bytes:
    """What `packed` was given.

    Raises:
        ValueError: it is more than `MOST_UNFOLDED`.
    """
    with pa.input_stream(pa.py_buffer(packed_text), compression="zstd") as stream:
        text: bytes = stream.read(MOST_UNFOLDED + 1)
    if len(text) > MOST_UNFOLDED:
        raise ValueError(f"more than {MOST_UNFOLDED:,} bytes")
    return text


def size_when_unpacked(packed_text: bytes, most: int) -> int:
    """Bytes of what `packed` was given, or `most` where they are more or cannot be read."""
    size = 0
    try:
        with pa.input_stream(pa.py_buffer(packed_text), compression="zstd") as stream:
            while size < most and (some := stream.read(PIECE)):
                size += len(some)
    except (OSError, pa.ArrowException):
        return most
    return min(size, most)


def list_of(texts: Sequence[bytes]) -> bytes:
    """JSON texts as one JSON list."""
    return b"[" + b",".join(texts) + b"]"


def text_of(value: Any) -> bytes:
    """JSON of any value that an endpoint can bring: what orjson does not know is written as text.

    What is nested deeper than the stack reaches is written as the beginning of what Python prints of it.
    """
    try:
        return orjson.dumps(value, default=str, option=DUMP)
    except (orjson.JSONEncodeError, UnicodeError):  # half a surrogate pair, an integer beyond 64 bits, a deep value
        pass
    try:
        return json.dumps(value, default=str).encode()
    except (RecursionError, TypeError, ValueError):
        return json.dumps(_printed(value)).encode()


def _printed(value: Any) -> Any:
    """A row with those of its values printed that cannot be written; anything else printed."""
    if not isinstance(value, Mapping):
        return reprlib.repr(value)
    return {str(name): _written(one) for name, one in value.items()}


def _written(value: Any) -> Any:
    """A value as JSON brings it back; printed where it cannot be written."""
    try:
        return json.loads(json.dumps(value, default=str))
    except (RecursionError, TypeError, ValueError):
        return reprlib.repr(value)


def loaded(text: bytes) -> Any:
    """What `text_of` wrote."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
