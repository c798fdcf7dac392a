"""How far one window lies from another: profiles, tests of columns and relations, one false-alarm rate over all.

It never loads a model, and what follows from drift is decided elsewhere. Words: docs/glossary.md.
"""

from typing import TYPE_CHECKING

from afterfit.lazy import lazy

if TYPE_CHECKING:
    from afterfit.drift.compare import compare_drift
    from afterfit.drift.profiles import Profile, profile
    from afterfit.drift.reference import Reference
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "compare": ("compare_drift",),
            "profiles": ("Profile", "profile"),
            "reference": ("Reference",),
        },
    )
