"""The seam to MLflow's runs: join or start one, log what was measured, and turn its errors into sentences."""

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, ColSpec, Schema
from requests.exceptions import RequestException
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from afterfit.errors import StoreError, UnknownVersionError
from afterfit.package import ROOT

if TYPE_CHECKING:  # who only asks the store needs no scikit-learn
    from afterfit.data.loading import Fingerprint
    from afterfit.model.bundle import Bundle


class Described(MetaDataset):
    """A dataset of which MLflow keeps the description; the rows stay where they are."""

    @property
    def profile(self) -> None:
        """Nothing beyond the schema and the tags."""
        return


MOST_METRICS = 1_000
"""Metrics that MLflow takes in one call."""
PATIENCE = 5.0
"""Seconds to wait for a tracking server before it counts as away."""
DATABASES = frozenset({"sqlite", "postgresql", "mysql", "mssql"})


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One value of a metric: when (milliseconds since 1970, UTC), and its step."""

    metric: str
    value: float
    time: int
    step: int


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn what MLflow and the libraries under it raise into a StoreError that names the store."""
    try:
        yield
    except MlflowException as error:
        said = " ".join(str(error.message).split())
        if isinstance(error.__cause__ or error.__context__, RequestException):
            raise StoreError(
                f"MLflow at {store()} cannot be reached: it went away in the middle. {said[:300]}"
            ) from error
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}:
            raise UnknownVersionError(f"MLflow at {store()} does not know this: {said}") from error
        raise StoreError(f"MLflow at {store()} refused: {said[:500]}") from error
    except (RequestException, SQLAlchemyError, ConnectionError) as error:
        said = " ".join(str(error).split())
        raise StoreError(f"MLflow at {store()} cannot be reached: {said[:300]}") from error
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        raise StoreError(f"MLflow at {store()} cannot read or write its files{where}: {error.strerror}") from error


def store() -> str:
    """The tracking store's address, a password in it masked."""
    address = mlflow.get_tracking_uri()
    parts = urlsplit(address)
    return address.replace(f":{parts.password}@", ":***@") if parts.password else address


def check_reachable() -> None:
    """Fail within seconds where the tracking server or database is away; MLflow itself would try for minutes.

    Raises:
        StoreError: no connection.
    """
    address = mlflow.get_tracking_uri()
    kind = urlsplit(address).scheme
    try:
        if kind in {"http", "https"}:
            _knock(urlsplit(address).hostname, urlsplit(address).port or {"http": 80, "https": 443}[kind])
        elif kind.split("+")[0] in DATABASES:
            _open_database(address)
    except (OSError, SQLAlchemyError, ImportError) as error:
        said = getattr(error, "strerror", None) or getattr(error, "orig", None) or error
        raise StoreError(
            f"MLflow at {store()} cannot be reached: {said}. "
            f"Start the server, or point MLFLOW_TRACKING_URI at another store."
        ) from error


def _knock(host: str | None, port: int) -> None:
    socket.create_connection((host or "", port), timeout=PATIENCE).close()


def _open_database(address: str) -> None:
    """One connection; the folder of a SQLite file is made, as MLflow would."""
    url = make_url(address)
    if url.host and url.port:
        _knock(url.host, url.port)
    elif url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


@contextmanager
def run(experiment: str, name: str, tags: Mapping[str, str] | None = None) -> Iterator[Run]:
    """The run that `mlflow run` made where there is one, else a new one; nested where one is already active.

    It ends FINISHED, FAILED where the block raises, and KILLED where it is interrupted.
    """
    check_reachable()
    with store_errors():
        active = _start(experiment, name)
    try:
        with store_errors():
            mlflow.set_tags({"mlflow.runName": name, **(tags or {})})
        yield active
    except BaseException as error:
        if not _interrupted(error):
            _end("FAILED")
            raise
        _end("KILLED")
        raise KeyboardInterrupt from error
    with store_errors():
        mlflow.end_run("FINISHED")


