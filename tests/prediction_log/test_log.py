"""The log as a whole: each answer exactly once whatever is killed, with its last outcome, private where asked."""

import os
import shutil
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afterfit import prediction_log
from afterfit.contract.contract import learn
from afterfit.errors import LogError, SettingsError
from afterfit.prediction_log import arrow, sealing, spool_file
from afterfit.prediction_log.privacy import redaction_of
from afterfit.prediction_log.store import Folder
from afterfit.use_case import UseCase
from made_log import HOUR, NOON, entry, ids, outcome, read
from waiting import eventually


@pytest.fixture
def log(tmp_path):
    return prediction_log.log_at(str(tmp_path / "log"), "sizes")


@pytest.fixture
def spool(log):
    made = log.spool()
    yield made
    made.close()


def gone(spool):
    """The spool as a process leaves it that was killed."""
    spool._drop()
    spool._hold.free()
    spool._closed = True
    return spool


def parts(log, kind="answers"):
    return [part.name for part in log.store.parts(kind)]


# --- sealing -------------------------------------------------------------------------------------------------------


def test_a_sealed_part_lies_under_its_day_and_is_named_by_the_rows_it_holds(log, spool):
    spool.write([entry("a"), entry("b", NOON + 13 * HOUR), entry("c")])
    done = prediction_log.seal(log, [spool])
    assert (done.answers, done.parts) == (3, 2)
    name = f"{spool.path.stem}-1-3.parquet"
    assert parts(log) == [f"answers/day=2026-11-23/{name}", f"answers/day=2026-11-24/{name}"]
    assert spool.backlog == 0
    assert ids(log) == ["a", "b", "c"]


def test_sealing_again_seals_what_came_since_under_further_numbers(log, spool):
    for name in "abc":
        spool.write([entry(name)])
        prediction_log.seal(log, [spool])
    assert prediction_log.seal(log, [spool]) == sealing.Sealed()
    assert [name.rsplit("-", 2)[1:] for name in parts(log)] == [[f"{i}", f"{i}.parquet"] for i in (1, 2, 3)]


def test_a_live_spool_is_left_to_its_process_and_a_dead_ones_is_taken_over(log):
    first, second = log.spool(), log.spool()
    first.write([entry("a")])
    second.write([entry("b")])
    gone(second)
    assert prediction_log.seal(log).spools == 1
    assert [name.split("/")[2].startswith(second.path.stem) for name in parts(log)] == [True]
    assert ids(log) == ["a", "b"]
    first.close()
    prediction_log.seal(log)
    assert list((log.folder / "spool").iterdir()) == []


@pytest.mark.parametrize("durability", ["acknowledged", "buffered"])
def test_a_rotated_spool_is_sealed_by_another_process_while_its_own_goes_on(tmp_path, durability):
    log = prediction_log.PredictionLog("sizes", tmp_path, str(tmp_path), durability)
    spool = log.spool()

    def written(name):
        spool.write([entry(name)])
        assert eventually(lambda: not (spool._queue or spool._taken))

    for name in "abc":
        written(name)
        spool.rotate()
        spool.rotate()  # an empty one has nothing to leave
        written(f"{name}-after")
    assert prediction_log.seal(log).spools == 3
    assert ids(log) == ["a", "a-after", "b", "b-after", "c", "c-after"]
    spool.close()


def test_a_part_is_put_together_from_pieces_whose_columns_differ(log, spool, monkeypatch):
    monkeypatch.setattr(sealing, "PIECE_ROWS", 2)
    sizes = [1, 2, 0.5, 3, "big", None]
    for i, size in enumerate(sizes):
        spool.write([entry(f"a{i}", features={"size": size} if size is not None else {"colour": "red"})])
    assert prediction_log.seal(log, [spool]).parts == 1
    table = read(log).sort_by("prediction_id")
    assert table["size"].to_pylist() == ["1", "2", "0.5", "3", "big", None]
    assert table["colour"].to_pylist() == [None] * 5 + ["red"]


