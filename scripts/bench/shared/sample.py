"""A small use case over some of the flights, with trained versions in a store of its own: quick to train and judge."""

import contextlib
import io
import os
from pathlib import Path

import yaml

from afterfit.commands import train
from afterfit.commands.console import settle
from afterfit.data.flights import flights
from afterfit.mlflow_store import registry
from afterfit.model.packaging import json_value
from afterfit.use_case import load_use_case

NAME = "flights-sample"
DAYS = ("2013-01-01", "2013-02-01")


def use_case(folder, every=10, **changes):
    """A settings file in that folder, and the table it names: each tenth flight of January."""
    table = flights()
    table = table[(table["scheduled_departure"] >= DAYS[0]) & (table["scheduled_departure"] < DAYS[1])].iloc[::every]
    table.to_parquet(folder / "flights.parquet")
    known = load_use_case("flights-late")
    settings = {
        "name": NAME,
        "task": "classification",
        "target": known.target,
        "positive": True,
        "time": known.time,
        "key": list(known.key),
        "source": {"path": str(folder / "flights.parquet")},
        "columns": {"features": list(known.columns.features)},
        "split": {"share": 0.3, "folds": 2},
        "candidates": [{"builder": "hist_gradient_boosting", "params": {"max_iter": 30, "max_leaf_nodes": 15}}],
        **changes,
    }
    file = folder / f"{NAME}.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def rows(folder, count):
    """Some of the table's rows as a client would send them."""
    import pandas as pd

    table = pd.read_parquet(folder / "flights.parquet")[[*load_use_case("flights-late").columns.features, "flight_id"]]
    some = table.iloc[:: max(len(table) // count, 1)].head(count)
    return [{name: json_value(value) for name, value in row.items()} for row in some.to_dict("records")]


@contextlib.contextmanager
def store(folder, builders=("",), **changes):
    """Work in that folder, with a store and one version a builder, the first in production; gives the settings file."""
    settle()
    folder, before, known = Path(folder), Path.cwd(), os.environ.get("MLFLOW_TRACKING_URI")
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    try:
        file = use_case(folder, **changes)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for builder in builders:
                train.command(str(file), builder)
        registry.set_alias(registry.version(NAME, "1"), registry.PRODUCTION)
        yield file
    finally:
        os.chdir(before)
        if known is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = known
