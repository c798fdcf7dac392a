"""The rows of windows, from a table or from the prediction log, as one version answered them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd
import pyarrow as pa

from afterfit import data as tables
from afterfit import prediction_log
from afterfit.contract.datetimes import parse_as
from afterfit.contract.labels import Labels
from afterfit.data.windows import RowCounts, WindowSplitter, parse_time
from afterfit.loop.observation import ServiceHealth
from afterfit.loop.observe import AnsweredRows, answered
from afterfit.model.bundle import Bundle
from afterfit.performance.paired_comparison import PairedAnswers
from afterfit.performance.predictions import FloatArray, Predictions
from afterfit.prediction_log.log import PredictionLog
from afterfit.settings import Source
from afterfit.use_case import UseCase

READ_COLUMNS = [
    "time", "version", "prediction", "probability", "probabilities", "lower", "upper", "error", "seconds", "outcome",
]  # fmt: skip
QUANTILES = (0.5, 0.95, 0.99)
MICROSECOND = pd.Timedelta(1, "us")


@dataclass(frozen=True, slots=True, eq=False)
class WindowRows:
    """One window's rows.

    Attributes:
        number: its place among the windows.
        name: the window in words.
        start: its begin (included), or None.
        end: its end (excluded), or None.
        rows: as answered.
    """

    number: int
    name: str
    start: datetime | None
    end: datetime | None
    rows: AnsweredRows


@dataclass(frozen=True, slots=True, eq=False)
class ReadWindows:
    """The windows that were read, in order, and the counts of the rows; a window is answered when its turn comes."""

    windows: Iterator[WindowRows]
    counts: RowCounts


def after_training(period: WindowSplitter, bundle: Bundle | None, name: str) -> tuple[WindowSplitter, list[str]]:
    """A period without the rows that a version was trained on, which its own source holds too, and a note of that.

    A period with a start of its own, or without times, stays as it is.

    Args:
        period: which rows, and how they are cut.
        bundle: the version, or None.
        name: the version in words, for the note.
    """
    end = None if bundle is None else bundle.manifest.window["end"]
    if end is None or period.time is None or period.start is not None:
        return period, []
    note = f"Only rows after {end}, where the training of {name} ended; --start says otherwise."
    return period.later_than(parse_time(str(end), "the training window's end")), [note]


def from_table(use_case: UseCase, bundle: Bundle, data: str, period: WindowSplitter) -> ReadWindows:
    """The windows of a table, or of the use case's own source where `data` is empty, answered by a version now.

    Only the columns that are needed are kept, and each window's rows in order of time.
    """
    source, read_as = Source(path=data) if data else use_case.source, bundle.read_on(use_case)
    reading = tables.reading_of(read_as, [bundle.scorer.contract])
    frames = tables.stream(source, Path.cwd() if data else use_case.root, reading=reading)
    period = period.written_as(tables.format_of(read_as, period.time))
    parts, counts = period.gathered(frames, lambda rows: rows[_needed(use_case, bundle, rows)])
    return ReadWindows(_answered(use_case, bundle, period, parts), counts)


def _answered(
    use_case: UseCase, bundle: Bundle, period: WindowSplitter, parts: dict[int, pd.DataFrame]
) -> Iterator[WindowRows]:
    """Each window's rows as the version answers them; they are taken out of `parts`, so that memory is given back."""
    for number in list(parts):
        frame = parts.pop(number)
        times = None
        if period.time is not None:
            frame = frame.sort_values(period.time, kind="stable", ignore_index=True)
            times = frame[period.time].to_numpy().astype("datetime64[us]")
        y = np.full(len(frame), np.nan)
        if use_case.target in frame.columns:
            y = outcomes(use_case, bundle.scorer.classes, frame[use_case.target])
        yield _window(period, number, answered(bundle, frame, y, times))


def from_log(use_case: UseCase, bundle: Bundle, log: PredictionLog, period: WindowSplitter) -> ReadWindows:
    """The windows of the prediction log, with the answers that were given and the outcomes that came since."""
    clock, read_as = use_case.time or "served", bundle.read_on(use_case)
    written, reading = tables.format_of(read_as, use_case.time), tables.reading_of(read_as, [bundle.scorer.contract])
    read = prediction_log.read(
        log, start=period.start, end=period.end, time=clock, written=written, version=bundle.version
    )
    period = period.written_as(written)
    parts, counts = period.gathered(_joined(table, clock, reading) for table in read)
    return ReadWindows(_given(use_case, bundle, period, parts), counts)


