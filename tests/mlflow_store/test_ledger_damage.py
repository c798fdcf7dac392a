"""A ledger whose runs somebody has changed, deleted or copied: it is read, named, and nothing moves by reading."""

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterfit.commands import step
from afterfit.commands.history import decision_lines, show_history
from afterfit.errors import AfterfitError, StoreError
from afterfit.lifecycle import promotion, rollback
from afterfit.mlflow_store import decisions, ledger, ledger_runs, registry, tracking
from afterfit.mlflow_store.decisions import Decision
from afterfit.mlflow_store.standing import standing
from afterfit.use_case import UseCase
from made_ledger import make_versions

BASE = {"task": "classification", "target": "outcome", "source": {"path": "none.csv"}}


def use_case(name):
    return UseCase.model_validate({"name": name, **BASE})


def config_of(case):
    """The use case as a file in the working folder."""
    file = Path(f"{case.name}.yaml")
    file.write_text(json.dumps({"name": case.name, **BASE}))
    return str(file)


def promoted(name, version):
    """Put a version into production by a decision; gives its entry."""
    book = ledger.entries(name)
    held = decisions.holder(book, "production")
    decision = Decision("promotion", "PROMOTE", str(version), "production", moves=True, previous=held, page="A page.")
    return ledger.record(name, decision, book[-1].number if book else 0)[0]


def client():
    from mlflow import MlflowClient

    return MlflowClient()


def run_of(name, number):
    return next(entry.run_id for entry in ledger.entries(name) if entry.number == number)


@pytest.fixture
def three(shared_store, request):
    """A use case of its own whose versions 1, 2 and 3 went into production, one after the other."""
    del shared_store
    name = f"damage{abs(hash(request.node.name)) % 10**8}"
    make_versions(4, name)
    for version in (1, 2, 3):
        promoted(name, version)
    return name


def production(name):
    return registry.aliases(name).get("production", "")


WRONG = {
    "number": [None, "seven", "-1", "²"],
    "state": [None, "gone"],
    "time": [None, "yesterday"],
    "action": ["", "promoted"],
    "moves": ["perhaps"],
    "version": ["production", "²"],
    "alias": [None],
}


def test_a_run_with_a_changed_tag_is_named_and_moves_nothing(three):
    run_id = run_of(three, 3)
    right = client().get_run(run_id).data.tags
    for tag, values in WRONG.items():
        for value in values:
            if value is None:
                client().delete_tag(run_id, f"afterfit.{tag}")
            else:
                client().set_tag(run_id, f"afterfit.{tag}", value)
            told = show_history(use_case(three))
            assert any(run_id in line and f"afterfit.{tag}" in line for line in told.lines)
            assert told.data["now"]["production"] == production(three) == "3"
            assert [entry["number"] for entry in told.data["decisions"]] == [1, 2]
        client().set_tag(run_id, f"afterfit.{tag}", right[f"afterfit.{tag}"])
    assert len(ledger.entries(three)) == 3
    client().delete_tag(run_id, "afterfit.state")
    said = ledger.repair(three)
    assert production(three) == "3"
    assert any("stays where it is" in line for line in said)
    assert promoted(three, 4).number == 5
    assert production(three) == "4"


def test_a_deleted_newest_decision_moves_nothing_and_its_number_is_not_given_again(three):
    client().delete_run(run_of(three, 3))
    told = show_history(use_case(three))
    assert told.data["now"]["production"] == production(three) == "3"
    assert any("(decision 3)" in line and "was deleted" in line for line in told.lines)
    assert list(show_history(use_case(three)).lines) == list(told.lines)
    assert promoted(three, 4).number == 5  # 4 is the note that version 3 was there
    assert ledger.read(three).entries[-2].decision.version == "3"


def gone_for_good(name, number):
    """Delete a run as MLflow's clean-up does, so that nothing is left of it."""
    from mlflow.tracking._tracking_service.utils import _get_store

    run_id = run_of(name, number)
    client().delete_run(run_id)
    _get_store()._hard_delete_run(run_id)


