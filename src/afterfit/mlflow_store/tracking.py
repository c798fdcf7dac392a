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

from afterfit.errors import DamagedRecordError, StoreError, UnknownVersionError
from afterfit.package import ROOT
from afterfit.texts.redaction import redact, redacted

if TYPE_CHECKING:  # who only asks the store needs no scikit-learn
    from afterfit.data.fingerprints import Fingerprint
    from afterfit.model.bundle import Bundle

MOST_METRICS = 1_000
"""Metrics that MLflow takes in one call."""
PATIENCE = 5.0
"""Seconds to wait for a tracking server before it counts as away."""
DATABASES = frozenset({"sqlite", "postgresql", "mysql", "mssql"})
BEST = "afterfit.best"


class Described(MetaDataset):
    """A dataset that MLflow keeps only the description of; the rows stay where they are."""

    @property
    def profile(self) -> None:
        """None: schema and tags say it all."""
        return


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One value of a metric: when (milliseconds since 1970, UTC), and its step."""

    metric: str
    value: float
    time: int
    step: int


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finished run: its tags and the last value of each metric."""

    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model that was logged: its address and id, and the digest of the list of its files."""

    uri: str
    model_id: str
    files: str


def _in_a_line(message: str) -> str:
    """A foreign message without secrets, and without the query that SQLAlchemy adds to it."""
    return " ".join(redact(message).split()).partition(" [SQL:")[0]


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn errors of MLflow and of the libraries under it into a StoreError that names the store."""
    try:
        yield
    except MlflowException as error:
        message = _in_a_line(str(error.message))
        if isinstance(error.__cause__ or error.__context__, RequestException):
            raise StoreError(
                f"MLflow at {store()} cannot be reached: it went away in the middle. {message[:300]}"
            ) from error
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}:
            raise UnknownVersionError(f"MLflow at {store()} does not know this: {message}") from error
        raise StoreError(f"MLflow at {store()} refused: {message[:500]}") from error
    except (RequestException, SQLAlchemyError, ConnectionError) as error:
        message = _in_a_line(str(error))
        raise StoreError(f"MLflow at {store()} cannot be reached: {message[:300]}") from error
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        raise StoreError(f"MLflow at {store()} cannot read or write its files{where}: {error.strerror}") from error


def store() -> str:
    """The tracking store's address without its secrets."""
    return redact(mlflow.get_tracking_uri())


def check_reachable() -> None:
    """Fail within seconds if the tracking server or database is away; MLflow itself would try for minutes.

    Raises:
        StoreError: no connection.
    """
    address = mlflow.get_tracking_uri()
    try:
        kind = urlsplit(address).scheme
        if kind in {"http", "https"}:
            _knock(urlsplit(address).hostname, urlsplit(address).port or {"http": 80, "https": 443}[kind])
        elif kind.split("+")[0] in DATABASES:
            _open_database(address)
    except ValueError as error:  # UnicodeError is one
        raise StoreError(
            f"MLflow at {store()} cannot be reached: host or port of this address are none. "
            "Point MLFLOW_TRACKING_URI at a store, such as http://host:5000 or sqlite:///mlflow.db."
        ) from error
    except (OSError, SQLAlchemyError, ImportError) as error:
        cause = getattr(error, "strerror", None) or getattr(error, "orig", None) or error
        raise StoreError(
            f"MLflow at {store()} cannot be reached: {cause}. "
            f"Start the server, or point MLFLOW_TRACKING_URI at another store."
        ) from error


@contextmanager
def run(experiment: str, name: str, tags: Mapping[str, str] | None = None) -> Iterator[Run]:
    """The run that `mlflow run` has made, if there is one, else a new run; it is nested if a run is already active.

    It ends FINISHED, FAILED where the block raises, and KILLED where it is interrupted.
    """
    check_reachable()
    with store_errors():
        active = _start(experiment, name)
    try:
        with store_errors():
            mlflow.set_tags(redacted({"mlflow.runName": name, **(tags or {})}))
        yield active
    except BaseException as error:
        if not _interrupted(error):
            _end("FAILED")
            raise
        _end("KILLED")
        raise KeyboardInterrupt from error
    with store_errors():
        mlflow.end_run("FINISHED")


def experiment_id(name: str) -> str:
    """The experiment's id; an absent experiment is created, and its artifacts are placed below the working folder."""
    experiment = mlflow.get_experiment_by_name(name)
    if experiment is not None:
        if experiment.lifecycle_stage == "deleted":
            raise StoreError(f"The experiment '{name}' was deleted: restore it, or delete it for good.")
        return str(experiment.experiment_id)
    local = urlsplit(mlflow.get_tracking_uri()).scheme not in {"http", "https"}
    artifact_location = (Path.cwd() / "mlruns" / name).as_uri() if local else None
    try:
        return str(mlflow.create_experiment(name, artifact_location=artifact_location))
    except MlflowException:
        created_meanwhile = mlflow.get_experiment_by_name(name)
        if created_meanwhile is None:
            raise
        return str(created_meanwhile.experiment_id)


