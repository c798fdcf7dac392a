"""Answer all rows of a table in batches, and measure the answers where the targets are known."""

import math
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from afterfit import data as tables
from afterfit import prediction_log
from afterfit.contract.checks import Note
from afterfit.contract.datetimes import parse_as
from afterfit.data import encode_target, files, missing_target, stream
from afterfit.errors import SourceError
from afterfit.lifecycle.result import CommandResult
from afterfit.mlflow_store import registry, tracking
from afterfit.model.answer_table import answer_table
from afterfit.model.bundle import Bundle
from afterfit.performance.evaluation import SliceResult, by_slice, interval
from afterfit.performance.predictions import Predictions
from afterfit.prediction_log import from_bundle
from afterfit.settings import Source
from afterfit.use_case import UseCase

MOST_JUDGED = 1_000_000
"""Rows kept for the metrics; of a longer source every second, fourth … row is kept, so that memory stays bounded."""


@dataclass(slots=True)
class EvaluationSample:
    """Outcomes and predictions of at most `MOST_JUDGED` rows spread evenly over a stream of any length."""

    stride: int = 1
    seen: int = 0
    parts: list[tuple[npt.NDArray[Any], Predictions, pd.DataFrame]] = field(default_factory=list)

    def add(self, y: npt.NDArray[Any], predictions: Predictions, slices: pd.DataFrame) -> None:
        """Take in the next rows of the stream; thins out what is kept when it grows past the limit."""
        rows = np.arange(-self.seen % self.stride, len(y), self.stride)
        self.seen += len(y)
        self.parts.append((y[rows], predictions.take(rows), slices.iloc[rows]))
        if sum(len(part[0]) for part in self.parts) > MOST_JUDGED:
            self.stride *= 2
            whole = self.whole()
            kept = np.arange(0, len(whole[0]), 2)
            self.parts = [(whole[0][kept], whole[1].take(kept), whole[2].iloc[kept])]

    def whole(self) -> tuple[npt.NDArray[Any], Predictions, pd.DataFrame]:
        """All that is kept, in one piece."""
        y = np.concatenate([part[0] for part in self.parts])
        slices = pd.concat([part[2] for part in self.parts], ignore_index=True)
        return y, Predictions.joined([part[1] for part in self.parts]), slices


@dataclass(slots=True)
class ScoreCounts:
    """What a scored stream came to."""

    rows: int = 0
    refused: int = 0
    without_target: int = 0
    trained_on: int = 0
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)
    judged: EvaluationSample = field(default_factory=EvaluationSample)


@dataclass(frozen=True, slots=True)
class Logged:
    """The prediction log that a scoring writes too, and what its parts are called: a name, and the first row."""

    log: prediction_log.PredictionLog
    name: str


def score_source(use_case: UseCase, version: str, data: str, out: Path) -> CommandResult:
    """Score a table by a version into a Parquet file, in a run of its own; into the prediction log too, where one is.

    Args:
        use_case: its settings.
        version: a number, an alias or `latest`.
        data: the table; the use case's own source where empty.
        out: the file.
    """
    if out.exists() and not out.is_file() and not out.is_dir():
        raise SourceError(f"{out} is a device or a pipe: scores are a Parquet file, which is put in its place whole")
    chosen = registry.version(use_case.name, version)
    bundle, place = registry.load_bundle(chosen), files.check_writable(out)
    use_case = bundle.read_on(use_case)
    reading = tables.reading_of(use_case, [bundle.scorer.contract])
    source, root = (Source(path=data), Path.cwd()) if data else (use_case.source, use_case.root)
    log = prediction_log.log_at(os.environ.get(prediction_log.VARIABLE, ""), use_case.name)
    if log is not None:
        prediction_log.salt_of(use_case.name, use_case.hashed, use_case.key)  # refused now, and not after some rows
    with tracking.run(use_case.name, f"score version {chosen.number}", {"afterfit.use_case": use_case.name}) as active:
        logged = None if log is None else Logged(log, f"score-{active.info.run_id}")
        tally = score(use_case, bundle, stream(source, root, reading=reading), place, logged)
        quality = _measured(use_case, tally)
        _log(tally, quality)
    lines = _described(place, chosen.number, tally, quality)
    return CommandResult(tuple(lines), {**_summary(place, chosen.number, tally, quality), "run_id": active.info.run_id})


