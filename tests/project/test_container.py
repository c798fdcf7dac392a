"""The container's files: written by the real script, validated, and their command really started."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from afterfit.errors import AfterfitError, BundleError
from afterfit.mlflow_store import registry
from made import ROOT
from waiting import PATIENCE, eventually

SCRIPT = ROOT / "scripts" / "container.sh"
TRACKING = "http://mlflow:5000"
YESTERDAY = datetime.now(timezone.utc).replace(hour=12, tzinfo=None) - timedelta(days=1)
ROWS = [
    {"hour": f"{YESTERDAY - timedelta(minutes=k):%Y-%m-%d %H:%M}", "size": 0.1 * k, "count": k, "colour": "red"}
    for k in range(60)
]


@pytest.fixture(scope="module")
def production(shared_store, write_use_case_in):
    from afterfit.commands import train

    file = str(write_use_case_in(shared_store, columns={"features": ["hour", "size", "count", "colour"]}))
    train.command(file, "")
    registry.set_alias(registry.version("sizes", "1"), "production")
    return file


def environment():
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def written(production, tmp_path_factory):
    folder = tmp_path_factory.mktemp("container") / "out"
    command = ["sh", str(SCRIPT), str(folder), "--config", production, "--tracking", TRACKING, "--workers", "2"]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "version 1 is baked in" in ran.stdout
    return folder


@pytest.fixture(scope="module")
def manifests(written):
    found = [yaml.safe_load(file.read_text()) for file in sorted((written / "kubernetes").iterdir())]
    return {one["kind"]: one for one in found}


@pytest.fixture(scope="module")
def writer():
    spec = importlib.util.spec_from_file_location("container_write", SCRIPT.parent / "container" / "write.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def instructions(folder):
    text = (folder / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def pod(manifest):
    return manifest["spec"]["template"]["spec"]


def test_the_script_is_a_shell_script():
    subprocess.run(["sh", "-n", str(SCRIPT)], check=True)


@pytest.mark.slow
def test_the_manifests_are_what_kubernetes_takes(manifests):
    expected = {
        "ConfigMap", "Deployment", "Service", "HorizontalPodAutoscaler", "ServiceMonitor", "PersistentVolumeClaim",
        "CronJob",
    }  # fmt: skip
    assert set(manifests) == expected
    for kind in expected - {"ServiceMonitor"}:  # which is the Prometheus operator's, and not Kubernetes' own
        kubernetes_validate.validate(manifests[kind], kubernetes_validate.latest_version(), strict=True)


@pytest.mark.slow
def test_a_misspelt_field_would_be_found(manifests):
    broken = json.loads(json.dumps(manifests["Deployment"]))
    pod(broken)["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.slow
def test_the_deployment_has_its_probes_limits_and_no_rights(manifests):
    spec = pod(manifests["Deployment"])
    [server] = spec["containers"]
    assert server["livenessProbe"]["httpGet"]["path"] == "/live"
    assert (
        server["readinessProbe"]["httpGet"] == server["startupProbe"]["httpGet"] == {"path": "/ready", "port": "http"}
    )
    assert server["resources"] == {
        "requests": {"cpu": "1000m", "memory": "1000Mi"},
        "limits": {"memory": "2000Mi"},
    }
    assert spec["securityContext"]["runAsNonRoot"]
    assert server["securityContext"]["readOnlyRootFilesystem"]
    assert server["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    volumes = {one["name"] for one in spec["volumes"]}
    mounted = {one["name"]: one["mountPath"] for one in server["volumeMounts"]}
    assert set(mounted) == volumes
    assert mounted["spool"] == "/srv/afterfit/data/spool"
    assert spec["terminationGracePeriodSeconds"] > 25  # longer than the server takes to stop


@pytest.mark.slow
def test_the_service_its_monitor_and_the_autoscaler_find_the_pods(manifests):
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    service, monitor = manifests["Service"], manifests["ServiceMonitor"]
    for selector in (service["spec"]["selector"], manifests["Deployment"]["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= labels.items()
    assert (monitor["apiVersion"], set(monitor["spec"])) == ("monitoring.coreos.com/v1", {"selector", "endpoints"})
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"
    target = manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", manifests["Deployment"]["metadata"]["name"])


@pytest.mark.slow
def test_the_image_has_two_stages_no_root_and_only_hashed_packages(written):
    found = instructions(written)
    images = [rest.split()[0] for word, rest in found if word == "FROM"]
    assert images == ["python:${PYTHON}-slim"] * 2  # no registry's host
    installs = [rest for word, rest in found if word == "RUN" and "pip install" in rest]
    assert len(installs) == 1
    assert "--require-hashes -r /tmp/requirements.lock" in installs[0]
    words = [word for word, _ in found]
    last = len(words) - words[::-1].index("FROM")
    [user] = [rest for word, rest in found[last:] if word == "USER"]
    assert int(user.split(":")[0]) == 10001
    assert words.index("USER") < words.index("CMD")
    assert "HEALTHCHECK" in words
    copied = [rest.split()[:-1] for word, rest in found if word == "COPY" and "--from" not in rest]
    assert [name for names in copied for name in names if not (written / name).exists()] == []
    assert ["model"] in copied
    pinned = (ROOT / "requirements.lock").read_text()
    assert (written / "requirements.lock").read_text() == pinned
    assert not list(written.rglob("__pycache__"))


@pytest.fixture(scope="module")
def answered(written):
    """The image's own command, run in its folder: what it tells of itself, and its answers."""
    [command] = [json.loads(rest) for word, rest in instructions(written) if word == "CMD"]
    port = command.index("--port") + 1
    command[0], command[port] = sys.executable, "0"
    command[command.index("--host") + 1] = "127.0.0.1"
    clean = {key: value for key, value in environment().items() if not key.startswith("MLFLOW")}
    with (written.parent / "said.txt").open("w+") as said:
        process = subprocess.Popen(
            command, cwd=written, env={**clean, "PYTHONPATH": "src"}, stderr=said, stdout=subprocess.DEVNULL
        )
        try:
            address = waited(written.parent / "said.txt", process)
            told = {path: asked(address, path) for path in ("/ready", "/model")}
            answers = asked(address, "/predict", ROWS)
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=PATIENCE)
            process.kill()
    assert process.returncode == 0, (written.parent / "said.txt").read_text()
    return told, answers


