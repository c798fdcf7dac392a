import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "bench"))


@pytest.mark.slow
def test_scoring_is_measured_against_the_booster_alone():
    import score

    found = score.measure(rows=3000, repeats=1)
    assert found["rows"] == 3000
    assert found["ratio"] == pytest.approx(found["score"] / found["floor"])
    assert found["peak_mb"] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # MLflow's advice on the plain pipeline's signature and example
def test_both_models_are_served_and_asked(tmp_path, monkeypatch):
    import mlflow
    import served

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/unused.db")
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    try:
        found = served.measure(seconds=0.5, rounds=1, params={"max_iter": 5})
    finally:
        mlflow.set_tracking_uri(before)
    assert set(found) == {1, 8}
    for sides in found.values():
        assert all(requests > 0 and latency > 0 for requests, latency in sides.values())