def score(
    use_case: UseCase, bundle: Bundle, frames: Iterable[pd.DataFrame], place: Path, logged: Logged | None = None
) -> ScoreCounts:
    """Pass a stream of frames through a bundle into a Parquet file, which appears whole or not at all.

    With a log each batch is in it before the next one is read.
    """
    tally, draft = ScoreCounts(), place.with_name(place.name + ".part")
    writer: pq.ParquetWriter | None = None
    try:
        for frame in tqdm(frames, desc="score", unit=" batches", leave=False, disable=None):
            table = _batch(use_case, bundle, frame, tally, logged)
            writer = writer or pq.ParquetWriter(
                draft, table.schema, compression="zstd", use_dictionary=["model_version"]
            )
            writer.write_table(table.cast(writer.schema))
        if writer is not None:
            writer.close()
            draft.replace(place)
    except BaseException:
        if writer is not None:
            writer.close()
        draft.unlink(missing_ok=True)
        raise
    return tally


def _batch(
    use_case: UseCase, bundle: Bundle, frame: pd.DataFrame, tally: ScoreCounts, logged: Logged | None
) -> pa.Table:
    keep = list(dict.fromkeys([*use_case.key, *([use_case.time] if use_case.time else [])]))
    table, checked, predictions = answer_table(bundle, frame, keep, tally.rows)
    if logged is not None:
        private = use_case.columns.private
        now, mode = time.time_ns() // 1000, use_case.log.private
        rows = from_bundle.batch(bundle, frame, table, time=now, hidden=private, mode=mode)
        prediction_log.write_table(logged.log, f"{logged.name}-{tally.rows}", "answers", rows)
    tally.rows += len(frame)
    answered = ~checked.bad & predictions.finite
    tally.refused += int((~answered).sum())
    tally.notes.update(checked.counts)
    tally.notes.update(
        {(str(note["column"]), note["code"]): len(frame) for note in checked.unknown if _is_odd(use_case, note)}
    )
    if use_case.target in frame.columns:
        known = ~missing_target(use_case, frame[use_case.target], bundle.scorer.classes or ()).to_numpy()
        tally.without_target += int((~known).sum())
        tally.trained_on += _trained_on(use_case, bundle, frame)
        rows = np.flatnonzero(known & answered)
        y = encode_target(use_case, frame[use_case.target].iloc[rows], bundle.scorer.classes or ())
        named = dict.fromkeys([*use_case.metrics.slices, *([use_case.time] if use_case.time else [])])
        tally.judged.add(y, predictions.take(rows), frame[[n for n in named if n in frame.columns]].iloc[rows])
    return table


def _trained_on(use_case: UseCase, bundle: Bundle, frame: pd.DataFrame) -> int:
    """How many rows lie in the version's training window, where the answers look better than they are."""
    start, end = bundle.manifest.window["start"], bundle.manifest.window["end"]
    if use_case.time not in frame.columns or start is None:
        return 0
    times = parse_as(frame[use_case.time], tables.format_of(use_case, use_case.time)).values
    return int(((times >= np.datetime64(start)) & (times <= np.datetime64(end))).sum())


def _is_odd(use_case: UseCase, note: Note) -> bool:
    """A source has its target, key and time beside the features; only other unknown columns are worth a word."""
    aside = {use_case.target, use_case.time, *use_case.key, *use_case.columns.ignore}
    return note["column"] not in aside and not use_case.columns.features


@dataclass(frozen=True, slots=True)
class ScoredPerformance:
    """Each metric with its interval, and by slice."""

    rows: int
    sampled: bool
    metrics: dict[str, tuple[float, float, float]]
    slices: tuple[SliceResult, ...]


