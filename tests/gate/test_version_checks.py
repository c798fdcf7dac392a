"""A version that is slow is found; one that was measured while the machine was busy is not."""

import pytest

from afterfit.gate import version_checks


class Work:
    """Takes the milliseconds that it is told to, one after the other; the last again and again."""

    def __init__(self, clock, *taken):
        self.clock, self.taken = clock, list(taken)

    def __call__(self):
        self.clock[0] += (self.taken.pop(0) if len(self.taken) > 1 else self.taken[0]) / 1000


def told(monkeypatch, ours, theirs, *, load=0.0):
    clock = [0.0]
    monkeypatch.setattr(version_checks.os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(version_checks.time, "process_time" if load else "perf_counter", lambda: clock[0])
    pauses = []
    monkeypatch.setattr(version_checks.time, "sleep", pauses.append)
    found = version_checks.fast_enough("1,000 rows", [Work(clock, *ours), Work(clock, *theirs)], 2, 3.0)
    return found, pauses


def test_on_a_busy_machine_the_time_of_the_processor_counts(monkeypatch):
    found, _ = told(monkeypatch, [400], [110], load=100.0)
    assert (found.outcome, found.value) == ("fail", pytest.approx(400 / 110))
    assert told(monkeypatch, [100], [110], load=100.0)[0].outcome == "pass"


def test_what_is_slow_each_time_is_too_slow(monkeypatch):
    found, pauses = told(monkeypatch, [400], [110])
    assert (found.outcome, len(pauses)) == ("fail", len(version_checks.PAUSES))
    assert "3.64 times the champion's 110 ms" in found.sentence


def test_a_busy_moment_is_measured_again_and_not_held_against_the_candidate(monkeypatch):
    found, pauses = told(monkeypatch, [900, 800, 700, 120], [110])
    assert (found.outcome, len(pauses)) == ("pass", 1)


def test_what_is_fast_is_measured_once_and_the_first_call_does_not_count(monkeypatch):
    found, pauses = told(monkeypatch, [9_000, 120, 130], [110])
    assert (found.outcome, pauses) == ("pass", [])
    assert found.value == pytest.approx(120 / 110)