def test_a_number_of_which_nothing_is_left_stays_taken_and_the_gap_is_said(three):
    gone_for_good(three, 3)
    assert ledger.read(three).highest == 3
    told = show_history(use_case(three))
    assert any("with the numbers 3" in line for line in told.lines)
    assert production(three) == "3"
    assert promoted(three, 4).number == 5
    gone_for_good(three, 2)
    assert any("with the numbers 2, 3" in line for line in show_history(use_case(three)).lines)
    client().delete_experiment_tag(tracking.experiment_id(ledger_runs.experiment(three)), ledger_runs.HIGHEST)
    assert ledger.read(three).highest == 5


def test_of_two_runs_with_one_number_the_first_counts(three):
    client().set_tag(run_of(three, 3), "afterfit.number", "000002")
    told = show_history(use_case(three))
    assert [entry["version"] for entry in told.data["decisions"]] == ["1", "2"]
    assert any("has the number 2, which another one has" in line for line in told.lines)
    ledger.repair(three)
    assert promoted(three, 4).number == 5
    assert production(three) == "4"


def test_an_alias_moved_by_hand_is_put_back_by_a_deciding_command_only(three):
    registry.set_alias(registry.version(three, "1"), "production")
    told = show_history(use_case(three))
    assert production(three) == "1"
    assert any("at version 1, and by the ledger at version 3" in line for line in told.lines)
    assert any("it was put back" in line for line in ledger.repair(three))
    assert production(three) == "3"


def test_findings_that_are_gone_do_not_stop_what_has_to_be_finished(three):
    refused = Decision(
        "promotion", "REJECT", "4", "production", moves=False, findings=[{"code": "x", "sentence": "No."}]
    )
    entry = ledger.record(three, refused, 3)[0]
    folder = Path(client().get_run(entry.run_id).info.artifact_uri.removeprefix("file://"))
    for content in (
        "",
        "{",
        "[]",
        '{"findings": 3}',
        '{"findings": [1, {}]}',
        json.dumps({"findings": [{"code": "a"}]}),
    ):
        (folder / ledger.FINDINGS).write_text(content)
        client().set_tag(entry.run_id, "afterfit.state", "intended")
        assert any(line.startswith("Finished") for line in ledger.repair(three))
    (folder / ledger.FINDINGS).unlink()
    assert ledger.findings(entry) == []


def test_an_experiment_that_was_deleted_whole_is_said_and_nothing_moves(three):
    identity = tracking.experiment_id(ledger_runs.experiment(three))
    client().delete_experiment(identity)
    with pytest.raises(StoreError, match="was deleted: restore it"):
        show_history(use_case(three))
    with pytest.raises(StoreError, match="was deleted: restore it"):
        promoted(three, 4)
    assert production(three) == "3"
    client().restore_experiment(identity)
    assert promoted(three, 4).number == 4


# --- any damage ----------------------------------------------------------------------------------------------------

TAGS = ["number", "state", "time", "actor", "repaired", "window", "use_case", *ledger_runs.TEXTS, *ledger_runs.FACTS]
CHANGES = [
    "",
    "1",
    "2",
    "000003",
    "9",
    "99999999",
    "1e9",
    "²",
    "true",
    "done",
    "intended",
    "writing",
    "abandoned",
    "promotion",
    "rollback",
    "repair",
    "production",
    "staging",
    "latest",
    "{",
    "[]",
    "null",
    '{"use": 3}',
    '{"use": {"a": 1}}',
    "2024-01-01",
    "2024-01-01T00:00:00+05:00",
    "9999-12-31T23:59:59-12:00",
    "\ud7ff ü '\"`%",
    "x" * 300,
]
VALUES = st.sampled_from(CHANGES)


