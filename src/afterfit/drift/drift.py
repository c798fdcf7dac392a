"""Two windows compared: every change with its evidence and its effect, under one false-alarm rate.

A finding is an alarm where both hold: the evidence, after everything that was tested is accounted for, is stronger than
the rate allows, and the effect is at least the smallest that is of interest. So a small window does not alarm by
itself, and a large one not by a change that nobody would care about.

The rate is family-wise, over all columns, kinds and relations of the window together: a person reads one alarm a
window, not one a test, and mutes it when it is wrong too often. The rate is shared out to
the kinds of change (`afterfit.drift.compare.RATE_SHARES`), so that many columns of numbers do not make it harder to find a
change in the one column of names; within each kind the procedure of Holm (1979) or Bonferroni's bound holds it,
whatever the tests' dependence on each other.

A change that is small in a column by itself may be large against what the other columns say. Both are looked at; when
a column is found changed, the others are looked at again without it, so that they are not blamed in its place.
"""

from typing import Any

from afterfit.drift.compare import Comparison, design_words
from afterfit.drift.correlations import one_thread
from afterfit.drift.profiles import Profile
from afterfit.drift.report import ColumnReport, DriftReport
from afterfit.drift.unfit import untold
from afterfit.errors import DataError, SchemaError


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
        return Comparison(window, reference, rate).report()


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
