"""The log around a model: scored batches and served answers go in, outcomes follow, seal tidies up."""

import json
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from afterfit import prediction_log
from afterfit.errors import LogError
from afterfit.mlflow_store import registry
from afterfit.model.answer_table import answer_table
from afterfit.prediction_log import from_bundle
from afterfit.prediction_log.from_bundle import ServedLog
from made import made_table
from made_log import NOON, entry, ids, read
from made_sizes import made_table as small_table


@pytest.fixture
def case(tmp_path, write_use_case):
    """A settings file with a log and a key."""
    table = small_table(60).assign(id=np.arange(60))
    log = {"folder": "log", "keep_days": 3}
    return str(write_use_case(tmp_path, table=table, key=["id"], log=log))


@pytest.fixture
def log(case):
    from afterfit.use_case import load_use_case

    return prediction_log.log_of(load_use_case(case))


# --- a bundle's answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bundle", "regression_bundle", "multiclass_bundle"])
def test_a_batch_is_logged_like_the_same_rows_one_by_one(kind, request, tmp_path):
    bundle = request.getfixturevalue(kind)
    frame = made_table(40, seed=3).drop(columns=["delay", "late"])
    frame.loc[3, "carrier"] = "ZZ"
    frame["seats"] = frame["seats"].astype(object)
    frame.loc[4, "seats"] = "many"
    answered, _, _ = answer_table(bundle, frame, [], 0)
    one, other = (prediction_log.log_at(str(tmp_path / name), "made") for name in "ab")
    hidden = from_bundle.private_columns(bundle)
    prediction_log.write_table(
        one, "batch-0", "answers", from_bundle.batch(bundle, frame, answered, time=NOON, hidden=hidden)
    )
    ServedLog(str(other.folder), bundle).answers(frame)
    mine, theirs = (read(log).to_pandas() for log in (one, other))
    assert not set(frame["secret"]) & set(mine["secret"])
    changing = ["prediction_id", "time", "seconds", "warnings", "error", "when"]
    pd.testing.assert_frame_equal(
        mine.drop(columns=changing), theirs.drop(columns=changing), check_dtype=False, check_like=True
    )
    assert (pd.to_datetime(mine["when"]) == pd.to_datetime(theirs["when"])).all()
    assert json.loads(mine.loc[3, "warnings"])[-1]["code"] == json.loads(theirs.loc[3, "warnings"])[-1]["code"]
    assert json.loads(mine.loc[4, "error"])["code"] == json.loads(theirs.loc[4, "error"])["code"] == "invalid_number"


def test_writing_a_batch_again_under_its_name_changes_nothing(bundle, tmp_path):
    log = prediction_log.log_at(str(tmp_path), "made")
    frame = made_table(10)
    answered, _, _ = answer_table(bundle, frame, [], 0)
    for _ in range(2):
        prediction_log.write_table(
            log, "batch-0", "answers", from_bundle.batch(bundle, frame, answered, time=NOON, hidden=())
        )
    assert len(ids(log)) == 10
    assert not prediction_log.unknown_ids(log, ids(log))


