"""Profiles that travel in a version: features, unseen predictions and outcomes, compared under one rate."""

import numpy as np
import pandas as pd
import pytest

import afterfit
from afterfit.drift.reference import (
    Reference,
    clear_missing_marks,
    compare,
    distances,
    prediction_columns,
    rename_columns,
)
from afterfit.errors import DataError
from afterfit.model.training import reference, train
from afterfit.performance.predictions import Predictions
from made import BOOSTER, made_table, posed, use_case


@pytest.fixture(scope="module")
def case():
    return use_case(columns={"features": ["distance", "seats", "carrier", "prediction"], "private": []})


def table(rows, seed):
    return made_table(rows, seed).assign(prediction=lambda frame: frame["seats"] % 7)


@pytest.fixture(scope="module")
def model(case):
    return train(posed(case, table(2_000, 0)), "hist_gradient_boosting", BOOSTER)


@pytest.fixture(scope="module")
def learnt(case, model):
    return reference(posed(case, table(2_000, 0)), model)


def window(learnt, model, frame):
    """The profiles of other rows as the version would see them."""
    checked, answers = model.scorer.score(frame)
    assert not checked.bad.any()
    rows = rename_columns(prediction_columns(answers), learnt.predictions)
    outcomes = pd.DataFrame({"late": frame["late"].to_numpy()})
    return Reference(
        learnt.features.measure(frame), learnt.predictions.measure(rows), learnt.outcomes.measure(outcomes)
    )


def test_features_predictions_and_outcomes_have_profiles_of_their_own(learnt, model):
    names = {part: [c.name for c in found.layout.columns] for part, found in learnt.parts.items()}
    assert names["features"] == ["distance", "seats", "carrier", "prediction"]
    assert names["predictions"] == ["prediction of the model", "probability"], "no two columns have one name"
    assert names["outcomes"] == ["late"]
    assert learnt.features.rows == learnt.outcomes.rows == 2_000
    assert learnt.predictions.rows == len(model.rows) < 2_000
    assert {found.layout.time for found in learnt.parts.values()} == {"when"}


def test_new_rows_of_the_same_kind_are_no_drift_of_features_predictions_or_outcomes(learnt, model):
    reports = [compare(learnt, window(learnt, model, table(1_000, 100 + seed)), 0.01) for seed in range(20)]
    assert sum(report.alarm for report in reports) <= 2, "binomial(20, 1 %) is above 2 once in 1,000"
    assert set(reports[0].columns) >= {"distance", "prediction", "prediction of the model", "probability", "late"}


def test_a_shift_of_a_feature_shows_in_the_predictions_too(learnt, model):
    report = compare(learnt, window(learnt, model, table(1_000, 5).assign(distance=1_900.0)), 0.01)
    assert report.columns["distance"].alarm
    assert "up" in report.columns["probability"].words


def test_outcomes_that_become_more_frequent_are_an_alarm_by_themselves(learnt, model):
    frame = table(1_000, 6)
    more = frame.assign(late=frame["late"] | (np.arange(1_000) % 3 == 0))
    report = compare(learnt, window(learnt, model, more), 0.01)
    assert [name for name, column in report.columns.items() if column.alarm] == ["late"]


def test_the_rate_is_shared_out_so_that_every_p_value_is_held_against_the_whole(learnt, model):
    now = window(learnt, model, table(1_000, 7))
    whole = compare(learnt, now, 0.01)
    alone = afterfit.compare_drift(learnt.predictions, now.predictions, rate=0.001)
    theirs = {finding.kind: finding.familywise for finding in alone.columns["probability"].findings}
    mine = {finding.kind: finding.familywise for finding in whole.columns["probability"].findings}
    assert {"location", "missing"} == set(mine) < set(theirs)
    for kind, value in mine.items():
        np.testing.assert_allclose(value, min(theirs[kind] * 10, 1.0))
    assert whole.rate == 0.01


def test_a_model_of_few_rows_that_answers_more_surely_than_its_folds_is_no_drift():
    case = use_case(columns={"features": ["distance", "seats", "carrier"], "private": []})
    false = 0
    for seed in range(4):
        problem = posed(case, made_table(300, seed))
        small = train(problem, "hist_gradient_boosting", BOOSTER)
        over = reference(problem, small)
        report = compare(over, window(over, small, made_table(2_000, 50 + seed)), 0.01)
        false += report.columns["probability"].alarm + report.columns["prediction"].alarm
    assert false == 0


