"""From training rows to a bundle: the table made ready, what a version says of itself, and the folder that holds it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit import data
from afterfit.contract.columns import PLACEHOLDERS
from afterfit.model.bundle import Bundle, Manifest, OutOfFold, save
from afterfit.model.safe_loading import code_digest
from afterfit.model.scorer import Scorer
from afterfit.model.training import CVScore, Trained, TrainingData, errormap, prepare, reference
from afterfit.package import ROOT
from afterfit.performance.evaluation import metric
from afterfit.performance.predictions import Predictions
from afterfit.use_case import UseCase

PACKAGES = (
    "boto3", "mlflow", "numpy", "orjson", "pandas", "pyarrow", "pydantic", "pyyaml", "scikit-learn", "scipy", "skops",
    "threadpoolctl",
)  # fmt: skip
"""What the code that travels with a version imports."""
EXAMPLE_ROWS = 3
ANSWER_PARTS = ("prediction", "probabilities", "lower", "upper")
"""The arrays of `Predictions`."""


@dataclass(frozen=True, slots=True)
class Table:
    """A use case's training table, ready to train on; where it is from, and what was left out on the way."""

    problem: TrainingData
    name: str
    train: data.Fingerprint
    left_out: Mapping[str, int]
    marks: npt.NDArray[np.uint64]


def table(use_case: UseCase, window: data.Window, rows: npt.NDArray[Any]) -> Table:
    """Make some rows of a window ready to train on.

    Args:
        use_case: its settings.
        window: rows with known targets.
        rows: (m,) positions of those that train.
    """
    frame = window.frame.iloc[rows].reset_index(drop=True)
    classes = data.classes(use_case, frame[use_case.target]) if use_case.task == "classification" else None
    y = data.encode_target(use_case, frame[use_case.target], classes or ())
    problem = prepare(use_case, frame, y, classes)
    left_out = dict(window.dropped)
    if problem.refused:
        left_out["refused by the contract"] = problem.refused
    marks = data.kept_fingerprints(data.row_fingerprints(use_case, frame))
    return Table(problem, window.name, data.fingerprint(frame, use_case.time), left_out, marks)


def bundled(
    made: Table, recipe: tuple[str, Mapping[str, Any]], trained: Trained, folder: Path, created: datetime
) -> Bundle:
    """Write a trained model with all that is known of it into a folder, and read it back.

    Args:
        made: what it was trained on.
        recipe: builder and parameters.
        trained: the model.
        folder: where to.
        created: when, for its manifest.
    """
    manifest, profiles = manifest_of(made, *recipe, trained, created), reference(made.problem, trained)
    return save(
        trained.scorer,
        manifest,
        example_of(made),
        folder,
        rows=made.marks,
        reference=profiles,
        unseen=out_of_fold_of(made, trained),
        errormap=errormap(made.problem, trained),
    )


def out_of_fold_of(made: Table, trained: Trained) -> OutOfFold | None:
    """What the last fold answered; None where not all rows have a fingerprint of their own here."""
    rows = trained.rows[len(trained.rows) - trained.last :]
    if not len(rows) or len(made.marks) != len(made.problem.frame):
        return None
    return OutOfFold(
        made.marks[rows], trained.unseen.take(np.arange(len(trained.rows) - trained.last, len(trained.rows)))
    )


def save_folds(trained: Trained, file: Path) -> None:
    """Write what the folds showed, which a bundle does not hold, so that it can be logged later.

    Args:
        trained: the model.
        file: an `.npz` file.
    """
    names = list(trained.metrics)
    arrays: dict[str, Any] = {"names": np.array(names), "rows": trained.rows, "last": np.array(trained.last)}
    for key, scores in (("metrics", trained.metrics), ("dummy", trained.dummy)):
        arrays[key] = np.array([scores[name].folds for name in names])
    for key, answers in (("out_of_fold", trained.out_of_fold), ("unseen", trained.unseen)):
        parts = {f"{key}_{part}": getattr(answers, part) for part in ANSWER_PARTS}
        arrays |= {name: values for name, values in parts.items() if values is not None}
    np.savez(file, **arrays)


def load_folds(file: Path, scorer: Scorer) -> Trained:
    """A trained model again, from its scorer and the file that `save_folds` wrote."""
    with np.load(file, allow_pickle=False) as kept:
        names = [str(name) for name in kept["names"]]
        metrics, dummy = (
            {name: CVScore.of(row.tolist(), metric(name).bounds) for name, row in zip(names, kept[key], strict=True)}
            for key in ("metrics", "dummy")
        )
        out_of_fold, unseen = (
            Predictions(**{part: kept.get(f"{key}_{part}") for part in ANSWER_PARTS}, classes=scorer.classes)
            for key in ("out_of_fold", "unseen")
        )
        return Trained(scorer, metrics, dummy, out_of_fold, kept["rows"], unseen, int(kept["last"]))


def manifest_of(made: Table, builder: str, params: Mapping[str, Any], trained: Trained, created: datetime) -> Manifest:
    """What is known of a version besides its estimator."""
    use_case = made.problem.use_case
    promise = {
        name: {"mean": finite(s.mean), "sd": finite(s.sd), "low": finite(s.low), "high": finite(s.high)}
        for name, s in trained.metrics.items()
    }
    window = {
        "name": made.name,
        "sha256": made.train.sha256,
        "rows": made.train.rows,
        "start": made.train.start,
        "end": made.train.end,
    }
    return Manifest(
        name=use_case.name,
        task=use_case.task,
        target=use_case.target,
        builder=builder,
        params=dict(params),
        settings=settings_digest(use_case),
        window=window,
        time=use_case.time,
        key=use_case.key,
        promise=promise,
        created=created.isoformat(timespec="seconds"),
        packages={name: installed(name) for name in PACKAGES},
        code=code_digest(ROOT),
    )


def finite(value: float) -> float | None:
    """A number, or None where it is not finite."""
    return value if np.isfinite(value) else None


def settings_digest(use_case: UseCase) -> str:
    """Sha256 of a use case's settings, whatever the order and comments of its file."""
    return hashlib.sha256(json.dumps(use_case.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]


def example_of(made: Table) -> list[dict[str, Any]]:
    """A few training rows as a client would send them; private values left out, made up where one is required."""
    rows = made.problem.frame.iloc[:: max(len(made.problem.frame) // EXAMPLE_ROWS, 1)].head(EXAMPLE_ROWS)
    hidden: dict[str, Any] = dict.fromkeys(made.problem.use_case.columns.private)
    hidden |= {
        one.name: PLACEHOLDERS[one.kind] for one in made.problem.contract.columns if one.private and one.required
    }
    return [
        {str(name): hidden[str(name)] if name in hidden else plain(value) for name, value in row.items()}
        for row in rows.to_dict(orient="records")
    ]


def plain(value: Any) -> Any:
    """A cell as JSON carries it: dates as ISO text, missing as None, NumPy scalars as Python's."""
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return None
    if isinstance(value, pd.Timestamp | datetime):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value
