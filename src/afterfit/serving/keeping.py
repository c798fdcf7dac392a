"""What of a row the prediction log keeps: its features without what is private, and the key that outcomes come by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from afterfit import prediction_log
from afterfit.use_case import UseCase

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Keeping:
    """A use case's rules for its log.

    Attributes:
        key: the key columns.
        private: columns of which no value is kept as it is.
        mode: whether they are hashed or left out.
        salt: of the hashes.
    """

    key: tuple[str, ...] = ()
    private: frozenset[str] = frozenset()
    mode: Literal["hash", "drop"] = "hash"
    salt: str = ""

    def features(self, row: Row) -> Row:
        """The row as it is kept."""
        return prediction_log.private(row, self.private, self.mode, salt=self.salt) if self.private else row

    def name(self, row: Row) -> str | None:
        """The row's key, or None where a part of it is missing."""
        if not self.key or self.key[0] not in row:
            return None
        return prediction_log.key_of(row, self.key, self.private, salt=self.salt)


NOTHING = Keeping()
"""No key, nothing private."""


def keeping_of(use_case: UseCase) -> Keeping:
    """The rules of a settings file."""
    private = frozenset(use_case.columns.private)
    return Keeping(use_case.key, private, use_case.log.private, prediction_log.salt_of(use_case.name))
