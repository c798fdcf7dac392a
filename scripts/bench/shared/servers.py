"""Servers of one model: ours, `mlflow models serve`, BentoML and MLServer, and a route that does nothing.

This file is also what runs inside the peers' environments: `python servers.py fit TABLE PARAMS FOLDER` fits the plain
pipeline there and writes it, with the service that serves it.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
PATIENCE = 120
PEERS = {
    "BentoML": ["bentoml", "scikit-learn", "pandas<3", "pyarrow"],
    "MLServer": ["mlserver", "mlserver-sklearn", "pandas<3", "pyarrow", "setuptools<81"],
}
EMPTY = """
import sys, uvicorn
HEAD = {"type": "http.response.start", "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"2")]}
async def app(scope, receive, send):
    await receive()
    await send(HEAD)
    await send({"type": "http.response.body", "body": b"{}"})
uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning", lifespan="off")
"""
BENTO = """
import bentoml, joblib, pandas as pd
@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Plain:
    def __init__(self):
        self.model = joblib.load("model.joblib")
    @bentoml.api
    def predict(self, rows: list[dict]) -> list:
        return self.model.predict_proba(pd.DataFrame(rows))[:, 1].tolist()
"""
MLSERVER = """
import joblib, pandas as pd
from mlserver import MLModel
from mlserver.codecs import PandasCodec
from mlserver.types import InferenceResponse, ResponseOutput
class Plain(MLModel):
    async def load(self):
        self.model = joblib.load("model.joblib")
        return True
    async def predict(self, payload):
        found = self.model.predict_proba(PandasCodec.decode_request(payload))[:, 1].tolist()
        output = ResponseOutput(name="probability", shape=[len(found), 1], datatype="FP64", data=found)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


def free_port():
    """A port that nothing listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def started(command, port, ping, *, environment=None, folder=None):
    """A server as a process group of its own, once it answers; gives (process, seconds until then)."""
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=said,
            start_new_session=True,
            cwd=folder,
            env={**os.environ, **(environment or {})},
        )
        try:
            while not _answers(port, ping):
                said.seek(0)
                assert process.poll() is None, said.read()[-2000:]
                assert time.monotonic() - begun < PATIENCE, said.read()[-2000:]
                time.sleep(0.02)
            yield process, time.monotonic() - begun
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(port, ping):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", ping)
        return connection.getresponse().status in {200, 404} if ping == "/" else _fine(connection)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _fine(connection):
    return connection.getresponse().status == 200


def ours(scratch, durability, *, alias="production", workers=1, config="flights-late"):
    """Our server with everything on: log, contract, warnings, confidence, access log."""
    port = free_port()
    command = [sys.executable, str(ROOT / "scripts" / "serve.py"), "--config", config, "--alias", alias]
    command += ["--port", str(port), "--workers", str(workers), "--durability", durability]
    command += ["--log", f"{scratch}/log-{durability}-{alias}", "--access", f"{scratch}/access.log"]
    return port, started(command, port, "/ready", environment={"PYTHONPATH": str(ROOT / "src")})


def empty():
    """A route that does nothing: what the HTTP server alone costs."""
    port = free_port()
    return port, started([sys.executable, "-c", EMPTY, str(port)], port, "/")


def memory(process, pattern="afterfit.server.start worker"):
    """Resident megabytes of the processes below one whose command line holds a text; the largest."""
    found = [0.0]
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            text = status.read_text()
            group = os.getpgid(int(status.parent.name))
            command = (status.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            resident = re.search(r"VmRSS:\s+(\d+)", text)
            if group == process.pid and pattern in command and resident:
                found.append(int(resident[1]) / 1024)
    return max(found)


def peer_python(folder, peer):
    """The Python of a peer's environment, made where it is not there yet; None where it cannot be installed."""
    python = Path(folder) / peer.lower() / "bin" / "python"
    if not python.exists():
        made = subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=False, capture_output=True)
        install = [str(python), "-m", "pip", "install", "-q", *PEERS[peer]]
        if made.returncode or subprocess.run(install, check=False).returncode:
            return None
    return python


def peer(name, python, table, params, folder):
    """A peer that serves the plain pipeline, fitted in its own environment."""
    folder.mkdir(parents=True, exist_ok=True)
    fit = [str(python), __file__, "fit", str(table), json.dumps(params), str(folder)]
    subprocess.run(fit, check=True, env={**os.environ, "PYTHONPATH": ""})
    port, quiet = free_port(), {"BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": ""}
    if name == "BentoML":
        command = [str(python), "-m", "bentoml", "serve", "service:Plain", "--port", str(port)]
        return port, "/predict", started(command, port, "/livez", environment=quiet, folder=folder)
    settings = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps({**settings, "debug": False}))
    (folder / "model-settings.json").write_text(json.dumps({"name": "plain", "implementation": "service.Plain"}))
    command = [str(python.parent / "mlserver"), "start", "."]
    ready = started(command, port, "/v2/models/plain/ready", environment=quiet, folder=folder)
    return port, "/v2/models/plain/infer", ready


def peer_bodies(name, rows):
    """Bodies of one row each, as a peer takes them."""
    if name == "BentoML":
        return [json.dumps({"rows": [row]}) for row in rows]
    return [json.dumps(_columns([row])) for row in rows]


def _columns(rows):
    inputs = []
    for column in rows[0]:
        values = [row[column] for row in rows]
        text = any(isinstance(value, str) for value in values)
        filled = ["" if text and value is None else value for value in values]
        kind = {"datatype": "BYTES", "parameters": {"content_type": "str"}} if text else {"datatype": "FP64"}
        inputs.append({"name": column, "shape": [len(rows), 1], "data": filled, **kind})
    return {"parameters": {"content_type": "pd"}, "inputs": inputs}


def pipeline(frame, params):
    """The plain pipeline of the table: ordinal codes and passthrough, then the booster."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    names = [name for name in frame if name in {"carrier", "origin", "dest"}]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=float("nan"))
    columns = ColumnTransformer([("categories", encoder, names)], remainder="passthrough")
    booster = HistGradientBoostingClassifier(
        categorical_features=list(range(len(names))), random_state=0, early_stopping=False, **params
    )
    return make_pipeline(columns, booster)


def fit(table, params, folder):
    """Inside a peer's environment: fit, and write the service beside the model."""
    import joblib
    import pandas as pd

    frame = pd.read_parquet(table)
    y = frame.pop("_target")
    for name in ("carrier", "origin", "dest"):
        frame[name] = frame[name].astype(object)
    joblib.dump(pipeline(frame, json.loads(params)).fit(frame, y), f"{folder}/model.joblib")
    text = BENTO if "bentoml" in sys.executable else MLSERVER
    Path(folder, "service.py").write_text(text, "utf-8")


if __name__ == "__main__":
    fit(*sys.argv[2:])
