"""Score a source in batches to a Parquet file; with the target there, also say how good the answers are."""

import os
from pathlib import Path

from afterfit import prediction_log
from afterfit.data import files
from afterfit.data.loading import stream
from afterfit.lifecycle.result import CommandResult
from afterfit.lifecycle.scoring import Logged, _log, described, measured, score, summary
from afterfit.mlflow_store import registry, tracking
from afterfit.settings import Source
from afterfit.use_case import load_use_case


def command(config: str, version: str = "production", data: str = "", out: str = "scores.parquet") -> CommandResult:
    """Score a source by a version; see scripts/score.py for the options."""
    use_case = load_use_case(config)
    chosen = registry.version(use_case.name, version)
    bundle = registry.load_bundle(chosen)
    place = files.writable(Path(out))
    source = Source(path=data) if data else use_case.source
    root = Path.cwd() if data else use_case.root
    log = prediction_log.log_at(os.environ.get(prediction_log.VARIABLE, ""), use_case.name)
    with tracking.run(use_case.name, f"score version {chosen.number}", {"afterfit.use_case": use_case.name}) as active:
        logged = None if log is None else Logged(log, f"score-{active.info.run_id}")
        tally = score(use_case, bundle, stream(source, root), place, logged)
        quality = measured(use_case, tally)
        _log(tally, quality)
    lines = described(place, chosen.number, tally, quality)
    return CommandResult(tuple(lines), {**summary(place, chosen.number, tally, quality), "run_id": active.info.run_id})
