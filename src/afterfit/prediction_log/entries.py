"""The records of a spool: an answer, an outcome, and many answers as one record.

A record of many answers is written as two texts, the rows and their answers, and is taken apart only when it is read.
This costs a tenth of as many single records. It is used for a request of many rows, and for many requests that are
written at once. Such a record takes one row number for each of its answers, and has the last of them. So ranges,
backlogs and what is sealed are always counted in answers.
"""

import json
from collections.abc import Mapping, Sequence
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


def unbatch(record: Record) -> list[Record]:
    """The rows of a record of many answers; a record of one answer as it is."""
    if record[0] is not None:
        return [record]
    columns: dict[str, Any] = dict(zip(LogEntry._fields, record, strict=True))
    rows, answers = loaded(unpacked(columns["features"])), loaded(unpacked(columns["prediction"]))
    rows = rows[RECORDS] if isinstance(rows, dict) else rows
    version, shadow, seconds = columns["version"], columns["shadow"], columns["seconds"]
    keys = [None] * len(rows) if columns["key"] is None else loaded(columns["key"])
    times = loaded(seconds) if isinstance(seconds, bytes) else [(columns["time"], seconds)] * len(rows)
    return [
        record_of(answer_of_json(answer), time, version, shadow, key, text_of(row), answer_seconds)
        for row, answer, key, (time, answer_seconds) in zip(rows, answers, keys, times, strict=True)
    ]


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
    """What `packed` was given."""
    with pa.input_stream(pa.py_buffer(packed_text), compression="zstd") as stream:
        text: bytes = stream.read()
    return text


def list_of(texts: Sequence[bytes]) -> bytes:
    """JSON texts as one JSON list."""
    return b"[" + b",".join(texts) + b"]"


def text_of(value: Any) -> bytes:
    """JSON of any value that an endpoint can bring: what orjson does not know is written as text."""
    try:
        return orjson.dumps(value, default=str, option=DUMP)
    except (orjson.JSONEncodeError, UnicodeError):  # half a surrogate pair, an integer beyond 64 bits
        return json.dumps(value, default=str).encode()


def loaded(text: bytes) -> Any:
    """What `text_of` wrote."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
