"""Columns of which nothing can be measured: vanished, of another type, or not to be told; each as a finding."""

import math

from afterfit.drift.column_tests import percent
from afterfit.drift.profiles import Counts, Profile
from afterfit.drift.report import SMALLEST, UNIT, Finding


def untold(column: str, kind: str) -> Finding:
    """The finding of what could not be tested."""
    nan, words = math.nan, f"{column}: {kind} cannot be told"
    return Finding(
        column,
        kind,
        "not applicable",
        nan,
        nan,
        nan,
        nan,
        UNIT[kind],
        SMALLEST[kind],
        0.0,
        given_others=False,
        words=words,
    )


def unfit(window: Profile, reference: Profile) -> dict[int, Finding]:
    """Columns that vanished or whose type became another, so that nothing else can be said of them."""
    found = {}
    for i, column in enumerate(reference.layout.columns):
        counts, before = window.counts[i], reference.counts[i]
        if counts.absent == window.rows:
            found[i] = _certain(column.name, "absent", 1.0, f"{column.name}: the column is not in the window")
        elif words := _other_type(counts, before):
            share = (counts.invalid or counts.levels[1:2].sum()) / window.rows
            found[i] = _certain(column.name, "kind", float(share), f"{column.name}: {words}")
    return found


def _other_type(window: Counts, reference: Counts) -> str:
    rows = max(int(window.levels.sum()), 1)
    share = window.invalid / rows
    types = f"{' and '.join(sorted(reference.types)) or 'empty'}, is {' and '.join(sorted(window.types))}"
    if share - reference.invalid / max(int(reference.levels.sum()), 1) >= SMALLEST["kind"]:
        return f"was {types}; {percent(share)} of rows do not fit its kind"
    if window.types and not window.types & reference.types and reference.present:
        new = int(window.levels[1]) if len(window.levels) > 2 else 0
        return f"was {types}; {percent(new / rows)} of rows have values that it never had" if new > rows / 2 else ""
    return ""


def _certain(column: str, kind: str, effect: float, words: str) -> Finding:
    nan = math.nan
    return Finding(
        column, kind, "alarm", nan, 0.0, 0.0, effect, UNIT[kind], SMALLEST[kind], 0.0, given_others=False, words=words
    )
