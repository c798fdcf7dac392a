"""Whether a version may go into production: findings about it, their limits, and the verdict that follows.

This wing never moves an alias and never records anything. Words: docs/glossary.md.
"""

from typing import TYPE_CHECKING

from afterfit.lazy import lazy

if TYPE_CHECKING:
    from afterfit.gate.examination import examine
    from afterfit.gate.inputs import GateInput, HeldOut, LoadedVersion, by_last_fold, held_out
    from afterfit.gate.verdict import ComparisonUse, Finding, Verdict, confidence_left, judge, uses
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "examination": ("examine",),
            "inputs": ("GateInput", "HeldOut", "LoadedVersion", "by_last_fold", "held_out"),
            "verdict": ("ComparisonUse", "Finding", "Verdict", "confidence_left", "judge", "uses"),
        },
    )
