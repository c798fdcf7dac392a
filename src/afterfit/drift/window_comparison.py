"""Two profiles compared: every test of columns, pairs and combinations, and the report that they come to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from afterfit.drift.binning import Bins
from afterfit.drift.column_tests import (
    Change,
    changes_of,
    describe_change,
    format_percent,
    incomparable_columns,
    level_name,
    quoted_name,
)
from afterfit.drift.design_effects import time_dependence
from afterfit.drift.profile_spec import ColumnSpec, describe_design
from afterfit.drift.profiles import Profile
from afterfit.drift.pvalues import holm, share_pvalues
from afterfit.drift.relation_tests import Correlation, RelationTests, Shift
from afterfit.drift.report import SMALLEST, UNIT, ColumnReport, DriftFinding, DriftReport, Outcome, Relation

RATE_SHARES: Mapping[str, float] = {
    "missing": 0.2,
    "location": 0.16,
    "share": 0.2,
    "spread": 0.08,
    "new values": 0.16,
    "shape": 0.06,
    "relation": 0.04,
    "pair": 0.04,
    "combinations": 0.06,
}
"""How the false-alarm rate of a window is shared out to the kinds of change; the shares add up to 1."""
NEARLY_CLEAREST = 0.9
"""A column whose statistic is at least this part of the largest one may be the changed column as well."""
MOST_CANDIDATES = 12
"""Most columns that are tried as the cause of broken relations."""


@dataclass(frozen=True, slots=True)
class _ColumnTest:
    """One kind of change in a column: the clearest change, out of `test_count` tests."""

    column: int
    kind: str
    change: Change
    test_count: int
    pvalue: float
    familywise: float = 1.0
    alarm: bool = False
    given_others: bool = False


class WindowComparison:
    """One comparison of a window with a reference; both have rows."""

    def __init__(self, window: Profile, reference: Profile, rate: float) -> None:
        self._window, self._reference, self._rate = window, reference, rate
        self._layout = reference.layout
        rows = window.rows, reference.rows
        self._dependence = time_dependence(
            dict(window.blocks), dict(reference.blocks), rows, self._layout.units, self._layout.blocks
        )
        self._relation_tests = RelationTests(window, reference, self._dependence)
        self._incomparable = incomparable_columns(window, reference)

    def report(self) -> DriftReport:
        """Compare, and report."""
        tests = self._test_against_others(self._judge(self._test_columns()))
        blamed = {test.column for test in tests if test.alarm} | set(self._incomparable)
        correlations, causes = self._test_column_correlations(blamed)
        pairs = self._test_pairs(blamed, causes)
        broken = [pair for pair in pairs if pair.alarm]
        combinations = self._test_combinations(blamed, causes)
        by_column: dict[int, list[_ColumnTest]] = {}
        for test in tests:
            by_column.setdefault(test.column, []).append(test)
        columns = [
            self._column_report(
                i, by_column.get(i, []), [*correlations.get(i, ()), *pair_findings, *combinations.get(i, ())]
            )
            for i, pair_findings in enumerate(self._pair_findings(i, broken) for i in range(len(self._layout.columns)))
        ]
        return DriftReport(
            rate=self._rate,
            rows=self._window.rows,
            reference_rows=self._reference.rows,
            design=describe_design(self._layout),
            columns={column.name: column for column in sorted(columns, key=lambda column: not column.alarm)},
            relations=tuple(sorted(pairs, key=lambda pair: (not pair.alarm, -abs(pair.effect)))),
            unknown=self._window.unknown,
            notes=self._notes(),
        )

    # Columns by themselves.

    def _test_columns(self) -> list[_ColumnTest]:
        shifts_of_test: dict[tuple[int, str], int] = {}
        for shift in self._relation_tests.shifts(()) if self._relation_tests.can_test else ():
            key = (self._layout.scores[shift.score].column, shift.kind)
            shifts_of_test[key] = shifts_of_test.get(key, 0) + 1
        tests = []
        for i, column in enumerate(self._layout.columns):
            if i in self._incomparable:
                continue
            counts = self._window.counts[i], self._reference.counts[i]
            changes = changes_of(column.bins, *counts, self._dependence, self._layout.dependence.looks[i])
            for kind in dict.fromkeys(change.kind for change in changes):
                changes_of_kind = [change for change in changes if change.kind == kind]
                test_count = len(changes_of_kind) + shifts_of_test.get((i, kind), 0)
                best = min(
                    changes_of_kind,
                    key=lambda c: (not (_is_large(c) and c.pvalue * test_count <= self._rate), c.pvalue),
                )
                tests.append(_ColumnTest(i, kind, best, test_count, min(best.pvalue * test_count, 1.0)))
        return tests

    def _judge(self, tests: list[_ColumnTest]) -> list[_ColumnTest]:
        familywise: dict[int, float] = {}
        for kind in {test.kind for test in tests}:
            tests_of_kind = [i for i, test in enumerate(tests) if test.kind == kind]
            familywise |= dict(
                zip(tests_of_kind, holm([tests[i].pvalue for i in tests_of_kind], RATE_SHARES[kind]), strict=True)
            )
        return [
            replace(test, familywise=familywise[i], alarm=familywise[i] <= self._rate and _is_large(test.change))
            for i, test in enumerate(tests)
        ]

    # Columns against their prediction from the others.

    def _test_against_others(self, tests: list[_ColumnTest]) -> list[_ColumnTest]:
        """Find columns that moved away from their prediction: the clearest first, then again without those found.

        The clearest one explains the most (generalised least squares). Columns that are nearly as clear may be the
        cause as well, and are named too.
        """
        if not self._relation_tests.can_test:
            return tests
        position_of_test = {(test.column, test.kind): i for i, test in enumerate(tests)}
        blamed = {test.column for test in tests if test.alarm} | set(self._incomparable)
        while shifts := self._clear_shifts(tests, position_of_test, blamed):
            clearest = max(abs(shift.statistic) for shift, _ in shifts)
            for shift, position in sorted(shifts, key=lambda candidate: -abs(candidate[0].statistic)):
                test = tests[position]
                if test.column in blamed or abs(shift.statistic) < NEARLY_CLEAREST * clearest:
                    continue
                pvalue = min(shift.pvalue * test.test_count, 1.0)
                familywise = pvalue * _count_of_kind(tests, test.kind) / RATE_SHARES[test.kind]
                tests[position] = _ColumnTest(
                    test.column,
                    test.kind,
                    _change_of_shift(shift),
                    test.test_count,
                    pvalue,
                    familywise,
                    alarm=True,
                    given_others=True,
                )
                blamed.add(test.column)
        return tests

    def _clear_shifts(
        self, tests: list[_ColumnTest], position_of_test: dict[tuple[int, str], int], blamed: set[int]
    ) -> list[tuple[Shift, int]]:
        """Shifts that are alarms, and the positions of their tests."""
        limits = {kind: self._rate * share / max(_count_of_kind(tests, kind), 1) for kind, share in RATE_SHARES.items()}
        return [
            (shift, position)
            for shift in self._relation_tests.shifts(blamed)
            if abs(shift.effect) >= SMALLEST[shift.kind]
            and (position := position_of_test.get((self._layout.scores[shift.score].column, shift.kind))) is not None
            and shift.pvalue * tests[position].test_count <= limits[shift.kind]
        ]

    # Relations.

    def _test_column_correlations(self, blamed: set[int]) -> tuple[dict[int, list[DriftFinding]], set[int]]:
        """Findings of each column's relation with all the others, and the columns that caused the broken relations."""
        if not self._relation_tests.can_test:
            return {}, set()
        all_correlations = self._relation_tests.column_correlations(blamed)
        correlations, causes = all_correlations, set[int]()
        while broken := self._broken_correlations(correlations, blamed | causes):
            causes |= self._causes_of(broken, blamed | causes)
            correlations = self._relation_tests.column_correlations(blamed | causes)
        reported = {**correlations, **{column: all_correlations[column] for column in causes}}
        findings = {
            column: [self._correlation_finding(column, correlation, len(reported), column in causes)]
            for column, correlation in reported.items()
        }
        return findings, causes

    def _broken_correlations(self, correlations: dict[int, Correlation], excluded: set[int]) -> dict[int, Correlation]:
        limit = self._rate * RATE_SHARES["relation"] / max(len(correlations), 1)
        return {
            column: correlation
            for column, correlation in correlations.items()
            if column not in excluded
            and correlation.pvalue <= limit
            and abs(correlation.effect) >= SMALLEST["relation"]
        }

    def _causes_of(self, broken: dict[int, Correlation], excluded: set[int]) -> set[int]:
        """The column without which the least remains broken; where two explain it equally well, both."""
        candidates = sorted(broken, key=lambda column: -abs(broken[column].effect))[:MOST_CANDIDATES]
        remaining = {}
        for candidate in candidates:
            still_broken = self._broken_correlations(
                self._relation_tests.column_correlations(excluded | {candidate}), excluded | {candidate}
            )
            remaining[candidate] = sum(abs(correlation.effect) for correlation in still_broken.values())
        best = min(candidates, key=lambda column: (remaining[column], -abs(broken[column].effect)))
        relative_loss = {column: abs(broken[column].effect) / broken[column].before for column in candidates}
        return {
            c for c in candidates if remaining[c] <= remaining[best] and relative_loss[c] >= 0.8 * relative_loss[best]
        } | {best}

    def _correlation_finding(
        self,
        column: int,
        correlation: Correlation,
        test_count: int,
        is_cause: bool,  # noqa: FBT001 - positional in one place
    ) -> DriftFinding:
        name = self._layout.columns[column].name
        verb = (
            "no longer follows the other columns"
            if correlation.effect < 0
            else "follows the other columns more closely"
        )
        words = f"{name}: {verb if is_cause else 'relation with the other columns'}: {_format_strengths(correlation)}"
        return DriftFinding(
            column=name,
            kind="relation",
            outcome="alarm" if is_cause else "pass",
            statistic=correlation.statistic,
            pvalue=correlation.pvalue,
            familywise=min(correlation.pvalue * test_count / RATE_SHARES["relation"], 1.0),
            effect=correlation.effect,
            unit=UNIT["relation"],
            smallest=SMALLEST["relation"],
            effective_rows=correlation.effective_rows,
            given_others=True,
            words=words,
        )

    def _test_pairs(self, blamed: set[int], causes: set[int]) -> list[Relation]:
        if not self._relation_tests.can_test:
            return []
        correlations = {
            p: b for p, b in self._relation_tests.pair_correlations().items() if not set(p) & set(self._incomparable)
        }
        familywise = dict(
            zip(correlations, holm([b.pvalue for b in correlations.values()], RATE_SHARES["pair"]), strict=True)
        )
        changes = {pair: abs(correlation.effect) for pair, correlation in correlations.items()}
        broken = {
            p: change for p, change in changes.items() if familywise[p] <= self._rate and change >= SMALLEST["pair"]
        }
        relations = []
        for pair, correlation in correlations.items():
            blamed_columns = _causes_of_pair(pair, broken, causes, blamed) if pair in broken else ()
            relations.append(self._relation(pair, correlation, familywise[pair], blamed_columns))
        return relations

    def _relation(
        self, pair: tuple[int, int], correlation: Correlation, familywise: float, blamed_columns: Sequence[int]
    ) -> Relation:
        left_name, right_name = (self._layout.columns[column].name for column in pair)
        outcome: Outcome = "alarm" if blamed_columns else "pass"
        return Relation(
            columns=(left_name, right_name),
            outcome=outcome,
            reference=correlation.before,
            window=correlation.now,
            statistic=correlation.statistic,
            pvalue=correlation.pvalue,
            familywise=familywise,
            effect=correlation.effect,
            smallest=SMALLEST["pair"],
            effective_rows=correlation.effective_rows,
            blamed=tuple(self._layout.columns[column].name for column in blamed_columns),
            words=f"{left_name} and {right_name}: {_format_strengths(correlation)}",
        )

    def _pair_findings(self, column: int, pairs: Sequence[Relation]) -> list[DriftFinding]:
        """The finding of a column that is blamed for broken pairs: its strongest one."""
        name = self._layout.columns[column].name
        broken = [pair for pair in pairs if name in pair.blamed]
        if not broken:
            return []
        strongest = max(broken, key=lambda pair: abs(pair.effect))
        partner = strongest.columns[1] if strongest.columns[0] == name else strongest.columns[0]
        words = f"{name}: relation with {partner} {strongest.reference:.2f} → {strongest.window:.2f} (as a correlation)"
        return [
            DriftFinding(
                column=name,
                kind="relation",
                outcome="alarm",
                statistic=strongest.statistic,
                pvalue=strongest.pvalue,
                familywise=strongest.familywise,
                effect=strongest.effect,
                unit=UNIT["pair"],
                smallest=strongest.smallest,
                effective_rows=strongest.effective_rows,
                given_others=True,
                words=words,
            )
        ]

    def _test_combinations(self, blamed: set[int], causes: set[int]) -> dict[int, list[DriftFinding]]:
        """Findings of combinations of categories that the reference never had, for the column that explains them."""
        comparable = [
            (c, i) for i, c in enumerate(self._layout.combinations) if not {c.one, c.other} & set(self._incomparable)
        ]
        if not comparable:
            return {}
        watched = [self._layout.combinations[i] for _, i in comparable]
        window_counts = np.array([self._window.combined[i] for _, i in comparable], dtype=float)
        expected_new = np.array([1.0 + combination.once * self._reference.rows for combination in watched])
        reference_counts = np.array([self._reference.combined[i] for _, i in comparable]) + expected_new
        ones = np.ones(len(window_counts))
        window_rows, reference_rows = ones * self._window.rows, ones * self._reference.rows
        pvalues = share_pvalues(
            window_counts,
            window_rows,
            np.minimum(reference_counts, reference_rows),
            reference_rows,
            design=ones,
            freedom=ones * 1e9,
        )
        familywise = holm(pvalues.tolist(), RATE_SHARES["combinations"])
        excess = window_counts / window_rows - (reference_counts - expected_new) / reference_rows
        broken = {
            (combination.one, combination.other): float(excess[i])
            for i, combination in enumerate(watched)
            if familywise[i] <= self._rate and excess[i] >= SMALLEST["combinations"]
        }
        findings_of_column: dict[int, list[DriftFinding]] = {}
        for i, combination in enumerate(watched):
            pair = combination.one, combination.other
            for column in _causes_of_pair(pair, broken, causes, blamed) if pair in broken else ():
                numbers = float(pvalues[i]), familywise[i], float(excess[i])
                findings_of_column.setdefault(column, []).append(
                    self._combination_finding(column, pair, numbers, self._window.rows)
                )
        return {column: [max(findings, key=lambda f: f.effect)] for column, findings in findings_of_column.items()}

    def _combination_finding(
        self, column: int, pair: tuple[int, int], numbers: tuple[float, float, float], rows: int
    ) -> DriftFinding:
        name, partner = (self._layout.columns[i].name for i in (column, pair[pair[0] == column]))
        pvalue, familywise, excess = numbers
        return DriftFinding(
            column=name,
            kind="combinations",
            outcome="alarm",
            statistic=math.nan,
            pvalue=pvalue,
            familywise=familywise,
            effect=excess,
            unit=UNIT["combinations"],
            smallest=SMALLEST["combinations"],
            effective_rows=float(rows),
            given_others=True,
            words=f"{name}: {format_percent(excess)} of rows have combinations with {partner} new to the reference",
        )

    # The report.

    def _column_report(
        self, position: int, tests: Sequence[_ColumnTest], others: Sequence[DriftFinding]
    ) -> ColumnReport:
        column, counts = self._layout.columns[position], self._window.counts[position]
        if position in self._incomparable:
            findings = [self._incomparable[position]]
        else:
            findings = [_column_finding(column, test, counts.new) for test in tests] + list(others)
        findings.sort(key=lambda finding: (not finding.alarm, -finding.weight if finding.alarm else 0.0))
        names = counts.new if any(f.alarm and f.kind == "new values" for f in findings) else {}
        return ColumnReport(column.name, column.kind, counts.present, tuple(findings), names)

    def _notes(self) -> tuple[str, ...]:
        notes = [finding.words for finding in self._incomparable.values()]
        if self._window.unknown:
            notes.append(f"Columns that the reference does not have: {', '.join(self._window.unknown)}.")
        if not self._relation_tests.can_test:
            notes.append(
                "Relations between columns were not compared: the reference has one column or too few independent rows."
            )
        return tuple(notes)


