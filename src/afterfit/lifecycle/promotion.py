"""Judge a version, record the decision in the ledger, and move its alias where it may go."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from afterfit import gate
from afterfit.errors import BundleError
from afterfit.gate import comparison_checks, version_checks
from afterfit.gate.examination import limits_hash
from afterfit.gate.inputs import GateInput, LoadedVersion, held_out
from afterfit.gate.verdict import ComparisonUse, Finding, Verdict
from afterfit.lifecycle.result import HOLD, REJECT, CommandResult
from afterfit.mlflow_store import decisions, ledger, ledger_runs, registry
from afterfit.mlflow_store.decisions import Decision, LedgerEntry
from afterfit.mlflow_store.registry import PRODUCTION, Version
from afterfit.use_case import UseCase

EXIT = {"PROMOTE": 0, "TRIAL": 0, "HOLD": HOLD, "REJECT": REJECT}
APPROVED = "approved_by"
"""The tag of a version that a person sets in the MLflow interface, with their name."""
SIGNS = {"pass": "+", "fail": "-", "unsure": "?", "not applicable": "."}


@dataclass(frozen=True, slots=True)
class PromotionRequest:
    """What a person asked for: the window whose outcomes judge the version, and whether to override the gate."""

    start: datetime | None = None
    end: datetime | None = None
    force: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GateResult:
    """The gate's verdict, and the version that was in production at that time."""

    verdict: Verdict
    champion: Version | None


def promote_version(
    use_case: UseCase, candidate: Version, to: str, request: PromotionRequest | None = None
) -> CommandResult:
    """Ask the gate about a version, record the decision, and move the alias if the version may have it."""
    request = request or PromotionRequest()
    repaired = ledger.repair(use_case.name)
    book = ledger.entries(use_case.name)
    result = gate_result(use_case, candidate, to, request, book)
    decision = make_decision(use_case, candidate, to, result, request)
    entry, repaired_since = ledger.record(use_case.name, decision, book[-1].number if book else 0)
    return _command_result(candidate, result, entry, [*repaired, *repaired_since])


def gate_result(
    use_case: UseCase, candidate: Version, to: str, request: PromotionRequest, book: Sequence[LedgerEntry]
) -> GateResult:
    """Collect every finding about a candidate, and have the gate come to a verdict."""
    with registry.private_folder() as private:
        champion = registry.holder(use_case.name, PRODUCTION)
        findings = findings_on_record(use_case, candidate, to, book)
        try:
            loaded_candidate = loaded_version(candidate, private)
        except BundleError as error:
            return GateResult(gate.judge([version_checks.does_not_load(str(error)), *findings]), champion)
        loaded_champion = None
        if champion is not None and (to == PRODUCTION or champion.number != candidate.number):
            try:
                loaded_champion = loaded_version(champion, private)
            except BundleError as error:
                findings.append(comparison_checks.champion_does_not_load(champion.number, str(error)))
        bundles = (
            [loaded_candidate.bundle] if loaded_champion is None else [loaded_candidate.bundle, loaded_champion.bundle]
        )
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        rows = held_out(use_case, bundles, start=request.start, end=request.end, now=now)
        case = GateInput(use_case, loaded_candidate, loaded_champion, to, rows, past_uses(book))
        return GateResult(gate.judge([*gate.examine(case), *findings], case.window), champion)


def findings_on_record(use_case: UseCase, candidate: Version, to: str, book: Sequence[LedgerEntry]) -> list[Finding]:
    """Findings from ledger and registry: whether a candidate was rolled back, and who approved it if somebody must."""
    findings = [rollback_finding(candidate, book)]
    if to == PRODUCTION and use_case.gate.approval:
        findings.append(version_checks.approval(candidate.tags.get(APPROVED, "").strip(), APPROVED))
    return findings


def loaded_version(version: Version, private: Path) -> LoadedVersion:
    """A version's bundle, checked and loaded from a copy in a private folder."""
    place = Path(tempfile.mkdtemp(dir=private))
    home, expected = registry.fetch(version, place)
    return LoadedVersion(version.number, registry.load_fetched(version, home, expected), home / registry.BUNDLE)


def rollback_finding(candidate: Version, book: Sequence[LedgerEntry]) -> Finding:
    """Whether the candidate, or the same bundle under another number, was rolled back."""
    digest = candidate.tags.get(registry.DIGEST, "")
    digests = {entry.decision.version: entry.decision.digest for entry in book if entry.decision.digest}
    for number, entry in decisions.rolled_back_versions(book).items():
        if number == candidate.number or (digest and digests.get(number) == digest):
            return version_checks.not_rolled_back(candidate.number, entry.number, entry.decision.reason)
    return version_checks.not_rolled_back(candidate.number, None, "")


