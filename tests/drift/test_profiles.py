import importlib.util
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import afterfit
from afterfit.drift.profiles import Profile
from afterfit.errors import DataError
from made import FIXTURES

SAVED = FIXTURES / "profile-format-1.json"


def table(rows, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=rows)
    frame = pd.DataFrame(
        {
            "time": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows), unit="min"),
            "plain": common,
            "heavy": np.exp(3 * rng.normal(size=rows)) * rng.choice([-1.0, 1.0], size=rows),
            "whole": rng.integers(0, 9, size=rows),
            "near": common + 0.3 * rng.normal(size=rows),
            "flag": rng.random(rows) < 0.3,
            "name": rng.choice(["a", "b", "<b>", "née", "🙂"], size=rows, p=[0.4, 0.3, 0.2, 0.05, 0.05]),
        }
    )
    frame.loc[rng.random(rows) < 0.05, ["plain", "name"]] = np.nan
    return frame


REFERENCE = afterfit.profile(table(4_000), time="time")
WINDOW = table(400, seed=1)
WINDOW.loc[3, "name"] = "never seen"
WINDOW.loc[5, "heavy"] = np.inf
WHOLE = REFERENCE.measure(WINDOW).to_json()


@given(cuts=st.lists(st.integers(0, 400), max_size=6), order=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_parts_in_any_cut_and_order_add_up_to_the_whole_to_the_bit(cuts, order):
    edges = [0, *sorted(cuts), 400]
    parts = [WINDOW.iloc[a:b] for a, b in pairwise(edges)]
    order.shuffle(parts)
    assert REFERENCE.measure(parts).to_json() == WHOLE


@given(
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), min_size=1, max_size=60),
    cut=st.integers(0, 60),
)
@settings(max_examples=60, deadline=None)
def test_any_floats_at_all_are_learnt_counted_and_added_exactly(values, cut):
    frame = pd.DataFrame({"x": np.array(values), "y": np.arange(len(values))})
    learnt = afterfit.profile(frame)
    whole = learnt.measure(frame)
    assert whole.to_json() == learnt.measure([frame.iloc[cut:], frame.iloc[:cut]]).to_json()
    assert whole.counts[0].levels.sum() == len(values)
    assert whole.counts[0].levels[0] == np.sum(~np.isfinite(values))
    assert whole.counts[0].invalid == np.isinf(values).sum()


def test_profiles_of_parts_can_be_added_after_being_saved():
    first, second = (REFERENCE.measure(part).to_json() for part in (WINDOW.iloc[:100], WINDOW.iloc[100:]))
    assert (Profile.from_json(first) + Profile.from_json(second)).to_json() == WHOLE


def test_the_order_of_rows_changes_nothing():
    assert REFERENCE.measure(WINDOW.sample(frac=1, random_state=3)).to_json() == WHOLE


def test_frames_arrow_tables_and_record_batches_are_counted_alike():
    arrow = pa.Table.from_pandas(WINDOW, preserve_index=False)
    assert REFERENCE.measure(arrow).to_json() == WHOLE
    assert REFERENCE.measure(iter(arrow.to_batches(max_chunksize=77))).to_json() == WHOLE


def test_text_as_categories_objects_or_strings_is_counted_alike():
    levels = [
        REFERENCE.measure(WINDOW.assign(name=WINDOW["name"].astype(kind))).counts[-1].levels.tolist()
        for kind in ("category", "object", "string")
    ]
    assert levels[0] == levels[1] == levels[2]


def test_a_reference_can_be_read_in_parts():
    frame = table(3_000)
    parts = iter([frame.iloc[:1_000], frame.iloc[1_000:]])
    assert afterfit.profile(parts, time="time").to_json() == afterfit.profile(frame, time="time").to_json()


def test_saving_and_reading_gives_the_same_profile():
    assert Profile.from_json(REFERENCE.to_json()).to_json() == REFERENCE.to_json()


