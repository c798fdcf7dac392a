"""How often the whole gate is right, where the truth is known; beside it a gate that compares two point values.

The populations and candidates are those of `comparison`: made rows, made rows that share an hour's luck, and real
flights. Here every check of a promotion to production runs on each window (the comparison with its interval, slices,
calibration, robustness, service and the rest), with the settings that a use case has by default, and the verdict is
counted. Both models answer with probabilities that a logistic curve made right for the population, as training does.

    PYTHONPATH=src:scripts python -m bench.quality.gate_rates
"""

from __future__ import annotations

import argparse
import collections
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from afterfit.gate.examination import examine
from afterfit.gate.inputs import GateInput, HeldOut, LoadedVersion
from afterfit.gate.verdict import judge
from afterfit.model.bundle import Manifest, load, save
from afterfit.model.training import prepare, train
from afterfit.performance.metrics import METRICS
from afterfit.performance.predictions import Predictions
from afterfit.use_case import UseCase
from bench.quality.comparison import TRUTHS, settings, share_for

GROUPS = 6


class Known:
    """An estimator that answers row number i with the i-th of the probabilities that it was given."""

    classes_ = np.array([0, 1])

    def __init__(self, probabilities):
        self.probabilities = probabilities

    def predict_proba(self, matrix):
        """(n, 2) of the rows' numbers; a row without a number gets the mean."""
        rows = matrix[:, 0]
        known = np.nan_to_num(rows, nan=0.0).astype(int) % len(self.probabilities)
        positive = np.where(np.isnan(rows), self.probabilities.mean(), self.probabilities[known])
        return np.column_stack([1.0 - positive, positive])


def use_case():
    return UseCase.model_validate(
        {
            "name": "rates", "task": "classification", "target": "y", "time": "when", "source": {"path": "none.csv"},
            "columns": {"features": ["row"], "kinds": {"row": "number"}}, "split": {"folds": 2},
            "metrics": {"primary": "roc_auc", "slices": ["group"]},
        }
    )  # fmt: skip


def sides(case, folder):
    """Two versions that load, answer and weigh alike; what they answer is put in later."""
    rows = 400
    frame = pd.DataFrame(
        {"row": np.arange(rows), "when": np.datetime64("2012-01-01") + np.arange(rows).astype("timedelta64[h]")}
    )
    y = np.arange(rows) % 2
    trained = train(prepare(case, frame.assign(y=y), y, (0, 1)), "linear", {})
    window = {"name": "made", "sha256": "0", "rows": rows, "start": None, "end": None}
    told = {"settings": "0", "window": window, "expected": {}, "created": "2012-02-01", "packages": {}, "code": "0"}
    manifest = Manifest(case.name, case.task, case.target, "linear", {}, time=case.time, key=case.key, **told)
    for number in ("1", "2"):
        save(trained.scorer, manifest, [{"row": 7}], Path(folder) / number)
    return [LoadedVersion(number, load(Path(folder) / number), Path(folder) / number) for number in ("1", "2")]


def answering(side, probabilities, digest):
    """The version with these answers."""
    scorer = replace(side.bundle.scorer, estimator=Known(probabilities), calibration=None)
    return LoadedVersion(side.number, replace(side.bundle, scorer=scorer, digest=digest), side.folder)


def curve(y, scores):
    """The logistic curve that makes probabilities of scores."""
    from sklearn.linear_model import LogisticRegression

    some = np.random.default_rng(0).permutation(len(y))[:200_000]
    fitted = LogisticRegression(C=1e6).fit(scores[some, None], y[some])
    return lambda values: fitted.predict_proba(values[:, None])[:, 1]


def held(window, random):
    """A window as the gate gets it; blocks without a clock get one."""
    n = len(window.y)
    blocks = np.arange(n) if window.blocks is None else window.blocks
    times = blocks
    if not np.issubdtype(blocks.dtype, np.datetime64):
        times = np.datetime64("2013-01-01T00") + np.unique(blocks, return_inverse=True)[1].astype("timedelta64[h]")
    frame = pd.DataFrame({"row": np.arange(n), "when": times, "group": random.integers(0, GROUPS, n).astype(str)})
    return HeldOut(frame.assign(y=window.y), window.y.astype(np.int64), times)


def logit(probabilities):
    return np.log(probabilities / (1.0 - probabilities))


def line(kind, wanted, *, rows, windows, seed, population_rows):
    """Verdicts over windows, the checks that failed, and what point values would have promoted."""
    population, draw = settings(kind, population_rows)
    share, _ = share_for(population, wanted)
    champion_curve = curve(population.y, logit(population.champion))
    candidate_curve = curve(population.y, population.candidate(share))
    case = use_case()
    verdicts, failed, point = collections.Counter(), collections.Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        champion, candidate = sides(case, folder)
        for number in range(windows):
            random = np.random.default_rng([seed, rows, number])
            window = draw(random, rows)
            ours, theirs = candidate_curve(window.candidate(share)), champion_curve(logit(window.champion))
            judged = GateInput(
                case, answering(candidate, ours, "b"), answering(champion, theirs, "a"), "production",
                held(window, random),
            )  # fmt: skip
            verdict = judge(examine(judged))
            verdicts[verdict.decision] += 1
            failed.update(one.code for one in verdict.findings if one.outcome == "fail")
            values = [METRICS["roc_auc"](window.y, Predictions.of_probabilities(side)) for side in (ours, theirs)]
            point += values[0] >= values[1]
    shares = {name: verdicts[name] / windows for name in ("PROMOTE", "HOLD", "REJECT")}
    return {**shares, "point": point / windows, "failed": failed}


def main() -> None:
    """Print a line a kind of data and truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=("rows", "hours", "flights"), default=["rows", "hours", "flights"])
    parser.add_argument("--rows", type=int, default=6_000)
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--population", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    started = time.perf_counter()
    print("data     candidate        outcomes | promoted   held  rejected | point value gate | checks that failed")
    for kind in options.data:
        for name, wanted in TRUTHS.items():
            found = line(
                kind, wanted, rows=options.rows, windows=options.windows, seed=options.seed,
                population_rows=options.population,
            )  # fmt: skip
            why = ", ".join(f"{code} {count}" for code, count in found["failed"].most_common(4))
            print(
                f"{kind:8} {name:16} {options.rows:8,} | {found['PROMOTE']:8.1%} {found['HOLD']:6.1%} "
                f"{found['REJECT']:9.1%} | {found['point']:16.1%} | {why}",
                flush=True,
            )
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
