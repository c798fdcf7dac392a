import itertools
import json
import math

import pytest

from afterfit.gate import comparison_checks, version_checks
from afterfit.gate.verdict import Finding, judge

OUTCOMES = ("pass", "fail", "unsure", "not applicable")


@pytest.mark.parametrize("outcomes", list(itertools.product(OUTCOMES, repeat=2)))
def test_one_failure_rejects_and_one_doubt_holds(outcomes):
    verdict = judge(Finding("x", outcome, "…") for outcome in outcomes)
    if "fail" in outcomes:
        assert verdict.decision == "REJECT"
    elif "unsure" in outcomes or "pass" not in outcomes:
        assert verdict.decision == "HOLD"
    else:
        assert verdict.decision == "PROMOTE"
    assert [finding.outcome for finding in verdict.findings] == list(outcomes)


def test_nothing_looked_at_is_no_reason_to_promote():
    assert judge([]).decision == "HOLD"


BETTER = Finding("better", "unsure", "…")
SOUND = Finding("loads", "pass", "…")


def test_what_only_lacks_evidence_goes_in_on_trial_where_that_is_allowed():
    verdict = judge([SOUND, BETTER], trial=True)
    assert (verdict.decision, verdict.moves, verdict.may_be_forced) == ("TRIAL", True, False)
    assert judge([SOUND, BETTER]).decision == "HOLD"


@pytest.mark.parametrize(
    ("found", "decision"),
    [
        ([SOUND, BETTER, Finding("approval", "unsure", "…")], "HOLD"),
        ([SOUND, Finding("held_out_rows", "unsure", "…")], "HOLD"),
        ([SOUND, BETTER, Finding("finite_answers", "fail", "…")], "REJECT"),
        ([], "HOLD"),
        ([SOUND], "PROMOTE"),
    ],
)
def test_what_lacks_something_else_or_nothing_is_not_tried(found, decision):
    assert judge(found, trial=True).decision == decision


@pytest.mark.parametrize(
    ("findings", "decision"),
    [([SOUND], "PROMOTE"), ([SOUND, BETTER], "TRIAL"), ([Finding("x", "fail", "…")], "REJECT")],
)
def test_what_is_held_for_production_may_stand_in_staging_on_trial(findings, decision):
    assert judge(findings).at_staging().decision == decision


@pytest.mark.parametrize(("code", "may"), [("better", True), ("loads", False), ("not_rolled_back", False)])
def test_a_person_may_override_a_failure_but_not_every_one(code, may):
    assert judge([Finding(code, "fail", "…")]).may_be_forced is may


def test_a_verdict_is_strict_json_although_an_interval_has_no_ends():
    finding = comparison_checks.beats_dummy("roc_auc", math.nan, (-math.inf, math.inf), 12)
    told = json.loads(json.dumps(judge([finding]).to_dict(), allow_nan=False))
    assert told["decision"] == "HOLD"
    assert told["findings"][0]["interval"] == [None, None]
    assert told["findings"][0]["n"] == 12


def test_a_version_that_refuses_its_own_example_fails_with_the_first_reason():
    good, bad = {"error": None}, {"error": {"message": "carrier is required and has no value: give it one."}}
    assert version_checks.example_answered([good, good]).outcome == "pass"
    failed = version_checks.example_answered([good, bad])
    assert failed.outcome == "fail"
    assert failed.sentence.startswith("It refuses 1 of its own 2 example rows: carrier is required")
    assert version_checks.example_answered([]).outcome == "unsure"


def test_a_version_loads_or_does_not():
    assert version_checks.loads("abcdef0123456789").outcome == "pass"
    assert "abcdef012345…" in version_checks.loads("abcdef0123456789").sentence
    assert (
        version_checks.does_not_load("It is broken.").outcome,
        version_checks.does_not_load("It is broken.").sentence,
    ) == (
        "fail",
        "It is broken.",
    )


@pytest.mark.parametrize(("rows", "outcome"), [(0, "unsure"), (99, "unsure"), (100, "pass"), (20_000, "pass")])
def test_too_few_held_out_rows_hold_and_never_reject(rows, outcome):
    finding = comparison_checks.enough_rows(rows, 100, "April")
    assert finding.outcome == outcome
    assert f"{rows:,} held-out rows (April)" in finding.sentence
    assert (finding.value, finding.limit) == (rows, 100)


