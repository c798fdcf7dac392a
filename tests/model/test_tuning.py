import numpy as np
import pytest

from afterfit.errors import SettingsError, SourceError, TrainingError
from afterfit.model import tuning
from afterfit.model.training import train
from afterfit.model.tuning import importances, search
from made import made_table, posed, use_case

BOOSTER = {
    "builder": "hist_gradient_boosting",
    "params": {"max_iter": 4, "min_samples_leaf": 20},
    "space": {
        "learning_rate": {"low": 0.01, "high": 0.5, "log": True},
        "min_samples_leaf": {"low": 2, "high": 60},
        "early_stopping": {"choices": [True, False]},
    },
}
LINEAR = {"builder": "linear", "params": {"C": 1.0}, "space": {"C": {"low": 1e-4, "high": 10.0, "log": True}}}


def problem(*candidates, trials=8, seconds=600.0, rows=150, **changes):
    limits = {"trials": trials, "seconds": seconds, "folds": 2}
    case = use_case(candidates=list(candidates or (LINEAR, BOOSTER)), tuning=limits, **changes)
    return posed(case, made_table(rows))


def told(found):
    return [(trial.builder, dict(trial.params), trial.pruned, dict(trial.metrics)) for trial in found.trials]


class Clock:
    """Each look at it is one second later."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search in one sitting."""
    return search(problem(), tmp_path_factory.mktemp("whole") / "s.journal", "s")


def test_the_same_seed_tries_the_same_and_another_one_something_else(whole, tmp_path):
    assert told(search(problem(), tmp_path / "s.journal", "s")) == told(whole)
    assert told(search(problem(seed=1, trials=4), tmp_path / "other.journal", "s")) != told(whole)[:4]


def test_each_builder_begins_with_its_own_parameters_and_they_compete_in_one_study(whole):
    found = whole
    assert [trial.builder for trial in found.trials[:2]] == ["linear", "hist_gradient_boosting"]
    assert found.trials[0].params == {"C": 1.0}
    assert found.trials[1].params["min_samples_leaf"] == 20
    assert len(found.trials) == 8
    finished = [trial for trial in found.trials if not trial.pruned]
    assert found.best == min(finished, key=lambda trial: trial.metrics["log_loss"])


def test_a_metric_that_is_better_when_greater_is_maximised(tmp_path):
    found = search(problem(metrics={"primary": "roc_auc"}), tmp_path / "s.journal", "s")
    assert found.best.metrics["roc_auc"] == max(t.metrics["roc_auc"] for t in found.trials if not t.pruned)


@pytest.mark.parametrize("stopped_after", [1, 5])
def test_a_search_that_was_interrupted_while_reporting_goes_on_as_if_it_had_not(stopped_after, whole, tmp_path):
    def interrupt(trial):
        if trial.number + 1 == stopped_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(problem(), tmp_path / "s.journal", "s", interrupt)
    found = search(problem(), tmp_path / "s.journal", "s")
    assert found.resumed == stopped_after
    assert told(found) == told(whole)


@pytest.mark.parametrize("fits", [0, 3, 7])
def test_a_search_that_was_interrupted_in_a_fit_keeps_its_finished_trials(fits, whole, tmp_path, monkeypatch):
    calls, real = iter(range(1000)), tuning.fold_predictions

    def interrupted(*arguments):
        if next(calls) == fits:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(tuning, "fold_predictions", interrupted)
    reported = []
    with pytest.raises(KeyboardInterrupt):
        search(problem(), tmp_path / "s.journal", "s", reported.append)
    found = search(problem(), tmp_path / "s.journal", "s")
    assert found.resumed == len(reported)
    assert list(found.trials[: len(reported)]) == reported
    assert told(found) == told(whole)  # what was interrupted is tried again


def test_a_search_that_is_complete_is_read_and_not_run_again(tmp_path):
    first = search(problem(trials=3), tmp_path / "s.journal", "s")
    again = search(problem(trials=3), tmp_path / "s.journal", "s", lambda _: pytest.fail("it was run"))
    assert (again.resumed, told(again)) == (3, told(first))
    more = search(problem(trials=5), tmp_path / "s.journal", "s")
    assert (more.resumed, len(more.trials)) == (3, 5)


def test_poor_trials_are_stopped_after_the_first_folds(tmp_path):
    found = search(problem(trials=16), tmp_path / "s.journal", "s")
    stopped = [trial for trial in found.trials if trial.pruned]
    assert stopped
    assert not found.best.pruned
    assert all(np.isfinite(trial.metrics["log_loss"]) for trial in stopped)


