"""Where a version stands by the ledger (in production, refused …), in the words of its page in the registry."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from afterfit.mlflow_store.registry import PRODUCTION, TRAINED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from afterfit.mlflow_store.decisions import Decision, LedgerEntry

IN_PRODUCTION, ON_TRIAL, IN_STAGING = "in production", "on trial", "in staging"
ROLLED_BACK, REFUSED, HELD = "rolled back", "refused", "held"
MOST_TAG, MOST_DESCRIPTION = 200, 600
"""Characters of why a version was refused that a tag and a section of the description take."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a version is now.

    Attributes:
        status: "trained", "in staging", "on trial", "in production", "replaced by <version>", "rolled back",
            "refused" or "held".
        decided: the decision about this version that led to the status; None where there is none. A version that was
            replaced keeps its own last decision.
    """

    status: str = TRAINED
    decided: LedgerEntry | None = None


def standing(book: Iterable[LedgerEntry], number: str) -> Standing:
    """Where a version stands after all decisions of a ledger.

    It is derived from the whole ledger each time, so that a process that finishes another's work comes to the same.

    Args:
        book: the ledger, oldest first; what was not recorded whole is left out.
        number: the version.
    """
    current = Standing()
    holders: dict[str, str] = {}
    for entry in book:
        decision = entry.decision
        if entry.state not in {"intended", "done"}:
            continue
        if decision.moves:
            current = _after_move(current, entry, holders, number)
            holders[decision.alias] = decision.version
        elif decision.version == number and _counts_as_refusal(current, entry, holders.get(PRODUCTION, "")):
            current = Standing(REFUSED if decision.verdict == "REJECT" else HELD, entry)
    return current


def decision_words(entry: LedgerEntry) -> str:
    """A decision as text for a version's tag: number, verdict, and the reason if it was refused or held."""
    decision = entry.decision
    words = f"{entry.number}: {decision.verdict}{', forced' if decision.forced else ''}"
    return words if decision.moves else f"{words}. {_why(decision, MOST_TAG)}"


def summary(entry: LedgerEntry) -> str:
    """A decision as text for a version's description."""
    decision = entry.decision
    place = f" in place of version {decision.previous}" if decision.previous and decision.moves else ""
    what = f"{_done_words(decision)}: version {decision.version}{place}"
    lines = [f"{entry.time:%Y-%m-%d %H:%M} UTC, by {entry.actor}: {what}."]
    if decision.moves:
        lines += [f"Reason: {decision.reason}"] if decision.reason else []
    else:
        lines.append(f"Why: {_why(decision, MOST_DESCRIPTION)}")
    lines += [f"Approved: {decision.approval}"] if decision.approval else []
    return "\n\n".join([*lines, f"The findings are in the run {entry.run_id} of the experiment of decisions."])


def _after_move(current: Standing, entry: LedgerEntry, holders: dict[str, str], number: str) -> Standing:
    decision, held_it = entry.decision, holders.get(entry.decision.alias) == number
    in_production = holders.get(PRODUCTION) == number
    if decision.version == number:
        if held_it and decision.action == "repair":
            return current  # the alias was put back to where it was
        if decision.alias == PRODUCTION:
            return Standing(ON_TRIAL if _on_trial(decision) else IN_PRODUCTION, entry)
        return current if in_production else Standing(IN_STAGING, entry)
    if decision.action == "rollback" and decision.previous == number:
        return Standing(ROLLED_BACK, entry)
    leaves = held_it and (decision.alias == PRODUCTION or current.status == IN_STAGING)
    return Standing(f"replaced by {decision.version}", current.decided) if leaves and decision.version else current


def _on_trial(decision: Decision) -> bool:
    """Whether a version is in production on trial: outcomes still have to show how good it is.

    Older trials of the loop are recorded as HOLD and forced. Their reason tells them from what a person forced.
    """
    old_trial = decision.verdict == "HOLD" and decision.forced and decision.reason.startswith("On trial.")
    return decision.verdict == "TRIAL" or old_trial


def _counts_as_refusal(current: Standing, entry: LedgerEntry, production: str) -> bool:
    """Whether a refusal changes the status: not of a version in production, nor of one that was rolled back."""
    decision = entry.decision
    return (
        decision.action in {"promotion", "rollback"}
        and current.status != ROLLED_BACK
        and decision.version != production
    )


def _why(decision: Decision, most: int) -> str:
    """The findings against a version, cut to `most` characters: those that failed, or those without enough evidence."""
    wanted = "fail" if decision.verdict == "REJECT" else "unsure"
    against = " ".join(
        str(finding.get("sentence", "")) for finding in decision.findings if finding.get("outcome") == wanted
    )
    return textwrap.shorten(against or decision.reason, most, placeholder=" …")


def _done_words(decision: Decision) -> str:
    if not decision.moves:
        return f"{'refused' if decision.verdict == 'REJECT' else 'held back'} for {decision.alias}"
    if decision.forced and not _on_trial(decision):
        return f"forced to {decision.alias}"
    trial = " on trial" if decision.alias == PRODUCTION and _on_trial(decision) else ""
    return f"{'rolled back' if decision.action == 'rollback' else 'promoted'} to {decision.alias}{trial}"
