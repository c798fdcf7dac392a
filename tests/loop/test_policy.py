"""From what was seen to what is done: limits, cooldowns, budgets, and alarms that are told once."""

from dataclasses import replace
from datetime import datetime, timedelta
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from afterfit.data.windows import TimeWindow
from afterfit.drift.report import ColumnReport, DriftFinding, DriftReport
from afterfit.loop.observation import DataQuality, Observation, ServiceHealth
from afterfit.loop.policy import PairedDifference, State, causes_of, decide, remembered, together
from afterfit.performance.metrics import Measured
from afterfit.settings import Policy, TrainOn, presets

END = datetime.fromisoformat("2024-02-01")
PROMISE = {"roc_auc": {"mean": 0.8, "sd": 0.02, "low": 0.75, "high": 0.85}}


def seen(value=0.8, reach=0.01, n=1_000, **changes):
    """A window whose realised AUC is `value`, give or take `reach`."""
    realised = {} if value is None else {"roc_auc": Measured("roc_auc", value, value - reach, value + reach, n)}
    start = END - timedelta(days=7)
    return replace(
        Observation("2024-01", start, END, "1", DataQuality(2_000, 0), realised=realised, outcomes=n, promise=PROMISE),
        **changes,
    )


def state(**changes):
    return replace(State("2", previous="1", trained_rows=10_000, outcomes=2_000, windows=3), **changes)


def policy(preset="cautious", **changes):
    return Policy.model_validate({"preset": preset, **changes})


def won(difference, spread, n=1_000, skill=0.3):
    return PairedDifference("2024-01", difference, difference - 1.96 * spread, difference + 1.96 * spread, n, skill)


def drifted():
    words = "temp went up"
    finding = DriftFinding("temp", "location", "alarm", 9, 0, 0, 1, "sd", 0.05, 100, given_others=False, words=words)
    column = ColumnReport("temp", "number", 100, (finding,), {})
    return DriftReport(0.01, 100, 100, "", {"temp": column}, (), (), ())


def test_a_quiet_window_leads_to_nothing():
    assert decide([seen()], state(), policy()).kind == "nothing"


def test_a_fall_out_of_what_was_promised_retrains_and_is_told():
    action = decide([seen(0.70)], state(), policy())
    assert action.kind == "retrain"
    assert [cause.key for cause in action.causes] == ["realised roc_auc"]
    assert "0.7500, which was promised" in action.reason


def test_a_fall_that_could_be_chance_is_none():
    assert decide([seen(0.74, reach=0.05)], state(), policy()).kind == "nothing"
    assert decide([seen(0.74, reach=0.05)], state(), policy(sure=False)).kind == "retrain"


def test_an_estimate_counts_where_outcomes_are_not_there_yet():
    estimated = {"roc_auc": Measured("roc_auc", 0.6, 0.55, 0.65, 2_000)}
    assert decide([seen(None, estimated=estimated)], state(), policy()).causes[0].kind == "estimated"
    assert decide([seen(0.8, estimated=estimated)], state(), policy()).kind == "nothing"


def test_a_cause_is_told_once_for_as_long_as_it_lasts_and_again_when_it_comes_back():
    never, now = policy("never"), state()
    told = []
    for value in (0.7, 0.7, 0.8, 0.7):
        action = decide([seen(value)], now, never)
        told.append(action.kind)
        now = remembered(now, seen(value), action, tuple(causes_of([seen(value)], never)))
    assert told == ["alarm", "nothing", "nothing", "alarm"]


def test_production_that_is_surely_worse_than_what_it_replaced_is_rolled_back():
    action = decide([seen()], state(comparisons=(won(-0.05, 0.01),)), policy())
    assert action.kind == "roll_back"
    assert "surely worse than version 1" in action.reason
    assert decide([seen()], state(comparisons=(won(-0.05, 0.05),)), policy()).kind != "roll_back"
    assert decide([seen()], state(comparisons=(won(-0.05, 0.01),)), policy(roll_back=False)).kind != "roll_back"
    assert decide([seen()], state(comparisons=(won(-0.05, 0.01, n=100),)), policy()).kind != "roll_back"


def test_retraining_goes_on_while_it_pays_and_stops_when_it_does_not():
    assert decide([seen()], state(comparisons=(won(0.03, 0.01),)), policy()).kind == "retrain"
    assert decide([seen()], state(comparisons=(won(0.01, 0.001),)), policy()).kind == "nothing"
    assert decide([seen()], state(comparisons=(won(0.03, 0.05),)), policy()).kind == "nothing"


