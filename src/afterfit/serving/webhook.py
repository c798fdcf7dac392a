"""MLflow's signed webhooks: the signature over id, time and body, and neither old nor repeated ones."""

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping

from afterfit.serving.refusal import Refusal

SIGNATURE, TIME, DELIVERY = "x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"
OLDEST = 300
"""Seconds that clocks may differ by, and a delivery may take."""
MOST_REMEMBERED = 1_000
_seen: OrderedDict[str, float] = OrderedDict()


def signature(secret: bytes, delivery: str, moment: str, body: bytes) -> str:
    """How MLflow signs: HMAC-SHA256 over `id.time.body`, as `v1,` and base64."""
    signed = hmac.new(secret, f"{delivery}.{moment}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


def check(secret: bytes | None, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Let a delivery in once, if it is signed with our secret and young.

    A repeated one does no harm (the registry is asked again), but costs a query: each is taken once.

    Raises:
        Refusal: 404 without a secret, 401 where anything does not fit.
    """
    if secret is None:
        raise Refusal(404, "No webhooks are taken: the server was started without AFTERFIT_WEBHOOK_SECRET.")
    delivery, moment = headers.get(DELIVERY, ""), headers.get(TIME, "")
    given = headers.get(SIGNATURE, "").encode("latin-1", "replace")
    if not hmac.compare_digest(signature(secret, delivery, moment, body).encode(), given):
        raise Refusal(401, "The webhook's signature is not ours.", "invalid_signature")
    if not moment.isdigit() or abs(now - int(moment)) > OLDEST:
        raise Refusal(401, "The webhook's time is not now.", "stale_delivery")
    if delivery in _seen:
        raise Refusal(401, "This delivery came before.", "repeated_delivery")
    _seen[delivery] = now
    while len(_seen) > MOST_REMEMBERED:
        _seen.popitem(last=False)
