"""Findings of the gate about a version itself: that it loads and answers, that its answers are sound, what it costs.

Costs (size, time to load, time to answer) are measured beside the champion's, in this process.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from afterfit.gate.inputs import LoadedVersion
from afterfit.gate.limits import CHEAP, MOST_REFUSED
from afterfit.gate.robustness import Fall
from afterfit.gate.verdict import Finding, Outcome
from afterfit.model.bundle import load

BATCH_ROWS = 1_000
PAUSES = (0.1, 1.0, 3.0)
"""Seconds to wait before each new measurement of a call that looks too slow."""


def example_answered(answers: Sequence[dict[str, Any]]) -> Finding:
    """The version answers the example rows that were saved with it."""
    if not answers:
        return Finding("answers_example", "unsure", "It was saved without example rows, so none could be asked.", n=0)
    refused = [answer["error"] for answer in answers if answer["error"] is not None]
    if not refused:
        return Finding("answers_example", "pass", f"It answers its {len(answers)} example rows.", n=len(answers))
    sentence = f"It refuses {len(refused)} of its own {len(answers)} example rows: {refused[0]['message']}"
    return Finding("answers_example", "fail", sentence, float(len(refused)), 0.0, n=len(answers))


def does_not_load(reason: str) -> Finding:
    """The version's bundle could not be loaded, or is not the one that was registered."""
    return Finding("loads", "fail", reason)


def loads(digest: str) -> Finding:
    """The version's bundle was loaded, and is the one that was registered."""
    return Finding("loads", "pass", f"It loads, and is the bundle that was registered (digest {digest[:12]}…).")


def rows_unread(reason: str) -> Finding:
    """The rows that the version should answer could not be read or checked."""
    return Finding("answers_rows", "fail", f"The latest rows could not be scored: {reason}")


def not_rolled_back(candidate: str, decision: int | None, reason: str) -> Finding:
    """A version that was rolled back may not come back, nor may the same bundle under another number."""
    if decision is None:
        return Finding("not_rolled_back", "pass", "It was never rolled back.")
    sentence = f"Version {candidate} was rolled back by decision {decision} ({reason}): train a new candidate."
    return Finding("not_rolled_back", "fail", sentence)


def approval(approved: str, tag: str) -> Finding:
    """A person approved the version, by a tag in the MLflow interface."""
    if approved:
        return Finding("approval", "pass", f"Approved: {approved}.")
    return Finding("approval", "unsure", f"Nobody approved it yet: set the tag '{tag}' of the version to your name.")


def answers_all(refused: int, rows: int, which: str = "held-out") -> Finding:
    """How many rows the candidate refuses; refused rows are left out of all comparisons."""
    if rows == 0:
        return Finding("answers_rows", "not applicable", f"There are no {which} rows to answer.", n=0)
    if refused == 0:
        return Finding("answers_rows", "pass", f"It answers all {rows:,} {which} rows.", 0.0, n=rows)
    share = refused / rows
    outcome: Outcome = "pass" if share <= MOST_REFUSED else "fail"
    most = f"at most {100 * MOST_REFUSED:g} % may be"
    sentence = f"It refuses {refused:,} of {rows:,} {which} rows ({share:.1%}; {most})."
    return Finding("answers_rows", outcome, sentence, share, MOST_REFUSED, n=rows)


def finite(undefined: int, rows: int) -> Finding:
    """Every answer is a number."""
    if undefined == 0:
        return Finding("finite_answers", "pass", f"All {rows:,} answers are numbers.", 0.0, 0.0, n=rows)
    sentence = f"{undefined:,} of {rows:,} answers are not numbers."
    return Finding("finite_answers", "fail", sentence, float(undefined), 0.0, n=rows)


def varies(constant: bool, rows: int) -> Finding:  # noqa: FBT001 - a fact, not an option
    """The candidate does not answer every row alike."""
    if constant:
        return Finding("varies", "fail", f"It answers all {rows:,} rows alike.", n=rows)
    return Finding("varies", "pass", "Its answers differ from row to row.", n=rows)


def calibrated(error: float, chance: float, limit: float, champion: float | None, n: int) -> Finding:
    """The calibration error is within the limit, or not above the champion's, each up to chance.

    Without a champion the error is reported, not judged: if the shares of the classes change with time, every model is
    miscalibrated, and only a champion shows by how much.
    """
    lead = f"Its calibration error is {error:.3f}"
    if champion is None:
        return Finding("calibrated", "not applicable", f"{lead}; there is no champion beside it.", error, n=n)
    allowed = max(limit, champion) + chance
    outcome: Outcome = "pass" if error <= allowed else "fail"
    sentence = f"{lead}, the champion's {champion:.3f}; {allowed:.3f} is allowed."
    return Finding("calibrated", outcome, sentence, error, allowed, n=n)


def robust(falls: Sequence[Fall], metric: str, limit: float, n: int) -> Finding:
    """A missing column, or an unknown category in place of the most common, costs it no more than the champion."""
    comparable = [fall for fall in falls if fall.champion is not None]
    if not falls:
        return Finding("robust", "not applicable", "There is no column that may be missing.")
    worst = max(falls, key=lambda fall: fall.candidate)
    lead = f"The worst is {worst.column} {worst.change}, which costs {worst.candidate:.4f} {metric}"
    if not comparable:
        return Finding("robust", "not applicable", f"{lead}; there is no champion beside it.", worst.candidate, n=n)
    deeper = [fall for fall in comparable if fall.candidate > limit and fall.excess > limit]
    most = max(fall.excess for fall in comparable)
    if not deeper:
        return Finding("robust", "pass", f"{lead}; no fall is {limit:g} deeper than the champion's.", most, limit, n=n)
    examples = "; ".join(
        f"{fall.column} {fall.change}: {fall.candidate:.4f} against {fall.champion:.4f}" for fall in deeper[:5]
    )
    return Finding("robust", "fail", f"It falls in {metric} where the champion does not: {examples}.", most, limit, n=n)


