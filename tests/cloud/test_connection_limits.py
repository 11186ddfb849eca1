"""Idle and too many connections are cut, at the page and at the broker, and neither keeps users of the other out."""

import asyncio
import contextlib
import http.client
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket

from cloud import broker, page_server, sockets
from cloud.broker import embedded_broker
from cloud.page_server import make_page_server
from cloud.sockets import HOST, listen_on_loopback
from config.endpoint import Endpoint
from sync.mqtt import Connected, MqttClient

CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a"
"""An MQTT 3.1.1 CONNECT packet of the client `a`, clean session, without keep-alive (OASIS MQTT 3.1.1, section 3.1)."""
CONNACK = b"\x20\x02\x00\x00"
REQUEST = b"GET /short HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
BIG_BYTES = 32 << 20
"""More than the sockets' buffers on both sides take."""
LIMIT_S = 30.0

Test = Callable[[int], Awaitable[None]]


def small_app() -> FastAPI:
    app = FastAPI()

    @app.get("/short")
    async def short() -> str:
        return "short"

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(0.3)
        return "slow"

    @app.get("/big")
    async def big() -> str:
        return "b" * BIG_BYTES

    @app.websocket("/ws")
    async def live(viewer: WebSocket) -> None:
        await viewer.accept()
        await asyncio.sleep(0.3)
        await viewer.send_text("still there")
        await viewer.receive()

    return app


@asynccontextmanager
async def running_page() -> AsyncIterator[int]:
    with contextlib.closing(listen_on_loopback(0, "--port")) as listener:
        server = make_page_server(small_app())
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def running_broker() -> AsyncIterator[int]:
    with contextlib.closing(listen_on_loopback(0, "--mqtt-port")) as listener:
        async with embedded_broker(listener):
            yield listener.getsockname()[1]


def run(server: Callable[[], Any], test: Test) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(LIMIT_S), server() as port:
            await test(port)

    asyncio.run(scenario())


@asynccontextmanager
async def open_client(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Read until the connection is closed or cut."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := await reader.read(65536):
            data += more
    return data


@pytest.mark.parametrize("sent", [b"", b"GET /short HT", REQUEST, REQUEST + b"GET /sho", REQUEST * 3])
def test_the_page_cuts_connections_without_a_complete_request(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(page_server, "IDLE_TIMEOUT_S", 0.1)

    async def test(port: int) -> None:
        async with open_client(port) as (reader, writer):
            writer.write(sent)
            assert (await read_all(reader)).count(b'"short"') == sent.count(REQUEST)

    run(running_page, test)


def test_bytes_that_trickle_in_do_not_keep_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "IDLE_TIMEOUT_S", 0.1)

    async def test(port: int) -> None:
        async with open_client(port) as (reader, writer):
            reading = asyncio.create_task(read_all(reader))
            while not reading.done():
                with contextlib.suppress(ConnectionError):
                    writer.write(b"G")
                await asyncio.sleep(0.02)
            assert await reading == b""

    run(running_page, test)


def test_the_page_does_not_cut_a_slow_answer_or_a_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "IDLE_TIMEOUT_S", 0.1)
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + b"A" * 22 + b"==\r\n"
    )

    async def test(port: int) -> None:
        for path, more, expected in ((b"/slow", b"", b'"slow"'), (b"/ws", upgrade, b"still there")):
            async with open_client(port) as (reader, writer):
                writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + more + b"\r\n")
                assert (await reader.readuntil(expected)).startswith(b"HTTP/1.1 ")

    run(running_page, test)


