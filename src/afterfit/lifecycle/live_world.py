"""The loop's world in production: versions in the registry, decisions in the ledger, rows of the source or the log.

A step may be run again after a crash. So each change leaves a mark, and is not made again where its mark is found.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from afterfit import data, gate, prediction_log
from afterfit.contract.datetimes import parse_as
from afterfit.data.windows import TimeWindow
from afterfit.errors import BundleError, DamagedRecordError, DataError
from afterfit.gate.verdict import Finding, Verdict
from afterfit.lifecycle import promotion
from afterfit.lifecycle.promotion import GateResult, PromotionRequest
from afterfit.lifecycle.rollback import roll_back
from afterfit.lifecycle.training_run import TrainingResult, log_and_register
from afterfit.lifecycle.tuning_run import log_search
from afterfit.loop import history, tasks
from afterfit.loop.policy import PairedDifference
from afterfit.loop.stepping import BuilderChoice, Recipe, TrainedVersion, WindowObservation
from afterfit.loop.task_runner import TaskRunner, loaded
from afterfit.loop.tasks import Model
from afterfit.mlflow_store import decisions, ledger, registry, step_journal, tracking
from afterfit.mlflow_store.registry import PRODUCTION, STAGING, STEP, Version
from afterfit.mlflow_store.step_journal import StepRun
from afterfit.model.version_files import digest
from afterfit.performance.estimation import CalibrationEvidence
from afterfit.prediction_log.log import PredictionLog
from afterfit.use_case import UseCase

VERDICT = "verdict.json"


@dataclass(slots=True)
class Live:
    """The world of one step.

    Attributes:
        use_case: its settings.
        work: measures and trains on the rows that are known.
        page: the step's page in the journal.
        folder: where copies of bundles are kept while they are used.
        checked: numbers of the versions whose copies were held against the registry.
    """

    use_case: UseCase
    work: TaskRunner
    page: StepRun
    folder: Path
    checked: set[str] = field(default_factory=set)

    def recipe(self, version: str) -> BuilderChoice:
        """Builder and parameters of a version."""
        manifest = registry.load_bundle(self._version(version)).manifest
        return BuilderChoice(manifest.builder, manifest.params)

    def trained(self, version: str) -> TrainedVersion:
        """What a version was trained on."""
        return trained_version_of(self._version(version))

    def observe(
        self, version: str, span: TimeWindow, past: Sequence[CalibrationEvidence], now: datetime
    ) -> WindowObservation:
        """Observe a window of a version."""
        return self.work.ask(tasks.observe, self._folder(version), span, tuple(past), now)

    def compare_versions(self, champion: str, previous: str, span: TimeWindow, now: datetime) -> PairedDifference:
        """Compare two versions on a window's known outcomes."""
        return self.work.ask(tasks.compare_versions, self._folder(champion), self._folder(previous), span, now)

    def train(self, recipe: Recipe) -> TrainedVersion:
        """Train and register a version; where this step has registered one already, that one."""
        registered = registry.find_by_tag(self.use_case.name, STEP, self.page.run_id)
        if registered is not None:
            return trained_version_of(registered)
        model = self.work.ask(tasks.train, recipe)
        trained_model, table = tasks.trained_of(model), tasks.table_of(self.work.history, recipe)
        bundle = loaded(model.folder)
        result = TrainingResult(table, model.builder, model.params, trained_model, bundle, None)
        reason, step_tag = f"retrained for {self.page.window}", {STEP: self.page.run_id}
        run_tags = {"afterfit.use_case": self.use_case.name, **step_tag}
        with tracking.run(self.use_case.name, f"retrain for {self.page.window}", run_tags):
            self._log_search(model)
            return trained_version_of(log_and_register(result, model.folder, why=reason, tags=step_tag))

    def _log_search(self, model: Model) -> None:
        """Log the search that found the model's parameters, if there was one, as a nested run."""
        search = tasks.search_of(model)
        if search is not None:
            run_id = log_search(self.use_case, search, f"tune for {self.page.window}")
            tracking.params({"trials": len(search.trials), "run_id": run_id}, "search")

    def verdict(self, candidate: str, champion: str, now: datetime, *, trial: bool) -> Verdict:
        """The gate's verdict on a candidate; from the findings in the journal, where they are there already."""
        if self.page.marks.get("judged") == candidate:
            with suppress(DamagedRecordError, LookupError, TypeError, ValueError):  # what was changed is judged anew
                return verdict_of(step_journal.read(self.page, VERDICT), trial=trial)
        version, book = self._version(candidate), ledger.entries(self.use_case.name)
        past = tuple(promotion.past_uses(book))
        measured = self.work.ask(tasks.gate_verdict, self._folder(candidate), self._folder(champion), now, past)
        recorded = promotion.findings_on_record(self.use_case, version, PRODUCTION, book)
        verdict = gate.judge(
            [*measured.findings, *recorded], {**measured.window, "window": self.page.window}, trial=trial
        )
        step_journal.write(self.page, VERDICT, verdict.to_dict())
        self.page = step_journal.mark(self.page, judged=candidate)
        return verdict

    def promote(self, candidate: str, champion: str, verdict: Verdict, reason: str) -> bool:
        """Promote to staging, then to production, by a decision each; a decision that is there is not repeated."""
        self._decide(candidate, champion, STAGING, verdict, "")
        return self._decide(candidate, champion, PRODUCTION, verdict, reason)

    def refuse(self, candidate: str, champion: str, verdict: Verdict, reason: str) -> None:
        """Record the refusal; a candidate on HOLD still goes to staging, where people can look at it."""
        at_staging = verdict.at_staging()
        if at_staging.moves:
            self._decide(candidate, champion, STAGING, at_staging, "")
        self._decide(candidate, champion, PRODUCTION, verdict, reason)

    def roll_back(self, champion: str, previous: str, reason: str) -> bool:
        """Put the previous version back, unless it is there already."""
        book = ledger.entries(self.use_case.name)
        if champion in decisions.rolled_back_versions(book) and decisions.holder(book, PRODUCTION) == previous:
            return True
        return roll_back(self.use_case, reason, previous).exit_code == 0

    def _decide(self, candidate: str, champion: str, to: str, verdict: Verdict, reason: str) -> bool:
        name, book = self.use_case.name, ledger.entries(self.use_case.name)
        for entry in book:
            earlier = entry.decision
            same = (earlier.action, earlier.version, earlier.alias) == ("promotion", candidate, to)
            if same and entry.state == "done":
                return entry.counts
        result, request = GateResult(verdict, self._version(champion)), PromotionRequest(reason=reason)
        decision = promotion.make_decision(self.use_case, self._version(candidate), to, result, request)
        entry, _ = ledger.record(name, decision, book[-1].number if book else 0)
        return entry.counts

    def _version(self, number: str) -> Version:
        return registry.version(self.use_case.name, number)

    def _folder(self, number: str) -> Path:
        """A copy of a version's bundle in a folder of its number; checked against the registry once in this step."""
        place = self.folder / number
        if number not in self.checked:
            version = self._version(number)
            with registry.private_folder() as private:
                home, expected = registry.fetch(version, private)
                registry.load_fetched(version, home, expected)
                if not _is_copy(place, expected):
                    draft = self.folder / f"{number}.part"
                    for old in (draft, place):
                        shutil.rmtree(old, ignore_errors=True)
                    shutil.copytree(home / registry.BUNDLE, draft)
                    draft.replace(place)
            self.checked.add(number)
        return place