def waited(said, process):
    serving = re.compile(r"Serving .* at (http://\S+) after")
    assert eventually(lambda: serving.search(said.read_text()), process), said.read_text()
    return serving.search(said.read_text()).group(1)


def asked(address, path, body=None):
    request = urllib.request.Request(  # noqa: S310 - the server that was just started
        address + path, None if body is None else json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310 - as above
        return json.loads(answer.read())


@pytest.mark.slow
@pytest.mark.usefixtures("production")
def test_the_images_command_starts_here_and_answers_as_the_registered_version(answered):
    told, answers = answered
    assert told["/ready"]["ready"]
    assert told["/model"]["version"] == "1"
    bundle = registry.load_bundle(registry.version("sizes", "1"))
    for row, answer in zip(ROWS, answers, strict=True):
        assert answer["probability"] == pytest.approx(bundle.answer(row)["probability"], abs=1e-9)
        assert answer["model_version"] == "1"


@pytest.mark.slow
@pytest.mark.usefixtures("answered")
def test_the_cronjobs_command_monitors_what_the_image_answered_yesterday(written, manifests):
    [monitor] = pod(manifests["CronJob"]["spec"]["jobTemplate"])["containers"]
    ran = subprocess.run(
        monitor["command"],
        cwd=written,
        env={**environment(), "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode in {0, 3}, ran.stderr  # 3 is an alarm, which these rows deserve
    assert f"{len(ROWS)} rows" in ran.stdout, ran.stdout


@pytest.mark.slow
def test_a_version_that_is_fetched_is_not_in_the_image(writer, production, tmp_path):
    wanted = writer.wanted_of(
        writer.options().parse_args(
            [
                str(tmp_path / "out"),
                "--config",
                production,
                "--fetch",
                "--tracking",
                TRACKING,
                "--log",
                "s3://logs/here",
            ]
        )
    )
    lines = writer.write(wanted)
    assert "fetches production at each start" in lines[0]
    text = (tmp_path / "out" / "Dockerfile").read_text()
    assert '"--alias", "production"' in text
    assert "COPY model" not in text
    assert not (tmp_path / "out" / "model").exists()
    assert not (tmp_path / "out" / "kubernetes" / "claim.yaml").exists()  # the parts go to S3
    settings = yaml.safe_load((tmp_path / "out" / "usecase.yaml").read_text())
    assert settings["log"] == {"folder": "s3://logs/here", "spool": "data/spool"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workers", "0"], "whole number from 1 to 64"),
        (["--fetch"], "--fetch needs --tracking"),
        (["--tracking", "sqlite:///mlflow.db"], "that the pods can reach"),
        (["--tracking", "http://me:secret@mlflow"], "must not hold a password"),
        (["--image", "Team/Flights"], "must be an image's name"),
        (["--log", "/var/log"], "must be an s3:// address"),
        (["--version", "a b"], "must be an alias"),
        (["--config", "flihgts-late"], "Did you mean 'flights-late'"),
    ],
)
def test_bad_input_gives_a_sentence(writer, tmp_path, arguments, sentence):
    with pytest.raises(AfterfitError, match=re.escape(sentence)):
        writer.wanted_of(writer.options().parse_args([str(tmp_path / "out"), *arguments]))


SECRETS = [
    ("source.sql", {"source": {"sql": "postgresql://me:hunter22@db/flights", "query": "SELECT 1"}}),
    ("source.sql", {"source": {"sql": "postgresql://db/flights?user=me&password=hunter22", "query": "SELECT 1"}}),
    ("source.path", {"source": {"path": "s3://AKIAABCDEFGHIJKLMNOP:abcdefgh@bucket/x.parquet"}}),
    ("alarms.webhook", {"alarms": {"webhook": "https://hooks.slack.com/services/T01/B02/c03"}}),
    ("alarms.webhook", {"alarms": {"webhook": "https://ops.example.com/in/0123456789abcdef0123"}}),
    ("alarms.webhook", {"alarms": {"webhook": "https://ops.example.com/in?k=abc"}}),
    ("alarms.webhook", {"alarms": {"webhook": "https://me:hunter22@ops.example.com/in"}}),
    ("alarms.secret", {"alarms": {"webhook": "${HOOK}", "secret": "s3cr3t-v4lue!"}}),
    ("alarms.command", {"alarms": {"command": ["tell", "--token", "hunter22hunter22"]}}),
    ("alarms.command", {"alarms": {"command": ["curl", "-H", "Authorization: Bearer abcdefgh12345678"]}}),
    ("candidates.params.api_key", {"candidates": [{"builder": "a.B", "params": {"api_key": "hunter22"}}]}),
    ("description", {"description": "Ask with token=hunter22hunter22."}),
]


@pytest.mark.parametrize(("key", "settings"), SECRETS)
def test_a_secret_in_a_settings_file_is_not_copied_into_an_image(writer, tmp_path, key, settings):
    file = tmp_path / "late.yaml"
    file.write_text(yaml.safe_dump({"name": "late", **settings}))
    with pytest.raises(
        AfterfitError, match=rf"^{re.escape(key)} holds a secret.*Write {re.escape(key)}: \$\{{[A-Z_]+\}}"
    ) as raised:
        writer.settings_text(file, "")
    assert "hunter22" not in str(raised.value)


def test_what_is_no_secret_is_copied(writer, tmp_path):
    settings = {
        "name": "late",
        "source": {"sql": "${DATABASE}", "query": "SELECT a FROM t WHERE token = 'a' AND key <> 'b'"},
        "key": ["token", "id"],
        "columns": {"private": ["password"], "ignore": ["secret", "auth"]},
        "alarms": {"webhook": "https://ops.example.com/in", "secret": "ALARM_KEY", "command": ["tell", "${TOKEN}"]},
        "log": {"folder": "s3://logs/late"},
        "seed": 7,
    }
    file = tmp_path / "late.yaml"
    file.write_text(yaml.safe_dump(settings))
    assert yaml.safe_load(writer.settings_text(file, "")) | {"log": None} == settings | {"log": None}
    for name in (ROOT / "src" / "afterfit" / "usecases").glob("*.yaml"):
        writer.settings_text(name, "")


def test_a_folder_that_holds_something_is_left_alone(writer, tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(AfterfitError, match="new or empty folder"):
        writer.wanted_of(writer.options().parse_args([str(tmp_path)]))


@pytest.mark.parametrize("name", ["no", "7", "Größe", "a" * 90, "Late.2_x"])
def test_any_use_cases_name_becomes_one_that_kubernetes_takes(writer, name):
    from made import use_case

    case = use_case().model_copy(update={"name": name})
    wanted = writer.Wanted(Path("out"), case, "name: no\n", "1", False, "", "", "", 1)
    template = (SCRIPT.parent / "container" / "kubernetes" / "service.yaml").read_text()
    found = yaml.safe_load(writer.filled(template, writer.fields_of(wanted, "1")))["metadata"]["name"]
    assert re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", found)


@pytest.mark.slow
def test_a_folder_that_was_altered_is_not_served(written, tmp_path):
    import shutil

    shutil.copytree(written / "model", tmp_path / "model")
    example = tmp_path / "model" / "artifacts" / "bundle" / "example.json"
    example.write_text(example.read_text() + " ")
    command = [sys.executable, "scripts/serve.py", "--config", "usecase.yaml", "--port", "0"]
    ran = subprocess.run(
        [*command, "--model", str(tmp_path / "model")],
        cwd=written,
        env={**environment(), "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert ran.returncode == BundleError.exit_code
    assert "is not the one that was registered" in ran.stderr