def test_a_profile_that_an_older_release_wrote_is_still_read_and_compared():
    saved = Profile.from_json(SAVED.read_text(encoding="ascii"))
    assert saved.rows == 4_000
    assert not afterfit.compare_drift(saved, table(1_000, seed=5)).columns["name"].alarm
    changed = table(1_000, seed=5).assign(plain=lambda frame: frame["plain"] + 1)
    assert afterfit.compare_drift(saved, changed).columns["plain"].alarm


def test_a_profile_of_a_later_format_is_refused_with_the_format_it_needs():
    later = json.dumps({**REFERENCE.to_dict(), "format": 99})
    with pytest.raises(DataError, match=r"format 99; this release reads formats 1 to 1"):
        Profile.from_json(later)


@pytest.mark.parametrize("text", ["", "[]", '{"rows": 3}', '{"format": 1}'])
def test_what_is_no_profile_is_refused(text):
    with pytest.raises(DataError, match="profile"):
        Profile.from_json(text)


def test_profiles_over_different_references_do_not_add():
    with pytest.raises(DataError, match="Only profiles over the same reference can be added"):
        REFERENCE + afterfit.profile(table(500, seed=9), time="time")


def test_twenty_columns_take_a_few_tens_of_kilobytes():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"x{i}": rng.normal(size=20_000) for i in range(15)})
    for i in range(5):
        frame[f"c{i}"] = rng.choice([f"name {j}" for j in range(30)], size=20_000)
    assert len(afterfit.profile(frame).to_json()) < 60_000


def test_hidden_categories_leave_no_name_in_the_profile_and_are_still_told_apart():
    frame = pd.DataFrame({"city": ["Reykjavik", "Oslo"] * 500, "x": np.arange(1_000.0)})
    hidden = afterfit.profile(frame, hide_categories=True)
    assert "Oslo" not in hidden.to_json()
    window = pd.DataFrame({"city": ["Oslo"] * 400 + ["Bergen"] * 100, "x": np.arange(500.0)})
    measured = hidden.measure(window)
    assert "Bergen" not in measured.to_json()
    assert measured.counts[0].levels[1] == 100


def test_a_value_that_comes_again_and_again_gets_a_level_of_its_own():
    frame = pd.DataFrame({"rain": [0.0] * 900 + np.linspace(0.01, 5, 100).tolist()})
    learnt = afterfit.profile(frame)
    moved = learnt.measure(frame.assign(rain=frame["rain"] + 0.005))
    assert 900 in learnt.counts[0].levels.tolist()
    assert 900 not in moved.counts[0].levels[2:3].tolist()


def test_kinds_can_be_said():
    frame = pd.DataFrame({"month": [1, 2, 3] * 100, "x": np.arange(300.0)})
    assert [c.kind for c in afterfit.profile(frame, kinds={"month": "category"}).layout.columns] == [
        "category",
        "number",
    ]
    with pytest.raises(DataError, match="A kind must be one of number, boolean, category, datetime"):
        afterfit.profile(frame, kinds={"month": "ordinal"})


@pytest.mark.parametrize(
    ("frame", "time", "sentence"),
    [
        (pd.DataFrame({"x": [1.0]}), "when", "no time column 'when'"),
        (pd.DataFrame({"x": [1.0], "when": [2.0]}), "when", "must hold dates or times, and holds numbers"),
        (pd.DataFrame({"when": pd.to_datetime(["2024-01-01"])}), "when", "at least one column besides the time column"),
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), None, "come more than once: x"),
        ("a path", None, "A table must come as"),
        ([], None, "no part at all"),
    ],
)
def test_what_cannot_be_profiled_is_refused_with_a_sentence(frame, time, sentence):
    with pytest.raises(DataError, match=sentence):
        afterfit.profile(frame, time=time)


