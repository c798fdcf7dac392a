"""Judge a version, record the decision in the ledger, and move its alias where it may go."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from afterfit import gate
from afterfit.errors import BundleError
from afterfit.gate import comparison_checks, version_checks
from afterfit.gate.examination import policy
from afterfit.gate.inputs import GateInput, LoadedVersion, held_out
from afterfit.gate.verdict import ComparisonUse, Finding, Verdict
from afterfit.lifecycle.result import HOLD, REJECT, CommandResult
from afterfit.mlflow_store import ledger, registry
from afterfit.mlflow_store.ledger import Decision, LedgerEntry
from afterfit.mlflow_store.registry import PRODUCTION, Version
from afterfit.use_case import UseCase

EXIT = {"PROMOTE": 0, "TRIAL": 0, "HOLD": HOLD, "REJECT": REJECT}
APPROVED = "approved_by"
"""The tag of a version that a person sets in the MLflow interface, with their name."""
SIGNS = {"pass": "+", "fail": "-", "unsure": "?", "not applicable": "."}


@dataclass(frozen=True, slots=True)
class PromotionRequest:
    """What the person asked for beside the version: which outcomes judge it, and whether to override."""

    start: datetime | None = None
    end: datetime | None = None
    force: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GateResult:
    """The gate's verdict, with the version that was in production when it was come to."""

    verdict: Verdict
    champion: Version | None


def promoted(use_case: UseCase, candidate: Version, to: str, asked: PromotionRequest | None = None) -> CommandResult:
    """Ask the gate about a version, record the decision, and move the alias where it may: no run, no options."""
    asked = asked or PromotionRequest()
    repaired = ledger.repair(use_case.name)
    book = ledger.entries(use_case.name)
    found = gate_result(use_case, candidate, to, asked, book)
    decided = decision(use_case, candidate, to, found, asked)
    entry, more = ledger.record(use_case.name, decided, book[-1].number if book else 0)
    return answered(candidate, found, entry, [*repaired, *more])


def gate_result(
    use_case: UseCase, candidate: Version, to: str, asked: PromotionRequest, book: Sequence[LedgerEntry]
) -> GateResult:
    """Collect every finding about a candidate, and have the gate come to a verdict."""
    champion = registry.holder(use_case.name, PRODUCTION)
    findings = on_record(use_case, candidate, to, book)
    try:
        ours = loaded_version(candidate)
    except BundleError as error:
        return GateResult(gate.judge([version_checks.does_not_load(str(error)), *findings]), champion)
    theirs = None
    if champion is not None and (to == PRODUCTION or champion.number != candidate.number):
        try:
            theirs = loaded_version(champion)
        except BundleError as error:
            findings.append(comparison_checks.champion_does_not_load(champion.number, str(error)))
    bundles = [ours.bundle] if theirs is None else [ours.bundle, theirs.bundle]
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    held = held_out(use_case, bundles, start=asked.start, end=asked.end, now=now)
    case = GateInput(use_case, ours, theirs, to, held, past_uses(book))
    return GateResult(gate.judge([*gate.examine(case), *findings], case.window), champion)


def on_record(use_case: UseCase, candidate: Version, to: str, book: Sequence[LedgerEntry]) -> list[Finding]:
    """What ledger and registry say of a candidate: that it was not rolled back, and who approved it where one must."""
    findings = [barred(candidate, book)]
    if to == PRODUCTION and use_case.gate.approval:
        findings.append(version_checks.approval(candidate.tags.get(APPROVED, "").strip(), APPROVED))
    return findings


def loaded_version(version: Version) -> LoadedVersion:
    """A version's bundle, checked and loaded."""
    return LoadedVersion(version.number, registry.load_bundle(version), registry.bundle_folder(version))


def barred(candidate: Version, book: Sequence[LedgerEntry]) -> Finding:
    """Whether the candidate, or the same bundle under another number, was rolled back."""
    digest = candidate.tags.get(registry.DIGEST, "")
    digests = {entry.decision.version: entry.decision.digest for entry in book if entry.decision.digest}
    for number, entry in ledger.rolled_back(book).items():
        if number == candidate.number or (digest and digests.get(number) == digest):
            return version_checks.not_rolled_back(candidate.number, entry.number, entry.decision.reason)
    return version_checks.not_rolled_back(candidate.number, None, "")