def _measured(use_case: UseCase, tally: ScoreCounts) -> ScoredPerformance | None:
    """The metrics of what was scored, where targets were there; None otherwise."""
    if not sum(len(part[0]) for part in tally.judged.parts):
        return None
    y, predictions, slices = tally.judged.whole()
    names = list(dict.fromkeys([use_case.primary_metric, *use_case.metrics.also]))
    written = tables.format_of(use_case, use_case.time)
    times = _times(slices[use_case.time], written) if use_case.time in slices.columns else None
    metrics = {name: interval(name, y, predictions, blocks=times, resamples=500, seed=use_case.seed) for name in names}
    columns = {name: slices[name].to_numpy() for name in use_case.metrics.slices if name in slices.columns}
    parts = by_slice(names, y, predictions, columns, smallest=use_case.metrics.smallest_slice) if columns else []
    return ScoredPerformance(len(y), tally.judged.stride > 1, metrics, tuple(parts))


def _times(column: "pd.Series[Any]", written: str | None) -> npt.NDArray[Any] | None:
    """Times for blocks of rows; None, and so rows taken as independent, where some are absent or no times."""
    parsed = parse_as(column, written)
    return None if parsed.bad.any() or np.isnat(parsed.values).any() else parsed.values


def _log(tally: ScoreCounts, quality: ScoredPerformance | None) -> None:
    tracking.metrics({"rows": tally.rows, "refused": tally.refused})
    if quality:
        for name, (value, low, high) in quality.metrics.items():
            tracking.metrics({name: value, f"{name}_low": low, f"{name}_high": high})
        tracking.table(_slice_rows(quality), "slices.json")
    tracking.table([{"column": c, "code": code, "rows": n} for (c, code), n in tally.notes.items()], "warnings.json")


def _slice_rows(quality: ScoredPerformance) -> list[dict[str, Any]]:
    return [{"column": s.column, "value": s.value, "rows": s.n, **s.metrics} for s in quality.slices]


def _described(place: Path, version: str, tally: ScoreCounts, quality: ScoredPerformance | None) -> list[str]:
    """The answer in a few readable lines."""
    lines = [f"Scored {tally.rows:,} rows with version {version} to {place} ({tally.refused:,} refused)."]
    lines += [f"  {column}: {code} in {rows:,} rows" for (column, code), rows in tally.notes.most_common(12)]
    if quality is None:
        return lines
    extent = f"{quality.rows:,} rows" + (" (an even sample)" if quality.sampled else "")
    aside = f", {tally.without_target:,} without an outcome" if tally.without_target else ""
    lines.append(f"Outcomes are known for {extent}{aside}:")
    if tally.trained_on:
        lines.append(f"  {tally.trained_on:,} of the rows lie in the version's training window: this flatters it.")
    for name, (value, low, high) in quality.metrics.items():
        sure = math.isfinite(low) and math.isfinite(high)
        span = f"95 % interval {low:.4f} to {high:.4f}" if sure else "no interval: the rows lie too close in time"
        lines.append(f"  {name:<18} {value:8.4f} ({span})")
    for part in quality.slices:
        name, value = next(iter(part.metrics.items()))
        lines.append(f"    {part.column} {part.value}: {name} {value:.4f} ({part.n:,} rows)")
    return lines


def _summary(place: Path, version: str, tally: ScoreCounts, quality: ScoredPerformance | None) -> dict[str, Any]:
    """The answer as data."""
    notes = [{"column": column, "code": code, "rows": rows} for (column, code), rows in tally.notes.items()]
    answer: dict[str, Any] = {
        "version": version,
        "out": str(place),
        "rows": tally.rows,
        "refused": tally.refused,
        "trained_on": tally.trained_on,
        "warnings": notes,
    }
    if quality:
        answer["metrics"] = {n: {"value": v, "low": low, "high": high} for n, (v, low, high) in quality.metrics.items()}
        answer["slices"] = _slice_rows(quality)
    return answer
