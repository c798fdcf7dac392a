"""Bearer tokens: one for predicting, one for outcomes; from files or the environment, compared in constant time."""

import base64
import binascii
import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from afterfit.errors import SettingsError
from afterfit.serving.http_errors import Refusal

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
            Refusal: 401.
        """
        wanted = self.predict if purpose == "predict" else self.outcomes
        if wanted is not None and not hmac.compare_digest(wanted, given):
            raise Refusal(401, "This needs the header 'Authorization: Bearer …' with the right token.")

    def check_page(self, bearer: bytes, authorization: str) -> None:
        """Let a reader in who knows the predicting token: as a program says it, or as a browser asks a person for it.

        A browser's answer (any name, the token as password) opens pages only: it would send it along with requests
        that other sites make it send, which must neither predict nor bring outcomes.

        Raises:
            Refusal: 401, and the browser asks.
        """
        try:
            self.check("predict", bearer or _password(authorization))
        except Refusal as error:
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
    file = os.environ.get(f"{variable}_FILE")
    if file is None:
        text = os.environ.get(variable)
        if text is None:
            return None
    else:
        try:
            text = Path(file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{variable}_FILE names '{file}', which cannot be read.") from error
    if not text.strip():
        raise SettingsError(f"{variable} is set and empty: set a token, or nothing at all.")
    return text.strip().encode()
