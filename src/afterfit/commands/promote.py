"""Move a version to staging or production when its findings allow it, and say why when they do not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from afterfit import data, gate, ledger, registry, tracking
from afterfit.bundle import Bundle
from afterfit.commands.console import HOLD, REJECT, Answer
from afterfit.compare import Comparison, compare_performance
from afterfit.errors import BundleError, SettingsError
from afterfit.gate import Finding, Verdict
from afterfit.ledger import Decision, Entry
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
    use_case = load_use_case(config)
    if to not in {registry.STAGING, registry.PRODUCTION}:
        raise SettingsError(f"--to must be staging or production, not '{to}'.")
    candidate = registry.version(use_case.name, version)
    name = f"promote version {candidate.number} to {to}"
    with tracking.run(use_case.name, name, {"afterfit.use_case": use_case.name}) as active:
        answer = judged(use_case, candidate, to)
        tracking.tags({f"afterfit.{key}": str(answer.data[key]) for key in ("version", "to", "previous", "decision")})
        tracking.note("```\n" + "\n".join(answer.lines) + "\n```")
        tracking.table(answer.data["findings"], "findings.json")
    return replace(answer, data={**answer.data, "run_id": active.info.run_id})


def judged(use_case: UseCase, candidate: Version, to: str) -> Answer:
    """Judge a version, record the decision, and move the alias where it may: no run, no options."""
    repaired = ledger.repair(use_case.name)
    seen = max((entry.number for entry in ledger.entries(use_case.name)), default=0)
    champion = registry.holder(use_case.name, to) if to == registry.PRODUCTION else None
    verdict = examine(use_case, candidate, champion, to)
    entry, more = ledger.record(use_case.name, decision(candidate, champion, to, verdict), seen)
    return answered(candidate, champion, verdict, entry, [*repaired, *more])


def decision(candidate: Version, champion: Version | None, to: str, verdict: Verdict) -> Decision:
    """What goes into the ledger."""
    return Decision(
        "promotion",
        verdict.decision,
        candidate.number,
        to,
        moves=verdict.decision == "PROMOTE",
        previous="" if champion is None else champion.number,
        digest=candidate.tags.get(registry.DIGEST, ""),
        findings=verdict.to_dict()["findings"],
        page=page(candidate, champion, to, verdict),
    )


def answered(
    candidate: Version, champion: Version | None, verdict: Verdict, entry: Entry, repaired: list[str]
) -> Answer:
    """The decision as it was recorded, for the person and the program that asked."""
    to, final = entry.decision.alias, entry.decision.verdict
    lines = [*repaired, *described(candidate, to, final, verdict.findings)]
    before = f" (before: version {champion.number})" if champion else ""
    if entry.counts:
        lines.append(f"Version {candidate.number} holds the alias '{to}' now{before}.")
    else:
        lines += [entry.decision.reason] if final != verdict.decision else []
        lines.append(f"The alias '{to}' stays where it is.")
    lines.append(f"Recorded as decision {entry.number} in the experiment {ledger.experiment(candidate.name)}.")
    told = {
        "use_case": candidate.name,
        "version": candidate.number,
        "to": to,
        "previous": None if champion is None else champion.number,
        **verdict.to_dict(),
        "decision": final,
        "number": entry.number,
        "ledger_run_id": entry.run_id,
        "reason": entry.decision.reason,
        "repaired": repaired,
    }
    return Answer(tuple(lines), told, 0 if entry.counts else EXIT[final])


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


SIGNS = {"pass": "+", "fail": "-", "unsure": "?", "not applicable": "."}


def described(candidate: Version, to: str, verdict: str, findings: Sequence[Finding]) -> list[str]:
    """The verdict and its findings, a line each."""
    lines = [f"{verdict}: version {candidate.number} of {candidate.name} to {to}"]
    return lines + [f"  {SIGNS[finding.outcome]} {finding.sentence}" for finding in findings]


def page(candidate: Version, champion: Version | None, to: str, verdict: Verdict) -> str:
    """The decision in Markdown."""
    before = f"version {champion.number}" if champion else "nothing"
    lines = [f"# {verdict.decision}: version {candidate.number} to {to}", "", f"In its place before: {before}.", ""]
    lines += ["| finding | outcome | what was found |", "|---|---|---|"]
    lines += [f"| {one.code} | {one.outcome} | {one.sentence.replace('|', '/')} |" for one in verdict.findings]
    return "\n".join(lines) + "\n"
