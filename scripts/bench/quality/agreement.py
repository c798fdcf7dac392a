"""Whether the live loop does what a backtest said: window by window, through the real registry and prediction log.

The backtest replays one policy on a use case's source. Then the same months are lived in a fresh MLflow store. What
lies before the start is the source, with the outcomes that are known at each time; the first version is trained on it.
In each window the version in production answers the rows, in order of time; answers and features go to the prediction
log as a server writes them (JSON, through a spool, sealed by day), and outcomes follow as late as the label delay says.
At its end one step is taken. Compared are, of each window, all that was observed of it (drift, estimated and realised
performance, slices), the action and its reason, what came of it, the rows that were trained on by their fingerprint,
what the folds promised, the gate's verdict, and what is in production then.

    export PYTHONPATH=src:scripts
    python -m bench.quality.agreement  # cautious, flights, April to December
    python -m bench.quality.agreement --policy calendar --delay 720
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from afterfit.lifecycle import backtesting, live_loop
from afterfit.lifecycle.outcomes import load
from afterfit.loop import history

CHUNK = 500
"""Rows that are answered and logged at once."""
SETTINGS = "lived.yaml"


@dataclass(frozen=True)
class Seen:
    """One window as the backtest or the live loop told it."""

    window: str
    action: str
    reason: str
    alarms: list[str]
    observed: dict[str, Any]
    outcome: str
    trained: dict[str, Any] | None
    verdict: str
    production: str


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """The use case's settings with the policy, the delay and the first training that are asked for."""
    from afterfit.use_case import load_use_case

    use_case = load_use_case(options.config)
    told = use_case.model_dump(mode="json", exclude_unset=True)
    if "path" in told["source"]:
        told["source"]["path"] = str((use_case.root / told["source"]["path"]).resolve())
    begin = use_case.split.train.start if use_case.split.train else None
    first = {"start": begin.isoformat()} if begin else {}
    told["split"] = {"folds": use_case.split.folds, "train": {**first, "end": options.start}}
    told["gate"] = {**told.get("gate", {}), "label_delay_hours": options.delay}
    told["policy"] = {"preset": options.policy, "minimum_outcomes": use_case.policy.minimum_outcomes}
    return told


def replayed(told: dict[str, Any], options: argparse.Namespace, folder: Path) -> list[Seen]:
    """What the backtest says."""
    from afterfit.model.bundle import load
    from afterfit.use_case import load_use_case

    file = folder / "replayed.yaml"
    file.write_text(yaml.safe_dump(told), "utf-8")
    use_case = load_use_case(file)
    policies, length = {"own": use_case.policy}, history.window_length(options.every, use_case)
    ranking, _, _ = backtesting.run_policies(
        use_case, policies, length, (options.start, options.end), folder / "models", 1
    )
    seen = []
    for entry in ranking.stories[0].entries:
        made = None if entry.candidate is None else load(entry.candidate.folder).manifest
        verdict = "" if entry.done.verdict is None else entry.done.verdict.decision
        turn, done = entry.turn, entry.done
        told_now = [cause.key for cause in turn.action.causes]
        observed = {**_plain(turn.observation.to_dict()), "version": ""}
        seen.append(
            Seen(
                turn.span.name,
                turn.action.kind,
                turn.action.reason,
                told_now,
                observed,
                done.outcome,
                _trained(made),
                verdict,
                done.state.champion,
            )
        )
    return seen


def lived(told: dict[str, Any], options: argparse.Namespace, folder: Path) -> list[Seen]:
    """What the live loop does, in a store, a log and a source of its own."""
    from afterfit import data, prediction_log
    from afterfit.data.loading import wanted
    from afterfit.loop.history import window_length
    from afterfit.use_case import load_use_case

    file = folder / SETTINGS
    replay = load_use_case(folder / "replayed.yaml")
    frame = data.read(replay.source, replay.root, columns=wanted(replay))
    whole = data.window(replay, frame, "all rows", waiting=True).frame
    times, start = whole[str(replay.time)], datetime.fromisoformat(options.start)
    file.write_text(yaml.safe_dump({**told, "source": {"path": "before.parquet"}, "log": {"folder": "log"}}), "utf-8")
    use_case, before = load_use_case(file), whole[times < start]
    write_source(use_case, before, start, folder)
    begun(use_case)
    log, seen, sent = prediction_log.required(use_case), [], start
    for window in window_length(options.every, use_case).between(start, datetime.fromisoformat(options.end)):
        begin, end = window.start, window.end
        serve(use_case, log, whole[(times >= begin) & (times < end)])
        known = end - timedelta(hours=options.delay)
        report(use_case, log, whole[(times >= sent) & (times <= known) & (times < end)], folder)
        sent = max(sent, known + timedelta(microseconds=1))
        write_source(use_case, before, end, folder)
        seen.append(stepped(use_case, str(file), options, end))
        print(f"  lived {seen[-1].window}: {seen[-1].outcome}", flush=True)
    return seen


def begun(use_case: Any) -> None:
    """Train the first version on all rows whose outcome is known, none held out, and put it into production."""
    from afterfit import data
    from afterfit.lifecycle.training_run import choose, train_and_register
    from afterfit.mlflow_store import decisions, ledger, tracking
    from afterfit.model import packaging

    window = data.load(use_case)
    table = packaging.table(use_case, window, np.arange(len(window.frame)))
    with tracking.run(use_case.name, "train the first"):
        train_and_register(table, *choose(use_case, "", ""))
    first = decisions.Decision("promotion", "PROMOTE", "1", "production", moves=True, page="The first.")
    ledger.record(use_case.name, first, 0)