def test_the_search_ends_when_its_time_is_over(tmp_path):
    found = search(problem(trials=50, seconds=8.0), tmp_path / "s.journal", "s", clock=Clock())
    assert len(found.trials) == 3  # a trial takes two looks and the limit one more
    assert {trial.seconds for trial in found.trials} == {1.0}
    more = search(problem(trials=50, seconds=8.0), tmp_path / "s.journal", "s", clock=Clock())
    assert len(more.trials) == 6


def test_one_trial_is_run_however_short_the_time(tmp_path):
    assert len(search(problem(seconds=1e-9), tmp_path / "s.journal", "s").trials) == 1


def test_the_best_parameters_train(tmp_path):
    posed_problem = problem(BOOSTER)
    best = search(posed_problem, tmp_path / "s.journal", "s").best
    assert set(best.params) == {"max_iter", "learning_rate", "min_samples_leaf", "early_stopping"}
    made = train(posed_problem, best.builder, best.params).scorer.estimator.get_params()
    assert {key: made[key] for key in best.params} == dict(best.params)


def test_own_parameters_outside_the_space_are_not_tried(tmp_path):
    outside = {**BOOSTER, "params": {"max_iter": 8, "learning_rate": 3.0, "early_stopping": "auto"}}
    found = search(problem(outside, trials=3), tmp_path / "s.journal", "s")
    assert len(found.trials) == 3
    assert all(0.01 <= trial.params["learning_rate"] <= 0.5 for trial in found.trials)
    assert {type(trial.params["early_stopping"]) for trial in found.trials} == {bool}


def test_parameters_that_are_refused_cost_their_trial_and_not_the_search(tmp_path):
    half_wrong = {"builder": "linear", "space": {"solver": {"choices": ["none such", "lbfgs"]}}}
    found = search(problem(half_wrong, trials=8), tmp_path / "s.journal", "s")
    assert found.failures
    assert len(found.failures) + len(found.trials) == 8
    assert "none such" in found.failures[0]
    again = search(problem(half_wrong, trials=8), tmp_path / "s.journal", "s")
    assert (again.resumed, again.failures) == (8, found.failures)


def test_a_search_of_which_no_trial_was_finished_says_why(tmp_path):
    wrong = {"builder": "linear", "params": {"solver": "none such"}}
    with pytest.raises(TrainingError, match=r"No trial of the search was finished.*none such"):
        search(problem(wrong, trials=2), tmp_path / "s.journal", "s")


@pytest.mark.parametrize("wrong", [{"builder": "liner"}, {"builder": "linear", "params": {"depth": 3}}])
def test_a_builder_or_parameter_that_there_is_not_ends_the_search(wrong, tmp_path):
    with pytest.raises(SettingsError, match="linear"):
        search(problem(wrong), tmp_path / "s.journal", "s")


def test_a_metric_of_intervals_cannot_lead_a_search(tmp_path):
    candidate = {"builder": "linear"}
    with pytest.raises(SettingsError, match=r"metrics\.primary is pinball, which needs intervals"):
        search(problem(candidate, task="regression", metrics={"primary": "pinball"}), tmp_path / "s.journal", "s")


def test_a_store_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    for store in (tmp_path / "file" / "s.journal", tmp_path):
        with pytest.raises(SourceError, match="cannot be written"):
            search(problem(), store, "s")


def test_a_store_that_is_something_else_is_a_sentence(tmp_path):
    (tmp_path / "s.journal").write_text("not a journal\n" * 3, "utf-8")
    with pytest.raises(SourceError, match="is not the store of a study"):
        search(problem(), tmp_path / "s.journal", "s")


def test_importance_is_shared_between_the_best_builders_own_dimensions(tmp_path):
    found = search(problem(BOOSTER, trials=12), tmp_path / "s.journal", "s")
    weights = importances(found.study)
    assert set(weights) <= {f"hist_gradient_boosting.{key}" for key in BOOSTER["space"]}
    assert sum(weights.values()) == pytest.approx(1)
    assert importances(search(problem(trials=3), tmp_path / "few.journal", "s").study) == {}


def test_a_trial_has_a_readable_name(tmp_path):
    first = search(problem(trials=1), tmp_path / "s.journal", "s").best
    assert first.name == "000 linear (C=1)"
