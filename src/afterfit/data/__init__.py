"""Where rows come from and how they are parted: files, databases, S3, windows of time, splits, fingerprints.

It never looks at a model or at an answer, and decides nothing about them. Words: docs/glossary.md.
"""

from typing import TYPE_CHECKING

from afterfit.lazy import lazy

if TYPE_CHECKING:
    from afterfit.data.loading import (
        BUILTIN,
        Fingerprint,
        Window,
        classes,
        describe,
        encode_target,
        fingerprint,
        kept_fingerprints,
        load,
        missing_target,
        read,
        row_fingerprints,
        shares,
        split,
        stream,
        window,
    )
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "loading": (
                "BUILTIN",
                "Fingerprint",
                "Window",
                "classes",
                "describe",
                "encode_target",
                "fingerprint",
                "kept_fingerprints",
                "load",
                "missing_target",
                "read",
                "row_fingerprints",
                "shares",
                "split",
                "stream",
                "window",
            ),
        },
    )