def past_uses(book: Sequence[LedgerEntry]) -> list[ComparisonUse]:
    """The comparisons that earlier gates made, in their order."""
    made = [entry.decision for entry in book if entry.decision.action == "promotion"]
    kept = [ComparisonUse.of_window(decision.window) for decision in made]
    return [use for use in kept if use is not None]


def decision(use_case: UseCase, candidate: Version, to: str, found: GateResult, asked: PromotionRequest) -> Decision:
    """What goes into the ledger."""
    verdict, champion = found.verdict, found.champion
    forced = asked.force and verdict.may_be_forced
    moves = forced or verdict.moves
    approved = candidate.tags.get(APPROVED, "").strip() if to == PRODUCTION else ""
    seen = f"{approved} (seen {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC)" if approved else ""
    held = champion if to == PRODUCTION else registry.holder(use_case.name, to)
    return Decision(
        "promotion",
        verdict.decision,
        candidate.number,
        to,
        moves=moves,
        previous="" if held is None else held.number,
        reason=asked.reason if asked.reason and moves else _because(verdict, asked),
        forced=forced,
        approval=seen,
        policy=policy(use_case),
        digest=candidate.tags.get(registry.DIGEST, ""),
        window=verdict.window,
        stages=use_case.registry.stages,
        findings=verdict.to_dict()["findings"],
        page=page(candidate, held, to, found, rules=policy(use_case), forced=asked.reason if forced else ""),
    )


def _because(verdict: Verdict, asked: PromotionRequest) -> str:
    """Why, in a line: what stands against it, else what decided for it."""
    wanted = {"REJECT": "fail", "HOLD": "unsure", "TRIAL": "unsure"}.get(verdict.decision)
    if wanted is not None:
        lead = "This cannot be forced. " if asked.force else ""
        return lead + " ".join(one.sentence for one in verdict.findings if one.outcome == wanted)[:1000]
    deciding = [one.sentence for one in verdict.findings if one.code in {"better", "not_worse", "champion"}]
    return " ".join(deciding)


def answered(candidate: Version, found: GateResult, entry: LedgerEntry, repaired: list[str]) -> CommandResult:
    """The decision as it was recorded, for the person and the program that asked."""
    decided, verdict = entry.decision, found.verdict
    lines = [*repaired, f"{decided.verdict}: version {candidate.number} of {candidate.name} to {decided.alias}"]
    lines += [f"  {SIGNS[finding.outcome]} {finding.sentence}" for finding in verdict.findings]
    if entry.counts:
        before = f" (before: version {decided.previous})" if decided.previous else ""
        lines += [f"Forced by {entry.actor}: {decided.reason}"] if decided.forced else []
        lines.append(f"Version {candidate.number} holds the alias '{decided.alias}' now{before}.")
    else:
        lines += [decided.reason] if decided.verdict != verdict.decision or decided.reason.startswith("This") else []
        where = f" (version {decided.previous})" if decided.previous else ""
        lines.append(f"The alias '{decided.alias}' stays where it is{where}.")
    lines.append(f"Recorded as decision {entry.number} in the experiment {ledger.experiment(candidate.name)}.")
    told = {
        "use_case": candidate.name,
        "to": decided.alias,
        **entry.to_dict(),
        "previous": decided.previous or None,
        "findings": verdict.to_dict()["findings"],
        "decision": decided.verdict,
        "ledger_run_id": entry.run_id,
        "repaired": repaired,
    }
    return CommandResult(tuple(lines), told, 0 if entry.counts else EXIT[decided.verdict])


def page(candidate: Version, held: Version | None, to: str, found: GateResult, *, rules: str, forced: str) -> str:
    """The decision in Markdown, what stands against it first."""
    before = f"version {held.number}" if held else "nothing"
    lines = [f"# {found.verdict.decision}: version {candidate.number} to {to}", "", f"There before: {before}.", ""]
    lines += [f"**Forced:** {forced}", ""] if forced else []
    window = found.verdict.window
    if window:
        times = f" from {window['start']} to {window['end']}" if window["start"] else ""
        lines += [f"Rows: {window['rows']:,}{times}.", ""]
    lines += [f"Limits: `{rules}`.", "", "| outcome | finding | what was found |", "|---|---|---|"]
    order = ["fail", "unsure", "pass", "not applicable"]
    ordered = sorted(found.verdict.findings, key=lambda one: order.index(one.outcome))
    lines += [f"| {one.outcome} | {one.code} | {one.sentence.replace('|', '/')} |" for one in ordered]
    return "\n".join(lines) + "\n"
