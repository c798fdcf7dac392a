"""The alert rules under Prometheus' own tools, and a real Prometheus beside a load tool's count."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from afterfit.serving import tally

ROOT = Path(__file__).parents[1]
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
        f"{tally.PREFIX}{name}{ending}": {*measure.labels, "job", "instance", "le"}
        for name, measure in tally.MEASURES.items()
        for ending in endings[measure.kind]
    }
    for rule in rules():
        found = re.findall(r"(afterfit_\w+)(?:\{([^}]*)\})?", rule["expr"])
        assert found, rule["alert"]
        for metric, matchers in found:
            assert metric in exposed, rule["alert"]
            assert set(re.findall(r"(\w+)\s*=~?", matchers)) <= exposed[metric], rule["alert"]