def test_many_rows_are_sealed_in_several_parts(log, spool, monkeypatch):
    monkeypatch.setattr(sealing, "PART_ROWS", 10)
    for first in range(0, 25, 5):
        spool.write([entry(f"a{i:02}") for i in range(first, first + 5)])
    prediction_log.seal(log, [spool])
    assert [pq.read_metadata(log.store.path / name).num_rows for name in parts(log)] == [10, 10, 5]
    assert ids(log) == [f"a{i:02}" for i in range(25)]


def test_a_store_that_fails_loses_nothing_and_keeps_no_other_spool_waiting(log, spool, monkeypatch):
    spool.write([entry("a")])
    other = prediction_log.log_at(str(log.folder), "sizes").spool()
    other.write([entry("b")])
    gone(other)
    put, failing = Folder.put, [True]

    def once(self, part, content):
        if failing and part.file.startswith(spool.path.stem):
            raise LogError("the disk is away")
        return put(self, part, content)

    monkeypatch.setattr(Folder, "put", once)
    with pytest.raises(LogError, match="away"):
        prediction_log.seal(log, [spool])
    assert spool.backlog == 1
    assert ids(log) == ["a", "b"]
    spool.write([entry("c")])
    failing.clear()
    prediction_log.seal(log, [spool])
    assert ids(log) == ["a", "b", "c"]
    assert len(parts(log)) == 3  # the range that was planned before, and what came after it


def test_two_processes_that_seal_at_once_move_each_answer_once(log):
    for name in range(12):
        dead = log.spool()
        dead.write([entry(f"{name:02}-{i:03}") for i in range(50)])
        gone(dead)
    threads = [threading.Thread(target=prediction_log.seal, args=(log,)) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert ids(log) == [f"{name:02}-{i:03}" for name in range(12) for i in range(50)]


def test_a_reader_while_a_process_writes_and_seals_sees_each_answer_once(log, spool):
    stop, count = threading.Event(), [0]

    def work():
        while not stop.is_set():
            spool.write([entry(f"{count[0]:06}-{i}") for i in range(20)])
            count[0] += 1
            if count[0] % 3 == 0:
                prediction_log.seal(log, [spool])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(15):
            before = count[0]
            found = ids(log)
            assert len(set(found)) == len(found)
            assert len(found) % 20 == 0
            assert len(found) >= before * 20
    finally:
        stop.set()
        thread.join()


class Killed(BaseException):
    """The process ends here."""


STEPS = [(Folder, "put"), *((spool_file, name) for name in ("plan", "mark_sealed", "sweep", "remove"))]


def tripped(patch, at):
    """Have the process end at the n-th step of a sealing, before or after it took place."""
    left = [at]

    def wired(call, *given, **named):
        for before in (True, False):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            if before:
                found = call(*given, **named)
        return found

    for place, name in STEPS:
        call = getattr(place, name)
        if place is Folder:
            patch.setattr(place, name, lambda self, part, content, call=call: wired(call, self, part, content))
        else:
            patch.setattr(place, name, partial(wired, call))


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 7)),
        st.tuples(st.just("seal"), st.just(0)),
        st.tuples(st.just("kill"), st.integers(1, 24)),
        st.tuples(st.just("other"), st.integers(1, 24)),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES)
def test_every_acknowledged_answer_is_there_exactly_once_wherever_a_sealing_is_killed(moves):
    folder = Path(mkdtemp())
    log = prediction_log.log_at(str(folder), "sizes")
    spool, wanted = log.spool(), []
    with pytest.MonkeyPatch.context() as always:
        always.setattr(sealing, "PART_ROWS", 5)
        for move, number in moves:
            if move == "write":
                new = [f"{len(wanted) + i:04}" for i in range(number)]
                spool.write([entry(one, NOON + int(one) % 3 * 24 * HOUR) for one in new])
                wanted += new
            elif move == "seal":
                prediction_log.seal(log, [spool])
            else:
                own = [spool] if move == "kill" else []
                if not own:
                    gone(spool)
                with pytest.MonkeyPatch.context() as patch, suppress(Killed):
                    tripped(patch, number)
                    prediction_log.seal(log, own)
                spool = (gone(spool), log.spool())[1]
            assert ids(log) == wanted
        gone(spool)
        prediction_log.seal(log)
    assert ids(log) == wanted
    assert not list((folder / "spool").glob("*.sqlite"))
    assert not prediction_log.unknown_ids(log, wanted)
    shutil.rmtree(folder)


