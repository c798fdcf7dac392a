"""The slower endpoints: health, description, metrics, outcomes, webhook and the page; all errors have one form.

Outcomes that clients send are checked and written into the log; ids that it does not know are reported.
"""

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from afterfit import prediction_log
from afterfit.contract.values import read_number
from afterfit.errors import AfterfitError, LogError
from afterfit.model.answer import encode_json
from afterfit.prediction_log.entries import Outcome, text_of
from afterfit.serving import auth, html, metrics, openapi, payloads
from afterfit.serving.asgi import ENDPOINTS, Endpoints, head_of
from afterfit.serving.engine import Engine
from afterfit.serving.http_errors import CODES, HttpError
from afterfit.serving.service import Service

T = TypeVar("T")
FIELDS = frozenset({"prediction_id", "key", "value"})
LONGEST, LONGEST_KEY = 200, 10_000
"""Characters of an id, and of a key."""
UNCHECKED = "The outcomes are kept. Whether the log knows their ids cannot be found out at the moment."


def take_outcomes(service: Service, content: Any) -> dict[str, Any]:
    """Write outcomes, one or many; sent again they change nothing.

    Those of ids that the log does not know are named and not counted. They are kept all the same: the answer may be in
    the log of another machine that is not sealed yet. Where ids cannot be looked up, `unchecked` says so.

    Raises:
        HttpError: 422 an outcome cannot be read, 503 there is no log or it cannot be written, 413 too many.
    """
    if service.log is None or service.place is None or service.engine is None:
        raise HttpError(503, "No prediction log is kept here, so outcomes have no place.", "no_log")
    given = content if isinstance(content, list) else [content]
    if len(given) > service.limits.rows:
        raise HttpError(413, f"A request may have {service.limits.rows} outcomes; this one has {len(given)}.")
    now = time.time_ns() // 1000
    outcomes = [_outcome(item, number, service.engine, now) for number, item in enumerate(given)]
    ids = {outcome.prediction_id for outcome in outcomes if outcome.prediction_id is not None}
    try:
        service.log.write_outcomes(outcomes)
    except LogError as error:
        service.failed_log(error)
        raise HttpError(503, "The outcomes cannot be logged at the moment. Try again.", "log_unavailable") from error
    told: dict[str, Any] = {}
    try:
        unknown = prediction_log.unknown_ids(service.place, ids) if ids else set()
    except AfterfitError as error:  # the outcomes are kept, and that is what was asked
        service.faults("outcomes", error)
        unknown, told = set(), {"unchecked": UNCHECKED}
    taken = sum(outcome.prediction_id not in unknown for outcome in outcomes)
    service.metrics.counts["outcomes",] += taken
    return {"taken": taken, "unknown": sorted(unknown), **told}


def _outcome(content: Any, number: int, engine: Engine, now: int) -> Outcome:
    if not isinstance(content, dict) or not FIELDS.issuperset(content) or "value" not in content:
        raise HttpError(422, f"Outcome {number} must be an object with value, and prediction_id or key.")
    identity, key, value = content.get("prediction_id"), content.get("key"), content["value"]
    if (identity is None) == (key is None):
        raise HttpError(422, f"Outcome {number} must name either prediction_id or key.")
    if not isinstance(value, str | int | float | bool):
        raise HttpError(422, f"The value of outcome {number} must be a text, a number or a truth value.")
    if identity is not None and not (isinstance(identity, str) and 0 < len(identity) <= LONGEST):
        raise HttpError(422, f"The prediction_id of outcome {number} must be a text of up to {LONGEST} characters.")
    text = None if key is None else _key(key, number, engine)
    return Outcome(identity, text, text_of(_known(value, number, engine)), now)


def _key(key: Any, number: int, engine: Engine) -> str:
    names = engine.redaction.key
    if not names:
        raise HttpError(422, "This use case has no key columns: send the prediction_id.")
    if not isinstance(key, Mapping) or set(key) != set(names):
        raise HttpError(422, f"The key of outcome {number} must be an object with exactly {', '.join(names)}.")
    text = engine.redaction.name(key)
    if text is None:
        raise HttpError(422, f"The key of outcome {number} has a missing value.")
    if len(text) > LONGEST_KEY:
        raise HttpError(422, f"The key of outcome {number} may have {LONGEST_KEY:,} characters.")
    return text


