"""What one window showed of one version, measured and not judged: the words that monitor, policy and loop share."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from math import isfinite
from typing import Any

from afterfit.drift.report import DriftReport
from afterfit.performance.metrics import Measured


@dataclass(frozen=True, slots=True)
class DataQuality:
    """What the contract said of the rows.

    Attributes:
        rows: rows that came.
        refused: rows without an answer because of an error.
        warnings: for (column, code) the rows that it was said of.
        errors: the same for errors.
        unknown: columns that the contract does not know.
        doubled: rows whose key had come before, where the use case has a key.
    """

    rows: int
    refused: int
    warnings: Mapping[tuple[str, str], int] = field(default_factory=dict)
    errors: Mapping[tuple[str, str], int] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    doubled: int = 0


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """How the version was served: answers, the share with an error, seconds from request to answer (quantiles)."""

    answers: int
    errors: int
    per_second: float
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class SliceSeen:
    """The primary metric in the rows where `column` has `value`."""

    column: str
    value: str
    measured: Measured


@dataclass(frozen=True, slots=True)
class Observation:
    """One window of one version.

    Attributes:
        name: the window in words, such as 2013-04.
        start: its begin (included), in the time column's own clock; None without times.
        end: its end (excluded), or None.
        version: the version that answered.
        quality: what the contract said.
        drift: the window against the version's reference; None where the version has none.
        estimated: metrics as estimated without this window's outcomes.
        realised: metrics over the outcomes that are known.
        outcomes: rows whose outcome is known.
        known_up_to: the time of the last row whose outcome is known, or None.
        complete: whether the outcomes of all rows are there, or would be by the label delay.
        calibration: mean distance of probabilities from shares (or of coverage from 90 %); None without outcomes.
        slices: the primary metric in the slices that the use case names.
        service: rate, errors and latency; None where the window is no part of a prediction log.
        promise: for each metric, what the version promised at its promotion: mean, low, high over folds.
    """

    name: str
    start: datetime | None
    end: datetime | None
    version: str
    quality: DataQuality
    drift: DriftReport | None = None
    estimated: Mapping[str, Measured] = field(default_factory=dict)
    realised: Mapping[str, Measured] = field(default_factory=dict)
    outcomes: int = 0
    known_up_to: datetime | None = None
    complete: bool = False
    calibration: float | None = None
    slices: tuple[SliceSeen, ...] = ()
    service: ServiceHealth | None = None
    promise: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows that came in the window."""
        return self.quality.rows

    def best_estimate(self, metric: str) -> Measured | None:
        """The best that is known of a metric: realised where outcomes are complete, else estimated, else realised."""
        realised, estimated = self.realised.get(metric), self.estimated.get(metric)
        if self.complete and realised is not None and realised.value is not None:
            return realised
        return estimated if estimated is not None and estimated.value is not None else realised

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        quality = asdict(self.quality)
        for kind in ("warnings", "errors"):
            counts = getattr(self.quality, kind)
            quality[kind] = [{"column": c, "code": code, "rows": rows} for (c, code), rows in counts.items()]
        return {
            "name": self.name,
            "start": _iso(self.start),
            "end": _iso(self.end),
            "version": self.version,
            "quality": quality,
            "drift": None if self.drift is None else self.drift.to_dict(),
            "estimated": {name: _measured(value) for name, value in self.estimated.items()},
            "realised": {name: _measured(value) for name, value in self.realised.items()},
            "outcomes": self.outcomes,
            "known_up_to": _iso(self.known_up_to),
            "complete": self.complete,
            "calibration": self.calibration,
            "slices": [{"column": s.column, "value": s.value, **_measured(s.measured)} for s in self.slices],
            "service": None if self.service is None else asdict(self.service),
            "promise": {name: dict(values) for name, values in self.promise.items()},
        }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _measured(measured: Measured) -> dict[str, Any]:
    """JSON has no infinite numbers: the ends of an interval that says nothing become None."""
    parts = asdict(measured)
    return {key: None if isinstance(value, float) and not isfinite(value) else value for key, value in parts.items()}
