"""Our server against `mlflow models serve`, BentoML, MLServer and a route that does nothing, in one run.

    PYTHONPATH=src:scripts python -m bench.speed.serving [--seconds N] [--peers DIR]

The same pipeline (ColumnTransformer and HistGradientBoosting, 16 columns of flights) behind every server, one worker
each, asked over kept connections with wrk, or with threads where it is not installed. Ours checks its contract, warns,
gives its confidence and logs every prediction; the peers predict. Each is measured in rounds that take turns, so that a
busy machine slows all of them, and the best round counts. `--peers` names a folder for their environments.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")

import mlflow
from mlflow.models import infer_signature

from afterfit.lifecycle.smoke_test import serving as mlflow_serving
from afterfit.lifecycle.training_run import load_table, requirements
from afterfit.mlflow_store import registry, tracking
from afterfit.model.bundle import save
from afterfit.model.packaging import example_of, json_value, manifest_of
from afterfit.model.safe_loading import TRUSTED
from afterfit.model.training import train
from afterfit.use_case import load_use_case
from bench.shared import load, servers

JSON_ROWS = 200
MANY = 1_000


def plain_frame(problem):
    """The table as the plain pipeline takes it: 16 columns, the departure as hour and weekday."""
    names = [column.name for column in problem.contract.columns if column.kind == "category"]
    frame = problem.frame.drop(columns=["scheduled_departure"])
    for name in names:
        frame[name] = frame[name].astype(object)
    moment = problem.frame["scheduled_departure"].dt
    return frame.assign(hour=moment.hour + moment.minute / 60, weekday=moment.day_of_week.astype(float))


def log_plain(frame, y, params):
    """Log the plain pipeline as `mlflow.sklearn` does; gives its address."""
    fitted = servers.pipeline(frame, params).fit(frame, y)
    with mlflow.start_run(experiment_id=tracking.experiment_id("bench")):
        return mlflow.sklearn.log_model(
            fitted,
            name="plain",
            signature=infer_signature(frame.head(), fitted.predict(frame.head())),
            skops_trusted_types=sorted(TRUSTED),
            pip_requirements=requirements(),
            pyfunc_predict_fn="predict_proba",
        ).model_uri


def register_ours(table, builder, params, alias, scratch):
    """Train a bundle, register it and give it an alias."""
    trained = train(table.problem, builder, params)
    folder = Path(scratch) / alias / "bundle"
    manifest = manifest_of(table, builder, params, trained, datetime.now(timezone.utc))
    bundle = save(trained.scorer, manifest, example_of(table), folder)
    with mlflow.start_run(experiment_id=tracking.experiment_id("bench")):
        uri = tracking.log_bundle(folder, bundle, requirements(), params).uri
    version = registry.register(uri, table.problem.use_case.name, bundle.digest, {}, builder)
    registry.set_alias(version, alias)


def rows_of(frame, count):
    """Rows as a client would send them."""
    some = frame.iloc[:: max(len(frame) // count, 1)].head(count)
    return [{key: json_value(value) for key, value in row.items()} for row in some.to_dict("records")]


def many(rows):
    """One body with a thousand rows."""
    return [json.dumps({"dataframe_records": (rows * (MANY // len(rows) + 1))[:MANY]})]


def asked(name, side, bodies, connections, seconds):
    """One measurement after a short warm-up."""
    port, path = side
    load.ask(port, path, bodies, connections, min(1.0, seconds))
    found = load.ask(port, path, bodies, connections, seconds)
    assert found.failed == 0, f"{found.failed} of {found.requests} requests failed at {name}"
    assert found.requests, f"{name} answered nothing in {seconds:g} s"
    return found


def best(one, other):
    """The better of two rounds."""
    return other if one is None or other.rate > one.rate else one


def measure(seconds=5.0, rounds=2, peers=None, params=None):
    """All servers at once, asked in turns; gives {what: {server: Load}}, megabytes and seconds until ready."""
    use_case = load_use_case("flights-late")
    params = params or dict(use_case.candidates[0].params)
    table = load_table(use_case)
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        stack.callback(os.chdir, Path.cwd())
        os.chdir(scratch)  # where MLflow puts what it keeps of models
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
        frame, y = plain_frame(table.problem), table.problem.y
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            theirs = log_plain(frame, y, params)
            register_ours(table, "hist_gradient_boosting", params, "production", scratch)
            register_ours(table, "linear", {}, "staging", scratch)
        ours, theirs_rows = rows_of(table.problem.frame, JSON_ROWS), rows_of(frame, JSON_ROWS)
        found = {"megabytes": {}, "seconds until ready": {}}
        sides = _sides(stack, scratch, theirs, found)
        sides |= _peers(stack, peers, frame.assign(_target=y), Path(scratch), params, found=found)
        for what, names, connections, bodies in _plans(ours, theirs_rows, sides):
            found[what] = dict.fromkeys(names)
            for _ in range(rounds):
                for name in names:
                    result = asked(name, sides[name], bodies(name), connections, seconds)
                    found[what][name] = best(found[what][name], result)
        for name, process in list(found.pop("_processes").items()):
            found["megabytes"][name] = servers.memory(process)
        return found


def _plans(ours, theirs, sides):
    def single(name):
        if name in servers.PEERS:
            return servers.peer_bodies(name, theirs)
        return load.records(theirs if name == "mlflow models serve" else ours)

    def plain_rows(name):
        own = sides[name][1] == "/predict" and name not in servers.PEERS
        return [json.dumps(row) for row in ours] if own else single(name)

    def thousand(name):
        return many(theirs if name == "mlflow models serve" else ours)

    one = ["acknowledged", "buffered", "empty route", "mlflow models serve", *(p for p in servers.PEERS if p in sides)]
    return [
        ("one row, 8 connections", one, 8, plain_rows),
        ("linear, one row, 32 connections", ["linear", "mlflow models serve"], 32, plain_rows),
        ("1,000 rows, 2 connections", ["thousand", "mlflow models serve"], 2, thousand),
    ]


def _sides(stack, scratch, theirs, found):
    sides = {}
    found["_processes"] = {}
    for name, durability, alias in [
        ("acknowledged", "acknowledged", "production"),
        ("buffered", "buffered", "production"),
        ("linear", "acknowledged", "staging"),
    ]:
        port, starting = servers.ours(scratch, durability, alias=alias)
        process, found["seconds until ready"][name] = stack.enter_context(starting)
        found["_processes"][name] = process
        sides[name] = (port, "/predict")
    sides["thousand"] = (sides["acknowledged"][0], "/invocations")
    port, starting = servers.empty()
    stack.enter_context(starting)
    sides["empty route"] = (port, "/predict")
    sides["mlflow models serve"] = (stack.enter_context(mlflow_serving(theirs)), "/invocations")
    return sides


def _peers(stack, folder, table, scratch, params, *, found):
    sides = {}
    if folder is None:
        return sides
    table.to_parquet(scratch / "plain.parquet")
    for name in servers.PEERS:
        python = servers.peer_python(folder, name)
        if python is None:
            print(f"{name}: not installed", file=sys.stderr)
            continue
        port, path, starting = servers.peer(name, python, scratch / "plain.parquet", params, scratch / name)
        _, found["seconds until ready"][name] = stack.enter_context(starting)
        sides[name] = (port, path)
    return sides


def compared(found):
    """(what, ratio, target) of each of the server's targets; those without a peer are left out."""
    one, linear, thousand = (found[what] for what in list(found) if "connections" in what)
    theirs, ours = one["mlflow models serve"], one["acknowledged"]
    rows = [
        ("one row: ours / mlflow models serve", ours.rate / theirs.rate, ">= 30"),
        ("one row: p99 of ours / mlflow models serve", ours.p99 / theirs.p99, "<= 0.2"),
        ("one row, buffered: ours / empty route", one["buffered"].rate / one["empty route"].rate, ">= 0.25"),
        ("linear: ours / mlflow models serve", linear["linear"].rate / linear["mlflow models serve"].rate, ">= 15"),
        (
            "1,000 rows: ours / mlflow models serve",
            thousand["thousand"].rate / thousand["mlflow models serve"].rate,
            ">= 5",
        ),
        ("largest worker, MB", max(found["megabytes"].values()), "< 300"),
        ("slowest start of ours, s", max(found["seconds until ready"][k] for k in found["megabytes"]), "< 4"),
    ]
    for name in servers.PEERS:
        if name in one:
            rows.append((f"one row: ours / {name}", ours.rate / one[name].rate, ">= 15"))
            rows.append((f"one row: p99 of ours / {name}", ours.p99 / one[name].p99, "<= 0.2"))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--peers", help="a folder for the environments of BentoML and MLServer")
    options = parser.parse_args()
    found = measure(options.seconds, peers=options.peers)
    for what, sides in found.items():
        if "connections" not in what:
            continue
        print(f"{what}\n  {'server':<20} {'requests/s':>10} {'median ms':>10} {'p99 ms':>10}")
        for name, one in sides.items():
            print(f"  {name:<20} {one.rate:>10.0f} {one.median:>10.2f} {one.p99:>10.2f}")
    for what in ("megabytes", "seconds until ready"):
        print(f"{what}: " + ", ".join(f"{name} {value:.1f}" for name, value in found[what].items()))
    print(f"\n{'':<46} {'found':>8}  target")
    for what, value, target in compared(found):
        print(f"{what:<46} {value:>8.2f}  {target}")


if __name__ == "__main__":
    main()
