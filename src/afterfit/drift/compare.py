"""Two windows compared: every change with its evidence, its effect and its words, under one false-alarm rate.

A finding is an alarm where both hold: the evidence, after all tests are accounted for, is stronger than the rate
requires, and the effect is at least the smallest effect of interest. So chance alone seldom makes a small window alarm,
and a change that does not matter does not make a large window alarm.

The rate is family-wise, over all columns, kinds and relations of the window together: a person reads one alarm a
window, not one a test, and stops reading alarms that are wrong too often. `window_comparison.RATE_SHARES` shares the
rate out to the kinds of change, so that many columns of numbers do not make it harder to find a change in the one
column of names. Within each kind the procedure of Holm (1979) or Bonferroni's bound keeps to the rate, however the
tests depend on each other.

A change that is small in a column by itself may be large compared with the prediction from the other columns. Both are
tested. Once a column is found changed, the others are tested again without it, so that they are not blamed for it.
"""

from typing import Any

import numpy as np

from afterfit.drift.column_tests import (
    not_applicable_finding,
)
from afterfit.drift.correlations import one_thread
from afterfit.drift.profile_spec import describe_design
from afterfit.drift.profiles import Profile
from afterfit.drift.report import ColumnReport, DriftReport
from afterfit.drift.window_comparison import WindowComparison
from afterfit.errors import DataError, SchemaError

Array = np.ndarray[Any, Any]


def compare_drift(reference: Profile, frame: Any, *, rate: float = 0.01) -> DriftReport:
    """Compare a window with a reference.

    Args:
        reference: the profile of the reference.
        frame: the window: a pandas frame, an Arrow table or record batch, an iterable of them, or a profile that
            `reference.measure` gave.
        rate: the largest share of windows without drift that may raise an alarm, over everything that is tested.

    Returns:
        A report; `report.alarm`, `report.columns["temp"].alarm` and `report.relations` say what changed.

    Raises:
        SchemaError: the window has none of the reference's columns; the message compares them one by one.
        DataError: the frame is no table, or a profile over other bins.

    Assumptions: without a time column in the reference's profile, rows are independent of each other; with one, they
    depend on each other as the reference's blocks of time showed. The p-values are asymptotic with a correction for
    skewness, except those of rare shares.
    """
    if not 0.0 < rate < 1.0:
        raise DataError(f"The false-alarm rate must lie between 0 and 1, and came as {rate}.")
    window = _measure_window(reference, frame)
    if window.rows == 0 or reference.rows == 0:
        return _empty_report(window, reference, rate)
    with one_thread():
        return WindowComparison(window, reference, rate).report()


def _measure_window(reference: Profile, frame: Any) -> Profile:
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


def _empty_report(window: Profile, reference: Profile, rate: float) -> DriftReport:
    columns = {
        column.name: ColumnReport(column.name, column.kind, 0, (not_applicable_finding(column.name, "missing"),), {})
        for column in reference.layout.columns
    }
    which = "window" if window.rows == 0 else "reference"
    note = f"The {which} has no rows: nothing can be compared."
    design = describe_design(reference.layout)
    return DriftReport(rate, window.rows, reference.rows, design, columns, (), window.unknown, (note,))
