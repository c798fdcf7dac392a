"""The ledger without any model's judgement: order, repair, races and kills, over a real SQLite store."""

import os
import signal
import time
from datetime import datetime, timezone

import pytest

from afterfit.errors import StoreError
from afterfit.mlflow_store import decisions, ledger, lock, registry
from afterfit.mlflow_store.decisions import Decision
from made_ledger import FORK, consistent, make_versions, promote, promotion
from waiting import PATIENCE


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
    assert (first.tags["status"], first.tags["afterfit.replaced_by"]) == ("replaced by 2", "2")
    assert second.tags["status"] == "in production"
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


def tags(number):
    return registry.version("sizes", str(number)).stored


def statuses(*numbers):
    return [tags(number).get("status") for number in numbers]


def decide(verdict, version, to="production", **more):
    """Record a decision that moves its alias where the verdict says so."""
    book = ledger.entries("sizes")
    moves = verdict in {"PROMOTE", "TRIAL"} or more.get("forced", False)
    previous = decisions.holder(book, to)
    decision = Decision("promotion", verdict, str(version), to, moves=moves, previous=previous, **more)
    return ledger.record("sizes", decision, len(book))[0]


def roll_back(version, to):
    book = ledger.entries("sizes")
    decision = Decision("rollback", "ROLLBACK", str(to), "production", moves=True, previous=str(version), reason="Bad.")
    return ledger.record("sizes", decision, len(book))[0]


def finding(outcome, sentence):
    return {"code": "better", "outcome": outcome, "sentence": sentence}


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize(
    ("verdict", "outcome", "status", "words"),
    [("REJECT", "fail", "refused", "refused for production"), ("HOLD", "unsure", "held", "held back for production")],
)
def test_a_refused_or_held_version_says_so_and_why(verdict, outcome, status, words):
    promote(1)
    findings = [finding("pass", "It loads."), finding(outcome, "It is worse."), finding(outcome, "It is slow.")]
    decide(verdict, 2, reason="Of a person.", findings=findings)
    assert tags(2)["status"] == status
    assert tags(2)["decision"] == f"2: {verdict}. It is worse. It is slow."
    described = registry.version("sizes", "2").description
    assert "## Decision 2" in described
    assert f"{words}: version 2." in described
    assert "Why: It is worse. It is slow." in described
    consistent()


@pytest.mark.usefixtures("versions")
def test_a_refusal_changes_nothing_of_a_version_that_is_in_production_or_was_rolled_back():
    promote(1)
    promote(2)
    roll_back(2, 1)
    for number in (1, 2):
        before = registry.version("sizes", str(number))
        decide("REJECT", number, findings=[finding("fail", "No.")])
        assert registry.version("sizes", str(number)) == before


@pytest.mark.usefixtures("versions")
def test_a_version_that_comes_back_to_production_was_not_replaced():
    for number, again in ((1, lambda: roll_back(2, 1)), (3, lambda: promote(3))):
        promote(number)
        promote(2 if number == 1 else 4)
        retired = registry.version("sizes", str(number)).tags
        assert {"afterfit.replaced_by", "afterfit.production_until"} <= set(retired)
        again()
        back = registry.version("sizes", str(number))
        assert not {"afterfit.replaced_by", "afterfit.production_until"} & set(back.tags)
        assert back.tags["status"] == "in production"


@pytest.mark.usefixtures("versions")
def test_a_version_that_is_rolled_back_leaves_staging_too_and_stays_away():
    promote(1)
    decide("PROMOTE", 2, "staging")
    decide("PROMOTE", 2)
    roll_back(2, 1)
    assert registry.aliases("sizes") == {"production": "1"}
    assert (tags(2)["status"], tags(2)["decision"]) == ("rolled back", "4: ROLLBACK")
    assert ledger.repair("sizes") == []
    registry.set_alias(registry.version("sizes", "2"), "staging")
    taken = "Version 2 was rolled back and still held the alias 'staging': it was taken away."
    assert ledger.repair("sizes") == [taken]
    registry.set_alias(registry.version("sizes", "3"), "staging")
    assert "was at version 3 without a decision, and by the ledger at no version" in ledger.repair("sizes")[0]
    assert registry.aliases("sizes") == {"production": "1"}
    assert statuses(1, 2) == ["in production", "rolled back"]


@pytest.mark.usefixtures("versions")
def test_a_rollback_leaves_another_version_in_staging():
    promote(1)
    promote(2)
    decide("PROMOTE", 3, "staging")
    roll_back(2, 1)
    assert registry.aliases("sizes")["staging"] == "3"
    assert statuses(1, 2, 3) == ["in production", "rolled back", "in staging"]


