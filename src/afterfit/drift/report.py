"""What a comparison finds: one finding for each column and kind of change, relations, and the report of them all."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

Outcome: TypeAlias = Literal["alarm", "pass", "not applicable"]

SMALLEST: Mapping[str, float] = {
    "absent": 0.0,
    "kind": 0.002,
    "missing": 0.01,
    "new values": 0.001,
    "location": 0.05,
    "spread": math.log(1.08),
    "shape": 0.02,
    "share": 0.01,
    "combinations": 0.002,
    "relation": 0.05,
    "pair": 0.1,
}
"""The smallest effect of interest of each kind of change, in its unit."""

UNIT: Mapping[str, str] = {
    "absent": "share of rows",
    "kind": "share of rows",
    "missing": "share of rows",
    "new values": "share of rows",
    "location": "standard deviations of the reference",
    "spread": "logarithm of the ratio of standard deviations",
    "shape": "share of rows",
    "share": "share of rows",
    "combinations": "share of rows",
    "relation": "correlation",
    "pair": "correlation",
}


@dataclass(frozen=True, slots=True)
class DriftFinding:
    """One kind of change in one column.

    Attributes:
        column: the column.
        kind: absent, kind, missing, new values, location, spread, shape, share, relation or
            combinations.
        outcome: "alarm" where both the evidence and the effect are strong enough; "not applicable" where it cannot be
            tested.
        statistic: difference over its standard error; NaN where the test is not of that form.
        pvalue: of this kind of change in this column, over all its tests.
        familywise: p-value after all columns and kinds are accounted for; to be compared with the rate.
        effect: in `unit`; a smaller one than `smallest` makes no alarm.
        effective_rows: how many independent rows the window's rows count as here.
        given_others: whether the change is one against the prediction from the other columns, not of the column alone.
        words: the finding in words.
    """

    column: str
    kind: str
    outcome: Outcome
    statistic: float
    pvalue: float
    familywise: float
    effect: float
    unit: str
    smallest: float
    effective_rows: float
    given_others: bool
    words: str

    @property
    def alarm(self) -> bool:
        """Whether this finding alone makes an alarm."""
        return self.outcome == "alarm"

    @property
    def weight(self) -> float:
        """The effect as a multiple of the smallest effect of interest."""
        return abs(self.effect) / self.smallest if self.smallest else math.inf


@dataclass(frozen=True, slots=True)
class Relation:
    """Two columns and how strongly they are related, as a correlation: in the reference and in the window.

    `blamed` names the columns that explain the change: those common to the broken relations.
    """

    columns: tuple[str, str]
    outcome: Outcome
    reference: float
    window: float
    statistic: float
    pvalue: float
    familywise: float
    effect: float
    smallest: float
    effective_rows: float
    blamed: tuple[str, ...]
    words: str

    @property
    def alarm(self) -> bool:
        """Whether this relation alone makes an alarm."""
        return self.outcome == "alarm"


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """One column: its findings, the most important first, and how many rows were compared."""

    name: str
    kind: str
    rows: int
    findings: tuple[DriftFinding, ...]
    new_names: Mapping[str, int]

    @property
    def alarm(self) -> bool:
        """Whether any finding of the column is an alarm."""
        return any(finding.alarm for finding in self.findings)

    @property
    def words(self) -> str:
        """What changed in the column, most important first; empty without an alarm."""
        return "; ".join(finding.words for finding in self.findings if finding.alarm)


@dataclass(frozen=True, slots=True)
class DriftReport:
    """A window against a reference.

    Attributes:
        rate: the false-alarm rate of the whole window, over all columns, kinds and relations together.
        rows, reference_rows: rows of the window and of the reference.
        design: how dependence between rows was accounted for, in words.
        columns: one report for each column of the reference, those with an alarm first.
        relations: pairs of columns that were tested, the broken first.
        unknown: columns of the window that the reference does not have.
        notes: what could not be compared, and why.
    """

    rate: float
    rows: int
    reference_rows: int
    design: str
    columns: Mapping[str, ColumnReport]
    relations: tuple[Relation, ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def alarm(self) -> bool:
        """Whether anything at all is an alarm."""
        return any(c.alarm for c in self.columns.values()) or any(r.alarm for r in self.relations)

    def without(self, names: Collection[str]) -> "DriftReport":
        """The report without some columns and their relations."""
        return replace(
            self,
            columns={name: column for name, column in self.columns.items() if name not in names},
            relations=tuple(relation for relation in self.relations if not set(names) & set(relation.columns)),
        )

    @property
    def ranked(self) -> tuple[DriftFinding, ...]:
        """The findings that are alarms, the largest (in smallest effects of interest) first."""
        alarms = [finding for column in self.columns.values() for finding in column.findings if finding.alarm]
        return tuple(sorted(alarms, key=lambda f: (-f.weight, f.column, f.kind)))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON; what is not a finite number is null."""
        plain = {
            "alarm": self.alarm,
            "rate": self.rate,
            "rows": self.rows,
            "reference_rows": self.reference_rows,
            "design": self.design,
            "columns": {name: _column_to_dict(column) for name, column in self.columns.items()},
            "relations": [asdict(relation) for relation in self.relations],
            "unknown": list(self.unknown),
            "notes": list(self.notes),
        }
        result: dict[str, Any] = _finite_or_none(plain)
        return result


def _column_to_dict(column: ColumnReport) -> dict[str, Any]:
    return {
        "alarm": column.alarm,
        "kind": column.kind,
        "rows": column.rows,
        "words": column.words,
        "findings": [asdict(finding) for finding in column.findings],
        "new_names": dict(column.new_names),
    }


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_or_none(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
