"""The ledger without any model's judgement: order, repair, races and kills, over a real SQLite store."""

import os
import signal
import time
from datetime import datetime, timezone

import pytest

from afterfit.errors import StoreError
from afterfit.mlflow_store import ledger, lock, registry
from afterfit.mlflow_store.ledger import Decision
from made_ledger import FORK, consistent, make_versions, promote, promotion


@pytest.fixture
def versions(store):
    """Ten versions of 'sizes' that nothing could load: the ledger never asks."""
    make_versions(10)
    return store


@pytest.mark.usefixtures("versions")
def test_a_promotion_is_recorded_before_and_marked_done_after_the_alias_moved():
    entry = promote(1)
    assert (entry.number, entry.state, registry.holder("sizes", "production").number) == (1, "done", "1")
    assert entry.actor.endswith(os.uname().nodename)
    assert ledger.entries("sizes") == (ledger.entries("sizes")[0],)
    assert ledger.entries("sizes")[0].decision.verdict == "PROMOTE"


@pytest.mark.usefixtures("versions")
def test_the_outgoing_version_is_kept_as_previous_and_both_versions_tell_their_story():
    promote(1)
    promote(2, reason="It is better.")
    assert registry.aliases("sizes") == {"production": "2", "previous": "1"}
    first, second = registry.version("sizes", "1"), registry.version("sizes", "2")
    assert (first.tags["afterfit.stage"], first.tags["afterfit.replaced_by"]) == ("archived", "2")
    assert second.tags["afterfit.stage"] == "production"
    from mlflow import MlflowClient

    assert "It is better." in MlflowClient().get_model_version("sizes", "2").description


@pytest.mark.usefixtures("versions")
def test_a_refusal_is_recorded_and_moves_nothing():
    promote(1)
    refused = Decision("promotion", "REJECT", "2", "production", moves=False, findings=[{"code": "loads"}])
    entry, _ = ledger.record("sizes", refused, 1)
    assert entry.state == "done"
    assert registry.holder("sizes", "production").number == "1"
    assert ledger.findings(entry) == [{"code": "loads"}]


@pytest.mark.usefixtures("versions")
def test_what_went_in_on_trial_before_there_was_a_word_for_it_is_shown_as_it_was():
    from afterfit.commands.history import told

    old = Decision("promotion", "HOLD", "1", "production", moves=True, forced=True, reason="On trial. It is newer.")
    ledger.record("sizes", old, 0)
    [entry] = ledger.entries("sizes")
    assert (entry.decision.verdict, entry.decision.forced, entry.counts) == ("HOLD", True, True)
    assert "HOLD     - -> 1 · to production · forced  by " in told(entry)[0]


@pytest.mark.usefixtures("versions")
def test_what_was_in_production_on_a_day_has_an_answer():
    start = datetime.now(timezone.utc)
    first, second = promote(1), promote(2)
    book = ledger.entries("sizes")
    assert ledger.holder(book, "production", start) == ""
    assert ledger.holder(book, "production", first.time) == "1"
    assert ledger.holder(book, "production", second.time) == "2"


@pytest.mark.usefixtures("versions")
def test_a_decision_judged_while_another_moved_the_alias_is_held_and_names_the_winner():
    promote(1)
    seen = len(ledger.entries("sizes"))
    winner = promote(2)
    loser, _ = ledger.record("sizes", promotion(3), seen)
    assert (loser.decision.verdict, loser.counts) == ("HOLD", False)
    assert "promotion of version 2 to production" in loser.decision.reason
    assert winner.actor in loser.decision.reason
    assert registry.holder("sizes", "production").number == "2"


@pytest.mark.usefixtures("versions")
def test_an_alias_moved_by_hand_is_put_back_and_that_is_said():
    promote(1)
    registry.set_alias(registry.version("sizes", "5"), "production")
    (said,) = ledger.repair("sizes")
    assert "was at version 5 without a decision" in said
    assert registry.holder("sizes", "production").number == "1"
    assert ledger.repair("sizes") == []
    consistent()


