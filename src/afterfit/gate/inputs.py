"""The input of the gate: two loaded versions, and the rows that may judge them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit import data
from afterfit.gate.verdict import ComparisonUse
from afterfit.model.bundle import Bundle
from afterfit.performance.metrics import Metric, metric
from afterfit.performance.predictions import Predictions
from afterfit.use_case import UseCase


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Rows that may judge versions, in order of time, and how many were left out.

    Attributes:
        frame: (n rows) as the source gives them.
        y: (n,) outcomes as class indices or numbers.
        times: (n,) times of the rows; None without a time column.
        inside: rows left out because a training window holds them.
        young: rows left out because their outcomes are not complete.
    """

    frame: pd.DataFrame
    y: npt.NDArray[Any]
    times: npt.NDArray[Any] | None
    inside: int = 0
    young: int = 0

    @property
    def name(self) -> str:
        """The window in words."""
        if self.times is None or len(self.times) == 0:
            return "by content hash" if self.times is None else "empty window"
        return f"{pd.Timestamp(self.times[0])} to {pd.Timestamp(self.times[-1])}"

    def take(self, keep: npt.NDArray[np.bool_]) -> "HeldOut":
        """Some of the rows."""
        times = None if self.times is None else self.times[keep]
        return HeldOut(self.frame[keep], self.y[keep], times, self.inside, self.young)

    def window(self, use_case: UseCase) -> dict[str, Any]:
        """What the ledger keeps of these rows."""
        fingerprints = data.row_fingerprints(use_case, self.frame) if len(self.y) else np.empty(0, dtype=np.uint64)
        has_times = self.times is not None and len(self.times) > 0
        ends = [
            pd.Timestamp(self.times[i]).isoformat() if has_times and self.times is not None else "" for i in (0, -1)
        ]
        digest = hashlib.sha256(fingerprints.astype("<u8").tobytes()).hexdigest()
        return {"rows": len(self.y), "start": ends[0], "end": ends[1], "sha256": digest[:32]}


@dataclass(frozen=True, slots=True, eq=False)
class LoadedVersion:
    """A version that is compared: its number, its bundle, and the folder that it was loaded from."""

    number: str
    bundle: Bundle
    folder: Path


@dataclass(frozen=True, slots=True, eq=False)
class GateInput:
    """What is to be judged.

    Attributes:
        use_case: its limits.
        candidate: the version that is to be promoted.
        champion: the version in production; None where there is none.
        to: the alias: staging or production.
        held: the rows.
        past: comparisons of earlier gates.
        unseen: where the candidate was trained on these rows: the predictions of its last fold's fit, which had not
            seen them. None where it was not trained on them.
    """

    use_case: UseCase
    candidate: LoadedVersion
    champion: LoadedVersion | None
    to: str
    held: HeldOut
    past: Sequence[ComparisonUse] = ()
    unseen: Predictions | None = None

    @property
    def use(self) -> ComparisonUse | None:
        """This comparison, for the ledger; None where there is nothing to compare."""
        if self.champion is None or self.champion.number == self.candidate.number:
            return None
        window = self.held.window(self.use_case)
        return ComparisonUse(
            self.candidate.number, self.champion.number, window["sha256"], window["start"], window["end"]
        )

    @property
    def window(self) -> dict[str, Any]:
        """What the ledger keeps of the rows and of their use."""
        return {**self.held.window(self.use_case), "use": {} if self.use is None else self.use.to_dict()}

    @property
    def metric(self) -> Metric:
        """The metric that decides."""
        return metric(self.use_case.primary_metric)

    @property
    def by_fold(self) -> bool:
        """Whether the rows are among those that the candidate was trained on."""
        return self.unseen is not None


def held_out(
    use_case: UseCase,
    bundles: Sequence[Bundle],
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    now: datetime | None = None,
) -> HeldOut:
    """The rows that may judge these versions: in the window, after the training of all, with complete outcomes.

    Args:
        use_case: its source, split and gate.
        bundles: the versions; targets are encoded as the first one's classes.
        start: start of the window (included). Where start and end are None, the use case's own window is taken.
        end: end of the window (excluded).
        now: the time (UTC, without a zone) from which `label_delay_hours` counts back.
    """
    period = use_case.gate.window or use_case.split.holdout
    if start is None and end is None and period is not None:
        start, end = period.start, period.end
    use_case = bundles[0].read_on(use_case)
    loaded = data.load(use_case, start=start, end=end, contracts=[bundle.scorer.contract for bundle in bundles])
    frame = loaded.frame
    if start is None and end is None:
        _, positions = data.split(use_case, frame)
        frame = frame.iloc[positions].reset_index(drop=True)
    y = data.encode_target(use_case, frame[use_case.target], bundles[0].scorer.classes or ())
    rows = HeldOut(frame, y, frame[use_case.time].to_numpy() if use_case.time else None)
    return _usable(rows, [bundle.manifest.window["end"] for bundle in bundles], use_case, now)


def by_last_fold(
    use_case: UseCase,
    candidate: LoadedVersion,
    champion: LoadedVersion | None,
    rows: HeldOut,
    past: Sequence[ComparisonUse] = (),
) -> GateInput:
    """The input for a candidate that was trained on all rows up to now, so that no held-out rows exist yet.

    It is judged for production on the rows of its last fold that come after the champion's training, by the predictions
    of the fold's fit. This shows what the same recipe did with somewhat older training rows, which is enough to detect
    that a training went wrong.

    Args:
        use_case: its limits.
        candidate: the version; if it kept no predictions of its last fold, no row is left.
        champion: the version in production, or None.
        rows: those whose outcomes are known now, in order of time.
        past: comparisons of earlier gates.
    """
    out_of_fold = candidate.bundle.out_of_fold
    if out_of_fold is None:
        no_rows = rows.take(np.zeros(len(rows.y), dtype=np.bool_))
        return GateInput(use_case, candidate, champion, "production", no_rows, past)
    in_fold, positions = out_of_fold.find(candidate.bundle.row_fingerprints(use_case, rows.frame))
    end = None if champion is None else champion.bundle.manifest.window["end"]
    after = np.ones(len(in_fold), dtype=np.bool_)
    if end is not None and rows.times is not None:
        after = rows.times > np.datetime64(end)
    usable = replace(rows.take(in_fold & after), inside=int((in_fold & ~after).sum()))
    answers = out_of_fold.predictions.take(positions[after[in_fold]])
    return GateInput(use_case, candidate, champion, "production", usable, past, answers)


def _usable(rows: HeldOut, ends: Sequence[str | None], use_case: UseCase, now: datetime | None) -> HeldOut:
    if rows.times is None:
        return rows
    training_ends = [end for end in ends if end]
    after = (
        rows.times > np.datetime64(max(training_ends)) if training_ends else np.ones(len(rows.times), dtype=np.bool_)
    )
    complete = np.ones(len(rows.times), dtype=np.bool_)
    if now is not None:
        complete = rows.times <= np.datetime64(now - timedelta(hours=use_case.gate.label_delay_hours))
    usable = rows.take(after & complete)
    return HeldOut(usable.frame, usable.y, usable.times, int((~after).sum()), int((after & ~complete).sum()))
