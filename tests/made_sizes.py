"""A small made table of sizes and colours, and use cases over it."""

import numpy as np
import pandas as pd
import yaml


def made_table(rows=400, seed=0, task="binary"):
    """Hours, a number, a count and a colour of which the outcome depends on the first and the last."""
    rng = np.random.default_rng(seed)
    size, colour = rng.normal(size=rows), rng.choice(["red", "green", "blue"], rows)
    hidden = 2 * size + (colour == "red") + rng.normal(scale=0.8, size=rows)
    outcome = {
        "binary": np.where(hidden > 0, "yes", "no"),
        "multiclass": np.select([hidden < -1, hidden < 1], ["low", "middle"], "high"),
        "regression": hidden.round(3),
    }[task]
    hours = pd.date_range("2024-01-01", periods=rows, freq="h").strftime("%Y-%m-%d %H:%M")
    return pd.DataFrame(
        {"hour": hours, "size": size.round(4), "count": rng.integers(0, 50, rows), "colour": colour, "outcome": outcome}
    )


def write_use_case(folder, name="sizes", *, task="binary", time=True, table=None, **changes):
    """A table and a small settings file over it; gives the file."""
    frame = made_table(task=task) if table is None else table
    frame.to_csv(folder / f"{name}.csv", index=False)
    quick = {"max_iter": 15, "min_samples_leaf": 10}
    settings = {
        "name": name,
        "task": "regression" if task == "regression" else "classification",
        "target": "outcome",
        "source": {"path": f"{name}.csv"},
        "columns": {"features": ["size", "count", "colour"]},
        "split": {"share": 0.3, "folds": 3},
        "candidates": [
            {
                "builder": "hist_gradient_boosting",
                "params": quick,
                "space": {"learning_rate": {"low": 0.05, "high": 0.3}},
            }
        ],
        "tuning": {"trials": 3, "seconds": 60, "folds": 2},
        "gate": {"tolerance": 0.05, "smallest_holdout": 50, "missing_fall": 10},
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**settings, **({"time": "hour"} if time else {}), **changes}))
    return file