def _given(
    use_case: UseCase, bundle: Bundle, period: WindowSplitter, parts: dict[int, pd.DataFrame]
) -> Iterator[WindowRows]:
    """Each window's rows as they were answered; they are taken out of `parts`, so that memory is given back."""
    clock = period.time or "\0clock"
    for number in list(parts):
        rows = parts.pop(number).sort_values(clock, kind="stable", ignore_index=True)
        yield _window(period, number, _logged(use_case, bundle, rows, clock))


@dataclass(frozen=True, slots=True, eq=False)
class ShadowedRows:
    """What two versions answered to the same requests: the champion to those who asked, the candidate behind it.

    Attributes:
        answers: of rows that both answered and whose outcome is known, in order of time.
        left: how many rows both were asked that are not among these.
    """

    answers: PairedAnswers
    left: int


def from_shadow(
    use_case: UseCase,
    candidate: Bundle,
    champion: Bundle,
    log: PredictionLog,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> ShadowedRows:
    """Rows of the log that the champion answered, with the candidate as its shadow.

    Args:
        use_case: its time and target.
        candidate: the version that answered in the shadow.
        champion: the version whose answers went out.
        log: where their answers are.
        start: from when (included), by the use case's time; by that of serving where it has none.
        end: to when (excluded), by the same time.
    """
    clock, written = use_case.time or "served", tables.format_of(champion.read_on(use_case), use_case.time)
    read = partial(prediction_log.read, log, start=start, end=end, time=clock, written=written)
    ours = _own(read(version=candidate.version, shadow=True), clock, written)
    theirs = _own(read(version=champion.version, shadow=False), clock, written)
    both = theirs.sort_values("\0clock", kind="stable").index.intersection(ours.index, sort=False)
    ours, theirs = ours.loc[both], theirs.loc[both]
    behind, behind_usable = _predictions(ours, candidate.scorer.classes)
    given, given_usable = _predictions(theirs, champion.scorer.classes)
    y = outcomes(use_case, champion.scorer.classes, theirs["\0outcome"])
    keep = behind_usable & given_usable & np.isfinite(y)
    known = y[keep] if champion.scorer.classes is None else y[keep].astype(np.intp)
    times = theirs["\0clock"].to_numpy().astype("datetime64[us]")[keep]
    return ShadowedRows(PairedAnswers(known, behind.take(keep), given.take(keep), times), int((~keep).sum()))


def _own(read: Iterable[pa.Table], clock: str, written: str | None) -> pd.DataFrame:
    """The log's own columns of one version's answers, by prediction id, with the clock beside them."""
    names = [*READ_COLUMNS, "prediction_id"]
    parts = [pd.DataFrame({f"\0{name}": [] for name in [*names, "clock"]}, dtype=object)]
    for table in read:
        own = table.select([name for name in names if name in table.column_names]).to_pandas()
        times = own["time"] if clock == "served" else prediction_log.features_of(table)[clock].to_pandas()
        own["clock"] = parse_as(times, written).values
        parts.append(own.rename(columns=lambda name: f"\0{name}"))
    whole = parts[0] if len(parts) == 1 else pd.concat(parts[1:], ignore_index=True)
    return whole.drop_duplicates("\0prediction_id", keep="last").set_index("\0prediction_id")


def _window(period: WindowSplitter, number: int, rows: AnsweredRows) -> WindowRows:
    """A window with its name and ends: those of its unit, else as asked for, else where its rows lie."""
    edges, times = period.edges(number), rows.times
    start, end = (period.start, period.end) if edges is None else edges
    if edges is None and times is not None and len(times):
        first, last = pd.Timestamp(times[0]).to_pydatetime(), (pd.Timestamp(times[-1]) + MICROSECOND).to_pydatetime()
        start, end = (first, last) if period.every is not None else (start or first, end or last)
    if period.every is not None or start is None or end is None:
        name = period.name(number)
    else:
        name = f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}".replace(" 00:00", "")
    return WindowRows(number, name, start, end, rows)