def params(values: Mapping[str, Any], prefix: str = "model") -> None:
    """Log parameters under `prefix.`, so that they never collide with those that `mlflow run` has logged."""
    with store_errors():
        mlflow.log_params(redacted({f"{prefix}.{key}": value for key, value in values.items()}))


def metrics(
    values: Mapping[str, float], *, step: int = 0, model_id: str | None = None, dataset: Dataset | None = None
) -> None:
    """Log metrics, linked to a model and a dataset where given; nan values (not defined) are left out."""
    defined = {key: float(value) for key, value in values.items() if value == value}  # noqa: PLR0124 - nan is not itself
    if defined:
        with store_errors():
            mlflow.log_metrics(defined, step=step, model_id=model_id, dataset=dataset)


def histories(steps: Sequence[Mapping[str, float]]) -> None:
    """Log metrics of many steps to the active run, from step 0 on, in few calls; nan is left out."""
    active, now = mlflow.active_run(), int(time.time() * 1000)
    if active is None:
        raise StoreError("Metrics need an active run, and there is none.")
    points = [
        Metric(key, float(value), now, step)
        for step, values in enumerate(steps)
        for key, value in values.items()
        if isfinite(value)
    ]
    with store_errors():
        for start in range(0, len(points), MOST_METRICS):
            MlflowClient().log_batch(active.info.run_id, metrics=points[start : start + MOST_METRICS])


def dataset(source: str, name: str, fingerprint: "Fingerprint", context: str) -> Dataset:
    """Log the table that a run used: its source, content digest, rows, columns and time range."""
    schema = _any_values(fingerprint.columns)
    table = Described(
        CodeDatasetSource({"source": redact(source)}), name=name, digest=fingerprint.sha256[:16], schema=schema
    )
    facts = {
        "sha256": fingerprint.sha256,
        "rows": str(fingerprint.rows),
        "columns": str(len(fingerprint.columns)),
        "start": fingerprint.start or "",
        "end": fingerprint.end or "",
    }
    with store_errors():
        mlflow.log_input(table, context=context, tags=facts)
        mlflow.log_params({f"{context}.{key}": value for key, value in facts.items() if value})
    return table


def figures(pictures: Mapping[str, Any]) -> None:
    """Log matplotlib figures as PNG files under `pictures/`."""
    with store_errors():
        for name, figure in pictures.items():
            mlflow.log_figure(figure, f"pictures/{name}.png")


def note(text: str) -> None:
    """The run's description, in Markdown; the interface shows it first."""
    with store_errors():
        mlflow.set_tag("mlflow.note.content", redact(text))


def best_of(run_id: str) -> tuple[str, dict[str, Any]]:
    """The builder and parameters that a search's run found best.

    Raises:
        UnknownVersionError: no such run, or it was no search.
    """
    check_reachable()
    with store_errors():
        run = mlflow.get_run(run_id.strip())
    if BEST not in run.data.tags:
        raise UnknownVersionError(
            f"The run {run_id} found no best parameters: give the run of a search (entry point tune)."
        )
    try:
        best = json.loads(run.data.tags[BEST])
        return str(best["builder"]), dict(best["params"])
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise DamagedRecordError(f"The run {run_id} has the tag {BEST}, and it was changed: search again.") from error


def tags(values: Mapping[str, str]) -> None:
    """Set tags on the active run."""
    with store_errors():
        mlflow.set_tags(redacted(values))


def table(rows: Sequence[Mapping[str, Any]], path: str) -> None:
    """Log rows as a table that the interface shows."""
    if rows:
        with store_errors():
            mlflow.log_table({key: redacted([row.get(key) for row in rows]) for key in rows[0]}, path)


def text(content: str, path: str) -> None:
    """Log a text file."""
    with store_errors():
        mlflow.log_text(redact(content), path)


