"""Carry a decision out in the registry: move aliases and stages, and bring tags and descriptions up to date.

All of it can be repeated without harm: a process that finishes another's work comes to the same result.
"""

from collections.abc import Mapping, Sequence

from afterfit.mlflow_store import registry
from afterfit.mlflow_store.decisions import LedgerEntry, holder, version_before
from afterfit.mlflow_store.lock import Lease
from afterfit.mlflow_store.registry import PRODUCTION, STAGING, Version
from afterfit.mlflow_store.standing import decision_words, standing, summary

PREVIOUS = "previous"
RETIRED = ("production_until", "replaced_by")
"""Facts of a version that left production; a version that comes back loses them."""
STAGES = {PRODUCTION: "Production", STAGING: "Staging"}
"""The aliases that the ledger keeps, each with the one of MLflow's old stages that mirrors it."""


def carry_out(name: str, entries: Sequence[LedgerEntry], lease: Lease) -> None:
    """Do what the last entry asks for: move its alias, or write on the version why it was refused or held.

    Args:
        name: the use case's name.
        entries: the ledger, oldest first, up to the entry that is carried out.
        lease: the ledger's lock.
    """
    if entries[-1].decision.moves:
        _move(name, entries, lease)
    else:
        _tell_refusal(name, entries, lease)


def _move(name: str, entries: Sequence[LedgerEntry], lease: Lease) -> None:
    """Move the last entry's alias to its version; the pages of the new and the old version are brought up to date."""
    entry = entries[-1]
    decision = entry.decision
    lease.require()
    target = _version_or_none(name, decision.version)
    if target is None:
        registry.unset_alias(name, decision.alias)
    else:
        registry.set_alias(target, decision.alias)
        facts = {f"{decision.alias}_since": entry.time.isoformat(), "decision": entry.run_id}
        _update_version_page(target, entries, facts, RETIRED if decision.alias == PRODUCTION else ())
        if decision.stages:
            registry.mirror_stage(target, STAGES[decision.alias])
    if decision.alias == PRODUCTION and target is not None:
        _set_previous(name, entries)
    if decision.previous != decision.version:
        _retire(name, entries)


def _set_previous(name: str, entries: Sequence[LedgerEntry]) -> None:
    previous = _version_or_none(name, version_before(entries, entries[-1].decision.version))
    if previous is None:
        registry.unset_alias(name, PREVIOUS)
    else:
        registry.set_alias(previous, PREVIOUS)


def _retire(name: str, entries: Sequence[LedgerEntry]) -> None:
    """Bring the version that loses the alias up to date: its tags, its stage, and staging after a rollback."""
    entry = entries[-1]
    decision = entry.decision
    target = _version_or_none(name, decision.previous)
    if target is None:
        return
    leaves_production = decision.alias == PRODUCTION and decision.action != "repair"
    if leaves_production and holder(entries, STAGING) != holder(entries[:-1], STAGING):
        registry.unset_alias(name, STAGING)
    facts = {"production_until": entry.time.isoformat(), "replaced_by": decision.version}
    _update_version_page(target, entries, facts if leaves_production else {})
    if decision.stages and leaves_production:
        registry.mirror_stage(target, "Archived")


def _tell_refusal(name: str, entries: Sequence[LedgerEntry], lease: Lease) -> None:
    """Write on a version that it was refused or held, unless it is in production or was rolled back."""
    lease.require()
    number = entries[-1].decision.version
    target = _version_or_none(name, number) if standing(entries, number).decided is entries[-1] else None
    if target is not None:
        _update_version_page(target, entries, {})


def _update_version_page(
    target: Version, entries: Sequence[LedgerEntry], facts: Mapping[str, str], drop: Sequence[str] = ()
) -> None:
    """Write where a version stands after the last entry into its tags and its description."""
    current, entry = standing(entries, target.number), entries[-1]
    tags = {registry.STATUS: current.status} | {f"{registry.PREFIX}{key}": value for key, value in facts.items()}
    if current.decided is not None and (current.decided is entry or registry.DECISION not in target.stored):
        tags[registry.DECISION] = decision_words(current.decided)
    registry.tag(target, tags, [f"{registry.PREFIX}{key}" for key in ("stage", *drop)])
    if current.decided is entry and entry.decision.action in {"promotion", "rollback"}:
        registry.extend_description(target, f"## Decision {entry.number}", summary(entry))


def _version_or_none(name: str, number: str) -> Version | None:
    """A version by its number; None where there is none, or it was deleted."""
    return registry.holder(name, number) if number else None
