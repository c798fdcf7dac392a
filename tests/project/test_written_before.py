"""A store that version 0.1 wrote: its versions answer, its log is read, and its ledger, loop and monitoring go on."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from afterfit import prediction_log
from afterfit.commands import history, monitor, promote, rollback, step
from afterfit.errors import SettingsError
from afterfit.mlflow_store import ledger, monitor_runs, registry, step_journal
from afterfit.serving.engine import engine
from kept_store import know_folder, working_in
from made import FIXTURES, ROOT
from made_ledger import consistent
from made_log import ids, read
from made_loop import NOW

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
STEPS = ["2024-01-29", "2024-02-05", "2024-02-12"]
MONITORED = [*STEPS, "2024-02-19", "2024-02-26"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The store as it was kept."""
    folder = tmp_path_factory.mktemp("written")
    with tarfile.open(FIXTURES / "store-0.1.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "store"


def laid_down(written, place):
    """A copy of it, whose database knows where it lies."""
    folder = shutil.copytree(written, place / "store")
    know_folder(folder, (folder / "FOLDER").read_text("utf-8").strip())
    return folder


@pytest.fixture(scope="module")
def old_store(written, tmp_path_factory):
    """The store for tests that change nothing in it, as the working folder."""
    with working_in(laid_down(written, tmp_path_factory.mktemp("read"))) as folder:
        yield folder


@pytest.fixture
def config(written, tmp_path):
    """The settings file in a store of the test's own."""
    with working_in(laid_down(written, tmp_path)) as folder:
        yield str(folder / "changing.yaml")


@pytest.fixture
def old_log(old_store, tmp_path):
    """The log in a folder of the test's own."""
    shutil.copytree(old_store / "predictions", tmp_path / "log")
    return prediction_log.log_at(str(tmp_path / "log"), "changing")


@pytest.fixture(scope="module")
def asked(old_store):
    """Rows with the model's columns alone; what a server passes on to its log, the others would note as unknown."""
    rows = json.loads((old_store / "asked.json").read_text("utf-8"))
    return [{name: row[name] for name in ("size", "other")} for row in rows]


@pytest.fixture(scope="module")
def expected(old_store):
    return json.loads((old_store / "expected.json").read_text("utf-8"))


def without_ids(answers):
    return [{key: value for key, value in answer.items() if key != "prediction_id"} for answer in answers]


# --- its versions --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first_version(old_store):
    assert old_store.is_dir()
    return registry.load_bundle(registry.version("changing", "1"))


def test_a_version_loads_and_answers_as_its_server_did_to_the_last_bit(first_version, asked, expected):
    answers = [answer.to_dict() for answer in engine(first_version).answers(asked)]
    assert without_ids(answers) == without_ids(expected["served"])


def test_a_version_answers_logged_rows_as_mlflow_answered_them_to_the_last_bit(first_version, old_log, expected):
    assert without_ids(first_version.answers(rows_of(old_log, expected["pyfunc"]))) == without_ids(expected["pyfunc"])


def rows_of(log, answers):
    """What a log kept of the rows that were answered."""
    logged = read(log).to_pandas().set_index("prediction_id")
    return logged.loc[[answer["prediction_id"] for answer in answers], ["size", "other"]]


SERVED = """
import json, sys
import mlflow, pandas as pd
from fastapi.testclient import TestClient
from mlflow.pyfunc.scoring_server import init

rows = json.loads(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/changing/1")
loaded = model.predict(pd.DataFrame(rows))
answer = TestClient(init(model)).post("/invocations", json={"dataframe_records": rows})
import afterfit
print(json.dumps([afterfit.__file__, loaded, answer.json()["predictions"]]))
"""


def test_a_version_answers_with_its_own_code_loaded_by_mlflow_and_through_its_server(old_store, old_log, expected):
    rows = rows_of(old_log, expected["pyfunc"]).to_json(orient="records", double_precision=15)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", SERVED, rows]
    ran = subprocess.run(command, cwd=old_store, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    place, loaded, posted = json.loads(ran.stdout.splitlines()[-1])
    assert Path(place).is_relative_to(old_store)
    assert not Path(place).is_relative_to(ROOT)
    assert without_ids(loaded) == without_ids(expected["pyfunc"])
    assert without_ids(posted) == without_ids(expected["pyfunc"])


# --- its prediction log --------------------------------------------------------------------------------------------


def test_every_logged_answer_is_read_with_its_outcome_before_and_after_sealing(old_log, old_store, expected):
    before = read(old_log).to_pandas().set_index("prediction_id")
    assert len(before) == expected["rows"]
    assert before.index.is_unique
    served = [answer["prediction_id"] for kind in ("served", "last", "pyfunc") for answer in expected[kind]]
    assert set(served) <= set(before.index)

    sealed = prediction_log.seal(old_log)
    assert sealed.answers > 0
    assert list((old_log.folder / "spool").iterdir()) == []
    after = read(old_log).to_pandas().set_index("prediction_id")
    pd.testing.assert_frame_equal(after.loc[before.index], before, check_dtype=False)
    assert ids(old_log) == sorted(before.index)
    assert not prediction_log.unknown_ids(old_log, served)

    brought = set(pd.read_csv(old_store / "outcomes.csv")["id"])
    known = after.dropna(subset=["outcome"])
    assert 0 < after["id"].isin(brought).sum() == known["id"].isin(brought).sum() < len(known)
    known = known[known["id"].isin(brought)]
    real = pd.read_csv(old_store / "changing.csv").set_index("id")["late"].loc[known["id"]]
    assert known["outcome"].astype(bool).tolist() == real.tolist()
    assert prediction_log.seal(old_log).answers == 0


# --- its ledger, its loop, its monitoring --------------------------------------------------------------------------


def test_the_history_is_told_as_it_was_and_staging_is_taken_from_a_version_that_was_rolled_back(config, expected):
    told = history.command(config).data
    assert told["now"] == {"staging": "4", "production": "3"}
    assert (told["repaired"], len(told["remarks"])) == ([], 1)
    assert "The alias 'staging' is at version 4, and by the ledger at no version" in told["remarks"][0]
    taken = ["Version 4 was rolled back and still held the alias 'staging': it was taken away."]
    assert ledger.repair("changing") == taken
    told = history.command(config).data
    assert (told["now"], told["remarks"]) == ({"staging": None, "production": "3"}, [])
    before = expected["history"]["decisions"]
    assert [{**new, **old} for new, old in zip(told["decisions"], before, strict=False)] == (
        told["decisions"][: len(before)]
    )


def test_decisions_go_on_with_the_next_numbers_and_those_taken_count(config):
    ledger.repair("changing")
    book = consistent("changing")
    promoted = promote.command(config, "2", start="2024-02-19", end="2024-03-04").data
    assert (promoted["number"], promoted["previous"]) == (len(book) + 1, ledger.holder(book, "production"))
    [fresh] = [finding for finding in promoted["findings"] if finding["code"] == "fresh_rows"]
    assert fresh["value"] >= 2, "version 1 was judged on these rows before"
    with pytest.raises(SettingsError, match=r"Version 4 of 'changing' was rolled back itself \(decision 9: kept"):
        rollback.command(config, "again", version="4")
    back = rollback.command(config, "to the one before").data
    assert back["number"] == len(book) + 2
    assert len(consistent("changing")) == len(book) + 2


def test_the_loop_goes_on_with_the_window_after_its_last(config, expected):
    before = [{"window": page.window, "marks": dict(page.marks)} for page in step_journal.pages("changing")]
    assert before == expected["pages"]
    answer = step.command(config, now=NOW)
    assert (answer.data["window"], answer.data["action"]["kind"]) == ("2024-02-19", "retrain")
    assert answer.data["candidate"] == registry.version("changing", "latest").number == "5"
    pages = step_journal.pages("changing")
    assert [(page.window, page.done) for page in pages] == [(name, True) for name in (*STEPS, "2024-02-19")]
    assert ledger.holder(consistent("changing"), "production") == answer.data["production"]
    assert step.command(config, now=NOW).data["outcome"] == "nothing is due"


def test_monitoring_reads_the_windows_before_as_past_and_takes_the_place_of_those_it_refreshes(config, tmp_path):
    before = monitor_runs.windows("changing")
    assert [window.name for window in before] == MONITORED
    assert [(window.version, window.past.rows) for window in before[:3]] == [("1", 280), ("2", 280), ("3", 280)]
    told = monitor.command(config, refresh=2, page=str(tmp_path / "page.html")).data["windows"]
    assert [window["name"] for window in told] == MONITORED[-2:]
    after = monitor_runs.windows("changing")
    assert after[:3] == before[:3]
    assert [window.run_id for window in after[3:]] == [window["run_id"] for window in told]
    page = (tmp_path / "page.html").read_text("utf-8")
    assert all(name in page for name in MONITORED)
