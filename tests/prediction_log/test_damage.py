"""Damaged parts, indexes and spools: the file is named, the rest can be read, and nothing disappears unsaid."""

import os
import random
import shutil
import sqlite3
import stat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from afterfit import prediction_log
from afterfit.errors import LogError
from afterfit.prediction_log import disk, id_index, spool_file
from made_log import HOUR, NOON, entry, ids, outcome, read

DAYS = 3


def filled(folder):
    """A log of three days with a part each, and with outcomes."""
    log = prediction_log.log_at(str(folder), "sizes")
    spool = log.spool()
    rows = [entry(f"d{day}-{i:03}", NOON - day * 24 * HOUR) for day in range(DAYS) for i in range(30)]
    spool.write([row._replace(features=b'{"size": %d}' % i) for i, row in enumerate(rows)])
    spool.write_outcomes([outcome(row.prediction_id, True) for row in rows])
    prediction_log.seal(log, [spool])
    spool.close()
    return log


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    log = filled(tmp_path_factory.mktemp("whole"))
    return log, sorted(map(str, read(log).to_pylist()))


@pytest.fixture
def log(whole, tmp_path):
    shutil.copytree(whole[0].folder, tmp_path / "log")
    return prediction_log.log_at(str(tmp_path / "log"), "sizes")


def first_part(log, kind="answers"):
    return log.store.place(log.store.parts(kind)[0])


def rows_of(log):
    table = read(log)
    return sorted(map(str, table.to_pylist())) if len(table) else []


def damaged(content, how, place, rng):
    """Bytes of a file after something happened to it."""
    at = int(place * len(content))
    if how == "truncated":
        return content[:at]
    if how == "garbage":
        return rng.randbytes(len(content))
    if how == "zeros":
        return content[:at] + bytes(len(content) - at)
    bits = bytearray(content)
    bits[min(at, len(bits) - 1)] ^= 1 << rng.randrange(8)
    return bytes(bits)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    how=st.sampled_from(["truncated", "garbage", "zeros", "a bit"]),
    place=st.floats(0, 1),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["answers", "outcomes"]),
)
@example(how="truncated", place=0.0, seed=0, kind="answers")
def test_a_damaged_part_is_named_and_the_rest_is_read(whole, log, how, place, seed, kind):
    path = first_part(log, kind)
    before = path.read_bytes()
    path.write_bytes(damaged(before, how, place, random.Random(seed)))
    try:
        try:
            found = rows_of(log)
        except LogError as error:
            assert all(words in str(error) for words in (str(path), "--skip_damaged"))  # noqa: PT017 - it may raise or not
            found = None
        with prediction_log.skipping(True) as left_out:
            rest = rows_of(log)
        if found is not None:  # the bit says nothing that is read
            assert (rest, left_out) == (found, [])
            assert [row.replace("'rest'", "") for row in found] == whole[1]
            return
        assert [str(path) in sentence for sentence in left_out] == [True]
        there = [row for row in whole[1] if kind == "answers" and f"d{DAYS - 1}-" in row]
        if kind == "answers":
            assert rest == [row for row in whole[1] if row not in there]
        else:
            assert len(rest) == len(whole[1])
    finally:
        path.write_bytes(before)


def rewritten(path, change):
    pq.write_table(change(pq.read_table(path)), path)


