"""The loop's journal and the monitor's windows, whose runs somebody has changed: named, passed over, and gone on."""

import json
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterfit.commands import step
from afterfit.commands.history import moment_of
from afterfit.data.windows import parse_time
from afterfit.errors import DamagedRecordError, SettingsError, StoreError
from afterfit.lifecycle import live_loop
from afterfit.loop.policy import State
from afterfit.mlflow_store import monitor_runs, step_journal, tracking
from afterfit.mlflow_store.lock import locked
from afterfit.mlflow_store.tracking import FinishedRun, MetricPoint
from afterfit.settings import Period
from made_loop import settings

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("2024-01-01T00:00:00+01:00"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ODD = ["", "x", "2024-13-01", "2024-01-01T00:00:00+02:00", "{", "[1]", "null", '{"end": 3}', "-1", "1e9", "9" * 30, "²"]


def file_of(page, name):
    return Path(mlflow.get_run(page.run_id).info.artifact_uri.removeprefix("file://")) / name


@given(st.sampled_from(sorted(State("1").to_dict())), JSON)
def test_a_state_that_was_changed_is_a_state_or_an_error_that_is_expected(key, value):
    saved = {**State("1").to_dict(), key: value}
    with suppress(LookupError, TypeError, ValueError, AttributeError):
        assert isinstance(State.from_dict(saved), State)


def test_pages_that_were_changed_are_passed_over_and_a_page_that_is_whole_is_read(shared_store):
    del shared_store
    times = "2024-01-01T00:00:00", "2024-01-08T00:00:00"
    whole = step_journal.begin("paged", "2024-01-01", *times)
    for key, value in (
        ("start", ""),
        ("end", "soon"),
        ("end", times[0]),
        ("start", f"{times[0]}+02:00"),
        ("window", ""),
    ):
        page = step_journal.begin("paged", "2024-01-01", *times)
        step_journal.mark(page, **{key: value})
    pages, passed = step_journal.read_pages("paged")
    assert [page.run_id for page in pages] == [whole.run_id]
    assert len(passed) == 5
    assert all("no readable step" in sentence for sentence in passed)
    step_journal.write(whole, live_loop.STATE, State("3").to_dict())
    assert live_loop._last_state([whole]) == (State("3"), [])
    for content in (b"", b"{", b"[]", b"\xff\xfe", b'{"champion": 1}', b"null", None):
        place = file_of(whole, live_loop.STATE)
        place.unlink() if content is None else place.write_bytes(content)
        state, [doubt] = live_loop._last_state([whole])
        assert state is None
        assert "was changed" in doubt


def test_a_step_goes_on_where_the_one_before_was_damaged(begun):
    config = settings(begun, policy={"preset": "never", "minimum_outcomes": 100, "every": "1w"})
    first = step.command(config, now="2024-02-13")
    [page] = step_journal.pages("changing")
    file_of(page, live_loop.STATE).write_text("{")
    step_journal.begin("changing", "odd", "", "")
    begun_page = step_journal.begin("changing", "2024-02-05", "2024-02-05T00:00:00", "2024-02-12T00:00:00")
    step_journal.mark(begun_page, decided="true", champion="none", judged="1")
    second = step.command(config, now="2024-02-13")
    assert (first.data["window"], second.data["window"], second.data["outcome"]) == (
        "2024-01-29",
        "2024-02-05",
        "nothing",
    )
    said = "\n".join(second.lines)
    assert "is no readable step" in said
    assert "the state before it is taken" in said
    assert all(page.done for page in step_journal.pages("changing"))


@given(st.dictionaries(st.sampled_from([monitor_runs.START, monitor_runs.END, monitor_runs.STEP, monitor_runs.PAST,
                                        monitor_runs.CAUSES, monitor_runs.NAME]), st.sampled_from(ODD)))  # fmt: skip
def test_a_window_whose_run_was_changed_is_a_window_or_none(changed):
    tags = {monitor_runs.NAME: "w", monitor_runs.STEP: "3", monitor_runs.CAUSES: '["drift"]', **changed}
    window = monitor_runs._recorded_window(FinishedRun("run", tags, {}))
    if window is not None:
        assert all(end is None or end.tzinfo is None for end in (window.start, window.end))
        assert json.loads(json.dumps(window.causes)) == list(window.causes)


def test_a_changed_window_is_named_and_a_series_whose_mark_was_changed_is_written_anew(shared_store):
    del shared_store
    name = monitor_runs.experiment("watched")
    good = {monitor_runs.KIND: "window", monitor_runs.NAME: "w", monitor_runs.STEP: "3"}
    points = [MetricPoint("rows", 4.0, 3_000, 3)]
    tracking.write_run(name, "w", good, points, {})
    bad = tracking.write_run(name, "w2", {**good, monitor_runs.NAME: "w2", monitor_runs.STEP: "three"}, points, {})
    found, [passed] = monitor_runs.read_windows("watched")
    assert [window.name for window in found] == ["w"]
    assert bad in passed
    before = monitor_runs.series("watched")
    assert monitor_runs.series("watched") == before
    for mark in ("", "x y", "1", "-1 x", "7 abc", "²"):
        mlflow.MlflowClient().set_tag(before, monitor_runs.POINTS, mark)
        before, changed = monitor_runs.series("watched"), before
        assert before != changed


def test_a_lock_or_a_search_that_was_changed_is_named_in_a_sentence(shared_store):
    del shared_store
    owner = {"token": "t", "machine": "m", "pid": 1, "born": "b", "who": "ana", "since": 1.0, "lease": 300.0}
    changed = ["", "{", "[]", "{}", *(json.dumps({**owner, key: wrong}) for key in owner for wrong in (None, [1], {}))]
    for place, description in enumerate(changed):
        mlflow.MlflowClient().create_registered_model(f"lock{place}", description=description)
        with pytest.raises(StoreError, match="is no lock of Afterfit's"), locked(f"lock{place}", "ben", patience=0.0):
            pass
    run = mlflow.MlflowClient().create_run(tracking.experiment_id("searched"))
    for value in ("", "{", "[]", "3", '{"builder": "linear"}', '{"builder": "linear", "params": 3}'):
        mlflow.MlflowClient().set_tag(run.info.run_id, tracking.BEST, value)
        with pytest.raises(DamagedRecordError, match="search again"):
            tracking.best_of(run.info.run_id)


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00+14:00"])
def test_a_time_that_utc_does_not_have_is_refused_in_a_sentence(text):
    for read in (moment_of, lambda given: parse_time(given, "--start"), lambda given: Period(start=given)):
        with pytest.raises((SettingsError, ValueError)):
            read(text)
