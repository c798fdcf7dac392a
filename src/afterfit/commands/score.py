"""Score a source in batches into a Parquet file; if the source has the target, also measure the predictions."""

from pathlib import Path

from afterfit.lifecycle.result import CommandResult
from afterfit.lifecycle.scoring import score_source
from afterfit.use_case import load_use_case


def command(config: str, version: str = "production", data: str = "", out: str = "scores.parquet") -> CommandResult:
    """Score a source by a version; see scripts/score.py for the options."""
    return score_source(load_use_case(config), version, data, Path(out))
