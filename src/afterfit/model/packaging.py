"""From training rows to a bundle: the prepared table, the manifest of a version, and the folder with its files."""

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
from afterfit.model.scorer import Scorer
from afterfit.model.training import CVScore, Trained, TrainingData, errormap, prepare, reference
from afterfit.model.version_files import code_digest
from afterfit.package import ROOT
from afterfit.performance.evaluation import metric
from afterfit.performance.predictions import Predictions
from afterfit.use_case import UseCase

PACKAGES = (
    "boto3", "cryptography", "mlflow", "numpy", "orjson", "pandas", "pyarrow", "pydantic", "pyyaml", "scikit-learn",
    "scipy", "skops", "threadpoolctl",
)  # fmt: skip
"""Packages that the code that travels with a version imports."""
EXAMPLE_ROWS = 3
ANSWER_PARTS = ("prediction", "probabilities", "lower", "upper")
"""The arrays of `Predictions`."""


@dataclass(frozen=True, slots=True)
class Table:
    """A use case's prepared training table, with its origin and the rows that were left out."""

    problem: TrainingData
    name: str
    train: data.Fingerprint
    left_out: Mapping[str, int]
    marks: npt.NDArray[np.uint64]


def table(use_case: UseCase, window: data.Window, rows: npt.NDArray[Any]) -> Table:
    """Prepare some rows of a window for training.

    Args:
        use_case: its settings.
        window: rows with known targets.
        rows: (m,) positions of the training rows.
    """
    frame = window.frame.iloc[rows].reset_index(drop=True)
    use_case = data.with_formats(use_case, window.formats)
    classes = data.classes(use_case, frame[use_case.target]) if use_case.task == "classification" else None
    y = data.encode_target(use_case, frame[use_case.target], classes or ())
    problem = prepare(use_case, frame, y, classes)
    left_out = dict(window.dropped)
    if problem.refused:
        left_out["refused by the contract"] = problem.refused
    marks = data.kept_fingerprints(data.row_fingerprints(use_case, frame))
    return Table(problem, window.name, data.fingerprint(use_case, frame), left_out, marks)


def write_bundle(
    training_table: Table, recipe: tuple[str, Mapping[str, Any]], trained: Trained, folder: Path, created: datetime
) -> Bundle:
    """Write a trained model with everything that is known about it into a folder, and load it from there.

    Args:
        training_table: what it was trained on.
        recipe: builder and parameters.
        trained: the model.
        folder: where to write it.
        created: its time of creation, for the manifest.
    """
    manifest = manifest_of(training_table, *recipe, trained, created)
    profiles = reference(training_table.problem, trained)
    return save(
        trained.scorer,
        manifest,
        example_of(training_table),
        folder,
        rows=training_table.marks,
        reference=profiles,
        out_of_fold=out_of_fold_of(training_table, trained),
        errormap=errormap(training_table.problem, trained),
    )


def out_of_fold_of(training_table: Table, trained: Trained) -> OutOfFold | None:
    """The predictions of the last fold; None where not every row of the table has a fingerprint."""
    rows = trained.rows[len(trained.rows) - trained.last :]
    if not len(rows) or len(training_table.marks) != len(training_table.problem.frame):
        return None
    return OutOfFold(
        training_table.marks[rows],
        trained.out_of_fold_final.take(np.arange(len(trained.rows) - trained.last, len(trained.rows))),
    )


def save_folds(trained: Trained, file: Path) -> None:
    """Write the results of the folds, which a bundle does not contain, so that they can be logged later.

    Args:
        trained: the model.
        file: an `.npz` file.
    """
    names = list(trained.metrics)
    arrays: dict[str, Any] = {"names": np.array(names), "rows": trained.rows, "last": np.array(trained.last)}
    for key, scores in (("metrics", trained.metrics), ("dummy", trained.dummy)):
        arrays[key] = np.array([scores[name].folds for name in names])
    for key, answers in (("out_of_fold", trained.out_of_fold), ("unseen", trained.out_of_fold_final)):
        parts = {f"{key}_{part}": getattr(answers, part) for part in ANSWER_PARTS}
        arrays |= {name: values for name, values in parts.items() if values is not None}
    np.savez(file, **arrays)


def load_folds(file: Path, scorer: Scorer) -> Trained:
    """Restore a trained model from its scorer and the file that `save_folds` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        names = [str(name) for name in arrays["names"]]
        metrics, dummy = (
            {name: CVScore.of(row.tolist(), metric(name).bounds) for name, row in zip(names, arrays[key], strict=True)}
            for key in ("metrics", "dummy")
        )
        out_of_fold, out_of_fold_final = (
            Predictions(**{part: arrays.get(f"{key}_{part}") for part in ANSWER_PARTS}, classes=scorer.classes)
            for key in ("out_of_fold", "unseen")
        )
        return Trained(scorer, metrics, dummy, out_of_fold, arrays["rows"], out_of_fold_final, int(arrays["last"]))


def manifest_of(
    training_table: Table, builder: str, params: Mapping[str, Any], trained: Trained, created: datetime
) -> Manifest:
    """Everything known about a version besides its estimator."""
    use_case = training_table.problem.use_case
    expected = {
        name: {"mean": finite(score.mean), "sd": finite(score.sd), "low": finite(score.low), "high": finite(score.high)}
        for name, score in trained.metrics.items()
    }
    window = {
        "name": training_table.name,
        "sha256": training_table.train.sha256,
        "rows": training_table.train.rows,
        "start": training_table.train.start,
        "end": training_table.train.end,
    }
    written = {name: data.format_of(use_case, name) for name in (use_case.time, use_case.target) if name}
    formats = {name: text for name, text in written.items() if text is not None}
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
        expected=expected,
        created=created.isoformat(timespec="seconds"),
        packages={name: installed(name) for name in PACKAGES},
        code=code_digest(ROOT),
        formats=formats,
        row_rule=data.rule_of(use_case).to_dict(),
    )


def finite(value: float) -> float | None:
    """A number, or None where it is not finite."""
    return value if np.isfinite(value) else None


def settings_digest(use_case: UseCase) -> str:
    """Sha256 of a use case's settings, independent of the order and comments of its file."""
    return hashlib.sha256(json.dumps(use_case.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]


def example_of(training_table: Table) -> list[dict[str, Any]]:
    """A few training rows as a client would send them; private values are null, or placeholders where required."""
    problem = training_table.problem
    rows = problem.frame.iloc[:: max(len(problem.frame) // EXAMPLE_ROWS, 1)].head(EXAMPLE_ROWS)
    private: dict[str, Any] = dict.fromkeys(problem.use_case.columns.private)
    private |= {
        column.name: PLACEHOLDERS[column.kind]
        for column in problem.contract.columns
        if column.private and column.required
    }
    return [
        {str(name): private[str(name)] if name in private else json_value(value) for name, value in row.items()}
        for row in rows.to_dict(orient="records")
    ]


def json_value(value: Any) -> Any:
    """A cell as a JSON value: dates as ISO text, missing as None, NumPy scalars as Python's."""
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return None
    if isinstance(value, pd.Timestamp | datetime):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value
