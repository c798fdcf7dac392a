"""A labelled history: its rows, the outcomes that are known at a time, and its windows."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit import data
from afterfit.contract.labels import Labels
from afterfit.data.windows import TimeWindow, WindowLength
from afterfit.errors import SettingsError
from afterfit.model.bundle import Bundle
from afterfit.use_case import UseCase


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Rows with their outcomes, in order of time, and the folder that models are kept in.

    Attributes:
        use_case: its settings; the label delay is in its gate.
        window: the rows.
        labels: the classes that `y` counts, or none in regression.
        y: (n,) outcomes as class indices or numbers, nan where there is none.
        times: (n,) their times.
        marks: (n,) their fingerprints.
        folder: for models and answers.
    """

    use_case: UseCase
    window: data.Window
    labels: tuple[Any, ...]
    y: npt.NDArray[np.float64]
    times: npt.NDArray[Any]
    marks: npt.NDArray[np.uint64]
    folder: Path

    @classmethod
    def of(cls, use_case: UseCase, window: data.Window, folder: Path) -> "History":
        """From rows in order of time; a target may be missing."""
        frame = window.frame
        known = ~data.missing_target(use_case, frame[use_case.target]).to_numpy()
        target = frame.loc[known, use_case.target]
        labels = data.classes(use_case, target) if use_case.task == "classification" else ()
        y = np.full(len(frame), np.nan)
        y[known] = data.encode_target(use_case, target, labels)
        times = frame[str(use_case.time)].to_numpy().astype("datetime64[us]")
        return cls(use_case, window, labels, y, times, data.row_fingerprints(use_case, frame), folder)

    def between(self, start: datetime, end: datetime) -> slice:
        """Positions of the rows of a stretch of time."""
        first, last = np.searchsorted(self.times, np.array([start, end], dtype="datetime64[us]"))
        return slice(int(first), int(last))

    def known(self, now: datetime) -> int:
        """How many rows, from the first on, have outcomes that are known at a time."""
        limit = np.datetime64(now - timedelta(hours=self.use_case.gate.label_delay_hours), "us")
        return int(np.searchsorted(self.times, limit, side="right" if limit < np.datetime64(now, "us") else "left"))

    def outcomes(self, bundle: Bundle, rows: slice, now: datetime) -> npt.NDArray[np.float64]:
        """The outcomes of some rows as a version counts its classes, nan where they tell nothing about it.

        That is where they are not known at the time, or the version was trained on them.
        """
        y = self.y[rows].copy()
        y[max(self.known(now) - rows.start, 0) :] = np.nan
        end = bundle.manifest.window["end"]
        if end is not None:
            y[self.times[rows] <= np.datetime64(end, "us")] = np.nan
        classes = bundle.scorer.classes
        if classes is None or tuple(classes) == self.labels:
            return y
        codes = Labels(classes).codes(pd.Series(self.labels, dtype=object))
        code = np.array([*np.where(codes < 0, np.nan, codes), np.nan])
        return code[np.where(np.isnan(y), len(self.labels), y).astype(np.intp)]

    def usable(self, now: datetime) -> npt.NDArray[np.intp]:
        """Positions of the rows whose outcomes are known at a time."""
        return np.flatnonzero(np.isfinite(self.y[: self.known(now)]))


def spans(history: History, every: WindowLength, start: datetime, end: datetime) -> list[TimeWindow]:
    """The whole windows from `start` to `end` that have rows, in order.

    Args:
        history: the rows.
        every: the length of a window.
        start: the first begins no earlier.
        end: the last ends no later.
    """
    windows = every.between(start, end)
    return [window for window in windows if range(*history.between(window.start, window.end).indices(len(history.y)))]


def after(last: Any) -> datetime:
    """The end of a stretch of rows whose last one has this time, to the whole day: the last window may end there."""
    day = np.datetime64(last, "D") + np.timedelta64(1, "D")
    end: datetime = day.astype("datetime64[us]").item()
    return end


def delayed(use_case: UseCase, delay: str) -> UseCase:
    """The use case with another label delay, where one is given.

    Raises:
        SettingsError: it is no number of hours, or the use case has no time column.
    """
    if use_case.time is None:
        raise SettingsError(
            f"{use_case.name} names no time column, and without times nobody can tell what was known when: a backtest, "
            "monitoring by window and the loop are not possible. Training, promotion, scoring and compare_drift work."
        )
    if not delay.strip():
        return use_case
    try:
        hours = float(delay)
    except ValueError:
        hours = nan
    if not (isfinite(hours) and hours >= 0):
        raise SettingsError(f"--delay '{delay}' must be a number of hours, 0 or more.")
    return use_case.model_copy(update={"gate": use_case.gate.model_copy(update={"label_delay_hours": hours})})


def window_length(every: str, use_case: UseCase) -> WindowLength:
    """The length of a window, as the option or the policy says."""
    length = WindowLength.parse(every.strip() or use_case.policy.every)
    if length is None:
        raise SettingsError("policy.every is empty: name the length of a window, such as 1d, 1w or 1mo.")
    return length


def rows_of(use_case: UseCase, end: datetime | None = None) -> data.Window:
    """The source's rows as a loop has them, here and live: from where training begins, where the use case says it.

    Rows whose outcome never came are among them, for they were answered all the same.
    """
    period = use_case.split.train
    return data.load(use_case, start=period.start if period else None, end=end, waiting=True)
