"""The loop's journal: one run in the experiment `<use case>.loop` for each window; its tags mark how far it came."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from afterfit.errors import DamagedRecordError
from afterfit.mlflow_store import registry, tracking
from afterfit.mlflow_store.lock import retry_if_locked
from afterfit.texts.redaction import redact, redacted

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
        """Whether its step has ended."""
        return self.marks.get(DONE) == "true"


def experiment(name: str) -> str:
    """The experiment of a use case's journal."""
    return f"{name}.loop"


def pages(name: str) -> list[StepRun]:
    """The pages of the journal that can be read, oldest window first."""
    return read_pages(name)[0]


def read_pages(name: str) -> tuple[list[StepRun], list[str]]:
    """The journal, oldest window first, and a sentence for each run that somebody has changed, which is passed over."""
    tracking.check_reachable()
    runs: list[Run] = []
    with tracking.store_errors():
        journal = mlflow.get_experiment_by_name(experiment(name))
        token: str | None = "" if journal is not None else None
        while journal is not None and token is not None:
            batch = MlflowClient().search_runs(
                [journal.experiment_id], f"tags.`{PREFIX}kind` = 'step'", page_token=token or None
            )
            runs += batch
            token = batch.token or None
    found = [_page(run) for run in runs]
    faults = [f"Passed over: the run {page.run_id} {fault}." for page in found if (fault := _fault(name, page))]
    return sorted((page for page in found if not _fault(name, page)), key=lambda page: page.end), faults


def begin(name: str, window: str, start: str, end: str) -> StepRun:
    """Make a new page: a run of its own, whatever run is active. Times are ISO text."""
    marks = {"kind": "step", "use_case": name, "window": window, "start": start, "end": end}
    tags = {f"{PREFIX}{key}": value for key, value in marks.items()}
    with tracking.store_errors():
        journal_id = tracking.experiment_id(experiment(name))
        run: Any = retry_if_locked(lambda: MlflowClient().create_run(journal_id, tags=tags, run_name=window))
    return StepRun(run.info.run_id, window, end, marks)


def mark(page: StepRun, **marks: str) -> StepRun:
    """Set marks, one after the other."""
    with tracking.store_errors():
        for key, value in redacted(marks).items():
            retry_if_locked(partial(MlflowClient().set_tag, page.run_id, f"{PREFIX}{key}", value))
    return replace(page, marks={**page.marks, **marks})


def write(page: StepRun, path: str, content: Mapping[str, Any]) -> None:
    """Write a JSON file of the page; an older one of that name is replaced."""
    with tracking.store_errors():
        MlflowClient().log_text(page.run_id, json.dumps(redacted(content), indent=1, default=str), path)


def read(page: StepRun, path: str) -> dict[str, Any]:
    """Read a JSON file of the page.

    Raises:
        DamagedRecordError: the file is gone, or is not what was written.
    """
    with tracking.store_errors():
        folder = MlflowClient().get_run(page.run_id).info.artifact_uri
        try:
            content = json.loads(mlflow.artifacts.load_text(f"{folder}/{path}"))
        except (MlflowException, ValueError, RecursionError) as error:
            undecodable = isinstance(error.__cause__ or error.__context__, UnicodeError)
            if isinstance(error, MlflowException) and error.error_code not in registry.UNKNOWN and not undecodable:
                raise  # the store is away, and has not said that the file is
            content = None
    if not isinstance(content, dict):
        raise DamagedRecordError(f"'{path}' of the step {page.window} (run {page.run_id}) is gone or was changed.")
    return content


def close(page: StepRun, note: str, metrics: Mapping[str, float]) -> StepRun:
    """End the page with a note and metrics; it is marked as done last of all."""
    with tracking.store_errors():
        client = MlflowClient()
        for key, value in metrics.items():
            client.log_metric(page.run_id, key, value)
        retry_if_locked(lambda: client.set_tag(page.run_id, "mlflow.note.content", redact(note)))
        retry_if_locked(lambda: client.set_terminated(page.run_id, "FINISHED"))
    return mark(page, **{DONE: "true"})


def _fault(name: str, page: StepRun) -> str:
    """Why a run is no readable step, in words that follow its name; empty where it is one."""
    wrong = [key for key in ("start", "end") if not _is_time(page.marks.get(key, ""))]
    wrong += [] if page.window else ["window"]
    if not wrong and page.marks["start"] >= page.end:
        wrong = ["start", "end"]
    tags = ", ".join(f"{PREFIX}{key} ({page.marks.get(key, '')[:40]!r})" for key in wrong)
    return f"in the experiment {experiment(name)} is no readable step: look at its tags {tags}" if wrong else ""


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is None
    except ValueError:
        return False


def _page(run: Run) -> StepRun:
    marks = {key.removeprefix(PREFIX): value for key, value in run.data.tags.items() if key.startswith(PREFIX)}
    return StepRun(run.info.run_id, marks.get("window", ""), marks.get("end", ""), marks)
