"""The writer: on disk when it returns, or refused with a sentence; never lost without a word."""

import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from afterfit import spool as module
from afterfit import spoolfile
from afterfit.errors import LogError, SettingsError
from afterfit.spool import Spool
from made_log import entry, outcome


@contextmanager
def largest_file(size):
    """No file of this process grows past a size meanwhile, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def written(spool):
    with sqlite3.connect(f"{spool.path.as_uri()}?mode=ro", uri=True) as connection:
        found = [name for (name,) in connection.execute("SELECT prediction_id FROM answers ORDER BY id")]
    connection.close()
    return found


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
    with spoolfile.snapshot(spool.path) as connection:
        assert spoolfile.rows(connection, "answers", spoolfile.Range(1, 1)) == [tuple(one)]


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
            spool.write([entry(f"a{i}")])
        deadline = time.monotonic() + 10
        while spool.fault is None and time.monotonic() < deadline:
            time.sleep(0.01)
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


def test_a_buffered_write_takes_the_caller_no_disk(tmp_path):
    spool = Spool(tmp_path, durability="buffered")
    entries = [entry(f"a{i}") for i in range(5000)]
    start = time.perf_counter()
    for one in entries:
        spool.write([one])
    taken = (time.perf_counter() - start) / len(entries)
    spool.close()
    assert taken < 50e-6  # measured at about 1e-6; a write to disk takes 1,000e-6
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
    with spoolfile.snapshot(spool.path) as connection:
        assert len(spoolfile.rows(connection, "outcomes", spoolfile.Range(1, 9))) == 2
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
        "import sys, time; from pathlib import Path; from afterfit.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), use_case='sizes'); print(spool.path, flush=True); time.sleep(60)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True, env=env) as child:
        hold = spoolfile.Hold(Path(child.stdout.readline().strip()))
        assert not hold.take()
        child.kill()
    assert hold.take()
    hold.free(remove=True)


@pytest.mark.parametrize("use_case", ["sizes", "flights-late", "a-1-b"])
def test_a_spools_name_says_its_use_case_whatever_is_in_it(tmp_path, use_case):
    spool = Spool(tmp_path, use_case=use_case)
    assert spoolfile.use_case_of(spool.path.stem) == use_case
    assert spoolfile.spools(tmp_path, use_case) == [spool.path]
    assert spoolfile.spools(tmp_path, "a") == []
    spool.close()