def test_a_lock_without_a_spool_is_cleared_when_it_is_old(log, spool):
    orphan = spool.path.with_name(f"{spool.path.stem[:-1]}x.lock")
    orphan.touch()
    prediction_log.seal(log)
    assert orphan.exists()
    os.utime(orphan, (0, 0))
    prediction_log.seal(log)
    assert not orphan.exists()
    assert spool._hold.path.exists()


def test_a_spool_that_is_no_database_is_named_and_the_others_are_sealed(log):
    dead = log.spool()
    dead.write([entry("a")])
    gone(dead)
    broken = dead.path.with_name(f"{dead.path.stem[:-1]}x.sqlite")
    broken.write_bytes(b"not a database" * 100)
    with pytest.raises(LogError, match=r"x\.sqlite"):
        prediction_log.seal(log)
    broken.unlink()
    assert ids(log) == ["a"]


# --- joined parts and old days -------------------------------------------------------------------------------------


def moment(day, hour=12):
    return datetime.fromisoformat(f"2026-11-{day:02}T{hour:02}:00:00+00:00")


def test_small_parts_of_past_days_are_joined_and_go_an_hour_later(log, spool):
    for i in range(6):
        spool.write([entry(f"a{i}"), entry(f"b{i}", NOON + 24 * HOUR)])
        prediction_log.seal(log, [spool])
    old = 200_000_000  # so far in the future that all parts are more than an hour old
    now = datetime.fromtimestamp(NOON / 1e6 + old, tz=moment(24).tzinfo)
    everything = sorted([*(f"a{i}" for i in range(6)), *(f"b{i}" for i in range(6))])
    assert prediction_log.tidy(log, moment(24))[0] in {0, 6}  # the parts may be young by this clock
    assert prediction_log.tidy(log, now)[0] in {12, 6}
    assert ids(log) == everything
    prediction_log.tidy(log, now)
    assert [name.split("/")[2].startswith("joined-") for name in parts(log)] == [True, True]
    assert ids(log) == everything
    assert not prediction_log.unknown_ids(log, everything)
    assert prediction_log.tidy(log, now) == (0, 0)


def test_a_part_that_is_written_again_after_it_was_joined_is_not_read_twice(log, spool):
    for i in range(4):
        spool.write([entry(f"a{i}")])
        prediction_log.seal(log, [spool])
    kept = {name: (log.store.path / name).read_bytes() for name in parts(log)}
    later = datetime.fromtimestamp(NOON / 1e6 + 200_000_000, tz=moment(24).tzinfo)
    prediction_log.tidy(log, later)
    prediction_log.tidy(log, later)
    for name, content in kept.items():
        (log.store.path / name).write_bytes(content)
    assert ids(log) == ["a0", "a1", "a2", "a3"]


def test_of_two_joined_parts_over_the_same_rows_one_counts(log, spool):
    for i in range(5):
        spool.write([entry(f"a{i}")])
        prediction_log.seal(log, [spool])
    small = log.store.parts("answers")
    for count, mark in ((4, "1"), (5, "0")):
        table = sealing._whole(log.store, small[:count])
        name = sealing.Part("answers", small[0].day, f"joined-{mark}.parquet")
        sealing.put(log.store, name, table, [part.file for part in small[:count]])
    assert ids(log) == [f"a{i}" for i in range(5)]
    sealing._clear_joined(log.store, "answers", NOON / 1e6 + 200_000_000)
    assert ids(log) == [f"a{i}" for i in range(5)]
    assert len(parts(log)) == 1


