"""The prediction log of a bundle that something else serves: MLflow's server, Spark, a notebook."""

import os
import threading
import time

import pandas as pd

from afterfit import prediction_log
from afterfit.model.bundle import Bundle
from afterfit.prediction_log import from_bundle
from afterfit.prediction_log.spool import Spool


class ServedLog:
    """Answers that are in the log of a folder before they are returned; several threads may ask at once."""

    def __init__(self, place: str, bundle: Bundle) -> None:
        self._place = place
        self._bundle = bundle
        self._lock = threading.Lock()
        self._spool: Spool | None = None
        self._pid = 0

    def answers(self, frame: pd.DataFrame) -> list[dict[str, object]]:
        """The bundle's answers, logged.

        Raises:
            LogError: they could not be logged, and are not given.
            SchemaError: two columns have the same name.
        """
        began = time.perf_counter()
        answers = self._bundle.answers(frame)
        now = time.time_ns() // 1000
        names = [str(name) for name in frame.columns]
        rows = [dict(zip(names, row, strict=True)) for row in frame.to_numpy(dtype=object)]
        self._opened().write(from_bundle.entries(self._bundle, rows, answers, now, time.perf_counter() - began))
        return answers

    def _opened(self) -> Spool:
        """This process's spool; a process that was forked meanwhile makes its own."""
        with self._lock:
            if self._spool is None or self._pid != os.getpid():
                log = prediction_log.log_at(self._place, self._bundle.manifest.name)
                assert log is not None  # noqa: S101 - the place is not empty
                self._spool, self._pid = log.spool(), os.getpid()
            return self._spool
