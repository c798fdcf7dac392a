"""One comparison at work: columns by themselves, columns against the others, relations; each judged, and in words.

Two windows compared: every change with its evidence and its effect, under one false-alarm rate.

A finding is an alarm where both hold: the evidence, after everything that was tested is accounted for, is stronger than
the rate allows, and the effect is at least the smallest that is of interest. So a small window does not alarm by
itself, and a large one not by a change that nobody would care about.

The rate is family-wise, over all columns, kinds and relations of the window together: a person reads one alarm a
window, not one a test, and mutes it when it is wrong too often. The rate is shared out to
the kinds of change (`RATE_SHARES`), so that many columns of numbers do not make it harder to find a
change in the one column of names; within each kind the procedure of Holm (1979) or Bonferroni's bound holds it,
whatever the tests' dependence on each other.

A change that is small in a column by itself may be large against what the other columns say. Both are looked at; when
a column is found changed, the others are looked at again without it, so that they are not blamed in its place.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from afterfit.drift import design_effects as time_blocks
from afterfit.drift import pvalues as evidence
from afterfit.drift.binning import Bins
from afterfit.drift.column_tests import Change, changes_of, level_name, percent, shortened, unfit, untold, words_of
from afterfit.drift.correlations import one_thread
from afterfit.drift.profile_spec import ColumnSpec, ProfileSpec
from afterfit.drift.profiles import Profile
from afterfit.drift.relation_tests import Correlation, RelationTests, Shift
from afterfit.drift.report import SMALLEST, UNIT, ColumnReport, DriftFinding, DriftReport, Outcome, Relation
from afterfit.errors import DataError, SchemaError

Array = np.ndarray[Any, Any]
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
"""How the false-alarm rate of a window is shared out to the kinds of change: it adds up to 1."""
ALIKE = 0.9
"""A column whose statistic is this near to the clearest one explains what was seen as well."""
SUSPECTS = 12
"""How many columns are tried as the one that explains broken relations."""


def design_words(layout: ProfileSpec) -> str:
    """How dependence between rows is accounted for."""
    if layout.time is None:
        return "no time column: each row counts for one, and dependence between rows is not accounted for"
    if not layout.units:
        return f"'{layout.time}' spans too little time to measure how rows depend on each other; each counts for one"
    return f"rows that share time in '{layout.time}' ({', '.join(layout.units)}) count for what they are worth"


def holm(pvalues: Sequence[float], share: float = 1.0) -> list[float]:
    """Family-wise p-values by Holm's procedure, of tests that own a share of the rate."""
    adjusted, held = [1.0] * len(pvalues), 0.0
    for place, i in enumerate(np.argsort(pvalues, kind="stable").tolist()):
        held = max(held, pvalues[i] * (len(pvalues) - place) / share)
        adjusted[i] = min(held, 1.0)
    return adjusted


@dataclass(frozen=True, slots=True)
class _Test:
    """A kind of change in a column: what was found by itself, and by how many looks."""

    column: int
    kind: str
    change: Change
    looks: int
    pvalue: float
    familywise: float = 1.0
    alarm: bool = False
    given_others: bool = False