def _start(experiment: str, name: str) -> Run:
    parent = mlflow.active_run()
    if parent is not None:  # without its parent's experiment it would land in MLflow's default one
        return mlflow.start_run(experiment_id=parent.info.experiment_id, run_name=name, nested=True)
    if "MLFLOW_RUN_ID" in os.environ:
        return mlflow.start_run()
    return mlflow.start_run(experiment_id=experiment_id(experiment), run_name=name)


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind it: in the middle of a library's clean-up it comes out as that library's error."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _end(status: str) -> None:
    """End the active run after a failure, which must not be hidden by a store that is away by now."""
    try:
        mlflow.end_run(status)
    except (MlflowException, SQLAlchemyError, OSError):  # requests' errors are OSErrors
        return


def experiment_id(name: str) -> str:
    """The experiment's id; made where it is absent, with an artifact folder that does not depend on who asks."""
    known = mlflow.get_experiment_by_name(name)
    if known is not None:
        if known.lifecycle_stage == "deleted":
            raise StoreError(f"The experiment '{name}' was deleted: restore it, or delete it for good.")
        return str(known.experiment_id)
    local = urlsplit(mlflow.get_tracking_uri()).scheme not in {"http", "https"}
    place = (Path.cwd() / "mlruns" / name).as_uri() if local else None
    try:
        return str(mlflow.create_experiment(name, artifact_location=place))
    except MlflowException:
        raced = mlflow.get_experiment_by_name(name)
        if raced is None:
            raise
        return str(raced.experiment_id)


def params(values: Mapping[str, Any], prefix: str = "model") -> None:
    """Log parameters under `prefix.`, so that they never meet those that `mlflow run` has logged."""
    with store_errors():
        mlflow.log_params({f"{prefix}.{key}": value for key, value in values.items()})


def metrics(
    values: Mapping[str, float], *, step: int = 0, model_id: str | None = None, dataset: Dataset | None = None
) -> None:
    """Log metrics, those that are not defined (nan) left out; linked to a model and a dataset where given."""
    known = {key: float(value) for key, value in values.items() if value == value}  # noqa: PLR0124 - nan is not itself
    if known:
        with store_errors():
            mlflow.log_metrics(known, step=step, model_id=model_id, dataset=dataset)


def histories(steps: Sequence[Mapping[str, float]]) -> None:
    """Log the active run's metrics of many steps, from step 0 on, in as few calls as may be; nan is left out."""
    active, now = mlflow.active_run(), int(time.time() * 1000)
    if active is None:
        raise StoreError("Metrics need an active run, and there is none.")
    found = [
        Metric(key, float(value), now, step)
        for step, values in enumerate(steps)
        for key, value in values.items()
        if isfinite(value)
    ]
    with store_errors():
        for start in range(0, len(found), MOST_METRICS):
            MlflowClient().log_batch(active.info.run_id, metrics=found[start : start + MOST_METRICS])


def dataset(source: str, name: str, fingerprint: "Fingerprint", context: str) -> Dataset:
    """Log the table that a run used: its source, content digest, rows, columns and time range."""
    schema = _any_values(fingerprint.columns)
    table = Described(CodeDatasetSource({"source": source}), name=name, digest=fingerprint.sha256[:16], schema=schema)
    told = {
        "sha256": fingerprint.sha256,
        "rows": str(fingerprint.rows),
        "columns": str(len(fingerprint.columns)),
        "start": fingerprint.start or "",
        "end": fingerprint.end or "",
    }
    with store_errors():
        mlflow.log_input(table, context=context, tags=told)
        mlflow.log_params({f"{context}.{key}": value for key, value in told.items() if value})
    return table


def figures(pictures: Mapping[str, Any]) -> None:
    """Log matplotlib figures as PNG files under `pictures/`."""
    with store_errors():
        for name, figure in pictures.items():
            mlflow.log_figure(figure, f"pictures/{name}.png")


def note(text: str) -> None:
    """The run's description, in Markdown; the interface shows it first."""
    with store_errors():
        mlflow.set_tag("mlflow.note.content", text)


def _any_values(columns: Sequence[str]) -> Schema:
    """A schema that takes any value in each column, or none."""
    return Schema([ColSpec(AnyType(), name, required=False) for name in columns])  # type: ignore[no-untyped-call]


BEST = "afterfit.best"


def best_of(run_id: str) -> tuple[str, dict[str, Any]]:
    """The builder and parameters that a search's run found best.

    Raises:
        UnknownVersionError: no such run, or it was no search.
    """
    check_reachable()
    with store_errors():
        found = mlflow.get_run(run_id.strip())
    if BEST not in found.data.tags:
        raise UnknownVersionError(
            f"The run {run_id} found no best parameters: give the run of a search (entry point tune)."
        )
    best = json.loads(found.data.tags[BEST])
    return best["builder"], best["params"]


