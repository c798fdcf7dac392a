"""Alarms to receivers that answer oddly, to addresses that are none, and to commands that go wrong."""

import json
import socket
import sys
import threading
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterfit.alarms import delivery, webhook
from afterfit.errors import AfterfitError, AlarmError, SettingsError, UnsureAlarmError
from afterfit.settings import Alarms
from afterfit.texts import redaction

ALARM = {"causes": [], "id": "1"}
SEGMENT = "T0K3Nsegment9"


@contextmanager
def receiver(answer):
    """A listener that calls `answer` with each connection; gives its address and the connections that came."""
    came = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    came.append(connection)
                    threading.Thread(target=talk, args=[connection], daemon=True).start()

        def talk(connection):
            with suppress(OSError), connection:
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/services/{SEGMENT}?token=hunter2", came
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def told(*parts):
    """Read the whole request, then say so many bytes."""

    def answer(connection):
        got = b""
        while not got.endswith(json.dumps(ALARM).encode()):
            got += connection.recv(65_536)
        for part in parts:
            connection.sendall(part)

    return answer


def forever(part, first=b""):
    def answer(connection):
        told(first)(connection)
        while True:
            connection.sendall(part)

    return answer


def silence(connection):
    while connection.recv(65_536):
        pass


def hanging_up(connection):
    connection.recv(65_536)


HEAD = b"HTTP/1.1 200 OK\r\n"
ODD = {
    "it hangs up after reading": hanging_up,
    "it hangs up at once": lambda _: None,
    "it answers without a head": told(b"hello there"),
    "it answers garbage": told(bytes(range(256)) * 3),
    "it never answers": silence,
    "its first line never ends": forever(b"a" * 65_536, first=b"HTTP/1.1 200 "),
    "it goes on and on": forever(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "its header never ends": forever(b"a" * 65_536, first=HEAD + b"X: "),
    "it has ever more headers": forever(b"X: a\r\n" * 1_000, first=HEAD),
    "its status is no number": told(b"HTTP/1.1 abc OK\r\n\r\n"),
    "its status is none that there is": told(b"HTTP/1.1 999 OK\r\n\r\n"),
    "a gateway had no answer": told(b"HTTP/1.1 504 late\r\n\r\n"),
}


@pytest.mark.parametrize("name", list(ODD))
def test_what_may_have_arrived_is_sent_once_and_that_is_said(name, monkeypatch, tmp_path):
    monkeypatch.setattr(webhook, "SECONDS", 0.5)
    with receiver(ODD[name]) as (address, came), pytest.raises(UnsureAlarmError, match="may have arrived") as caught:
        delivery.send(Alarms(webhook=address), ALARM, tmp_path, lambda _: None)
    assert len(came) == 1
    assert SEGMENT not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        told(HEAD + b"\r\n"),
        told(HEAD + b"Content-Length: -5\r\nTransfer-Encoding: chunked\r\n\r\nZZ"),
        forever(b"a" * 65_536, first=HEAD + b"\r\n"),
        told(b"HTTP/1.0 202 \xff\r\n\xfe: \x00\r\n\r\n"),
    ],
    ids=["short", "broken body", "endless body", "odd bytes"],
)
def test_only_the_head_of_an_answer_counts(answer, tmp_path):
    with receiver(answer) as (address, came):
        assert delivery.send(Alarms(webhook=address), ALARM, tmp_path, lambda _: None) == []
    assert len(came) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_says_where_it_points_without_secrets(status, tmp_path):
    location = f"https://user:hunter2@elsewhere.example/hook/{SEGMENT}/x\x1b?token=hunter2".encode()
    answer = told(b"HTTP/1.1 %d Moved\r\nLocation: %s\r\n\r\n" % (status, location))
    with receiver(answer) as (address, came), pytest.raises(AlarmError, match="redirects are not followed") as caught:
        delivery.send(Alarms(webhook=address), ALARM, tmp_path, lambda _: None)
    assert len(came) == 1
    assert "https://elsewhere.example/hook/***/x" in str(caught.value)
    assert not {"hunter2", SEGMENT, "\x1b"} & set(str(caught.value).split("/"))


def test_a_receiver_that_never_will_is_asked_once_and_one_that_may_is_asked_again(tmp_path):
    for status, times in ((404, 1), (401, 1), (413, 1), (429, 3), (500, 3), (503, 3)):
        with receiver(told(b"HTTP/1.1 %d No\r\n\r\n" % status)) as (address, came), pytest.raises(AlarmError):
            delivery.send(Alarms(webhook=address, tries=3), ALARM, tmp_path, lambda _: None)
        assert len(came) == times


NO_ADDRESSES = [
    "",
    "example.com/x",
    "//x/y",
    "ftp://x/y",
    "file:///etc/passwd",
    "http://",
    "http:///x",
    "http://a b/c",
    "javascript:1",
    "http://a/b c",
    "http://a:99999/",
    "http://a:0/",
    "http://a:-1/",
    "http://a:x/",
    "http://[::1/",
    "http://[zz]/",
    f"http://{'a' * 70}.x/",
    "http://a..b/",
    "http://a\nb/",
    "http://a\0b/",
    "http://a\r\nX: y/",
    "http:/a/b",
    "http://a<b>/",
]


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_an_address_that_is_none_is_known_before_anything_is_sent(text, tmp_path):
    with pytest.raises(SettingsError, match=r"alarms\.webhook"):
        delivery.prepare(Alarms(webhook=text), ALARM, tmp_path)


