"""Move a version to staging or production when its findings allow it, and say why when they do not."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit import data, gate, registry
from afterfit.bundle import Bundle
from afterfit.commands.console import HOLD, REJECT, Answer
from afterfit.compare import Comparison, compare_performance
from afterfit.errors import BundleError, SettingsError
from afterfit.gate import Finding, Verdict
from afterfit.predictions import Predictions
from afterfit.registry import Version
from afterfit.usecase import UseCase, load_use_case

Target = Literal["staging", "production"]
EXIT = {"PROMOTE": 0, "HOLD": HOLD, "REJECT": REJECT}


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Held-out rows that no compared version was trained on, and where they lie in time."""

    frame: pd.DataFrame
    y: npt.NDArray[Any]
    times: npt.NDArray[Any] | None

    @property
    def name(self) -> str:
        """The window in words."""
        if self.times is None or len(self.times) == 0:
            return "by content hash" if self.times is None else "empty window"
        return f"{pd.Timestamp(self.times[0])} to {pd.Timestamp(self.times[-1])}"

    def take(self, keep: npt.NDArray[np.bool_]) -> "HeldOut":
        """Some of the rows."""
        return HeldOut(self.frame[keep], self.y[keep], None if self.times is None else self.times[keep])


def command(config: str, version: str = "latest", to: str = "production") -> Answer:
    """Judge a version and move the alias; see scripts/promote.py for the options."""
    return command_for(load_use_case(config), version, to)


def command_for(use_case: UseCase, version: str, to: str) -> Answer:
    """The same for a use case that is loaded already."""
    if to not in {registry.STAGING, registry.PRODUCTION}:
        raise SettingsError(f"--to must be staging or production, not '{to}'.")
    candidate = registry.version(use_case.name, version)
    champion = registry.holder(use_case.name, to) if to == registry.PRODUCTION else None
    verdict = examine(use_case, candidate, champion, to)
    if verdict.decision == "PROMOTE":
        registry.set_alias(candidate, to)
    return Answer(
        tuple(described(candidate, champion, to, verdict)),
        {
            "use_case": use_case.name,
            "version": candidate.number,
            "to": to,
            "previous": None if champion is None else champion.number,
            **verdict.to_dict(),
        },
        EXIT[verdict.decision],
    )


def examine(use_case: UseCase, candidate: Version, champion: Version | None, to: str) -> Verdict:
    """Collect every finding about a candidate: does it load and answer, beat the dummy, and is it not worse."""
    try:
        bundle = registry.load_bundle(candidate)
    except BundleError as error:
        return gate.judge([gate.does_not_load(str(error))])
    findings = [gate.loads(bundle.digest), gate.example_answered([bundle.answer(row) for row in bundle.example])]
    rival = None if champion is None else registry.load_bundle(champion)
    if to == registry.PRODUCTION and champion is None:
        findings.append(gate.no_champion())
    if champion is not None and rival is not None:
        findings.append(gate.another_version(candidate.number, champion.number, bundle.digest == rival.digest))
    held = unseen(held_out(use_case, bundle), [bundle, *([rival] if rival else [])])
    findings.append(gate.enough_rows(len(held.y), use_case.gate.smallest_holdout, held.name))
    if len(held.y):
        findings += _compared(use_case, bundle, rival, champion, held)
    return gate.judge(findings)


def held_out(use_case: UseCase, bundle: Bundle) -> HeldOut:
    """The held-out rows of the use case's source, targets encoded as the candidate's classes."""
    holdout = use_case.split.holdout
    window = data.load(use_case, start=holdout.start if holdout else None, end=holdout.end if holdout else None)
    if holdout is None:
        _, rows = data.split(use_case, window.frame)
        frame = window.frame.iloc[rows].reset_index(drop=True)
    else:
        frame = window.frame
    y = data.encode_target(use_case, frame[use_case.target], bundle.scorer.classes or ())
    return HeldOut(frame, y, frame[use_case.time].to_numpy() if use_case.time else None)


def unseen(held: HeldOut, bundles: list[Bundle]) -> HeldOut:
    """The rows after the last training row of every bundle; without times the content hash has kept them apart."""
    ends = [bundle.manifest.window["end"] for bundle in bundles]
    if held.times is None or not any(ends):
        return held
    return held.take(held.times > np.datetime64(max(end for end in ends if end)))


def _compared(
    use_case: UseCase, bundle: Bundle, rival: Bundle | None, champion: Version | None, held: HeldOut
) -> list[Finding]:
    checked, predictions = bundle.scorer.score(held.frame)
    findings = [gate.answers_all(int(checked.bad.sum()), len(held.y))]
    keep = ~checked.bad
    theirs = None
    if rival is not None:
        rival_checked, theirs = rival.scorer.score(held.frame)
        keep &= ~rival_checked.bad
    held = held.take(keep)
    if not len(held.y):
        return findings
    ours = predictions.take(keep)
    against_dummy = _compare(use_case, held, bundle.scorer.constant(len(held.y)), ours)
    findings.append(
        gate.beats_dummy(against_dummy.metric, against_dummy.difference, against_dummy.interval, against_dummy.n)
    )
    if theirs is None or champion is None:
        return findings
    found = _compare(use_case, held, theirs.take(keep), ours)
    return [
        *findings,
        gate.other_answers(found.identical, champion.number, found.n),
        gate.not_worse(
            found.metric,
            found.difference,
            found.interval,
            tolerance=use_case.gate.tolerance,
            n=found.n,
            champion=champion.number,
        ),
    ]


def _compare(use_case: UseCase, held: HeldOut, champion: Predictions, candidate: Predictions) -> Comparison:
    return compare_performance(
        held.y,
        champion,
        candidate,
        use_case.primary_metric,
        blocks=held.times,
        tolerance=use_case.gate.tolerance,
        seed=use_case.seed,
    )


def described(candidate: Version, champion: Version | None, to: str, verdict: Verdict) -> list[str]:
    """The answer in a few readable lines, a finding each."""
    signs = {"pass": "+", "fail": "-", "unsure": "?", "not applicable": "."}
    lines = [f"{verdict.decision}: version {candidate.number} of {candidate.name} to {to}"]
    lines += [f"  {signs[finding.outcome]} {finding.sentence}" for finding in verdict.findings]
    before = f" (before: version {champion.number})" if champion else ""
    if verdict.decision == "PROMOTE":
        lines.append(f"Version {candidate.number} holds the alias '{to}' now{before}.")
    else:
        lines.append(f"The alias '{to}' stays where it is{before}.")
    return lines
