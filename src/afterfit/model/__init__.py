"""From training rows to a bundle that answers: builders, folds, search, calibration, files, compiled trees.

What loads a bundle and answers never imports what searches, and nothing in a bundle is unpickled. MLflow is never
called here. Words: docs/glossary.md.
"""

from typing import TYPE_CHECKING

from afterfit.lazy import lazy

if TYPE_CHECKING:
    from afterfit.model.bundle import Bundle
    from afterfit.model.training import train
    from afterfit.model.tuning import search
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "bundle": ("Bundle",),
            "training": ("train",),
            "tuning": ("search",),
        },
    )
