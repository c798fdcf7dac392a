"""The model artefact: a folder of JSON and skops files that answers row by row, and refuses to load when altered."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.encoder import Encoder
from afterfit.data.fingerprints import trained_fingerprints
from afterfit.data.reading import inherit
from afterfit.drift.profiles import Profile
from afterfit.drift.reference import Reference
from afterfit.errors import BundleError, DataError
from afterfit.model.answer import Answer, answers_of, fresh_id, refused_answer, task_of, whole_error
from afterfit.model.answer_batch import AnswerBatch, to_dicts
from afterfit.model.calibration import Calibration
from afterfit.model.safe_loading import dump_estimator, read_estimator
from afterfit.model.scorer import Scorer
from afterfit.model.version_files import ERRORMAP, OPTIONAL, OUT_OF_FOLD, PROFILE, digest
from afterfit.performance.error_map import ErrorMap
from afterfit.performance.predictions import Predictions
from afterfit.use_case import UseCase

FORMAT = 1
Marks = npt.NDArray[np.uint64]
FILE_KEYS = {"expected": "promise"}
"""The manifest's attributes that have another key in its file."""
LATER_FIELDS = frozenset({"formats", "row_rule"})
"""The manifest's attributes that older bundles do not have."""


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
        expected: for each metric mean, sd, low and high over the folds; its key in the file is "promise".
        created: ISO time of training.
        packages: versions of the packages that made it.
        code: sha256 of the code that travels with it.
        formats: how the time column's dates, and the numbers of a regression's target, are written (`data.format_of`).
        row_rule: by what training rows are told apart (`data.FingerprintRule`); None in older bundles.
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
    expected: Mapping[str, Mapping[str, float | None]]
    created: str
    packages: Mapping[str, str]
    code: str
    formats: Mapping[str, str] = field(default_factory=dict)
    row_rule: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Its attributes under the keys of the file."""
        return {FILE_KEYS.get(name, name): getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """Training rows that the fit of the last fold had not seen, and what it answered, calibrated as the scorer is.

    A version that was trained on all rows up to now has no other rows that could judge it now.

    Attributes:
        marks: (m,) uint64, their fingerprints (`afterfit.data.row_fingerprints`).
        predictions: (m,) the answers.
    """

    marks: Marks
    predictions: Predictions

    def find(self, marks: Marks) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
        """Which of (n,) rows are among them, (n,), and the place of each that is."""
        order = np.argsort(self.marks, kind="stable")
        place = np.minimum(np.searchsorted(self.marks[order], marks), max(len(order) - 1, 0))
        known = self.marks[order][place] == marks if len(order) else np.zeros(len(marks), dtype=np.bool_)
        return known, order[place[known]]

    def to_bytes(self) -> bytes:
        """As a compressed npz file without pickles."""
        parts = {name: getattr(self.predictions, name) for name in ("prediction", "probabilities", "lower", "upper")}
        written = io.BytesIO()
        np.savez_compressed(written, marks=self.marks, **{k: v for k, v in parts.items() if v is not None})
        return written.getvalue()

    @classmethod
    def from_file(cls, path: Path, classes: tuple[Any, ...] | None) -> "OutOfFold":
        """The inverse of `to_bytes`."""
        with np.load(path, allow_pickle=False) as arrays:
            table, lower, upper = (arrays.get(name) for name in ("probabilities", "lower", "upper"))
            return cls(arrays["marks"], Predictions(arrays["prediction"], table, lower, upper, classes))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A scorer with its manifest: rows in, answers out, each row by itself.

    Attributes:
        scorer: contract, encoder, estimator and calibration.
        manifest: where it comes from.
        digest: sha256 over the bundle's files.
        example: a few rows as a client would send them.
        version: the registry version it was loaded as, or None.
        rows: (m,) uint64, sorted: fingerprints of its training rows (`afterfit.data.row_fingerprints`), for the gate.
        reference: profiles of the training window, its out-of-fold predictions and outcomes; None in older bundles.
        out_of_fold: the last fold's predictions for the rows that it had not seen; None in older bundles.
        errormap: errors of rows that the folds' models were not fitted on; None in older bundles.
    """

    scorer: Scorer
    manifest: Manifest
    digest: str
    example: tuple[Mapping[str, Any], ...]
    version: str | None = None
    rows: Marks = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    reference: Reference | None = None
    out_of_fold: OutOfFold | None = None
    errormap: ErrorMap | None = None

    def read_on(self, use_case: UseCase) -> UseCase:
        """The use case that reads its tables as this version does, where its settings say nothing else."""
        return inherit(use_case, self.scorer.contract, self.manifest.formats)

    def row_fingerprints(self, use_case: UseCase, frame: pd.DataFrame) -> Marks:
        """(n,) fingerprints of rows, to be looked for among `rows` and `out_of_fold`."""
        return trained_fingerprints(use_case, frame, self.manifest.row_rule)

    @property
    def profile(self) -> Profile | None:
        """The profile of the training window's features, or None."""
        return None if self.reference is None else self.reference.features

    @property
    def beside(self) -> frozenset[str]:
        """Columns that a row of the table has and that are no features: target, time and key."""
        known = {self.manifest.target, *self.manifest.key, *filter(None, [self.manifest.time])}
        return frozenset(known.difference(self.scorer.contract.names))

    def answers(self, frame: pd.DataFrame) -> list[dict[str, Any]]:
        """One answer a row: prediction, probability or interval, confidence, version, warnings, error. JSON-ready.

        Each row is answered as `answer` would answer it alone. So every row names the columns that the contract does
        not know: who reads one answer of a batch needs no other one to understand it. A row with several errors shows
        the first one, and the sentences of all. Target, time and key are passed over where they are no features.

        Raises:
            SchemaError: two columns have the same name.
        """
        return to_dicts(self.answer_frame(frame))

    def answer(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one row, without pandas on the way."""
        return self.answer_row(row).to_dict()

    def answer_frame(self, frame: pd.DataFrame) -> Sequence[Answer]:
        """The same as `answers`, each as an `Answer`."""
        if len(frame) == 1 and frame.columns.is_unique:
            return [self.answer_row(dict(zip(frame.columns, frame.to_numpy(dtype=object)[0], strict=True)))]
        aside = [name for name in frame.columns if isinstance(name, str) and name in self.beside]
        return AnswerBatch(self.version, *self.scorer.score(frame.drop(columns=aside) if aside else frame))

    def answer_row(self, row: Mapping[str, Any]) -> Answer:
        """The same as `answer`, as an `Answer`."""
        scorer = self.scorer
        if not self.beside.isdisjoint(row):
            row = {name: value for name, value in row.items() if name not in self.beside}
        checked = scorer.contract.check_row(row)
        if checked.errors:
            error = whole_error(checked.errors)
            return refused_answer(task_of(scorer.classes), self.version, checked.warnings, error, fresh_id())
        predictions = scorer.predict(np.array([scorer.encoder.encode_row(checked)]))
        return answers_of(predictions, self.version, [checked.warnings], [fresh_id()])[0]


def save(
    scorer: Scorer,
    manifest: Manifest,
    example: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    rows: Marks | None = None,
    reference: Reference | None = None,
    out_of_fold: OutOfFold | None = None,
    errormap: ErrorMap | None = None,
) -> Bundle:
    """Write a bundle into a folder and read it back, so that what is there is known to load.

    Nothing is written where the estimator cannot be.

    Args:
        scorer: what answers.
        manifest: where it comes from.
        example: a few rows as a client would send them.
        folder: where to.
        rows: (m,) fingerprints of the training rows, in any order; none are kept where None.
        reference: profiles of the training window, its out-of-fold predictions and outcomes; none are kept where None.
        out_of_fold: the last fold's predictions for the rows that it had not seen; none are kept where None.
        errormap: errors of rows unseen in training; none are kept where None.

    Raises:
        BundleError: the estimator holds a type outside the allow-list or cannot be written by skops, a value has no
            place in JSON, or the folder cannot be written.
    """
    estimator = dump_estimator(scorer.estimator)
    encoder = {key: value for key, value in scorer.encoder.to_dict().items() if key != "contract"}
    texts = {
        "contract.json": _json("contract.json", scorer.contract.to_dict()),
        "encoder.json": _json("encoder.json", encoder),
        "example.json": _json("example.json", list(example)),
        "manifest.json": _json("manifest.json", {"format": FORMAT, **manifest.to_dict(), **_scorer_fields(scorer)}),
    }
    if reference is not None:
        texts[PROFILE] = reference.to_json()
    if errormap is not None:
        texts[ERRORMAP] = errormap.to_json()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in OPTIONAL:
            (folder / name).unlink(missing_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, "utf-8")
        (folder / "estimator.skops").write_bytes(estimator)
        if out_of_fold is not None:
            (folder / OUT_OF_FOLD).write_bytes(out_of_fold.to_bytes())
        (folder / "rows.npy").write_bytes(_array(np.empty(0, dtype=np.uint64) if rows is None else np.sort(rows)))
    except OSError as error:
        raise BundleError(f"The bundle cannot be written to '{folder}': {error.strerror}.") from error
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
    actual_digest = digest(folder)
    if expected_digest is not None and actual_digest != expected_digest:
        raise BundleError(
            f"The bundle in '{folder}' is not the one that was registered: its digest is {actual_digest[:12]}…, "
            f"registered was {expected_digest[:12]}…. Train and register it again, or find out who changed it."
        )
    manifest = _read(folder / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        came = manifest.get("format") if isinstance(manifest, dict) else None
        raise BundleError(
            f"The bundle in '{folder}' must have format {FORMAT}, which this release reads; got {came!r}."
        )
    estimator = read_estimator(folder / "estimator.skops")
    try:
        scorer = _scorer(folder, manifest, estimator)
        keys = {name: FILE_KEYS.get(name, name) for name in Manifest.__dataclass_fields__}
        known = {name: manifest[key] for name, key in keys.items() if key in manifest or name not in LATER_FIELDS}
        known["key"] = tuple(known["key"])
        rows: Marks = np.load(folder / "rows.npy", allow_pickle=False)
        example, profiles, errors = tuple(_read(folder / "example.json")), folder / PROFILE, folder / ERRORMAP
        reference = Reference.from_dict(_read(profiles)) if profiles.is_file() else None
        errormap = ErrorMap.from_dict(_read(errors)) if errors.is_file() else None
        out_of_fold = (
            OutOfFold.from_file(folder / OUT_OF_FOLD, scorer.classes) if (folder / OUT_OF_FOLD).is_file() else None
        )
        return Bundle(
            scorer, Manifest(**known), actual_digest, example, version, rows, reference, out_of_fold, errormap
        )
    except (DataError, KeyError, TypeError, ValueError, IndexError, EOFError) as error:
        raise BundleError(f"The bundle in '{folder}' does not hold what it should: {error!r}.") from error


def _scorer(folder: Path, manifest: Mapping[str, Any], estimator: Any) -> Scorer:
    calibration, classes, offsets = manifest["calibration"], manifest["classes"], manifest["offsets"]
    encoder = Encoder.from_dict({**_read(folder / "encoder.json"), "contract": _read(folder / "contract.json")})
    return Scorer(
        encoder.contract,
        encoder,
        estimator,
        None if classes is None else tuple(classes),
        None if calibration is None else Calibration.from_dict(calibration),
        None if offsets is None else (offsets[0], offsets[1]),
        tuple(manifest["baseline"]),
    )


def _scorer_fields(scorer: Scorer) -> dict[str, Any]:
    return {
        "classes": scorer.classes,
        "calibration": None if scorer.calibration is None else scorer.calibration.to_dict(),
        "offsets": scorer.offsets,
        "baseline": scorer.baseline,
    }


def _array(values: Marks) -> bytes:
    written = io.BytesIO()
    np.save(written, values, allow_pickle=False)
    return written.getvalue()


def _json(name: str, content: Any) -> str:
    try:
        return json.dumps(content, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise BundleError(f"The bundle's {name} holds a value that has no place in JSON: {error}.") from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise BundleError(f"'{path}' is not readable as JSON: {error}") from error
