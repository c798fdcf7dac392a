"""One window of one version, measured."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from afterfit.gate.examination import examine
from afterfit.gate.inputs import GateInput, HeldOut, LoadedVersion
from afterfit.loop.observe import answered, observe, past_of
from afterfit.loop.recorded_windows import settled
from afterfit.model.answer_table import answer_table
from afterfit.model.bundle import save
from afterfit.model.training import reference, train
from afterfit.performance.estimation import CalibrationEvidence
from made import BOOSTER, made_table, manifest, posed, use_case

CASE = use_case(
    metrics={"primary": "roc_auc", "also": ["log_loss", "accuracy"], "slices": ["carrier"], "smallest_slice": 50}
)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A bundle with its reference, trained on 600 hours."""
    problem = posed(CASE, made_table(600))
    found = train(problem, "hist_gradient_boosting", BOOSTER)
    folder = tmp_path_factory.mktemp("watched")
    return save(found.scorer, manifest(CASE), ({"distance": 500.0},), folder, reference=reference(problem, found))


def served(bundle, rows=400, seed=5, **changes):
    frame = made_table(rows, seed).assign(**changes)
    frame["when"] += pd.Timedelta(days=60)
    return answered(bundle, frame, frame["late"].to_numpy(dtype=float), frame["when"].to_numpy())


def seen(bundle, window, **options):
    return observe(CASE, bundle, window, name="a", start=None, end=None, complete=True, **options)


def test_a_window_with_outcomes_shows_everything(watched):
    found = seen(watched, served(watched))
    assert found.rows == found.outcomes == 400
    assert set(found.estimated) == set(found.realised) == {"roc_auc", "log_loss", "accuracy"}
    one = found.realised["roc_auc"]
    assert one.low < one.value < one.high
    assert found.drift is not None
    assert 0 <= found.calibration < 0.2
    assert {part.value for part in found.slices} == {"AA", "BB"}
    assert found.to_dict()["version"] == ""


def test_outcomes_of_the_window_change_nothing_in_what_is_estimated(watched):
    window = served(watched)
    past = [past_of(CASE, watched, served(watched, seed=seed), end=None) for seed in (6, 7)]
    before = seen(watched, window, past=past).estimated
    window.y[:] = np.nan
    assert seen(watched, window, past=past).estimated == before


def test_a_window_counts_when_its_outcomes_are_due_or_nearly_all_known():
    end, delay = datetime.fromisoformat("2024-01-08"), timedelta(days=3)
    assert settled(end, delay, end + delay)
    assert not settled(end, delay, end, known=89, sound=100)
    assert settled(end, delay, end, known=90, sound=100)
    assert not settled(end, delay, end), "no rows at all"
    assert not settled(None, delay, end)


def test_what_a_window_showed_survives_being_written_and_read(watched):
    past = past_of(CASE, watched, served(watched), end=None)
    assert CalibrationEvidence.from_dict(past.to_dict()) == past


class Broken:
    """Of four rows it answers one; of the others no number, infinity, and a number whose interval has no end."""

    def predict(self, matrix):
        return np.resize([np.nan, np.inf, 1.0, 1.7e308], len(matrix))


def test_an_answer_that_is_an_error_when_served_is_none_when_scored_monitored_or_judged(tmp_path):
    case, frame = use_case(task="regression"), made_table(400)
    sound = save(train(posed(case, frame), "linear", {}).scorer, manifest(case), ({"distance": 500.0},), tmp_path)
    bundle = replace(sound, scorer=replace(sound.scorer, estimator=Broken(), offsets=(-1e308, 1e308)))
    served = [answer["error"] is None for answer in bundle.answers(frame)]
    assert served == [False, False, True, False] * 100
    scored = [not errors for errors in answer_table(bundle, frame, [], 0)[0]["error"].to_pylist()]
    window = answered(bundle, frame, frame["delay"], frame["when"].to_numpy())
    assert scored == window.sound.tolist() == served
    assert observe(case, bundle, window, name="a", start=None, end=None, complete=True).quality.refused == 300
    rows = HeldOut(frame, frame["delay"].to_numpy(), frame["when"].to_numpy())
    found = {
        one.code: one for one in examine(GateInput(case, LoadedVersion("2", bundle, tmp_path), None, "staging", rows))
    }
    assert (found["finite_answers"].outcome, found["finite_answers"].value) == ("fail", 300)