def _causes_of_pair(
    pair: tuple[int, int], broken: Mapping[tuple[int, int], float], causes: set[int], blamed: set[int]
) -> tuple[int, ...]:
    """The column that explains a broken pair: one already found, else the one with more broken pairs, else both."""
    for found_before in (causes, blamed):
        if set(pair) & found_before:
            return tuple(sorted(set(pair) & found_before))
    lost_strength = {
        column: sum(effect for broken_pair, effect in broken.items() if column in broken_pair) for column in pair
    }
    left, right = pair
    if abs(lost_strength[left] - lost_strength[right]) < 0.1 * max(lost_strength.values()):
        return pair
    return (left,) if lost_strength[left] > lost_strength[right] else (right,)


def _count_of_kind(tests: Sequence[_ColumnTest], kind: str) -> int:
    return sum(test.kind == kind for test in tests)


def _is_large(change: Change) -> bool:
    return abs(change.effect) >= SMALLEST[change.kind]


def _change_of_shift(shift: Shift) -> Change:
    """A shift against the other columns as a change; of its shares only the difference is known."""
    numbers = shift.statistic, shift.pvalue, shift.effect, shift.effective_rows
    return Change(shift.kind, shift.level, *numbers, math.nan, math.nan)


def _column_finding(column: ColumnSpec, test: _ColumnTest, new_names: Mapping[str, int]) -> DriftFinding:
    words = (_describe_shift if test.given_others else describe_change)(test.change, column.bins)
    if test.kind == "new values" and test.alarm and new_names:
        most_frequent = sorted(new_names, key=lambda name: (-new_names[name], name))[:3]
        words += (
            f" ({', '.join(quoted_name(name) for name in most_frequent)}{' and others' if len(new_names) > 3 else ''})"
        )
    return DriftFinding(
        column=column.name,
        kind=test.kind,
        outcome="alarm" if test.alarm else "pass",
        statistic=test.change.statistic,
        pvalue=test.pvalue,
        familywise=test.familywise,
        effect=test.change.effect,
        unit=UNIT[test.kind],
        smallest=SMALLEST[test.kind],
        effective_rows=test.change.effective_rows,
        given_others=test.given_others,
        words=f"{column.name}: {words}",
    )


def _describe_shift(change: Change, bins: Bins) -> str:
    if change.kind in {"location", "spread"}:
        return f"{describe_change(change, bins)}, given the other columns"
    subject = "missing values" if change.kind == "missing" else level_name(bins, change.index)
    direction = "up" if change.effect > 0 else "down"
    return f"{subject} {direction} by {format_percent(abs(change.effect))} of rows, given the other columns"


def _format_strengths(correlation: Correlation) -> str:
    return f"{correlation.before:.2f} → {correlation.now:.2f} (as a correlation)"