@pytest.mark.usefixtures("versions")
def test_the_status_of_a_version_follows_its_decisions():
    decide("PROMOTE", 1, "staging")
    assert statuses(1) == ["in staging"]
    decide("PROMOTE", 1)
    assert statuses(1) == ["in production"]
    decide("PROMOTE", 2, "staging")
    decide("TRIAL", 2)
    assert statuses(1, 2) == ["replaced by 2", "on trial"]
    assert (tags(1)["decision"], tags(2)["decision"]) == ("2: PROMOTE", "4: TRIAL")
    decide("HOLD", 3, forced=True, reason="Now.")
    assert (statuses(2, 3), tags(3)["decision"]) == (["replaced by 3", "in production"], "5: HOLD, forced")
    decide("PROMOTE", 4, "staging")
    decide("PROMOTE", 5, "staging")
    assert statuses(4, 5) == ["replaced by 5", "in staging"]


@pytest.mark.usefixtures("versions")
def test_a_trial_of_an_older_ledger_is_told_from_what_a_person_forced():
    decide("HOLD", 1, forced=True, reason="On trial. 1 window has passed since the last training.")
    assert statuses(1) == ["on trial"]


@pytest.mark.usefixtures("versions")
def test_an_alias_that_is_put_back_leaves_both_versions_what_they_were():
    promote(1)
    decide("TRIAL", 2)
    registry.set_alias(registry.version("sizes", "5"), "production")
    ledger.repair("sizes")
    assert statuses(1, 2, 5) == ["replaced by 2", "on trial", "trained"]
    assert tags(2)["decision"] == "2: TRIAL"


OLD = {"digest": "d" * 64, "rows": "17580", "trained_until": "2024-01-12T15:00:00", "stage": "archived"}
OLD |= {"replaced_by": "7", "production_until": "2024-02-01", "production_since": "2024-01-15", "decision": "a run"}


def make_old(number):
    """Give a version the tags that versions had before there was one for the machine."""
    from mlflow import MlflowClient

    for key, value in OLD.items():
        MlflowClient().set_model_version_tag("sizes", str(number), f"afterfit.{key}", value)


@pytest.mark.usefixtures("versions")
def test_a_version_of_old_gets_the_new_tags_when_it_is_decided_about():
    make_old(1)
    before = registry.version("sizes", "1")
    assert before.tags == before.stored
    entry = promote(1)
    now = registry.version("sizes", "1")
    shown = {key: value for key, value in now.stored.items() if not key.startswith(("mlflow.", "afterfit."))}
    until = "2024-01-12 15:00:00"
    assert shown == {"status": "in production", "decision": "1: PROMOTE", "rows": "17,580", "trained until": until}
    kept = {key: value for key, value in now.stored.items() if key.startswith("afterfit.")}
    assert kept == {f"afterfit.{key}": OLD[key] for key in ("digest", "rows", "trained_until")}
    assert now.tags["afterfit.production_since"] == entry.time.isoformat()
    assert now.tags[registry.DIGEST] == OLD["digest"]


@pytest.mark.usefixtures("versions")
def test_a_decision_costs_no_more_than_a_few_calls(monkeypatch):
    from mlflow import MlflowClient

    calls = []
    for name in ("get_model_version", "set_model_version_tag", "update_model_version", "set_registered_model_alias"):
        plain = getattr(MlflowClient, name)
        monkeypatch.setattr(
            MlflowClient, name, lambda *given, _plain=plain, _name=name: (calls.append(_name), _plain(*given))[1]
        )
    promote(1)
    promote(2)
    calls.clear()
    promote(3)
    assert len(calls) <= 11
    calls.clear()
    decide("REJECT", 4, findings=[finding("fail", "No.")])
    assert len(calls) <= 4


@pytest.mark.usefixtures("versions")
def test_what_went_in_on_trial_before_there_was_a_word_for_it_is_shown_as_it_was():
    from afterfit.commands.history import decision_lines

    old = Decision("promotion", "HOLD", "1", "production", moves=True, forced=True, reason="On trial. It is newer.")
    ledger.record("sizes", old, 0)
    [entry] = ledger.entries("sizes")
    assert (entry.decision.verdict, entry.decision.forced, entry.counts) == ("HOLD", True, True)
    assert "HOLD     - -> 1 · to production · forced  by " in decision_lines(entry)[0]


@pytest.mark.usefixtures("versions")
def test_what_was_in_production_on_a_day_has_an_answer():
    start = datetime.now(timezone.utc)
    first, second = promote(1), promote(2)
    book = ledger.entries("sizes")
    assert decisions.holder(book, "production", start) == ""
    assert decisions.holder(book, "production", first.time) == "1"
    assert decisions.holder(book, "production", second.time) == "2"


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
    assert decisions.holder(ledger.entries("sizes"), "production") == "1"
    with lock.locked("sizes.ledger-lock", "somebody"), pytest.raises(StoreError, match="somebody"):
        ledger.note("sizes", seen, patience=0.1)
    assert len(ledger.entries("sizes")) == 2


@pytest.mark.usefixtures("versions")
def test_an_alias_from_before_the_ledger_is_taken_over():
    registry.set_alias(registry.version("sizes", "4"), "production")
    (said,) = ledger.repair("sizes")
    assert "Version 4 held the alias 'production' before" in said
    assert decisions.holder(consistent(), "production") == "4"


