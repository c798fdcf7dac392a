"""How good answers are: metrics, intervals, paired comparison, and estimates before outcomes come.

It works on arrays: it never reads a source, loads a model, or says what is good enough. Words: docs/glossary.md.
"""

from typing import TYPE_CHECKING

from afterfit.lazy import lazy

if TYPE_CHECKING:
    from afterfit.performance.estimation import estimate
    from afterfit.performance.evaluation import evaluate
    from afterfit.performance.paired_comparison import compare_performance
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "estimation": ("estimate",),
            "evaluation": ("evaluate",),
            "paired_comparison": ("compare_performance",),
        },
    )