def test_processes_that_join_at_once_fail_in_nothing_lose_nothing_and_double_nothing(log, spool):
    for i in range(8):
        spool.write([entry(f"a{i}")])
        prediction_log.seal(log, [spool])
    later, faults = datetime.fromtimestamp(NOON / 1e6 + 200_000_000, tz=moment(24).tzinfo), []

    def tidy():
        try:
            for _ in range(3):
                prediction_log.tidy(log, later)
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            faults.append(error)

    threads = [threading.Thread(target=tidy) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert faults == []
    assert ids(log) == [f"a{i}" for i in range(8)]


def test_a_part_that_is_gone_is_young_and_joined_to_nothing(log, spool):
    spool.write([entry("a")])
    prediction_log.seal(log, [spool])
    [part] = log.store.parts("answers")
    absent = replace(part, file="absent.parquet")
    assert log.store.age(absent, 1e12) == 0.0
    assert sealing._whole(log.store, [part, absent]) is None
    assert list(sealing._batches(log.store, [absent] * 9)) == []


def test_days_past_keep_days_are_removed(tmp_path):
    log = prediction_log.PredictionLog("sizes", tmp_path, str(tmp_path), keep_days=2)
    spool = log.spool()
    spool.write([entry(f"a{day}", NOON - day * 24 * HOUR) for day in range(5)])
    spool.close()
    prediction_log.seal(log)
    assert prediction_log.tidy(log, moment(23))[1] == 4  # two days, each a part and its index
    assert ids(log) == ["a0", "a1", "a2"]
    assert min(path.name for path in (tmp_path / "sizes" / "answers").iterdir()) == "day=2026-11-21"


# --- outcomes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [True, False])
def test_the_outcome_that_arrived_last_is_joined_by_id_or_by_key(log, spool, sealed):
    spool.write([entry("a", key=["k", 12]), entry("b", key=["l", 12.0]), entry("c")])
    spool.write_outcomes(
        [
            outcome("a", True, NOON + 3),
            outcome("a", False, NOON + 1),
            outcome(None, False, NOON + 2, key=["k", "12"]),
            outcome(None, True, NOON + 2, key=["l", 12]),
            outcome("nobody", True),
        ]
    )
    if sealed:
        prediction_log.seal(log, [spool])
    found = read(log).to_pandas().set_index("prediction_id")
    assert [found.loc[name, "outcome"] for name in "abc"] == [True, True, None]
    assert found.loc["a", "outcome_time"] == pd.Timestamp("2026-11-23 12:00:00.000003")
    assert pd.isna(found.loc["c", "outcome_time"])


def test_outcomes_over_many_runs_are_those_of_a_dictionary(log, spool, monkeypatch):
    from afterfit.prediction_log import reader

    monkeypatch.setattr(reader, "RUN_ROWS", 50)
    rng = np.random.default_rng(0)
    spool.write([entry(f"a{i}", key=[i]) for i in range(300)])
    last = {}
    for at in range(400):
        who, value = int(rng.integers(300)), float(rng.integers(9))
        by_id = bool(rng.integers(2))
        spool.write_outcomes([outcome(f"a{who}" if by_id else None, value, NOON + at, None if by_id else [who])])
        last[f"a{who}"] = value
        if at % 40 == 0:
            prediction_log.seal(log, [spool])
    found = read(log).select(["prediction_id", "outcome"]).to_pylist()
    assert {row["prediction_id"]: row["outcome"] for row in found if row["outcome"] is not None} == last


def test_equal_hashes_do_not_mix_outcomes_up(log, spool, monkeypatch):
    from afterfit.prediction_log import reader

    monkeypatch.setattr(reader, "id_hashes", lambda texts: np.full(len(texts), 7, dtype=np.uint64))
    spool.write([entry(name) for name in "abcd"])
    spool.write_outcomes([outcome("b", 1), outcome("c", 2), outcome("b", 3, NOON + 1), outcome("x", 4)])
    assert read(log)["outcome"].to_pylist() == [None, 3, 2, None]


def test_unknown_ids_are_told_over_spools_and_parts(log, spool):
    spool.write([entry("sealed"), entry("late", NOON + 24 * HOUR)])
    prediction_log.seal(log, [spool])
    spool.write([entry("spooled")])
    assert prediction_log.unknown_ids(log, ["sealed", "late", "spooled", "nobody", "no\ud800body"]) == {
        "nobody",
        "no\ud800body",
    }
    assert prediction_log.unknown_ids(log, []) == set()
    assert prediction_log.unknown_ids(log, [f"x{i}" for i in range(1200)]) == {f"x{i}" for i in range(1200)}


# --- reading -------------------------------------------------------------------------------------------------------


def test_windows_are_of_serving_or_of_the_use_cases_own_time(log, spool):
    rows = [entry(f"a{i}", NOON + i * 5 * HOUR, features={"when": f"2013-04-{10 + i}T08:00:00Z"}) for i in range(6)]
    spool.write(rows)
    prediction_log.seal(log, [spool])
    served = {"start": datetime(2026, 11, 23, 17), "end": datetime(2026, 11, 24, 3)}  # noqa: DTZ001 - naive UTC
    assert ids(log, **served) == ["a1", "a2"]
    own = {"start": datetime(2013, 4, 12), "end": datetime(2013, 4, 14)}  # noqa: DTZ001 - as above
    assert ids(log, time="when", **own) == ["a2", "a3"]
    assert ids(log, time="nowhere", **own) == []
    assert ids(log, **own) == []


def test_versions_and_shadow_rows_are_chosen(log, spool):
    spool.write([entry("a"), entry("b", version="8"), entry("a", version="8", shadow=True)])
    assert ids(log) == ["a", "b"]
    assert ids(log, version="8") == ["b"]
    assert ids(log, shadow=True) == ["a"]
    assert ids(log, shadow=None) == ["a", "a", "b"]


def test_columns_are_those_that_were_asked_for_in_one_schema_for_all_parts(log, spool):
    spool.write([entry("a", features={"x": 1, "time": "t"})])
    prediction_log.seal(log, [spool])
    spool.write([entry("b", features={"x": "two", "y": None})])
    tables = list(prediction_log.read(log))
    assert len({table.schema for table in tables}) == 1
    assert read(log)["x"].to_pylist() == ["1", "two"]
    assert read(log)["features.time"].to_pylist() == ["t", None]
    assert prediction_log.features_of(tables[0]).column_names == ["x", "time", "y"]
    assert read(log, columns=["x", "outcome"]).column_names == ["x", "outcome"]
    assert read(log, columns=["features.time"]).column_names == ["features.time"]


def test_a_feature_that_has_the_name_of_a_renamed_one_is_not_lost(log, spool):
    spool.write([entry("a", features={"time": "t", "features.time": "u"})])
    table = next(prediction_log.read(log))
    assert table["features.time"].to_pylist() == ["t"]
    assert table["features.features.time"].to_pylist() == ["u"]
    assert prediction_log.features_of(table).column_names == ["time", "features.time"]


@pytest.mark.usefixtures("spool")
def test_an_empty_log_gives_nothing(log):
    assert list(prediction_log.read(log)) == []
    assert prediction_log.unknown_ids(log, ["a"]) == {"a"}


def test_rare_feature_names_cost_no_column_each_and_are_kept(log, spool, monkeypatch):
    monkeypatch.setattr(arrow, "MOST_FEATURES", 3)
    spool.write([entry(f"a{i}", features={"x": 1, "y": 2, f"odd{i}": i}) for i in range(5)])
    prediction_log.seal(log, [spool])
    table = pq.read_table(log.store.path / parts(log)[0])
    assert [name for name in table.column_names if name.startswith("f:")] == ["f:x", "f:y", "f:odd0"]
    assert orjson.loads(table["rest"].to_pylist()[4]) == {"odd4": 4}


def test_features_that_are_no_object_do_not_stop_sealing(log, spool):
    spool.write([entry("a")._replace(features=b"{broken"), entry("b")._replace(features=b"[1]"), entry("c")])
    prediction_log.seal(log, [spool])
    assert ids(log) == ["a", "b", "c"]


SCALARS = st.one_of(
    st.none(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["red", "12", "12.0", "1e3", "", "true", "2013-01-31T14:05:00", "nan", "ü\u2028"]),
)
TRUTHS = st.one_of(st.none(), st.booleans())


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(SCALARS, SCALARS, SCALARS, TRUTHS), min_size=1, max_size=8),
    cut=st.integers(0, 8),
)
def test_a_contract_reads_what_was_logged_as_it_read_the_row(rows, cut):
    learnt = pd.DataFrame(
        {
            "number": [1.5, 2.5, 1000.0],
            "category": ["red", "12", "1"],
            "time": pd.to_datetime(["2013-01-31"] * 3),
            "flag": [True, False, True],
        }
    )
    contract = learn(learnt)
    given_rows = [dict(zip(learnt.columns, row, strict=True)) for row in rows]
    stored = [tuple(entry(f"a{i}", features=row)) for i, row in enumerate(given_rows)]
    tables = [arrow.answers_table(some) for some in (stored[:cut], stored[cut:]) if some]
    whole = sealing.unified(tables).to_pandas()
    frame = whole[[f"f:{name}" for name in learnt.columns]].set_axis(learnt.columns, axis=1)
    checked = contract.check_frame(frame)
    warned, failed = checked.warnings_by_row(), checked.errors_by_row()
    for at, row in enumerate(given_rows):
        one = contract.check_row(orjson.loads(orjson.dumps(row)))
        values = [checked.values[name][at] for name in learnt.columns]
        for mine, theirs in zip(values, one.values, strict=True):
            missing = theirs is None or theirs != theirs  # noqa: PLR0124 - NaN
            assert pd.isna(mine) if missing else _number(mine) == _number(theirs)
        told = [[(note["column"], note["code"]) for note in found] for found in (one.warnings, one.errors)]
        mine = [[(note["column"], note["code"]) for note in found.get(at, [])] for found in (warned, failed)]
        assert mine == told


