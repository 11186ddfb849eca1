"""Slow requests to the page's interface use up its connections to the databases, and none of those of ingest and opener."""

import asyncio
import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from cloud.dev import run_dev
from sync.messages import decode_ack
from sync.mqtt import Connected, Message, MqttClient
from sync.wire import ack_topic
from tests.clinic_testbed import Clinic
from tests.cloud.synthetic import START_US, heart_rate

REQUESTS = 15
"""As many as one engine has connections: 5 in its pool and 10 above."""
LIMIT_S = 25.0
"""Less than the 30 s that a request for a connection waits."""


@contextmanager
def slow_queries_of_the_page() -> Iterator[None]:
    """Stop every database query of a request until the context ends. Requests run on the threads of AnyIO."""
    release = threading.Event()

    def wait(*_: object) -> None:
        if "AnyIO" in threading.current_thread().name:
            release.wait(2 * LIMIT_S)

    event.listen(Engine, "before_cursor_execute", wait)
    try:
        yield
    finally:
        release.set()
        event.remove(Engine, "before_cursor_execute", wait)


@pytest.mark.parametrize("path", ["/api/sensors", "/api/counters"])
def test_a_block_is_committed_and_opened_while_the_page_uses_all_its_connections(tmp_path: Path, path: str) -> None:
    clinic = Clinic(tmp_path)
    folder = clinic.folder

    async def send_block(port: int) -> None:
        hub = clinic.add_hub()
        message = hub.message(hub.seal_records("vital", heart_rate(START_US, 61.0)))
        client = MqttClient("127.0.0.1", port, client_id=hub.name, subscriptions=[ack_topic(hub.name)])
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client.run())
            assert await client.receive() == Connected()
            await client.publish(message.topic, message.payload)
            answer = await client.receive()
            assert isinstance(answer, Message)
            assert decode_ack(answer.payload, clinic.signing.acknowledgement.public).marks[0].seq == 1
            running.cancel()

    async def scenario() -> None:
        running = asyncio.create_task(run_dev(folder, 0, 0, watch_stdin=False, print_line=lambda _: None))
        async with asyncio.timeout(LIMIT_S):
            while not folder.endpoints.exists():
                await asyncio.sleep(0.01)
            endpoints = json.loads(folder.endpoints.read_text())
            page_port = int(endpoints["page"].rstrip("/").rpartition(":")[2])
            with slow_queries_of_the_page():
                writers = [(await asyncio.open_connection("127.0.0.1", page_port))[1] for _ in range(REQUESTS)]
                for writer in writers:
                    writer.write(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                await asyncio.sleep(0.3)
                await send_block(endpoints["mqtt"]["port"])
                while not _is_opened(tmp_path):
                    await asyncio.sleep(0.01)
                    assert not running.done()
            for writer in writers:
                writer.transport.abort()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def _is_opened(folder: Path) -> bool:
    with contextlib.closing(sqlite3.connect(f"file:{folder}/projections.db?mode=ro", uri=True)) as connection:
        return bool(connection.execute("SELECT count(*) FROM vitals").fetchone()[0])
