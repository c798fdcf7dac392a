"""What a row must look like: the kinds of columns, their values read from text, and rows made into numbers."""

from typing import TYPE_CHECKING

from afterfit.package import lazy

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
