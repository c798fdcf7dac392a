"""Compare a window's rows with a reference: read both, measure them, and log the report."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from afterfit import data as tables
from afterfit import prediction_log
from afterfit.contract.contract import Contract, learn
from afterfit.contract.labels import Labels
from afterfit.data import files, windows
from afterfit.data.windows import NOTHING, RowCounts, WindowSplitter
from afterfit.drift.profiles import empty_profile, profile
from afterfit.drift.reference import KINDS, Reference, clear_missing_marks, compare
from afterfit.drift.report import DriftReport
from afterfit.drift.tabular import Kind
from afterfit.errors import BundleError, DataError, SettingsError, SourceError, UnknownVersionError
from afterfit.lifecycle.result import ALARM, CommandResult
from afterfit.loop.observe import SomeRows, answered, profiled
from afterfit.loop.window_rows import after_training
from afterfit.mlflow_store import registry, tracking
from afterfit.model.bundle import Bundle
from afterfit.model.training import feature_columns
from afterfit.pages import drift
from afterfit.pages.drift import DriftComparison
from afterfit.settings import Source
from afterfit.use_case import UseCase

LOG = "log"
"""What --data says for the prediction log."""
MOST_LINES = 15
MOST_METRICS = 100
"""Columns whose effect becomes a metric of the run: the changed ones first."""
MOST_TABLE = 500
MOST_NOTE = 4_000
"""Characters of a run's description; MLflow refuses long tags."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is compared with: its profiles, what it is called, and the bundle that answers where it is a version."""

    name: str
    profiles: Reference
    bundle: Bundle | None = None


def compare_windows(
    use_case: UseCase | None,
    reference: str,
    data: str,
    period: WindowSplitter,
    rate: float,
    *,
    page: Path | None = None,
    save: Path | None = None,
) -> CommandResult:
    """Compare windows with a reference and log it, in a run of its own.

    Args:
        use_case: its settings; None for two tables that are nobody's.
        reference: a version, a table or a saved profile.
        data: what is compared: a table, a saved profile, "log" for the prediction log, or the use case's own source
            where empty.
        period: which rows, and how they are cut.
        rate: the rate of false alarms.
        page: a file that gets the page too.
        save: a file that gets the profile of all windows.
    """
    known = known_reference(reference, use_case, period.time)
    comparison = compare_with(known, use_case, data, period, rate)
    name = use_case.name if use_case else "drift"
    with tracking.run(name, f"drift against {known.name}"[:200], {"afterfit.use_case": name}) as active:
        html = drift.render(comparison)
        _log(comparison, html)
    if page is not None:
        page.write_text(html, "utf-8")
    if save is not None:
        save.write_text(comparison.total.to_json(), "utf-8")
    answer = {**comparison.to_dict(), "run_id": active.info.run_id}
    return CommandResult(tuple(describe(comparison)), answer, ALARM if comparison.alarm else 0)


# What is compared with.


def known_reference(reference: str, use_case: UseCase | None, time: str | None) -> Known:
    """A saved profile, a table, or a version of the use case's model."""
    if reference.endswith(".json"):
        return Known(f"the profile {reference}", saved_profiles(reference))
    if "/" in reference or reference.lower().endswith(files.ENDINGS):
        source = Source(path=reference)
        reading = None if use_case is None else tables.reading_of(use_case)
        frames = tables.stream(source, Path.cwd(), reading=reading, infer=True)
        return Known(tables.describe(source), of_table(frames, use_case, time))
    if use_case is None:
        raise SettingsError(
            f"--reference '{reference}' would be a version of a model, and no use case says of which one: give "
            f"--config, or a table (a folder as './{reference}') or a saved profile (.json)."
        )
    return of_version(reference, use_case)


def of_version(reference: str, use_case: UseCase) -> Known:
    """The profiles that travel inside a version."""
    try:
        version = registry.version(use_case.name, reference)
    except UnknownVersionError as error:
        hint = f" If a folder of that name is meant, write './{reference}'." if Path(reference).is_dir() else ""
        raise UnknownVersionError(f"{error}{hint}") from error
    bundle = registry.load_bundle(version)
    if bundle.reference is None:
        raise BundleError(
            f"Version {version.number} of {use_case.name} carries no profile of its training window: an older release "
            "trained it. Train a new version, or give a table or a saved profile as --reference."
        )
    return Known(f"version {version.number} of {use_case.name}", bundle.reference, bundle)


