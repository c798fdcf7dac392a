import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import all_estimators
from skops.io._utils import get_type_name

from afterfit.errors import BundleError, SchemaError
from afterfit.model.bundle import load, save
from afterfit.model.safe_loading import is_estimator
from afterfit.model.training import train
from afterfit.model.version_files import FILES
from made import BOOSTER, ROOT, bundled, made_table, manifest, posed, use_case

ODD = [
    None,
    "",
    "AA",
    "never seen",
    "12.5",
    "true",
    "2024-01-05T03:00:00Z",
    "soon",
    "x7",
    math.nan,
    math.inf,
    -math.inf,
]
NUMBERS = [0, -1, 7, 10**30, 1e300, 500.0, 12.5, True, False]
MOMENTS = [pd.Timestamp("2024-01-05 03:00"), pd.Timestamp("2030-06-07T08:09:10.5", tz="Europe/Paris"), pd.NaT, pd.NA]
CELLS = st.one_of(
    st.sampled_from(ODD + NUMBERS + MOMENTS), st.floats(allow_nan=True), st.integers(), st.text(max_size=8)
)
COLUMNS = ("when", "distance", "seats", "carrier", "secret", "carier", "extra")
ROWS = st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, CELLS)), min_size=2, max_size=5)


def without_id(answer):
    return {key: value for key, value in answer.items() if key != "prediction_id"}


def strict(answers):
    return json.dumps(answers, allow_nan=False)


@pytest.fixture(params=["bundle", "regression_bundle", "multiclass_bundle"])
def any_bundle(request):
    return request.getfixturevalue(request.param)


def test_a_bundle_read_back_answers_the_same(bundle, trained):
    frame = made_table(80, seed=5)
    _, before = trained.scorer.score(frame)
    _, after = bundle.scorer.score(frame)
    np.testing.assert_array_equal(before.probabilities, after.probabilities)
    assert [answer["probability"] for answer in bundle.answers(frame)] == before.probability.tolist()
    assert bundle.scorer.classes == (False, True)
    np.testing.assert_array_equal(bundle.scorer.constant(2).probabilities, trained.scorer.constant(2).probabilities)


def test_reading_a_bundle_again_gives_its_digest(folder):
    assert load(folder, load(folder).digest, "7").version == "7"


def test_the_expected_metrics_keep_their_key_in_the_file(folder):
    expected = load(folder).manifest.expected
    assert json.loads((folder / "manifest.json").read_text())["promise"] == expected
    assert load(folder).manifest.to_dict()["promise"] == expected


@pytest.fixture
def folder(trained, tmp_path):
    bundled(trained, tmp_path, use_case())
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_an_altered_file_is_refused_before_it_is_read(name, folder, bundle, monkeypatch):
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    monkeypatch.setattr("skops.io.loads", lambda *_, **__: pytest.fail("the estimator was read"))
    monkeypatch.setattr("afterfit.model.bundle._read", lambda _: pytest.fail("a file was read"))
    with pytest.raises(BundleError, match="is not the one that was registered"):
        load(folder, bundle.digest)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name, folder):
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"not whole: {name} is missing"):
        load(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"null", b"7", b'{"format": 1', b"\xff\xfe"])
def test_a_file_that_holds_something_else_is_a_sentence(name, content, folder):
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError):
        load(folder)


@pytest.mark.parametrize("name", ["contract.json", "encoder.json", "manifest.json"])
@pytest.mark.parametrize("content", [b"{}", b"[]", b'{"format": 1}'])
def test_a_file_without_its_fields_is_a_sentence(name, content, folder):
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=r"must have format|does not hold what it should"):
        load(folder)


def test_an_unknown_format_says_which_one_is_read(folder):
    told = json.loads((folder / "manifest.json").read_text("utf-8"))
    (folder / "manifest.json").write_text(json.dumps(told | {"format": 99}), "utf-8")
    with pytest.raises(BundleError, match="must have format 1, which this release reads; got 99"):
        load(folder)


