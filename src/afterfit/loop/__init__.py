"""One turn over one window: observe, decide, act; the same live and on history.

It never calls MLflow and has no clock: versions, rows and the time come in through `World`. Words: docs/glossary.md.
"""

from typing import TYPE_CHECKING

from afterfit.lazy import lazy

if TYPE_CHECKING:
    from afterfit.loop.policy import decide
    from afterfit.loop.stepping import World, act, step
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "policy": ("decide",),
            "stepping": ("World", "act", "step"),
        },
    )
