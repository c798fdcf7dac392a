"""The live step over a real MLflow store: it does what the backtest said, once, whatever happens to it."""

import http.server
import json
import threading
from datetime import datetime
from typing import ClassVar

import mlflow
import pytest

from afterfit.commands import loop as looping
from afterfit.commands import step, train
from afterfit.commands.history import decision_lines
from afterfit.errors import SettingsError
from afterfit.lifecycle import live_world
from afterfit.lifecycle.promotion import PromotionRequest, gate_result, past_uses
from afterfit.loop import history
from afterfit.mlflow_store import ledger, monitor_runs, registry, step_journal
from afterfit.mlflow_store.decisions import Decision
from afterfit.use_case import load_use_case
from made_log import entry
from made_loop import NOW, decisions, lived, policy, run_all, settings, table

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def measured(findings):
    """What a gate found, without the seconds that it took and what only a ledger knows."""
    told = [one.to_dict() for one in findings]
    return [one for one in told if not one["code"].startswith(("service_", "loads", "not_rolled_back"))]


def said_live():
    """The verdicts in the journal, in order of the windows."""
    pages = [page for page in step_journal.pages("changing") if page.marks.get("candidate")]
    return [live_world.verdict_of(step_journal.read(page, live_world.VERDICT), trial=True) for page in pages]


@pytest.mark.parametrize(("preset", "trial"), [("calendar", True), ("cautious", True), ("calendar", False)])
def test_the_live_loop_decides_month_by_month_what_the_backtest_said(begun, preset, trial):
    config = settings(begun, policy={"preset": preset, "minimum_outcomes": 100, "every": "1w", "trial": trial})
    told = run_all(config)
    (story,), _ = lived(begun / "backtest", {preset: policy(preset, trial=trial)})
    expected = decisions(story)
    assert told[:-1] == expected[:-1]
    assert told[-1][2] == expected[-1][2]
    said, judged = [one.done.verdict for one in story.entries if one.done.verdict is not None], said_live()
    assert [measured(one.findings) for one in judged[: len(said)]] == [measured(one.findings) for one in said]
    book = ledger.entries("changing")
    uses = list(dict.fromkeys(past_uses(book)))
    assert [(use.candidate, use.start, use.end) for use in uses[: len(said)]] == [
        (str(number), verdict.window["start"], verdict.window["end"]) for number, verdict in enumerate(said, 2)
    ]
    kept = [entry.decision for entry in book if entry.decision.alias == "production" and entry.number > 1]
    assert [decision.moves for decision in kept] == [
        outcome in {"promoted", "on trial"} for _, outcome, _ in told if outcome not in {"nothing", "alarm"}
    ]


def test_what_goes_in_on_trial_is_called_so_everywhere_and_nobody_forced_it(begun):
    config = settings(begun)
    answer = step.command(config, now="2024-02-05")
    assert (answer.exit_code, answer.data["outcome"], answer.data["verdict"]) == (0, "on trial", "TRIAL")
    assert any(line.startswith("Version 2: TRIAL. ") for line in answer.lines)
    book = ledger.entries("changing")[1:]
    told = [(one.decision.alias, one.decision.verdict, one.decision.forced, one.counts) for one in book]
    assert told == [("staging", "TRIAL", False, True), ("production", "TRIAL", False, True)]
    for number, recorded in enumerate(book, 2):
        run = mlflow.get_run(recorded.run_id)
        assert run.info.run_name == f"{number}. TRIAL 2 to {recorded.decision.alias}"
        assert mlflow.artifacts.load_text(f"runs:/{recorded.run_id}/decision.md").startswith("# TRIAL: version 2 to ")
        assert "TRIAL" in decision_lines(recorded)[0]
        assert "forced" not in decision_lines(recorded)[0]
    assert book[1].decision.reason.startswith("On trial. ")
    [page] = step_journal.pages("changing")
    assert (page.marks["verdict"], step_journal.read(page, live_world.VERDICT)["decision"]) == ("TRIAL", "TRIAL")


def test_what_is_held_goes_to_staging_on_trial_and_production_stays(begun):
    config = settings(begun, policy={"preset": "calendar", "minimum_outcomes": 100, "every": "1w", "trial": False})
    answer = step.command(config, now="2024-02-05")
    assert (answer.data["outcome"], answer.data["verdict"], answer.data["production"]) == ("held", "HOLD", "1")
    told = [(one.alias, one.verdict, one.forced, one.moves) for one in (e.decision for e in ledger.entries("changing"))]
    assert told[1:] == [("staging", "TRIAL", False, True), ("production", "HOLD", False, False)]


def test_a_later_promotion_on_rows_that_the_loop_judged_on_counts_them(begun):
    config = settings(begun, policy={"preset": "calendar", "minimum_outcomes": 100, "every": "1w", "trial": False})
    step.command(config, now="2024-02-05")
    train.command(config)
    period = PromotionRequest(datetime.fromisoformat("2024-02-01"), datetime.fromisoformat("2024-02-20"))
    version, book = registry.version("changing", "3"), ledger.entries("changing")
    found = gate_result(load_use_case(config), version, "production", period, book).verdict.findings
    assert [one.value for one in found if one.code == "fresh_rows"] == [2]


