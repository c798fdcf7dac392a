"""Promote, refuse, approve, force, roll back and look back, by the commands themselves, over a real store."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from afterfit.gate.verdict import Verdict
from afterfit.lifecycle import promotion, result
from afterfit.lifecycle.promotion import GateResult
from afterfit.mlflow_store import ledger, registry
from kept_store import working_in
from made_sizes import made_table

STUMP = {"max_iter": 1, "max_leaf_nodes": 2, "min_samples_leaf": 10}
BOOSTER = {"max_iter": 40, "min_samples_leaf": 10}
GATE = {"smallest_holdout": 50, "missing_fall": 10, "calibration_error": 0.3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, empty_store, write_use_case_in):
    """Version 1, a stump, in production; version 2, a far better booster: a folder that each test starts from."""
    from afterfit.commands import promote, train

    folder = tmp_path_factory.mktemp("trained")
    with working_in(folder, empty_store):
        table, metrics = made_table(rows=900), {"primary": "roc_auc", "slices": ["colour"]}
        file = write_use_case_in(folder, table=table, gate=GATE, metrics=metrics)
        for number, params in enumerate((STUMP, BOOSTER), start=1):
            change(file, candidates=[{"builder": "hist_gradient_boosting", "params": params}])
            train.command(str(file))
            if number == 1:
                assert promote.command(str(file)).exit_code == 0
    return folder


@pytest.fixture
def sizes(tmp_path, trained):
    """The settings file in the test's own folder, over a store of its own; model files are shared."""
    for name in ("sizes.yaml", "sizes.csv"):
        shutil.copy(trained / name, tmp_path / name)
    with working_in(tmp_path, trained / "mlflow.db"):
        yield tmp_path / "sizes.yaml"


def change(file, **settings):
    known = yaml.safe_load(Path(file).read_text())
    Path(file).write_text(yaml.safe_dump({**known, **settings}))


def answer(command_line, name, **options):
    """Exit code, output and the answer as data."""
    Path("answer.json").unlink(missing_ok=True)
    code, out, err = command_line(name, json="answer.json", **options)
    return code, out + err, json.loads(Path("answer.json").read_text()) if Path("answer.json").exists() else None


def test_the_story_of_two_versions_is_told_by_the_ledger(sizes, command_line):
    code, out, told = answer(command_line, "promote", config=sizes)
    assert code == 0, out
    assert (told["previous"], told["decision"], told["number"]) == ("1", "PROMOTE", 2)
    assert registry.aliases("sizes") == {"production": "2", "previous": "1"}
    description = MlflowClient().get_model_version("sizes", "2").description
    assert "promoted to production: version 2 in place of version 1" in description
    code, out, told = answer(command_line, "rollback", config=sizes, reason="It was wrong at night.")
    assert code == 0, out
    assert registry.aliases("sizes") == {"production": "1"}
    assert registry.version("sizes", "2").tags["status"] == "rolled back"
    code, out, _ = answer(command_line, "promote", config=sizes, version="2", force="true", reason="Please.")
    assert code == result.REJECT
    assert "was rolled back by decision 3 (It was wrong at night.): train a new candidate" in out
    assert "This cannot be forced." in out
    assert {number: registry.version("sizes", number).tags["status"] for number in "12"} == {
        "1": "in production",
        "2": "rolled back",
    }
    code, out, told = answer(command_line, "history", config=sizes)
    assert code == 0
    assert [one["verdict"] for one in told["decisions"]] == ["PROMOTE", "PROMOTE", "ROLLBACK", "REJECT"]
    assert told["now"] == {"staging": None, "production": "1"}
    assert "ROLLBACK 2 -> 1 · to production" in out
    run = MlflowClient().get_run(told["decisions"][1]["run_id"])
    assert run.data.tags["mlflow.note.content"].startswith("# PROMOTE: version 2 to production")
    codes = {finding["code"] for finding in ledger.findings(ledger.entries("sizes")[1])}
    assert {"better", "slices", "robust", "calibrated", "service_size", "fresh_rows"} <= codes


def test_the_page_of_a_decision_names_no_times_where_there_is_no_time_column():
    found = GateResult(Verdict("PROMOTE", (), {"rows": 17_580, "start": "", "end": ""}), None)
    candidate = registry.Version("sizes", "2", "", "", {})
    page = promotion.decision_page(candidate, None, "production", found, rules="", forced="")
    assert "Rows: 17,580.\n" in page
    found = GateResult(Verdict("PROMOTE", (), {"rows": 17_580, "start": "2024-01-01", "end": "2024-02-01"}), None)
    page = promotion.decision_page(candidate, None, "production", found, rules="", forced="")
    assert "Rows: 17,580 from 2024-01-01 to 2024-02-01.\n" in page


