"""Where rows come from and how they are parted: files, databases, S3, windows of time, splits, fingerprints.

It never looks at a model or at an answer, and decides nothing about them. Words: docs/glossary.md.
"""

from typing import TYPE_CHECKING

from afterfit.lazy import lazy

if TYPE_CHECKING:
    from afterfit.data.fingerprints import (
        Fingerprint,
        FingerprintRule,
        fingerprint,
        kept_fingerprints,
        row_fingerprints,
        rule_of,
        shares,
        trained_fingerprints,
    )
    from afterfit.data.loading import (
        BUILTIN,
        Window,
        describe,
        load,
        read,
        split,
        stream,
        window,
    )
    from afterfit.data.reading import (
        TableReading,
        format_of,
        inherit,
        kinds_of,
        reading_of,
        with_formats,
    )
    from afterfit.data.targets import (
        classes,
        encode_target,
        missing_target,
        target_numbers,
    )
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "fingerprints": (
                "Fingerprint",
                "FingerprintRule",
                "fingerprint",
                "kept_fingerprints",
                "row_fingerprints",
                "rule_of",
                "shares",
                "trained_fingerprints",
            ),
            "loading": (
                "BUILTIN",
                "Window",
                "describe",
                "load",
                "read",
                "split",
                "stream",
                "window",
            ),
            "reading": (
                "TableReading",
                "format_of",
                "inherit",
                "kinds_of",
                "reading_of",
                "with_formats",
            ),
            "targets": (
                "classes",
                "encode_target",
                "missing_target",
                "target_numbers",
            ),
        },
    )