SCHEMAS = {
    "missing": lambda table: table.drop_columns(["version"]),
    "extra": lambda table: table.append_column("colour", pa.nulls(table.num_rows, pa.string())),
    "renamed": lambda table: table.rename_columns([{"shadow": "shade"}.get(n, n) for n in table.column_names]),
    "retyped": lambda table: table.set_column(1, "time", table["time"].cast(pa.int64())),
    "of a feature": lambda table: table.set_column(
        table.column_names.index("f:size"), "f:size", pa.array([[1]] * table.num_rows)
    ),
    "twice": lambda table: table.append_column("version", table["version"]),
    "empty": lambda _: pa.table({"x": [1]}),
    "no rows chosen by": lambda table: table.set_column(3, "shadow", pa.nulls(table.num_rows, pa.bool_())),
    "some rows not chosen by": lambda table: table.set_column(
        3, "shadow", pa.array([None, *[False] * (table.num_rows - 1)])
    ),
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_part_of_another_schema_is_named_and_never_silently_empty(log, schema):
    path = first_part(log)
    rewritten(path, SCHEMAS[schema])
    with pytest.raises(LogError, match=r"\.parquet: damaged"):
        read(log, columns=["prediction_id"])
    with prediction_log.skipping(True) as left_out:
        assert len(read(log, version="7")) == (89 if schema.startswith("some") else 60)
    assert [str(path) in sentence for sentence in left_out] == [True]


def test_a_table_that_no_part_may_be_is_not_written(log):
    table = pq.read_table(first_part(log)).drop_columns(["version"])
    with pytest.raises(LogError, match="lacks version"):
        prediction_log.write_table(log, "odd", "answers", table)
    assert len(ids(log)) == 90


def test_a_folder_where_a_part_should_be_and_a_day_that_is_none_are_named(log):
    path = first_part(log)
    path.unlink()
    path.mkdir()
    with pytest.raises(LogError, match=str(path)):
        ids(log)
    odd = path.parent.with_name("day=2026-13-45")
    path.parent.with_name("day=2026-11-23").rename(odd)
    with prediction_log.skipping(True) as left_out:
        assert len(ids(log)) == 30
    assert sorted(str(place) in " ".join(left_out) for place in (path, odd)) == [True, True]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_part_that_may_not_be_read_is_named(log):
    first_part(log).chmod(0)
    with pytest.raises(LogError, match="Permission denied"):
        ids(log)


def test_a_damaged_joined_part_is_not_removed_and_nothing_that_it_stands_for(log):
    spool = log.spool()
    for i in range(6):
        spool.write([entry(f"e{i}", NOON - 240 * HOUR)])
        prediction_log.seal(log, [spool])
    spool.close()
    later = NOON / 1e6 + 200_000_000
    for _ in range(2):
        from afterfit.prediction_log import sealing

        sealing.join(log.folder, log.store, "sizes", "2026-11-22", later)
    joined = first_part(log)
    assert joined.name.startswith("joined-")
    content = joined.read_bytes()
    joined.write_bytes(content[:-20])
    with pytest.raises(LogError, match="joined-"):
        ids(log)
    with prediction_log.skipping(True):
        sealing.join(log.folder, log.store, "sizes", "2026-11-22", later)
        assert len(ids(log)) == 90
    joined.write_bytes(content)
    assert len(ids(log)) == 96


# --- indexes -------------------------------------------------------------------------------------------------------


@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    how=st.sampled_from(["truncated", "garbage", "zeros", "a bit", "of another part", "absent", "of 0.1", "a folder"]),
    place=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_an_index_that_is_damaged_or_of_another_part_is_made_anew(log, how, place, seed):
    part, other = log.store.parts("answers")[:2]
    path = log.store.place(part.index())
    content = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how == "of another part":
        path.write_bytes(log.store.place(other.index()).read_bytes())
    elif how == "of 0.1":
        np.save(path, np.arange(30, dtype=np.uint64))
    elif how != "absent":
        path.write_bytes(damaged(content, how, place, random.Random(seed)))
    known = [f"d{day}-{i:03}" for day in range(DAYS) for i in range(30)]
    try:
        assert prediction_log.unknown_ids(log, [*known, "nobody"]) == {"nobody"}
        assert how in {"a folder", "a bit"} or path.read_bytes() == content
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_bytes(content)


@settings(max_examples=25, deadline=None)
@given(
    count=st.sampled_from([0, 1, 511, 512, 513, 1500, 9_000]),
    at=st.floats(0, 1),
    bit=st.integers(0, 7),
    seed=st.integers(0, 9),
)
def test_a_search_in_an_index_with_a_damaged_block_is_right_or_asks_for_a_new_one(
    tmp_path_factory, count, at, bit, seed
):
    path = tmp_path_factory.mktemp("index") / "x.npy"
    names = [f"{seed}-{i}" for i in range(count)]
    content = bytearray(id_index.index_of(names, 77))
    wanted = np.sort(id_index.id_hashes([*names[::3], *(f"no-{i}" for i in range(20))]))
    expected = np.isin(wanted, id_index.id_hashes(names))
    path.write_bytes(content)
    assert (id_index._found(str(path), 77, wanted) == expected).all()
    assert id_index._found(str(path), 78, wanted) is None
    content[int(at * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)
    for some in (wanted, wanted[:1], wanted[-1:]):
        found = id_index._found(str(path), 77, some)
        assert found is None or (found == np.isin(some, id_index.id_hashes(names))).all()


def test_where_index_and_part_are_damaged_the_part_is_named(log):
    part = log.store.parts("answers")[0]
    log.store.place(part).write_bytes(b"x")
    with pytest.raises(LogError, match=str(log.store.place(part))):
        prediction_log.unknown_ids(log, ["nobody"])
    with prediction_log.skipping(True) as left_out:
        assert prediction_log.unknown_ids(log, ["nobody", "d0-001"]) == {"nobody"}
    assert left_out


# --- spools --------------------------------------------------------------------------------------------------------


def dead(log, rows):
    """A spool that a killed process left, with one row after the other."""
    spool = log.spool()
    for i in range(rows):
        spool.write([entry(f"s{i:04}", features={"text": "x" * 300})])
    spool._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spool._connection.close()
    spool._connection = None
    spool._hold.free()
    spool._closed = True
    return spool.path


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0.15, 0.95), size=st.integers(1, 4096), seed=st.integers(0, 99))
def test_a_spool_with_a_damaged_page_is_named_sealed_as_far_as_it_goes_and_kept(tmp_path_factory, place, size, seed):
    log = prediction_log.log_at(str(tmp_path_factory.mktemp("spool")), "sizes")
    path = dead(log, 60)
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    content[at : at + size] = random.Random(seed).randbytes(len(content[at : at + size]))
    path.write_bytes(content)
    every = [f"s{i:04}" for i in range(60)]
    try:
        found = ids(log)
    except LogError as error:
        assert str(path) in str(error)  # noqa: PT017 - a damaged page may be an empty one
        found = None
    with prediction_log.skipping(True) as left_out:
        rest = ids(log)
        assert bool(left_out) == (found is None)
        assert len(rest) == len(set(rest))
        prediction_log.seal(log)
        assert ids(log) == rest
    aside = list((log.folder / "damaged").glob("*.sqlite")) if found is None else []
    assert len(aside) == (found is None)
    assert not path.exists()
    if found is None:
        assert aside[0].read_bytes() == bytes(content)
        assert set(rest) <= set(every)