def test_a_backtest_and_the_live_loop_work_on_the_same_rows(store):
    """Those whose outcome never came too, and none from before the training's begin."""

    use_case = load_use_case(settings(store, split={"train": {"start": "2024-01-08", "end": "2024-01-29"}}))
    frame = table()
    frame["late"] = frame["late"].astype("boolean").mask(frame.index % 7 == 0)
    frame.to_csv(store / "changing.csv", index=False)
    replayed, lived = history.rows_of(use_case, None), live_world.rows_of(use_case)
    assert replayed.fingerprint == lived.fingerprint
    assert replayed.fingerprint.start == "2024-01-08T00:00:00"
    assert replayed.frame["late"].isna().any()


def test_an_old_row_in_the_log_takes_nothing_from_the_history(store):
    from afterfit import prediction_log
    from afterfit.loop import history

    use_case = load_use_case(settings(store, log={"folder": "log"}))
    spool = prediction_log.required(use_case).spool()
    rows = [("trial", "2020-01-01"), ("served", "2024-02-01T00:30:00"), ("us", "01/30/2024 10:00"), ("odd", "soon")]
    for name, when in rows:
        spool.write([entry(name, key=[name], features={"when": when, "id": name, "size": 0.5, "other": 0.5})])
    spool.close()
    end = datetime.fromisoformat("2024-01-29")
    known = live_world.rows_of(use_case, end).frame
    assert known["when"].max() == datetime.fromisoformat("2024-02-01T00:30:00")
    assert known["when"].iloc[-2] == datetime.fromisoformat("2024-01-30T10:00:00")
    assert (known["when"] <= end).sum() == (history.rows_of(use_case).frame["when"] <= end).sum() > 0


def test_each_step_leaves_its_window_in_the_series_with_its_page(begun):
    config = settings(begun)
    for _ in range(2):
        step.command(config, now=NOW)
    found = monitor_runs.windows("changing")
    assert [one.name for one in found] == ["2024-01-29", "2024-02-05"]
    for one in found:
        page = mlflow.artifacts.load_text(f"runs:/{one.run_id}/monitor.html")
        assert one.name in page
        assert "Policy calendar: " in page


def test_a_step_without_a_version_in_production_says_what_to_do(store):
    config = settings(store)
    with pytest.raises(SettingsError, match="train and promote"):
        step.command(config, now=NOW)


def test_a_window_that_is_not_over_is_not_looked_at(begun):
    config = settings(begun)
    answer = step.command(config, now="2024-02-01")
    assert answer.data["outcome"] == "nothing is due"
    assert answer.exit_code == 0
    assert step_journal.pages("changing") == []


class DiedError(Exception):
    """Stands for a process that dies."""


@pytest.mark.parametrize(
    "place", ["step_journal.mark", "registry.register", "ledger.record", "step_journal.close", "step_journal.write"]
)
def test_a_step_that_dies_anywhere_is_finished_by_the_next_and_does_nothing_twice(begun, monkeypatch, place):
    from importlib import import_module

    config = settings(begun)
    module, name = place.split(".")
    owner = import_module(f"afterfit.mlflow_store.{module}")
    real = getattr(owner, name)
    for number in range(1, 9):
        calls = []

        def dies(*arguments, _number=number, _calls=calls, **options):
            _calls.append(1)
            if len(_calls) == _number:
                raise DiedError
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, dies)
        try:
            step.command(config, now="2024-02-05")
        except DiedError:
            continue
        break
    monkeypatch.setattr(owner, name, real)
    assert step.command(config, now="2024-02-05").data["outcome"] == "nothing is due"
    pages = step_journal.pages("changing")
    assert [page.done for page in pages] == [True]
    versions = [registry.version("changing", "latest").number]
    assert versions == ["2"]
    book = [entry for entry in ledger.entries("changing") if entry.decision.version == "2" and entry.state == "done"]
    said = [entry.decision.reason for entry in book]
    assert [entry.decision.alias for entry in book] == ["staging", "production"], said


