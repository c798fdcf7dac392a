import json

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from afterfit.contract.contract import learn
from afterfit.contract.encoder import Encoder, fit_encoder, mask_some
from afterfit.errors import DataError


def table(rows=400, days=30):
    number = np.arange(rows)
    return pd.DataFrame(
        {
            "dest": np.select([number % 10 < 6, number % 10 < 9], ["ORD", "LAX"], [f"rare{n}" for n in number]),
            "distance": number * 2.5,
            "late": number % 2 == 0,
            "departure": pd.Timestamp("2013-01-01") + pd.to_timedelta(number * days / rows, unit="D").round("min"),
        }
    )


def fitted(frame, **options):
    contract = learn(frame)
    return contract, fit_encoder(contract, contract.check_frame(frame), **options)


def encoded(frame, **options):
    contract, encoder = fitted(frame, **options)
    return encoder, encoder.encode_frame(contract.check_frame(frame))


def test_frequent_categories_keep_a_code_and_the_others_share_the_last_one():
    contract, encoder = fitted(table())
    assert encoder.features == ("dest", "distance", "late", "departure.hour", "departure.weekday")
    assert encoder.categorical == (True, False, False, False, False)
    assert encoder.sizes == (3, 0, 0, 0, 0)
    codes = encoder.encode_frame(contract.check_frame(pd.DataFrame({"dest": ["ORD", "LAX", "rare9", "new", None]})))
    np.testing.assert_array_equal(codes[:, 0], [0, 1, 2, 2, np.nan])


def test_categories_beyond_the_limit_become_other():
    frame = pd.DataFrame({"tail": [f"N{number % 300:03}" for number in range(9_000)]})
    encoder, matrix = encoded(frame)
    assert encoder.sizes == (201,)
    assert (matrix[:, 0] == 200).sum() == 100 * 30
    HistGradientBoostingClassifier(categorical_features=[0], max_iter=2).fit(matrix, np.arange(9_000) % 2)
    with pytest.raises(DataError, match="from 1 to 254"):
        fitted(frame, max_categories=255)


def test_a_date_gives_its_hour_weekday_and_day_of_year():
    contract, encoder = fitted(table(days=900)[["departure"]])
    assert encoder.features == ("departure.hour", "departure.weekday", "departure.yearday")
    for text, parts in {
        "2013-01-07T06:30": [6.5, 0, 7],  # a Monday
        "2024-12-31T23:59:59.999999": [23.999999999722222, 1, 366],
        "1969-07-20T20:15": [20.25, 6, 201],
    }.items():
        assert encoder.encode_row(contract.check_row({"departure": text})) == pytest.approx(parts)
        frame = contract.check_frame(pd.DataFrame({"departure": [text]}))
        assert encoder.encode_frame(frame)[0].tolist() == pytest.approx(parts)


@pytest.mark.parametrize(
    ("days", "step", "features"),
    [
        (10, "h", ("d.hour",)),
        (20, "D", ("d.weekday",)),
        (20, "h", ("d.hour", "d.weekday")),
        (800, "D", ("d.weekday", "d.yearday")),
    ],
)
def test_only_parts_of_a_date_that_come_again_are_used(days, step, features):
    dates = pd.date_range("2013-01-01", periods=days * (24 if step == "h" else 1) + 1, freq=step)
    _, encoder = fitted(pd.DataFrame({"d": dates}))
    assert encoder.features == features


def test_the_time_itself_is_never_a_feature():
    _, matrix = encoded(table(days=900)[["departure"]])
    for feature in matrix.T:
        assert abs(np.corrcoef(np.arange(len(feature)), feature)[0, 1]) < 0.9


@pytest.mark.parametrize(("number", "expected"), [(1e308, 3.4028234663852886e38), (-1e39, -3.4028234663852886e38)])
def test_numbers_beyond_float32_are_clipped_in_both_forms_so_that_forests_answer(number, expected):
    frame = table()[["distance"]]
    contract, encoder = fitted(frame)
    assert encoder.encode_row(contract.check_row({"distance": number})) == [expected]
    matrix = encoder.encode_frame(contract.check_frame(pd.DataFrame({"distance": [number]})))
    assert matrix[0, 0] == expected
    forest = RandomForestClassifier(n_estimators=2).fit(
        encoder.encode_frame(contract.check_frame(frame)), frame.index % 2
    )
    assert forest.predict(matrix).shape == (1,)


