"""Numbers as people write them: how a column writes its numbers, as a sample, and a strict reader of that format.

A format is one number written that way: "1.234,5" (thousands marked by points, a decimal comma), "1 234.5", "1'234.5",
"12,34,567.8" (India), "1234,5", "49%", "€ 1.234,5", "1,234.5 USD", "(1,234.5)" and "1,234.5-" (negative). A sample that
could be read in two ways, such as "1,234", is refused.

Reading is strict. A text that contradicts the format is no number, and never read in another way. What a format allows
may be absent: under "€ 1.234,5" the text "476" is 476. A percentage is the number that stands before the sign: "49%" is
49. A blank before or behind a unit, and which blank marks the thousands, does not matter. A real number is itself.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from afterfit.contract.values import NAN, NO_MARKS, decode_text, is_missing_word, read_number
from afterfit.errors import SettingsError

Negative: TypeAlias = Literal["-", "\u2212", "()", "6-"]
LONGEST = 64  # characters; no number that a person writes is longer
CODES = (
    "AED", "ARS", "AUD", "BGN", "BRL", "CAD", "CHF", "CLP", "CNY", "COP", "CZK", "DKK", "EGP", "EUR", "GBP", "HKD",
    "HUF", "IDR", "ILS", "INR", "ISK", "JPY", "KES", "KRW", "KZT", "MAD", "MXN", "MYR", "NGN", "NOK", "NZD", "PEN",
    "PHP", "PKR", "PLN", "QAR", "RMB", "RON", "RSD", "RUB", "SAR", "SEK", "SGD", "THB", "TRY", "TWD", "UAH", "USD",
    "VND", "ZAR",
)  # fmt: skip
"""Codes of currencies (ISO 4217) that are read; those that are English words too are not among them."""
SIGNS = (
    "US$", "CA$", "AU$", "NZ$", "HK$", "NT$", "A$", "C$", "R$", "S$", "kr.", "kr", "zł", "Kč", "Ft", "Fr.", "Rs.", "Rs",
    "lei", "лв.", "лв", "\u0440\u0443\u0431.", "\u0440\u0443\u0431",
)  # fmt: skip
CURRENCY_SYMBOLS = "$¢£¤¥\u058f\u060b\u0e3f\u17db\u20a0-\u20c0\ufdfc\ufe69\uff04\uffe0\uffe1\uffe5\uffe6"
MINUS = "\u2212"
BLANKS = " \u00a0\u2009\u202f"
APOSTROPHES = "'\u2019"
_MINUS = f"{MINUS}-"
_UNIT = "|".join([*map(re.escape, (*SIGNS, *CODES)), f"[{CURRENCY_SYMBOLS}]", "[%\uff05]"])
_WRITTEN = re.compile(
    rf"(?P<open>\()?\s*(?P<sign>[+{_MINUS}])?\s*(?:(?P<before>{_UNIT})\s*)?(?P<inner>[+{_MINUS}])?\s*"
    rf"(?P<near>\()?\s*(?P<core>[0-9.,][0-9.,{BLANKS}{APOSTROPHES}]*(?<![{BLANKS}])(?:[eE][+-]?[0-9]{{1,3}})?)\s*"
    rf"(?P<end>\))?(?P<trailing>[{_MINUS}])?\s*(?P<behind>{_UNIT})?(?P<last>[{_MINUS}])?\s*(?P<close>\))?"
)
_NO_NUMBER = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Marks:
    """What parts the digits: the decimal mark, the mark of thousands (empty: none), and whether India's groups."""

    decimal: str
    thousands: str = ""
    lakh: bool = False

    def number(self, core: str) -> float | None:
        """The digits of a number with these marks; None where they contradict them."""
        if _core_of(self).fullmatch(core) is None:
            return None
        mantissa = core
        for mark in _same(self.thousands):
            mantissa = mantissa.replace(mark, "")
        return float(mantissa.replace(self.decimal, "."))


POSSIBLE = (
    Marks("."), Marks(","), Marks(".", ","), Marks(",", "."), Marks(".", " "), Marks(",", " "), Marks(".", "'"),
    Marks(",", "'"), Marks(".", ",", lakh=True),
)  # fmt: skip
"""All marks that a format may have, those with fewer marks first."""


@dataclass(frozen=True, slots=True)
class WrittenNumber:
    """A text taken apart: its digits and their marks, its unit, how it says that it is negative.

    `negative` is empty for a positive number; `unit` is a currency or "%", empty without one.
    """

    core: str
    unit: str
    unit_first: bool
    spaced: bool
    negative: Negative | Literal[""]


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """How a column writes its numbers; what is allowed may be absent in a value.

    Attributes:
        marks: decimal mark and mark of thousands.
        unit: a currency as it is written, or "%"; empty without one.
        unit_first: whether the sample has it in front; it is read on both sides.
        spaced: whether the sample has a blank beside it; it is read with and without.
        negative: how negative numbers are written; a minus in front is always read.
    """

    marks: Marks
    unit: str = ""
    unit_first: bool = False
    spaced: bool = False
    negative: Negative = "-"

    @property
    def sample(self) -> str:
        """The format as the settings file has it."""
        number = _sample_digits(self.marks, plain=bool(self.unit) or self.negative != "-")
        blank = " " if self.spaced else ""
        if self.unit:
            number = f"{self.unit}{blank}{number}" if self.unit_first else f"{number}{blank}{self.unit}"
        return {"-": number, MINUS: f"{MINUS}{number}", "()": f"({number})", "6-": f"{number}-"}[self.negative]

    def read(self, text: str) -> float | None:
        """The number in a text; None where the text contradicts the format."""
        written = take_apart(text)
        if written is None or written.unit not in {"", self.unit}:
            return None
        if written.negative in {"()", "6-"} and written.negative != self.negative:
            return None
        number = self.marks.number(written.core)
        return -number if number is not None and written.negative else number