def _known(value: Any, number: int, engine: Engine) -> Any:
    """The target as the model knows it: one of its classes, or a number; text is read as that of a row is."""
    classes = engine.bundle.scorer.classes
    if classes is None:
        read, _ = (math.nan, "") if isinstance(value, bool) else read_number(value)
        if math.isnan(read):
            raise HttpError(422, f"The value of outcome {number} must be a number.")
        return read if isinstance(value, str) else value
    for label in classes:
        if label == value and isinstance(label, bool) == isinstance(value, bool):
            return label
    for label in classes if isinstance(value, str) else ():
        if _reads_as(value, label):
            return label
    named = ", ".join(map(str, classes[:20]))
    raise HttpError(422, f"The value of outcome {number} must be one of {named}.")


def _reads_as(text: str, label: Any) -> bool:
    """Whether a text is that of a class which is no text."""
    if isinstance(label, bool):
        return text.strip().lower() == str(label).lower()
    return isinstance(label, int | float) and read_number(text)[0] == label


JSON_TYPE = "application/json"
PROMETHEUS = "text/plain; version=1.0.0; charset=utf-8"


def application(service: Service, endpoints: Endpoints, shared: Path) -> FastAPI:
    """The web application that gets what is not for the quick endpoints.

    Args:
        service: what is served.
        endpoints: the quick endpoints, which read bodies and check tokens here too.
        shared: the folder that the server's processes share.
    """
    app = FastAPI(title=service.name, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    _errors(app, service)
    _health(app, service)
    _facts(app, service, endpoints, shared)
    _taking(app, service, endpoints, shared)
    return app


def _json(content: Any, status: int = 200) -> Response:
    return Response(encode_json(content), status, media_type=JSON_TYPE)


def _errors(app: FastAPI, service: Service) -> None:
    def answered(request: Request, refusal: HttpError) -> Response:
        path = request.url.path
        service.metrics.counts["request_errors", path if path in ENDPOINTS else "other", refusal.code] += 1
        headers = {name.decode(): value.decode() for name, value in refusal.headers}
        return Response(refusal.body, refusal.status, headers, JSON_TYPE)

    @app.exception_handler(HttpError)
    async def refused(request: Request, error: HttpError) -> Response:
        return answered(request, error)

    @app.exception_handler(AfterfitError)
    async def known(request: Request, error: AfterfitError) -> Response:
        return answered(request, HttpError(422, str(error)))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, __: RequestValidationError) -> Response:
        return answered(request, HttpError(422, "The request is not what this endpoint takes; see /docs."))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        status = error.status_code if error.status_code in CODES else 400
        message = {
            404: "There is no such endpoint; see /docs.",
            405: "This endpoint does not take that method; see /docs.",
        }
        response = answered(request, HttpError(status, message.get(status, "The request cannot be read.")))
        response.headers.update(dict(error.headers or {}))
        return response

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        service.faults(request.scope.get("state", {}).get("request_id", ""), error)
        return answered(request, HttpError(500, "Something unexpected happened; it was noted under the request's id."))


def _health(app: FastAPI, service: Service) -> None:
    @app.get("/ping", include_in_schema=False)
    @app.get("/health", include_in_schema=False)
    async def ping() -> Response:
        return Response("\n", 200 if service.engine is not None else 503, media_type=JSON_TYPE)

    @app.get("/version", include_in_schema=False)
    async def mlflow_version() -> Response:
        return Response(version("mlflow"), media_type=JSON_TYPE)

    @app.get("/live", include_in_schema=False)
    async def live() -> Response:
        return _json({"status": "live"})

    looked = Together(partial(asyncio.to_thread, readiness, service))

    @app.get("/ready", include_in_schema=False)
    async def ready() -> Response:
        state = await looked()
        return _json(state, 200 if state["ready"] else 503)


class Together(Generic[T]):
    """Makes something once for all who ask before it is begun, and never twice at a time: asking often costs little.

    Args:
        make: what makes it.
    """

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        self._make, self._lock = make, asyncio.Lock()
        self._next: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        """What is made next."""
        if self._next is None:
            self._next = asyncio.create_task(self._run())
        return await asyncio.shield(self._next)

    async def _run(self) -> T:
        async with self._lock:
            self._next = None  # who asks from now on is told of later things
            return await self._make()