def not_robust_here() -> Finding:
    """Not judged on training rows: there a missing column costs the candidate more than on any other rows."""
    return Finding("robust", "not applicable", "It was trained on these rows, which overstates what a column is worth.")


def reference_as_close(candidate: Mapping[str, float], champion: Mapping[str, float], limit: float, n: int) -> Finding:
    """The candidate's training rows are as close to the rows of the gate as the champion's, up to a limit.

    Args:
        candidate: for each column the Jensen-Shannon distance of the gate's rows from the candidate's training rows.
        champion: the same for the champion. Columns of both are compared, by the mean of their distances.
        limit: how much farther the candidate's may be.
        n: rows of the gate.
    """
    columns = [name for name in candidate if name in champion]
    if not columns:
        return Finding("reference", "not applicable", "One of the two keeps no profile of its training rows.")
    candidate_mean, champion_mean = (
        sum(distances[name] for name in columns) / len(columns) for distances in (candidate, champion)
    )
    outcome: Outcome = "pass" if candidate_mean - champion_mean <= limit else "fail"
    worst = max(columns, key=lambda name: candidate[name] - champion[name])
    words = "as close to" if outcome == "pass" else "farther from"
    sentence = (
        f"Its training rows are {words} the rows of this gate: {candidate_mean:.3f}, the champion's "
        f"{champion_mean:.3f} (mean Jensen-Shannon distance of {len(columns)} columns; {limit:g} farther is allowed)."
    )
    if candidate[worst] > champion[worst]:
        sentence += f" Most of it in {worst}: {candidate[worst]:.3f} against {champion[worst]:.3f}."
    return Finding("reference", outcome, sentence, candidate_mean - champion_mean, limit, n=n)


def service(name: str, candidate: float, champion: float | None, unit: str, limit: float) -> Finding:
    """Size, load time or answering time, as a ratio to the champion's in the same process."""
    shown = f"{name.capitalize()}: {candidate:.3g} {unit}"
    if champion is None:
        return Finding(f"service_{name}", "not applicable", f"{shown}; there is no champion beside it.", candidate)
    ratio = candidate / champion if champion > 0 else 1.0
    outcome: Outcome = "pass" if ratio <= limit or candidate <= CHEAP[name] else "fail"
    allowed = f"at most {limit:g} times, or {CHEAP[name]:g} {unit}"
    sentence = f"{shown}, {ratio:.2f} times the champion's {champion:.3g} {unit} ({allowed})."
    return Finding(f"service_{name}", outcome, sentence, ratio, limit)


def costs(
    candidate: LoadedVersion, champion: LoadedVersion | None, *, larger: float, slower: float
) -> Iterator[Finding]:
    """A finding each for the size on disk, and the times to load, to answer a row, and to answer 1,000.

    Args:
        candidate: the version that is to be promoted.
        champion: the version in production; None where there is none.
        larger: how many times the champion's size is allowed.
        slower: how many times the champion's times are allowed.
    """
    versions = [candidate] if champion is None else [candidate, champion]
    row = candidate.bundle.example[0]
    frame = pd.DataFrame([dict(row)] * BATCH_ROWS)
    sizes = [sum(file.stat().st_size for file in version.folder.iterdir()) / 1e6 for version in versions]
    yield _service_finding("size", sizes, "MB", larger)
    yield fast_enough("load time", [partial(load, version.folder) for version in versions], 1, slower)
    yield fast_enough("one row", [partial(version.bundle.answer, row) for version in versions], 30, slower)
    yield fast_enough("1,000 rows", [partial(version.bundle.answers, frame) for version in versions], 3, slower)


def fast_enough(name: str, calls: Sequence[Callable[[], object]], repeats: int, limit: float) -> Finding:
    """Whether the first call takes at most `limit` times as long as the second.

    It fails only if it is too slow each time that it is measured: a busy machine makes calls slower, never faster.
    """
    best = seconds(calls, repeats)
    finding = _service_finding(name, [1000 * taken for taken in best], "ms", limit)
    for pause in PAUSES:
        if finding.outcome != "fail":
            break
        time.sleep(pause)
        best = [min(pair) for pair in zip(best, seconds(calls, repeats), strict=True)]
        finding = _service_finding(name, [1000 * taken for taken in best], "ms", limit)
    return finding


def seconds(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The shortest time of each call in seconds over `repeats`; calls take turns, so that all meet the same load.

    On a busy machine a call mostly waits for a processor, and by chance one call waits more often than the other. There
    only the time is counted in which this process had a processor.
    """
    clock = time.process_time if _busy() else time.perf_counter
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats + 1):
        for call, times in zip(calls, taken, strict=True):
            started = clock()
            call()
            times.append(clock() - started)
    return [min(times[1:]) for times in taken]


def _busy() -> bool:
    """Whether more processes want to run than there are processors, over the last minute."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)


def _service_finding(name: str, values: Sequence[float], unit: str, limit: float) -> Finding:
    return service(name, values[0], values[1] if len(values) > 1 else None, unit, limit)
