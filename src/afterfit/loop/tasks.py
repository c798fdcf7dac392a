"""What is asked of a labelled history: models, answers, looks, verdicts, and metrics in hindsight.

The result of a task depends on what it is asked for and nothing else, so that policies that ask for the same share it.
Models and their answers are kept in a folder, and a run that was interrupted goes on from there.
"""

import gc
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from afterfit import data, gate
from afterfit.data.windows import TimeWindow
from afterfit.gate.inputs import HeldOut, LoadedVersion, by_last_fold
from afterfit.gate.verdict import ComparisonUse, Verdict
from afterfit.loop import stepping
from afterfit.loop.history import History
from afterfit.loop.observe import metrics_of, paired
from afterfit.loop.policy import PairedDifference
from afterfit.loop.stepping import Recipe, WindowObservation
from afterfit.loop.task_runner import TaskWorker, loaded
from afterfit.model import packaging
from afterfit.model.training import Trained, TrainingData
from afterfit.model.tuning import Search, load_search, narrow_search, search
from afterfit.performance.estimation import CalibrationEvidence
from afterfit.performance.evaluation import value_metric
from afterfit.performance.paired_comparison import Comparison

HINDSIGHT = datetime(9000, 1, 1)  # noqa: DTZ001 - in the time column's own clock, as all times here
TOLD, FOLDS, STUDY = "told.json", "folds.npz", "study.journal"
"""Beside a model's bundle: what it cost, what its folds showed, and the search for its parameters, if there was one."""
STUDY_NAME = "around the last best"


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model in its folder: rows and time of the last, and what it cost to train, in seconds."""

    folder: Path
    rows: int
    until: datetime | None
    seconds: float
    builder: str
    params: Mapping[str, Any]


def train(worker: TaskWorker, recipe: Recipe) -> Model:
    """Train on the rows that a recipe takes, or find the model where it was trained before."""
    history = worker.history
    rows = _rows(history, recipe)
    place = history.folder / _key(history, recipe, rows)
    if not all((place / name).is_file() for name in (TOLD, FOLDS)):  # an older release kept no folds
        _trained(history, recipe, rows, place)
        give_back()
    saved = json.loads((place / TOLD).read_text("utf-8"))
    until = None if saved["until"] is None else datetime.fromisoformat(saved["until"])
    return Model(place / place.name, saved["rows"], until, saved["seconds"], saved["builder"], saved["params"])


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
    return load_search(store, STUDY_NAME) if store.is_file() else None


def give_back() -> None:
    """Give memory that is not needed any more back to the system: what hangs in cycles, and what Arrow keeps."""
    gc.collect()
    pa.default_memory_pool().release_unused()


def tuned(problem: TrainingData, recipe: Recipe, store: Path) -> dict[str, Any]:
    """The recipe's parameters, or the best of a search around them."""
    near = narrow_search(problem.use_case, recipe.builder, recipe.params, recipe.tune)
    if near is None:
        return dict(recipe.params)
    return dict(search(replace(problem, use_case=near), store, STUDY_NAME).best.params)


def _key(history: History, recipe: Recipe, rows: npt.NDArray[Any]) -> str:
    """Names a model by all that makes it."""
    settings = history.use_case.model_dump(mode="json", exclude={"policy", "alarms", "log", "gate", "source", "split"})
    parts = {"settings": settings, "folds": history.use_case.split.folds, "params": recipe.params, "tune": recipe.tune}
    parts |= {"builder": recipe.builder, "until": recipe.until.isoformat()}
    whole = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    whole.update(np.ascontiguousarray(history.marks[rows]).astype("<u8").tobytes())
    whole.update(np.ascontiguousarray(history.y[rows]).tobytes())
    return whole.hexdigest()[:20]


def observe(
    worker: TaskWorker, folder: Path, span: TimeWindow, past: tuple[CalibrationEvidence, ...], now: datetime
) -> WindowObservation:
    """A window as a model shows it at a time."""
    bundle, rows = worker.bundle(folder), worker.answered(folder, span, now)
    return stepping.observe_window(worker.history.use_case, bundle, rows, span, past, now=now)


def compare_versions(
    worker: TaskWorker, champion: Path, previous: Path, span: TimeWindow, now: datetime
) -> PairedDifference:
    """Two models on the outcomes of a window that are known at a time."""
    ours, theirs = (worker.answered(folder, span, now) for folder in (champion, previous))
    return stepping.compare_versions(worker.history.use_case, worker.bundle(champion), span.name, ours, theirs)


def gate_verdict(
    worker: TaskWorker, candidate: Path, champion: Path, now: datetime, past: tuple[ComparisonUse, ...]
) -> Verdict:
    """The gate's verdict at a time on a model that was trained on all rows up to now, where no trial is allowed."""
    history, use_case = worker.history, worker.history.use_case
    ours, theirs = (LoadedVersion(folder.name, worker.bundle(folder), folder) for folder in (candidate, champion))
    end = theirs.bundle.manifest.window["end"]
    known = history.usable(now)
    rows = known if end is None else known[history.times[known] > np.datetime64(end, "us")]
    frame = history.window.frame.iloc[rows].reset_index(drop=True)
    y = data.encode_target(use_case, frame[use_case.target], ours.bundle.scorer.classes or ())
    case = by_last_fold(use_case, ours, theirs, HeldOut(frame, y, history.times[rows]), past)
    return gate.judge(gate.examine(case), case.window)


def realised(worker: TaskWorker, folder: Path, span: TimeWindow) -> dict[str, float]:
    """Every metric of a window with all its outcomes, in hindsight; "rows" is how many rows that are."""
    window = worker.answered(folder, span, HINDSIGHT)
    keep = window.known
    outcomes, predictions = window.outcomes[keep], window.predictions.take(keep)
    metrics = metrics_of(worker.history.use_case, predictions)
    return {**{metric.name: metric(outcomes, predictions) for metric in metrics}, "rows": float(keep.sum())}


def compare_in_hindsight(
    worker: TaskWorker, candidate: Path, champion: Path, span: TimeWindow, *, money: bool
) -> Comparison | None:
    """By how much one model is better than another on a window with all its outcomes; in money where that is asked."""
    rows = paired(*(worker.answered(folder, span, HINDSIGHT) for folder in (candidate, champion)))
    use_case = worker.history.use_case
    by = value_metric(use_case.metrics.value, rows.candidate.classes) if money else None
    return stepping.compared(use_case, rows, by)