class WindowComparison:
    """A window against a reference; both have rows."""

    def __init__(self, window: Profile, reference: Profile, rate: float) -> None:
        self._window, self._reference, self._rate = window, reference, rate
        self._layout = reference.layout
        rows = window.rows, reference.rows
        self._spread = time_blocks.spread(
            dict(window.blocks), dict(reference.blocks), rows, self._layout.units, self._layout.blocks
        )
        self._against = RelationTests(window, reference, self._spread)
        self._unfit = unfit(window, reference)

    def report(self) -> DriftReport:
        """Make the comparison."""
        tests = self._columns_against(self._judged(self._columns_alone()))
        blamed = {test.column for test in tests if test.alarm} | set(self._unfit)
        bonds, culprits = self._column_bonds(blamed)
        pairs = self._pairs(blamed, culprits)
        broken = [pair for pair in pairs if pair.alarm]
        combined = self._combinations(blamed, culprits)
        by_column: dict[int, list[_Test]] = {}
        for test in tests:
            by_column.setdefault(test.column, []).append(test)
        columns = [
            self._column_report(i, by_column.get(i, []), [*bonds.get(i, ()), *accused, *combined.get(i, ())])
            for i, accused in enumerate(self._accused(i, broken) for i in range(len(self._layout.columns)))
        ]
        return DriftReport(
            rate=self._rate,
            rows=self._window.rows,
            reference_rows=self._reference.rows,
            design=design_words(self._layout),
            columns={column.name: column for column in sorted(columns, key=lambda column: not column.alarm)},
            relations=tuple(sorted(pairs, key=lambda pair: (not pair.alarm, -abs(pair.effect)))),
            unknown=self._window.unknown,
            notes=self._notes(),
        )

    # Columns by themselves.

    def _columns_alone(self) -> list[_Test]:
        against: dict[tuple[int, str], int] = {}
        for shift in self._against.shifts(()) if self._against.able else ():
            key = (self._layout.scores[shift.score].column, shift.kind)
            against[key] = against.get(key, 0) + 1
        found = []
        for i, column in enumerate(self._layout.columns):
            if i in self._unfit:
                continue
            counts = self._window.counts[i], self._reference.counts[i]
            changes = changes_of(column.bins, *counts, self._spread, self._layout.dependence.looks[i])
            for kind in dict.fromkeys(change.kind for change in changes):
                same = [change for change in changes if change.kind == kind]
                looks = len(same) + against.get((i, kind), 0)
                best = min(same, key=lambda c: (not (_is_large(c) and c.pvalue * looks <= self._rate), c.pvalue))
                found.append(_Test(i, kind, best, looks, min(best.pvalue * looks, 1.0)))
        return found

    def _judged(self, tests: list[_Test]) -> list[_Test]:
        familywise: dict[int, float] = {}
        for kind in {test.kind for test in tests}:
            same = [i for i, test in enumerate(tests) if test.kind == kind]
            familywise |= dict(zip(same, holm([tests[i].pvalue for i in same], RATE_SHARES[kind]), strict=True))
        return [
            replace(test, familywise=familywise[i], alarm=familywise[i] <= self._rate and _is_large(test.change))
            for i, test in enumerate(tests)
        ]

    # Columns against what the others say.

    def _columns_against(self, tests: list[_Test]) -> list[_Test]:
        """Find columns that moved away from the others, the clearest first, each without those found before.

        The clearest explains the most (generalised least squares). Others that are nearly as clear cannot be told from
        it, and are named too.
        """
        if not self._against.able:
            return tests
        places = {(test.column, test.kind): i for i, test in enumerate(tests)}
        blamed = {test.column for test in tests if test.alarm} | set(self._unfit)
        while found := self._clear_shifts(tests, places, blamed):
            clearest = max(abs(shift.statistic) for shift, _ in found)
            for shift, place in sorted(found, key=lambda candidate: -abs(candidate[0].statistic)):
                test = tests[place]
                if test.column in blamed or abs(shift.statistic) < ALIKE * clearest:
                    continue
                pvalue = min(shift.pvalue * test.looks, 1.0)
                familywise = pvalue * _of_kind(tests, test.kind) / RATE_SHARES[test.kind]
                tests[place] = _Test(
                    test.column, test.kind, _moved(shift), test.looks, pvalue, familywise, alarm=True, given_others=True
                )
                blamed.add(test.column)
        return tests

    def _clear_shifts(
        self, tests: list[_Test], places: dict[tuple[int, str], int], blamed: set[int]
    ) -> list[tuple[Shift, int]]:
        """Shifts that are alarms, and the places of their tests."""
        limits = {kind: self._rate * share / max(_of_kind(tests, kind), 1) for kind, share in RATE_SHARES.items()}
        return [
            (shift, place)
            for shift in self._against.shifts(blamed)
            if abs(shift.effect) >= SMALLEST[shift.kind]
            and (place := places.get((self._layout.scores[shift.score].column, shift.kind))) is not None
            and shift.pvalue * tests[place].looks <= limits[shift.kind]
        ]

    # Relations.

    def _column_bonds(self, blamed: set[int]) -> tuple[dict[int, list[DriftFinding]], set[int]]:
        """Each column's relation with all the others, and the columns that explain why relations broke."""
        if not self._against.able:
            return {}, set()
        first = self._against.column_bonds(blamed)
        bonds, culprits = first, set[int]()
        while broken := self._broken(bonds, blamed | culprits):
            culprits |= self._explaining(broken, blamed | culprits)
            bonds = self._against.column_bonds(blamed | culprits)
        shown = {**bonds, **{column: first[column] for column in culprits}}
        return {c: [self._bond_finding(c, b, len(shown), c in culprits)] for c, b in shown.items()}, culprits

    def _broken(self, bonds: dict[int, Correlation], excused: set[int]) -> dict[int, Correlation]:
        limit = self._rate * RATE_SHARES["relation"] / max(len(bonds), 1)
        return {
            column: bond
            for column, bond in bonds.items()
            if column not in excused and bond.pvalue <= limit and abs(bond.effect) >= SMALLEST["relation"]
        }

    def _explaining(self, broken: dict[int, Correlation], excused: set[int]) -> set[int]:
        """The column without which the least is broken; where two explain it as well as each other, both."""
        suspects = sorted(broken, key=lambda column: -abs(broken[column].effect))[:SUSPECTS]
        left = {}
        for suspect in suspects:
            rest = self._broken(self._against.column_bonds(excused | {suspect}), excused | {suspect})
            left[suspect] = sum(abs(bond.effect) for bond in rest.values())
        best = min(suspects, key=lambda column: (left[column], -abs(broken[column].effect)))
        lost = {column: abs(broken[column].effect) / broken[column].before for column in suspects}
        return {c for c in suspects if left[c] <= left[best] and lost[c] >= 0.8 * lost[best]} | {best}

    def _bond_finding(self, column: int, bond: Correlation, tested: int, culprit: bool) -> DriftFinding:  # noqa: FBT001 - positional in one place
        name = self._layout.columns[column].name
        verb = "no longer follows the other columns" if bond.effect < 0 else "follows the other columns more closely"
        words = f"{name}: {verb if culprit else 'relation with the other columns'}: {_strengths(bond)}"
        return DriftFinding(
            column=name,
            kind="relation",
            outcome="alarm" if culprit else "pass",
            statistic=bond.statistic,
            pvalue=bond.pvalue,
            familywise=min(bond.pvalue * tested / RATE_SHARES["relation"], 1.0),
            effect=bond.effect,
            unit=UNIT["relation"],
            smallest=SMALLEST["relation"],
            effective_rows=bond.effective_rows,
            given_others=True,
            words=words,
        )

    def _pairs(self, blamed: set[int], culprits: set[int]) -> list[Relation]:
        if not self._against.able:
            return []
        bonds = {p: b for p, b in self._against.pair_bonds().items() if not set(p) & set(self._unfit)}
        familywise = dict(zip(bonds, holm([b.pvalue for b in bonds.values()], RATE_SHARES["pair"]), strict=True))
        changes = {pair: abs(bond.effect) for pair, bond in bonds.items()}
        broken = {p: c for p, c in changes.items() if familywise[p] <= self._rate and c >= SMALLEST["pair"]}
        found = []
        for pair, bond in bonds.items():
            why = _common(pair, broken, culprits, blamed) if pair in broken else ()
            found.append(self._relation(pair, bond, familywise[pair], why))
        return found

    def _relation(self, pair: tuple[int, int], bond: Correlation, familywise: float, why: Sequence[int]) -> Relation:
        one, other = (self._layout.columns[column].name for column in pair)
        outcome: Outcome = "alarm" if why else "pass"
        return Relation(
            columns=(one, other),
            outcome=outcome,
            reference=bond.before,
            window=bond.now,
            statistic=bond.statistic,
            pvalue=bond.pvalue,
            familywise=familywise,
            effect=bond.effect,
            smallest=SMALLEST["pair"],
            effective_rows=bond.effective_rows,
            blamed=tuple(self._layout.columns[column].name for column in why),
            words=f"{one} and {other}: {_strengths(bond)}",
        )

    def _accused(self, column: int, pairs: Sequence[Relation]) -> list[DriftFinding]:
        """The relation finding of a column that broken pairs have in common."""
        name = self._layout.columns[column].name
        broken = [pair for pair in pairs if name in pair.blamed]
        if not broken:
            return []
        worst = max(broken, key=lambda pair: abs(pair.effect))
        other = worst.columns[1] if worst.columns[0] == name else worst.columns[0]
        words = f"{name}: relation with {other} {worst.reference:.2f} → {worst.window:.2f} (as a correlation)"
        return [
            DriftFinding(
                column=name,
                kind="relation",
                outcome="alarm",
                statistic=worst.statistic,
                pvalue=worst.pvalue,
                familywise=worst.familywise,
                effect=worst.effect,
                unit=UNIT["pair"],
                smallest=worst.smallest,
                effective_rows=worst.effective_rows,
                given_others=True,
                words=words,
            )
        ]

    def _combinations(self, blamed: set[int], culprits: set[int]) -> dict[int, list[DriftFinding]]:
        """Combinations of categories that the reference never had, for the column that explains them."""
        tested = [(c, i) for i, c in enumerate(self._layout.combinations) if not {c.one, c.other} & set(self._unfit)]
        if not tested:
            return {}
        watched = [self._layout.combinations[i] for _, i in tested]
        count = np.array([self._window.combined[i] for _, i in tested], dtype=float)
        once = np.array([1.0 + combination.once * self._reference.rows for combination in watched])
        other = np.array([self._reference.combined[i] for _, i in tested]) + once
        each = np.ones(len(count))
        rows, others = each * self._window.rows, each * self._reference.rows
        pvalues = evidence.of_shares(count, rows, np.minimum(other, others), others, design=each, freedom=each * 1e9)
        familywise = holm(pvalues.tolist(), RATE_SHARES["combinations"])
        excess = count / rows - (other - once) / others
        broken = {
            (combination.one, combination.other): float(excess[i])
            for i, combination in enumerate(watched)
            if familywise[i] <= self._rate and excess[i] >= SMALLEST["combinations"]
        }
        found: dict[int, list[DriftFinding]] = {}
        for i, combination in enumerate(watched):
            pair = combination.one, combination.other
            for column in _common(pair, broken, culprits, blamed) if pair in broken else ():
                numbers = float(pvalues[i]), familywise[i], float(excess[i])
                found.setdefault(column, []).append(self._combination_finding(column, pair, numbers, self._window.rows))
        return {column: [max(findings, key=lambda f: f.effect)] for column, findings in found.items()}

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
            words=f"{name}: combinations with {partner} that the reference never had in {percent(excess)} of rows",
        )

    # The report.

    def _column_report(self, position: int, tests: Sequence[_Test], more: Sequence[DriftFinding]) -> ColumnReport:
        column, counts = self._layout.columns[position], self._window.counts[position]
        if position in self._unfit:
            found = [self._unfit[position]]
        else:
            found = [_finding(column, test, counts.new) for test in tests] + list(more)
        found.sort(key=lambda finding: (not finding.alarm, -finding.weight if finding.alarm else 0.0))
        names = counts.new if any(f.alarm and f.kind == "new values" for f in found) else {}
        return ColumnReport(column.name, column.kind, counts.present, tuple(found), names)

    def _notes(self) -> tuple[str, ...]:
        notes = [finding.words for finding in self._unfit.values()]
        if self._window.unknown:
            notes.append(f"Columns that the reference does not have: {', '.join(self._window.unknown)}.")
        if not self._against.able:
            notes.append(
                "Relations between columns were not compared: the reference is worth too few rows, or has one column."
            )
        return tuple(notes)