def saved_profiles(path: str) -> Reference:
    """Profiles that `--save` or `Profile.to_json` wrote, from a file."""
    place = Path(path).expanduser()
    try:
        return Reference.from_json(place.read_bytes())
    except OSError as error:
        raise SourceError(f"The saved profile '{path}' cannot be read: {error.strerror}.") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def of_table(frames: Iterator[pd.DataFrame], use_case: UseCase | None, time: str | None) -> Reference:
    """The profile of a table: of the use case's features, or without one of all columns."""
    splitter, first = WindowSplitter(time=time), next(frames)
    chosen, kinds, marks = _features(use_case, first, time)

    def parts() -> Iterator[pd.DataFrame]:
        for frame in chain([first], frames):
            for rows in splitter.cut(frame)[0].values():
                yield clear_missing_marks(rows if chosen is None else rows[chosen], marks)

    return Reference(profile(parts(), time, kinds=kinds))


def _features(
    use_case: UseCase | None, frame: pd.DataFrame, time: str | None
) -> tuple[list[str] | None, dict[str, Kind], tuple[str, ...]]:
    """A use case's features that are not private, with the time column, their kinds, and its missing marks."""
    if use_case is None:
        return None, {}, ()
    chosen = [name for name in feature_columns(use_case, frame.columns) if name not in use_case.columns.private]
    settings = tables.kinds_of(use_case, chosen)
    contract = learn(
        frame[chosen],
        kinds=settings.kinds,
        formats=settings.formats,
        marks=settings.missing_marks,
        on_invalid="missing",
    )
    kinds = {column.name: KINDS[column.kind] for column in contract.columns if column.name != time}
    return [*dict.fromkeys([*chosen, *([time] if time else [])])], kinds, settings.missing_marks


# What is compared.


@dataclass(frozen=True, slots=True)
class MeasuredWindows:
    """What is compared: the profiles of each window by its number, where the rows are from, counts, and notes."""

    profiles: dict[int, Reference]
    name: str
    counts: RowCounts = NOTHING
    notes: tuple[str, ...] = ()


def compare_with(
    known: Known, use_case: UseCase | None, data: str, period: WindowSplitter, rate: float
) -> DriftComparison:
    """Measure the current windows over the reference's bins, and compare each."""
    if data.endswith(".json"):
        if period.every or period.start or period.end:
            raise SettingsError("A saved profile has no rows any more: --start, --end and --every need a table.")
        current = MeasuredWindows({0: saved_profiles(data)}, f"the profile {data}")
    else:
        current = _measured(known, use_case, data, period)
    measured, whole = current.profiles, f"{current.name}{current.counts.span}"
    names = {number: period.name(number) if period.every else whole for number in measured}
    hidden = use_case.columns.private if use_case and data == LOG else ()  # the log holds hashes of these, or nothing
    reports = [
        (names[number], compare(known.profiles, measured[number], rate).without(hidden)) for number in sorted(measured)
    ]
    total = sum((measured[number] for number in sorted(measured)[1:]), measured[min(measured)])
    return DriftComparison(current.name, known.name, known.profiles, tuple(reports), total, current.notes)


def _rows(
    use_case: UseCase | None, data: str, period: WindowSplitter, contracts: Sequence[Contract]
) -> tuple[Iterator[pd.DataFrame], str]:
    """The rows to be measured, in parts, and where they are from."""
    reading = None if use_case is None else tables.reading_of(use_case, contracts)
    if data != LOG:
        source = Source(path=data) if data or use_case is None else use_case.source
        root = Path.cwd() if data or use_case is None else use_case.root
        return tables.stream(source, root, reading=reading, infer=True), tables.describe(source)
    if use_case is None:
        raise SettingsError("--data log is the prediction log of a use case: name it with --config.")
    log = prediction_log.required(use_case)
    clock = period.time or "served"
    read = prediction_log.read(log, start=period.start, end=period.end, time=clock, written=period.written)
    typed = tables.reading_of(use_case, contracts).typed
    return (typed(_logged(use_case, table)) for table in read), f"the prediction log of {use_case.name}"


