"""Where a version stands by the ledger, in the words that its page in the registry shows."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from afterfit.mlflow_store.registry import PRODUCTION, TRAINED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from afterfit.mlflow_store.ledger import Decision, LedgerEntry

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
        decided: the decision about this version that made it so; None where there is none. A version that was
            replaced keeps its own last decision.
    """

    status: str = TRAINED
    decided: LedgerEntry | None = None


def standing(book: Iterable[LedgerEntry], number: str) -> Standing:
    """Where a version stands after all decisions of a ledger.

    It is worked out from the whole ledger each time, so that a process that finishes another's work says the same.

    Args:
        book: the ledger, oldest first; what was not recorded whole is left out.
        number: the version.
    """
    found = Standing()
    holders: dict[str, str] = {}
    for entry in book:
        decision = entry.decision
        if entry.state not in {"intended", "done"}:
            continue
        if decision.moves:
            found = _moved(found, entry, holders, number)
            holders[decision.alias] = decision.version
        elif decision.version == number and _refuses(found, entry, holders.get(PRODUCTION, "")):
            found = Standing(REFUSED if decision.verdict == "REJECT" else HELD, entry)
    return found


def _moved(found: Standing, entry: LedgerEntry, holders: dict[str, str], number: str) -> Standing:
    decision, held = entry.decision, holders.get(entry.decision.alias) == number
    produced = holders.get(PRODUCTION) == number
    if decision.version == number:
        if held and decision.action == "repair":
            return found  # the alias was put back to where it was
        if decision.alias == PRODUCTION:
            return Standing(ON_TRIAL if _on_trial(decision) else IN_PRODUCTION, entry)
        return found if produced else Standing(IN_STAGING, entry)
    if decision.action == "rollback" and decision.previous == number:
        return Standing(ROLLED_BACK, entry)
    leaves = held and (decision.alias == PRODUCTION or found.status == IN_STAGING)
    return Standing(f"replaced by {decision.version}", found.decided) if leaves and decision.version else found


def _on_trial(decision: Decision) -> bool:
    """In production while outcomes still have to show what it is worth.

    Trials of the loop were once written as HOLD, forced: their reason tells them from what a person forced.
    """
    once = decision.verdict == "HOLD" and decision.forced and decision.reason.startswith("On trial.")
    return decision.verdict == "TRIAL" or once


def _refuses(found: Standing, entry: LedgerEntry, production: str) -> bool:
    """What is in production stays there whatever is refused; what was rolled back stays rolled back."""
    decision = entry.decision
    return (
        decision.action in {"promotion", "rollback"} and found.status != ROLLED_BACK and decision.version != production
    )


def decision_words(entry: LedgerEntry) -> str:
    """A decision for the tag of a version: number and verdict, and why, where it was refused or held."""
    decision = entry.decision
    words = f"{entry.number}: {decision.verdict}{', forced' if decision.forced else ''}"
    return words if decision.moves else f"{words}. {_why(decision, MOST_TAG)}"


def _why(decision: Decision, most: int) -> str:
    """What stands against a version, short: the first findings that failed, or that lack evidence."""
    wanted = "fail" if decision.verdict == "REJECT" else "unsure"
    against = " ".join(str(one["sentence"]) for one in decision.findings if one.get("outcome") == wanted)
    return textwrap.shorten(against or decision.reason, most, placeholder=" …")


def summary(entry: LedgerEntry) -> str:
    """A decision for the description of a version."""
    decision = entry.decision
    place = f" in place of version {decision.previous}" if decision.previous and decision.moves else ""
    lines = [
        f"{entry.time:%Y-%m-%d %H:%M} UTC, by {entry.actor}: {_done(decision)}: version {decision.version}{place}."
    ]
    if decision.moves:
        lines += [f"Reason: {decision.reason}"] if decision.reason else []
    else:
        lines.append(f"Why: {_why(decision, MOST_DESCRIPTION)}")
    lines += [f"Approved: {decision.approval}"] if decision.approval else []
    return "\n\n".join([*lines, f"The findings are in the run {entry.run_id} of the experiment of decisions."])


def _done(decision: Decision) -> str:
    if not decision.moves:
        return f"{'refused' if decision.verdict == 'REJECT' else 'held back'} for {decision.alias}"
    if decision.forced and not _on_trial(decision):
        return f"forced to {decision.alias}"
    trial = " on trial" if decision.alias == PRODUCTION and _on_trial(decision) else ""
    return f"{'rolled back' if decision.action == 'rollback' else 'promoted'} to {decision.alias}{trial}"