def test_a_roll_back_that_is_asked_for_twice_is_one_decision(begun):
    from dataclasses import replace

    from afterfit.data.windows import TimeWindow
    from afterfit.lifecycle.live_world import Live
    from afterfit.loop.history import History
    from afterfit.loop.policy import Action
    from afterfit.loop.stepping import act, begin
    from afterfit.loop.task_runner import TaskRunner

    config = settings(begun)
    train.command(config)
    ledger.record("changing", Decision("promotion", "PROMOTE", "2", "production", moves=True, previous="1"), 1)
    use_case = load_use_case(config)
    work = TaskRunner(History.of(use_case, live_world.rows_of(use_case), begun / "work"))
    (begun / "versions").mkdir()
    page = step_journal.begin("changing", "w", "2024-01-29T00:00:00", "2024-02-05T00:00:00")
    world = Live(use_case, work, page, begun / "versions")
    state = replace(begin(world.trained("2")), previous="1")
    span = TimeWindow("w", *(datetime.fromisoformat(page.marks[key]) for key in ("start", "end")))
    action = Action("roll_back", "Version 2 is surely worse.")
    done = act(span, action, state, use_case.policy, world)
    assert (done.outcome, done.state.champion, done.state.previous) == ("rolled back", "1", "")
    assert registry.holder("changing", "production").number == "1"
    again = act(span, action, state, use_case.policy, world)
    assert again.state == done.state
    rolled = [entry for entry in ledger.entries("changing") if entry.decision.action == "rollback"]
    assert len(rolled) == 1


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what came, and answers with the statuses that it is told to."""

    came: ClassVar = []
    statuses: ClassVar = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.statuses.pop(0) if self.statuses else 204
        self.came.append((status, body, dict(self.headers)))
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def receiver():
    Receiver.came, Receiver.statuses = [], []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/alarms", Receiver
    server.shutdown()
    server.server_close()


def test_an_alarm_goes_out_signed_and_once_for_as_long_as_its_cause_lasts(begun, receiver, monkeypatch):
    from afterfit.alarms.delivery import SIGNATURE, signature

    monkeypatch.setenv("ALARM_KEY", "secret")
    told = {"webhook": receiver[0], "secret": "ALARM_KEY"}
    policy_ = {"preset": "never", "minimum_outcomes": 100, "every": "1w", "fall": 0.05, "alarm": ["realised"]}
    config = settings(begun, alarms=told, policy=policy_)
    run_all(config)
    assert len(receiver[1].came) == 1
    _, body, headers = receiver[1].came[0]
    assert headers[SIGNATURE] == signature(b"secret", body)
    assert json.loads(body)["causes"][0]["key"] == "realised roc_auc"


def test_an_alarm_that_is_refused_is_tried_again_and_one_that_may_have_arrived_is_not(receiver):
    from pathlib import Path

    from afterfit.alarms import delivery
    from afterfit.errors import AlarmError
    from afterfit.settings import Alarms

    waited = []
    told = delivery.message("changing", "2024-02", {"kind": "alarm", "reason": "", "causes": [{"key": "drift"}]}, "1")
    receiver[1].statuses[:] = [500, 503]
    delivery.send(Alarms(webhook=receiver[0]), told, Path(), waited.append)
    assert [status for status, _, _ in receiver[1].came] == [500, 503, 204]
    assert waited == [1.0, 2.0]
    receiver[1].statuses[:] = [500] * 4
    with pytest.raises(AlarmError, match="status 500"):
        delivery.send(Alarms(webhook=receiver[0]), told, Path(), waited.append)
    with pytest.raises(AlarmError, match="cannot be reached"):
        delivery.send(Alarms(webhook="http://127.0.0.1:9/", tries=1), told, Path(), waited.append)


def test_a_command_gets_the_alarm_on_its_standard_input(tmp_path):
    from afterfit.alarms import delivery
    from afterfit.errors import AlarmError
    from afterfit.settings import Alarms

    told = {"id": "1", "causes": []}
    delivery.send(Alarms(command=("sh", "-c", "cat > got.json")), told, tmp_path, lambda _: None)
    assert json.loads((tmp_path / "got.json").read_text()) == told
    with pytest.raises(AlarmError, match="ended with 3: no"):
        delivery.send(Alarms(command=("sh", "-c", "echo no >&2; exit 3"), tries=1), told, tmp_path, lambda _: None)


def test_two_steps_at_once_are_one_step(begun):
    from afterfit.mlflow_store.lock import locked

    config = settings(begun)
    with locked("changing.step-lock", "somebody"):
        answer = step.command(config, now="2024-02-05")
    assert answer.data["outcome"] == "busy"
    assert "somebody" in answer.lines[0]
    assert answer.exit_code == 0


def test_the_loop_steps_until_nothing_is_due_and_ends_after_its_rounds(begun, capsys):
    config = settings(begun, policy={"preset": "never", "minimum_outcomes": 100, "every": "1w"})
    answer = looping.command(config, every="1s", rounds=1)
    assert answer.data == {"steps": 5, "looks": 1}
    assert capsys.readouterr().out.count('"exit_code"') == 5
    with pytest.raises(SettingsError, match="length of time"):
        looping.command(config, every="soon")


def test_the_use_cases_policy_is_read_with_its_presets(store):
    use_case = load_use_case(settings(store, policy={"preset": "on-drift", "cooldown": 5}))
    assert use_case.policy.retrain == ("drift",)
    assert use_case.policy.cooldown == 5
    with pytest.raises(SettingsError, match="no preset 'careful'"):
        load_use_case(settings(store, policy={"preset": "careful"}))
