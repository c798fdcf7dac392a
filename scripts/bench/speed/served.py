"""`mlflow models serve`: our bundle against the plain scikit-learn pipeline of the same booster, in one run.

    PYTHONPATH=src:scripts python -m bench.speed.served [--seconds N] [--rows N]

Both servers are MLflow's own, one worker each, asked one row a request over kept connections. The pipeline is a
ColumnTransformer (OrdinalEncoder and passthrough) and the booster, logged with `mlflow.sklearn` and a signature. The
bundle checks its contract, warns, calibrates and gives its confidence on top. The servers take turns, so that a busy
machine slows both.
"""

import argparse
import contextlib
import http.client
import io
import json
import os
import tempfile
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")

import mlflow
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from afterfit.lifecycle.smoke_test import serving
from afterfit.lifecycle.training_run import load_table, requirements
from afterfit.mlflow_store import tracking
from afterfit.model.bundle import save
from afterfit.model.packaging import example_of, json_value, manifest_of
from afterfit.model.safe_loading import TRUSTED
from afterfit.model.training import train
from afterfit.use_case import load_use_case

JSON = {"Content-Type": "application/json"}


def log_both(table, params, scratch):
    """Log both models to a store of their own; gives their addresses."""
    use_case, frame = table.problem.use_case, table.problem.frame
    names = [column.name for column in table.problem.contract.columns if column.kind == "category"]
    numbers = frame.drop(columns=[*names, "scheduled_departure"])
    plain_frame = numbers.assign(**{name: frame[name].astype(object) for name in names})
    plain_frame["hour"] = frame["scheduled_departure"].dt.hour + frame["scheduled_departure"].dt.minute / 60
    plain_frame["weekday"] = frame["scheduled_departure"].dt.day_of_week.astype(float)
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=float("nan"))
    columns = ColumnTransformer([("categories", encoder, names)], remainder="passthrough")
    booster = HistGradientBoostingClassifier(
        categorical_features=list(range(len(names))), random_state=0, early_stopping=False, **params
    )
    pipeline = make_pipeline(columns, booster).fit(plain_frame, table.problem.y)
    with mlflow.start_run(experiment_id=tracking.experiment_id("bench")):
        signature = infer_signature(plain_frame.head(), pipeline.predict(plain_frame.head()))
        theirs = mlflow.sklearn.log_model(
            pipeline,
            name="plain",
            signature=signature,
            skops_trusted_types=sorted(TRUSTED),
            pip_requirements=requirements(),
            pyfunc_predict_fn="predict_proba",
        )
        trained = train(table.problem, "hist_gradient_boosting", params)
        folder = Path(scratch) / "bundle"
        manifest = manifest_of(table, "hist_gradient_boosting", params, trained, datetime.now(timezone.utc))
        bundle = save(trained.scorer, manifest, example_of(table), folder)
        ours = tracking.log_bundle(folder, bundle, requirements(), params).uri
    assert use_case.task == "classification"
    return theirs.model_uri, ours, _rows(plain_frame), _rows(frame)


def _rows(frame, count=200):
    some = frame.iloc[:: max(len(frame) // count, 1)].head(count)
    return [
        json.dumps({"dataframe_records": [{k: json_value(v) for k, v in row.items()}]})
        for row in some.to_dict("records")
    ]


def rate(port, bodies, connections, seconds):
    """Requests a second, and the median latency in milliseconds, of so many connections that ask without pause."""
    latencies, stop = [], time.perf_counter() + seconds

    def ask(offset):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        number = offset
        while time.perf_counter() < stop:
            started = time.perf_counter()
            connection.request("POST", "/invocations", bodies[number % len(bodies)], JSON)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text[:300]
            latencies.append(time.perf_counter() - started)
            number += 1

    threads = [threading.Thread(target=ask, args=(number * 17,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(latencies) / seconds, 1000 * sorted(latencies)[len(latencies) // 2]


def measure(seconds, rounds=3, params=None, config="flights-late"):
    use_case = load_use_case(config)
    params = params or dict(use_case.candidates[0].params)
    table = load_table(use_case)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
        with contextlib.redirect_stdout(io.StringIO()):
            theirs, ours, their_rows, our_rows = log_both(table, params, scratch)
        with serving(theirs) as their_port, serving(ours) as our_port:
            sides = {"plain pipeline": (their_port, their_rows), "bundle": (our_port, our_rows)}
            for port, bodies in sides.values():
                rate(port, bodies, 1, min(seconds, 1.0))
            return {
                connections: {
                    name: max(rate(port, bodies, connections, seconds) for _ in range(rounds))
                    for name, (port, bodies) in sides.items()
                }
                for connections in (1, 8)
            }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options = parser.parse_args()
    print(f"{'connections':>11} {'model':<16} {'requests/s':>10} {'median ms':>10}   ratio")
    for connections, sides in measure(options.seconds).items():
        floor = sides["plain pipeline"][0]
        for name, (requests, latency) in sides.items():
            print(f"{connections:>11} {name:<16} {requests:>10.0f} {latency:>10.1f}   {requests / floor:.2f}")
    print("target: the bundle at least as many as the plain pipeline")


if __name__ == "__main__":
    main()