def test_what_was_in_production_at_a_moment(sizes, command_line):
    assert command_line("promote", config=sizes)[0] == 0
    first, second = ledger.entries("sizes")
    for at, version in ((first.time.isoformat(), "1"), (second.time.isoformat(), "2"), ("2013-07-01", None)):
        code, out, told = answer(command_line, "history", config=sizes, at=at)
        assert code == 0, out
        assert told["production"] == version
    assert "nothing of 'sizes' was in production" in out
    code, out, _ = answer(command_line, "history", config=sizes, at="yesterday")
    assert code == 2
    assert "'yesterday' is no date or time" in out


def test_an_equal_candidate_is_not_promoted_unless_a_person_forces_it_with_a_reason(sizes, command_line):
    change(sizes, candidates=[{"builder": "hist_gradient_boosting", "params": {**STUMP, "learning_rate": 0.2}}])
    assert command_line("train", config=sizes)[0] == 0
    code, out, _ = answer(command_line, "promote", config=sizes)
    assert code in {result.REJECT, result.HOLD}, out
    refused = registry.version("sizes", "3")
    assert refused.tags["status"] in {"refused", "held"}
    assert refused.tags["decision"].startswith("2: ")
    assert "## Decision 2" in refused.description
    code, out, _ = answer(command_line, "promote", config=sizes, force="true")
    assert code == 2
    assert "--force needs a reason" in out
    code, out, told = answer(command_line, "promote", config=sizes, force="true", reason="The other one is on fire.")
    assert code == 0, out
    assert (told["forced"], told["reason"]) == (True, "The other one is on fire.")
    assert told["verdict"] in {"REJECT", "HOLD"}
    assert registry.holder("sizes", "production").number == "3"


def test_production_waits_for_a_persons_approval_where_the_use_case_asks_for_it(sizes, command_line):
    change(sizes, gate={**GATE, "approval": True})
    code, out, held = answer(command_line, "promote", config=sizes)
    assert code == result.HOLD
    assert "set the tag 'approved_by' of the version to your name" in out
    MlflowClient().set_model_version_tag("sizes", "2", "approved_by", "Ana")
    code, out, told = answer(command_line, "promote", config=sizes)
    assert code == 0, out
    assert told["approval"].startswith("Ana (seen 20")
    assert held["policy"] == told["policy"] != ledger.entries("sizes")[0].decision.policy
    assert "used for no other gate" in out  # the same comparison again is not another look at the rows


def test_rollback_goes_to_a_version_that_was_in_production_and_says_why_not_otherwise(sizes, command_line):
    code, out, _ = answer(command_line, "rollback", config=sizes, reason="Why not.")
    assert code == 2
    assert "No version before 1 of 'sizes' can come back: there was no other." in out
    code, out, _ = answer(command_line, "rollback", config=sizes, reason="Why not.", version="2")
    assert code == 2
    assert "Version 2 of 'sizes' was never in production" in out
    code, out, _ = answer(command_line, "rollback", config=sizes, reason=" ")
    assert code == 2
    assert "A rollback needs a reason" in out


def test_a_version_that_was_altered_does_not_come_back_and_the_refusal_is_on_record(sizes, command_line):
    assert command_line("promote", config=sizes)[0] == 0
    folder = registry.model_folder(registry.version("sizes", "1")) / registry.BUNDLE
    example = (folder / "example.json").read_text()
    (folder / "example.json").write_text("[]")
    try:
        code, out, told = answer(command_line, "rollback", config=sizes, reason="It was wrong at night.")
    finally:
        (folder / "example.json").write_text(example)
    assert code == result.REJECT
    assert "is not the one that was registered" in out
    assert told["state"] == "done"
    assert registry.holder("sizes", "production").number == "2"


def test_two_versions_are_compared_without_deciding_anything(sizes, command_line):
    code, out, told = answer(command_line, "compare_performance", config=sizes)
    assert code == 0, out
    assert (told["candidate"], told["champion"]) == ("2", "1")
    assert told["comparisons"][0]["outcome"] == "better"
    assert len(ledger.entries("sizes")) == 1
    code, out, _ = answer(command_line, "compare_performance", config=sizes, start="2030-01-01")
    assert code == 2
    assert "no row is from 2030-01-01" in out


def test_stages_follow_where_the_use_case_asks_for_them(sizes, command_line):
    change(sizes, registry={"stages": True})
    assert command_line("promote", config=sizes)[0] == 0
    stages = {number: MlflowClient().get_model_version("sizes", number).current_stage for number in "12"}
    assert stages == {"1": "Archived", "2": "Production"}
