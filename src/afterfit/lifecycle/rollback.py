"""Put an earlier version back into production, and record the decision."""

from afterfit import data
from afterfit.errors import AfterfitError, BundleError, SettingsError
from afterfit.gate import version_checks
from afterfit.gate.verdict import Finding
from afterfit.lifecycle.promotion import SIGNS
from afterfit.lifecycle.result import REJECT, CommandResult
from afterfit.mlflow_store import decisions, ledger, registry
from afterfit.mlflow_store.decisions import Decision, LedgerEntry
from afterfit.mlflow_store.registry import PRODUCTION, Version
from afterfit.use_case import UseCase

LATEST_ROWS = 1_000
"""The last rows of the source, which the version must accept."""


def roll_back(use_case: UseCase, reason: str, version: str = "") -> CommandResult:
    """Check an earlier version, record the decision, and move production back to it if it works.

    Args:
        use_case: its settings.
        reason: why, for those who read the ledger later.
        version: a number or an alias; where empty, the last version before that was not rolled back itself.
    """
    name = use_case.name
    repaired = ledger.repair(name)
    book = ledger.entries(name)
    current = decisions.holder(book, PRODUCTION)
    target = registry.version(name, version_to_restore(name, book, current, version))
    findings = examine(use_case, target)
    works = all(finding.outcome == "pass" for finding in findings)
    decision = Decision(
        "rollback",
        "ROLLBACK" if works else "REJECT",
        target.number,
        PRODUCTION,
        moves=works,
        previous=current,
        reason=reason,
        digest=target.tags.get(registry.DIGEST, ""),
        stages=use_case.registry.stages,
        findings=[finding.to_dict() for finding in findings],
        page=f"# Rollback from version {current} to {target.number}\n\n{reason}\n\n"
        + "\n".join(_finding_lines(findings)),
    )
    entry, repaired_since = ledger.record(name, decision, book[-1].number if book else 0)
    return _command_result(entry, current, findings, [*repaired, *repaired_since])


def version_to_restore(name: str, book: tuple[LedgerEntry, ...], current: str, version: str) -> str:
    """The version to go back to.

    Raises:
        SettingsError: nothing is in production, or the version never was, or was rolled back itself.
    """
    if not current:
        raise SettingsError(f"Nothing of '{name}' is in production, so there is nothing to roll back.")
    former = [number for number in decisions.past_holders(book) if number != current]
    rolled_back = decisions.rolled_back_versions(book)
    wanted = registry.version(name, version).number if version.strip() else decisions.version_before(book, current)
    if not wanted:
        raise SettingsError(
            f"No version before {current} of '{name}' can come back: {_former_versions(former, rolled_back)}."
        )
    if wanted == current:
        raise SettingsError(f"Version {current} of '{name}' is in production already.")
    if wanted not in former:
        raise SettingsError(
            f"Version {wanted} of '{name}' was never in production ({_former_versions(former, rolled_back)}): "
            "promote it instead."
        )
    if wanted in rolled_back:
        raise SettingsError(
            f"Version {wanted} of '{name}' was rolled back itself (decision {rolled_back[wanted].number}: "
            f"{rolled_back[wanted].decision.reason}): train a new candidate."
        )
    return wanted


def examine(use_case: UseCase, target: Version) -> tuple[Finding, ...]:
    """What a version must still do before it may come back: load, answer its example, accept the latest rows."""
    try:
        bundle = registry.load_bundle(target)
    except BundleError as error:
        return (version_checks.does_not_load(str(error)),)
    answers = [bundle.answer(row) for row in bundle.example]
    findings = [version_checks.loads(bundle.digest), version_checks.example_answered(answers)]
    try:
        frame = data.load(bundle.read_on(use_case), contracts=[bundle.scorer.contract]).frame.tail(LATEST_ROWS)
        checked, _ = bundle.scorer.score(frame)
    except AfterfitError as error:
        return (*findings, version_checks.rows_unread(str(error)))
    return (*findings, version_checks.answers_all(int(checked.bad.sum()), len(frame), "latest"))


def _former_versions(former: list[str], rolled_back: dict[str, LedgerEntry]) -> str:
    words = [f"{number} (rolled back)" if number in rolled_back else number for number in former]
    return f"once there were {', '.join(words)}" if words else "there was no other"


def _finding_lines(findings: tuple[Finding, ...]) -> list[str]:
    return [f"  {SIGNS[finding.outcome]} {finding.sentence}" for finding in findings]


def _command_result(
    entry: LedgerEntry, current: str, findings: tuple[Finding, ...], repaired: list[str]
) -> CommandResult:
    decision = entry.decision
    lines = [*repaired, f"{decision.verdict}: production from version {current} to {decision.version}"]
    lines += _finding_lines(findings)
    if entry.counts:
        lines.append(
            f"Version {decision.version} is in production again; {current} cannot come back: {decision.reason}"
        )
    else:
        lines.append(f"Version {current} stays in production. {decision.reason if decision.verdict == 'HOLD' else ''}")
    lines.append(f"Recorded as decision {entry.number}.")
    data = {**entry.to_dict(), "findings": list(decision.findings), "from": current, "repaired": repaired}
    return CommandResult(tuple(line.rstrip() for line in lines), data, 0 if entry.counts else REJECT)