def write_source(use_case: Any, before: pd.DataFrame, now: datetime, folder: Path) -> None:
    """The rows before the log, with the outcomes that are known now."""
    delay = timedelta(hours=use_case.gate.label_delay_hours)
    known = before[str(use_case.time)] <= now - delay
    before.assign(**{use_case.target: before[use_case.target].where(known)}).to_parquet(folder / "before.parquet")


def serve(use_case: Any, log: Any, rows: pd.DataFrame) -> None:
    """Answer rows with the version in production, and log them as a server does."""
    from afterfit import prediction_log
    from afterfit.mlflow_store import registry
    from afterfit.model.packaging import json_value
    from afterfit.prediction_log import from_bundle

    bundle = registry.load_bundle(registry.version(use_case.name, registry.PRODUCTION))
    names = [name for name in rows.columns if name != use_case.target]
    spool = log.spool()
    try:
        for first in range(0, len(rows), CHUNK):
            some = rows.iloc[first : first + CHUNK][names]
            records = [{str(key): json_value(value) for key, value in row.items()} for row in some.to_dict("records")]
            now = int(np.datetime64(rows[use_case.time].iloc[first], "us").astype(np.int64))
            spool.write(from_bundle.entries(bundle, records, bundle.answer_frame(some), now, 0.0))
        prediction_log.seal(log, [spool])
    finally:
        spool.close()


def report(use_case: Any, log: Any, rows: pd.DataFrame, folder: Path) -> None:
    """Send the outcomes of rows to the log."""
    if rows.empty:
        return
    late = folder / "outcomes.parquet"
    rows[[*use_case.key, use_case.target]].to_parquet(late)
    load(use_case, str(late), "key", log)


def stepped(use_case: Any, file: str, options: argparse.Namespace, now: datetime) -> Seen:
    """One step at the end of a window, as the journal has it."""
    from afterfit.commands import step
    from afterfit.mlflow_store import registry, step_journal

    answer = step.command(file, every=options.every, now=now.isoformat()).data
    page = step_journal.pages(use_case.name)[-1]
    action, number = answer["action"], answer["candidate"]
    observed = {**step_journal.read(page, live_loop.TURN)["observation"], "version": ""}
    made = registry.load_bundle(registry.version(use_case.name, number)).manifest if number else None
    verdict = step_journal.read(page, "verdict.json")["decision"] if number else ""
    return Seen(
        answer["window"],
        action["kind"],
        action["reason"],
        [cause["key"] for cause in action["causes"]],
        observed,
        answer["outcome"],
        _trained(made),
        verdict,
        answer["production"],
    )


def _trained(manifest: Any) -> dict[str, Any] | None:
    if manifest is None:
        return None
    told = {key: manifest.window[key] for key in ("rows", "start", "end", "sha256")}
    return {
        **told,
        "builder": manifest.builder,
        "params": _plain(manifest.params),
        "promise": _plain(manifest.expected),
    }


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def differences(said: Seen, did: Seen, *, last: bool) -> list[str]:
    """Where the two are not the same; after the last window a backtest does nothing."""
    acted = {"outcome", "trained", "verdict", "production"} if last else set()
    found = []
    for name in (one.name for one in fields(Seen) if one.name not in acted):
        ours, theirs = getattr(said, name), getattr(did, name)
        if ours != theirs:
            found += [f"{name}{place}: {a} and {b}" for place, a, b in _apart(ours, theirs)]
    return found


def _apart(one: Any, other: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from _apart(one.get(key), other.get(key), f"{place}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _apart(a, b, f"{place}[{number}]")
    elif one != other:
        yield place, one, other


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """In a folder with an MLflow store of its own."""
    before, place = Path.cwd(), os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.pop("MLFLOW_TRACKING_URI")
        if place is not None:
            os.environ["MLFLOW_TRACKING_URI"] = place


def compared(options: argparse.Namespace, folder: Path) -> tuple[list[str], int]:
    """The comparison in lines, and how many windows differ."""
    with alone(folder):
        told = settings(options)
        began = time.perf_counter()
        said = replayed(told, options, folder)
        middle = time.perf_counter()
        did = lived(told, options, folder)
        took = time.perf_counter()
    lines, apart = [], 0
    for number, (ours, theirs) in enumerate(zip(said, did, strict=True), start=1):
        found = differences(ours, theirs, last=number == len(said))
        apart += bool(found)
        lines.append(_line(theirs if number < len(said) else replace(theirs, outcome="over"), found))
        lines += [f"      {one[:300]}" for one in found[:12]]
    lines.append(
        f"{len(said) - apart} of {len(said)} windows are the same in all that was observed, decided and trained "
        f"({options.policy}, outcomes after {options.delay:g} h; backtest {middle - began:.0f} s, "
        f"live {took - middle:.0f} s)"
    )
    return lines, apart


def _line(one: Seen, found: list[str]) -> str:
    rows = f"trained on {one.trained['rows']:,} rows" if one.trained else ""
    told = f"{one.window:<12} {one.action:<9} {one.outcome:<11} {rows:<26} production: {one.production:<3}"
    return f"{told} {'same' if not found else f'{len(found)} differences'}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="flights-late")
    parser.add_argument("--policy", default="cautious", help="a preset")
    parser.add_argument("--start", default="2013-04-01")
    parser.add_argument("--end", default="2014-01-01")
    parser.add_argument("--every", default="1mo")
    parser.add_argument("--delay", type=float, default=24.0, help="hours")
    options = parser.parse_args(arguments)
    from afterfit.commands import console

    console.settle()
    with tempfile.TemporaryDirectory() as folder:
        lines, apart = compared(options, Path(folder).resolve())
    print("\n".join(lines))
    return int(apart > 0)


if __name__ == "__main__":
    sys.exit(main())
