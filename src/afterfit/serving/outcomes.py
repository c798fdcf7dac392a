"""True targets that clients send: checked, written into the log, unknown ids reported."""

import time
from collections.abc import Mapping
from typing import Any

from afterfit import prediction_log
from afterfit.errors import LogError
from afterfit.prediction_log.bulk import text_of
from afterfit.prediction_log.spool import Outcome
from afterfit.serving.engine import Engine
from afterfit.serving.http_errors import Refusal
from afterfit.serving.service import Service

FIELDS = frozenset({"prediction_id", "key", "value"})
LONGEST = 200
"""Characters of an id."""


def take(service: Service, content: Any) -> dict[str, Any]:
    """Write outcomes, one or many; sent again they change nothing.

    Raises:
        Refusal: 422 an outcome cannot be read, 503 there is no log or it cannot be written, 413 too many.
    """
    if service.log is None or service.place is None or service.engine is None:
        raise Refusal(503, "No prediction log is kept here, so outcomes have no place.", "no_log")
    given = content if isinstance(content, list) else [content]
    if len(given) > service.limits.rows:
        raise Refusal(413, f"A request may have {service.limits.rows} outcomes; this one has {len(given)}.")
    now = time.time_ns() // 1000
    found = [_outcome(one, number, service.engine, now) for number, one in enumerate(given)]
    ids = {outcome.prediction_id for outcome in found if outcome.prediction_id is not None}
    try:
        service.log.write_outcomes(found)
        unknown = prediction_log.unknown_ids(service.place, ids) if ids else set()
    except LogError as error:
        service.failed_log(error)
        raise Refusal(503, "The outcomes cannot be logged at the moment. Try again.", "log_unavailable") from error
    service.tally.counts["outcomes",] += len(found)
    return {"taken": len(found), "unknown": sorted(unknown)}


def _outcome(one: Any, number: int, engine: Engine, now: int) -> Outcome:
    if not isinstance(one, dict) or not FIELDS.issuperset(one) or "value" not in one:
        raise Refusal(422, f"Outcome {number} must be an object with value, and prediction_id or key.")
    identity, key, value = one.get("prediction_id"), one.get("key"), one["value"]
    if (identity is None) == (key is None):
        raise Refusal(422, f"Outcome {number} must name either prediction_id or key.")
    if not isinstance(value, str | int | float | bool):
        raise Refusal(422, f"The value of outcome {number} must be a text, a number or a truth value.")
    if identity is not None and not (isinstance(identity, str) and 0 < len(identity) <= LONGEST):
        raise Refusal(422, f"The prediction_id of outcome {number} must be a text of up to {LONGEST} characters.")
    text = None if key is None else _key(key, number, engine)
    return Outcome(identity, text, text_of(_known(value, number, engine)), now)


def _key(key: Any, number: int, engine: Engine) -> str:
    names = engine.keeping.key
    if not names:
        raise Refusal(422, "This use case has no key columns: send the prediction_id.")
    if not isinstance(key, Mapping) or set(key) != set(names):
        raise Refusal(422, f"The key of outcome {number} must be an object with exactly {', '.join(names)}.")
    text = engine.keeping.name(key)
    if text is None:
        raise Refusal(422, f"The key of outcome {number} has a missing value.")
    return text


def _known(value: Any, number: int, engine: Engine) -> Any:
    """The target as the model knows it: one of its classes, or a number."""
    classes = engine.bundle.scorer.classes
    if classes is None:
        if isinstance(value, str) or value != value or isinstance(value, bool):  # noqa: PLR0124 - nan is not itself
            raise Refusal(422, f"The value of outcome {number} must be a number.")
        return value
    for label in classes:
        if label == value and isinstance(label, bool) == isinstance(value, bool):
            return label
    named = ", ".join(map(str, classes[:20]))
    raise Refusal(422, f"The value of outcome {number} must be one of {named}.")
