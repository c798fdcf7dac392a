"""The one process of a server that talks to MLflow: which version holds the alias, and what the ledger says.

It writes what should be served into a file that the workers read. So a worker never waits for a store, never imports
MLflow, and goes on with what it has while the store is away.

It keeps copies of the versions that it fetched, and knows which were refused and when to try one again.
"""

import gc
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from afterfit.errors import AfterfitError, BundleError, UnknownVersionError
from afterfit.mlflow_store import ledger, registry
from afterfit.mlflow_store.decisions import Decision
from afterfit.mlflow_store.registry import Version
from afterfit.server.options import ServerOptions, plan_of
from afterfit.serving.auth import LOOK_AGAIN
from afterfit.texts.redaction import redact

AGAIN, SOONER = 300.0, 30.0
"""Seconds after which a refused version is tried again while its alias stays there; the latter where nothing serves."""
KEPT = 3
"""Copies that are kept of versions once served: the current one and two to go back to."""
Target = dict[str, str]
Mark = tuple[str, str]


class Copies:
    """Copies of versions in a folder of the server's own: what others do to the files in the store does not reach it.

    Args:
        folder: where the copies are; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fetched = 0
        self._known: dict[Mark, Target] = {}
        self._refused: dict[Mark, float] = {}
        self.good: list[Target] = []

    def get(self, version: Version, now: float) -> Target | None:
        """What a worker needs to load a version; None for one that was refused and is not to be tried yet.

        Args:
            version: the version.
            now: seconds of a clock that does not jump.

        Raises:
            BundleError: its files are not there, or are nothing that may be loaded; it counts as refused.
            StoreError: the store is away.
        """
        mark = version.number, version.tags.get(registry.DIGEST, "")
        if mark in self._known:
            return self._known[mark]
        if now < self._refused.get(mark, now):
            return None
        self._fetched += 1
        place = self._folder / f"{version.number}-{self._fetched}"
        place.mkdir(parents=True)
        try:
            home, _ = registry.fetch(version, place)
        except AfterfitError:
            shutil.rmtree(place, ignore_errors=True)
            raise
        self._known[mark] = target = {
            "version": version.number,
            "digest": mark[1],
            "home": str(home),
            "bundle": str(home / registry.BUNDLE),
            "attempt": str(self._fetched),
        }
        return target

    def refuse(self, mark: Mark, now: float) -> None:
        """Do not serve this version for a while; the last of `good` is what was served before it."""
        self._known.pop(mark, None)
        self.good = [target for target in self.good if mark_of(target) != mark]
        self._refused[mark] = now + (AGAIN if self.good else SOONER)

    def forgive(self, number: str = "") -> None:
        """Try a refused version again, or all of them: the alias was set to it once more."""
        self._refused = {mark: until for mark, until in self._refused.items() if number and mark[0] != number}

    def clean(self, wanted: Sequence[Target | None]) -> None:
        """Remove all copies but what is wanted now and the last good ones."""
        self.good = self.good[-KEPT:]
        kept = [target for target in (*wanted, *self.good) if target is not None]
        self._known = {mark_of(target): target for target in kept}
        names = {f"{target['version']}-{target['attempt']}" for target in kept}
        for place in self._folder.glob("*"):
            if place.name not in names:
                shutil.rmtree(place, ignore_errors=True)


def mark_of(target: Mapping[str, str]) -> Mark:
    """A version's number and digest: a number that was deleted and made again is another version."""
    return target["version"], target["digest"]


LEDGER_SECONDS = 30.0
ENTRIES = 10
"""Decisions that the page shows."""
LOCK_SECONDS = 3.0
"""Longest wait for a command at work before a note is put off: the alias must be followed meanwhile."""
PENDING = "pending-note"
"""How the files are called that hold what the ledger is to be told."""