class Own(ClassifierMixin, BaseEstimator):
    """A model that is not scikit-learn's own."""

    def fit(self, _, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.zeros(len(X))


def test_a_type_outside_the_list_is_named_and_nothing_is_written(trained, tmp_path):
    foreign = replace(trained.scorer, estimator=Own().fit(np.zeros((2, 1)), [0, 1]))
    with pytest.raises(BundleError, match=r"Own holds types that are not on the allow-list of bundles: .*\.Own\."):
        save(foreign, manifest(use_case()), [], tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_cannot_bring_a_type_of_its_own(folder):
    import skops.io

    skops.io.dump(Own(), folder / "estimator.skops")
    with pytest.raises(BundleError, match="not on the allow-list"):
        load(folder)


def test_a_pickle_is_never_read(folder, tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    (folder / "estimator.skops").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BundleError, match="cannot be read"):
        load(folder)
    assert not (tmp_path / "sprung").exists()


def test_a_value_without_a_place_in_json_is_named_with_its_file(trained, tmp_path):
    told = replace(manifest(use_case()), params={"rate": math.nan})
    with pytest.raises(BundleError, match=r"manifest\.json holds a value that has no place in JSON"):
        save(trained.scorer, told, [], tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_folder_that_cannot_be_written_is_a_sentence(trained, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="cannot be written to"):
        save(trained.scorer, manifest(use_case()), [], tmp_path / "file" / "bundle")


@settings(deadline=None, max_examples=80)
@given(rows=ROWS)
@pytest.mark.parametrize("kind", ["bundle", "regression_bundle", "multiclass_bundle"])
def test_rows_are_answered_alike_alone_and_together_and_always_in_strict_json(kind, rows, request):
    one = request.getfixturevalue(kind)
    frame = pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in COLUMNS})
    alone = [without_id(one.answer(row)) for row in frame.to_dict(orient="records")]
    together = [without_id(answer) for answer in one.answers(frame)]
    assert strict(alone) == strict(together)


@settings(deadline=None, max_examples=50)
@given(rows=ROWS)
def test_any_single_row_is_answered_by_every_door(bundle, rows):
    for row in rows:
        alone = without_id(bundle.answer(row))
        strict(alone)
        frame = pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in row.items()}, index=[0])
        assert strict([without_id(one) for one in bundle.answers(frame)]) == strict([alone])


def test_typed_columns_and_plain_values_are_answered_alike(any_bundle):
    frame = made_table(40, seed=9)
    rows = [
        {**row, "when": row["when"].isoformat(), "distance": None if math.isnan(row["distance"]) else row["distance"]}
        for row in frame.to_dict(orient="records")
    ]
    together = [without_id(answer) for answer in any_bundle.answers(frame)]
    assert strict(together) == strict([without_id(any_bundle.answer(row)) for row in rows])


def test_each_answer_has_an_id_of_its_own(bundle):
    ids = [answer["prediction_id"] for answer in bundle.answers(made_table(50))]
    assert len(set(ids)) == 50
    assert all(len(one) == 32 for one in ids)


def test_one_bad_row_never_costs_the_others_their_answer(any_bundle):
    frame = made_table(3).astype(object)
    frame.loc[1, "distance"] = "far"
    first, bad, last = any_bundle.answers(frame)
    assert first["error"] is last["error"] is None
    assert None not in {first["prediction"], last["prediction"]}
    assert bad["error"]["column"] == "distance"
    assert "must be a number; 'far' came" in bad["error"]["message"]
    assert {value for key, value in bad.items() if key in {"prediction", "probability", "confidence", "lower"}} == {
        None
    }
    assert list(bad) == list(first)


def test_an_unknown_column_is_named_once_in_every_answer_with_the_name_that_was_meant(bundle):
    frame = made_table(3).rename(columns={"carrier": "carier"}).drop(columns=["delay", "late"])
    for answer in bundle.answers(frame):
        told = [one for one in answer["warnings"] if one["code"] == "unknown_column"]
        assert told == [{"column": "carier", "code": "unknown_column", "value": None, "suggestion": "carrier"}]
    first, second, _ = bundle.answers(frame)
    first["warnings"][-1]["suggestion"] = "changed"
    assert second["warnings"][-1]["suggestion"] == "carrier"


def test_two_columns_of_one_name_are_refused_for_one_row_and_for_many(bundle):
    frame = made_table(2)
    doubled = pd.concat([frame, frame[["carrier"]]], axis=1)
    for rows in (1, 2):
        with pytest.raises(SchemaError, match="carrier"):
            bundle.answers(doubled.head(rows))


def test_two_classes_answer_a_probability_of_the_positive_one(bundle):
    for answer in bundle.answers(made_table(60)):
        assert answer["prediction"] is (answer["probability"] >= 0.5)
        assert answer["confidence"] == max(answer["probability"], 1 - answer["probability"])


def test_several_classes_answer_one_probability_each(multiclass_bundle):
    for answer in multiclass_bundle.answers(made_table(60)):
        shares = answer["probabilities"]
        assert list(shares) == ["early", "fair", "late"]
        assert sum(shares.values()) == pytest.approx(1)
        assert answer["confidence"] == shares[answer["prediction"]] == max(shares.values())


def test_a_number_comes_with_an_interval_that_holds_nine_of_ten(regression_bundle):
    frame = made_table(400, seed=3)
    answers = regression_bundle.answers(frame)
    assert all(one["lower"] <= one["prediction"] <= one["upper"] for one in answers)
    held = [one["lower"] <= y <= one["upper"] for one, y in zip(answers, frame["delay"], strict=True)]
    assert 0.85 <= np.mean(held) <= 0.97
    assert "confidence" not in answers[0]


