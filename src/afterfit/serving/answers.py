"""Many answers made together: a list of them, with what they were made of and their JSON, which is made once."""

from typing import Any

import orjson

from afterfit.checks import Checked
from afterfit.predictions import Predictions


class Answers(list[dict[str, Any]]):
    """Answers to rows of one form.

    Attributes:
        checked: the rows held against the contract.
        predictions: of all rows; arbitrary in those with an error.
    """

    __slots__ = ("_text", "checked", "predictions")

    def __init__(self, answers: list[dict[str, Any]], checked: Checked, predictions: Predictions) -> None:
        super().__init__(answers)
        self.checked, self.predictions = checked, predictions
        self._text: bytes | None = None

    @property
    def text(self) -> bytes | None:
        """JSON list of them; None where it takes more than orjson, as for half a surrogate pair."""
        if self._text is None:
            try:
                self._text = orjson.dumps(list(self))
            except (orjson.JSONEncodeError, UnicodeError):
                return None
        return self._text


def text_of_all(answers: Any) -> bytes | None:
    """The text of answers that were made together; None of others."""
    return answers.text if type(answers) is Answers else None