class RegistryWatcher:
    """Asks the registry again and again.

    Args:
        plan: what is served, and where the shared folder is.
    """

    def __init__(self, plan: ServerOptions) -> None:
        self._plan = plan
        self._name, self._shared = plan.use_case.name, Path(plan.shared)
        self._target: dict[str, Any] = {"served": None, "shadow": None, "registry": {"reachable": False}}
        self._copies = Copies(self._shared / "versions")
        self._holders: dict[str, tuple[str, str]] = {}
        self._pending = 0
        self._told = self._page = 0.0

    def run(self) -> None:
        """Ask until the server is gone."""
        parent = os.getppid()
        while os.getppid() == parent:
            self.ask()
            gc.enable()
            self._wait(self._plan.use_case.serving.reload_seconds)

    def _wait(self, seconds: float) -> None:
        """Sleep, unless a webhook calls or a worker refuses something."""
        until, parent = time.monotonic() + seconds, os.getppid()
        poke = self._shared / "poke"
        while time.monotonic() < until and os.getppid() == parent:
            if poke.exists():
                poke.unlink(missing_ok=True)
                if (self._shared / LOOK_AGAIN).exists():
                    (self._shared / LOOK_AGAIN).unlink()
                    self._copies.forgive()
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
        if self._target["registry"]["reachable"]:
            self._write_pending()
        if time.monotonic() - self._page > LEDGER_SECONDS or not self._page:
            self._write_ledger()

    def _away(self, error: AfterfitError, *, reachable: bool, fatal: str | None = None) -> None:
        known = self._target["registry"]
        self._target["registry"] = {**known, "reachable": reachable, "error": str(error), "fatal": fatal}
        if reachable:
            self._target["registry"]["answered"] = time.time()
        self._tell(str(error))

    def _tell(self, sentence: str) -> None:
        if time.monotonic() - self._told > 60 or not self._told:
            self._told = time.monotonic()
            sys.stderr.write(f"{redact(sentence)}\n")

    def _follow(self, what: str, alias: str) -> None:
        version = registry.version(self._name, alias)
        arrived = version.number, version.tags.get(f"{registry.PREFIX}{alias}_since", "")
        if self._holders.get(what, arrived) != arrived:
            self._copies.forgive(version.number)
        self._holders[what] = arrived
        try:
            target = self._copies.get(version, time.monotonic())
        except BundleError as error:
            digest = version.tags.get(registry.DIGEST, "")
            self._refuse({"version": version.number, "digest": digest, "reason": str(error)}, what)
            raise
        if target is None or target == self._target[what]:
            return
        self._target[what] = target
        if what == "served":
            self._copies.good = [good for good in self._copies.good if good != target] + [target]
            self._page = 0.0
        self._copies.clean([self._target["served"], self._target["shadow"]])

    def _notes(self) -> list[Path]:
        return sorted(self._shared.glob("refused-*.json"))

    def _note_refusals(self) -> None:
        """Take a version back from all workers where one of them could not load it."""
        for file in self._notes():
            note = orjson.loads(file.read_bytes())
            if any(target["attempt"] == note["attempt"] for target in self._copies.good):  # no other worker told of it
                self._refuse(note, "served")
            file.unlink(missing_ok=True)

    def _refuse(self, note: Mapping[str, str], what: str) -> None:
        """Go on with the version before. A note waits until the store answers, and then goes into the ledger."""
        self._copies.refuse(mark_of(note), time.monotonic())
        if what != "served":
            return
        good = self._copies.good
        self._target["served"] = good[-1] if good else None
        self._write("target.json", self._target)
        goes_on = good[-1]["version"] if good else ""
        self._pending += 1
        self._write(f"{PENDING}-{self._pending:06d}.json", {**note, "goes_on": goes_on})

    def _write_pending(self) -> None:
        for file in sorted(self._shared.glob(f"{PENDING}-*.json")):
            try:
                self._record(orjson.loads(file.read_bytes()))
            except AfterfitError as error:
                self._tell(f"A refusal is not in the ledger yet: {error}")
                return
            file.unlink()
            self._page = 0.0

    def _record(self, note: Mapping[str, str]) -> None:
        """Note a refusal in the ledger, unless the version's last entry there says the same."""
        goes_on = note["goes_on"]
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
        known = [entry.decision for entry in ledger.entries(self._name) if entry.decision.version == note["version"]]
        if not known or (known[-1].verdict, known[-1].reason) != ("REFUSED", reason):
            ledger.note(self._name, decision, LOCK_SECONDS)

    def _write_ledger(self) -> None:
        with suppress(AfterfitError):
            self._write("ledger.json", [entry.to_dict() for entry in reversed(ledger.entries(self._name)[-ENTRIES:])])
            self._page = time.monotonic()

    def _write(self, name: str, content: Any) -> None:
        part = self._shared / f"{name}.part"
        part.write_bytes(orjson.dumps(content, default=str))
        part.replace(self._shared / name)


def main(text: str) -> None:
    """Ask until the server is gone."""
    with suppress(KeyboardInterrupt, FileNotFoundError):  # the shared folder is gone: so is the server
        RegistryWatcher(plan_of(text)).run()