def outcomes(use_case: UseCase, classes: tuple[Any, ...] | None, target: "pd.Series[Any]") -> FloatArray:
    """(n,) class indices or numbers; nan where the outcome is missing, or is none that the version knows."""
    missing = tables.missing_target(use_case, target, classes or ()).to_numpy()
    if classes is None:
        return np.where(missing, np.nan, tables.target_numbers(use_case, target))
    codes = Labels(classes).codes(target)
    return np.where(missing | (codes < 0), np.nan, codes)


def _needed(use_case: UseCase, bundle: Bundle, frame: pd.DataFrame) -> list[str]:
    """All columns but those that nobody asks for: where the settings name features, what is neither these nor used."""
    if not use_case.columns.features:
        return list(frame.columns)
    used = {*bundle.scorer.contract.names, use_case.target, use_case.time, *use_case.key, *use_case.metrics.slices}
    return [name for name in frame.columns if name in used]


# Rows of the log.


def _joined(table: pa.Table, clock: str, reading: tables.TableReading) -> pd.DataFrame:
    """Features as they are read, and the log's own columns under names that no feature has."""
    own = table.select([name for name in READ_COLUMNS if name in table.column_names])
    own = own.rename_columns([f"\0{name}" for name in own.column_names])
    features = prediction_log.features_of(table)
    frame: pd.DataFrame = pd.concat([reading.typed(features.to_pandas()), own.to_pandas()], axis=1)
    if clock == "served":
        frame["\0clock"] = frame["\0time"]
    return frame


def _logged(use_case: UseCase, bundle: Bundle, whole: pd.DataFrame, clock: str) -> AnsweredRows:
    own = whole[[name for name in whole.columns if str(name).startswith("\0")]]
    frame = whole.drop(columns=own.columns)
    n, classes = len(whole), bundle.scorer.classes
    predictions, sound = _predictions(own, classes)
    y = outcomes(use_case, classes, own["\0outcome"]) if "\0outcome" in own else np.full(n, np.nan)
    bad = own["\0error"].notna().to_numpy() | ~sound
    times = whole[clock].to_numpy().astype("datetime64[us]")
    hidden = frozenset(column.name for column in bundle.scorer.contract.columns if column.private)
    return AnsweredRows(
        frame, predictions, bad, y, times, service_of(own["\0time"], own["\0seconds"], int(bad.sum())), hidden
    )


def _predictions(own: pd.DataFrame, classes: tuple[Any, ...] | None) -> tuple[Predictions, npt.NDArray[np.bool_]]:
    """The logged answers, and which rows (n,) have one."""
    if classes is None:
        named = ("prediction", "lower", "upper")
        numbers = {n: pd.to_numeric(own[f"\0{n}"], errors="coerce").to_numpy(np.float64) for n in named}
        ends = [None if np.isnan(numbers[name]).all() else numbers[name] for name in ("lower", "upper")]
        values = Predictions.of_values(numbers["prediction"], *ends)
        return values, values.finite
    codes = Labels(classes).codes(own["\0prediction"])
    prediction = np.maximum(codes, 0).astype(np.intp)
    predictions = Predictions(prediction, _shares(own, classes), classes=classes)
    return predictions, (codes >= 0) & predictions.finite


def _shares(own: pd.DataFrame, classes: tuple[Any, ...]) -> FloatArray | None:
    if len(classes) == 2:
        positive = own["\0probability"].to_numpy(np.float64)
        return None if np.isnan(positive).all() and len(own) else np.column_stack([1.0 - positive, positive])
    texts = own["\0probabilities"]
    if texts.isna().all():
        return None
    names, nothing = [str(label) for label in classes], dict[str, float]()
    rows = [orjson.loads(text) if isinstance(text, str) else nothing for text in texts]
    return np.array([[row.get(name, np.nan) for name in names] for row in rows], dtype=np.float64)


def service_of(times: "pd.Series[Any]", seconds: "pd.Series[Any]", errors: int) -> ServiceHealth:
    """Rate, errors and latency of answers given at these times."""
    length = (times.max() - times.min()).total_seconds() if len(times) else 0.0
    known = seconds.dropna().to_numpy(np.float64)
    late: list[float | None] = [float(value) for value in np.quantile(known, QUANTILES)] if len(known) else [None] * 3
    return ServiceHealth(len(times), errors, len(times) / length if length > 0 else float(len(times)), *late)