def do_damage(name, kind, place, tag, value):
    from mlflow.entities import ViewType

    identity = tracking.experiment_id(ledger_runs.experiment(name))
    runs = client().search_runs([identity], "", ViewType.ALL, order_by=["attributes.start_time"])
    run = runs[place % len(runs)]
    key, deleted = f"afterfit.{tag}", run.info.lifecycle_stage == "deleted"
    if kind == "change" and not deleted:
        client().set_tag(run.info.run_id, key, value)
    elif kind == "remove" and not deleted and key in run.data.tags:
        client().delete_tag(run.info.run_id, key)
    elif kind in {"delete", "restore"} and deleted == (kind == "restore"):
        getattr(client(), f"{kind}_run")(run.info.run_id)
    elif kind == "kill" and not deleted:
        client().set_terminated(run.info.run_id, "KILLED")
    elif kind in {"copy", "foreign"}:
        client().create_run(identity, tags=dict(run.data.tags) if kind == "copy" else {"mine": "yes"})


RIGHT = {
    "number": "000001", "state": "done", "time": "2024-01-01T00:00:00+00:00", "actor": "ana", "window": "{}",
    "action": "promotion", "verdict": "PROMOTE", "version": "1", "alias": "production", "moves": "true",
}  # fmt: skip


@st.composite
def runs(draw):
    """Runs of a ledger in memory, with damage of any kind."""
    from mlflow.entities import Run, RunData, RunInfo, RunTag

    made = []
    for place in range(draw(st.integers(1, 5))):
        tags = {
            **RIGHT,
            "number": f"{place + 1:06d}",
            **draw(st.dictionaries(st.sampled_from(TAGS), VALUES, max_size=3)),
        }
        dropped = draw(st.sets(st.sampled_from(TAGS), max_size=2))
        told = [RunTag(f"afterfit.{key}", value) for key, value in tags.items() if key not in dropped]
        stage = draw(st.sampled_from(["active", "active", "deleted"]))
        info = RunInfo(f"run{place}", "1", "ana", "KILLED", draw(st.sampled_from([0, 10**12 + place])), None, stage)
        made.append(Run(info, RunData(tags=told)))
    return made


@settings(deadline=None)
@given(runs(), st.sampled_from([0, 3, 10**9]))
def test_any_damaged_ledger_is_read_in_order_with_a_sentence_for_what_is_passed_over(made, noted):
    shuffled = made[::-1]
    book = ledger_runs._book("case", [run for run in shuffled if ledger_runs._is_decision(run)], noted)
    numbers = [entry.number for entry in book.entries]
    assert numbers == sorted(set(numbers))
    assert book.highest >= max([noted, *numbers])
    assert len(book.entries) == len(made) or book.remarks
    ledger.open_sentences(book, {"production": "1"})
    for entry in book.entries:
        assert json.loads(json.dumps(entry.to_dict()))
        assert decision_lines(entry)
        assert standing(book.entries, entry.decision.version).status
    for alias in ("production", "staging"):
        assert isinstance(book.tells(alias), bool)
    promotion.past_uses(book.entries)


def at_once(case, act):
    """Do what decides, or be refused in a sentence; gives the numbers that were given."""
    before = ledger.read(case.name)
    with suppress(AfterfitError):
        act()
    fresh = {entry.number for entry in ledger.entries(case.name)} - {entry.number for entry in before.entries}
    assert all(number > before.highest for number in fresh)
    return fresh


@pytest.mark.usefixtures("shared_store")
@pytest.mark.parametrize("seed", range(4))
def test_no_damage_moves_an_alias_by_reading_ends_a_command_in_a_trace_or_gives_a_number_twice(seed):
    chance, name = random.Random(seed), f"any{seed}"
    make_versions(4, name)
    taken = {promoted(name, version).number for version in (1, 2, 3)}
    case = use_case(name)
    kinds = ["change", "change", "remove", "delete", "restore", "kill", "copy", "foreign"]
    for _ in range(6):
        do_damage(name, chance.choice(kinds), chance.randrange(9), chance.choice(TAGS), chance.choice(CHANGES))
        before = registry.aliases(name)
        show_history(case, chance.choice(["", "2030-01-01"]))
        assert registry.aliases(name) == before
    for act in (
        lambda: promotion.promote_version(case, registry.version(name, "4"), "production"),
        lambda: rollback.roll_back(case, "It is bad."),
        lambda: step.command(config_of(case), now="2024-01-01"),
    ):
        fresh = at_once(case, act)
        assert not fresh & taken
        taken |= fresh
