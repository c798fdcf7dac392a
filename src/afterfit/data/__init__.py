"""Where rows come from and how they are parted: files, databases, S3, windows of time, splits, and `init`."""

from typing import TYPE_CHECKING

from afterfit.package import lazy

if TYPE_CHECKING:
    from afterfit.data.loading import (
        BUILTIN,
        Fingerprint,
        Window,
        classes,
        encode_target,
        fingerprint,
        kept_fingerprints,
        load,
        read,
        row_fingerprints,
        shares,
        split,
        stream,
        window,
    )

__getattr__, __dir__ = lazy(
    __name__,
    {
        "loading": (
            "BUILTIN",
            "Fingerprint",
            "Window",
            "classes",
            "encode_target",
            "fingerprint",
            "kept_fingerprints",
            "load",
            "read",
            "row_fingerprints",
            "shares",
            "split",
            "stream",
            "window",
        ),
    },
)
