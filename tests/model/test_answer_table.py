import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from afterfit.model.answer_table import answer_table
from afterfit.use_case import ANSWER_COLUMNS
from made import made_table


def mixed(rows=60):
    """Good rows, gaps, categories never seen, numbers out of range, rows with one error and with two."""
    frame = made_table(rows, seed=4).drop(columns=["delay", "late"]).astype(object)
    frame["id"] = [f"r{k}" for k in range(rows)]
    frame.loc[3, "carrier"] = "ZZ"
    frame.loc[4, ["distance", "carrier"]] = [10**30, None]
    frame.loc[5, "seats"] = "many"
    frame.loc[6, ["seats", "when"]] = ["many", "soon"]
    frame.loc[7, "secret"] = "hidden"
    frame.loc[8, "seats"] = 55.5
    return frame


def warnings_of(answer):
    found = [one for one in answer["warnings"] if one["code"] != "unknown_column"]
    return [(one["column"], one["code"], None if one["value"] is None else str(one["value"])) for one in found]


@pytest.mark.parametrize("kind", ["bundle", "regression_bundle", "multiclass_bundle"])
def test_each_row_of_the_table_is_the_answer_of_the_bundle(kind, request):
    bundle, frame = request.getfixturevalue(kind), mixed()
    table, _, predictions = answer_table(bundle, frame, ["id"], 100)
    assert len(predictions) == table.num_rows == len(frame)
    names = list(bundle.scorer.classes or ())
    for number, (row, answer) in enumerate(zip(table.to_pylist(), bundle.answers(frame), strict=True)):
        assert (row["row"], row["id"]) == (100 + number, f"r{number}")
        if row.get("probabilities") is not None:
            row["probabilities"] = dict(zip(names, row["probabilities"], strict=True))
        told = {"prediction_id", "warnings", "error"}
        assert {key: row[key] for key in answer if key not in told} == {
            k: v for k, v in answer.items() if k not in told
        }
        assert [tuple(one.values()) for one in row["warnings"]] == warnings_of(answer)
        first = answer["error"] and {key: answer["error"][key] for key in ("column", "code", "value")}
        assert (row["error"][0] if row["error"] else None) == first


def test_all_errors_of_a_row_are_listed(bundle):
    table, checked, _ = answer_table(bundle, mixed(), [], 0)
    assert [one["column"] for one in table["error"][6].as_py()] == ["when", "seats"]
    assert [one["column"] for one in checked.unknown] == ["id"]


def test_a_prediction_that_is_no_number_is_an_error(regression_bundle, monkeypatch):
    monkeypatch.setattr(
        type(regression_bundle.scorer.estimator), "predict", lambda _, X: np.where(np.arange(len(X)) == 1, np.nan, 1.0)
    )
    table, _, _ = answer_table(regression_bundle, mixed().head(6), [], 0)
    assert [row and row[0]["code"] for row in table["error"].to_pylist()] == [
        [], "no_number", [], [], [], "invalid_number",
    ]  # fmt: skip
    assert table["prediction"].null_count == 2


def test_ids_are_unique_over_rows_and_batches(bundle):
    batches = [answer_table(bundle, mixed(), [], 0)[0]["prediction_id"].to_pylist() for _ in range(2)]
    assert len({*batches[0], *batches[1]}) == 120
    assert all(re.fullmatch(r"[0-9a-f]{32}-\d+", one) for one in batches[0])


@pytest.mark.parametrize("kind", ["bundle", "regression_bundle", "multiclass_bundle"])
def test_batches_share_one_schema_also_without_rows_or_warnings(kind, request):
    bundle, frame = request.getfixturevalue(kind), mixed()
    schema = answer_table(bundle, frame, [], 0)[0].schema
    for part in (frame.head(0), frame.head(1), frame.iloc[[5]]):
        assert answer_table(bundle, part, [], 0)[0].schema == schema
    assert pa.concat_tables([answer_table(bundle, frame, [], 0)[0]] * 2).num_rows == 120


def test_kept_columns_that_are_not_there_are_left_out(bundle):
    assert "nowhere" not in answer_table(bundle, mixed(), ["id", "nowhere"], 0)[0].column_names


def test_private_values_stay_away(bundle):
    assert "hidden" not in str(answer_table(bundle, mixed(), [], 0)[0].to_pylist())


def test_the_values_of_kept_columns_are_those_of_the_source(bundle):
    frame = mixed().assign(when=lambda table: pd.to_datetime(table["when"], errors="coerce"))
    kept = answer_table(bundle, frame, ["when"], 0)[0]["when"].to_pandas()
    pd.testing.assert_series_equal(kept, frame["when"], check_dtype=False, check_names=False)


@pytest.mark.parametrize("kind", ["bundle", "regression_bundle", "multiclass_bundle"])
def test_a_column_of_the_source_is_never_lost_to_one_of_the_answer(kind, request):
    names = [*sorted(ANSWER_COLUMNS), "source.row", "source.source.row"]
    frame = mixed().assign(**{name: f"own {name}" for name in names})
    made = answer_table(request.getfixturevalue(kind), frame, names, 0)[0]
    assert set(made.column_names) - {f"source.{name}" for name in names} <= ANSWER_COLUMNS
    for name in names:
        assert made[f"source.{name}"].to_pylist() == [f"own {name}"] * len(frame)


@pytest.mark.parametrize("kind", ["bundle", "regression_bundle", "multiclass_bundle"])
def test_all_columns_of_an_answer_are_known_by_name(kind, request):
    assert set(answer_table(request.getfixturevalue(kind), mixed(), [], 0)[0].column_names) <= ANSWER_COLUMNS
