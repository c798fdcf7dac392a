"""What a version keeps of its training window: profiles of the features, of the predictions and of the outcomes.

Each is a profile of its own. There are fewer predictions than rows of features (no fold leaves the earliest rows out),
and the folds' models made them; the outcomes of a new window arrive late. None of that may count as a change of the
features.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit.contract.columns import Kind as ContractKind
from afterfit.drift.binning import Bins, NumberBins
from afterfit.drift.compare import compare_drift
from afterfit.drift.profile_spec import parse_json
from afterfit.drift.profiles import Profile, profile
from afterfit.drift.report import DriftFinding, DriftReport, Relation
from afterfit.drift.tabular import Kind
from afterfit.errors import DataError
from afterfit.performance.predictions import Predictions
from afterfit.use_case import UseCase

FORMAT = 1
RATE_SHARES: Mapping[str, float] = {"features": 0.8, "predictions": 0.1, "outcomes": 0.1}
"""How the false-alarm rate of a window is shared out; the share of what cannot be compared goes to the others."""
MOST_CLASSES = 10
"""Most classes whose probability is a column of its own."""
KINDS_OF_PREDICTIONS = frozenset({"absent", "kind", "missing", "location", "share"})
"""Kinds of change that can be tested although the reference's predictions are those of the folds' models.

The folds' models are fitted on fewer rows than the final model, so they are a little less certain and give other
values. Calibration makes their means alike, and the classes that they predict; spread, shape and new values are not
comparable.
"""
KINDS: Mapping[ContractKind, Kind] = {
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "category": "category",
    "datetime": "datetime",
}
Tested = TypeVar("Tested", DriftFinding, Relation)


@dataclass(frozen=True, slots=True)
class Reference:
    """Profiles of one window: a version's training window, or another window that was measured over its bins.

    Attributes:
        features: the columns that the model is given.
        predictions: the model's predictions for rows that it was not fitted on, or None.
        outcomes: the target where it is known, or None.
    """

    features: Profile
    predictions: Profile | None = None
    outcomes: Profile | None = None

    @property
    def parts(self) -> dict[str, Profile]:
        """The profiles that are not None, by name."""
        profiles = {name: getattr(self, name) for name in RATE_SHARES}
        return {name: part for name, part in profiles.items() if part is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of all the profiles, in order."""
        return tuple(column.name for part in self.parts.values() for column in part.layout.columns)

    def __add__(self, other: "Reference") -> "Reference":
        own_parts, other_parts = self.parts, other.parts
        return Reference(**{name: own_parts[name] + other_parts[name] for name in own_parts if name in other_parts})

    def to_dict(self) -> dict[str, Any]:
        """The profiles as plain values."""
        return {"format": FORMAT, "parts": {name: part.to_dict() for name, part in self.parts.items()}}

    def to_json(self) -> str:
        """The profiles as JSON text, ASCII only."""
        return json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, saved: Any) -> "Reference":
        """The profiles from what `to_dict` wrote, or from a single saved profile.

        Raises:
            DataError: it is neither, damaged, or of a later release.
        """
        if not isinstance(saved, Mapping) or "parts" not in saved:
            return cls(Profile.from_dict(saved))
        parts = saved["parts"]
        if saved.get("format") != FORMAT or not isinstance(parts, Mapping) or not {"features"} <= set(parts):
            raise DataError(
                f"Saved profiles must have format {FORMAT} and those of the features; these have format "
                f"{saved.get('format')!r}."
            )
        return cls(**{name: Profile.from_dict(parts[name]) for name in RATE_SHARES if name in parts})

    @classmethod
    def from_json(cls, text: str | bytes) -> "Reference":
        """The profiles from JSON text; errors as in `from_dict`."""
        return cls.from_dict(parse_json(text))


