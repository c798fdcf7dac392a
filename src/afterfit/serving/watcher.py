"""The one process of a server that talks to MLflow: which version holds the alias, and what the ledger says.

It writes what should be served into a file that the workers read. So a worker never waits for a store, never imports
MLflow, and goes on with what it has while the store is away.
"""

import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from afterfit import ledger, registry
from afterfit.errors import AfterfitError, BundleError, StoreError, UnknownVersionError
from afterfit.ledger import Decision
from afterfit.serving.plan import Plan, plan_of

LEDGER_SECONDS = 30.0
ENTRIES = 10
"""Decisions that the page shows."""


class Watcher:
    """Asks the registry again and again.

    Args:
        plan: what is served, and where the shared folder is.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._name, self._shared = plan.use_case.name, Path(plan.shared)
        self._target: dict[str, Any] = {"served": None, "shadow": None, "registry": {"reachable": False}}
        self._good: list[dict[str, str]] = []
        self._refused: set[tuple[str, str]] = set()
        self._told = self._page = 0.0

    def run(self) -> None:
        """Ask until the server is gone."""
        parent = os.getppid()
        while os.getppid() == parent:
            self.ask()
            self._wait(self._plan.use_case.serving.reload_seconds)

    def _wait(self, seconds: float) -> None:
        """Sleep, unless a webhook calls or a worker refuses something."""
        until, parent = time.monotonic() + seconds, os.getppid()
        poke = self._shared / "poke"
        while time.monotonic() < until and os.getppid() == parent:
            if poke.exists():
                poke.unlink(missing_ok=True)
                return
            if self._notes():
                return
            time.sleep(0.05)

    def ask(self) -> None:
        """Ask once, and write down what should be served."""
        try:
            self._note_refusals()
            for what, alias in (("served", self._plan.alias), ("shadow", self._plan.shadow)):
                if alias:
                    self._follow(what, alias)
            self._target["registry"] = {"reachable": True, "answered": time.time()}
        except UnknownVersionError as error:
            fatal = str(error) if self._target["served"] is None else None
            self._away(error, reachable=True, fatal=fatal)
        except AfterfitError as error:
            self._away(error, reachable=isinstance(error, BundleError))
        self._write("target.json", self._target)
        if time.monotonic() - self._page > LEDGER_SECONDS or not self._page:
            self._write_ledger()

    def _away(self, error: AfterfitError, *, reachable: bool, fatal: str | None = None) -> None:
        known = self._target["registry"]
        self._target["registry"] = {**known, "reachable": reachable, "error": str(error), "fatal": fatal}
        if reachable:
            self._target["registry"]["answered"] = time.time()
        if time.monotonic() - self._told > 60 or not self._told:
            self._told = time.monotonic()
            sys.stderr.write(f"{error}\n")

    def _follow(self, what: str, alias: str) -> None:
        held = registry.version(self._name, alias)
        known = self._target[what]
        digest = held.tags.get(registry.DIGEST, "")
        if (held.number, digest) in self._refused and what == "served":
            return
        if known is None or (known["version"], known["digest"]) != (held.number, digest):
            home, _ = registry.fetch(held)
            found = {
                "version": held.number,
                "digest": digest,
                "home": str(home),
                "bundle": str(home / registry.BUNDLE),
            }
            self._target[what] = found
            if what == "served":
                self._good.append(found)
                self._page = 0.0

    def _notes(self) -> list[Path]:
        return sorted(self._shared.glob("refused-*.json"))

    def _note_refusals(self) -> None:
        """What a worker could not take into service: noted in the ledger once, and taken back from all workers."""
        for file in self._notes():
            note = orjson.loads(file.read_bytes())
            mark = (note["version"], note["digest"])
            if mark not in self._refused:
                self._refused.add(mark)
                self._good = [one for one in self._good if (one["version"], one["digest"]) != mark]
                self._target["served"] = self._good[-1] if self._good else None
                self._write("target.json", self._target)
                self._record(note)
            file.unlink(missing_ok=True)

    def _record(self, note: Mapping[str, str]) -> None:
        goes_on = self._good[-1]["version"] if self._good else ""
        served = f"version {goes_on} goes on" if goes_on else "nothing is served"
        reason = f"The server did not take version {note['version']} into service, {served}: {note['reason']}"
        decision = Decision(
            "refusal",
            "REFUSED",
            note["version"],
            self._plan.alias,
            moves=False,
            previous=goes_on,
            reason=reason,
            digest=note["digest"],
            page=f"# Version {note['version']} was not taken into service\n\n{reason}\n",
        )
        try:
            ledger.record(self._name, decision, 0)
        except StoreError as error:
            sys.stderr.write(f"The refusal of version {note['version']} could not be noted: {error}\n")
        self._page = 0.0

    def _write_ledger(self) -> None:
        with suppress(AfterfitError):
            self._write("ledger.json", [one.to_dict() for one in reversed(ledger.entries(self._name)[-ENTRIES:])])
            self._page = time.monotonic()

    def _write(self, name: str, content: Any) -> None:
        part = self._shared / f"{name}.part"
        part.write_bytes(orjson.dumps(content, default=str))
        part.replace(self._shared / name)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, FileNotFoundError):  # the shared folder is gone: so is the server
        Watcher(plan_of(sys.argv[1])).run()
