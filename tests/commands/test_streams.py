"""What a command has done is done, whatever becomes of its words: encodings, closed pipes, full disks, odd names."""

import argparse
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afterfit.commands import console, streams
from afterfit.lifecycle.result import CommandResult
from made import ROOT

ENCODINGS = ["ascii", "latin-1", "cp1252", "utf-16", "utf-8"]
WORDS = st.text(st.characters(), min_size=1, max_size=40).filter(lambda text: not set(text) & set("\r\n"))


class Torn(io.RawIOBase):
    """A pipe whose other end goes away, or a disk that is full."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def writable(self):
        return True

    def write(self, data):
        del data
        raise OSError(self.error, os.strerror(self.error))


def said(monkeypatch, lines, stream, path=""):
    """Run a command that acts and then has these lines to say; gives its exit code and whether it acted."""
    acted = []

    class Module:
        @staticmethod
        def command(**options):
            acted.append(options)
            return CommandResult(tuple(lines), {"lines": list(lines)}, 3)

    with monkeypatch.context() as patch:
        patch.setattr(console, "import_module", lambda _: Module)
        patch.setattr(sys, "stdout", stream)
        code = console.run(argparse.ArgumentParser("acts"), "acts", ["--json", path] if path else [])
        sys.stdout.flush()
    return code, bool(acted)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(WORDS, min_size=1, max_size=4), encoding=st.sampled_from(ENCODINGS))
def test_a_command_that_acted_ends_as_it_did_in_every_encoding(monkeypatch, lines, encoding):
    held = io.BytesIO()
    stream = io.TextIOWrapper(held, encoding=encoding, errors="strict", newline="\n")
    assert said(monkeypatch, lines, stream) == (3, True)
    text = held.getvalue().decode(encoding)
    assert text.count("\n") == len(lines)
    for line, given_line in zip(text.split("\n"), lines, strict=False):
        assert line == given_line.encode(encoding, "backslashreplace").decode(encoding)


@pytest.mark.parametrize("error", [32, 28, 5])  # the pipe is closed, the disk is full, the disk fails
def test_a_command_that_acted_ends_as_it_did_where_nobody_hears_it(monkeypatch, error):
    stream = io.TextIOWrapper(io.BufferedWriter(Torn(error)), encoding="utf-8")
    assert said(monkeypatch, ["words"] * 5000, stream) == (3, True)


def test_an_answer_goes_to_a_file_whose_name_is_not_utf_8(monkeypatch, tmp_path):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/answer\xff\xe9.json")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    assert said(monkeypatch, ["words"], stream, place) == (3, True)
    assert Path(place).stat().st_size > 0


@pytest.mark.parametrize(
    ("command", "option"), [("init", "data"), ("score", "data"), ("outcomes", "data"), ("monitor", "page")]
)
def test_a_name_that_is_not_utf_8_is_refused_in_a_sentence_before_anything_is_done(
    command_line, monkeypatch, command, option
):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    wanted = {"target": "late"} if command == "init" else {}
    code, _, err = command_line(command, **wanted, **{option: os.fsdecode(b"table\xff.csv")})
    assert (code, err.count("\n")) == (2, 1)
    assert f"--{option} 'table\\udcff.csv' must be text of UTF-8" in err


def test_an_answer_that_cannot_be_written_at_the_end_is_told_and_the_work_counts(monkeypatch, tmp_path, capsys):
    def full(*_):
        raise OSError(28, "No space left")

    monkeypatch.setattr(console, "_write_json", full)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert said(monkeypatch, ["words"], stream, str(tmp_path / "a.json")) == (3, True)
    assert "has done its work" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="descriptors of a shell")
@pytest.mark.parametrize("redirect", [">&-", "> /dev/full", "| head -0", ">&- 2>&-", "> /dev/full 2>&1"])
def test_a_real_command_with_a_closed_or_full_output_ends_well(tmp_path, redirect):
    code = "import sys; from afterfit.commands import console; import argparse; import types;"
    code += "m = types.ModuleType('afterfit.commands.told'); sys.modules[m.__name__] = m;"
    code += "from afterfit.lifecycle.result import CommandResult;"
    code += "m.command = lambda: (open('acted', 'w').close(), CommandResult(('é' * 9000,) * 99, {}))[1];"
    code += "sys.exit(console.run(argparse.ArgumentParser('told'), 'told', []))"
    shell = f'"{sys.executable}" -c "$CODE" {redirect}'
    shell = shell.replace("| head", "; echo $? >&2; exit 0) | (sleep 0; head") if "|" in redirect else shell
    line = f"({shell})" if "|" in redirect else f"{shell}; echo $? > code"
    environment = {**os.environ, "CODE": code, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    told = done.stderr.split()[-1] if "|" in redirect else (tmp_path / "code").read_text().strip()
    assert told == "0", done.stderr
    assert (tmp_path / "acted").exists()
    assert "Traceback" not in done.stderr


def test_streams_are_settled_once(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    streams.settle_streams()
    first = sys.stdout
    streams.settle_streams()
    assert sys.stdout is first
