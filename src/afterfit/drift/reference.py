"""What a version knows of the window it was trained on: its features, its predictions on rows unseen, its outcomes.

Each is a profile of its own. Predictions have fewer rows than features (no fold leaves the earliest rows out), are made
by the folds' models, and outcomes of a new window arrive late: none of that may count as a change of the others.
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
from afterfit.drift.profile_spec import parsed
from afterfit.drift.profiles import Profile, profile
from afterfit.drift.report import DriftFinding, DriftReport, Relation
from afterfit.drift.tabular import Kind
from afterfit.errors import DataError
from afterfit.performance.predictions import Predictions
from afterfit.use_case import UseCase

FORMAT = 1
RATE_SHARES: Mapping[str, float] = {"features": 0.8, "predictions": 0.1, "outcomes": 0.1}
"""How the false-alarm rate of a window is shared out; what cannot be compared leaves its share to the others."""
MOST_CLASSES = 10
"""Most classes whose probability is a column of its own."""
SOUND_OF_PREDICTIONS = frozenset({"absent", "kind", "missing", "location", "share"})
"""Kinds of change that folds' models can tell about a final model.

Fitted on fewer rows, they answer a little less surely than it does, and take other values. Calibration makes their
means alike, and the classes that they predict; spread, shape and values never seen are not comparable.
"""
KINDS: Mapping[ContractKind, Kind] = {
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "category": "category",
    "datetime": "datetime",
}
Judged = TypeVar("Judged", DriftFinding, Relation)


@dataclass(frozen=True, slots=True)
class Reference:
    """Profiles of one window. Of a version's training window, or of another one measured over that one's bins.

    Attributes:
        features: the columns that the model is given.
        predictions: what the model answers for rows that it was not fitted on, or None.
        outcomes: the target where it is known, or None.
    """

    features: Profile
    predictions: Profile | None = None
    outcomes: Profile | None = None

    @property
    def parts(self) -> dict[str, Profile]:
        """The profiles that are there, by name."""
        named = {name: getattr(self, name) for name in RATE_SHARES}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of all the profiles, in order."""
        return tuple(column.name for part in self.parts.values() for column in part.layout.columns)

    def __add__(self, other: "Reference") -> "Reference":
        mine, theirs = self.parts, other.parts
        return Reference(**{name: mine[name] + theirs[name] for name in mine if name in theirs})

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
        return cls.from_dict(parsed(text))


