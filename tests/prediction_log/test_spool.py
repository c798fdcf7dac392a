"""The writer: on disk when it returns, or refused with a sentence; never lost without a word."""

import os
import resource
import sqlite3
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from afterfit import prediction_log
from afterfit.errors import LogError, SettingsError
from afterfit.prediction_log import sealing, spool_file
from afterfit.prediction_log import spool as module
from afterfit.prediction_log.entries import BatchRecord
from afterfit.prediction_log.log import PredictionLog
from afterfit.prediction_log.spool import Spool
from made import ROOT
from made_log import NOON, entry, ids, outcome, read
from waiting import PATIENCE, eventually


@contextmanager
def largest_file(size):
    """No file of this process grows past a size meanwhile, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def rows(connection, table, some):
    return [row for chunk in spool_file.read_in_chunks(connection, table, some, 1_000) for row in chunk]


def written(spool):
    with spool_file.snapshot(spool.path) as connection:
        return [row[0] for row in rows(connection, "answers", spool_file.unsealed(connection, "answers"))]


@pytest.fixture
def spool(tmp_path):
    made = Spool(tmp_path, use_case="sizes")
    yield made
    made.close()


@pytest.mark.parametrize("count", [1, 7, 128, 129, 1000])
def test_what_is_acknowledged_is_in_the_file_in_order(spool, count):
    spool.write([entry(f"a{i}") for i in range(count)])
    assert written(spool) == [f"a{i}" for i in range(count)]
    assert spool.backlog == count


def test_nothing_to_write_is_nothing(spool):
    spool.write([])
    spool.write_outcomes([])
    assert spool.backlog == 0


def test_every_field_comes_back_as_it_was(spool):
    one = entry("a", key=["k"], warnings=b"[1]", error=b"{}", lower=1.0, upper=2.0, probabilities=b"{}", shadow=True)
    spool.write([one])
    with spool_file.snapshot(spool.path) as connection:
        assert rows(connection, "answers", spool_file.RowRange(1, 1)) == [tuple(one)]


def test_a_batch_is_written_whole_or_not_at_all(spool):
    bad = entry("b")._replace(features=object())
    with pytest.raises(LogError, match="cannot be written"):
        spool.write([*[entry(f"a{i}") for i in range(200)], bad])
    spool.write([entry("c")])
    assert written(spool) == ["c"]


def test_a_full_disk_is_a_sentence_and_the_spool_goes_on_once_there_is_room(spool):
    kept = []

    def fill():
        for i in range(10_000):
            spool.write([entry(f"a{i}")])
            kept.append(f"a{i}")

    with largest_file(300_000), pytest.raises(LogError, match=r"cannot be written: .* Free space"):
        fill()
    assert 10 < len(kept) < 10_000
    with largest_file(300_000), pytest.raises(LogError):
        spool.write([entry("while full", features={"x": "y" * 300_000})])
    spool.write([entry("after")])
    assert written(spool) == [*kept, "after"]


def test_buffered_entries_wait_for_a_full_disk_and_none_is_lost_or_doubled(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    spool = Spool(tmp_path, durability="buffered", use_case="sizes")
    with largest_file(200_000):
        for i in range(3000):
            spool.write([entry(f"a{i}", features={"odd": os.urandom(150).hex()})])
        assert eventually(lambda: spool.fault is not None)
        assert "cannot be written" in spool.fault
    spool.close()
    assert written(spool) == [f"a{i}" for i in range(3000)]


def test_a_buffer_that_is_full_refuses_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BUFFERED", 50)
    monkeypatch.setattr(module, "EVERY", 30)
    spool = Spool(tmp_path, durability="buffered")
    for i in range(51):
        spool.write([entry(f"a{i}")])
    with pytest.raises(LogError, match="51 answers wait for the disk"):
        spool.write([entry("too many")])
    spool.close()
    assert len(written(spool)) == 51


def test_entries_that_are_lost_at_the_end_are_counted(tmp_path):
    spool = Spool(tmp_path, durability="buffered")
    with largest_file(100):
        spool.write([entry("a"), entry("b")])
        with pytest.raises(LogError, match="2 answers could not be written and are lost"):
            spool.close()


@pytest.mark.parametrize("value", [object(), "half \ud800", 2**70])
def test_a_row_that_no_file_can_hold_stops_no_other_one_and_is_counted(tmp_path, value):
    spool = Spool(tmp_path, durability="buffered")
    spool.write([entry("a"), entry("b", seconds=value), entry("c")])
    with pytest.raises(LogError, match=r"1 answers could not be written and are lost: .*row"):
        spool.close()
    assert written(spool) == ["a", "c"]
    with pytest.raises(LogError, match="a row of the prediction log cannot be written"):
        Spool(tmp_path).write([entry("b", seconds=value)])


def test_a_buffered_write_returns_while_the_disk_is_at_work(tmp_path, monkeypatch):
    disk, real = threading.Event(), module._insert

    def slow(*arguments):
        assert disk.wait(PATIENCE)
        return real(*arguments)

    monkeypatch.setattr(module, "_insert", slow)
    spool = Spool(tmp_path, durability="buffered")
    for i in range(5000):
        spool.write([entry(f"a{i}")])
    assert spool._waiting() == 5000
    disk.set()
    spool.close()
    assert len(written(spool)) == 5000


def test_several_threads_share_a_spool(spool):
    def work(name):
        for i in range(50):
            spool.write([entry(f"{name}-{i}")])

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(written(spool)) == sorted(f"{name}-{i}" for name in "abcd" for i in range(50))


def test_outcomes_are_written_beside_the_answers(tmp_path):
    spool = Spool(tmp_path, durability="buffered", use_case="sizes")
    spool.write_outcomes([outcome("a", True), outcome(None, 2.5, key=["k"])])
    with spool_file.snapshot(spool.path) as connection:
        assert len(rows(connection, "outcomes", spool_file.RowRange(1, 9))) == 2
    spool.close()


def test_a_closed_spool_refuses_and_an_empty_one_leaves_nothing_behind(tmp_path):
    spool = Spool(tmp_path, use_case="sizes")
    spool.close()
    spool.close()
    with pytest.raises(LogError, match="is closed"):
        spool.write([entry("a")])
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "log").write_text("a file")
    with pytest.raises(LogError, match="cannot be written"):
        Spool(tmp_path / "log")


def test_an_unknown_durability_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="acknowledged or buffered"):
        Spool(tmp_path, durability="sometimes")


def test_a_live_spool_is_held_and_a_killed_process_frees_its_own(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from afterfit.prediction_log.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), use_case='sizes'); print(spool.path, flush=True); time.sleep(600)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True, env=env) as child:
        hold = spool_file.FileLock(Path(child.stdout.readline().strip()))
        assert not hold.take()
        child.kill()
    assert hold.take()
    hold.free(remove=True)


@pytest.mark.parametrize("use_case", ["sizes", "flights-late", "a-1-b"])
def test_a_spools_name_says_its_use_case_whatever_is_in_it(tmp_path, use_case):
    spool = Spool(tmp_path, use_case=use_case)
    assert spool_file.use_case_of(spool.path.stem) == use_case
    assert spool_file.spools(tmp_path, use_case) == [spool.path]
    assert spool_file.spools(tmp_path, "a") == []
    spool.close()


def together(names, **changes):
    """Answers of one request as one record."""
    rows = changes.pop("rows", [{"size": 1.5, "at": k} for k in range(len(names))])
    answers = [
        {"prediction_id": name, "prediction": True, "probability": 0.8, "confidence": 0.8, "model_version": "7",
         "warnings": [{"column": "size"}] if k else [], "error": None}
        for k, name in enumerate(names)
    ]  # fmt: skip
    keys = orjson.dumps([f'["{name}"]' for name in names])
    told = {"features": orjson.dumps(rows), "keys": keys, **changes}
    return BatchRecord(len(names), NOON, "7", shadow=False, answers=orjson.dumps(answers), seconds=0.002, **told)


@pytest.mark.parametrize("durability", ["acknowledged", "buffered"])
def test_answers_that_are_written_together_come_back_one_by_one(tmp_path, durability):
    log = PredictionLog("sizes", tmp_path, str(tmp_path), durability)
    spool = log.spool()
    spool.write([entry("a"), together(["b", "c", "d"]), entry("e")])
    spool.write([together(["f", "g"])])
    assert spool.backlog == 7
    assert eventually(lambda: len(ids(log)) == 7)  # buffered ones come a moment later
    assert ids(log) == list("abcdefg")
    assert prediction_log.unknown_ids(log, ["c", "g", "x"]) == {"x"}
    table = read(log, columns=["prediction_id", "key", "at", "warnings", "probability"]).sort_by("prediction_id")
    assert table["at"].to_pylist() == [None, 0, 1, 2, None, 0, 1]
    assert table["key"].to_pylist()[1:4] == ['["b"]', '["c"]', '["d"]']
    assert table["warnings"].to_pylist()[2] == '[{"column":"size"}]'
    assert prediction_log.seal(log, [spool]).answers == 7
    assert (ids(log), spool.backlog) == (list("abcdefg"), 0)
    spool.write([together(["h", "i"])])
    spool.close()
    assert prediction_log.seal(log).answers == 2
    assert ids(log) == list("abcdefghi")


def test_answers_to_many_requests_are_few_records_and_come_back_as_they_were(spool):
    some = [
        entry(
            f"{'ab'[i // 20]}{i:02}",
            NOON + i,
            version="78"[i // 20],
            shadow=i % 37 == 36,
            key=[i, "k"] if i % 3 else None,
            features={"size": i, "colour": 'é"\n'},
            prediction=b'"late"',
            probability=None,
            probabilities=b'{"late":0.75,"not":0.25}',
            lower=-0.1,
            warnings=b'[{"column":"size"}]' if i % 5 else None,
            error=b'{"code":"infinite"}' if i % 7 else None,
            seconds=None if i % 11 else 0.25 + i,
        )
        for i in range(40)
    ]
    spool.write(some)
    with spool_file.snapshot(spool.path) as connection:
        assert rows(connection, "answers", spool_file.unsealed(connection, "answers")) == [*map(tuple, some)]
        (records,) = connection.execute("SELECT count(*) FROM answers").fetchone()
    assert records == 1 + 1 + 1 + 3
    assert spool.backlog == 40


@pytest.mark.parametrize("odd", [{"key": "half \ud800"}, {"lower": 2**70}])
def test_what_json_does_not_know_is_written_one_by_one_or_refused(spool, odd):
    some = [entry(f"a{i}") for i in range(20)]
    some[7] = some[7]._replace(**odd)
    with pytest.raises(LogError, match="a row of the prediction log cannot be written"):
        spool.write(some)
    assert written(spool) == []
    spool.write([one for one in some if one.prediction_id != "a7"])
    assert len(written(spool)) == 19


def test_a_hold_whose_file_goes_while_it_is_taken_is_somebody_elses(tmp_path, monkeypatch):
    hold, real = spool_file.FileLock(tmp_path / "a.sqlite"), sqlite3.connect

    def beaten(path, **options):
        connection = real(path, **options)
        path.unlink()
        return connection

    with monkeypatch.context() as changed:
        changed.setattr(spool_file.sqlite3, "connect", beaten)
        assert not hold.take()
    assert hold.take()
    hold.free(remove=True)


def test_a_record_of_many_is_sealed_with_its_last_answer_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sealing, "PART_ROWS", 4)
    log = PredictionLog("sizes", tmp_path, str(tmp_path))
    spool = log.spool()
    spool.write([entry("a"), together([f"b{k}" for k in range(10)]), entry("c")])
    assert prediction_log.seal(log, [spool]).answers == 12
    assert len(set(ids(log))) == len(ids(log)) == 12
    spool.close()


def test_rows_come_back_as_they_came_whatever_they_hold(tmp_path):
    odd = b'{"dataframe_records": [{"x": NaN, "y": "\\ud800"}, {"x": 12345678901234567890123, "y": null}]}'
    log = PredictionLog("sizes", tmp_path, str(tmp_path))
    spool = log.spool()
    spool.write([together(["a", "b"], features=odd, keys=None)])
    with spool_file.snapshot(spool.path) as connection:
        first, second = rows(connection, "answers", spool_file.unsealed(connection, "answers"))
    assert first[5] == b'{"x": NaN, "y": "\\ud800"}'
    assert (second[4], second[5]) == (None, b'{"x": 12345678901234567890123, "y": null}')
    spool.close()


def test_a_spool_that_lacks_a_column_is_read_without_it(tmp_path):
    log = PredictionLog("sizes", tmp_path, str(tmp_path))
    spool = log.spool()
    spool.write([entry("a"), together(["b", "c"])])
    spool.close()
    with sqlite3.connect(spool.path) as connection:  # as a release wrote it that did not know the confidence
        connection.execute("ALTER TABLE answers DROP COLUMN confidence")
    connection.close()
    for _ in range(2):  # from the spool, then from the part that it is sealed into
        table = read(log).sort_by("prediction_id")
        assert table["prediction_id"].to_pylist() == ["a", "b", "c"]
        assert table["probability"].to_pylist() == [0.8] * 3
        assert table["confidence"].to_pylist() == [None, 0.8, 0.8]  # a record of many has its own answers' keys
        prediction_log.seal(log)


def test_so_many_answers_wait_for_a_failing_disk_however_they_came(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BUFFERED", 25)
    monkeypatch.setattr(module, "EVERY", 5.0)
    spool = Spool(tmp_path, durability="buffered", use_case="sizes")
    for number in range(3):
        spool.write([together([f"{number}-{k}" for k in range(10)])])
    with pytest.raises(LogError, match="30 answers wait"):
        spool.write([together(["x"])])
    spool.close()