@pytest.mark.parametrize(
    ("refused", "rows", "outcome"),
    [(0, 500, "pass"), (5, 500, "pass"), (6, 500, "fail"), (500, 500, "fail"), (0, 0, "not applicable")],
)
def test_at_most_one_row_of_a_hundred_may_be_refused(refused, rows, outcome):
    assert version_checks.answers_all(refused, rows).outcome == outcome


@pytest.mark.parametrize(
    ("difference", "interval", "outcome"),
    [
        (0.1, (0.05, 0.15), "pass"),
        (0.1, (0.0, 0.2), "unsure"),
        (0.1, (-0.05, 0.25), "unsure"),
        (0.0, (0.0, 0.0), "fail"),
        (-0.01, (-0.1, 0.08), "fail"),
        (-0.1, (-0.15, -0.05), "fail"),
        (math.nan, (-math.inf, math.inf), "unsure"),
    ],
)
def test_a_candidate_must_beat_the_dummy_surely(difference, interval, outcome):
    assert comparison_checks.beats_dummy("roc_auc", difference, interval, 100).outcome == outcome


@pytest.mark.parametrize(
    ("difference", "interval", "outcome"),
    [
        (0.02, (0.01, 0.03), "pass"),
        (-0.005, (-0.01, 0.0), "pass"),
        (0.0, (-0.011, 0.02), "unsure"),
        (-0.02, (-0.03, -0.01), "unsure"),
        (-0.02, (-0.03, -0.011), "fail"),
        (math.nan, (-math.inf, math.inf), "unsure"),
    ],
)
def test_a_loss_within_the_tolerance_is_not_worse(difference, interval, outcome):
    finding = comparison_checks.not_worse("roc_auc", difference, interval, tolerance=0.01, n=100, champion="3")
    assert finding.outcome == outcome
    assert "version 3" in finding.sentence
    assert "a loss of 0.01 is tolerated" in finding.sentence


def test_sentences_carry_the_numbers_that_decided():
    sentence = comparison_checks.beats_dummy("roc_auc", 0.1234, (0.1, 0.15), 100).sentence
    assert sentence == "It beats the dummy: difference +0.1234 roc_auc (95 % interval +0.1000 to +0.1500)."


def test_a_version_is_never_compared_with_itself():
    assert comparison_checks.another_version("3", "3", same_digest=True).outcome == "fail"
    same = comparison_checks.another_version("4", "3", same_digest=True)
    assert (same.outcome, same.sentence) == ("fail", "Version 4 is the same bundle as version 3.")
    assert comparison_checks.another_version("4", "3", same_digest=False).outcome == "pass"


def test_a_candidate_that_answers_all_rows_as_the_champion_does_brings_nothing():
    assert comparison_checks.other_answers(identical=True, champion="3", n=10).outcome == "fail"
    assert comparison_checks.other_answers(identical=False, champion="3", n=10).outcome == "pass"


def test_without_a_champion_there_is_nothing_to_be_worse_than():
    first = [version_checks.loads("0" * 64), comparison_checks.no_champion()]
    assert judge(first).decision == "PROMOTE"


def test_what_the_findings_say_of_a_fold_is_that_the_candidate_was_trained_on_it():
    assert "training rows: a fit that had not seen them answered" in comparison_checks.judged_by_fold(9, None).sentence
    assert comparison_checks.judged_by_fold(9, 0).sentence.endswith("; the champion never saw them.")
    assert "champion" not in comparison_checks.judged_by_fold(9, 1).sentence
    few = comparison_checks.enough_rows(9, 100, "April", fold=True).sentence
    assert few == "Only 9 rows (April) of its last fold that come after the champion's training; 100 are needed."


def test_calibration_is_judged_beside_a_champion_and_only_told_without_one():
    assert version_checks.calibrated(0.3, 0.01, 0.1, None, 500).outcome == "not applicable"
    assert version_checks.calibrated(0.3, 0.01, 0.1, 0.05, 500).outcome == "fail"
    assert version_checks.calibrated(0.3, 0.01, 0.1, 0.3, 500).outcome == "pass"
    assert version_checks.calibrated(0.1, 0.01, 0.1, 0.0, 500).outcome == "pass"


@pytest.mark.parametrize(
    ("champion", "outcome"), [(None, "fail"), ((0.01, 0.1), "fail"), ((-0.2, -0.1), "not applicable")]
)
def test_where_the_champion_does_not_beat_the_dummy_either_the_dummy_bars_nobody(champion, outcome):
    found = comparison_checks.beats_dummy("roc_auc", -0.03, (-0.1, 0.03), 100, champion=champion)
    assert found.outcome == outcome
    assert ("The champion does not surely beat it" in found.sentence) is (outcome == "not applicable")