def learn_reference(
    frame: pd.DataFrame,
    *,
    kinds: Mapping[str, ContractKind],
    time: tuple[str, npt.NDArray[Any]] | None,
    outcomes: tuple[str, npt.NDArray[Any]],
    predictions: Predictions,
    rows: npt.NDArray[np.intp],
    hidden: bool,
) -> Reference:
    """Learn the profiles of a training window.

    Args:
        frame: (n rows) the features.
        kinds: their kinds by the contract.
        time: the time column's name and its (n,) times, or None.
        outcomes: the target's name and its (n,) values or labels.
        predictions: (m,) predictions for `rows` by models that were not fitted on these rows.
        rows: (m,) positions of those rows.
        hidden: keep digests in place of category names.
    """
    feature_frame = frame if time is None else frame.assign(**{time[0]: time[1]})
    feature_kinds = {name: KINDS[kind] for name, kind in kinds.items() if time is None or name != time[0]}
    taken_names = {*frame.columns, outcomes[0]}
    prediction_frame = prediction_columns(predictions).rename(
        columns=lambda name: f"{name} of the model" if name in taken_names else name
    )
    outcome_frame = pd.DataFrame({outcomes[0]: outcomes[1]})
    if time is not None:
        prediction_frame[time[0]], outcome_frame[time[0]] = time[1][rows], time[1]
    prediction_kinds = {str(prediction_frame.columns[0]): "category"} if predictions.classes is not None else {}
    outcome_kinds = {outcomes[0]: "category"} if predictions.classes is not None else {}
    time_column = None if time is None else time[0]
    return Reference(
        profile(feature_frame, time_column, kinds=feature_kinds, hide_categories=hidden),
        profile(prediction_frame, time_column, kinds=prediction_kinds, relations=False),  # type: ignore[arg-type]
        profile(outcome_frame, time_column, kinds=outcome_kinds, relations=False),  # type: ignore[arg-type]
    )


def prediction_columns(predictions: Predictions) -> pd.DataFrame:
    """Predictions as columns: `prediction`, and with classes the positive one's probability, or that of each class.

    Of many classes only the first `MOST_CLASSES` get a column.
    """
    columns: dict[str, Any] = {"prediction": predictions.labels}
    probabilities, classes = predictions.probabilities, predictions.classes
    if probabilities is not None and classes is not None:
        if len(classes) == 2:
            columns["probability"] = probabilities[:, 1]
        else:
            for i, label in enumerate(classes[:MOST_CLASSES]):
                columns[f"probability of {label}"] = probabilities[:, i]
    return pd.DataFrame(columns)


def rename_columns(frame: pd.DataFrame, profiled: Profile) -> pd.DataFrame:
    """A frame whose columns have the names of the profile's columns, in order; unchanged where their number differs."""
    names = [column.name for column in profiled.layout.columns]
    return frame.set_axis(names, axis=1) if len(names) == len(frame.columns) else frame


def clear_missing_marks(frame: pd.DataFrame, marks: Sequence[str]) -> pd.DataFrame:
    """The frame with missing values in place of the marks that stand for them in text columns."""
    missing_marks = set(marks)
    text_positions = [
        i for i, dtype in enumerate(frame.dtypes) if getattr(dtype, "kind", "O") == "O" or str(dtype) == "str"
    ]
    if not missing_marks or not text_positions:
        return frame
    cleaned = frame.copy(deep=False)
    for i in text_positions:
        values = frame.iloc[:, i]
        cleaned[frame.columns[i]] = values.mask(values.astype(str).str.strip().isin(missing_marks))
    return cleaned