def log_bundle(folder: Path, bundle: "Bundle", requirements: Sequence[str], params: Mapping[str, Any]) -> LoggedModel:
    """Log a bundle as an MLflow pyfunc whose code travels with it, with a list of all its files.

    MLflow logs a folder under the folder's name, and this one must be called "bundle": a folder of another name is
    copied first. The signature takes any value in every column: so a bad row is answered, and does not make MLflow
    refuse its whole batch.

    Raises:
        BundleError: what lies in the store now is not what was logged.
        SettingsError: a key for signatures cannot be read.
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
            params=redacted({f"model.{key}": value for key, value in params.items()}),
            metadata={"digest": bundle.digest},
        )
        files = _list_files(logged.model_uri, logged.model_id, bundle)
    return LoggedModel(logged.model_uri, logged.model_id, files)


def _list_files(uri: str, model_id: str, bundle: "Bundle") -> str:
    """Add the list of a logged model's files to it; gives the list's digest.

    MLflow writes some of these files itself, and completes the MLmodel file as it logs: so the list is made of what is
    in the store, once its bundle and its code are found to be those that were logged.
    """
    from afterfit.model import version_files  # noqa: PLC0415 - who only asks the store needs no scikit-learn

    with tempfile.TemporaryDirectory(prefix="afterfit-version-") as private:
        home = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=private))
        listed, written = version_files.write_list(home, bundle.manifest.name, bundle.digest)
        for file in written:
            MlflowClient().log_model_artifact(model_id, str(file))
    return listed


def finished_runs(experiment: str, tags: Mapping[str, str]) -> list[FinishedRun]:
    """The finished runs of an experiment with these tags, newest first; none where there is no such experiment."""
    check_reachable()
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    runs: list[Run] = []
    with store_errors():
        known_experiment = mlflow.get_experiment_by_name(experiment)
        token: str | None = (
            "" if known_experiment is not None and known_experiment.lifecycle_stage != "deleted" else None
        )
        while known_experiment is not None and token is not None:
            page = MlflowClient().search_runs(
                [known_experiment.experiment_id],
                f"{wanted} and attributes.status = 'FINISHED'",
                page_token=token or None,
            )
            runs += page
            token = page.token or None
    return [FinishedRun(run.info.run_id, dict(run.data.tags), dict(run.data.metrics)) for run in runs]


def write_run(
    experiment: str, name: str, tags: Mapping[str, str], points: Sequence[MetricPoint], texts: Mapping[str, str]
) -> str:
    """Write a whole new run, whatever run is active: tags, metrics in order of time, text files. Gives its id.

    It gets the status FINISHED only when all of it is there.
    """
    check_reachable()
    with store_errors():
        client = MlflowClient()
        run_id = client.create_run(experiment_id(experiment), run_name=name, tags=redacted(tags)).info.run_id
        add_points(run_id, points)
        for path, content in texts.items():
            client.log_text(run_id, redact(content), path)
        client.set_terminated(run_id, "FINISHED")
    return str(run_id)


def add_points(run_id: str, points: Sequence[MetricPoint], tags: Mapping[str, str] | None = None) -> None:
    """Add points to a run's metrics, and tags; values that are not finite are left out."""
    metrics = [Metric(p.metric, float(p.value), p.time, p.step) for p in points if isfinite(p.value)]
    with store_errors():
        for start in range(0, len(metrics), MOST_METRICS):
            MlflowClient().log_batch(run_id, metrics=metrics[start : start + MOST_METRICS])
        for key, value in redacted(tags or {}).items():
            MlflowClient().set_tag(run_id, key, value)


def delete_runs(run_ids: Sequence[str]) -> None:
    """Delete runs; MLflow keeps them as deleted until its own clean-up."""
    with store_errors():
        for run_id in run_ids:
            MlflowClient().delete_run(run_id)


@contextmanager
def join_run(name: str) -> Iterator[None]:
    """Join the run that `mlflow run` has made, or start a nested one if a run is active; do nothing without either."""
    if mlflow.active_run() is None and "MLFLOW_RUN_ID" not in os.environ:
        yield
        return
    with run("", name):
        yield


def _knock(host: str | None, port: int) -> None:
    socket.create_connection((host or "", port), timeout=PATIENCE).close()


def _open_database(address: str) -> None:
    """Open one connection; the folder of a SQLite file is created, as MLflow would do."""
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


def _start(experiment: str, name: str) -> Run:
    parent = mlflow.active_run()
    if parent is not None:  # without its parent's experiment it would land in MLflow's default one
        return mlflow.start_run(experiment_id=parent.info.experiment_id, run_name=name, nested=True)
    if "MLFLOW_RUN_ID" in os.environ:
        return mlflow.start_run()
    return mlflow.start_run(experiment_id=experiment_id(experiment), run_name=name)


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused the error: during a library's clean-up it appears as an error of that library."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _end(status: str) -> None:
    """End the active run after a failure; an error of the store here must not hide that failure."""
    try:
        mlflow.end_run(status)
    except (MlflowException, SQLAlchemyError, OSError):  # requests' errors are OSErrors
        return


def _any_values(columns: Sequence[str]) -> Schema:
    """A schema in which each column takes any value, and may be absent."""
    return Schema([ColSpec(AnyType(), name, required=False) for name in columns])  # type: ignore[no-untyped-call]
