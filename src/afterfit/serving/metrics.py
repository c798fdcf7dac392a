"""Counts of one process, kept in plain dictionaries, and their sum over all processes in Prometheus' format.

Counting costs a fraction of a microsecond. Each process writes its counts into a file of a shared folder. The process
that is asked adds all files up. Files of processes that are gone stay, so that a sum never falls.
"""

import math
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

Key = tuple[str, ...]
"""A measure's name and the values of its labels."""
PREFIX = "afterfit_"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
SHARES = tuple(k / 10 for k in range(1, 11))
FILES = "metrics-*.json"


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """A metric: its kind, its help text, its labels, and how the gauges of several processes become one."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    joined: Literal["sum", "max", "min"] = "sum"


MEASURES: Mapping[str, MetricFamily] = {
    "requests": MetricFamily("counter", "Requests answered, by door and status.", ("door", "status")),
    "request_errors": MetricFamily("counter", "Requests turned away, by door and code.", ("door", "code")),
    "request_seconds": MetricFamily("histogram", "Seconds from request to answer.", ("door",), SECONDS),
    "rows": MetricFamily("counter", "Rows answered.", ("version",)),
    "row_errors": MetricFamily("counter", "Rows that got an error in place of a prediction.", ("column", "code")),
    "warnings": MetricFamily("counter", "Warnings in answers.", ("column", "code")),
    "batch_rows": MetricFamily("histogram", "Rows of a micro-batch.", (), SIZES),
    "predictions": MetricFamily("counter", "Predictions by class.", ("version", "prediction")),
    "probability": MetricFamily("histogram", "Probability of the second of two classes.", ("version",), SHARES),
    "prediction_value": MetricFamily("histogram", "Predicted numbers.", ("version",)),
    "confidence": MetricFamily("histogram", "Probability of the predicted class.", ("version",), SHARES),
    "shadow_rows": MetricFamily("counter", "Rows that the shadow version answered too.", ("version",)),
    "shadow_dropped": MetricFamily("counter", "Rows that the shadow version had no time for, or failed on."),
    "reloads": MetricFamily("counter", "Versions taken into service.", ("version",)),
    "reloads_refused": MetricFamily("counter", "Versions that failed their checks.", ("version",)),
    "log_failures": MetricFamily("counter", "Times the prediction log could not be written."),
    "outcomes": MetricFamily("counter", "Outcomes taken."),
    "in_flight": MetricFamily("gauge", "Requests being answered."),
    "log_backlog": MetricFamily("gauge", "Answers of the running processes that are not sealed yet."),
    "log_seals": MetricFamily("gauge", "1 while what waits in the log is sealed.", (), joined="min"),
    "seconds_since_seal": MetricFamily("gauge", "Seconds since the log was last sealed.", (), joined="max"),
    "connections": MetricFamily("gauge", "Open connections."),
    "connections_closed": MetricFamily("counter", "Connections that the server closed, by reason.", ("reason",)),
    "model_info": MetricFamily("gauge", "1 for what is served.", ("name", "alias", "version", "digest"), joined="max"),
    "seconds_since_reload": MetricFamily("gauge", "Seconds since the newest change of version.", (), joined="min"),
    "seconds_since_registry": MetricFamily("gauge", "Seconds since the registry last answered.", (), joined="max"),
    "registry_up": MetricFamily("gauge", "1 while the registry answers.", (), joined="min"),
    "workers": MetricFamily("gauge", "Processes that answer."),
}


class Histogram:
    """Counts of values between edges, the last count being of those above all edges."""

    __slots__ = ("counts", "edges", "total")

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges, self.counts, self.total = list(edges), [0] * (len(edges) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value

    def observe_all(self, values: npt.ArrayLike) -> None:
        """Count many values."""
        numbers = np.asarray(values, dtype=np.float64)
        counts = np.bincount(np.searchsorted(self.edges, numbers), minlength=len(self.counts)).tolist()
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]
        self.total += float(numbers.sum())

    def add(self, other: "Histogram") -> None:
        """Take in another's counts, where it has the same edges."""
        if other.edges == self.edges:
            self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
            self.total += other.total


