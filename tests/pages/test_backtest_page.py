"""The backtest as a command, its page, and what it says where there is no time."""

import json
import re

import pytest
import yaml

from afterfit.commands import backtest
from afterfit.errors import SettingsError
from made_loop import settings


@pytest.fixture(scope="module")
def ran(shared_store):
    """The command over the made table for two presets and a file, in two processes' stead one."""
    config = settings(shared_store, metrics={"primary": "roc_auc", "value": {"costs": {"True": {"False": 1.0}}}})
    (shared_store / "weekly.yaml").write_text(yaml.safe_dump({"preset": "calendar", "calendar": 2}))
    policies = f"never,calendar,{shared_store}/weekly.yaml"
    page = shared_store / "page.html"
    answer = backtest.command(config, policies, every="1w", end="2024-02-26", processes=1, page=str(page))
    return answer, page.read_text("utf-8")


def test_the_answer_ranks_every_policy_and_recommends_one(ran):
    answer, _ = ran
    assert {one["policy"] for one in answer.data["policies"]} == {"never", "calendar", "weekly"}
    assert answer.data["recommended"] in {"never", "calendar", "weekly"}
    assert answer.lines[-1].startswith(f"Recommended: {answer.data['recommended']}.")
    never = next(one for one in answer.data["policies"] if one["policy"] == "never")
    assert never["retrainings"] == 0
    assert [one["window"] for one in never["windows"]] == ["2024-01-29", "2024-02-05", "2024-02-12", "2024-02-19"]
    json.dumps(answer.data)


def test_money_ranks_where_the_use_case_says_what_answers_are_worth(ran):
    values = [one["net_value"] for one in ran[0].data["policies"]]
    assert values == sorted(values, reverse=True)
    assert all(value < 0 for value in values)


def test_each_policy_is_a_nested_run_with_its_series(ran):
    from mlflow import MlflowClient

    client = MlflowClient()
    parent = client.get_run(ran[0].data["run_id"])
    children = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert {run.data.tags["afterfit.policy"] for run in children} == {"never", "calendar", "weekly"}
    for run in children:
        assert len(client.get_metric_history(run.info.run_id, "realised_roc_auc")) == 4
        assert run.data.params["policy.preset"] in {"never", "calendar"}
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["backtest.html"]


def test_the_page_draws_a_timeline_a_policy_and_loads_nothing(ran):
    _, page = ran
    assert page.count("<svg ") == 3
    assert "Recommended:" in page
    assert not re.search(r"<script|https?://|src=|url\(", page)


def test_without_a_time_column_it_says_what_is_not_possible_and_what_is(tmp_path, write_use_case):
    with pytest.raises(SettingsError, match="without times nobody can tell what was known when"):
        backtest.command(str(write_use_case(tmp_path, time=False)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policies": "careful"}, "neither a file nor one of never, calendar"),
        ({"policies": "never,never"}, "names 'never' twice"),
        ({"policies": " , "}, "is empty"),
        ({"delay": "soon"}, "must be a number of hours"),
        ({"every": "100rows"}, "have no begin and end in time"),
        ({"start": "2025-01-01"}, "no whole window"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_a_sentence(store, options, said):
    with pytest.raises(SettingsError, match=said):
        backtest.command(settings(store), **{"policies": "never", **options})


def test_a_policys_file_with_an_unknown_key_names_it(store):
    (store / "odd.yaml").write_text("retrian: [drift]\n")
    with pytest.raises(SettingsError, match="retrian"):
        backtest.command(settings(store), f"{store}/odd.yaml")
