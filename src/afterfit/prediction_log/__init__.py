"""Every answer given and the outcome that came later: spooled, sealed into Parquet, read back."""

from typing import TYPE_CHECKING

from afterfit.package import lazy

if TYPE_CHECKING:
    from afterfit.prediction_log.log import (
        VARIABLE,
        PredictionLog,
        features_of,
        key_of,
        known_outcomes,
        log_at,
        log_of,
        private,
        read,
        required,
        salt_of,
        seal,
        tidy,
        unknown_ids,
        unknown_keys,
        write_table,
    )

__getattr__, __dir__ = lazy(
    __name__,
    {
        "log": (
            "PredictionLog",
            "VARIABLE",
            "features_of",
            "key_of",
            "known_outcomes",
            "log_at",
            "log_of",
            "private",
            "read",
            "required",
            "salt_of",
            "seal",
            "tidy",
            "unknown_ids",
            "unknown_keys",
            "write_table",
        ),
    },
)