def _of_kind(tests: Sequence[_Test], kind: str) -> int:
    return sum(test.kind == kind for test in tests)


def _is_large(change: Change) -> bool:
    return abs(change.effect) >= SMALLEST[change.kind]


def _strengths(bond: Correlation) -> str:
    return f"{bond.before:.2f} → {bond.now:.2f} (as a correlation)"


def _moved(shift: Shift) -> Change:
    """A shift against the other columns as a change; its shares are only known as their difference."""
    numbers = shift.statistic, shift.pvalue, shift.effect, shift.effective_rows
    return Change(shift.kind, shift.level, *numbers, math.nan, math.nan)


def _moved_words(change: Change, bins: Bins) -> str:
    if change.kind in {"location", "spread"}:
        return f"{words_of(change, bins)}, given the other columns"
    what = "missing values" if change.kind == "missing" else level_name(bins, change.at)
    way = "up" if change.effect > 0 else "down"
    return f"{what} {way} by {percent(abs(change.effect))} of rows, given the other columns"


def _finding(column: ColumnSpec, test: _Test, new: Mapping[str, int]) -> DriftFinding:
    words = (_moved_words if test.given_others else words_of)(test.change, column.bins)
    if test.kind == "new values" and test.alarm and new:
        most = sorted(new, key=lambda name: (-new[name], name))[:3]
        words += f" ({', '.join(shortened(name) for name in most)}{' and others' if len(new) > 3 else ''})"
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


