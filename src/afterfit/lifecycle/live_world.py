"""The loop's world as it is: versions in the registry, decisions in the ledger, rows of the source or the log.

Each change leaves a mark first, and looks for its own mark before it is made again.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from afterfit import data, gate, prediction_log
from afterfit.contract.datetimes import parse_datetimes
from afterfit.data.windows import TimeWindow
from afterfit.errors import DataError
from afterfit.gate.verdict import Finding, Verdict
from afterfit.lifecycle import promotion
from afterfit.lifecycle.promotion import GateResult, PromotionRequest
from afterfit.lifecycle.rollback import command_for
from afterfit.lifecycle.training_run import TrainingResult, log_and_register
from afterfit.lifecycle.tuning_run import log_search
from afterfit.loop import history, tasks
from afterfit.loop.policy import PairedDifference
from afterfit.loop.stepping import BuilderChoice, Recipe, TrainedVersion, WindowObservation
from afterfit.loop.task_runner import TaskRunner, loaded
from afterfit.loop.tasks import Model
from afterfit.mlflow_store import ledger, registry, step_journal, tracking
from afterfit.mlflow_store.registry import PRODUCTION, STAGING, STEP, Version
from afterfit.mlflow_store.step_journal import StepRun
from afterfit.performance.estimation import CalibrationEvidence
from afterfit.prediction_log.log import PredictionLog
from afterfit.use_case import UseCase

VERDICT = "verdict.json"


@dataclass(slots=True)
class Live:
    """The world of one step.

    Attributes:
        use_case: whose.
        work: does what is measured and trained, on the rows that there are.
        page: the step's page in the journal.
        folder: where bundles are kept while they are used.
    """

    use_case: UseCase
    work: TaskRunner
    page: StepRun
    folder: Path

    def recipe(self, version: str) -> BuilderChoice:
        """Builder and parameters of a version."""
        manifest = registry.load_bundle(self._version(version)).manifest
        return BuilderChoice(manifest.builder, manifest.params)

    def trained(self, version: str) -> TrainedVersion:
        """What a version was trained on."""
        return trained(self._version(version))

    def observe(
        self, version: str, span: TimeWindow, past: Sequence[CalibrationEvidence], now: datetime
    ) -> WindowObservation:
        """Observe a window of a version."""
        return self.work.ask(tasks.observe, self._folder(version), span, tuple(past), now)

    def compare_versions(self, champion: str, previous: str, span: TimeWindow, now: datetime) -> PairedDifference:
        """Compare two versions on a window's known outcomes."""
        return self.work.ask(tasks.compare_versions, self._folder(champion), self._folder(previous), span, now)

    def train(self, recipe: Recipe) -> TrainedVersion:
        """Train and register; the version that this step has registered already, where it has."""
        known = registry.tagged(self.use_case.name, STEP, self.page.run_id)
        if known is not None:
            return trained(known)
        model = self.work.ask(tasks.train, recipe)
        trained_, table = tasks.trained_of(model), tasks.table_of(self.work.history, recipe)
        bundle = loaded(model.folder)
        result = TrainingResult(table, model.builder, model.params, trained_, bundle, None)
        why, step = f"retrained for {self.page.window}", {STEP: self.page.run_id}
        told = {"afterfit.use_case": self.use_case.name, **step}
        with tracking.run(self.use_case.name, f"retrain for {self.page.window}", told):
            self._log_search(model)
            return trained(log_and_register(result, model.folder, why=why, tags=step))

    def _log_search(self, model: Model) -> None:
        """The search that a model's parameters come from, where there was one, as a run below the active one."""
        search = tasks.search_of(model)
        if search is not None:
            run_id = log_search(self.use_case, search, f"tune for {self.page.window}")
            tracking.params({"trials": len(search.trials), "run_id": run_id}, "search")

    def verdict(self, candidate: str, champion: str, now: datetime, *, trial: bool) -> Verdict:
        """What the gate says of it; from the same findings, where they are in the journal already."""
        if self.page.marks.get("judged") == candidate:
            return verdict_of(step_journal.read(self.page, VERDICT), trial=trial)
        version, book = self._version(candidate), ledger.entries(self.use_case.name)
        past = tuple(promotion.past_uses(book))
        seen = self.work.ask(tasks.gate_verdict, self._folder(candidate), self._folder(champion), now, past)
        more = promotion.on_record(self.use_case, version, PRODUCTION, book)
        verdict = gate.judge([*seen.findings, *more], {**seen.window, "window": self.page.window}, trial=trial)
        step_journal.write(self.page, VERDICT, verdict.to_dict())
        self.page = step_journal.mark(self.page, judged=candidate)
        return verdict

    def promote(self, candidate: str, champion: str, verdict: Verdict, reason: str) -> bool:
        """To staging, then to production, each a decision in the ledger; what is there already is not done again."""
        self._decide(candidate, champion, STAGING, verdict, "")
        return self._decide(candidate, champion, PRODUCTION, verdict, reason)

    def refuse(self, candidate: str, champion: str, verdict: Verdict, reason: str) -> None:
        """Record the refusal; a candidate that is only held goes to staging for a look."""
        at_staging = verdict.at_staging()
        if at_staging.moves:
            self._decide(candidate, champion, STAGING, at_staging, "")
        self._decide(candidate, champion, PRODUCTION, verdict, reason)

    def roll_back(self, champion: str, previous: str, reason: str) -> bool:
        """Put the previous version back, unless it is there already."""
        book = ledger.entries(self.use_case.name)
        if champion in ledger.rolled_back(book) and ledger.holder(book, PRODUCTION) == previous:
            return True
        return command_for(self.use_case, reason, previous).exit_code == 0

    def _decide(self, candidate: str, champion: str, to: str, verdict: Verdict, reason: str) -> bool:
        name, book = self.use_case.name, ledger.entries(self.use_case.name)
        for entry in book:
            told = entry.decision
            if (told.action, told.version, told.alias) == ("promotion", candidate, to) and entry.state == "done":
                return entry.counts
        found, asked = GateResult(verdict, self._version(champion)), PromotionRequest(reason=reason)
        decided = promotion.decision(self.use_case, self._version(candidate), to, found, asked)
        entry, _ = ledger.record(name, decided, book[-1].number if book else 0)
        return entry.counts

    def _version(self, number: str) -> Version:
        return registry.version(self.use_case.name, number)

    def _folder(self, number: str) -> Path:
        """A checked copy of a version's bundle, in a folder of its number."""
        place = self.folder / number
        if not place.is_dir():
            version = self._version(number)
            registry.load_bundle(version)
            draft = self.folder / f"{number}.part"
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(registry.bundle_folder(version), draft)
            draft.replace(place)
        return place