def _logged(use_case: UseCase, table: pa.Table) -> pd.DataFrame:
    """Rows of the log as they were received, with their outcomes as far as they are known."""
    frame: pd.DataFrame = prediction_log.features_of(table).to_pandas()
    return frame.assign(**{use_case.target: table["outcome"].to_pandas()})


def _measured(known: Known, use_case: UseCase | None, data: str, period: WindowSplitter) -> MeasuredWindows:
    if use_case is not None and known.bundle is not None:
        use_case = known.bundle.read_on(use_case)
    period = period.written_as(None if use_case is None else tables.format_of(use_case, period.time))
    frames, name = _rows(use_case, data, period, [] if known.bundle is None else [known.bundle.scorer.contract])
    notes: list[str] = []
    if not data:
        period, notes = after_training(period, known.bundle, known.name)
    measured: dict[int, Reference] = {}
    counts, refused = NOTHING, 0
    for frame in tqdm(frames, desc="measure", unit=" batches", leave=False, disable=None):
        cut, counts = period.cut(frame, counts)
        for number, rows in cut.items():
            part, bad = _part(known, use_case, rows)
            refused += bad
            measured[number] = measured[number] + part if number in measured else part
            if len(measured) > windows.MOST:
                raise SettingsError(f"--every gives more than {windows.MOST:,} windows: choose longer ones.")
    if not measured:
        measured[0] = Reference(empty_profile(known.profiles.features.layout))
        notes.append(f"No row of the {counts.seen:,} is in the window asked for.")
    if counts.untimed:
        notes.append(f"{counts.untimed:,} rows have no time in '{period.time}'.")
    if refused:
        notes.append(f"{refused:,} rows were refused by the version's contract and have no prediction.")
    return MeasuredWindows(measured, name, counts, tuple(notes))


def _part(known: Known, use_case: UseCase | None, frame: pd.DataFrame) -> tuple[Reference, int]:
    """Profiles of some rows over the reference's bins, and how many rows the version refused to answer."""
    profiles, bundle = known.profiles, known.bundle
    outcomes = _outcomes(bundle, use_case, frame)
    if bundle is None or profiles.predictions is None:
        return profiled(profiles, use_case, frame, outcomes=outcomes), 0
    rows = answered(bundle, frame, np.full(len(frame), np.nan), None)
    answers = SomeRows(rows.predictions.take(rows.sound), rows.sound)
    return profiled(profiles, use_case, frame, answers=answers, outcomes=outcomes), int(rows.bad.sum())


def _outcomes(
    bundle: Bundle | None, use_case: UseCase | None, frame: pd.DataFrame
) -> SomeRows[npt.NDArray[Any]] | None:
    """The outcomes that are known; a label that the version does not know is among them, for it is a change."""
    if bundle is None or use_case is None or use_case.target not in frame.columns:
        return None
    classes = bundle.scorer.classes
    known = ~tables.missing_target(use_case, frame[use_case.target], classes or ()).to_numpy()
    values = frame.loc[known, use_case.target]
    if classes is None:
        return SomeRows(tables.target_numbers(use_case, values), known)
    labels = Labels(classes)
    texts = values.astype(object)
    named = [value if code < 0 else classes[code] for value, code in zip(texts, labels.codes(values), strict=True)]
    return SomeRows(pd.Series(named, dtype=object).to_numpy(), known)


# What is recorded and said.