def take_apart(text: str) -> WrittenNumber | None:
    """The parts of a written number; None where the text is none, or says twice that it is negative."""
    text = text.strip()
    match = _WRITTEN.fullmatch(text) if len(text) <= LONGEST else None
    if match is None:
        return None
    opened, near, end, close = (match[name] is not None for name in ("open", "near", "end", "close"))
    if (near, opened) not in {(end, close), (close, end)} or (near and opened):
        return None
    if match["before"] and match["behind"]:
        return None
    signs = [match[name] for name in ("sign", "inner", "trailing", "last") if match[name]]
    if len(signs) + (near or opened) > 1:
        return None
    unit = (match["before"] or match["behind"] or "").replace("\uff05", "%")
    negative: Negative | Literal[""] = ""
    if near or opened:
        negative = "()"
    elif match["trailing"] or match["last"]:
        negative = "6-"
    elif signs and signs[0] != "+":
        negative = "-" if signs[0] == "-" else "\u2212"
    is_first = match["before"] is not None
    beside = text[match.end("before") :][:1] if is_first else text[: max(match.start("behind"), 0)][-1:]
    return WrittenNumber(match["core"], unit, is_first, beside.isspace(), negative)


@lru_cache(maxsize=1024)
def parse_number_format(sample: str) -> NumberFormat:
    """The format that a sample shows.

    Raises:
        SettingsError: the sample is no number, or can be read in two ways.
    """
    written = take_apart(sample)
    readings = {} if written is None else {marks: marks.number(written.core) for marks in POSSIBLE}
    possible = [marks for marks, number in readings.items() if number is not None]
    if written is None or not possible:
        raise SettingsError(
            f"The format {sample!r} is no number: write one number as the column writes them, such as '1.234,5', "
            "'1,234.5', '49%', '€ 1234.5' or '(1,234.5)'."
        )
    if len({readings[marks] for marks in possible}) > 1:
        ways = " or ".join(repr(_sample_digits(marks)) for marks in _told_apart(readings))
        raise SettingsError(f"The format {sample!r} can be read in two ways: write {ways}.")
    return NumberFormat(possible[0], written.unit, written.unit_first, written.spaced, written.negative or "-")


@lru_cache(maxsize=1024)
def number_reader(sample: str | None) -> Callable[..., tuple[float, str | None]]:
    """The reader of single values of a column: `values.read_number`, with texts read by the format where there is one.

    Raises:
        SettingsError: as `parse_number_format`.
    """
    if sample is None:
        return read_number
    read_text = parse_number_format(sample).read

    def read(value: Any, marks: Collection[str] = NO_MARKS) -> tuple[float, str | None]:
        value = decode_text(value)
        if not isinstance(value, str) or is_missing_word(value, marks) or _NO_NUMBER.fullmatch(value.strip()):
            return read_number(value, marks)
        number = read_text(value)
        if number is None:
            return NAN, "invalid_number"
        return (NAN, "infinite") if number in {float("inf"), float("-inf")} else (number, None)

    return read


def _same(mark: str) -> str:
    """All characters that stand for a mark of thousands."""
    return {" ": BLANKS, "'": APOSTROPHES}.get(mark, mark)


@lru_cache
def _core_of(marks: Marks) -> "re.Pattern[str]":
    whole = "[0-9]+"
    if marks.thousands:
        mark = f"[{_same(marks.thousands)}]"
        grouped = f"[1-9][0-9]?(?:{mark}[0-9]{{2}})*{mark}[0-9]{{3}}" if marks.lakh else ""
        grouped = grouped or f"[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{3}})+"
        whole = f"(?:{grouped}|[0-9]+)"
    decimal = re.escape(marks.decimal)
    return re.compile(f"(?:{whole}(?:{decimal}[0-9]*)?|{decimal}[0-9]+)(?:[eE][+-]?[0-9]{{1,3}})?")


def _sample_digits(marks: Marks, *, plain: bool = False) -> str:
    if marks.lakh:
        return "12,34,567.8"
    if marks.thousands:
        return f"1{marks.thousands}234{marks.decimal}5"
    return "49" if plain and marks.decimal == "." else f"1234{marks.decimal}5"


def _told_apart(readings: dict[Marks, float | None]) -> list[Marks]:
    """The first marks of each reading."""
    first: dict[float, Marks] = {}
    for marks, number in readings.items():
        if number is not None:
            first.setdefault(number, marks)
    return list(first.values())
