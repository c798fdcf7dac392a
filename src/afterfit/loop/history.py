"""Work on a labelled history, each piece done once: models, answers, looks, verdicts; over a few processes.

A piece depends on what it is asked for and nothing else, so that policies that ask for the same share it. Models and
their answers are kept in a folder, and a run that was interrupted goes on from there.
"""

import gc
import hashlib
import json
import os
import pickle
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from math import isfinite, nan
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from threadpoolctl import threadpool_limits

from afterfit import data, gate
from afterfit.data.windows import WindowLength
from afterfit.errors import SettingsError
from afterfit.gate.inputs import HeldOut, LoadedVersion, by_last_fold
from afterfit.gate.verdict import ComparisonUse, Verdict
from afterfit.loop import stepping
from afterfit.loop.observe import AnsweredRows, metrics_of
from afterfit.loop.policy import PairedDifference, TimeWindow
from afterfit.loop.stepping import Recipe, WindowObservation
from afterfit.model import packaging
from afterfit.model.bundle import Bundle, load
from afterfit.model.training import Trained, TrainingData
from afterfit.model.tuning import Search, finished, nearby, search
from afterfit.performance.estimation import CalibrationEvidence
from afterfit.performance.evaluation import value_metric
from afterfit.performance.paired_comparison import Comparison, PairedAnswers
from afterfit.performance.predictions import Predictions
from afterfit.use_case import UseCase

Result = TypeVar("Result")
HINDSIGHT = datetime(9000, 1, 1)  # noqa: DTZ001 - in the time column's own clock, as all times here
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576", "MALLOC_ARENA_MAX": "2"}
"""For processes that train: what a training needed goes back to the system when it is over (glibc; else ignored)."""
KEPT = 4
"""Bundles and answers that a process keeps in memory."""
TOLD, FOLDS, STUDY = "told.json", "folds.npz", "study.journal"
"""Beside a model's bundle: what it cost, what its folds showed, and the search for its parameters, if there was one."""
STUDY_NAME = "around the last best"


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
        """The outcomes of some rows as a version counts its classes, nan where they tell nothing of it.

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
        place = {label: float(i) for i, label in enumerate(classes)}
        code = np.array([*(place.get(label, np.nan) for label in self.labels), np.nan])
        return code[np.where(np.isnan(y), len(self.labels), y).astype(np.intp)]

    def usable(self, now: datetime) -> npt.NDArray[np.intp]:
        """Positions of the rows whose outcomes are known at a time."""
        return np.flatnonzero(np.isfinite(self.y[: self.known(now)]))


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model in its folder: rows and time of the last, and what it cost to train, in seconds."""

    folder: Path
    rows: int
    until: datetime | None
    seconds: float
    builder: str
    params: Mapping[str, Any]


# The pieces. Each runs in whichever process; `_history` is what it works on.

_history: list[History] = []
_predicting = [0.0]
"""Seconds that this process has spent on answers."""


def _begin(history: History) -> None:
    _history[:] = [history]
    _bundle.cache_clear()
    answers.cache_clear()


@lru_cache(maxsize=KEPT)
def _bundle(folder: Path) -> Bundle:
    return load(folder, version=folder.name)


def loaded(folder: Path) -> Bundle:
    """A bundle in a folder; its version is the folder's name."""
    return _bundle(folder)


def train(recipe: Recipe) -> Model:
    """Train on the rows that a recipe takes, or find the model where it was trained before."""
    history = _history[0]
    rows = _rows(history, recipe)
    place = history.folder / _key(history, recipe, rows)
    if not all((place / name).is_file() for name in (TOLD, FOLDS)):  # an older release kept no folds
        _trained(history, recipe, rows, place)
        give_back()
    found = json.loads((place / TOLD).read_text("utf-8"))
    until = None if found["until"] is None else datetime.fromisoformat(found["until"])
    return Model(place / place.name, found["rows"], until, found["seconds"], found["builder"], found["params"])


def _rows(history: History, recipe: Recipe) -> npt.NDArray[np.intp]:
    """Positions of the rows that a recipe takes."""
    known = history.usable(recipe.until)
    return known[stepping.chosen(recipe, history.times[known], history.marks[known])]


