"""The loop's journal: a run in `<use case>.loop` for each window, with marks of how far its step came."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from afterfit.mlflow_store import tracking
from afterfit.mlflow_store.lock import patiently

PREFIX = "afterfit."
DONE = "done"


@dataclass(frozen=True, slots=True)
class StepRun:
    """One window's step: its run, its window's name and end (ISO text), and its marks."""

    run_id: str
    window: str
    end: str
    marks: Mapping[str, str]

    @property
    def done(self) -> bool:
        """Whether its step came to its end."""
        return self.marks.get(DONE) == "true"


def experiment(name: str) -> str:
    """Where a use case's journal is."""
    return f"{name}.loop"


def pages(name: str) -> list[StepRun]:
    """The journal, oldest window first."""
    tracking.check_reachable()
    found: list[Run] = []
    with tracking.store_errors():
        known = mlflow.get_experiment_by_name(experiment(name))
        token: str | None = "" if known is not None else None
        while known is not None and token is not None:
            part = MlflowClient().search_runs(
                [known.experiment_id], f"tags.`{PREFIX}kind` = 'step'", page_token=token or None
            )
            found += part
            token = part.token or None
    return sorted((_page(run) for run in found), key=lambda one: one.end)


def _page(run: Run) -> StepRun:
    marks = {key.removeprefix(PREFIX): value for key, value in run.data.tags.items() if key.startswith(PREFIX)}
    return StepRun(run.info.run_id, marks.get("window", ""), marks.get("end", ""), marks)


def begin(name: str, window: str, start: str, end: str) -> StepRun:
    """A new page; a run that nobody has to be active for."""
    marks = {"kind": "step", "use_case": name, "window": window, "start": start, "end": end}
    tags = {f"{PREFIX}{key}": value for key, value in marks.items()}
    with tracking.store_errors():
        ledger = tracking.experiment_id(experiment(name))
        made: Any = patiently(lambda: MlflowClient().create_run(ledger, tags=tags, run_name=window))
    return StepRun(made.info.run_id, window, end, marks)


def mark(page: StepRun, **marks: str) -> StepRun:
    """Set marks, one after the other."""
    with tracking.store_errors():
        for key, value in marks.items():
            patiently(partial(MlflowClient().set_tag, page.run_id, f"{PREFIX}{key}", value))
    return replace(page, marks={**page.marks, **marks})


def write(page: StepRun, path: str, content: Mapping[str, Any]) -> None:
    """Write a JSON file of the page; one of that name is replaced."""
    with tracking.store_errors():
        MlflowClient().log_text(page.run_id, json.dumps(content, indent=1, default=str), path)


def read(page: StepRun, path: str) -> dict[str, Any]:
    """Read a JSON file of the page."""
    with tracking.store_errors():
        place = f"{MlflowClient().get_run(page.run_id).info.artifact_uri}/{path}"
        found: dict[str, Any] = json.loads(mlflow.artifacts.load_text(place))
    return found


def close(page: StepRun, note: str, metrics: Mapping[str, float]) -> StepRun:
    """End the page; the mark that it is done comes last."""
    with tracking.store_errors():
        client = MlflowClient()
        for key, value in metrics.items():
            client.log_metric(page.run_id, key, value)
        patiently(lambda: client.set_tag(page.run_id, "mlflow.note.content", note))
        patiently(lambda: client.set_terminated(page.run_id, "FINISHED"))
    return mark(page, **{DONE: "true"})
