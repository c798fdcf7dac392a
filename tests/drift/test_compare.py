import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import afterfit
from afterfit.drift.pvalues import holm
from afterfit.drift.report import SMALLEST
from afterfit.drift.window_comparison import RATE_SHARES
from afterfit.errors import DataError, SchemaError

ROWS = 2_000


def table(rows, seed):
    """Numbers that follow each other, a heavy tail, whole numbers, one by itself; a name that follows another."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=rows)
    city = rng.choice(["Bergen", "Oslo", "Tromsø"], size=rows, p=[0.3, 0.5, 0.2])
    frame = pd.DataFrame(
        {
            "temp": 50 + 20 * common,
            "dew": 40 + 18 * common + 6 * rng.normal(size=rows),
            "wet": 60 + 10 * common + 8 * rng.normal(size=rows),
            "delay": np.exp(rng.normal(size=rows)) * 10 - 12,
            "hour": rng.integers(5, 23, size=rows),
            "alone": rng.normal(size=rows),
            "rain": np.where(rng.random(rows) < 0.9, 0.0, rng.exponential(size=rows)),
            "city": city,
            "carrier": np.where(rng.random(rows) < 0.7, np.char.add("carrier of ", city), "another"),
            "late": rng.random(rows) < 0.2,
        }
    )
    frame.loc[rng.random(rows) < 0.03, "dew"] = np.nan
    return frame


FRAME = table(30_000, 0)
REFERENCE = afterfit.profile(FRAME)


def alarms(report):
    return {name for name, column in report.columns.items() if column.alarm}


def kinds(report, column):
    return {finding.kind for finding in report.columns[column].findings if finding.alarm}


def moved(frame, share, name, seed=0):
    return frame["city"].mask(np.random.default_rng(seed).random(len(frame)) < share, name)


CHANGES = {
    "mean a little up": ("temp", lambda f: f["temp"] + 2.0, "location"),
    "mean of a heavy tail up": ("delay", lambda f: f["delay"] + 4.0, "location"),
    "mean of an unrelated number up": ("alone", lambda f: f["alone"] + 0.2, "location"),
    "spread 1.2 times": ("alone", lambda f: f["alone"] * 1.2, "spread"),
    "zeros become something": ("rain", lambda f: f["rain"] + 0.05, "shape"),
    "a twentieth moved to one name": ("city", lambda f: moved(f, 0.1, "Tromsø"), "share"),
    "a new name": ("city", lambda f: moved(f, 0.01, "Ålesund"), "new values"),
    "missing": ("hour", lambda f: f["hour"].mask(np.arange(len(f)) % 50 == 0), "missing"),
    "fewer missing": ("dew", lambda f: f["dew"].fillna(40.0), "missing"),
    "shuffled number": ("temp", lambda f: np.random.default_rng(1).permutation(f["temp"]), "relation"),
    "shuffled name": ("carrier", lambda f: np.random.default_rng(1).permutation(f["carrier"]), "relation"),
    "a flag more often": ("late", lambda f: f["late"] | (np.arange(len(f)) % 12 == 0), "share"),
    "out of range": ("alone", lambda f: f["alone"].mask(np.arange(len(f)) % 100 == 0, 1e308), "new values"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_found_in_its_column_and_by_its_kind(name):
    column, change, kind = CHANGES[name]
    window = table(ROWS, 7)
    report = afterfit.compare_drift(REFERENCE, window.assign(**{column: change(window)}))
    assert report.alarm
    assert column in alarms(report)
    assert kind in kinds(report, column)


@pytest.mark.parametrize("name", ["mean a little up", "shuffled number", "a new name", "missing"])
def test_columns_that_hang_together_with_a_changed_one_are_not_blamed_for_it(name):
    column, change, _ = CHANGES[name]
    window = table(ROWS, 8)
    assert alarms(afterfit.compare_drift(REFERENCE, window.assign(**{column: change(window)}))) == {column}


@pytest.mark.parametrize("rows", [1, 2, 10, 50, 500, 20_000, 300_000])
def test_no_window_without_drift_alarms_whatever_its_size(rows):
    assert not afterfit.compare_drift(REFERENCE, table(rows, 100 + rows)).alarm


def test_identical_data_gives_no_alarm_and_no_effect():
    report = afterfit.compare_drift(REFERENCE, FRAME)
    effects = [f.effect for column in report.columns.values() for f in column.findings if f.kind != "relation"]
    assert not report.alarm
    assert max(map(abs, effects)) < 1e-3


@given(seed=st.integers(0, 1_000))
@settings(max_examples=10, deadline=None)
def test_the_order_of_rows_changes_nothing(seed):
    window = table(300, 3).assign(temp=lambda frame: frame["temp"] + 30)
    mixed = window.sample(frac=1, random_state=seed)
    assert afterfit.compare_drift(REFERENCE, window).to_dict() == afterfit.compare_drift(REFERENCE, mixed).to_dict()


@given(scale=st.sampled_from([1e-6, 0.5, 3.0, 1e6]), offset=st.sampled_from([-1e3, 0.0, 7.0]))
@settings(max_examples=12, deadline=None)
def test_a_change_of_unit_in_both_windows_changes_no_finding(scale, offset):
    def unit(frame):
        return frame[["alone", "temp"]] * scale + offset

    window = table(ROWS, 4).assign(alone=lambda frame: frame["alone"] + 0.5)
    report = afterfit.compare_drift(afterfit.profile(unit(FRAME)), unit(window))
    (location,) = (f for f in report.columns["alone"].findings if f.kind == "location")
    assert alarms(report) == {"alone"}
    assert location.effect == pytest.approx(0.5, abs=0.1)


@given(shift=st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_the_effect_of_a_shift_is_its_size_in_standard_deviations(shift):
    window = table(ROWS, 11)
    report = afterfit.compare_drift(REFERENCE, window.assign(alone=window["alone"] + shift))
    (location,) = (f for f in report.columns["alone"].findings if f.kind == "location")
    assert location.effect == pytest.approx(shift, abs=0.1 + 0.05 * abs(shift))
    assert location.unit == "standard deviations of the reference"


def test_a_large_window_does_not_alarm_on_a_change_that_nobody_cares_about():
    window = table(300_000, 12)
    window["alone"] += 0.035
    report = afterfit.compare_drift(REFERENCE, window)
    (location,) = (f for f in report.columns["alone"].findings if f.kind == "location")
    assert location.familywise < 0.01
    assert abs(location.effect) < SMALLEST["location"]
    assert not report.alarm


def test_a_small_window_needs_a_large_change():
    window = table(50, 13)
    assert not afterfit.compare_drift(REFERENCE, window.assign(alone=window["alone"] + 0.2)).alarm
    assert "alone" in alarms(afterfit.compare_drift(REFERENCE, window.assign(alone=window["alone"] + 2)))


def test_a_finding_says_in_words_what_changed_and_by_how_much():
    window = table(ROWS, 14).assign(temp=lambda frame: frame["temp"] + 18)
    report = afterfit.compare_drift(REFERENCE, window)
    assert report.ranked[0].column == "temp"
    assert "temp: mean up by 0.9 standard deviations" in report.columns["temp"].words


def test_new_names_are_shown_with_their_rows():
    report = afterfit.compare_drift(REFERENCE, table(ROWS, 15).assign(city=lambda f: moved(f, 0.05, "Ålesund")))
    assert list(report.columns["city"].new_names) == ["Ålesund"]
    assert "of rows ('Ålesund')" in report.columns["city"].words


def test_a_broken_relation_names_the_pair_and_blames_the_column_that_pairs_have_in_common():
    window = table(ROWS, 16)
    report = afterfit.compare_drift(REFERENCE, window.assign(city=np.random.default_rng(0).permutation(window["city"])))
    broken = [relation for relation in report.relations if relation.alarm]
    assert [relation.columns for relation in broken] == [("city", "carrier")]
    assert broken[0].reference > 0.5
    assert abs(broken[0].window) < 0.1
    assert "city" in broken[0].blamed


# What has a defined result though nothing can be measured.


def test_a_column_that_vanished_is_an_alarm():
    report = afterfit.compare_drift(REFERENCE, table(100, 1).drop(columns="temp"))
    assert kinds(report, "temp") == {"absent"}
    assert alarms(report) == {"temp"}


def test_a_column_whose_kind_changed_is_an_alarm_that_names_both_kinds():
    window = table(200, 1)
    report = afterfit.compare_drift(REFERENCE, window.assign(alone="text"))
    assert kinds(report, "alone") == {"kind"}
    assert "was number, is text" in report.columns["alone"].words


def test_numbers_that_come_as_text_are_read_as_numbers():
    window = table(ROWS, 2)
    assert not afterfit.compare_drift(REFERENCE, window.assign(alone=window["alone"].astype(str))).alarm


def test_flags_that_come_as_zero_and_one_are_read_as_flags():
    window = table(ROWS, 2)
    assert not afterfit.compare_drift(REFERENCE, window.assign(late=window["late"].astype(int))).alarm


def test_infinities_are_an_alarm():
    window = table(ROWS, 2)
    report = afterfit.compare_drift(
        REFERENCE, window.assign(alone=window["alone"].mask(window.index % 100 == 0, np.inf))
    )
    assert kinds(report, "alone") == {"kind"}


def test_a_column_that_is_all_missing_alarms_by_its_missing_values_only():
    report = afterfit.compare_drift(REFERENCE, table(ROWS, 2).assign(temp=np.nan))
    assert "missing" in kinds(report, "temp")
    assert alarms(report) == {"temp"}


def test_an_empty_window_gives_no_alarm_and_says_so():
    report = afterfit.compare_drift(REFERENCE, table(100, 1).iloc[:0])
    assert not report.alarm
    assert report.notes == ("The window has no rows: nothing can be compared.",)
    assert all(column.findings for column in report.columns.values())
    assert {f.outcome for c in report.columns.values() for f in c.findings} == {"not applicable"}


def test_constant_and_empty_columns_of_a_reference_are_compared_by_what_they_have():
    frame = pd.DataFrame({"constant": 7.0, "empty": np.nan, "name": "only", "x": np.arange(5_000.0)})
    learnt = afterfit.profile(frame)
    assert not afterfit.compare_drift(learnt, frame).alarm
    changed = frame.assign(constant=8.0, empty=1.0, name="other")
    assert alarms(afterfit.compare_drift(learnt, changed)) == {"constant", "empty", "name"}


def test_no_common_column_is_refused_with_the_columns_side_by_side():
    with pytest.raises(SchemaError, match=r"temp: in the reference, not in the window(.|\n)*other: in the window"):
        afterfit.compare_drift(REFERENCE, pd.DataFrame({"other": [1.0]}))


def test_a_column_that_the_reference_does_not_have_is_a_note_and_no_alarm():
    report = afterfit.compare_drift(REFERENCE, table(ROWS, 2).assign(extra=1))
    assert report.unknown == ("extra",)
    assert not report.alarm


def test_a_profile_can_be_compared_in_place_of_its_window():
    window = table(ROWS, 5).assign(temp=0.0)
    by_profile = afterfit.compare_drift(REFERENCE, REFERENCE.measure(window))
    assert by_profile.to_dict() == afterfit.compare_drift(REFERENCE, window).to_dict()


def test_a_profile_over_other_bins_is_refused():
    with pytest.raises(DataError, match="Only profiles over the same reference"):
        afterfit.compare_drift(REFERENCE, afterfit.profile(table(500, 1)))


def test_a_rate_that_is_none_is_refused():
    with pytest.raises(DataError, match="between 0 and 1, and came as 5"):
        afterfit.compare_drift(REFERENCE, table(10, 1), rate=5)


def test_a_report_is_plain_json():
    report = afterfit.compare_drift(REFERENCE, table(50, 1).drop(columns="temp"))
    saved = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert saved["columns"]["temp"]["findings"][0]["kind"] == "absent"
    assert saved["alarm"] is True


def test_a_report_says_whether_rows_were_taken_as_independent():
    assert "each row counts for one" in afterfit.compare_drift(REFERENCE, table(10, 1)).design


# Statistics, by simulation.


def test_the_false_alarm_rate_holds_over_all_columns_together():
    false = [afterfit.compare_drift(REFERENCE, table(1_000, 1_000 + seed)).alarm for seed in range(100)]
    assert sum(false) <= 4, "binomial(100, 1 %) is above 4 once in 290 runs"


def test_p_values_are_uniform_or_larger_without_drift():
    reports = [afterfit.compare_drift(REFERENCE, table(1_000, 5_000 + seed)) for seed in range(60)]
    findings = [f for r in reports for c in r.columns.values() for f in c.findings if f.outcome != "not applicable"]
    for kind in {f.kind for f in findings}:
        pvalues = np.array([f.pvalue for f in findings if f.kind == kind])
        for level in (0.5, 0.1, 0.01):
            noise = 4 * math.sqrt(level * (1 - level) / len(pvalues))
            assert np.mean(pvalues <= level) <= level * 1.3 + noise, (kind, level)


@given(pvalues=st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_is_never_stricter_than_bonferroni_nor_looser_than_each_test(pvalues):
    adjusted = holm(pvalues)
    assert all(p <= a <= min(1.0, p * len(pvalues)) + 1e-12 for p, a in zip(pvalues, adjusted, strict=True))


def test_more_decimals_than_the_reference_ever_had_are_new_values():
    frame = pd.DataFrame({"price": np.random.default_rng(0).gamma(3, 20, 20_000).round(1), "x": np.arange(20_000.0)})
    learnt = afterfit.profile(frame)
    assert learnt.layout.columns[0].bins.decimals == 1
    same, other = frame.iloc[:2_000], frame.iloc[:2_000].assign(price=lambda window: window["price"] * 1.013)
    assert not afterfit.compare_drift(learnt, same).columns["price"].alarm
    report = afterfit.compare_drift(learnt, other)
    assert "more decimals than the reference ever had" in report.columns["price"].words


def test_the_rate_is_shared_out_once():
    assert sum(RATE_SHARES.values()) == pytest.approx(1.0)