def test_what_newer_rows_are_worth_is_found_out_once():
    first = state(previous="", outcomes=2_000)
    assert decide([seen()], first, policy()).kind == "retrain"
    assert decide([seen()], replace(first, outcomes=900), policy()).kind == "nothing"
    assert decide([seen()], replace(first, refusals=1), policy()).kind == "nothing"


def test_rows_that_have_doubled_are_trained_on():
    assert decide([seen()], state(outcomes=10_000), policy()).kind == "retrain"


def test_cooldown_budget_refusals_and_too_few_outcomes_hold_a_retraining_back():
    spent = (END - timedelta(days=3), END - timedelta(days=9))
    for now, said in (
        (state(outcomes=100), "only 100 outcomes"),
        (state(retrained=spent), "2 retrainings of 2 in 30 days"),
        (state(refusals=2), "the next is due 4 windows"),
        (state(windows=1, retrained=spent[:1]), "at least 2 must"),
    ):
        action = decide([seen(0.7)], now, policy(cooldown=2))
        assert action.kind == "alarm"
        assert said in action.reason


def test_the_calendar_retrains_at_its_windows_whatever_was_seen():
    every_other = policy("calendar", calendar=2)
    assert decide([seen()], state(windows=1), every_other).kind == "nothing"
    assert decide([seen()], state(windows=2), every_other).kind == "retrain"


def test_drift_refused_rows_and_failed_requests_are_causes():
    bad = seen(quality=DataQuality(1_000, 80), service=ServiceHealth(1_000, 30, 5.0), drift=drifted())
    keys = [cause.key for cause in causes_of([bad], policy())]
    assert keys == ["quality", "service", "drift"]
    assert decide([bad], state(), policy("on-drift")).reason == "1 column changed since training (temp)."


def test_the_begin_of_a_stretch_of_trouble_is_remembered():
    now, never = state(), policy("never")
    for value in (0.8, 0.7, 0.7, 0.8):
        one = seen(value)
        now = remembered(now, one, decide([one], now, never), tuple(causes_of([one], never)))
    assert now.drift_since == END - timedelta(days=7)
    assert now.calm


@given(
    st.lists(
        st.tuples(st.floats(-1, 1), st.floats(0.001, 1), st.integers(1, 10_000)).map(lambda one: won(*one)),
        min_size=1,
        max_size=6,
    )
)
def test_windows_taken_together_are_between_the_best_and_the_worst_and_surer_than_the_roughest(windows):
    gain = together(windows)
    differences = [window.difference for window in windows]
    assert min(differences) - 1e-9 <= gain.difference <= max(differences) + 1e-9
    assert gain.error <= max((window.high - window.low) / (2 * 1.96) for window in windows) + 1e-9
    assert gain.n == sum(window.n for window in windows)


def test_windows_too_small_for_an_interval_say_nothing():
    assert together([PairedDifference("1", 0.5, -inf, inf, 10, 0.2)]) is None
    assert together([PairedDifference("1", 0.5, -inf, inf, 10, 0.2), won(0.1, 0.01)]).difference == pytest.approx(0.1)


def test_a_state_survives_json():
    import json

    one = state(
        trained_until=END,
        retrained=(END,),
        comparisons=(won(0.1, 0.1), PairedDifference("x", 0.0, -inf, inf, 3, 0.0)),
        alarmed=("drift",),
        drift_since=END,
        waiting=(TimeWindow("2024-01", END, END),),
    )
    assert State.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False))) == one


def test_a_state_is_written_under_the_keys_that_stores_have():
    saved = state(alarmed=("drift",), drift_since=END, comparisons=(won(0.1, 0.1),)).to_dict()
    assert (saved["told"], saved["troubled"], len(saved["duels"])) == (["drift"], END.isoformat(), 1)
    assert not {"alarmed", "drift_since", "comparisons"} & set(saved)


def test_every_preset_is_a_policy_and_what_is_said_beside_it_wins():
    for name in presets():
        assert policy(name).preset == name
    assert policy("on-drift", cooldown=7).cooldown == 7
    with pytest.raises(ValidationError, match="no preset 'reckless'"):
        policy("reckless")


def test_what_to_train_on_says_how_many_days_where_it_needs_them():
    assert TrainOn(rows="days", days=30).days == 30
    with pytest.raises(ValidationError, match="half_life_days and rows: weighted go together"):
        TrainOn(rows="weighted")
    with pytest.raises(ValidationError, match="days and rows: days go together"):
        TrainOn(days=3)