@dataclass(slots=True)
class ServerMetrics:
    """One process's counts. Not locked: the event loop's thread counts, others hand in what they counted."""

    counts: defaultdict[Key, float] = field(default_factory=lambda: defaultdict(float))
    gauges: dict[Key, float] = field(default_factory=dict)
    histograms: dict[Key, Histogram] = field(default_factory=dict)

    def histogram(self, *key: str, edges: Sequence[float] = ()) -> Histogram:
        """The histogram of a name and labels, made where it is not there yet."""
        histogram = self.histograms.get(key)
        if histogram is None:
            histogram = self.histograms[key] = Histogram(edges or MEASURES[key[0]].edges)
        return histogram

    def text(self) -> bytes:
        """JSON of everything."""
        content = {
            "counts": [[list(key), value] for key, value in self.counts.items()],
            "gauges": [[list(key), value] for key, value in self.gauges.items()],
            "histograms": [[list(k), h.edges, h.counts, h.total] for k, h in self.histograms.items()],
        }
        return orjson.dumps(content)

    def merge(self, text: bytes, *, alive: bool) -> None:
        """Add what another process wrote; the gauges of a process that is gone are left out."""
        content = orjson.loads(text)
        for key, value in content["counts"]:
            self.counts[tuple(key)] += value
        for key, edges, counts, total in content["histograms"]:
            other = Histogram(edges)
            other.counts, other.total = counts, total
            self.histogram(*key, edges=edges).add(other)
        for key, value in content["gauges"] if alive else ():
            name = tuple(key)
            known = self.gauges.get(name)
            self.gauges[name] = value if known is None else _JOINED[MEASURES[name[0]].joined](known, value)


_JOINED: Mapping[str, Any] = {"sum": lambda a, b: a + b, "max": max, "min": min}


def write(folder: Path, text: bytes) -> None:
    """Write this process's counts for the others, whole or not at all."""
    file = folder / f"metrics-{os.getpid()}.json"
    part = file.with_suffix(".part")
    part.write_bytes(text)
    part.replace(file)


def joined(folder: Path, own: ServerMetrics) -> ServerMetrics:
    """The counts of all processes; this one's as they are now."""
    whole = ServerMetrics()
    whole.merge(own.text(), alive=True)
    for file in sorted(folder.glob(FILES)):
        pid = int(file.stem.rpartition("-")[2])
        if pid != os.getpid():
            with suppress(OSError, ValueError):  # one that is being replaced, or was cut off by a full disk
                whole.merge(file.read_bytes(), alive=_alive(pid))
    return whole


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def exposed(counters: ServerMetrics) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Families(counters))
    text: bytes = generate_latest(registry)
    return text


class _Families(Collector):
    def __init__(self, counters: ServerMetrics) -> None:
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        for name, measure in MEASURES.items():
            if measure.kind == "histogram":
                yield _histogram(name, measure, self._counters)
            elif measure.kind == "counter":
                counter = CounterMetricFamily(PREFIX + name, measure.help, labels=measure.labels)
                for key, value in _of(self._counters.counts, name):
                    counter.add_metric(key, value)
                yield counter
            else:
                gauge = GaugeMetricFamily(PREFIX + name, measure.help, labels=measure.labels)
                for key, value in _of(self._counters.gauges, name):
                    gauge.add_metric(key, value)
                yield gauge


def _of(values: Mapping[Key, Any], name: str) -> list[tuple[Key, Any]]:
    return sorted(((key[1:], value) for key, value in values.items() if key[0] == name), key=lambda pair: pair[0])


def _histogram(name: str, measure: MetricFamily, counters: ServerMetrics) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, measure.help, labels=measure.labels)
    for key, histogram in _of(counters.histograms, name):
        below, buckets = 0, []
        for edge, count in zip([*histogram.edges, math.inf], histogram.counts, strict=True):
            below += count
            buckets.append(("+Inf" if math.isinf(edge) else repr(edge), float(below)))
        family.add_metric(key, buckets, histogram.total)
    return family