def test_rows_with_errors_are_encoded_with_their_unreadable_values_missing():
    contract, encoder = fitted(table())
    row = {"dest": "ORD", "distance": "far", "late": "maybe", "departure": 7}
    np.testing.assert_array_equal(encoder.encode_row(contract.check_row(row)), [0, *[np.nan] * 4])
    np.testing.assert_array_equal(
        encoder.encode_frame(contract.check_frame(pd.DataFrame([row])))[0], [0, *[np.nan] * 4]
    )


def test_the_matrix_lies_by_columns_as_boosters_read_it():
    _, matrix = encoded(table())
    assert matrix.flags.f_contiguous
    assert matrix.dtype == np.float64


def test_columns_that_tell_nothing_apart_are_left_out():
    frame = table().assign(empty=np.nan, key=[f"k{number}" for number in range(400)], day=pd.Timestamp("2013-01-01"))
    encoder, _ = encoded(frame)
    assert not {"empty", "key", "day.hour"} & set(encoder.features)


def test_a_table_without_any_usable_column_is_refused_in_a_sentence():
    frame = pd.DataFrame({"key": ["a", "b", "c"], "empty": [np.nan] * 3})
    with pytest.raises(DataError, match="No column can be used as a feature"):
        fitted(frame)


def test_features_keep_different_names_where_a_column_is_called_like_a_part():
    frame = table()[["departure"]].assign(**{"departure.hour": np.arange(400.0)})
    encoder, _ = encoded(frame)
    assert len(set(encoder.features)) == len(encoder.features) == 3


def test_a_frame_without_rows_gives_a_matrix_without_rows():
    contract, encoder = fitted(table())
    assert encoder.encode_frame(contract.check_frame(table().iloc[:0])).shape == (0, 5)


def test_an_encoder_is_the_same_after_json_and_reads_strictly():
    _, encoder = fitted(table())
    assert Encoder.from_dict(json.loads(json.dumps(encoder.to_dict()))) == encoder
    saved = encoder.to_dict()
    feature = saved["features"][0]
    for broken in (
        {},
        saved | {"format": 0},
        saved | {"features": []},
        saved | {"features": [feature | {"part": "value"}]},
        saved | {"features": [feature | {"column": "unknown"}]},
        saved | {"features": [feature | {"categories": "ORD"}]},
        saved | {"features": [{"name": "dest"}]},
    ):
        with pytest.raises(DataError):
            Encoder.from_dict(broken)


def test_masking_gives_other_and_missing_a_meaning_by_the_stated_shares():
    frame = table().replace({"dest": r"rare.*"}, "ORD", regex=True)
    frame.loc[:9, "distance"] = np.nan
    encoder, matrix = encoded(frame)
    before = matrix.copy()
    masked = mask_some(matrix, encoder, np.random.default_rng(1))
    np.testing.assert_array_equal(matrix, before)
    assert (masked[:, 0] == encoder.sizes[0] - 1).sum() in {2, 3, 4}  # 4, less those that were then set missing
    np.testing.assert_array_equal(np.isnan(masked).sum(axis=0), [2, 10, 2, 2, 2])
    np.testing.assert_array_equal(np.isnan(masked[:, 3]), np.isnan(masked[:, 4]))


def test_masking_leaves_a_column_alone_where_other_is_common_enough():
    encoder, matrix = encoded(table())
    masked = mask_some(matrix, encoder, np.random.default_rng(1), missing=0)
    np.testing.assert_array_equal(masked, matrix)


def test_masking_is_the_same_for_the_same_seed_and_differs_for_another():
    encoder, matrix = encoded(table())
    one, same, other = (mask_some(matrix, encoder, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other, equal_nan=True)
