"""Every answer that was given, and the outcome that came later: spooled, sealed into Parquet, read back.

It never judges what it holds, and nothing in it counts twice, however often a process is killed.
Words: docs/glossary.md.
"""

from typing import TYPE_CHECKING

from afterfit.lazy import lazy

if TYPE_CHECKING:
    from afterfit.prediction_log.damage import skipping
    from afterfit.prediction_log.log import (
        VARIABLE,
        PredictionLog,
        features_of,
        known_outcomes,
        log_at,
        log_of,
        read,
        required,
        seal,
        tidy,
        unknown_ids,
        unknown_keys,
        write_table,
    )
    from afterfit.prediction_log.privacy import key_of, private, salt_of
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "damage": ("skipping",),
            "privacy": ("key_of", "private", "salt_of"),
            "log": (
                "PredictionLog",
                "VARIABLE",
                "features_of",
                "known_outcomes",
                "log_at",
                "log_of",
                "read",
                "required",
                "seal",
                "tidy",
                "unknown_ids",
                "unknown_keys",
                "write_table",
            ),
        },
    )