def trained(version: Version) -> TrainedVersion:
    """What a version was trained on."""
    window = registry.load_bundle(version).manifest.window
    end = window["end"]
    return TrainedVersion(version.number, int(window["rows"]), None if end is None else datetime.fromisoformat(end))


def verdict_of(saved: Mapping[str, Any], *, trial: bool) -> Verdict:
    """The verdict that the gate comes to from findings that were saved with one; older journals kept no window."""
    return gate.judge(map(Finding.from_dict, saved["findings"]), saved.get("window"), trial=trial)


def rows_of(use_case: UseCase, begin: datetime | None = None) -> data.Window:
    """The rows that there are: as they were served, from the log's first row on, and before it those of the source.

    Where columns are private the log has their hashes only, which nothing can be trained on: then all are the source's.

    Args:
        use_case: its settings.
        begin: where the first window begins. Older rows in the log, such as somebody's trial with an old one, are left
            aside: for that time the source is the better witness.
    """
    log = prediction_log.log_of(use_case)
    served = None if log is None or use_case.columns.private else logged(use_case, log)
    known = history.rows_of(use_case)
    if served is not None and begin is not None:
        served = served[served[str(use_case.time)] >= begin]
    if served is None or not len(served):
        return known
    first = served[str(use_case.time)].min()
    older = known.frame[known.frame[str(use_case.time)] < first]
    both = pd.concat([older, served[[name for name in older.columns if name in served.columns]]], ignore_index=True)
    return data.window(use_case, both, f"{known.name} and the prediction log", waiting=True)


def logged(use_case: UseCase, log: PredictionLog) -> pd.DataFrame | None:
    """The log's rows with their outcomes as the target, the last answer of a key only; None where it has none.

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
    times = parse_datetimes(whole[time], frozenset(use_case.columns.missing_marks)).values
    whole = whole.assign(**{time: times})[~np.isnat(times)]
    keys = [name for name in use_case.key if name in whole.columns]
    return whole.drop_duplicates(keys, keep="last") if keys else whole
