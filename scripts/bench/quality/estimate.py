"""Estimates of performance against what was realised, on the flights and on made data with three kinds of shift.

    export PYTHONPATH=src:scripts
    python -m bench.quality.estimate              # both tasks on the flights, and the made data
    python -m bench.quality.estimate --peers DIR  # NannyML's CBPE and DLE on the same rows too
    python -m bench.quality.estimate --bound      # how far off models are that know all the other months
    python -m bench.quality.estimate --made 100   # made data only, so many seeds

The flights: half of January to March trains, the other half is the reference of the peers, April to December are
estimated month by month; ours knows the outcomes of the months before, the peers have no use for them. The seeds of
the made data are those from `--seed` on; what was tried while the estimate was made used seeds from 1,000 on.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MONTHS = range(4, 13)
CLASS_METRICS, NUMBER_METRICS = ("roc_auc", "accuracy", "log_loss"), ("mae", "rmse")
KINDS = ("none", "covariate", "label", "concept")
STRETCH, WINDOWS = 1_000, 8


def halves(use_case: str):
    """The flights with a column `part`: train, reference, or the month; and the trained model."""
    import numpy as np

    from afterfit import data
    from afterfit.model.training import prepare, train
    from afterfit.use_case import load_use_case

    case = load_use_case(use_case)
    frame = data.load(case).frame
    month = frame[case.time].dt.month.to_numpy()
    first = np.flatnonzero(month < min(MONTHS))
    chosen = np.random.default_rng(0).random(len(first)) < 0.5
    part = month.astype(object)
    part[first[chosen]], part[first[~chosen]] = "train", "reference"
    classes = data.classes(case, frame[case.target]) if case.task == "classification" else None
    y = data.encode_target(case, frame[case.target], classes or ())
    rows = np.flatnonzero(part == "train")
    problem = prepare(case, frame.iloc[rows].reset_index(drop=True), y[rows], classes)
    trained = train(problem, case.candidates[0].builder, case.candidates[0].params)
    return case, frame, y, part, problem, trained


def flights(use_case: str, peers: Path | None, names) -> dict[str, list[dict[str, float]]]:
    """A line a month: realised, estimated and its interval, for ours; then the peers' errors."""
    import pandas as pd

    from afterfit.loop.observe import answered, observe, past_of
    from afterfit.model.bundle import save
    from afterfit.model.training import errormap, reference

    case, frame, y, part, problem, trained = halves(use_case)
    case = case.model_copy(
        update={
            "metrics": case.metrics.model_copy(update={"primary": names[0], "also": tuple(names[1:]), "slices": ()})
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        known = {"reference": reference(problem, trained), "errormap": errormap(problem, trained)}
        bundle = save(trained.scorer, _manifest(case), [], Path(folder) / "bundle", **known)
    past, found = [], {name: [] for name in names}
    for month in MONTHS:
        inside = part == month
        times = frame.loc[inside, case.time].to_numpy()
        window = answered(bundle, frame[inside].reset_index(drop=True), y[inside], times)
        seen = observe(case, bundle, window, name=f"{month}", start=None, end=None, complete=True, past=past)
        for name in names:
            one, real = seen.estimated[name], seen.realised[name].value
            found[name].append({"month": month, "real": real, "value": one.value, "low": one.low, "high": one.high})
        past.append(past_of(case, bundle, window, end=(pd.Timestamp(times[-1]) + pd.Timedelta("1us")).to_pydatetime()))
    for name in names:
        told(name, found[name])
    if peers is not None:
        peer(peers, (case, frame, y, part, trained), found)
    return found


def told(name: str, lines) -> None:
    """Each month, then the mean error and how many months the interval held."""
    print(f"{name}: realised, estimated [90 % interval]")
    for one in lines:
        held = "" if one["low"] <= one["real"] <= one["high"] else "   outside"
        print(f"  {one['month']:>2}  {one['real']:.3f}  {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]{held}")
    off = sum(abs(one["real"] - one["value"]) for one in lines) / len(lines)
    held = sum(one["low"] <= one["real"] <= one["high"] for one in lines)
    print(f"  mean absolute error {off:.4f}; the interval held {held} of {len(lines)} months", flush=True)


def _manifest(case):
    from afterfit.model.bundle import Manifest

    window = {"name": "flights", "sha256": "0" * 64, "rows": 0, "start": None, "end": None}
    told = {"settings": "0", "window": window, "expected": {}, "created": "", "packages": {}, "code": "0"}
    return Manifest(case.name, case.task, case.target, "made", {}, time=case.time, key=case.key, **told)


# Peers, in an environment of their own.


def peer(folder: Path, made, found) -> None:
    """CBPE or DLE on the same answers; their errors beside ours."""
    case, frame, y, part, trained = made
    from bench.shared.peers import environment

    python = environment(folder, "NannyML")
    if python is None:
        print("NannyML: not installed")
        return
    rows = part != "train"
    _, answers = trained.scorer.score(frame[rows])
    table = frame.loc[rows, list(case.columns.features)].drop(columns=case.time)
    for column in table.select_dtypes(exclude="number"):
        table[column] = table[column].astype(str)
    table["when"] = frame.loc[rows, case.time]
    table["part"], table["outcome"], table["prediction"] = part[rows].astype(str), y[rows], answers.prediction
    if answers.probabilities is not None:
        table["probability"] = answers.probability
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "rows.parquet"
        table.to_parquet(path)
        quiet = {**os.environ, "DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1", "PYTHONPATH": ""}
        command = [str(python), __file__, "--inside", str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=quiet)
    if done.returncode:
        print(f"NannyML failed: {done.stderr.strip().splitlines()[-1:]}")
        return
    for name, values in json.loads(done.stdout.strip().splitlines()[-1]).items():
        real = [one["real"] for one in found[name]]
        off = sum(abs(a - b) for a, b in zip(values, real, strict=True)) / len(real)
        ours = sum(abs(one["value"] - one["real"]) for one in found[name]) / len(real)
        print(f"{name}: NannyML's mean absolute error {off:.4f}, ours {ours:.4f} ({ours / off:.2f} of it)", flush=True)


def inside(path: str) -> None:
    """What runs in the peer's environment: estimates of each month as one line of JSON."""
    import warnings

    import nannyml as nml
    import pandas as pd

    warnings.filterwarnings("ignore")
    pd.set_option("future.infer_string", False)  # Arrow texts break inside NannyML
    rows = pd.read_parquet(path)
    reference, months = rows[rows["part"] == "reference"], rows[rows["part"] != "reference"]
    common = {"y_pred": "prediction", "y_true": "outcome", "timestamp_column_name": "when", "chunk_period": "M"}
    if "probability" in rows:
        names = ["roc_auc", "accuracy"]
        model = nml.CBPE(metrics=names, y_pred_proba="probability", problem_type="classification_binary", **common)
    else:
        names = ["mae", "rmse"]
        features = [column for column in rows if column not in {"part", "outcome", "prediction", "when"}]
        model = nml.DLE(feature_column_names=features, metrics=names, **common)
    model.fit(reference.drop(columns="part").reset_index(drop=True))
    told = model.estimate(months.drop(columns=["part", "outcome"]).reset_index(drop=True))
    lines = told.filter(period="analysis").to_df()
    found = {name: [float(value) for value in lines[name, "value"]] for name in names}
    print(json.dumps(found))


# Made data.


def windows(kind: str, seed: int):
    """Training rows and windows of one made series: columns, outcomes, probabilities that only the maker knows."""
    import numpy as np

    random = np.random.default_rng([seed, KINDS.index(kind)])
    slope, base = np.array([1.0, -0.6, 0.4]), -1.0
    place, lift = np.zeros(3), 0.0
    for number in range(WINDOWS + 1):
        rows = 4 * STRETCH if number == 0 else STRETCH
        if number and kind == "covariate":
            place = place + random.normal(0, 0.35, 3)
        if number and kind == "label":
            lift = lift + random.normal(0, 0.25)
        if number and kind == "concept":
            slope, base = slope * np.exp(random.normal(0, 0.12, 3)), base + random.normal(0, 0.2)
        if kind == "label":
            yield _by_label(random, rows, slope, base, lift)
        else:
            x = random.normal(place, 1.0, (rows, 3))
            yield x, (random.random(rows) < _truth(x, slope, base)).astype(np.int64)


def _truth(x, slope, base):
    import numpy as np

    return 1 / (1 + np.exp(-(base + x @ slope + 0.3 * x[:, 0] * x[:, 1] - 0.15 * x[:, 2] ** 2)))


def _by_label(random, rows, slope, base, lift):
    """Rows whose classes have other shares, and the same inputs within each class."""
    import numpy as np

    x = random.normal(0.0, 1.0, (6 * rows, 3))
    y = (random.random(len(x)) < _truth(x, slope, base)).astype(np.int64)
    odds = y.mean() / (1 - y.mean()) * np.exp(lift)
    positive = (random.random(rows) < odds / (1 + odds)).sum()
    chosen = np.concatenate(
        [random.choice(np.flatnonzero(y == 1), positive), random.choice(np.flatnonzero(y == 0), rows - positive)]
    )
    random.shuffle(chosen)
    return x[chosen], y[chosen]


def series(kind: str, seed: int):
    """Estimates and what came of them, over the windows of one made series; outcomes come one window late."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from afterfit.model.calibration import fit_calibration
    from afterfit.performance import estimation, recalibration
    from afterfit.performance.error_map import learn_errormap
    from afterfit.performance.metrics import metric
    from afterfit.performance.predictions import Predictions

    (x, y), *rest = windows(kind, seed)
    folds = np.array_split(np.arange(len(y)), 5)
    raw = np.zeros((len(y), 2))
    for fold in folds:
        others = np.setdiff1d(np.arange(len(y)), fold)
        raw[fold] = LogisticRegression().fit(x[others], y[others]).predict_proba(x[fold])
    model, calibration = LogisticRegression().fit(x, y), fit_calibration(raw, y)
    shares = (1 - y.mean(), y.mean())
    clock = np.datetime64("2024-01-01", "us") + np.arange((WINDOWS + 4) * STRETCH) * np.timedelta64(1, "m")
    known = learn_errormap(x, y, Predictions.of_probabilities(calibration(raw)), clock[: len(y)], shares, 5)
    clock = clock[len(y) :]
    wanted, past, found = [metric(name) for name in CLASS_METRICS], [], []
    for number, (x, y) in enumerate(rest):
        answers = Predictions.of_probabilities(calibration(model.predict_proba(x)))
        rows = estimation.WindowAnswers(
            answers, known.errors_at(x, answers), recalibration.centre_of(shares, 2), clock[:STRETCH]
        )
        ours = estimation.estimate(wanted, rows, known.folds, past, seed=number)
        plain = estimation.plug_in(wanted, rows)
        found.append({one.name: (one(y, answers), ours[one.name], plain[one.name]) for one in wanted})
        past.append(estimation.learn(rows, y, clock[STRETCH - 1].astype(object)))
        clock = clock[STRETCH:]
    return found


def made(seeds: int, first: int) -> dict[str, dict[str, float]]:
    """Coverage and mean absolute error of each kind of shift, with those of the probabilities as they are."""
    import numpy as np

    shares = {}
    for kind in KINDS:
        runs = [one for seed in range(first, first + seeds) for one in series(kind, seed)]
        said = []
        for name in CLASS_METRICS:
            lines = [one[name] for one in runs]
            held = np.mean([ours.low <= real <= ours.high for real, ours, _ in lines])
            off = np.mean([abs(real - ours.value) for real, ours, _ in lines])
            plain = np.mean([abs(real - bare) for real, _, bare in lines])
            width = np.mean([ours.high - ours.low for _, ours, _ in lines])
            shares.setdefault(kind, {})[name] = float(held)
            said.append(f"{name} held {held:.1%}, off {off:.4f} (uncorrected {plain:.4f}), {width:.3f} wide")
        print(f"{kind:>10}: {'; '.join(said)}", flush=True)
    return shares


def bound() -> float:
    """How far the late share is from what a model says that was trained on all the other months, later ones too."""
    import numpy as np

    from afterfit import data
    from afterfit.model.scorer import predict
    from afterfit.model.training import encode, fit, layout, prepare
    from afterfit.use_case import load_use_case

    case = load_use_case("flights-late")
    frame = data.load(case).frame
    frame = frame.iloc[::3].reset_index(drop=True)
    month, y = frame[case.time].dt.month.to_numpy(), data.encode_target(case, frame[case.target], (False, True))
    clock = frame[case.time] - frame[case.time].dt.normalize()
    frame = frame.assign(**{case.time: np.datetime64("2013-01-07") + clock})
    off = []
    for left_out in MONTHS:
        rows = month != left_out
        problem = prepare(case, frame[rows].reset_index(drop=True), y[rows], (False, True))
        encoder, matrix = encode(problem, np.arange(len(problem.frame)), 0)
        estimator = fit(
            case.candidates[0].builder,
            case.candidates[0].params,
            matrix,
            problem.y,
            form=layout(encoder),
            use_case=case,
        )
        held = encoder.encode_frame(problem.contract.check_frame(frame[~rows]))
        said = predict(estimator, held, (False, True))
        real = float((said.prediction == y[~rows]).mean())
        hoped = float(np.asarray(said.confidence).mean())
        off.append(abs(real - hoped))
        print(f"  {left_out:>2}: accuracy {real:.3f}, said {hoped:.3f}", flush=True)
    print(f"accuracy is off by {np.mean(off):.4f} on average where all the other months were known")
    return float(np.mean(off))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder for the environments of the peers")
    parser.add_argument("--made", type=int, default=0, metavar="SEEDS", help="made data only")
    parser.add_argument("--seed", type=int, default=0, help="the first seed of the made data")
    parser.add_argument("--bound", action="store_true", help="what could be known at best")
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        inside(options.inside)
    elif options.bound:
        bound()
    elif options.made:
        made(options.made, options.seed)
    else:
        flights("flights-late", options.peers, CLASS_METRICS)
        flights("flights-delay", options.peers, NUMBER_METRICS)
        made(50, options.seed)


if __name__ == "__main__":
    main(sys.argv[1:])