def test_importing_and_profiling_brings_in_no_heavy_library(tmp_path):
    import subprocess
    import sys

    code = (
        "import afterfit, sys, pandas; afterfit.profile(pandas.DataFrame({'x': [1.0, 2.0] * 50}));"
        "assert not {'mlflow', 'sklearn', 'matplotlib', 'scipy.stats'} & set(sys.modules)"
    )
    source = str(Path(importlib.util.find_spec("afterfit").origin).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PYTHONPATH": source})


# Hostile input.

HOSTILE = [
    "<script>alert(1)</script>",
    "a\"b'c",
    "x" * 10_000,
    "line\nline\r",
    "🙂" * 50,
    "nul\0nul",
    "\ud800",
    "",
    " ",
]


def test_hostile_names_are_counted_and_saved():
    frame = pd.DataFrame({"name": pd.Series(HOSTILE * 40, dtype="object"), "x": np.arange(40.0 * len(HOSTILE))})
    learnt = afterfit.profile(frame)
    assert sorted(learnt.counts[0].levels[3:].tolist()) == [40] * len(HOSTILE)
    assert Profile.from_json(learnt.to_json()).measure(frame).to_json() == learnt.to_json()
    assert len(learnt.to_json()) < 12_000


ODD = {
    "lists": [[1], [2], [1]],
    "one, true and 1.0": [1, True, 1.0],
    "mixed": ["a", 1, None],
    "complex": [1j, 2.0, 3.0],
    "dates": [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02"), pd.NaT],
    "durations": [pd.Timedelta(1, "s"), pd.Timedelta(2, "s"), pd.Timedelta(3, "s")],
    "truth or nothing": [True, False, None],
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_values_are_counted_alike_in_any_cut(kind):
    frame = pd.DataFrame({"odd": pd.Series(ODD[kind] * 50), "x": np.arange(150.0)})
    learnt = afterfit.profile(frame)
    assert learnt.measure([frame.iloc[1:], frame.iloc[:1]]).to_json() == learnt.measure(frame).to_json()
    assert not afterfit.compare_drift(learnt, frame).alarm


def test_long_names_that_differ_only_at_the_end_stay_different():
    frame = pd.DataFrame({"name": ["x" * 9_999 + end for end in "ab"] * 50, "x": np.arange(100.0)})
    assert afterfit.profile(frame).counts[0].levels[3:].tolist() == [50, 50]


def test_numbers_at_the_edge_of_floats_are_learnt_and_compared():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "huge": rng.choice([1e308, -1e308, 0.0, 1.0], size=2_000),
            "mixed": np.where(rng.random(2_000) < 0.01, 1e308, rng.normal(size=2_000)),
            "tiny": rng.normal(size=2_000) * 1e-308,
            "infinite": np.where(rng.random(2_000) < 0.5, np.inf, rng.normal(size=2_000)),
            "none": np.nan,
            "constant": 7.0,
            "whole": rng.integers(-(2**62), 2**62, size=2_000),
            "ends": rng.choice([1e308, -1e308], size=2_000),
        }
    )
    learnt = afterfit.profile(frame)
    assert not afterfit.compare_drift(learnt, frame).alarm
    assert Profile.from_json(learnt.to_json()).to_json() == learnt.to_json()
    assert learnt.counts[3].invalid == np.isinf(frame["infinite"]).sum()
    assert np.count_nonzero(learnt.counts[1].levels) > 25, "a few huge values must not hide how the others lie"


@pytest.mark.slow
def test_a_million_distinct_names_stay_bounded():
    frame = pd.DataFrame({"id": np.arange(1_000_000).astype(str), "x": np.arange(1_000_000.0)})
    learnt = afterfit.profile(frame)
    assert len(learnt.to_json()) < 200_000
    assert not afterfit.compare_drift(learnt, frame.iloc[:5_000]).columns["id"].alarm


@pytest.mark.slow
def test_five_thousand_columns_are_profiled_and_compared():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(300, 5_000)), columns=[f"x{i}" for i in range(5_000)])
    learnt = afterfit.profile(frame)
    report = afterfit.compare_drift(learnt, frame.assign(x77=frame["x77"] + 1))
    assert [name for name, column in report.columns.items() if column.alarm] == ["x77"]