def _is_copy(place: Path, expected: str) -> bool:
    """Whether a folder that an earlier step left holds the bundle with this digest."""
    try:
        return digest(place) == expected
    except (BundleError, OSError):
        return False


def trained_version_of(version: Version) -> TrainedVersion:
    """What a version was trained on."""
    window = registry.load_bundle(version).manifest.window
    end = window["end"]
    return TrainedVersion(version.number, int(window["rows"]), None if end is None else datetime.fromisoformat(end))


def verdict_of(saved: Mapping[str, Any], *, trial: bool) -> Verdict:
    """The gate's verdict on the findings of a saved verdict; older journals hold no window."""
    return gate.judge(map(Finding.from_dict, saved["findings"]), saved.get("window"), trial=trial)


def rows_of(use_case: UseCase, begin: datetime | None = None) -> data.Window:
    """The rows to learn from: the log's, as they were served, and before its first row those of the source.

    Where columns are private, all rows come from the source: the log holds hashes of these columns, and no model can be
    trained on hashes.

    Args:
        use_case: its settings.
        begin: where the first window begins. Older rows of the log are left out, such as a test request with an old
            row: for that time the source is more complete.
    """
    log = prediction_log.log_of(use_case)
    served = None if log is None or use_case.columns.private else logged_rows(use_case, log)
    source_rows = history.rows_of(use_case)
    if served is not None and begin is not None:
        served = served[served[str(use_case.time)] >= begin]
    if served is None or not len(served):
        return source_rows
    first = served[str(use_case.time)].min()
    older = source_rows.frame[source_rows.frame[str(use_case.time)] < first]
    rows = pd.concat([older, served[[name for name in older.columns if name in served.columns]]], ignore_index=True)
    return data.window(use_case, rows, f"{source_rows.name} and the prediction log", waiting=True)


def logged_rows(use_case: UseCase, log: PredictionLog) -> pd.DataFrame | None:
    """The log's rows with their outcomes as the target; of each key only the last row. None where the log is empty.

    A row whose time cannot be read belongs to no window, and is left out.

    Raises:
        DataError: the use case's time column is not among the features that were served.
    """
    time, parts = str(use_case.time), []
    for table in prediction_log.read(log):
        frame = prediction_log.features_of(table).to_pandas()
        frame[use_case.target] = table["outcome"].to_pandas() if "outcome" in table.column_names else None
        parts.append(frame)
    if not parts:
        return None
    whole: pd.DataFrame = pd.concat(parts, ignore_index=True)
    if time not in whole.columns:
        raise DataError(f"The prediction log of {use_case.name} has no '{time}': send the time column with each row.")
    marks = frozenset(use_case.columns.missing_marks)
    times = parse_as(whole[time], data.format_of(use_case, time), marks).values
    whole = whole.assign(**{time: times})[~np.isnat(times)]
    keys = [name for name in use_case.key if name in whole.columns]
    return whole.drop_duplicates(keys, keep="last") if keys else whole