def _log(result: DriftComparison, html: str) -> None:
    """Findings, metrics, a table and the page into the active run."""
    tracking.params({"reference": result.reference[:400], "current": result.current[:400]}, "drift")
    tracking.params({"rate": result.windows[0][1].rate, "windows": len(result.windows)}, "drift")
    tracking.tags({"afterfit.alarm": str(result.alarm).lower()})
    named = drift.metric_names(result.ranked[:MOST_METRICS])
    tracking.histories([metrics_of(report, named) for _, report in result.windows])
    tracking.table(table_of(result), "drift_table.json")
    tracking.text(json.dumps(result.to_dict(), indent=1), "drift.json")
    tracking.text(html, "drift.html")
    tracking.note("```\n" + "\n".join(describe(result))[:MOST_NOTE] + "\n```")


def metrics_of(report: DriftReport, named: dict[str, str]) -> dict[str, float]:
    """Alarm, changed columns, rows, and the largest effect of each column in smallest effects of interest."""
    values = {"alarm": float(report.alarm), "rows": float(report.rows)}
    values["changed_columns"] = float(sum(column.alarm for column in report.columns.values()))
    for column, name in named.items():
        if column not in report.columns:
            continue
        values[f"effect_{name}"] = drift.weight(report.columns[column])
    return values


def table_of(result: DriftComparison) -> list[dict[str, Any]]:
    """One row a finding that is an alarm, the largest first; without an alarm one row that says so."""
    rows = [
        {
            "window": drift.safe_text(name, 80),
            "column": drift.safe_text(finding.column, 80),
            "change": finding.kind,
            "in words": drift.safe_text(finding.words, 300),
            "effect": finding.effect,
            "unit": finding.unit,
            "smallest of interest": finding.smallest,
            "familywise p": finding.familywise,
        }
        for name, report in result.windows
        for finding in report.ranked
    ]
    nothing = dict.fromkeys(("column", "change", "in words", "effect", "unit", "smallest of interest", "familywise p"))
    return rows[:MOST_TABLE] or [{"window": "all", **nothing, "in words": "no alarm"}]


def describe(result: DriftComparison) -> list[str]:
    """The answer in a few readable lines: the most important first."""
    if len(result.windows) == 1:
        report = result.windows[0][1]
        lines = [f"{headline(result)}", *(f"  {line}" for line in ranked_lines(report))]
        quiet = [column.name for column in report.columns.values() if not column.alarm]
        if report.alarm and quiet:
            lines.append(f"  no change that matters: {drift.join_names(quiet, 12)}")
    else:
        lines = [headline(result)]
        width = max(len(name) for name, _ in result.windows)
        for name, report in result.windows:
            lines.append(f"  {name:<{width}}  {report.rows:>9,} rows  {drift.one_line(report)}")
    return [drift.safe_text(line, 400) for line in [*lines, *result.notes, *result.windows[-1][1].notes]]


def headline(result: DriftComparison) -> str:
    """One line: alarm or not, of what against what."""
    against = f"{result.current} against {result.reference}"
    if len(result.windows) == 1:
        name, report = result.windows[0]
        changed = sum(column.alarm for column in report.columns.values())
        words = (
            f"{changed} of {len(report.columns)} columns changed" if report.alarm else "nothing changed that matters"
        )
        verdict = "ALARM" if report.alarm else "No alarm"
        return f"{verdict}: {words} in {report.rows:,} rows of {name} against {result.reference}."
    alarms = sum(report.alarm for _, report in result.windows)
    return f"{'ALARM' if alarms else 'No alarm'} in {alarms} of {len(result.windows)} windows of {against}."


def ranked_lines(report: DriftReport) -> list[str]:
    """A line a changed column, the largest change first: its words, and what else changed in it."""
    lines = []
    for column in drift.changed_columns(report):
        first, *others = [finding for finding in drift.ranked_findings(column) if finding.alarm]
        also = ", ".join(dict.fromkeys(other.kind for other in others if other.kind != first.kind))
        lines.append(drift.safe_text(first.words, 200) + (f" (also {also})" if also else ""))
    more = [f"and {len(lines) - MOST_LINES:,} more columns"] if len(lines) > MOST_LINES else []
    alone = [r for r in report.relations if r.alarm and not any(report.columns[c].alarm for c in r.columns)]
    return [*lines[:MOST_LINES], *more, *(f"relation of {drift.safe_text(r.words, 200)}" for r in alone[:3])]