def test_what_a_window_does_not_have_leaves_its_share_to_the_rest(learnt):
    frame = table(1_000, 8)
    only = compare(learnt, Reference(learnt.features.measure(frame)), 0.01)
    alone = afterfit.compare_drift(learnt.features, frame)
    assert only.to_dict() == alone.to_dict()


def test_profiles_read_back_are_equal_and_those_of_parts_add_up(learnt, model):
    assert Reference.from_json(learnt.to_json()).to_json() == learnt.to_json()
    frame = table(900, 9)
    parts = window(learnt, model, frame.iloc[:400]) + window(learnt, model, frame.iloc[400:])
    assert parts.to_json() == window(learnt, model, frame).to_json()


def test_a_single_saved_profile_is_read_as_one_of_features(learnt):
    read = Reference.from_json(learnt.features.to_json())
    assert list(read.parts) == ["features"]
    assert read.features.to_json() == learnt.features.to_json()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "it is no JSON"),
        ("[]", "has no format number"),
        ('{"parts": {}, "format": 1}', "must have format 1 and those of the features"),
        ('{"parts": {"features": {}}, "format": 9}', "have format 9"),
        ('{"parts": {"features": {"format": 1}}, "format": 1}', "damaged"),
    ],
)
def test_what_is_no_saved_profile_is_refused_with_the_reason(text, said):
    with pytest.raises(DataError, match=said):
        Reference.from_json(text)


def test_marks_for_missing_values_are_taken_out_of_text_columns_only():
    frame = pd.DataFrame({"a": ["1", " ? ", None], "b": [1.0, 2.0, 3.0], "c": pd.Categorical(["?", "x", "y"])})
    clean = clear_missing_marks(frame, ["?"])
    assert clean["a"].isna().tolist() == [False, True, True]
    assert clean["b"].tolist() == [1.0, 2.0, 3.0]
    assert clean["c"].isna().tolist() == [True, False, False]
    assert frame["a"].isna().tolist() == [False, False, True], "the frame itself is left as it was"


def test_the_answers_of_several_classes_and_of_numbers_are_columns():
    many = Predictions.of_probabilities(np.full((3, 12), 1 / 12), tuple(f"c{i}" for i in range(12)))
    assert list(prediction_columns(many))[:3] == ["prediction", "probability of c0", "probability of c1"]
    assert len(prediction_columns(many).columns) == 11
    numbers = prediction_columns(Predictions.of_values([1.0, 2.0], [0.0, 1.0], [3.0, 4.0]))
    assert numbers.to_dict("list") == {"prediction": [1.0, 2.0]}


def test_private_columns_are_in_no_profile_and_the_others_keep_their_names():
    case = use_case()
    learnt = reference(posed(case, made_table()), train(posed(case, made_table()), "hist_gradient_boosting", BOOSTER))
    assert "x7" not in learnt.to_json()
    assert "secret" not in learnt.features.to_json()
    assert "BB" in learnt.to_json()


def test_a_window_lies_farther_from_a_reference_the_more_of_it_is_new(learnt):
    frame = table(2_000, 7)
    means = []
    for share in (0.0, 0.2, 0.6, 1.0):
        moved = frame.assign(distance=frame["distance"].where(np.arange(2_000) >= 2_000 * share, 1e6))
        found = distances(learnt.features, learnt.features.measure(moved))
        assert set(found) == {"distance", "seats", "carrier", "prediction"}
        assert max(found[name] for name in ("seats", "carrier", "prediction")) < 0.1, "chance alone"
        means.append(found["distance"])
    assert means == sorted(means)
    assert means[0] < 0.1
    assert means[-1] == pytest.approx(1.0), "nothing in common"


def test_a_window_is_no_distance_from_itself_and_an_empty_one_has_none(learnt):
    assert set(distances(learnt.features, learnt.features).values()) == {0.0}
    assert distances(learnt.features, learnt.features.measure(table(2_000, 7).iloc[:0])) == {}