def _number(value):
    return int(value.astype("datetime64[us]").astype(np.int64)) if isinstance(value, np.datetime64) else float(value)


# --- privacy -------------------------------------------------------------------------------------------------------


def test_private_values_are_hashed_or_left_out():
    row = {"name": "Ada", "age": 36, "size": 1.5, "gone": None}
    hashed = prediction_log.private(row, ("name", "age", "gone", "absent"), "hash", salt="s")
    assert hashed["name"] != "Ada"
    assert len(hashed["name"]) == 16
    assert (hashed["size"], hashed["gone"], "absent" in hashed) == (1.5, None, False)
    assert prediction_log.private({"age": 36.0}, ("age",), "hash", salt="s")["age"] == hashed["age"]
    assert prediction_log.private({"age": 36}, ("age",), "hash", salt="t")["age"] != hashed["age"]
    assert prediction_log.private(row, ("name", "age"), "drop") == {"size": 1.5, "gone": None}


def test_a_secret_changes_the_salt(monkeypatch):
    before = prediction_log.salt_of("sizes", ["name"])
    monkeypatch.setenv("AFTERFIT_LOG_SALT", "pepper-1-2-3")
    assert prediction_log.salt_of("sizes", ["name"]) != before


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"columns": {"private": ["name"]}}, True),
        ({"columns": {"private": ["name"]}, "log": {"private": "drop"}}, False),
        ({"columns": {"private": ["name"]}, "log": {"private": "drop"}, "key": ["name"]}, True),
        ({}, False),
    ],
)
def test_nothing_private_is_hashed_without_a_secret(monkeypatch, settings, refused):
    monkeypatch.delenv("AFTERFIT_LOG_SALT", raising=False)
    basis = {"name": "sizes", "task": "regression", "target": "y", "source": {"path": "x.csv"}}
    case = UseCase.model_validate({**basis, **settings})
    if not refused:
        assert redaction_of(case).mode == case.log.private
        return
    assert case.hashed == ("name",)
    with pytest.raises(SettingsError, match=r"Set AFTERFIT_LOG_SALT to a secret.*\n.*token_urlsafe") as raised:
        redaction_of(case)
    assert ("drop" in str(raised.value)) == (not case.key)


def test_keys_of_equal_values_are_equal_and_private_ones_hashed():
    assert prediction_log.key_of({"a": 12, "b": "x"}, ("a", "b")) == prediction_log.key_of(
        {"a": 12.0, "b": "x"}, ("a", "b")
    )
    assert prediction_log.key_of({"a": None}, ("a",)) is None
    assert prediction_log.key_of({"a": 1}, ()) is None
    assert prediction_log.key_of({"a": "\ud800"}, ("a",)).encode() == b'["\\ud800"]'
    assert "Ada" not in prediction_log.key_of({"a": "Ada"}, ("a",), ("a",), salt="s")