def _common(
    pair: tuple[int, int], broken: Mapping[tuple[int, int], float], culprits: set[int], blamed: set[int]
) -> tuple[int, ...]:
    """Which column of a broken pair explains it: one already found, else the one with more broken pairs, else both."""
    for known in (culprits, blamed):
        if set(pair) & known:
            return tuple(sorted(set(pair) & known))
    weight = {column: sum(effect for p, effect in broken.items() if column in p) for column in pair}
    one, other = pair
    if abs(weight[one] - weight[other]) < 0.1 * max(weight.values()):
        return pair
    return (one,) if weight[one] > weight[other] else (other,)


def compare_drift(reference: Profile, frame: Any, *, rate: float = 0.01) -> DriftReport:
    """Compare a window with a reference.

    Args:
        reference: the profile of the reference.
        frame: the window: a pandas frame, an Arrow table or record batch, an iterable of them, or a profile that
            `reference.measure` gave.
        rate: the largest share of windows without any drift that may raise an alarm, over everything that is tested.

    Returns:
        A report; `report.alarm`, `report.columns["temp"].alarm` and `report.relations` say what changed.

    Raises:
        SchemaError: the window has none of the reference's columns; the message compares them one by one.
        DataError: the frame is no table, or a profile over other bins.

    Assumptions: rows are independent of each other where the reference was profiled without a time column, and
    dependent as far as its blocks of time showed where it has one. The p-values are asymptotic but for rare shares,
    with a correction for skewness.
    """
    if not 0.0 < rate < 1.0:
        raise DataError(f"The false-alarm rate must lie between 0 and 1, and came as {rate}.")
    window = _measured(reference, frame)
    if window.rows == 0 or reference.rows == 0:
        return _nothing(window, reference, rate)
    with one_thread():
        return WindowComparison(window, reference, rate).report()


def _measured(reference: Profile, frame: Any) -> Profile:
    if isinstance(frame, Profile):
        reference.check_same_bins(frame)
        window = frame
    else:
        window = reference.measure(frame)
    if window.rows and all(counts.absent == window.rows for counts in window.counts):
        names = [column.name for column in reference.layout.columns]
        raise SchemaError(
            "The window has none of the reference's columns, so there is nothing to compare.\n"
            + "\n".join(f"  {name}: in the reference, not in the window" for name in names[:50])
            + "".join(f"\n  {name}: in the window, not in the reference" for name in window.unknown)
        )
    return window


def _nothing(window: Profile, reference: Profile, rate: float) -> DriftReport:
    columns = {
        column.name: ColumnReport(column.name, column.kind, 0, (untold(column.name, "missing"),), {})
        for column in reference.layout.columns
    }
    which = "window" if window.rows == 0 else "reference"
    note = f"The {which} has no rows: nothing can be compared."
    design = design_words(reference.layout)
    return DriftReport(rate, window.rows, reference.rows, design, columns, (), window.unknown, (note,))
