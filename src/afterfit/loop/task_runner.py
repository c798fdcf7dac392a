"""Tasks on a labelled history, each done once: in this process, or over a few."""

import json
import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from afterfit.loop import tasks
from afterfit.loop.history import History
from afterfit.loop.stepping import Recipe

Result = TypeVar("Result")
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576", "MALLOC_ARENA_MAX": "2"}
"""For processes that train: what a training needed goes back to the system when it is over (glibc; else ignored)."""


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
            tasks.begin(history)
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
    started, before = time.perf_counter(), tasks.predicting[0]
    result = function(*arguments)
    return result, time.perf_counter() - started, tasks.predicting[0] - before


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
        tasks.begin(pickle.load(file))  # noqa: S301 - written by the process that started this one


def _frozen(argument: Any) -> Any:
    """An argument as a key."""
    if isinstance(argument, Recipe):
        return (argument.builder, json.dumps(argument.params, sort_keys=True, default=str), *_rest(argument))
    if isinstance(argument, tuple):
        return json.dumps([past.to_dict() for past in argument], sort_keys=True)
    return argument


def _rest(recipe: Recipe) -> tuple[Any, ...]:
    return (recipe.tune, recipe.train_on, recipe.minimum, recipe.until, recipe.troubled)
