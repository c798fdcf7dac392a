"""The model artefact: a folder of JSON and skops files that answers row by row, and refuses to load when altered."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import skops.io

from afterfit.calibration import Calibration
from afterfit.checks import Checked
from afterfit.encoder import Encoder
from afterfit.errors import BundleError
from afterfit.predictions import Predictions
from afterfit.scorer import Scorer

FORMAT = 1
FILES = ("contract.json", "encoder.json", "estimator.skops", "example.json", "manifest.json", "rows.npy")
TRUSTED = frozenset(
    {
        "functools.partial",  # of functions that are themselves on a list, such as the next
        "numpy.dtype",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.MultinomialLogit",
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.LogLink",
        "sklearn._loss.loss.AbsoluteError",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfMultinomialLoss",
        "sklearn._loss.loss.HalfSquaredError",
        "sklearn._loss._loss.CyAbsoluteError",
        "sklearn._loss._loss.CyHalfBinomialLoss",
        "sklearn._loss._loss.CyHalfMultinomialLoss",
        "sklearn._loss._loss.CyHalfSquaredError",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.tree._tree.Tree",
        "sklearn.utils.validation.check_array",
    }
)
"""Types beyond skops' own safe list that an estimator may hold. Fixed: a bundle cannot add to it."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a version besides its estimator.

    Attributes:
        name: the use case's name.
        task: classification or regression.
        target: the target's column.
        builder: which builder made the estimator.
        params: the builder's parameters.
        settings: sha256 of the use case's settings.
        window: name, sha256, rows, start and end of the training rows.
        time: the time column, or None.
        key: the columns that name a row.
        promise: for each metric mean, sd, low and high over the folds.
        created: ISO time of training.
        packages: versions of the packages that made it.
        code: sha256 of the code that travels with it.
    """

    name: str
    task: str
    target: str
    builder: str
    params: Mapping[str, Any]
    settings: str
    window: Mapping[str, Any]
    time: str | None
    key: tuple[str, ...]
    promise: Mapping[str, Mapping[str, float | None]]
    created: str
    packages: Mapping[str, str]
    code: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A scorer with its manifest: rows in, answers out, each row by itself.

    Attributes:
        scorer: contract, encoder, estimator and calibration.
        manifest: where it comes from.
        digest: sha256 over the bundle's files.
        example: a few rows as a client would send them.
        version: the registry version it was loaded as, or None.
        rows: (m,) uint64, sorted: fingerprints of its training rows (`afterfit.data.row_marks`), for the gate.
    """

    scorer: Scorer
    manifest: Manifest
    digest: str
    example: tuple[Mapping[str, Any], ...]
    version: str | None = None
    rows: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))

    def answers(self, frame: pd.DataFrame) -> list[dict[str, Any]]:
        """One answer a row: prediction, probability or interval, confidence, version, warnings, error. JSON-ready."""
        if len(frame) == 1:
            return [self.answer(dict(zip(frame.columns, frame.to_numpy(dtype=object)[0], strict=True)))]
        checked, predictions = self.scorer.score(frame)
        return list(self._answers(checked, predictions))

    def answer(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one row, without pandas on the way."""
        checked = self.scorer.contract.check_row(row)
        if checked.errors:
            return self._answer({}, checked.warnings, checked.errors)
        matrix = np.array([self.scorer.encoder.encode_row(checked)])
        return self._answer(next(_parts(self.scorer.predict(matrix))), checked.warnings, [])

    def _answers(self, checked: Checked, predictions: Predictions) -> Iterator[dict[str, Any]]:
        warnings, errors = checked.warnings_by_row(), checked.errors_by_row()
        for row, part in enumerate(_parts(predictions)):
            faults = errors.get(row, [])
            yield self._answer({} if faults else part, [*warnings.get(row, []), *checked.unknown], faults)

    def _answer(
        self, part: Mapping[str, Any], warnings: list[dict[str, Any]], errors: list[dict[str, Any]]
    ) -> dict[str, Any]:
        empty = self._empty
        if part and part["prediction"] is None:
            errors = [{"column": None, "code": "no_number", "value": None, "message": "The model answered no number."}]
            part = {}
        return {
            "prediction_id": os.urandom(16).hex(),
            **empty,
            **part,
            "model_version": self.version,
            "warnings": warnings,
            "error": errors[0] if errors else None,
        }

    @property
    def _empty(self) -> dict[str, Any]:
        if self.scorer.classes is None:
            return {"prediction": None, "lower": None, "upper": None}
        named = "probability" if len(self.scorer.classes) == 2 else "probabilities"
        return {"prediction": None, named: None, "confidence": None}


def _parts(predictions: Predictions) -> Iterator[dict[str, Any]]:
    """Each row's own part of its answer; a prediction that is no finite number is None."""
    if predictions.classes is None:
        values = predictions.prediction.tolist()
        lower, upper = (_list(end, len(values)) for end in (predictions.lower, predictions.upper))
        for value, low, high in zip(values, lower, upper, strict=True):
            known = np.isfinite(value)
            yield {"prediction": value if known else None, "lower": low if known else None, "upper": high}
        return
    labels = [predictions.classes[index] for index in predictions.prediction.tolist()]
    table, confidence = np.asarray(predictions.probabilities), predictions.confidence
    sure = [None] * len(labels) if confidence is None else confidence.tolist()
    finite = np.isfinite(table).all(axis=1).tolist()
    if len(predictions.classes) == 2:
        for label, positive, certain, known in zip(labels, table[:, 1].tolist(), sure, finite, strict=True):
            yield {"prediction": label if known else None, "probability": positive, "confidence": certain}
        return
    names = [str(label) for label in predictions.classes]
    for label, row, certain, known in zip(labels, table.tolist(), sure, finite, strict=True):
        shares = dict(zip(names, row, strict=True))
        yield {"prediction": label if known else None, "probabilities": shares, "confidence": certain}


def _list(values: Any, rows: int) -> Iterable[float | None]:
    return [None] * rows if values is None else values.tolist()


def save(
    scorer: Scorer,
    manifest: Manifest,
    example: Sequence[Mapping[str, Any]],
    folder: Path,
    rows: npt.NDArray[np.uint64] | None = None,
) -> Bundle:
    """Write a bundle into an empty folder and read it back, so that what is there is known to load.

    Args:
        scorer: what answers.
        manifest: where it comes from.
        example: a few rows as a client would send them.
        folder: absent, or empty.
        rows: fingerprints of the training rows.

    Raises:
        BundleError: the estimator holds a type outside the allow-list, or cannot be written by skops.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "contract.json", scorer.contract.to_dict())
    _write(folder / "encoder.json", {k: v for k, v in scorer.encoder.to_dict().items() if k != "contract"})
    _write(folder / "example.json", list(example))
    _write(folder / "manifest.json", {"format": FORMAT, **_fields(manifest), **_scorer_fields(scorer)})
    np.save(folder / "rows.npy", np.sort(np.empty(0, dtype=np.uint64) if rows is None else rows), allow_pickle=False)
    try:
        skops.io.dump(scorer.estimator, folder / "estimator.skops")
    except Exception as error:
        raise BundleError(f"The estimator {type(scorer.estimator).__name__} cannot be written: {error}") from error
    return load(folder)


def load(folder: Path, expected_digest: str | None = None, version: str | None = None) -> Bundle:
    """Read a bundle; never unpickles.

    Args:
        folder: where `save` wrote it.
        expected_digest: the digest that was recorded at registration; anything else is refused before it is read.
        version: the registry version that it is.

    Raises:
        BundleError: a file is missing or altered, the format is unknown, or the estimator holds a type outside the
            allow-list.
    """
    found = digest(folder)
    if expected_digest is not None and found != expected_digest:
        raise BundleError(
            f"The bundle in '{folder}' is not the one that was registered: its digest is {found[:12]}…, "
            f"registered was {expected_digest[:12]}…. Train and register it again, or find out who changed it."
        )
    manifest = _read(folder / "manifest.json")
    if manifest.get("format") != FORMAT:
        raise BundleError(
            f"The bundle in '{folder}' has format {manifest.get('format')!r}; this release reads {FORMAT}."
        )
    calibration, classes, offsets = manifest["calibration"], manifest["classes"], manifest["offsets"]
    encoder = Encoder.from_dict({**_read(folder / "encoder.json"), "contract": _read(folder / "contract.json")})
    scorer = Scorer(
        encoder.contract,
        encoder,
        _estimator(folder / "estimator.skops"),
        None if classes is None else tuple(classes),
        None if calibration is None else Calibration.from_dict(calibration),
        None if offsets is None else (offsets[0], offsets[1]),
        tuple(manifest["baseline"]),
    )
    known = {key: manifest[key] for key in Manifest.__dataclass_fields__}
    known["key"] = tuple(known["key"])
    rows = np.load(folder / "rows.npy", allow_pickle=False)
    return Bundle(scorer, Manifest(**known), found, tuple(_read(folder / "example.json")), version, rows)


def digest(folder: Path) -> str:
    """Sha256 over the names and contents of a bundle's files.

    Raises:
        BundleError: a file is missing.
    """
    whole = hashlib.sha256()
    for name in FILES:
        path = folder / name
        if not path.is_file():
            raise BundleError(f"The bundle in '{folder}' is not whole: {name} is missing.")
        whole.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def code_digest(package: Path) -> str:
    """Sha256 over the names and contents of a package's files; caches left aside."""
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(package).as_posix()
            whole.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def check_code(home: Path, expected: str, loader: str) -> None:
    """Hold the code that travels with a model against what was logged.

    Args:
        home: the model's folder, with the package in `code/afterfit` and the file that MLflow runs beside MLmodel.
        expected: the package's digest, as the bundle's manifest has it.
        loader: the name of the file that MLflow runs, a copy of the one of that name in the package.

    Raises:
        BundleError: a file is missing, or another one than was logged.
    """
    package = home / "code" / "afterfit"
    try:
        same = code_digest(package) == expected and (home / loader).read_bytes() == (package / loader).read_bytes()
    except OSError as error:
        raise BundleError(f"The code that travels with the model in '{home}' is not whole: {error}") from error
    if not same:
        raise BundleError(
            f"The code that travels with the model in '{home}' is not the code that it was logged with. "
            "Train and register it again, or find out who changed it."
        )


def _estimator(path: Path) -> Any:
    try:
        unknown = set(skops.io.get_untrusted_types(file=path)) - TRUSTED
        estimator = None if unknown else skops.io.load(path, trusted=sorted(TRUSTED))
    except Exception as error:
        raise BundleError(f"The estimator in '{path}' cannot be read: {error}") from error
    if unknown:
        listed = ", ".join(sorted(unknown))
        raise BundleError(f"The estimator in '{path}' holds types that are not on the allow-list: {listed}.")
    return estimator


def _fields(manifest: Manifest) -> dict[str, Any]:
    return {key: getattr(manifest, key) for key in Manifest.__dataclass_fields__}


def _scorer_fields(scorer: Scorer) -> dict[str, Any]:
    return {
        "classes": scorer.classes,
        "calibration": None if scorer.calibration is None else scorer.calibration.to_dict(),
        "offsets": scorer.offsets,
        "baseline": scorer.baseline,
    }


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n", "utf-8")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise BundleError(f"'{path}' is not readable as JSON: {error}") from error
