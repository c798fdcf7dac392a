"""Bearer tokens: one for predicting, one for outcomes; from files or the environment, compared in constant time.

MLflow's signed webhooks: the signature over id, time and body, and neither old nor repeated ones.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from afterfit.serving.http_errors import HttpError
from afterfit.settings import secret

Purpose = Literal["predict", "outcomes", "webhook"]
VARIABLES: dict[Purpose, str] = {
    "predict": "AFTERFIT_PREDICT_TOKEN",
    "outcomes": "AFTERFIT_OUTCOMES_TOKEN",
    "webhook": "AFTERFIT_WEBHOOK_SECRET",
}
"""Environment variables; with `_FILE` behind the name, that of a file which holds the token."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What is asked for; None lets everybody in (no webhook is taken without its secret)."""

    predict: bytes | None = None
    outcomes: bytes | None = None
    webhook: bytes | None = None

    def check(self, purpose: Purpose, given: bytes) -> None:
        """Let in whoever knows the token.

        Raises:
            HttpError: 401.
        """
        wanted = self.predict if purpose == "predict" else self.outcomes
        if wanted is not None and not hmac.compare_digest(wanted, given):
            raise HttpError(401, "This needs the header 'Authorization: Bearer …' with the right token.")

    def check_page(self, bearer: bytes, authorization: str) -> None:
        """Let a reader in who knows the predicting token: from a program's header, or from a browser's password window.

        A browser's answer (any name, the token as password) opens pages only: it would send it along with requests
        that other sites make it send, which must neither predict nor bring outcomes.

        Raises:
            HttpError: 401, and the browser asks.
        """
        try:
            self.check("predict", bearer or _password(authorization))
        except HttpError as error:
            error.asks = b'Bearer, Basic realm="any name; the token as the password", charset="UTF-8"'
            raise


def _password(authorization: str) -> bytes:
    """The password of HTTP's basic scheme (RFC 7617); empty where there is none."""
    scheme, _, said = authorization.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(said.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def tokens_of_environment() -> Tokens:
    """The tokens that whoever started the server has set.

    Raises:
        SettingsError: a file cannot be read, or a token is empty.
    """
    return Tokens(*(_token(variable) for variable in VARIABLES.values()))


def _token(variable: str) -> bytes | None:
    text = secret(variable)
    return None if text is None else text.encode()


SIGNATURE, TIME, DELIVERY = "x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"
OLDEST = 300
"""Seconds that clocks may differ by, and a delivery may take."""
LOOK_AGAIN = "again"
"""The file which says that our alias was set, so that a refused version is tried again."""


def signature(secret: bytes, delivery: str, moment: str, body: bytes) -> str:
    """How MLflow signs: HMAC-SHA256 over `id.time.body`, as `v1,` and base64."""
    signed = hmac.new(secret, f"{delivery}.{moment}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


def check(secret: bytes | None, headers: Mapping[str, str], body: bytes, now: float, shared: Path) -> None:
    """Let a delivery in once, if it is signed with our secret and young.

    A repeated delivery does no harm, but costs a query of the registry. So each is taken once, by the worker that it
    comes to. A file remembers it for as long as its time would still be accepted.

    Args:
        secret: ours; None where none was set.
        headers: of the request.
        body: as it came.
        now: seconds since 1970.
        shared: the folder that the server's processes share.

    Raises:
        HttpError: 404 without a secret, 401 where anything does not fit.
    """
    if secret is None:
        raise HttpError(404, "No webhooks are taken: the server was started without AFTERFIT_WEBHOOK_SECRET.")
    delivery, moment = headers.get(DELIVERY, ""), headers.get(TIME, "")
    given = headers.get(SIGNATURE, "").encode("latin-1", "replace")
    if not hmac.compare_digest(signature(secret, delivery, moment, body).encode(), given):
        raise HttpError(401, "The webhook's signature is not ours.", "invalid_signature")
    if not moment.isascii() or not moment.isdigit() or abs(now - int(moment)) > OLDEST:
        raise HttpError(401, "The webhook's time is not now.", "stale_delivery")
    mark = shared / f"delivery-{hashlib.sha256(delivery.encode()).hexdigest()[:32]}"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError as error:
        raise HttpError(401, "This delivery came before.", "repeated_delivery") from error
    for old in shared.glob("delivery-*"):
        with suppress(OSError):  # another worker was quicker
            if old.stat().st_mtime < now - 2 * OLDEST:
                old.unlink()


def sets_alias(body: bytes, name: str, alias: str) -> bool:
    """Whether a delivery says that this alias of this model was set."""
    try:
        event = orjson.loads(body)
        entity, data = event["entity"], event["data"]
        changed = entity, event["action"], data["name"], data["alias"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return False
    return changed == ("model_version_alias", "created", name, alias)