@pytest.mark.parametrize("wrong", [b"{broken", b"\xff\xfe", None])
@pytest.mark.parametrize("column", ["features", "prediction", "warnings", "time"])
def test_a_spooled_row_that_cannot_be_read_neither_disappears_nor_stops_the_others(log, column, wrong):
    path = dead(log, 20)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE answers SET {column} = ? WHERE id = 7", (wrong,))  # noqa: S608 - our names
    connection.close()
    names = [f"s{i:04}" for i in range(20)]
    for _ in range(2):
        assert [one for one in ids(log) if one.startswith("s")] == names
        prediction_log.seal(log)


def test_a_spool_that_is_no_database_is_kept_aside_where_damage_is_left_out(log):
    path = dead(log, 3)
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(LogError, match="damaged"):
        prediction_log.seal(log)
    with prediction_log.skipping(True) as left_out:
        assert len(ids(log)) == 90
        prediction_log.seal(log)
    assert all(str(path) in sentence for sentence in left_out)
    assert len(ids(log)) == 90
    assert (log.folder / "damaged" / path.name).read_bytes() == b"not a database" * 100


@pytest.mark.parametrize("durability", ["acknowledged", "buffered"])
@pytest.mark.parametrize("what", ["the folder", "the file", "all files", "the log"])
def test_a_spool_that_is_removed_under_its_writer_comes_back_with_all_that_was_acknowledged(tmp_path, durability, what):
    log = prediction_log.PredictionLog("sizes", tmp_path / "log", str(tmp_path / "log"), durability)
    spool = log.spool()

    def written(names):
        spool.write([entry(name) for name in names])
        if durability == "buffered":
            assert wait(spool)

    def remove():
        if what == "the log":
            shutil.rmtree(tmp_path / "log")
        elif what == "the folder":
            shutil.rmtree(spool.path.parent)
        else:
            beside = [spool.path] if what == "the file" else list(spool.path.parent.iterdir())
            [path.unlink() for path in beside]

    written(["a", "b"])
    for i in range(3):
        remove()
        written([f"c{i}"])
        assert ids(log) == sorted(["a", "b", *(f"c{j}" for j in range(i + 1))])
    remove()
    prediction_log.seal(log, [spool])
    written(["d"])
    remove()
    spool.close()
    prediction_log.seal(log)
    expected = ["a", "b", "c0", "c1", "c2", "d"] if what != "the log" else ["d"]  # the parts went with the log
    assert ids(log) == expected
    assert not list((log.folder / "spool").iterdir())


