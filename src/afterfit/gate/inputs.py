"""What a gate is given: two loaded versions, and the rows that may judge them."""

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
        frame: (n rows) as they come.
        y: (n,) outcomes as class indices or numbers.
        times: (n,) their times, or None.
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
        marks = data.row_fingerprints(use_case, self.frame) if len(self.y) else np.empty(0, dtype=np.uint64)
        timed = self.times is not None and len(self.times) > 0
        ends = [pd.Timestamp(self.times[i]).isoformat() if timed and self.times is not None else "" for i in (0, -1)]
        digest = hashlib.sha256(marks.astype("<u8").tobytes()).hexdigest()
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
        candidate: wants in.
        champion: is in production; None where nothing is.
        to: staging or production.
        held: the rows.
        past: comparisons of earlier gates.
        unseen: the candidate's answers for the rows by its last fold's fit, which had not seen them, where it was
            trained on them; None where it was not.
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
    """The rows that may judge these versions: of the asked window, after all training, with complete outcomes.

    Args:
        use_case: its source, split and gate.
        bundles: the versions; targets are encoded as the first one's classes.
        start: from here (included); what the use case says where both ends are None.
        end: to here (excluded).
        now: the time (UTC, without a zone) from which `label_delay_hours` counts back.
    """
    period = use_case.gate.window or use_case.split.holdout
    if start is None and end is None and period is not None:
        start, end = period.start, period.end
    loaded = data.load(use_case, start=start, end=end)
    frame = loaded.frame
    if start is None and end is None:
        _, rows = data.split(use_case, frame)
        frame = frame.iloc[rows].reset_index(drop=True)
    y = data.encode_target(use_case, frame[use_case.target], bundles[0].scorer.classes or ())
    held = HeldOut(frame, y, frame[use_case.time].to_numpy() if use_case.time else None)
    return _usable(held, [bundle.manifest.window["end"] for bundle in bundles], use_case, now)


def _usable(held: HeldOut, ends: Sequence[str | None], use_case: UseCase, now: datetime | None) -> HeldOut:
    if held.times is None:
        return held
    known = [end for end in ends if end]
    after = held.times > np.datetime64(max(known)) if known else np.ones(len(held.times), dtype=np.bool_)
    old = np.ones(len(held.times), dtype=np.bool_)
    if now is not None:
        old = held.times <= np.datetime64(now - timedelta(hours=use_case.gate.label_delay_hours))
    kept = held.take(after & old)
    return HeldOut(kept.frame, kept.y, kept.times, int((~after).sum()), int((after & ~old).sum()))


def by_last_fold(
    use_case: UseCase,
    candidate: LoadedVersion,
    champion: LoadedVersion | None,
    rows: HeldOut,
    past: Sequence[ComparisonUse] = (),
) -> GateInput:
    """A candidate that was trained on everything up to now, of which no other rows can tell anything yet.

    It is judged for production on the rows of its last fold that come after the champion's training, by the answers
    of the fold's fit. What they tell is what its recipe did with somewhat older rows: good enough to see a training
    gone wrong.

    Args:
        use_case: its limits.
        candidate: the version; where it kept no answers, no row is left.
        champion: what is in production, or None.
        rows: those with outcomes known now, in order of time.
        past: comparisons of earlier gates.
    """
    out_of_fold = candidate.bundle.out_of_fold
    if out_of_fold is None:
        none = rows.take(np.zeros(len(rows.y), dtype=np.bool_))
        return GateInput(use_case, candidate, champion, "production", none, past)
    known, place = out_of_fold.find(data.row_fingerprints(use_case, rows.frame))
    end = None if champion is None else champion.bundle.manifest.window["end"]
    after = np.ones(len(known), dtype=np.bool_)
    if end is not None and rows.times is not None:
        after = rows.times > np.datetime64(end)
    kept = replace(rows.take(known & after), inside=int((known & ~after).sum()))
    answers = out_of_fold.predictions.take(place[after[known]])
    return GateInput(use_case, candidate, champion, "production", kept, past, answers)