@settings(max_examples=60)
@given(st.text(max_size=30) | st.text("ht:/@[]%.aé1 #?\\", max_size=30).map("http://".__add__))
def test_any_text_is_an_address_or_an_error_in_a_sentence(text):
    with suppress(SettingsError):
        address = webhook.address_of(text)
        redaction.forget()
        assert address.url.isascii()
        assert address.url.startswith(("http://", "https://"))


@pytest.mark.parametrize(
    "text", ["http://[::1]:9/", "http://ünïcode.invalid:9/ä?ö=ü", "HTTP://127.0.0.1:9", "http://u:p%40w@127.0.0.1:9/"]
)
def test_an_address_where_nobody_listens_is_an_error_in_a_sentence(text, tmp_path):
    with pytest.raises(AlarmError, match="cannot be reached"):
        delivery.send(Alarms(webhook=text, tries=1), ALARM, tmp_path, lambda _: None)


def test_what_the_settings_lack_is_known_before_anything_is_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("EMPTY_KEY", "")
    for told_wrongly in (
        Alarms(webhook="http://${ABSENT}/"),
        Alarms(webhook="http://127.0.0.1:9/", secret="ABSENT"),
        Alarms(webhook="http://127.0.0.1:9/", secret="EMPTY_KEY"),
        Alarms(command=("sh", "${ABSENT}")),
        Alarms(command=("sh", "a\0b")),
        Alarms(command=(" ",)),
    ):
        with pytest.raises(SettingsError):
            delivery.prepare(told_wrongly, ALARM, tmp_path)


def python(text):
    return (sys.executable, "-S", "-c", text)


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        (
            (*python("import sys; print('it is', sys.argv[1]); sys.exit(3)"), "${ALARM_WORD}"),
            AlarmError,
            r"it is \*\*\*",
        ),
        (python("import sys, os; sys.exit('%' + os.environ['ALARM_WORD'].upper())"), AlarmError, "ended with 1: %"),
        (("no such program",), AlarmError, "could not be run: No such file"),
        (("/",), AlarmError, "could not be run: Permission denied"),
        (("sh", "-c", "kill -9 $$"), UnsureAlarmError, "may have arrived"),
        (("sh", "-c", "sleep 100 & sleep 100"), UnsureAlarmError, "may have arrived"),
        (("sh", "-c", "printf '\\033[31m\\377' >&2; exit 1"), AlarmError, "ended with 1: \\[31m"),
    ],
)
def test_a_command_that_goes_wrong_ends_in_a_sentence_without_secrets(command, kind, message, monkeypatch, tmp_path):
    monkeypatch.setenv("ALARM_WORD", "hunter2-word")
    monkeypatch.setattr(delivery, "COMMAND_SECONDS", 0.3 if "sleep 100 & sleep 100" in command else 30.0)
    with pytest.raises(kind, match=message) as caught:
        delivery.send(Alarms(command=command, tries=1), ALARM, tmp_path, lambda _: None)
    assert "hunter2-word" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_nobody_waits_for_what_a_command_leaves_behind(tmp_path):
    left = f"import subprocess; subprocess.Popen([{sys.executable!r}, '-S', '-c', 'input()'])"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "COMMAND_SECONDS", 30.0)
        assert delivery.send(Alarms(command=python(left)), ALARM, tmp_path, lambda _: None) == []


def test_one_way_that_fails_does_not_stop_the_other(tmp_path):
    with receiver(told(HEAD + b"\r\n")) as (address, came):
        failing = Alarms(webhook=address, command=("sh", "-c", "exit 4"), tries=1)
        [sentence] = delivery.send(failing, ALARM, tmp_path, lambda _: None)
    assert "ended with 4" in sentence
    assert len(came) == 1
    both = Alarms(webhook="http://127.0.0.1:9/", command=("sh", "-c", "cat > got.json"), tries=1)
    [sentence] = delivery.send(both, ALARM, tmp_path, lambda _: None)
    assert "cannot be reached" in sentence
    assert json.loads((tmp_path / "got.json").read_text()) == ALARM
    with pytest.raises(AfterfitError, match=r"cannot be reached.*ended with 5"):
        delivery.send(both.model_copy(update={"command": ("sh", "-c", "exit 5")}), ALARM, tmp_path, lambda _: None)


def test_what_the_settings_lack_leaves_no_mark_that_an_alarm_may_have_gone_out(monkeypatch, tmp_path):
    from types import SimpleNamespace

    from afterfit.lifecycle import live_loop
    from afterfit.loop.policy import Action, Cause

    marks = []
    monkeypatch.setattr(live_loop.step_journal, "mark", lambda page, **told: marks.append(told) or page)
    action = Action("alarm", "", (Cause("drift", "drift", "It drifts."),))
    page, span = SimpleNamespace(marks={}), SimpleNamespace(name="2024-02")
    stage = live_loop.Stage(page, span, action, SimpleNamespace(champion="1"))
    for told_wrongly in (Alarms(webhook="http://${ABSENT}/"), Alarms(webhook="file:///x"), Alarms(command=("a\0",))):
        use_case = SimpleNamespace(name="changing", alarms=told_wrongly, root=tmp_path)
        with pytest.raises(SettingsError):
            live_loop._send_alarm(use_case, stage)
    assert marks == []
    use_case.alarms = Alarms(command=("true",))
    assert live_loop._send_alarm(use_case, stage)[1] == ["The alarm went out."]
    assert marks == [{"alarm": "sending"}, {"alarm": "sent"}]
