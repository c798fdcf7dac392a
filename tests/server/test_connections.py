"""Connections that ask nothing, or take no answer: they end, and those that ask are answered meanwhile."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import uvicorn
from uvicorn.server import ServerState

from afterfit.server.connections import MOST_AHEAD, MOST_HEAD, Connections, Protocol, descriptors
from afterfit.settings import Serving

LIVE = b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n"
LONG = 30_000_000
"""Bytes of an answer that no socket holds."""


async def app(scope, receive, send):
    """Answers at once, with much where /long is asked for; where /body is, when the body has come."""
    while scope["path"] == "/body" and (await receive()).get("more_body"):
        pass
    body = b"x" * LONG if scope["path"] == "/long" else b"{}"
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(**limits):
    """The connections of a server in this process, and a way to connect."""
    config = uvicorn.Config(app, http=Protocol, ws="none", log_level="critical", lifespan="off")
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    connections = Connections(state, Serving(**limits))
    server = await loop.create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    port, writers = server.sockets[0].getsockname()[1], []

    async def connect():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    try:
        yield connections, connect
    finally:
        server.close()
        for writer in writers:
            writer.close()
        for one in list(state.connections):
            one.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        await settled(connections, 0)


async def settled(connections, count):
    """Wait until the server knows so many connections."""
    for _ in range(2_000):
        if len(connections.state.connections) == count:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(len(connections.state.connections))


async def asked(connect, text=LIVE):
    reader, writer = await connect()
    writer.write(text)
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer.split(b" ")[1]


def test_a_head_that_does_not_come_ends_its_connection_and_one_that_came_in_part_is_told_so():
    async def run():
        async with serving(head_seconds=5) as (connections, connect):
            silent, part, kept = [await connect() for _ in range(3)]
            part[1].write(b"POST /predict HT")
            kept[1].write(LIVE)
            await kept[0].readuntil(b"{}")
            await settled(connections, 3)
            now = time.monotonic()
            connections.sweep(now)
            await asyncio.sleep(0.01)
            assert len(connections.state.connections) == 3
            part[1].write(b"TP")  # a byte now and then is no head
            await asyncio.sleep(0.05)
            connections.sweep(now + 6)
            assert await silent[0].read() == b""
            told = await part[0].read()
            assert told.startswith(b"HTTP/1.1 408 ")
            assert json.loads(told.partition(b"\r\n\r\n")[2])["code"] == "request_timeout"
            assert connections.closed["late_head"] == 3  # a kept connection waits for its next head as well
            await settled(connections, 0)

    asyncio.run(run())


def test_a_request_that_is_answered_is_not_ended_however_long_it_takes():
    async def run():
        async with serving(head_seconds=5) as (connections, connect):
            reader, writer = await connect()
            writer.write(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{")
            await settled(connections, 1)
            await asyncio.sleep(0.05)
            for later in (0, 100, 200):
                connections.sweep(time.monotonic() + later)
            writer.write(b"}")
            assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200")

    asyncio.run(run())


def test_from_the_limit_on_the_oldest_that_ask_nothing_make_room():
    async def run():
        async with serving(connections=20) as (connections, connect):
            asking = await connect()
            asking[1].write(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{")
            await settled(connections, 1)
            held = []
            for count in range(2, 21):
                held.append(await connect())
                await settled(connections, count)
            for _ in range(40):
                assert await asked(connect) == b"200"
            assert len(connections.state.connections) <= 20
            assert await held[0][0].read() == b""
            assert connections.closed["too_many"] >= 1
            asking[1].write(b"}")
            assert (await asking[0].readuntil(b"{}")).startswith(b"HTTP/1.1 200")

    asyncio.run(run())


def test_an_answer_that_is_not_taken_ends_its_connection_and_one_that_is_taken_slowly_does_not():
    async def run():
        async with serving(seconds=5, head_seconds=5) as (connections, connect):
            reader, writer = await connect()
            writer.write(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n" + LIVE)
            await settled(connections, 1)
            await asyncio.sleep(0.05)
            [one] = connections.state.connections
            now = time.monotonic()
            for later in (0, 4, 8):
                before = one.waits
                await reader.readexactly(10_000_000 // 4)
                for _ in range(2_000):
                    if one.waits < before:
                        break
                    await asyncio.sleep(0.005)
                connections.sweep(now + later)
                assert connections.unsent == one.waits > 0
            assert not connections.closed
            connections.sweep(now + 8 + 6)
            assert connections.closed == {"not_taken": 1}
            await settled(connections, 0)

    asyncio.run(run())


def test_heads_without_end_and_requests_without_end_are_refused():
    async def run():
        async with serving() as (connections, connect):
            assert await asked(connect, b"GET /" + b"a" * (3 * MOST_HEAD)) == b"431"
            assert await asked(connect, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * MOST_HEAD) == b"431"
            assert await asked(connect, b"GET / HTTP/1.1\r\na: " + b"b" * (MOST_HEAD // 2) + b"\r\n\r\n") == b"200"
            reader, writer = await connect()
            writer.write(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}" + LIVE * (MOST_AHEAD + 5))
            assert b"HTTP/1.1 400 " in await reader.read()
            writer.write(b"")
            body = b"x" * (10 * MOST_HEAD)  # a body may be longer than a head
            head = f"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            assert await asked(connect, head + body) == b"200"
            await settled(connections, 0)

    asyncio.run(run())


def test_what_is_no_http_is_told_so_as_all_refusals_are():
    async def run():
        async with serving() as (_, connect):
            reader, writer = await connect()
            writer.write(b"\x00\x01\r\n\r\n")
            told = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
            assert set(told) == {"code", "message", "detail"}

    asyncio.run(run())


def test_connections_leave_files_for_the_log():
    assert Connections(ServerState(), Serving(connections=10**9)).most < descriptors()