@pytest.mark.usefixtures("versions")
def test_a_note_is_an_entry_that_moves_no_alias_and_repairs_none():
    promote(1)
    registry.set_alias(registry.version("sizes", "2"), "production")
    seen = Decision("refusal", "REFUSED", "2", "production", moves=True, reason="It does not load.", page="A page.")
    entry = ledger.note("sizes", seen)
    assert (entry.number, entry.state, entry.decision.moves) == (2, "done", False)
    assert registry.aliases("sizes")["production"] == "2"
    assert ledger.holder(ledger.entries("sizes"), "production") == "1"
    with lock.locked("sizes.ledger-lock", "somebody"), pytest.raises(StoreError, match="somebody"):
        ledger.note("sizes", seen, patience=0.1)
    assert len(ledger.entries("sizes")) == 2


@pytest.mark.usefixtures("versions")
def test_an_alias_from_before_the_ledger_is_taken_over():
    registry.set_alias(registry.version("sizes", "4"), "production")
    (said,) = ledger.repair("sizes")
    assert "Version 4 held the alias 'production' before" in said
    assert ledger.holder(consistent(), "production") == "4"


@pytest.mark.usefixtures("versions")
def test_a_deleted_version_in_production_leaves_nothing_in_production():
    from mlflow import MlflowClient

    promote(1)
    MlflowClient().delete_model_version("sizes", "1")
    (said,) = ledger.repair("sizes")
    assert "was deleted" in said
    assert ledger.holder(consistent(), "production") == ""


@pytest.mark.usefixtures("versions")
def test_stages_are_mirrored_where_they_are_asked_for():
    from mlflow import MlflowClient

    promote(1, stages=True)
    promote(2, stages=True)
    stages = {number: MlflowClient().get_model_version("sizes", number).current_stage for number in "12"}
    assert stages == {"1": "Archived", "2": "Production"}


# --- processes that die --------------------------------------------------------------------------------------------


def apart(work, *arguments):
    """Run a function in a forked process, with none of this process's connections to the store."""

    def run():
        fresh_store()
        work(*arguments)
        os._exit(0)

    process = FORK.Process(target=run)
    process.start()
    return process


def fresh_store():
    from mlflow.store.model_registry import sqlalchemy_store as models
    from mlflow.store.tracking import sqlalchemy_store as runs
    from mlflow.tracking._model_registry import utils as model_utils
    from mlflow.tracking._tracking_service import utils as run_utils

    for utils in (run_utils._tracking_store_registry, model_utils._model_registry_store_registry):
        utils._get_store_with_resolved_uri.cache_clear()
    models.SqlAlchemyStore._engine_map.clear()
    runs.SqlAlchemyStore._engine_map.clear()


STEPS = [
    ("afterfit.mlflow_store.tracking", "experiment_id"),
    ("mlflow.MlflowClient", "create_registered_model"),
    ("mlflow.MlflowClient", "create_run"),
    ("mlflow.MlflowClient", "log_dict"),
    ("mlflow.MlflowClient", "log_text"),
    ("mlflow.MlflowClient", "set_tag"),
    ("mlflow.MlflowClient", "set_registered_model_alias"),
    ("mlflow.MlflowClient", "set_model_version_tag"),
    ("mlflow.MlflowClient", "update_model_version"),
    ("mlflow.MlflowClient", "set_terminated"),
    ("mlflow.MlflowClient", "delete_registered_model"),
]


