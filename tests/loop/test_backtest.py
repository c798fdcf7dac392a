"""The loop on history: what policies do where the world changes and where it does not, and that nobody looks ahead."""

from datetime import timedelta
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest

from afterfit.loop import backtest
from made_loop import FIRST, decisions, lived, policy, table


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    policies = {name: policy(name) for name in ("never", "calendar", "on-performance", "cautious")}
    found, work = lived(tmp_path_factory.mktemp("models"), policies)
    return {story.name: story for story in found}, work


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """The stories of two policies for a label delay in hours, each told once."""
    folder = tmp_path_factory.mktemp("honest")
    policies = {name: policy(name) for name in ("calendar", "cautious")}
    return lru_cache(lambda delay: {one.name: one for one in lived(folder, policies, delay=delay)[0]})


def test_a_world_that_changed_is_found_alarmed_once_and_learnt_anew(stories):
    told = stories[0]["on-performance"]
    assert told.retrainings >= 1
    assert told.mean("roc_auc") > stories[0]["never"].mean("roc_auc") + 0.02
    alarms = [cause.key for entry in stories[0]["never"].entries for cause in entry.turn.action.causes]
    assert alarms.count("realised roc_auc") == 1


def test_the_policy_that_never_retrains_never_does_and_has_one_version(stories):
    assert {entry.version for entry in stories[0]["never"].entries} == {"1"}


def test_what_the_last_window_would_lead_to_is_not_trained_for_nothing(stories):
    assert all(story.entries[-1].done.outcome == "over" for story in stories[0].values())


def test_models_that_two_policies_train_alike_are_trained_once(stories):
    _, work = stories
    asked = [key for key in work._asked if key[0] == "train"]
    folders = {entry.model.folder for story in stories[0].values() for entry in story.entries}
    assert len(folders) <= len(asked)
    assert sum(story.retrainings for story in stories[0].values()) + 1 > len(asked)


def test_two_processes_find_what_one_finds_to_the_last_digit(stories, tmp_path):
    policies = {name: policy(name) for name in ("calendar", "cautious")}
    apart, work = lived(tmp_path, policies, processes=2)
    work.close()
    for story in apart:
        alone = stories[0][story.name]
        assert decisions(story) == decisions(alone)
        assert [entry.realised for entry in story.entries] == [entry.realised for entry in alone.entries]
        seen = [[entry.turn.observation.to_dict() for entry in one.entries] for one in (story, alone)]
        assert seen[0] == seen[1]


def test_the_ranking_recommends_what_is_not_surely_worse_and_trains_less(stories):
    ranking = backtest.ranked(list(stories[0].values()), stories[1])
    means = [story.mean("roc_auc") for story in ranking.stories]
    assert means == sorted(means, reverse=True)
    chosen = next(story for story in ranking.stories if story.name == ranking.recommended)
    assert ranking.against_best[chosen.name].high >= 0
    assert chosen.retrainings <= ranking.stories[0].retrainings


def test_a_difference_of_a_policy_from_itself_is_nothing(stories):
    one = stories[0]["calendar"]
    found = backtest.difference(one, one, stories[1])
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("delay", "number"), [(24.0, 2), (7 * 24.0, 3)])
def test_outcomes_that_are_not_known_yet_change_no_decision(tmp_path, honest, delay, number):
    """Every outcome later than the label delay allows at some window's end is turned round: what was decided stays."""
    frame, stories = table(), honest(delay)
    end = stories["calendar"].entries[number].turn.span.end
    late = (frame["when"] > pd.Timestamp(end - timedelta(hours=delay))).to_numpy()
    poisoned = frame.assign(late=np.where(late, ~frame["late"].to_numpy(), frame["late"].to_numpy()))
    fooled, _ = lived(tmp_path, {name: policy(name) for name in stories}, poisoned, delay)
    for theirs in fooled:
        assert decisions(stories[theirs.name])[: number + 1] == decisions(theirs)[: number + 1]


def test_poison_that_is_known_in_time_does_change_decisions(tmp_path, honest):
    frame, story = table(), honest(24.0)["cautious"]
    early = (frame["when"] < pd.Timestamp(story.entries[1].turn.span.end - timedelta(days=2))).to_numpy()
    early = early & (frame["when"] >= pd.Timestamp(FIRST)).to_numpy()
    poisoned = frame.assign(late=np.where(early, ~frame["late"].to_numpy(), frame["late"].to_numpy()))
    fooled, _ = lived(tmp_path, {"cautious": policy("cautious")}, poisoned, 24.0)
    assert decisions(story)[:2] != decisions(fooled[0])[:2]


def test_an_interrupted_backtest_goes_on_with_the_models_it_has(tmp_path):
    policies = {"calendar": policy("calendar")}
    first, _ = lived(tmp_path, policies)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("told.json")}
    again, _ = lived(tmp_path, policies)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("told.json")} == before
    assert decisions(first[0]) == decisions(again[0])


def test_a_gate_of_the_loop_pays_for_what_earlier_ones_used_its_rows_for(tmp_path):
    """Nothing gets in, so that each gate's rows overlap those of the one before it."""
    (story,), _ = lived(tmp_path, {"calendar": policy("calendar", trial=False)})
    verdicts = [entry.done.verdict for entry in story.entries if entry.done.verdict is not None]
    assert [verdict.decision for verdict in verdicts] == ["HOLD"] * 4
    fresh = [one for verdict in verdicts for one in verdict.findings if one.code == "fresh_rows"]
    assert [one.value for one in fresh] == [1, 2, 2, 2]
    assert "judged at 98.75% confidence" in fresh[1].sentence
    assert [verdict.window["use"]["end"][:10] for verdict in verdicts][:2] == ["2024-02-04", "2024-02-11"]


def test_what_the_gate_says_in_a_backtest_names_versions_by_their_numbers(stories):
    entry = next(one for one in stories[0]["calendar"].entries if one.done.verdict is not None)
    said = {one.code: one.sentence for one in entry.done.verdict.findings}
    assert said["another_version"] == "Version 2 is another bundle than version 1."


def test_a_candidate_trained_on_poisoned_rows_is_refused(tmp_path):
    """The newest fortnight's outcomes are noise: the last fold shows it, and production stays."""
    frame = table(change="2030-01-01")
    noise = (frame["when"] >= pd.Timestamp(FIRST)).to_numpy()
    random = np.random.default_rng(1).random(len(frame)) > 0.5
    poisoned = frame.assign(late=np.where(noise, random, frame["late"].to_numpy()))
    (story,), _ = lived(tmp_path, {"calendar": policy("calendar", trial=False)}, poisoned)
    assert story.count("promoted", "on trial") == 0
    assert {entry.version for entry in story.entries} == {"1"}