def comparable_columns(features: Profile, use_case: UseCase | None, frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that take part in a comparison of features.

    Without the target, the time, the key and ignored columns, unless they are features. Where the use case names its
    features and all of them are there, other columns are left out too.
    """
    layout = features.layout
    needed = {*(column.name for column in layout.columns), layout.time}
    if use_case is None:
        return frame
    left_out = {use_case.target, use_case.time, *use_case.key, *use_case.columns.ignore} - needed
    if use_case.columns.features and needed - {None} <= set(frame.columns):
        left_out |= set(frame.columns) - needed
    return frame[[name for name in frame.columns if name not in left_out]]


def add_time(rows: pd.DataFrame, frame: pd.DataFrame, profiled: Profile) -> pd.DataFrame:
    """Rows with the frame's time column, where the profile has a time column and the frame has it too."""
    time = profiled.layout.time
    return rows if time is None or time not in frame.columns else rows.assign(**{time: frame[time].to_numpy()})


def compare(reference: Reference, window: Reference, rate: float) -> DriftReport:
    """Compare the profiles that both windows have, under one false-alarm rate.

    The rate is shared out to features, predictions and outcomes (Bonferroni). Family-wise p-values are scaled, so that
    each is compared with the whole rate.

    Raises:
        SchemaError: none of the reference's features is in the window.
        DataError: the window was measured over other bins.
    """
    reference_parts, window_parts = reference.parts, window.parts
    compared = [
        name for name in reference_parts if name in window_parts and (name == "features" or window_parts[name].rows)
    ]
    total_share = sum(RATE_SHARES[name] for name in compared)
    shares = {name: RATE_SHARES[name] / total_share for name in compared}
    reports = {
        name: compare_drift(reference_parts[name], window_parts[name], rate=rate * shares[name]) for name in compared
    }
    if "predictions" in reports:
        reports["predictions"] = _keep_kinds_of_predictions(reports["predictions"])
    features = reports["features"]
    columns = {
        name: replace(column, findings=_scale_familywise(column.findings, shares[part]))
        for part, report in reports.items()
        for name, column in report.columns.items()
    }
    order = sorted(columns, key=lambda name: not columns[name].alarm)
    return replace(
        features,
        rate=rate,
        columns={name: columns[name] for name in order},
        relations=_scale_familywise(features.relations, shares["features"]),
    )


def distances(reference: Profile, window: Profile) -> dict[str, float]:
    """How far a window lies from a reference, column by column: 0 is the same, 1 has nothing in common.

    The Jensen-Shannon distance (Lin 1991, base 2) of the shares of rows that are missing, below, in each of about 16
    groups of values, and above; of categories by name. Chance alone adds about sqrt(groups / (5.5 n)), so compare
    distances of the same n rows only. Columns without a row on either side are left out.
    """
    distance_of_column = {}
    for column, reference_counts, window_counts in zip(
        reference.layout.columns, reference.counts, window.counts, strict=True
    ):
        rows_by_group = [_rows_by_group(column.bins, counts.levels) for counts in (reference_counts, window_counts)]
        if all(group_rows.sum() for group_rows in rows_by_group):
            distance_of_column[column.name] = _jensen_shannon(
                *(group_rows / group_rows.sum() for group_rows in rows_by_group)
            )
    return distance_of_column


def _rows_by_group(bins: Bins, levels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Rows by group of values; missing values and values below and above the range are groups of their own."""
    counts = np.asarray(levels, dtype=np.float64)
    if not isinstance(bins, NumberBins):
        return counts
    inner = np.bincount(bins.groups[2:-1], weights=counts[2:-1]) if len(counts) > 3 else counts[2:-1]
    return np.concatenate([counts[:2], inner, counts[-1:]])


def _jensen_shannon(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    middle = (first + second) / 2
    divergences = [np.sum(side[side > 0] * np.log2(side[side > 0] / middle[side > 0])) for side in (first, second)]
    return float(np.sqrt(max(0.0, sum(divergences) / 2)))


def _keep_kinds_of_predictions(report: DriftReport) -> DriftReport:
    columns = {
        name: replace(column, findings=tuple(f for f in column.findings if f.kind in KINDS_OF_PREDICTIONS))
        for name, column in report.columns.items()
    }
    return replace(report, columns=columns)


def _scale_familywise(results: Iterable[Tested], share: float) -> tuple[Tested, ...]:
    return tuple(replace(result, familywise=min(result.familywise / share, 1.0)) for result in results)