def table_of(history: History, recipe: Recipe) -> packaging.Table:
    """The rows that a recipe takes, ready to train on; rows that should have an outcome by then count as left out."""
    left_out, due = dict(history.window.dropped), history.known(recipe.until)
    without = due - len(history.usable(recipe.until))
    if without:
        left_out["target is missing"] = without
    return packaging.table(history.use_case, replace(history.window, dropped=left_out), _rows(history, recipe))


def _trained(history: History, recipe: Recipe, rows: npt.NDArray[np.intp], place: Path) -> None:
    """Train on some rows, and put the bundle and what is to be known of it into a folder when all is there."""
    started = time.perf_counter()
    ready = packaging.table(history.use_case, replace(history.window, dropped={}), rows)
    history.folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=history.folder))
    try:
        params = tuned(ready.problem, recipe, scratch / STUDY)
        made, trained = stepping.made(ready, recipe, scratch / place.name, params)
        packaging.save_folds(trained, scratch / FOLDS)
        end = made.manifest.window["end"]
        saved = {"rows": len(rows), "until": end, "builder": recipe.builder, "params": params}
        saved["seconds"] = time.perf_counter() - started
        (scratch / TOLD).write_text(json.dumps(saved), "utf-8")
        shutil.rmtree(place, ignore_errors=True)  # cut short by another process, or its twin's
        scratch.replace(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def trained_of(model: Model) -> Trained:
    """A model with what its folds showed."""
    return packaging.load_folds(model.folder.parent / FOLDS, loaded(model.folder).scorer)


def search_of(model: Model) -> Search | None:
    """The search that a model's parameters come from; None where there was none."""
    store = model.folder.parent / STUDY
    return finished(store, STUDY_NAME) if store.is_file() else None


def give_back() -> None:
    """Give memory that is not needed any more back to the system: what hangs in cycles, and what Arrow keeps."""
    gc.collect()
    pa.default_memory_pool().release_unused()


def tuned(problem: TrainingData, recipe: Recipe, store: Path) -> dict[str, Any]:
    """The recipe's parameters, or the best of a search around them."""
    near = nearby(problem.use_case, recipe.builder, recipe.params, recipe.tune)
    if near is None:
        return dict(recipe.params)
    return dict(search(replace(problem, use_case=near), store, STUDY_NAME).best.params)


def _key(history: History, recipe: Recipe, rows: npt.NDArray[Any]) -> str:
    """Names a model by all that makes it."""
    settings = history.use_case.model_dump(mode="json", exclude={"policy", "alarms", "log", "gate", "source", "split"})
    told = {"settings": settings, "folds": history.use_case.split.folds, "params": recipe.params, "tune": recipe.tune}
    told |= {"builder": recipe.builder, "until": recipe.until.isoformat()}
    whole = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    whole.update(np.ascontiguousarray(history.marks[rows]).astype("<u8").tobytes())
    whole.update(np.ascontiguousarray(history.y[rows]).tobytes())
    return whole.hexdigest()[:20]


@lru_cache(maxsize=KEPT)
def answers(folder: Path, span: TimeWindow) -> tuple[npt.NDArray[np.bool_], Predictions]:
    """What a version answers for all rows of a window, and which it refuses; kept in the history's folder."""
    history, bundle = _history[0], _bundle(folder)
    rows = history.between(span.start, span.end)
    told = f"{bundle.digest} {span.start} {span.end} {rows} {history.window.fingerprint.sha256}"
    place = history.folder / f"answers-{hashlib.sha256(told.encode()).hexdigest()[:24]}.npz"
    if not place.is_file():
        started = time.perf_counter()
        checked, found = bundle.scorer.score(history.window.frame.iloc[rows])
        _predicting[0] += time.perf_counter() - started
        parts = {key: getattr(found, key) for key in ("prediction", "probabilities", "lower", "upper")}
        history.folder.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(f".{os.getpid()}.npz")
        np.savez(draft, bad=checked.bad, **{key: value for key, value in parts.items() if value is not None})
        draft.replace(place)
    with np.load(place, allow_pickle=False) as kept:
        table, lower, upper = (kept.get(key) for key in ("probabilities", "lower", "upper"))
        return kept["bad"], Predictions(kept["prediction"], table, lower, upper, bundle.scorer.classes)


def served(folder: Path, span: TimeWindow, now: datetime) -> AnsweredRows:
    """A window as a version answers it, with the outcomes that tell something of it at a time."""
    history, bundle = _history[0], _bundle(folder)
    rows = history.between(span.start, span.end)
    bad, predictions = answers(folder, span)
    frame = history.window.frame.iloc[rows].drop(columns=[history.use_case.target])
    return AnsweredRows(frame, predictions, bad, history.outcomes(bundle, rows, now), history.times[rows])


def look(folder: Path, span: TimeWindow, past: tuple[CalibrationEvidence, ...], now: datetime) -> WindowObservation:
    """A window as a model shows it at a time."""
    history = _history[0]
    return stepping.look(history.use_case, _bundle(folder), served(folder, span, now), span, past, now=now)


def duel(champion: Path, previous: Path, span: TimeWindow, now: datetime) -> PairedDifference:
    """Two models on the outcomes of a window that are known at a time."""
    ours, theirs = (served(folder, span, now) for folder in (champion, previous))
    return stepping.duel(_history[0].use_case, _bundle(champion), span.name, ours, theirs)


def gate_verdict(candidate: Path, champion: Path, now: datetime, past: tuple[ComparisonUse, ...]) -> Verdict:
    """The gate's verdict at a time on a model that was trained on all rows up to now, where no trial is allowed."""
    history, use_case = _history[0], _history[0].use_case
    ours, theirs = (LoadedVersion(folder.name, _bundle(folder), folder) for folder in (candidate, champion))
    end = theirs.bundle.manifest.window["end"]
    known = history.usable(now)
    rows = known if end is None else known[history.times[known] > np.datetime64(end, "us")]
    frame = history.window.frame.iloc[rows].reset_index(drop=True)
    y = data.encode_target(use_case, frame[use_case.target], ours.bundle.scorer.classes or ())
    case = by_last_fold(use_case, ours, theirs, HeldOut(frame, y, history.times[rows]), past)
    return gate.judge(gate.examine(case), case.window)


def realised(folder: Path, span: TimeWindow) -> dict[str, float]:
    """Every metric of a window with all its outcomes, in hindsight; "rows" is how many rows that are."""
    seen = served(folder, span, HINDSIGHT)
    keep = seen.known
    y, predictions = seen.y[keep], seen.predictions.take(keep)
    outcomes = y if predictions.classes is None else y.astype(np.intp)
    measured = {one.name: one(outcomes, predictions) for one in metrics_of(_history[0].use_case, predictions)}
    return {**measured, "rows": float(keep.sum())}


def versus(one: Path, other: Path, span: TimeWindow, money: bool) -> Comparison | None:  # noqa: FBT001 - a key of its memory
    """By how much one model is better than another on a window with all its outcomes, in hindsight; or in money."""
    ours, theirs, use_case = served(one, span, HINDSIGHT), served(other, span, HINDSIGHT), _history[0].use_case
    keep = ours.known & theirs.sound
    times = None if ours.times is None else ours.times[keep]
    both = PairedAnswers(ours.y[keep], ours.predictions.take(keep), theirs.predictions.take(keep), times)
    by = value_metric(use_case.metrics.value, both.candidate.classes) if money else None
    return stepping.compared(use_case, both, by)


# Who does them.


class InlineExecutor(Executor):
    """Does each piece at once, in this process."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """The piece, done."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except BaseException as error:  # noqa: BLE001 - the future hands it on to who asked
            future.set_exception(error)
        return future


class TaskRunner:
    """Hands pieces out to processes, each piece once, and counts the seconds that they took.

    Attributes:
        history: what it is done on.
        several: whether there are several processes.
        seconds: of each kind of piece, as the processes measured them; "predictions" are part of the others.
    """

    def __init__(self, history: History, processes: int = 1) -> None:
        self.history = history
        self.several = processes > 1
        self.seconds: dict[str, float] = {}
        self._asked: dict[tuple[Any, ...], Future[Any]] = {}
        self._handed: Path | None = None
        self._lock = threading.Lock()
        if processes > 1:
            self._handed = _handed_over(history)
            self.history = replace(history, window=replace(history.window, frame=history.window.frame.iloc[:0].copy()))
            for name, value in FREED_AT_ONCE.items():
                os.environ.setdefault(name, value)
            self._pool: Executor = ProcessPoolExecutor(
                processes, mp_context=get_context("spawn"), initializer=_begin_alone, initargs=(self._handed,)
            )
        else:
            _begin(history)
            self._pool = InlineExecutor()

    def ask(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The result of a piece of work; who asks second waits for the first."""
        key = (function.__name__, *(_frozen(argument) for argument in arguments))
        with self._lock:
            if key not in self._asked:
                self._asked[key] = self._pool.submit(_timed, function, arguments)
                mine = True
            else:
                mine = False
            future = self._asked[key]
        result, seconds, predicting = future.result()
        if mine:
            with self._lock:
                for name, spent in ((function.__name__, seconds), ("predictions", predicting)):
                    self.seconds[name] = self.seconds.get(name, 0.0) + spent
        found: Result = result
        return found

    def close(self) -> None:
        """Let the processes go; pieces that wait are not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._handed is not None:
            self._handed.unlink(missing_ok=True)


def _timed(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, float, float]:
    """The result, the seconds that it took, and how many of them went into answers of models."""
    started, before = time.perf_counter(), _predicting[0]
    result = function(*arguments)
    return result, time.perf_counter() - started, _predicting[0] - before


def _handed_over(history: History) -> Path:
    """The history in a file that only this user can read, for processes of this one; so that it is in memory once."""
    history.folder.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(suffix=".history", dir=history.folder)
    with os.fdopen(number, "wb") as file:
        pickle.dump(history, file, protocol=pickle.HIGHEST_PROTOCOL)
    return Path(name)


def _begin_alone(handed: Path) -> None:
    """A process of several: one thread each, for there is one process a core."""
    threadpool_limits(1)
    with handed.open("rb") as file:
        _begin(pickle.load(file))  # noqa: S301 - written by the process that started this one


def _frozen(argument: Any) -> Any:
    """An argument as a key."""
    if isinstance(argument, Recipe):
        return (argument.builder, json.dumps(argument.params, sort_keys=True, default=str), *_rest(argument))
    if isinstance(argument, tuple):
        return json.dumps([past.to_dict() for past in argument], sort_keys=True)
    return argument


def _rest(recipe: Recipe) -> tuple[Any, ...]:
    return (recipe.tune, recipe.train_on, recipe.minimum, recipe.until, recipe.troubled)


def spans(history: History, every: WindowLength, start: datetime, end: datetime) -> list[TimeWindow]:
    """The whole windows from `start` to `end` that have rows, in order.

    Args:
        history: the rows.
        every: the length of a window.
        start: the first begins no earlier.
        end: the last ends no later.
    """
    found = (TimeWindow(*one) for one in every.between(start, end))
    return [one for one in found if range(*history.between(one.start, one.end).indices(len(history.y)))]


def after(last: Any) -> datetime:
    """The end of a stretch of rows whose last one has this time, to the whole day: the last window may end there."""
    day = np.datetime64(last, "D") + np.timedelta64(1, "D")
    found: datetime = day.astype("datetime64[us]").item()
    return found


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
    found = WindowLength.parse(every.strip() or use_case.policy.every)
    if found is None:
        raise SettingsError("policy.every is empty: name the length of a window, such as 1d, 1w or 1mo.")
    return found


def rows_of(use_case: UseCase, end: datetime | None = None) -> data.Window:
    """The source's rows as a loop has them, here and live: from where training begins, where the use case says it.

    Rows whose outcome never came are among them, for they were answered all the same.
    """
    period = use_case.split.train
    return data.load(use_case, start=period.start if period else None, end=end, waiting=True)
