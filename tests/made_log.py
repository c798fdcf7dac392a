"""Entries of a made prediction log, and what a log holds."""

import orjson
import pyarrow as pa

from afterfit import prediction_log
from afterfit.prediction_log.entries import LogEntry, Outcome

NOON = 1_795_435_200_000_000  # 2026-11-23 12:00 UTC
HOUR = 3_600_000_000


def entry(name, time=NOON, **changes):
    """One answer; `features` as a dictionary, `key` as a list."""
    features = changes.pop("features", {"size": 1.5, "colour": "red"})
    key = changes.pop("key", None)
    told = {
        "version": "7", "shadow": False, "prediction": b"true", "probability": 0.8, "probabilities": None,
        "lower": None, "upper": None, "confidence": 0.8, "warnings": None, "error": None, "seconds": 0.002,
    }  # fmt: skip
    text = None if key is None else orjson.dumps(key).decode()
    return LogEntry(prediction_id=name, time=time, key=text, features=orjson.dumps(features), **{**told, **changes})


def outcome(name, value, time=NOON, key=None):
    """One outcome, by id or by key."""
    return Outcome(name, None if key is None else orjson.dumps(key).decode(), orjson.dumps(value), time)


def read(log, **asked):
    """All that a log gives, as one table; an empty list where it gives nothing."""
    tables = list(prediction_log.read(log, **asked))
    return pa.concat_tables(tables) if tables else []


def ids(log, **asked):
    """The ids that a log gives, in order of name, doubled ones doubled."""
    return sorted(one for table in prediction_log.read(log, **asked) for one in table["prediction_id"].to_pylist())