def learn(
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
        predictions: (m,) answers for `rows` by models that were not fitted on them.
        rows: (m,) positions of those rows.
        hidden: keep digests in place of category names.
    """
    whole = frame if time is None else frame.assign(**{time[0]: time[1]})
    known = {name: KINDS[kind] for name, kind in kinds.items() if time is None or name != time[0]}
    taken = {*frame.columns, outcomes[0]}
    answered = predicted(predictions).rename(columns=lambda name: f"{name} of the model" if name in taken else name)
    truth = pd.DataFrame({outcomes[0]: outcomes[1]})
    if time is not None:
        answered[time[0]], truth[time[0]] = time[1][rows], time[1]
    labels = {str(answered.columns[0]): "category"} if predictions.classes is not None else {}
    of_truth = {outcomes[0]: "category"} if predictions.classes is not None else {}
    named = None if time is None else time[0]
    return Reference(
        profile(whole, named, kinds=known, hide_categories=hidden),
        profile(answered, named, kinds=labels, relations=False),  # type: ignore[arg-type]
        profile(truth, named, kinds=of_truth, relations=False),  # type: ignore[arg-type]
    )


def predicted(predictions: Predictions) -> pd.DataFrame:
    """Answers as columns: `prediction`, and of classes the probability of the positive one or of each of the first."""
    columns: dict[str, Any] = {"prediction": predictions.labels}
    table, classes = predictions.probabilities, predictions.classes
    if table is not None and classes is not None:
        if len(classes) == 2:
            columns["probability"] = table[:, 1]
        else:
            for i, label in enumerate(classes[:MOST_CLASSES]):
                columns[f"probability of {label}"] = table[:, i]
    return pd.DataFrame(columns)


def renamed(frame: pd.DataFrame, over: Profile) -> pd.DataFrame:
    """A frame's columns under the names that a profile has for them, in its order."""
    names = [column.name for column in over.layout.columns]
    return frame.set_axis(names, axis=1) if len(names) == len(frame.columns) else frame


def cleaned(frame: pd.DataFrame, marks: Sequence[str]) -> pd.DataFrame:
    """The frame with the marks that stand for missing values taken out of its text columns."""
    wanted = set(marks)
    texts = [i for i, kind in enumerate(frame.dtypes) if getattr(kind, "kind", "O") == "O" or str(kind) == "str"]
    if not wanted or not texts:
        return frame
    clean = frame.copy(deep=False)
    for i in texts:
        values = frame.iloc[:, i]
        clean[frame.columns[i]] = values.mask(values.astype(str).str.strip().isin(wanted))
    return clean


def expected(features: Profile, use_case: UseCase | None, frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that a comparison of features may see; others only where one is absent or all are features."""
    layout = features.layout
    wanted = {*(column.name for column in layout.columns), layout.time}
    if use_case is None:
        return frame
    aside = {use_case.target, use_case.time, *use_case.key, *use_case.columns.ignore} - wanted
    if use_case.columns.features and wanted - {None} <= set(frame.columns):
        aside |= set(frame.columns) - wanted
    return frame[[name for name in frame.columns if name not in aside]]


def with_time(rows: pd.DataFrame, frame: pd.DataFrame, over: Profile) -> pd.DataFrame:
    """Rows with the times that a frame has for them, where the profile knows a time column and the frame has it."""
    time = over.layout.time
    return rows if time is None or time not in frame.columns else rows.assign(**{time: frame[time].to_numpy()})


def compare(reference: Reference, window: Reference, rate: float) -> DriftReport:
    """Compare all that both windows have, under one false-alarm rate.

    The rate is shared out to features, predictions and outcomes (Bonferroni), and family-wise p-values are scaled so
    that all of them are held against the whole rate.

    Raises:
        SchemaError: none of the reference's features is in the window.
        DataError: the window was measured over other bins.
    """
    mine, theirs = reference.parts, window.parts
    both = [name for name in mine if name in theirs and (name == "features" or theirs[name].rows)]
    total = sum(RATE_SHARES[name] for name in both)
    shares = {name: RATE_SHARES[name] / total for name in both}
    reports = {name: compare_drift(mine[name], theirs[name], rate=rate * shares[name]) for name in both}
    if "predictions" in reports:
        reports["predictions"] = _sound(reports["predictions"])
    features = reports["features"]
    columns = {
        name: replace(column, findings=_scaled(column.findings, shares[part]))
        for part, report in reports.items()
        for name, column in report.columns.items()
    }
    order = sorted(columns, key=lambda name: not columns[name].alarm)
    return replace(
        features,
        rate=rate,
        columns={name: columns[name] for name in order},
        relations=_scaled(features.relations, shares["features"]),
    )


def distances(reference: Profile, window: Profile) -> dict[str, float]:
    """How far a window lies from a reference, column by column: 0 is alike, 1 has nothing in common.

    The Jensen-Shannon distance (Lin 1991, base 2) of the shares of rows that are missing, below, in each of about 16
    groups of values, and above; of categories by name. Chance alone adds about sqrt(groups / (5.5 n)), so compare
    distances of the same n rows only. Columns without a row on either side are left out.
    """
    measured = {}
    for column, before, now in zip(reference.layout.columns, reference.counts, window.counts, strict=True):
        shares = [_grouped(column.bins, counts.levels) for counts in (before, now)]
        if all(part.sum() for part in shares):
            measured[column.name] = _jensen_shannon(*(part / part.sum() for part in shares))
    return measured


def _grouped(bins: Bins, levels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Rows by group: what is missing, below and above stays by itself."""
    counts = np.asarray(levels, dtype=np.float64)
    if not isinstance(bins, NumberBins):
        return counts
    inner = np.bincount(bins.groups[2:-1], weights=counts[2:-1]) if len(counts) > 3 else counts[2:-1]
    return np.concatenate([counts[:2], inner, counts[-1:]])


def _jensen_shannon(one: npt.NDArray[np.float64], two: npt.NDArray[np.float64]) -> float:
    middle = (one + two) / 2
    parts = [np.sum(side[side > 0] * np.log2(side[side > 0] / middle[side > 0])) for side in (one, two)]
    return float(np.sqrt(max(0.0, sum(parts) / 2)))


def _sound(report: DriftReport) -> DriftReport:
    columns = {
        name: replace(column, findings=tuple(f for f in column.findings if f.kind in SOUND_OF_PREDICTIONS))
        for name, column in report.columns.items()
    }
    return replace(report, columns=columns)


def _scaled(found: Iterable[Judged], share: float) -> tuple[Judged, ...]:
    return tuple(replace(one, familywise=min(one.familywise / share, 1.0)) for one in found)
