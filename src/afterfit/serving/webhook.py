"""MLflow's signed webhooks: the signature over id, time and body, and neither old nor repeated ones."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import orjson

from afterfit.serving.http_errors import Refusal

SIGNATURE, TIME, DELIVERY = "x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"
OLDEST = 300
"""Seconds that clocks may differ by, and a delivery may take."""


AGAIN = "again"
"""The file which says that our alias was set, so that a refused version is tried again."""


def signature(secret: bytes, delivery: str, moment: str, body: bytes) -> str:
    """How MLflow signs: HMAC-SHA256 over `id.time.body`, as `v1,` and base64."""
    signed = hmac.new(secret, f"{delivery}.{moment}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


def check(secret: bytes | None, headers: Mapping[str, str], body: bytes, now: float, shared: Path) -> None:
    """Let a delivery in once, if it is signed with our secret and young.

    A repeated one does no harm (the registry is asked again), but costs a query: each is taken once, by whichever
    worker it comes to. What was taken is a file for as long as its time would still pass.

    Args:
        secret: ours; None where none was set.
        headers: of the request.
        body: as it came.
        now: seconds since 1970.
        shared: the folder that the server's processes share.

    Raises:
        Refusal: 404 without a secret, 401 where anything does not fit.
    """
    if secret is None:
        raise Refusal(404, "No webhooks are taken: the server was started without AFTERFIT_WEBHOOK_SECRET.")
    delivery, moment = headers.get(DELIVERY, ""), headers.get(TIME, "")
    given = headers.get(SIGNATURE, "").encode("latin-1", "replace")
    if not hmac.compare_digest(signature(secret, delivery, moment, body).encode(), given):
        raise Refusal(401, "The webhook's signature is not ours.", "invalid_signature")
    if not moment.isascii() or not moment.isdigit() or abs(now - int(moment)) > OLDEST:
        raise Refusal(401, "The webhook's time is not now.", "stale_delivery")
    mark = shared / f"delivery-{hashlib.sha256(delivery.encode()).hexdigest()[:32]}"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError as error:
        raise Refusal(401, "This delivery came before.", "repeated_delivery") from error
    for old in shared.glob("delivery-*"):
        with suppress(OSError):  # another worker was quicker
            if old.stat().st_mtime < now - 2 * OLDEST:
                old.unlink()


def sets_alias(body: bytes, name: str, alias: str) -> bool:
    """Whether a delivery says that this alias of this model was set."""
    try:
        told = orjson.loads(body)
        event, what = told["entity"], told["data"]
        found = event, told["action"], what["name"], what["alias"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return False
    return found == ("model_version_alias", "created", name, alias)
