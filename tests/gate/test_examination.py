"""The gate tested against itself: candidates that must not get in are refused for the right reason; on real bundles."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from afterfit import data, gate
from afterfit.drift.profiles import profile
from afterfit.drift.reference import Reference
from afterfit.gate import examination
from afterfit.gate.examination import examine
from afterfit.gate.inputs import GateInput, HeldOut, LoadedVersion, by_last_fold, held_out
from afterfit.gate.verdict import ComparisonUse, judge
from afterfit.model.bundle import OutOfFold, load, save
from afterfit.model.training import train
from made import BOOSTER, made_table, manifest, posed, use_case

STUMP = {"max_iter": 1, "max_leaf_nodes": 2}
LIMITS = {"primary": "roc_auc", "slices": ["carrier"], "smallest_slice": 60}


class Flat:
    """An estimator that says the same of every row, or no number."""

    classes_ = np.array([0, 1])

    def __init__(self, share):
        self.share = share

    def predict_proba(self, matrix):
        return np.tile([1 - self.share, self.share], (len(matrix), 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("sides")
    made_table(rows=1500, seed=4).to_csv(place / "made.csv", index=False)
    return place


@pytest.fixture(scope="module")
def made(folder):
    """A champion from few rows, a better candidate, and the rows after both."""
    case = use_case(metrics=LIMITS, gate={"missing_fall": 1.0}).model_copy(update={"root": folder})
    frame = data.load(case).frame
    early, late = frame.iloc[:600].reset_index(drop=True), frame.iloc[600:].reset_index(drop=True)
    weak = side(folder, case, "1", train(posed(case, early), "hist_gradient_boosting", STUMP), early)
    strong = side(folder, case, "2", train(posed(case, early), "hist_gradient_boosting", BOOSTER), early)
    held = HeldOut(late, late["late"].to_numpy().astype(np.int64), late["when"].to_numpy())
    return case, weak, strong, held


def side(folder, case, number, trained, rows, scorer=None):
    place = folder / number
    marks = data.row_fingerprints(case, rows)
    bundle = save(trained.scorer, manifest(case), [{"distance": 500.0, "carrier": "AA"}], place, rows=marks)
    return LoadedVersion(number, bundle if scorer is None else replace(bundle, scorer=scorer), place)


def findings(case, candidate, champion, held, **more):
    return {one.code: one for one in examine(GateInput(case, candidate, champion, "production", held, **more))}


def day(number):
    """A day of 2024, from 1, without a zone as data has it."""
    return datetime.fromisoformat("2024-01-01") + timedelta(days=number - 1)


def failed(found):
    return {code for code, one in found.items() if one.outcome == "fail"}


def changed(given, estimator=None, calibration=None, **bundle):
    scorer = given.bundle.scorer
    if estimator is not None:
        scorer = replace(scorer, estimator=estimator, calibration=calibration)
    return LoadedVersion("3", replace(given.bundle, scorer=scorer, digest="another", **bundle), given.folder)


def test_a_better_candidate_passes_every_check(made):
    case, weak, strong, held = made
    found = findings(case, strong, weak, held)
    assert judge(found.values()).decision == "PROMOTE", [one.sentence for one in found.values()]


def test_the_champion_under_another_name_is_refused(made):
    case, _, strong, held = made
    same = LoadedVersion("9", strong.bundle, strong.folder)
    assert {"another_version", "other_answers"} <= failed(findings(case, same, strong, held))
    disguised = LoadedVersion("9", replace(strong.bundle, digest="another"), strong.folder)
    assert failed(findings(case, disguised, strong, held)) == {"other_answers", "better"}


def test_a_candidate_of_shuffled_labels_is_refused(made, folder):
    case, weak, _, held = made
    frame = data.load(case).frame.iloc[:600].reset_index(drop=True)
    shuffled = frame.assign(late=np.random.default_rng(0).permutation(frame["late"]))
    guess = side(folder, case, "4", train(posed(case, shuffled), "hist_gradient_boosting", BOOSTER), frame)
    assert "better" in failed(findings(case, guess, weak, held))


def test_one_leaked_training_row_is_refused(made):
    case, weak, strong, held = made
    leaked = data.row_fingerprints(case, held.frame.iloc[[7]])
    greedy = changed(strong, rows=np.sort(np.concatenate([strong.bundle.rows, leaked])))
    found = findings(case, greedy, weak, held)
    assert failed(found) == {"unseen_by_candidate"}
    assert "1 of 900 rows are training rows" in found["unseen_by_candidate"].sentence


def test_a_candidate_that_predicts_a_constant_is_refused(made):
    case, weak, strong, held = made
    assert {"varies", "beats_dummy", "better"} <= failed(findings(case, changed(strong, Flat(0.4)), weak, held))


def test_a_candidate_with_one_answer_that_is_no_number_is_refused(made):
    case, weak, strong, held = made

    class OneNaN:
        classes_ = np.array([0, 1])

        def predict_proba(self, matrix):
            table = strong.bundle.scorer.estimator.predict_proba(matrix)
            if len(matrix) == len(held.y):
                table[5] = np.nan
            return table

    found = findings(case, changed(strong, OneNaN(), strong.bundle.scorer.calibration), weak, held)
    assert failed(found) == {"finite_answers"}


def test_a_candidate_that_is_better_overall_and_much_worse_for_one_carrier_is_refused(made):
    case, weak, strong, held = made
    turned = turned_for(strong, "CC")
    found = findings(case, turned, weak, held)
    assert found["better"].outcome == "pass"
    assert failed(found) == {"slices"}
    assert "carrier CC" in found["slices"].sentence


def turned_for(given, carrier):
    """The same model with the ranking turned round in rows of one carrier."""
    scorer = given.bundle.scorer
    place = list(scorer.encoder.features).index("carrier")
    code = scorer.encoder.encode_frame(scorer.contract.check_frame(pd.DataFrame({"carrier": [carrier]})))[0, place]

    class Turned:
        classes_ = np.array([0, 1])

        def predict_proba(self, matrix):
            table = scorer.estimator.predict_proba(matrix)
            there = matrix[:, place] == code
            table[there] = table[there][:, ::-1]
            return table

    return changed(given, Turned(), scorer.calibration)


def test_a_candidate_that_needs_a_column_which_the_champion_can_miss_is_refused(made):
    case, _, strong, held = made
    fragile_case = case.model_copy(update={"gate": case.gate.model_copy(update={"missing_fall": 0.02})})
    scorer = strong.bundle.scorer
    place = list(scorer.encoder.features).index("distance")

    class Fragile:
        classes_ = np.array([0, 1])

        def predict_proba(self, matrix):
            table = scorer.estimator.predict_proba(matrix)
            gone = np.isnan(matrix[:, place])
            table[gone] = table[gone][:, ::-1] if gone.all() else table[gone]
            return table

    found = findings(fragile_case, changed(strong, Fragile(), scorer.calibration), strong, held)
    assert found["robust"].outcome == "fail"
    assert "distance missing" in found["robust"].sentence


def test_a_candidate_trained_on_rows_unlike_the_recent_ones_is_refused(made):
    case, weak, strong, held = made
    assert findings(case, strong, weak, held)["reference"].outcome == "not applicable", "no profiles in these bundles"
    frame = data.load(case).frame.iloc[:600].reset_index(drop=True)
    far = frame.assign(distance=frame["distance"] + 5_000, carrier="ZZ")
    sides = [
        LoadedVersion(
            one.number, replace(one.bundle, reference=Reference(profile(rows[["distance", "carrier"]]))), one.folder
        )
        for one, rows in ((strong, far), (weak, frame))
    ]
    found = findings(case, *sides, held)
    assert failed(found) == {"reference"}
    assert "farther from the rows of this gate" in found["reference"].sentence
    closer = LoadedVersion(strong.number, replace(strong.bundle, reference=sides[1].bundle.reference), strong.folder)
    assert findings(case, closer, sides[1], held)["reference"].outcome == "pass"


def test_rows_inside_a_training_window_and_young_outcomes_are_left_out(made):
    case, weak, strong, _ = made
    ended = replace(strong.bundle.manifest, window={**strong.bundle.manifest.window, "end": "2024-02-01T00:00:00"})
    bundles = [replace(strong.bundle, manifest=ended), weak.bundle]
    delayed = case.model_copy(update={"gate": case.gate.model_copy(update={"label_delay_hours": 24.0})})
    held = held_out(delayed, bundles, start=day(20), now=day(41))
    assert held.times.min() == np.datetime64("2024-02-01T01:00")
    assert held.times.max() == np.datetime64("2024-02-09T00:00")
    assert held.inside == 12 * 24 + 1
    assert held.young == len(made_table(rows=1500)) - 40 * 24 + 24 - 1


def test_all_findings_of_a_gate_by_the_last_fold_say_that_the_candidate_was_trained_on_its_rows(made):
    case, weak, strong, held = made
    marks, predictions = data.row_fingerprints(case, held.frame), strong.bundle.scorer.score(held.frame)[1]
    kept = OutOfFold(marks, predictions)
    rows = np.sort(np.concatenate([strong.bundle.rows, marks]))
    whole = LoadedVersion("2", replace(strong.bundle, rows=rows, out_of_fold=kept), strong.folder)
    found = {one.code: one for one in examine(by_last_fold(case, whole, weak, held))}
    assert judge(found.values()).decision == "PROMOTE", [one.sentence for one in found.values()]
    assert found["unseen_by_candidate"].sentence == (
        "These 900 rows are among its training rows: a fit that had not seen them answered for it; "
        "the champion never saw them."
    )
    said = " ".join(one.sentence for one in found.values())
    assert "no compared version was trained on" not in said
    assert "inside a training window" not in said


def test_too_few_complete_outcomes_hold(made):
    case, weak, strong, held = made
    few = held.take(np.arange(len(held.y)) < 40)
    found = findings(case, strong, weak, few)
    assert found["held_out_rows"].outcome == "unsure"


def test_a_margin_can_be_measured_by_fitting_the_champions_recipe_again(made):
    case, weak, strong, held = made
    window = {"name": "made", "sha256": "0", "rows": 600, "start": "2024-01-01T00:00:00", "end": "2024-01-25T23:00:00"}
    told = replace(strong.bundle.manifest, window=window, builder="hist_gradient_boosting", params=BOOSTER)
    champion = LoadedVersion("2", replace(strong.bundle, manifest=told), strong.folder)
    margin = examination.equal_models_spread(GateInput(case, weak, champion, "production", held), held)
    assert 0 < margin < 0.05
    auto = case.model_copy(update={"gate": case.gate.model_copy(update={"margin": "auto", "tolerance": "auto"})})
    found = findings(auto, weak, champion, held)
    assert found["better"].limit == pytest.approx(margin)


def test_rows_used_before_cost_confidence_and_the_same_comparison_again_does_not(made):
    case, weak, strong, held = made
    own = GateInput(case, strong, weak, "production", held).use
    others = [replace(own, candidate=str(number)) for number in (7, 8)]
    found = findings(case, strong, weak, held, past=others)
    assert "98.3" not in found["fresh_rows"].sentence
    assert "99.44% confidence" in found["fresh_rows"].sentence
    assert found["fresh_rows"].value == 3
    assert findings(case, strong, weak, held, past=[own, *others])["fresh_rows"].value == 1


def test_uses_overlap_in_time_or_else_by_content():
    own = ComparisonUse("3", "1", "a", "2024-02-01", "2024-02-20")
    assert gate.uses([ComparisonUse("2", "1", "b", "2024-02-20", "2024-03-01")], own) == 2
    assert gate.uses([ComparisonUse("2", "1", "b", "2024-02-21", "2024-03-01")], own) == 1
    assert gate.uses([ComparisonUse("2", "1", "a"), ComparisonUse("2", "1", "a")], ComparisonUse("3", "1", "a")) == 2
    assert gate.uses([ComparisonUse("2", "1", "b")], ComparisonUse("3", "1", "a")) == 1


@pytest.mark.parametrize("uses", [10, 1000])
def test_all_comparisons_on_the_same_rows_together_err_little_more_than_one(uses):
    spent = sum(1 - gate.confidence_left(0.95, use) for use in range(1, uses + 1))
    assert 0.05 <= spent < 0.05 * 1.645


def test_value_in_money_and_guardrails_are_held_against_the_candidate(made):
    case, weak, strong, held = made
    costs = {"primary": "roc_auc", "value": {"costs": {"True": {"False": 1.0}, "False": {"True": 1.0}}, "unit": "EUR"}}
    priced = use_case(metrics=costs, gate={"guardrails": {"brier": 0.001}}).model_copy(update={"root": case.root})
    good = findings(priced, strong, weak, held)
    assert (good["value"].outcome, good["guardrail_brier"].outcome) == ("pass", "pass")
    assert "EUR a row" in good["value"].sentence
    bad = findings(priced, changed(strong, Flat(0.9)), strong, held)
    assert {"value", "guardrail_brier", "better"} <= failed(bad)


def test_without_a_champion_nothing_is_compared_and_the_rest_still_is(made):
    case, _, strong, held = made
    found = findings(case, strong, None, held)
    assert found["champion"].outcome == "not applicable"
    assert "better" not in found
    assert judge(found.values()).decision == "PROMOTE"


def test_a_bundle_keeps_its_training_rows_fingerprints(made):
    _, _, strong, _ = made
    assert np.array_equal(load(strong.folder).rows, strong.bundle.rows)
    assert len(strong.bundle.rows) == 600


def test_of_very_many_rows_a_sample_is_kept_that_any_other_table_would_keep_alike():
    marks = np.random.default_rng(0).integers(0, 2**64, 5000, dtype=np.uint64)
    kept = data.kept_fingerprints(marks, 500)
    assert 400 < len(kept) < 600
    assert kept.max() < marks.max()
    assert data.kept_fingerprints(marks, 5000) is marks


def test_the_policys_hash_changes_with_a_limit(made):
    case = made[0]
    stricter = case.model_copy(update={"gate": case.gate.model_copy(update={"larger": 2.0})})
    assert examination.limits_hash(case) != examination.limits_hash(stricter)
    assert examination.limits_hash(case) == examination.limits_hash(case.model_copy(update={"description": "another"}))