def test_answers_served_from_several_threads_are_all_logged(bundle, tmp_path):
    served, given = ServedLog(str(tmp_path), bundle), []

    def ask():
        for _ in range(10):
            given.extend(one["prediction_id"] for one in served.answers(made_table(3)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert ids(prediction_log.log_at(str(tmp_path), "made")) == sorted(given)


def test_an_answer_that_cannot_be_logged_is_not_given(bundle, tmp_path):
    (tmp_path / "log").write_text("a file")
    with pytest.raises(LogError):
        ServedLog(str(tmp_path / "log"), bundle).answers(made_table(1))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_model_that_mlflow_loads_logs_only_where_the_variable_says_so(bundle, tmp_path, monkeypatch):
    from mlflow.exceptions import MlflowException

    from afterfit.served import ServedBundle

    model = ServedBundle()
    model.bundle, model.log = bundle, None
    assert len(model.predict(None, made_table(2))) == 2
    model.log = ServedLog(str(tmp_path / "log"), bundle)
    given = [one["prediction_id"] for one in model.predict(None, made_table(2))]
    assert ids(prediction_log.log_at(str(tmp_path / "log"), "made")) == sorted(given)
    monkeypatch.setattr(model, "log", SimpleNamespace(answers=_failing))
    with pytest.raises(MlflowException, match="cannot be written") as caught:
        model.predict(None, made_table(1))
    assert caught.value.get_http_status_code() == 503


def _failing(_frame):
    raise LogError("/a/path: the disk is full")


@pytest.mark.slow
def test_score_and_a_loaded_version_write_the_log_that_the_variable_names(
    store, write_use_case, command_line, monkeypatch
):
    import mlflow

    from afterfit.commands import train

    file = str(write_use_case(store))
    train.command(file)
    monkeypatch.setenv("AFTERFIT_LOG", str(store / "log"))
    log = prediction_log.log_at(str(store / "log"), "sizes")
    code, _, err = command_line("score", config=file, version="1", out=str(store / "scores.parquet"))
    assert (code, err) == (0, "")
    scores = pd.read_parquet(store / "scores.parquet")
    logged = read(log).to_pandas()
    assert sorted(logged["prediction_id"]) == sorted(scores["prediction_id"])
    assert "outcome" in logged
    assert "outcome" not in prediction_log.features_of(read(log)).column_names
    model = mlflow.pyfunc.load_model("models:/sizes/1")
    answer = model.predict(pd.DataFrame([{"size": 1.5, "count": 3, "colour": "red"}]))[0]
    assert not prediction_log.unknown_ids(log, [answer["prediction_id"]])


# --- outcomes and seal ---------------------------------------------------------------------------------------------


def test_outcomes_come_from_the_source_by_key_and_again_without_harm(case, log, command_line, tmp_path):
    spool = log.spool()
    spool.write([entry(f"a{i}", key=[i]) for i in range(40)])
    spool.close()
    code, out, _ = command_line("outcomes", config=case, json=str(tmp_path / "told.json"))
    assert code == 0
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["new"], told["repeated"], told["unknown"], told["without"]) == (60, 0, 20, 0)
    assert "60 outcomes are new" in out
    assert set(read(log)["outcome"].to_pylist()) == {"yes", "no"}
    _, out, _ = command_line("outcomes", config=case)
    assert "0 outcomes are new, 60 were known" in out


def test_outcomes_by_prediction_id_and_a_changed_one_wins(case, log, command_line, tmp_path):
    spool = log.spool()
    spool.write([entry("a"), entry("b")])
    table = tmp_path / "late.csv"
    for first in ("yes", "no"):
        pd.DataFrame({"prediction_id": ["a", "c", "d"], "outcome": [first, "no", None]}).to_csv(table, index=False)
        code, out, _ = command_line("outcomes", config=case, data=str(table))
        assert code == 0
    assert "1 outcomes are new, 1 were known, of 3 rows (1 without a target or key)" in out
    assert "1 belong to no answer" in out
    assert read(log)["outcome"].to_pylist() == ["no", None]
    spool.close()


@pytest.mark.parametrize(
    ("options", "columns", "message"),
    [
        ({"by": "name"}, ["id", "outcome"], "prediction_id or key"),
        ({"by": "prediction_id"}, ["id", "outcome"], "lacks prediction_id"),
        ({}, ["id"], "lacks outcome"),
        ({}, ["outcome"], "lacks id"),
    ],
)
def test_a_table_that_cannot_be_joined_is_refused(case, command_line, tmp_path, options, columns, message):
    table = tmp_path / "late.csv"
    pd.DataFrame({"id": [1], "outcome": ["yes"]})[columns].to_csv(table, index=False)
    code, _, err = command_line("outcomes", config=case, data=str(table), **options)
    assert code == 2
    assert message in err


def test_seal_takes_over_what_is_left_and_removes_old_days(case, log, command_line, tmp_path):
    spool = log.spool()
    spool.write([entry("old", 1_700_000_000_000_000), entry("new", 4_000_000_000_000_000)])
    spool.close()
    code, out, _ = command_line("seal", config=case, json=str(tmp_path / "told.json"))
    assert code == 0
    assert "Sealed 2 answers and 0 outcomes of 1 processes that are gone into 2 parts" in out
    assert json.loads((tmp_path / "told.json").read_text())["removed"] == 2
    assert ids(log) == ["new"]


def test_without_a_log_the_settings_that_name_one_are_said(tmp_path, write_use_case, command_line, monkeypatch):
    file = str(write_use_case(tmp_path))
    code, _, err = command_line("seal", config=file)
    assert code == 2
    assert "keeps no prediction log" in err
    monkeypatch.setenv("AFTERFIT_LOG", str(tmp_path / "elsewhere"))
    assert command_line("seal", config=file)[0] == 0


def test_a_log_on_s3_needs_a_local_folder_for_its_spools(tmp_path, write_use_case):
    from afterfit.errors import SettingsError
    from afterfit.use_case import load_use_case

    with pytest.raises(SettingsError, match="name a local folder as spool"):
        load_use_case(write_use_case(tmp_path, log={"folder": "s3://bucket/log"}))
    log = prediction_log.log_of(load_use_case(write_use_case(tmp_path, log={"folder": "s3://b/log", "spool": "here"})))
    assert (log.folder, log.root) == (tmp_path / "here", "s3://b/log")


def test_an_outcome_that_the_version_in_production_does_not_know_is_refused(case, log, command_line, tmp_path):
    from afterfit.commands import train

    train.command(case)
    registry.set_alias(registry.version("sizes", "1"), "production")
    table = tmp_path / "late.csv"
    pd.DataFrame({"id": [1, 2], "outcome": ["yes", "perhaps"]}).to_csv(table, index=False)
    code, _, err = command_line("outcomes", config=case, data=str(table))
    assert code == 2
    assert "none of 'no', 'yes'" in err
    assert "perhaps" in err
    assert list(log.store.parts("outcomes")) == []