def past_uses(book: Sequence[LedgerEntry]) -> list[ComparisonUse]:
    """The comparisons that earlier gates made, in their order."""
    promotions = [entry.decision for entry in book if entry.decision.action == "promotion"]
    uses = [ComparisonUse.of_window(decision.window) for decision in promotions]
    return [use for use in uses if use is not None]


def make_decision(
    use_case: UseCase, candidate: Version, to: str, result: GateResult, request: PromotionRequest
) -> Decision:
    """The decision as it goes into the ledger."""
    verdict, champion = result.verdict, result.champion
    forced = request.force and verdict.may_be_forced
    moves = forced or verdict.moves
    approved = candidate.tags.get(APPROVED, "").strip() if to == PRODUCTION else ""
    approval = f"{approved} (seen {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC)" if approved else ""
    current = champion if to == PRODUCTION else registry.holder(use_case.name, to)
    return Decision(
        "promotion",
        verdict.decision,
        candidate.number,
        to,
        moves=moves,
        previous="" if current is None else current.number,
        reason=request.reason if request.reason and moves else _reason_for(verdict, request),
        forced=forced,
        approval=approval,
        policy=limits_hash(use_case),
        digest=candidate.tags.get(registry.DIGEST, ""),
        window=verdict.window,
        stages=use_case.registry.stages,
        findings=verdict.to_dict()["findings"],
        page=decision_page(
            candidate, current, to, result, rules=limits_hash(use_case), forced=request.reason if forced else ""
        ),
    )


def decision_page(
    candidate: Version, current: Version | None, to: str, result: GateResult, *, rules: str, forced: str
) -> str:
    """The decision in Markdown; findings against the candidate first."""
    before = f"version {current.number}" if current else "nothing"
    lines = [f"# {result.verdict.decision}: version {candidate.number} to {to}", "", f"There before: {before}.", ""]
    lines += [f"**Forced:** {forced}", ""] if forced else []
    window = result.verdict.window
    if window:
        times = f" from {window['start']} to {window['end']}" if window["start"] else ""
        lines += [f"Rows: {window['rows']:,}{times}.", ""]
    lines += [f"Limits: `{rules}`.", "", "| outcome | finding | what was found |", "|---|---|---|"]
    order = ["fail", "unsure", "pass", "not applicable"]
    ordered = sorted(result.verdict.findings, key=lambda finding: order.index(finding.outcome))
    lines += [f"| {finding.outcome} | {finding.code} | {finding.sentence.replace('|', '/')} |" for finding in ordered]
    return "\n".join(lines) + "\n"


def _reason_for(verdict: Verdict, request: PromotionRequest) -> str:
    """Why, in a line: the findings against the candidate, else those that decided for it."""
    outcome = {"REJECT": "fail", "HOLD": "unsure", "TRIAL": "unsure"}.get(verdict.decision)
    if outcome is not None:
        lead = "This cannot be forced. " if request.force else ""
        return lead + " ".join(finding.sentence for finding in verdict.findings if finding.outcome == outcome)[:1000]
    deciding = [finding.sentence for finding in verdict.findings if finding.code in {"better", "not_worse", "champion"}]
    return " ".join(deciding)


def _command_result(candidate: Version, result: GateResult, entry: LedgerEntry, repaired: list[str]) -> CommandResult:
    """The recorded decision as lines for a person and data for a program."""
    decision, verdict = entry.decision, result.verdict
    lines = [*repaired, f"{decision.verdict}: version {candidate.number} of {candidate.name} to {decision.alias}"]
    lines += [f"  {SIGNS[finding.outcome]} {finding.sentence}" for finding in verdict.findings]
    if entry.counts:
        before = f" (before: version {decision.previous})" if decision.previous else ""
        lines += [f"Forced by {entry.actor}: {decision.reason}"] if decision.forced else []
        lines.append(f"Version {candidate.number} holds the alias '{decision.alias}' now{before}.")
    else:
        lines += [decision.reason] if decision.verdict != verdict.decision or decision.reason.startswith("This") else []
        where = f" (version {decision.previous})" if decision.previous else ""
        lines.append(f"The alias '{decision.alias}' stays where it is{where}.")
    lines.append(f"Recorded as decision {entry.number} in the experiment {ledger_runs.experiment(candidate.name)}.")
    content = {
        "use_case": candidate.name,
        "to": decision.alias,
        **entry.to_dict(),
        "previous": decision.previous or None,
        "findings": verdict.to_dict()["findings"],
        "decision": decision.verdict,
        "ledger_run_id": entry.run_id,
        "repaired": repaired,
    }
    return CommandResult(tuple(lines), content, 0 if entry.counts else EXIT[decision.verdict])
