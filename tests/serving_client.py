"""A server in this process, asked through its real ASGI doors, and its log read back."""

import asyncio
import json
import sqlite3
from contextlib import asynccontextmanager

import httpx

from afterfit.prediction_log.log import log_at
from afterfit.prediction_log.privacy import LogRedaction
from afterfit.serving.asgi import AccessLog, Endpoints
from afterfit.serving.auth import Tokens
from afterfit.serving.engine import engine
from afterfit.serving.routes import application
from afterfit.serving.service import Service
from afterfit.settings import Serving

JSON = {"Content-Type": "application/json"}


def made_service(bundle, folder, *, log=True, acknowledged=True, redaction=None, compile_trees=True, **limits):
    """A service over a bundle, with a log in the folder."""
    place = log_at(str(folder), "made") if log else None
    spool = place.spool() if place else None
    service = Service("made", "production", Serving(**limits), spool, place, acknowledged)
    service.take(engine(bundle, redaction or LogRedaction(), compile_trees=compile_trees))
    return service


def made_doors(service, shared, tokens=None, access=None):
    """The endpoints over a service, with the folder that workers share; what is not served falls on nobody."""

    async def nowhere(*_):
        raise AssertionError

    doors = Endpoints(service, access or AccessLog(), tokens or Tokens(), nowhere)
    doors.rest = application(service, doors, shared)
    return doors


@asynccontextmanager
async def client(doors):
    """A client, and the ticks that the server's loop gives it."""

    async def ticks():
        while True:
            await asyncio.sleep(0.05)
            doors.tick()

    ticking = asyncio.create_task(ticks())
    transport = httpx.ASGITransport(doors, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as found:
            yield found
    finally:
        ticking.cancel()
        doors.close()


def asked(doors, path, body, headers=JSON, method="POST"):
    """One request's answer."""

    async def ask():
        async with client(doors) as one:
            content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            return await one.request(method, path, content=content, headers=headers)

    return asyncio.run(ask())


def reopened(doors):
    """The doors again, for another event loop."""
    doors._batches = None
    return doors


def logged(service, columns="*"):
    """What the spool holds."""
    with sqlite3.connect(f"file:{service.log.path}?mode=ro", uri=True) as connection:
        return connection.execute(f"SELECT {columns} FROM answers ORDER BY id").fetchall()  # noqa: S608
