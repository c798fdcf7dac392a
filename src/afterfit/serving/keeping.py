"""What of a row the prediction log keeps: its features without what is private, and the key that outcomes come by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from afterfit import predlog
from afterfit.usecase import UseCase

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
        return predlog.private(row, self.private, self.mode, salt=self.salt) if self.private else row

    def name(self, row: Row) -> str | None:
        """The row's key, or None where a part of it is missing."""
        return predlog.key_of(row, self.key, self.private, salt=self.salt) if self.key else None


NOTHING = Keeping()
"""No key, nothing private."""


def keeping_of(use_case: UseCase) -> Keeping:
    """The rules of a settings file."""
    private = frozenset(use_case.columns.private)
    return Keeping(use_case.key, private, use_case.log.private, predlog.salt_of(use_case.name))