def test_the_page_cuts_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "STALL_TIMEOUT_S", 0.2)

    async def test(port: int) -> None:
        async with open_client(port) as (reader, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(REQUEST.replace(b"short", b"big"))
            while True:
                with contextlib.suppress(ConnectionError):
                    writer.write(b" ")
                    await writer.drain()
                if writer.transport.is_closing():
                    break
                await asyncio.sleep(0.05)
            assert len(await read_all(reader)) < BIG_BYTES

    run(running_page, test)


@pytest.mark.parametrize("server", [running_page, running_broker])
def test_connections_beyond_the_limit_are_refused_until_one_closes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, server: Callable[[], Any]
) -> None:
    monkeypatch.setattr(sockets, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(page_server.PageConnection, "_limit", sockets.ConnectionLimit("page"))
    first, answer = (REQUEST, b"HTTP/1.1 200 OK") if server is running_page else (CONNECT, CONNACK)

    async def receive_answer(name: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(first.replace(b"\x01a", b"\x01" + name))
            return await reader.readexactly(len(answer))
        return b""

    async def test(port: int) -> None:
        async with AsyncExitStack() as stack:
            received = [await receive_answer(b"%d" % n, *await stack.enter_async_context(open_client(port))) for n in range(7)]
            assert received == [answer] * 4 + [b""] * 3
        while True:
            async with open_client(port) as client:
                if await receive_answer(b"a", *client) == answer:
                    break
            await asyncio.sleep(0.01)

    run(server, test)
    assert [record.message for record in caplog.records if "its limit" in record.message] == [
        f"the {'page' if server is running_page else 'broker'} has 4 connections, its limit: refusing more"
    ]


@pytest.mark.parametrize(
    "sent", [b"", CONNECT[:1], CONNECT[:-1], b"\x10\xff\xff\xff\x7f", b"\x30\x02\x00\x00", b"\xf0\x00" * 9]
)
def test_the_broker_cuts_connections_without_a_connect_packet(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(broker, "CONNECT_TIMEOUT_S", 0.1)

    async def test(port: int) -> None:
        async with open_client(port) as (reader, writer):
            writer.write(sent)
            assert await read_all(reader) == b""

    run(running_broker, test)


@pytest.mark.parametrize(
    ("timeout_s", "sent"),
    [
        pytest.param(0.2, CONNECT, id="silent"),
        pytest.param(0.2, CONNECT[:10] + b"\x00\x01" + CONNECT[12:], id="silent beyond its keep-alive"),
        pytest.param(0.2, CONNECT + b"\x30\x05\x00\x01t", id="part of a packet"),
        pytest.param(LIMIT_S * 2, CONNECT + b"\x30\xff\xff\x7f\x00\x01t" + bytes(100), id="a packet of 2 MB"),
    ],
)
def test_the_broker_cuts_clients_that_stop_sending_or_send_too_much(
    monkeypatch: pytest.MonkeyPatch, timeout_s: float, sent: bytes
) -> None:
    monkeypatch.setattr(broker, "IDLE_TIMEOUT_S", timeout_s)

    async def test(port: int) -> None:
        async with open_client(port) as (reader, writer):
            writer.write(sent)
            assert await read_all(reader) == CONNACK

    run(running_broker, test)


@contextmanager
def clinic_with_few_files(folder: Path, files: int) -> Iterator[Any]:
    """Run a clinic whose process may open only so many files; yields what its clinic.json holds."""

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    command = [sys.executable, "-m", "cloud.cli", "dev", "--data", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=limit_files)  # noqa: PLW1509
    try:
        deadline = time.monotonic() + LIMIT_S
        while not (folder / "clinic.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield json.loads((folder / "clinic.json").read_text())
    finally:
        process.kill()
        process.wait()


@contextmanager
def idle_connections(port: int, n: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(n):
            stack.enter_context(contextlib.closing(socket.create_connection((HOST, port), LIMIT_S)))
        yield


def test_idle_connections_to_the_page_keep_no_hub_out_and_those_to_the_broker_no_browser(tmp_path: Path) -> None:
    files = 500
    with clinic_with_few_files(tmp_path, files) as endpoints:
        page_port, mqtt_port = int(endpoints["page"].rstrip("/").rpartition(":")[2]), endpoints["mqtt"]["port"]

        async def connect_hub() -> None:
            client = MqttClient(Endpoint(HOST, mqtt_port), client_id="hub-1", subscriptions=["there"])
            async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
                running = tasks.create_task(client.run())
                assert await client.receive() == Connected()
                running.cancel()

        with idle_connections(page_port, files + 50):
            asyncio.run(connect_hub())
        with idle_connections(mqtt_port, files + 50):
            connection = http.client.HTTPConnection(HOST, page_port, timeout=LIMIT_S)
            connection.request("GET", "/api/counters")
            assert connection.getresponse().status == 200
            connection.close()
