"""Put the version before back into production, on record."""

from afterfit import data
from afterfit.errors import AfterfitError, BundleError, SettingsError
from afterfit.gate import version_checks
from afterfit.gate.verdict import Finding
from afterfit.lifecycle.promotion import SIGNS
from afterfit.lifecycle.result import REJECT, CommandResult
from afterfit.mlflow_store import ledger, registry
from afterfit.mlflow_store.ledger import Decision, LedgerEntry
from afterfit.mlflow_store.registry import PRODUCTION, Version
from afterfit.use_case import UseCase

LATEST_ROWS = 1_000
"""Rows of the end of the source that the version must accept."""


def command_for(use_case: UseCase, reason: str, version: str = "") -> CommandResult:
    """The same for a use case that is loaded already, without a run."""
    name = use_case.name
    repaired = ledger.repair(name)
    book = ledger.entries(name)
    current = ledger.holder(book, PRODUCTION)
    target = registry.version(name, chosen(name, book, current, version))
    findings = examine(use_case, target)
    done = all(finding.outcome == "pass" for finding in findings)
    decision = Decision(
        "rollback",
        "ROLLBACK" if done else "REJECT",
        target.number,
        PRODUCTION,
        moves=done,
        previous=current,
        reason=reason,
        digest=target.tags.get(registry.DIGEST, ""),
        stages=use_case.registry.stages,
        findings=[finding.to_dict() for finding in findings],
        page=f"# Rollback from version {current} to {target.number}\n\n{reason}\n\n" + "\n".join(_listed(findings)),
    )
    entry, more = ledger.record(name, decision, book[-1].number if book else 0)
    return _answered(entry, current, findings, [*repaired, *more])


def chosen(name: str, book: tuple[LedgerEntry, ...], current: str, version: str) -> str:
    """The version to go back to.

    Raises:
        SettingsError: nothing is in production, or the version never was, or was rolled back itself.
    """
    if not current:
        raise SettingsError(f"Nothing of '{name}' is in production, so there is nothing to roll back.")
    once = [number for number in ledger.once_held(book) if number != current]
    barred = ledger.rolled_back(book)
    wanted = registry.version(name, version).number if version.strip() else ledger.before(book, current)
    if not wanted:
        raise SettingsError(f"No version before {current} of '{name}' can come back: {_said(once, barred)}.")
    if wanted == current:
        raise SettingsError(f"Version {current} of '{name}' is in production already.")
    if wanted not in once:
        raise SettingsError(
            f"Version {wanted} of '{name}' was never in production ({_said(once, barred)}): promote it instead."
        )
    if wanted in barred:
        raise SettingsError(
            f"Version {wanted} of '{name}' was rolled back itself (decision {barred[wanted].number}: "
            f"{barred[wanted].decision.reason}): train a new candidate."
        )
    return wanted


def _said(once: list[str], barred: dict[str, LedgerEntry]) -> str:
    told = [f"{number} (rolled back)" if number in barred else number for number in once]
    return f"once there were {', '.join(told)}" if told else "there was no other"


def examine(use_case: UseCase, target: Version) -> tuple[Finding, ...]:
    """What a version must still do before it may come back: load, answer its example, accept the latest rows."""
    try:
        bundle = registry.load_bundle(target)
    except BundleError as error:
        return (version_checks.does_not_load(str(error)),)
    answers = [bundle.answer(row) for row in bundle.example]
    findings = [version_checks.loads(bundle.digest), version_checks.example_answered(answers)]
    try:
        frame = data.load(use_case).frame.tail(LATEST_ROWS)
        checked, _ = bundle.scorer.score(frame)
    except AfterfitError as error:
        return (*findings, version_checks.rows_unread(str(error)))
    return (*findings, version_checks.answers_all(int(checked.bad.sum()), len(frame), "latest"))


def _listed(findings: tuple[Finding, ...]) -> list[str]:
    return [f"  {SIGNS[finding.outcome]} {finding.sentence}" for finding in findings]


def _answered(entry: LedgerEntry, current: str, findings: tuple[Finding, ...], repaired: list[str]) -> CommandResult:
    decision = entry.decision
    lines = [*repaired, f"{decision.verdict}: production from version {current} to {decision.version}"]
    lines += _listed(findings)
    if entry.counts:
        lines.append(
            f"Version {decision.version} is in production again; {current} cannot come back: {decision.reason}"
        )
    else:
        lines.append(f"Version {current} stays in production. {decision.reason if decision.verdict == 'HOLD' else ''}")
    lines.append(f"Recorded as decision {entry.number}.")
    told = {**entry.to_dict(), "findings": list(decision.findings), "from": current, "repaired": repaired}
    return CommandResult(tuple(line.rstrip() for line in lines), told, 0 if entry.counts else REJECT)
