"""The versions that a server has fetched: its own copies, which were refused, and when one is tried again."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from afterfit.errors import AfterfitError
from afterfit.mlflow_store import registry
from afterfit.mlflow_store.registry import Version

AGAIN, SOONER = 300.0, 30.0
"""Seconds after which a refused version is tried again while its alias stays there; the latter where nothing serves."""
KEPT = 3
"""Copies that are kept of versions once served: the current one and two to go back to."""
Target = dict[str, str]
Mark = tuple[str, str]


class Copies:
    """Fetches versions into a folder of the server's own, so that nothing that others do to their files reaches it.

    Args:
        folder: where the copies are; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fetched = 0
        self._known: dict[Mark, Target] = {}
        self._refused: dict[Mark, float] = {}
        self.good: list[Target] = []

    def get(self, held: Version, now: float) -> Target | None:
        """What a worker needs to load a version; None for one that was refused and is not to be tried yet.

        Args:
            held: the version.
            now: seconds of a clock that does not jump.

        Raises:
            BundleError: its files are not there, or are nothing that may be loaded; it counts as refused.
            StoreError: the store is away.
        """
        mark = held.number, held.tags.get(registry.DIGEST, "")
        if mark in self._known:
            return self._known[mark]
        if now < self._refused.get(mark, now):
            return None
        self._fetched += 1
        place = self._folder / f"{held.number}-{self._fetched}"
        place.mkdir(parents=True)
        try:
            home, _ = registry.fetch(held, place)
        except AfterfitError:
            shutil.rmtree(place, ignore_errors=True)
            raise
        self._known[mark] = found = {
            "version": held.number,
            "digest": mark[1],
            "home": str(home),
            "bundle": str(home / registry.BUNDLE),
            "attempt": str(self._fetched),
        }
        return found

    def refuse(self, mark: Mark, now: float) -> None:
        """Do not serve this version for a while; what was served before it is what `good` ends with."""
        self._known.pop(mark, None)
        self.good = [one for one in self.good if mark_of(one) != mark]
        self._refused[mark] = now + (AGAIN if self.good else SOONER)

    def forgive(self, number: str = "") -> None:
        """Try a refused version again, or all of them: the alias was set to it once more."""
        self._refused = {mark: until for mark, until in self._refused.items() if number and mark[0] != number}

    def clean(self, wanted: Sequence[Target | None]) -> None:
        """Remove all copies but what is wanted now and the last good ones."""
        self.good = self.good[-KEPT:]
        kept = [one for one in (*wanted, *self.good) if one is not None]
        self._known = {mark_of(one): one for one in kept}
        names = {f"{one['version']}-{one['attempt']}" for one in kept}
        for place in self._folder.glob("*"):
            if place.name not in names:
                shutil.rmtree(place, ignore_errors=True)


def mark_of(target: Mapping[str, str]) -> Mark:
    """What tells versions apart, also where one number was made anew."""
    return target["version"], target["digest"]