def test_a_prediction_that_is_no_number_is_an_error_and_not_a_nan(regression_bundle):
    class Broken:
        def predict(self, matrix):
            return np.array([np.nan, np.inf, 1.0, 1.7e308])[: len(matrix)]

    scorer = replace(regression_bundle.scorer, estimator=Broken(), offsets=(-1e308, 1e308))
    answers = replace(regression_bundle, scorer=scorer).answers(made_table(4))
    strict(answers)
    assert [one["error"] and one["error"]["code"] for one in answers] == ["no_number", "no_number", None, "no_number"]


def test_a_private_column_is_never_shown(bundle):
    frame = made_table(2).astype(object)
    frame["secret"] = "my diagnosis"
    assert "unseen_category" not in strict(bundle.answers(frame))
    assert "diagnosis" not in strict(bundle.answers(frame))
    assert "diagnosis" not in strict([bundle.answer(row) for row in frame.to_dict(orient="records")])


def test_a_private_number_that_cannot_be_read_is_not_repeated_in_its_error(tmp_path):
    case = use_case(columns={"private": ["distance"]})
    one = bundled(train(posed(case, made_table(120)), "dummy", {}), tmp_path, case)
    answer = one.answer({"distance": "four thousand"})
    assert answer["error"]["code"] == "invalid_number"
    assert "thousand" not in strict(answer)


def test_an_empty_frame_has_no_answers(any_bundle):
    assert any_bundle.answers(made_table(5).head(0)) == []
    assert any_bundle.answers(pd.DataFrame()) == []


def test_a_row_without_anything_is_answered_with_a_warning_a_column(any_bundle):
    answer = any_bundle.answer({})
    assert answer["error"] is None
    assert [one["code"] for one in answer["warnings"]] == ["absent_column"] * 5


def test_labels_keep_their_type_through_the_files(tmp_path):
    case = use_case(time=None)
    frame = made_table(150)
    for labels in [(0, 1), ("no", "yes"), (1.5, 2.5), (False, True)]:
        folder = tmp_path / str(labels)
        found = train(posed(case, frame, labels), "hist_gradient_boosting", BOOSTER)
        said = {answer["prediction"] for answer in bundled(found, folder, case).answers(frame)}
        assert said == set(labels)
        assert {type(label) for label in said} == {type(labels[0])}
        shutil.rmtree(folder)


def test_a_package_is_loaded_only_where_the_process_trusts_it(tmp_path, monkeypatch):
    case = use_case()
    monkeypatch.setenv("AFTERFIT_TRUSTED_PACKAGES", "lightgbm, made_estimators")
    found = train(posed(case, made_table()), "made_estimators.ShareByCode", {"strength": 2.0})
    folder = tmp_path / "bundle"
    saved = bundled(found, folder, case)
    again = load(folder).answer({"carrier": "AA"})
    assert again["probability"] == saved.answer({"carrier": "AA"})["probability"]
    monkeypatch.setenv("AFTERFIT_TRUSTED_PACKAGES", "lightgbm")
    with pytest.raises(BundleError, match="Set AFTERFIT_TRUSTED_PACKAGES to the packages that you trust"):
        load(folder)


def test_public_estimators_are_known_without_importing_all_and_nothing_else_is():
    trusted = {name for name in map(get_type_name, (found for _, found in all_estimators())) if "sklearn." in name}
    assert len(trusted) > 150
    assert {name for name in trusted if not is_estimator(name)} == set()
    for name in (
        "sklearn.base.BaseEstimator",
        "sklearn.base.clone",
        "sklearn.utils.all_estimators",
        "sklearn.ensemble._forest.ForestClassifier",
        "sklearn.ensemble._forest.BaseForest",
        "sklearn.tests.test_base.MyEstimator",
        "sklearn.nowhere.Model",
        "sklearn.ensemble._forest.sys",
        "os.system",
        "sklearn",
    ):
        assert not is_estimator(name)


def test_a_process_that_starts_quickly_loads_the_same_bundle_and_gives_the_same_answers(bundle, tmp_path):
    folder = tmp_path / "bundle"
    save(bundle.scorer, bundle.manifest, bundle.example, folder)
    code = """if True:
        import sys, sklearn.utils
        sklearn.utils.all_estimators = lambda *_: []
        from pathlib import Path
        from afterfit.model.bundle import load
        loaded = load(Path(sys.argv[1]))
        print(loaded.answer(loaded.example[0])["probability"])
    """
    source = str(ROOT / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(bundle.answer(bundle.example[0])["probability"])
