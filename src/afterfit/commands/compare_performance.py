"""Compare two versions, or a version with an alias, on the same rows of a window; nothing is decided or recorded."""

from afterfit import registry
from afterfit.commands.console import Answer
from afterfit.commands.promote import moment
from afterfit.compare import Comparison, compare_performance
from afterfit.errors import DataError
from afterfit.examination import HeldOut, held_out
from afterfit.trials import defined
from afterfit.usecase import UseCase, load_use_case


def command(
    config: str, candidate: str = "latest", champion: str = "production", start: str = "", end: str = ""
) -> Answer:
    """Compare; see scripts/compare_performance.py for the options."""
    return command_for(load_use_case(config), (candidate, champion), (start, end))


def command_for(use_case: UseCase, versions: tuple[str, str], period: tuple[str, str] = ("", "")) -> Answer:
    """The same for a use case that is loaded already: versions are (candidate, champion).

    Raises:
        DataError: no row of the window may judge both.
    """
    ours, theirs = (registry.version(use_case.name, reference) for reference in versions)
    bundles = [registry.load_bundle(ours), registry.load_bundle(theirs)]
    start, end = moment(period[0], "--start"), moment(period[1], "--end")
    held = held_out(use_case, bundles, start=start, end=end)
    scored = [bundle.scorer.score(held.frame) for bundle in bundles]
    keep = ~scored[0][0].bad & ~scored[1][0].bad
    for _, predictions in scored:
        keep &= defined(predictions)
    if not keep.any():
        raise DataError(
            f"No row of the window ({held.name}) may judge versions {ours.number} and {theirs.number}: "
            f"{held.inside:,} rows lie before the end of their training. Name a later window with --start and --end."
        )
    judged = held.take(keep)
    names = dict.fromkeys([use_case.primary_metric, *use_case.metrics.also])
    found = [
        compare_performance(
            judged.y,
            scored[1][1].take(keep),
            scored[0][1].take(keep),
            name,
            blocks=judged.times,
            confidence=use_case.gate.confidence,
            seed=use_case.seed,
        )
        for name in names
    ]
    data = {
        "use_case": use_case.name,
        "candidate": ours.number,
        "champion": theirs.number,
        "window": held.window(use_case),
        "left_out": {"inside a training window": held.inside, "not answered": int((~keep).sum())},
        "comparisons": [one.to_dict() for one in found],
    }
    return Answer(tuple(_described(use_case, (ours.number, theirs.number), judged, found)), data)


def _described(use_case: UseCase, numbers: tuple[str, str], held: HeldOut, found: list[Comparison]) -> list[str]:
    lines = [
        f"Version {numbers[0]} of {use_case.name} against version {numbers[1]} on {len(held.y):,} rows ({held.name}):"
    ]
    lines += [
        f"  {one.metric:<18} {one.candidate:9.4f} against {one.champion:9.4f}: {one.outcome}, {one.difference:+.4f} "
        f"(from {one.interval[0]:+.4f} to {one.interval[1]:+.4f})"
        for one in found
    ]
    primary = found[0]
    blocks = f"{primary.blocks} blocks" + (f" of {primary.block_length}" if primary.block_length else "")
    return [*lines, f"{primary.reason} {primary.confidence:.0%} intervals over {blocks}."]
