import pytest

from made import bench_module


def test_made_data_with_each_kind_of_shift_are_estimated_and_counted(monkeypatch, capsys):
    estimate = bench_module("quality.estimate")
    monkeypatch.setattr(estimate, "STRETCH", 200)
    monkeypatch.setattr(estimate, "WINDOWS", 3)
    found = estimate.made(1, 1_000)
    assert set(found) == {"none", "covariate", "label", "concept"}
    for shares in found.values():
        assert all(0.0 <= held <= 1.0 for held in shares.values())
    assert "held" in capsys.readouterr().out


@pytest.mark.slow
def test_monitor_is_timed_as_a_process():
    seconds, peak = bench_module("speed.monitor").measured([2_000])[2_000]
    assert seconds > 0
    assert peak > 50
