"""Tasks on a labelled history, each done once: in this process, or over a few."""

import gc
import hashlib
import json
import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import astuple, replace
from datetime import datetime
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from afterfit.data.windows import TimeWindow
from afterfit.loop.history import History
from afterfit.loop.observe import AnsweredRows
from afterfit.loop.stepping import Recipe
from afterfit.model.bundle import Bundle, load
from afterfit.performance.predictions import Predictions

Given = ParamSpec("Given")
Result = TypeVar("Result")
KEPT = 4
"""Bundles and answers that a process keeps in memory."""
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576", "MALLOC_ARENA_MAX": "2"}
"""For processes that train: what a training needed goes back to the system when it is over (glibc; else ignored)."""


class TaskWorker:
    """Does tasks in one process: it owns the history, and the bundles and answers that were used last.

    Attributes:
        history: the rows, and the folder that models and answers are kept in.
        predicting: seconds spent on answers so far.
        bundle: the bundle in a folder; its version is the folder's name.
        answers: what the version in a folder answers for all rows of a window, and (n,) which rows it refuses.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.predicting = 0.0
        self.bundle: Callable[[Path], Bundle] = lru_cache(KEPT)(loaded)
        self.answers: Callable[[Path, TimeWindow], tuple[npt.NDArray[np.bool_], Predictions]]
        self.answers = lru_cache(KEPT)(self._answers)

    def do(
        self, task: Callable[..., Result], given: Sequence[Any], named: Mapping[str, Any]
    ) -> tuple[Result, float, float]:
        """The result of a task, the seconds that it took, and how many of them went into answers of models."""
        started, before = time.perf_counter(), self.predicting
        result = task(self, *given, **named)
        return result, time.perf_counter() - started, self.predicting - before

    def answered(self, folder: Path, span: TimeWindow, now: datetime) -> AnsweredRows:
        """A window as a version answers it, with the outcomes that say something about it at a time."""
        history = self.history
        rows = history.between(span.start, span.end)
        bad, predictions = self.answers(folder, span)
        frame = history.window.frame.iloc[rows].drop(columns=[history.use_case.target])
        outcomes = history.outcomes(self.bundle(folder), rows, now)
        return AnsweredRows(frame, predictions, bad, outcomes, history.times[rows])

    def _answers(self, folder: Path, span: TimeWindow) -> tuple[npt.NDArray[np.bool_], Predictions]:
        """From the history's folder, where they were kept by whichever process."""
        history, bundle = self.history, self.bundle(folder)
        rows = history.between(span.start, span.end)
        key = f"{bundle.digest} {span.start} {span.end} {rows} {history.window.fingerprint.sha256}"
        place = history.folder / f"answers-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
        if not place.is_file():
            started = time.perf_counter()
            checked, predictions = bundle.scorer.score(history.window.frame.iloc[rows])
            self.predicting += time.perf_counter() - started
            parts = {key: getattr(predictions, key) for key in ("prediction", "probabilities", "lower", "upper")}
            history.folder.mkdir(parents=True, exist_ok=True)
            draft = place.with_suffix(f".{os.getpid()}.npz")
            np.savez(draft, bad=checked.bad, **{key: value for key, value in parts.items() if value is not None})
            draft.replace(place)
        with np.load(place, allow_pickle=False) as kept:
            table, lower, upper = (kept.get(key) for key in ("probabilities", "lower", "upper"))
            return kept["bad"], Predictions(kept["prediction"], table, lower, upper, bundle.scorer.classes)


def loaded(folder: Path) -> Bundle:
    """The bundle in a folder; its version is the folder's name."""
    return load(folder, version=folder.name)


class InlineExecutor(Executor):
    """Does each task at once, in this process."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """The task, done."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except BaseException as error:  # noqa: BLE001 - the future hands it on to who asked
            future.set_exception(error)
        return future


class TaskRunner:
    """Hands tasks out to processes, each task once, and counts the seconds that they took.

    Attributes:
        history: what tasks are done on; without its rows where other processes have them.
        several: whether there are several processes.
        seconds: of each kind of task, as the processes measured them; "predictions" are part of the others.
    """

    def __init__(self, history: History, processes: int = 1) -> None:
        self.history = history
        self.several = processes > 1
        self.seconds: dict[str, float] = {}
        self._asked: dict[tuple[Any, ...], Future[Any]] = {}
        self._handed: Path | None = None
        self._lock = threading.Lock()
        self._pool: Executor
        self._do: Callable[..., tuple[Any, float, float]]
        if processes > 1:
            self._handed = _handed_over(history)
            self.history = replace(history, window=replace(history.window, frame=history.window.frame.iloc[:0].copy()))
            for name, value in FREED_AT_ONCE.items():
                os.environ.setdefault(name, value)
            self._pool = ProcessPoolExecutor(
                processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(self._handed,)
            )
            self._do = _do
        else:
            self._pool, self._do = InlineExecutor(), TaskWorker(history).do

    def ask(
        self, task: Callable[Concatenate[TaskWorker, Given], Result], *given: Given.args, **named: Given.kwargs
    ) -> Result:
        """The result of a task; who asks for the same again waits for the first.

        Args:
            task: a function of a module, which a worker is given as the first argument.
            given: the others.
            named: those that are given by name.
        """
        key = (task.__name__, *map(_frozen, given), *sorted(named.items()))
        with self._lock:
            first = key not in self._asked
            if first:
                self._asked[key] = self._pool.submit(self._do, task, given, named)
            future = self._asked[key]
        result: Result
        result, seconds, predicting = future.result()
        if first:
            with self._lock:
                for name, spent in ((task.__name__, seconds), ("predictions", predicting)):
                    self.seconds[name] = self.seconds.get(name, 0.0) + spent
        return result

    def close(self) -> None:
        """Let the processes go; tasks that wait are not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._handed is not None:
            self._handed.unlink(missing_ok=True)


def _frozen(argument: Any) -> Any:
    """An argument as a key."""
    if isinstance(argument, Recipe):
        return json.dumps(astuple(argument), sort_keys=True, default=str)
    if isinstance(argument, tuple):
        return json.dumps([past.to_dict() for past in argument], sort_keys=True)
    return argument


def _handed_over(history: History) -> Path:
    """The history in a file that only this user can read, for processes of this one; so that it is in memory once."""
    history.folder.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(suffix=".history", dir=history.folder)
    with os.fdopen(number, "wb") as file:
        pickle.dump(history, file, protocol=pickle.HIGHEST_PROTOCOL)
    return Path(name)


# In a process of several.

_worker: TaskWorker
"""The worker of this process. A pool passes tasks nothing that its initializer made: it has to lie in the module."""


def _begin(handed: Path) -> None:
    """Make the worker, once a process; one thread each, for there is one process a core."""
    global _worker  # noqa: PLW0603 - set here only, before the process's first task
    threadpool_limits(1)
    with handed.open("rb") as file:
        _worker = TaskWorker(pickle.load(file))  # noqa: S301 - written by the process that started this one
    gc.freeze()  # what was loaded so far lives as long as the process


def _do(task: Callable[..., Any], given: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, float, float]:
    return _worker.do(task, given, named)