def die_at(step, when, version):
    """Promote, and be killed right before or after the step is taken for the first time."""
    place, name = step
    import importlib

    module, _, owner = place.rpartition(".")
    home = getattr(importlib.import_module(module), owner)
    plain = getattr(home, name)

    def deadly(*arguments, **named):
        if when == "after":
            plain(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(home, name, deadly)
    promote(version)


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize(
    ("step", "when"), [*((step, "before") for step in STEPS), (STEPS[5], "after"), (STEPS[6], "after")], ids=str
)
def test_a_promotion_killed_at_any_step_is_finished_or_undone_by_the_next_command(step, when):
    promote(1)
    process = apart(die_at, step, when, 2)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    said = ledger.repair("sizes")
    book = consistent()
    assert ledger.holder(book, "production") in {"1", "2"}
    finished, undone = (any(one.startswith(word) for one in said) for word in ("Finished", "Undone"))
    assert finished == (len(book) == 2 and bool(book[-1].repaired) and book[-1].state == "done")
    assert undone == (len(book) == 2 and book[-1].state == "abandoned")
    promote(3)
    assert ledger.holder(consistent(), "production") == "3"


def race(barrier, version, folder):
    seen = len(ledger.entries("sizes"))
    barrier.wait(60)
    entry, _ = ledger.record("sizes", promotion(version, previous="1"), seen)
    (folder / f"{version}.told").write_text(f"{entry.counts} {entry.decision.reason}")


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(2))
def test_of_eight_promotions_at_once_one_wins_and_the_others_name_it(versions, attempt):
    del attempt
    promote(1)
    barrier = FORK.Barrier(8)
    processes = [apart(race, barrier, version, versions) for version in range(2, 10)]
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0] * 8
    told = {version: (versions / f"{version}.told").read_text() for version in range(2, 10)}
    (winner,) = [version for version, words in told.items() if words.startswith("True")]
    assert all(f"promotion of version {winner} " in words for version, words in told.items() if version != winner)
    book = consistent()
    assert ledger.holder(book, "production") == str(winner)
    assert len(book) == 9


@pytest.mark.usefixtures("versions")
@pytest.mark.slow
def test_promotions_killed_by_the_clock_leave_a_whole_ledger():
    import random

    promote(1)
    chance = random.Random(0)
    for attempt in range(24):
        process = apart(promote, 2 + attempt % 8)
        time.sleep(chance.uniform(0.0, 0.35))
        process.kill()
        process.join(30)
        ledger.repair("sizes")
        consistent()


# --- the lock ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("store")
def test_a_living_holder_is_waited_for_and_then_named():
    with (
        lock.locked("sizes.lock", "ana@home"),
        pytest.raises(StoreError, match=r"ana@home .* holds 'sizes.lock'"),
        lock.locked("sizes.lock", "ben@home", patience=0.2),
    ):
        pass


@pytest.mark.usefixtures("store")
def test_a_lock_is_gone_after_the_block_even_where_it_failed():
    from mlflow import MlflowClient

    with pytest.raises(ZeroDivisionError), lock.locked("sizes.lock", "ana@home"):
        _ = 1 / 0
    assert not MlflowClient().search_registered_models()


@pytest.mark.usefixtures("store")
def test_a_lock_whose_lease_is_over_is_taken_over(monkeypatch):
    with lock.locked("sizes.lock", "ana@home"):
        later = time.time() + lock.LEASE + 1
        monkeypatch.setattr(lock.time, "time", lambda: later)
        with lock.locked("sizes.lock", "ben@home", patience=0.2) as held:
            held.require()
    from mlflow import MlflowClient

    assert not MlflowClient().search_registered_models()


@pytest.mark.usefixtures("store")
def test_a_holder_that_took_too_long_stops_before_its_next_step(monkeypatch):
    with lock.locked("sizes.lock", "ana@home") as held:
        later = time.monotonic() + lock.LEASE
        monkeypatch.setattr(lock.time, "monotonic", lambda: later)
        with pytest.raises(StoreError, match="too slow"):
            held.require()


def hold_and_die(name):
    with lock.locked(name, "ana@home"):
        os.kill(os.getpid(), signal.SIGKILL)


def die_while_taking_over(name):
    lock._leave = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    with lock.locked(name, "ana@home"):
        pass


@pytest.mark.usefixtures("store")
def test_a_lock_of_a_dead_process_is_cleared_even_where_the_one_who_cleared_it_died_too():
    from mlflow import MlflowClient

    for work in (hold_and_die, die_while_taking_over, die_while_taking_over):
        process = apart(work, "sizes.lock")
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
    with lock.locked("sizes.lock", "ben@home", patience=1):
        pass
    assert not MlflowClient().search_registered_models()
