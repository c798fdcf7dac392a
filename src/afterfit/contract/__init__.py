"""What a row must look like, learnt from training rows: kinds of columns, values read from text, rows as numbers.

It never reads a source, and knows no use case, no model and no answer. Words: docs/glossary.md.
"""

from typing import TYPE_CHECKING

from afterfit.lazy import lazy

if TYPE_CHECKING:
    from afterfit.contract.contract import Contract, learn
    from afterfit.contract.encoder import Encoder
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "contract": ("Contract", "learn"),
            "encoder": ("Encoder",),
        },
    )
