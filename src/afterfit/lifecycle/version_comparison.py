"""Compare two versions on rows that neither was trained on, or on the rows that one answered in the other's shadow."""

import pandas as pd

from afterfit import prediction_log
from afterfit.data.windows import parse_time
from afterfit.errors import DataError
from afterfit.gate.inputs import HeldOut, held_out
from afterfit.lifecycle.result import CommandResult
from afterfit.loop import window_rows
from afterfit.mlflow_store import registry
from afterfit.performance.paired_comparison import Comparison, PairedAnswers
from afterfit.use_case import UseCase

SHADOW = "shadow"
"""What --data says for answers that the candidate gave behind the champion's."""


def from_shadow(use_case: UseCase, versions: tuple[str, str], period: tuple[str, str] = ("", "")) -> CommandResult:
    """The same on requests that the champion answered, with the candidate's answers behind them as its shadow.

    Raises:
        DataError: the log has no such answers whose outcomes are known.
    """
    ours, theirs = (registry.version(use_case.name, reference) for reference in versions)
    shadowed = window_rows.from_shadow(
        use_case,
        registry.load_bundle(ours),
        registry.load_bundle(theirs),
        prediction_log.required(use_case),
        start=parse_time(period[0], "--start"),
        end=parse_time(period[1], "--end"),
    )
    answers, times = shadowed.answers, shadowed.answers.times
    if times is None or not len(times):
        raise DataError(
            f"The prediction log of {use_case.name} has no request that version {theirs.number} answered with version "
            f"{ours.number} as its shadow and whose outcome is known ({shadowed.left:,} without one). Serve with "
            "--shadow, and load the outcomes."
        )
    judged = HeldOut(pd.DataFrame(index=range(len(times))), answers.y, times)
    compared = _compared(use_case, answers)
    data = {
        "use_case": use_case.name,
        "candidate": ours.number,
        "champion": theirs.number,
        "window": {"rows": len(times), "start": str(times[0]), "end": str(times[-1])},
        "left_out": {"not answered by both, or without an outcome": shadowed.left},
        "comparisons": [comparison.to_dict() for comparison in compared],
    }
    return CommandResult(tuple(_described(use_case, (ours.number, theirs.number), judged, compared)), data)


def _compared(use_case: UseCase, both: PairedAnswers) -> list[Comparison]:
    """Candidate against champion by each metric of the use case."""
    names = dict.fromkeys([use_case.primary_metric, *use_case.metrics.also])
    return [both.compared(name, confidence=use_case.gate.confidence, seed=use_case.seed) for name in names]


def command_for(use_case: UseCase, versions: tuple[str, str], period: tuple[str, str] = ("", "")) -> CommandResult:
    """The same for a use case that is loaded already: versions are (candidate, champion).

    Raises:
        DataError: no row of the window may judge both.
    """
    ours, theirs = (registry.version(use_case.name, reference) for reference in versions)
    bundles = [registry.load_bundle(version) for version in (ours, theirs)]
    start, end = parse_time(period[0], "--start"), parse_time(period[1], "--end")
    rows = held_out(use_case, bundles, start=start, end=end)
    scored = [bundle.scorer.score(rows.frame) for bundle in bundles]
    keep = ~scored[0][0].bad & ~scored[1][0].bad
    for _, predictions in scored:
        keep &= predictions.finite
    if not keep.any():
        raise DataError(
            f"No row of the window ({rows.name}) may judge versions {ours.number} and {theirs.number}: "
            f"{rows.inside:,} rows lie before the end of their training. Name a later window with --start and --end."
        )
    judged = rows.take(keep)
    answers = [predictions.take(keep) for _, predictions in scored]
    compared = _compared(use_case, PairedAnswers(judged.y, answers[0], answers[1], judged.times))
    data = {
        "use_case": use_case.name,
        "candidate": ours.number,
        "champion": theirs.number,
        "window": rows.window(use_case),
        "left_out": {"inside a training window": rows.inside, "not answered": int((~keep).sum())},
        "comparisons": [comparison.to_dict() for comparison in compared],
    }
    return CommandResult(tuple(_described(use_case, (ours.number, theirs.number), judged, compared)), data)


def _described(use_case: UseCase, numbers: tuple[str, str], rows: HeldOut, compared: list[Comparison]) -> list[str]:
    lines = [
        f"Version {numbers[0]} of {use_case.name} against version {numbers[1]} on {len(rows.y):,} rows ({rows.name}):"
    ]
    lines += [
        f"  {by.metric:<18} {by.candidate:9.4f} against {by.champion:9.4f}: {by.outcome}, {by.difference:+.4f} "
        f"(from {by.interval[0]:+.4f} to {by.interval[1]:+.4f})"
        for by in compared
    ]
    primary = compared[0]
    blocks = f"{primary.blocks} blocks" + (f" of {primary.block_length}" if primary.block_length else "")
    return [*lines, f"{primary.reason} {primary.confidence:.0%} intervals over {blocks}."]
