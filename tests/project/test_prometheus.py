"""The alert rules under Prometheus' own tools, and a real Prometheus beside a load tool's count."""

import re
import shutil
import subprocess

import pytest
import yaml

from afterfit.mlflow_store import registry
from afterfit.serving import metrics
from made import ROOT, bench_module

RULES = ROOT / "scripts" / "prometheus"
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")


def rules():
    [group] = yaml.safe_load((RULES / "alerts.yaml").read_text("utf-8"))["groups"]
    return group["rules"]


@promtool
def test_promtool_takes_the_alert_rules():
    ran = subprocess.run(
        ["promtool", "check", "rules", RULES / "alerts.yaml"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(rules())} rules found" in ran.stdout


@promtool
def test_each_alert_fires_on_what_it_is_for_and_on_nothing_healthy():
    command = ["promtool", "test", "rules", "alerts_test.yaml"]
    ran = subprocess.run(command, cwd=RULES, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_is_tried():
    tests = yaml.safe_load((RULES / "alerts_test.yaml").read_text("utf-8"))["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    quiet = {one["alertname"] for one in tests[0]["alert_rule_test"]}
    assert fired == quiet == {rule["alert"] for rule in rules()}


def test_the_rules_name_only_metrics_and_labels_that_the_server_has():
    endings = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    exposed = {
        f"{metrics.PREFIX}{name}{ending}": {*measure.labels, "job", "instance", "le"}
        for name, measure in metrics.MEASURES.items()
        for ending in endings[measure.kind]
    }
    for rule in rules():
        found = re.findall(r"(afterfit_\w+)(?:\{([^}]*)\})?", rule["expr"])
        assert found, rule["alert"]
        for metric, matchers in found:
            assert metric in exposed, rule["alert"]
            assert set(re.findall(r"(\w+)\s*=~?", matchers)) <= exposed[metric], rule["alert"]


@pytest.fixture(scope="module")
def kept(shared_store, write_use_case_in):
    """A settings file, the folder of a version, and an example row."""
    from afterfit.commands import train

    config = write_use_case_in(shared_store)
    train.command(str(config), "")
    folder = registry.keep(registry.version("sizes", "1"), shared_store / "model")
    return config, folder, {"size": 1.5, "count": 3, "colour": "red"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed")
def test_a_real_prometheus_agrees_with_the_clients_count_over_two_workers(kept):
    prometheus = bench_module("robustness.prometheus")

    expected, found, falls, health = prometheus.measure(*kept, seconds=3, pause=0.01)
    assert expected["rows"] > expected["requests with 200"] > 0 < expected["requests with 400"]
    assert found == expected
    assert falls == 0
    assert health == {"ok"}


@pytest.mark.slow
def test_what_was_acknowledged_before_a_kill_is_in_the_log_exactly_once(kept):
    crashes_serving = bench_module("robustness.crashes_serving")

    found = crashes_serving.measure(*kept, kills=3, seed=1, longest=0.6)
    assert found["kills"] == 3
    assert found["acknowledged"] > 0
    assert found["logged"] >= found["acknowledged"]
    assert (found["absent"], found["doubled"], found["spools left"]) == (0, 0, 0)
