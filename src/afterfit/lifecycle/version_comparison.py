"""Compare two versions on rows that neither was trained on, or on rows that one answered as the other's shadow."""

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
"""The value of --data for answers that the candidate gave as the champion's shadow."""


def compare_shadow(use_case: UseCase, versions: tuple[str, str], period: tuple[str, str] = ("", "")) -> CommandResult:
    """Compare two versions on requests that the champion answered and the candidate answered as its shadow.

    Args:
        use_case: its settings.
        versions: candidate and champion, each a number or an alias.
        period: start and end of the window as text; empty for no limit.

    Raises:
        DataError: the log has no such answers whose outcomes are known.
    """
    candidate, champion = (registry.version(use_case.name, reference) for reference in versions)
    shadowed = window_rows.from_shadow(
        use_case,
        registry.load_bundle(candidate),
        registry.load_bundle(champion),
        prediction_log.required(use_case),
        start=parse_time(period[0], "--start"),
        end=parse_time(period[1], "--end"),
    )
    answers, times = shadowed.answers, shadowed.answers.times
    if times is None or not len(times):
        raise DataError(
            f"The prediction log of {use_case.name} has no request that version {champion.number} answered with "
            f"version {candidate.number} as its shadow and whose outcome is known ({shadowed.left:,} without one). "
            "Serve with --shadow, and load the outcomes."
        )
    rows = HeldOut(pd.DataFrame(index=range(len(times))), answers.y, times)
    comparisons = _compare_metrics(use_case, answers)
    data = {
        "use_case": use_case.name,
        "candidate": candidate.number,
        "champion": champion.number,
        "window": {"rows": len(times), "start": str(times[0]), "end": str(times[-1])},
        "left_out": {"not answered by both, or without an outcome": shadowed.left},
        "comparisons": [comparison.to_dict() for comparison in comparisons],
    }
    return CommandResult(tuple(_report_lines(use_case, (candidate.number, champion.number), rows, comparisons)), data)


def compare_held_out(use_case: UseCase, versions: tuple[str, str], period: tuple[str, str] = ("", "")) -> CommandResult:
    """Compare two versions on rows that neither was trained on.

    Args:
        use_case: its settings.
        versions: candidate and champion, each a number or an alias.
        period: start and end of the window as text; where both are empty, the use case's held-out window.

    Raises:
        DataError: no row of the window may judge both.
    """
    candidate, champion = (registry.version(use_case.name, reference) for reference in versions)
    bundles = [registry.load_bundle(version) for version in (candidate, champion)]
    start, end = parse_time(period[0], "--start"), parse_time(period[1], "--end")
    rows = held_out(use_case, bundles, start=start, end=end)
    scored = [bundle.scorer.score(rows.frame) for bundle in bundles]
    keep = ~scored[0][0].bad & ~scored[1][0].bad
    for _, predictions in scored:
        keep &= predictions.finite
    if not keep.any():
        raise DataError(
            f"No row of the window ({rows.name}) may judge versions {candidate.number} and {champion.number}: "
            f"{rows.inside:,} rows lie before the end of their training. Name a later window with --start and --end."
        )
    judged_rows = rows.take(keep)
    answers = [predictions.take(keep) for _, predictions in scored]
    comparisons = _compare_metrics(use_case, PairedAnswers(judged_rows.y, answers[0], answers[1], judged_rows.times))
    data = {
        "use_case": use_case.name,
        "candidate": candidate.number,
        "champion": champion.number,
        "window": rows.window(use_case),
        "left_out": {"inside a training window": rows.inside, "not answered": int((~keep).sum())},
        "comparisons": [comparison.to_dict() for comparison in comparisons],
    }
    return CommandResult(
        tuple(_report_lines(use_case, (candidate.number, champion.number), judged_rows, comparisons)), data
    )


def _compare_metrics(use_case: UseCase, answers: PairedAnswers) -> list[Comparison]:
    """Compare candidate and champion by each metric of the use case, the primary one first."""
    names = dict.fromkeys([use_case.primary_metric, *use_case.metrics.also])
    return [answers.compared(name, confidence=use_case.gate.confidence, seed=use_case.seed) for name in names]


def _report_lines(
    use_case: UseCase, numbers: tuple[str, str], rows: HeldOut, comparisons: list[Comparison]
) -> list[str]:
    lines = [
        f"Version {numbers[0]} of {use_case.name} against version {numbers[1]} on {len(rows.y):,} rows ({rows.name}):"
    ]
    lines += [
        f"  {comparison.metric:<18} {comparison.candidate:9.4f} against {comparison.champion:9.4f}: "
        f"{comparison.outcome}, {comparison.difference:+.4f} "
        f"(from {comparison.interval[0]:+.4f} to {comparison.interval[1]:+.4f})"
        for comparison in comparisons
    ]
    primary = comparisons[0]
    blocks = f"{primary.blocks} blocks" + (f" of {primary.block_length}" if primary.block_length else "")
    return [*lines, f"{primary.reason} {primary.confidence:.0%} intervals over {blocks}."]
