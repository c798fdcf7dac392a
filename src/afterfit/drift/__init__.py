"""How far one window's rows lie from another's: profiles, tests a column and between columns, one rate over all."""

from typing import TYPE_CHECKING

from afterfit.package import lazy

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
