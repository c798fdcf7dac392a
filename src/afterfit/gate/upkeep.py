"""What it costs to keep a version, to load it and to ask it, beside the champion in this process."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from afterfit.gate import version_checks
from afterfit.gate.verdict import Finding
from afterfit.model.bundle import Bundle, load

MANY = 1_000
AGAIN = (0.1, 1.0, 3.0)
"""Seconds to wait before what looks too slow is measured again."""


def findings(sides: Sequence[tuple[Bundle, Path]], *, larger: float, slower: float) -> Iterator[Finding]:
    """A finding each for the size on disk, and the times to load, to answer a row, and to answer 1,000.

    Args:
        sides: a bundle and the folder it was loaded from; the candidate's, and the champion's where there is one.
        larger: how many times the champion's size is allowed.
        slower: how many times the champion's times are allowed.
    """
    row = sides[0][0].example[0]
    frame = pd.DataFrame([dict(row)] * MANY)
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) / 1e6 for _, folder in sides]
    yield _finding("size", sizes, "MB", larger)
    yield fast_enough("load time", [partial(load, folder) for _, folder in sides], 1, slower)
    yield fast_enough("one row", [partial(bundle.answer, row) for bundle, _ in sides], 30, slower)
    yield fast_enough("1,000 rows", [partial(bundle.answers, frame) for bundle, _ in sides], 3, slower)


def fast_enough(name: str, calls: Sequence[Callable[[], object]], repeats: int, limit: float) -> Finding:
    """Whether the first call takes at most `limit` times as long as the second.

    Only what is too slow each time that it is measured is too slow: a busy machine makes a call slow, and none fast.
    """
    best = seconds(calls, repeats)
    finding = _finding(name, [1000 * taken for taken in best], "ms", limit)
    for pause in AGAIN:
        if finding.outcome != "fail":
            break
        time.sleep(pause)
        best = [min(pair) for pair in zip(best, seconds(calls, repeats), strict=True)]
        finding = _finding(name, [1000 * taken for taken in best], "ms", limit)
    return finding


def seconds(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The shortest time of each call in seconds over `repeats`, in turns, so that all meet the same machine."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats + 1):
        for call, times in zip(calls, taken, strict=True):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
    return [min(times[1:]) for times in taken]


def _finding(name: str, values: Sequence[float], unit: str, limit: float) -> Finding:
    return version_checks.service(name, values[0], values[1] if len(values) > 1 else None, unit, limit)