def readiness(service: Service) -> dict[str, Any]:
    """Whether predictions can be given, and if not, why; a registry that does not answer is no reason."""
    loaded, writable = service.engine is not None, service.log is None or _writable(service.log.path.parent)
    known = service.registry
    return {
        "ready": loaded and not service.stopping and (writable or not service.acknowledged),
        "loaded": loaded,
        "log_writable": writable,
        "log_sealed": service.log is None or service.seals,
        "stopping": service.stopping,
        "model_version": service.engine.bundle.version if service.engine else None,
        "registry": {
            "reachable": bool(known.get("reachable", False)),
            "seconds_since_answer": round(time.time() - known["answered"], 1) if known.get("answered") else None,
        },
    }


def _writable(folder: Path) -> bool:
    probe = folder / f"ready-{os.getpid()}.tmp"
    try:
        with probe.open("wb") as file:
            file.write(bytes(8192))
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
    except OSError:
        return False
    return True


def _facts(app: FastAPI, service: Service, endpoints: Endpoints, shared: Path) -> None:
    """Pages about the model need the predicting token, where one is set; counts and health are open."""

    def admitted(request: Request) -> None:
        endpoints.tokens.check_page(head_of(request.scope).bearer, request.headers.get("authorization", ""))

    guarded = [Depends(admitted)]

    @app.get("/model", include_in_schema=False, dependencies=guarded)
    async def model() -> Response:
        return _json(openapi.model(service.engine, service.alias, service.since))

    @app.get("/openapi.json", include_in_schema=False, dependencies=guarded)
    async def openapi_document() -> Response:
        return _json(openapi.openapi(service.name, service.engine, endpoints.tokens))

    async def counted() -> bytes:
        text = service.text(endpoints.in_flight)
        with suppress(OSError):  # what was told once stays told when this process is gone: a sum must not fall
            metrics.write(shared, text)
        return await asyncio.to_thread(exposed, text)

    together = Together(counted)

    @app.get("/metrics", include_in_schema=False)
    async def metrics_text() -> Response:
        return Response(await together(), headers={"content-type": PROMETHEUS})

    def exposed(text: bytes) -> bytes:
        own = metrics.ServerMetrics()
        own.merge(text, alive=True)
        return metrics.exposed(metrics.joined(shared, own))

    @app.get("/", include_in_schema=False, dependencies=guarded)
    async def front() -> Response:
        own = metrics.ServerMetrics()
        own.merge(service.text(endpoints.in_flight), alive=True)
        text, policy = html.front(service, metrics.joined(shared, own), _ledger(shared))
        return Response(text, media_type="text/html", headers={"content-security-policy": policy, **html.HEADERS})

    @app.get("/docs", include_in_schema=False, dependencies=guarded)
    async def docs() -> Response:
        text, policy = html.docs(service, openapi.openapi(service.name, service.engine, endpoints.tokens))
        return Response(text, media_type="text/html", headers={"content-security-policy": policy, **html.HEADERS})


def _ledger(shared: Path) -> list[Mapping[str, Any]]:
    """The last entries of the ledger, as the process that talks to the registry wrote them down."""
    try:
        entries = payloads.json_of((shared / "ledger.json").read_bytes())
    except (OSError, HttpError):
        return []
    return list(entries) if isinstance(entries, list) else []


def _taking(app: FastAPI, service: Service, endpoints: Endpoints, shared: Path) -> None:
    async def read(request: Request) -> bytes:
        head = request.scope.get("state", {}).get("head") or head_of(request.scope)
        return await endpoints.body(head, request.receive)

    @app.post("/outcomes", include_in_schema=False)
    async def outcomes_endpoint(request: Request) -> Response:
        endpoints.admit()
        endpoints.tokens.check("outcomes", head_of(request.scope).bearer)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON_TYPE:
            raise HttpError(415, f"The content type must be {JSON_TYPE}.")
        counts = await asyncio.to_thread(
            take_outcomes, service, payloads.json_of(await read(request), service.limits.depth)
        )
        return _json(counts)

    @app.post("/webhook", include_in_schema=False)
    async def called(request: Request) -> Response:
        endpoints.admit()
        body = await read(request)
        await asyncio.to_thread(auth.check, endpoints.tokens.webhook, request.headers, body, time.time(), shared)
        if auth.sets_alias(body, service.name, service.alias):
            await asyncio.to_thread((shared / auth.LOOK_AGAIN).touch)
        await asyncio.to_thread((shared / "poke").touch)
        return _json({"status": "taken"})

    async def quick(request: Request) -> Response:  # reached where this application runs without the quick endpoints
        raise HttpError(404, f"{request.url.path} is answered by the quick endpoints.")

    for path in ("/predict", "/invocations"):
        app.post(path, include_in_schema=False)(quick)