@pytest.mark.usefixtures("versions")
def test_a_deleted_version_in_production_leaves_nothing_in_production():
    from mlflow import MlflowClient

    promote(1)
    MlflowClient().delete_model_version("sizes", "1")
    (said,) = ledger.repair("sizes")
    assert "was deleted" in said
    assert decisions.holder(consistent(), "production") == ""


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
    ("mlflow.MlflowClient", "set_experiment_tag"),
    ("mlflow.MlflowClient", "set_registered_model_tag"),
    ("mlflow.MlflowClient", "log_dict"),
    ("mlflow.MlflowClient", "log_text"),
    ("mlflow.MlflowClient", "set_tag"),
    ("mlflow.MlflowClient", "set_registered_model_alias"),
    ("mlflow.MlflowClient", "set_model_version_tag"),
    ("mlflow.MlflowClient", "delete_model_version_tag"),
    ("mlflow.MlflowClient", "update_model_version"),
    ("mlflow.MlflowClient", "set_terminated"),
    ("mlflow.MlflowClient", "delete_registered_model"),
]


def die_at(step, when, work, *arguments):
    """Do what changes the ledger, and be killed right before or after the step is taken for the first time."""
    place, name = step
    import importlib

    module, _, owner = place.rpartition(".")
    home = getattr(importlib.import_module(module), owner)
    plain = getattr(home, name)

    def deadly(*given, **named):
        if when == "after":
            plain(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(home, name, deadly)
    work(*arguments)


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize(
    ("step", "when"), [*((step, "before") for step in STEPS), (STEPS[7], "after"), (STEPS[8], "after")], ids=str
)
def test_a_promotion_killed_at_any_step_is_finished_or_undone_by_the_next_command(step, when):
    promote(1)
    make_old(2)
    process = apart(die_at, step, when, promote, 2)
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    said = ledger.repair("sizes")
    book = consistent()
    assert decisions.holder(book, "production") in {"1", "2"}
    finished, undone = (any(one.startswith(word) for one in said) for word in ("Finished", "Undone"))
    assert finished == (len(book) == 2 and bool(book[-1].repaired) and book[-1].state == "done")
    assert undone == (len(book) == 2 and book[-1].state == "abandoned")
    if decisions.holder(book, "production") == "2":
        assert statuses(1, 2) == ["replaced by 2", "in production"]
        assert "afterfit.replaced_by" not in registry.version("sizes", "2").tags
    promote(3)
    assert decisions.holder(consistent(), "production") == "3"


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("name", ["delete_registered_model_alias", "set_model_version_tag", "update_model_version"])
def test_a_rollback_that_is_killed_is_finished_with_its_statuses(name):
    promote(1)
    decide("PROMOTE", 2, "staging")
    promote(2)
    process = apart(die_at, ("mlflow.MlflowClient", name), "before", roll_back, 2, 1)
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    assert [one.split(":")[0] for one in ledger.repair("sizes")] == ["Finished"]
    consistent()
    assert registry.aliases("sizes") == {"production": "1"}
    assert statuses(1, 2) == ["in production", "rolled back"]


def refuse(version):
    decide("REJECT", version, reason="Of a person.", findings=[finding("fail", "It is worse.")])


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("name", ["set_model_version_tag", "update_model_version", "set_terminated"])
def test_a_refusal_that_is_killed_is_finished_and_says_the_same(name):
    promote(1)
    process = apart(die_at, ("mlflow.MlflowClient", name), "before", refuse, 2)
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    (said,) = ledger.repair("sizes")
    assert "Finished: the decision that version 2 does not go to production by " in said
    assert consistent()[-1].decision.verdict == "REJECT"
    assert (tags(2)["status"], tags(2)["decision"]) == ("refused", "2: REJECT. It is worse.")
    assert registry.version("sizes", "2").description.count("## Decision 2") == 1


def race(barrier, version, folder):
    seen = len(ledger.entries("sizes"))
    barrier.wait(PATIENCE)
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
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0] * 8
    told = {version: (versions / f"{version}.told").read_text() for version in range(2, 10)}
    (winner,) = [version for version, words in told.items() if words.startswith("True")]
    assert all(f"promotion of version {winner} " in words for version, words in told.items() if version != winner)
    book = consistent()
    assert decisions.holder(book, "production") == str(winner)
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
        process.join()
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
        with lock.locked("sizes.lock", "ben@home", patience=PATIENCE) as held:
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
    lock._delete_own = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    with lock.locked(name, "ana@home"):
        pass


@pytest.mark.usefixtures("store")
def test_a_lock_of_a_dead_process_is_cleared_even_where_the_one_who_cleared_it_died_too():
    from mlflow import MlflowClient

    for work in (hold_and_die, die_while_taking_over, die_while_taking_over):
        process = apart(work, "sizes.lock")
        process.join(PATIENCE)
        assert process.exitcode == -signal.SIGKILL
    with lock.locked("sizes.lock", "ben@home", patience=PATIENCE):
        pass
    assert not MlflowClient().search_registered_models()