def wait(spool):
    from waiting import eventually

    return eventually(lambda: not (spool._queue or spool._taken))


def test_a_spool_that_cannot_come_back_costs_the_answer_and_not_those_before(tmp_path):
    log = prediction_log.log_at(str(tmp_path / "log"), "sizes")
    spool = log.spool()
    spool.write([entry("a")])
    shutil.rmtree(tmp_path / "log")
    (tmp_path / "log").write_text("a file is in the way")
    with pytest.raises(LogError, match="cannot be written"):
        spool.write([entry("b")])
    (tmp_path / "log").unlink()
    spool.write([entry("c")])
    assert {"a", "c"} <= set(ids(log))
    assert len(ids(log)) == len(set(ids(log)))
    spool.close()


# --- modes and durability ------------------------------------------------------------------------------------------


def modes(folder):
    return {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}


@pytest.mark.skipif(os.name != "posix", reason="modes of a POSIX system")
@pytest.mark.parametrize("before", [None, 0o777])
def test_what_a_log_writes_is_for_its_owner_only(tmp_path, before):
    folder = tmp_path / "log"
    if before is not None:
        for name in ("spool", "sizes", "sizes/answers", "sizes/ids"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name).chmod(before)
    mask = os.umask(0)
    try:
        log = prediction_log.log_at(str(folder), "sizes")
        spool = log.spool()
        spool.write([entry("a")])
        spool.write_outcomes([outcome("a", True)])
        found = modes(folder)
        prediction_log.seal(log, [spool])
        found |= modes(folder)
        spool.close()
    finally:
        os.umask(mask)
    ours = {path: mode for path, mode in found.items() if path != folder or before is None}
    wide = {str(path): oct(mode) for path, mode in ours.items() if mode & 0o077}
    assert wide == {}


def test_every_folder_that_is_made_for_a_durable_file_is_on_disk_itself(tmp_path, monkeypatch):
    synced, made = set(), set()
    sync, mkdir = disk.sync_folder, type(tmp_path).mkdir
    monkeypatch.setattr(disk, "sync_folder", lambda folder: (synced.add(folder.absolute()), sync(folder)))

    def noted(self, *arguments, **options):
        if not self.exists():
            made.add(self.absolute())
        return mkdir(self, *arguments, **options)

    monkeypatch.setattr(type(tmp_path), "mkdir", noted)
    log = prediction_log.log_at(str(tmp_path / "deep" / "er" / "log"), "sizes")
    spool = log.spool()
    spool.write([entry("a"), entry("b", NOON + 24 * HOUR)])
    prediction_log.seal(log, [spool])
    spool.close()
    ours = {folder for folder in made if folder.is_relative_to(tmp_path / "deep")}
    assert len(ours) > 8
    assert {folder.parent for folder in ours} <= synced


def test_drafts_of_killed_processes_go_after_an_hour(log):
    draft = first_part(log).with_name(".x.parquet.1-abc")
    draft.touch()
    log.store.clear_drafts()
    assert draft.exists()
    os.utime(draft, (0, 0))
    log.store.clear_drafts()
    assert not draft.exists()
    assert spool_file.spools(log.folder) == []


def test_a_store_that_went_away_is_named_where_the_age_of_a_part_is_asked(log):
    part = log.store.parts("answers")[0]
    assert log.store.age(part, 0.0) < 0
    shutil.rmtree(log.store.path)
    assert log.store.age(part, 0.0) == 0.0
    log.store.path.write_text("no folder")
    with pytest.raises(LogError, match=part.file):
        log.store.age(part, 0.0)
