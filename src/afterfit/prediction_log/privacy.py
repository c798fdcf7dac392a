"""What of a row the prediction log keeps: its features without what is private, and the key that outcomes come by."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from afterfit import prediction_log
from afterfit.contract.values import read_category
from afterfit.settings import hash_secret
from afterfit.use_case import UseCase

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LogRedaction:
    """A use case's rules for its log.

    Attributes:
        key: the key columns.
        private: columns of which no value is kept as it is.
        mode: whether they are hashed or left out.
        salt: of the hashes.
        aside: columns that the model is known not to use; the log keeps them as they came.
    """

    key: tuple[str, ...] = ()
    private: frozenset[str] = frozenset()
    mode: Literal["hash", "drop"] = "hash"
    salt: str = ""
    aside: frozenset[str] = frozenset()

    def features(self, row: Row) -> Row:
        """The row as it is kept."""
        return prediction_log.private(row, self.private, self.mode, salt=self.salt) if self.private else row

    def name(self, row: Row) -> str | None:
        """The row's key, or None where a part of it is missing."""
        if not self.key or self.key[0] not in row:
            return None
        return prediction_log.key_of(row, self.key, self.private, salt=self.salt)


NO_REDACTION = LogRedaction()
"""No key, nothing private."""


def redaction_of(use_case: UseCase) -> LogRedaction:
    """The rules of a settings file.

    Raises:
        SettingsError: private values would be hashed without a secret.
    """
    private = frozenset(use_case.columns.private)
    salt = prediction_log.salt_of(use_case.name, use_case.hashed, use_case.key)
    aside = frozenset({use_case.target, *use_case.columns.ignore})
    return LogRedaction(use_case.key, private, use_case.log.private, salt, aside)


def private(
    row: Mapping[str, Any], columns: Collection[str], mode: Literal["hash", "drop"], *, salt: str = ""
) -> dict[str, Any]:
    """A row as the log may hold it: the values of private columns hashed, or left out. Missing values stay missing.

    A hash is the first 16 hex digits of sha256 over the salt, the column's name and the value's text. Equal values
    have equal hashes, so that they can be counted and joined; who knows the salt can try values out.
    """
    if not columns:
        return dict(row)
    kept = {name: value for name, value in row.items() if mode == "hash" or name not in columns}
    for name in columns:
        if kept.get(name) is not None:
            kept[name] = hashed(kept[name], name, salt)
    return kept


def hashed(value: Any, column: str, salt: str) -> str | None:
    """One private value's hash; None for a missing value."""
    text = read_category(value)
    if text is None:
        return None
    return hashlib.sha256(f"{salt}\0{column}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def salt_of(use_case: str, hashed: Collection[str], key: Collection[str] = ()) -> str:
    """What hashes of private values begin with: the secret in AFTERFIT_LOG_SALT, and the use case's name.

    Args:
        use_case: its name.
        hashed: the columns that are hashed.
        key: the columns by which outcomes come.

    Raises:
        SettingsError: there is no secret, and something is hashed.
    """
    kept = [name for name in hashed if name in key]
    return f"{hash_secret(sorted(hashed), kept=kept)}\0{use_case}"


def key_of(row: Mapping[str, Any], key: Sequence[str], private: Collection[str] = (), *, salt: str = "") -> str | None:
    """The JSON list of a row's key, by which outcomes are joined; None where a part of it is missing.

    Values are their texts as categories have them, so that 12, 12.0 and "12" are one key. Private ones are hashed,
    also where `drop` leaves them out of the features: without them there is nothing to join by.
    """
    texts = [hashed(row.get(n), n, salt) if n in private else read_category(row.get(n)) for n in key]
    if not texts or None in texts:
        return None
    try:
        return orjson.dumps(texts).decode()
    except (orjson.JSONEncodeError, UnicodeError):  # half a surrogate pair, which no text of UTF-8 can hold
        return json.dumps(texts, separators=(",", ":"))