def tags(values: Mapping[str, str]) -> None:
    """Set tags on the active run."""
    with store_errors():
        mlflow.set_tags(dict(values))


def table(rows: Sequence[Mapping[str, Any]], path: str) -> None:
    """Log rows as a table that the interface shows."""
    if rows:
        with store_errors():
            mlflow.log_table({key: [row.get(key) for row in rows] for key in rows[0]}, path)


def text(content: str, path: str) -> None:
    """Log a text file."""
    with store_errors():
        mlflow.log_text(content, path)


def log_bundle(
    folder: Path, bundle: "Bundle", requirements: Sequence[str], params: Mapping[str, Any]
) -> tuple[str, str]:
    """Log a bundle as an MLflow pyfunc whose code travels with it; gives (model URI, model id).

    MLflow keeps a folder under its own name, and a version's is called "bundle": one of another name is copied.
    The signature takes any value in every column, so that a bad row is answered and not refused with its batch.
    """
    with tempfile.TemporaryDirectory() as scratch, store_errors():
        if folder.name != "bundle":
            folder = Path(shutil.copytree(folder, Path(scratch) / "bundle"))
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(ROOT / "served.py"),
            artifacts={"bundle": str(folder)},
            code_paths=[str(ROOT)],
            signature=ModelSignature(inputs=_any_values(bundle.scorer.contract.names)),
            pip_requirements=list(requirements),
            params={f"model.{key}": value for key, value in params.items()},
            metadata={"digest": bundle.digest},
        )
    return logged.model_uri, logged.model_id


# Runs of their own, beside whatever run is active.


@dataclass(frozen=True, slots=True)
class Noted:
    """A finished run: its tags and the last value of each metric."""

    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


def noted(experiment: str, tags: Mapping[str, str]) -> list[Noted]:
    """The finished runs of an experiment with these tags, newest first; none where there is no such experiment."""
    check_reachable()
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found: list[Run] = []
    with store_errors():
        known = mlflow.get_experiment_by_name(experiment)
        token: str | None = "" if known is not None and known.lifecycle_stage != "deleted" else None
        while known is not None and token is not None:
            page = MlflowClient().search_runs(
                [known.experiment_id], f"{wanted} and attributes.status = 'FINISHED'", page_token=token or None
            )
            found += page
            token = page.token or None
    return [Noted(one.info.run_id, dict(one.data.tags), dict(one.data.metrics)) for one in found]


def note_run(
    experiment: str, name: str, tags: Mapping[str, str], points: Sequence[MetricPoint], texts: Mapping[str, str]
) -> str:
    """A whole run at once, whatever run is active: tags, metrics in order of time, and text files; gives its id.

    It counts as finished only when all of it is there.
    """
    check_reachable()
    with store_errors():
        client = MlflowClient()
        made = client.create_run(experiment_id(experiment), run_name=name, tags=dict(tags)).info.run_id
        add_points(made, points)
        for path, content in texts.items():
            client.log_text(made, content, path)
        client.set_terminated(made, "FINISHED")
    return str(made)


def add_points(run_id: str, points: Sequence[MetricPoint], tags: Mapping[str, str] | None = None) -> None:
    """Further points of a run's metrics, and tags; values that are not finite are left out."""
    metrics = [Metric(p.metric, float(p.value), p.time, p.step) for p in points if isfinite(p.value)]
    with store_errors():
        for start in range(0, len(metrics), MOST_METRICS):
            MlflowClient().log_batch(run_id, metrics=metrics[start : start + MOST_METRICS])
        for key, value in (tags or {}).items():
            MlflowClient().set_tag(run_id, key, value)


def forget(run_ids: Sequence[str]) -> None:
    """Delete runs; MLflow keeps them as deleted until its own clean-up."""
    with store_errors():
        for run_id in run_ids:
            MlflowClient().delete_run(run_id)


@contextmanager
def joined(name: str) -> Iterator[None]:
    """The run that `mlflow run` made, or one nested where a run is active; nothing where there is neither."""
    if mlflow.active_run() is None and "MLFLOW_RUN_ID" not in os.environ:
        yield
        return
    with run("", name):
        yield
