"""A clinic's page server on a free port, its opener and its feed, inside the test's event loop."""

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import websockets
from sqlalchemy import Engine
from websockets.asyncio.client import connect

from cloud.api.app import create_app
from cloud.api.feed import Feed
from cloud.api.readers import choose_scope
from cloud.opener import Opener
from cloud.page_server import make_page_server
from cloud.scope import EVERY_SUBJECT, Scope
from cloud.store import Store
from tests.clinic_testbed import Clinic

Json = dict[str, Any]


class RunningClinic:
    """The running parts, and requests to the page's server."""

    def __init__(self, port: int, opener: Opener, feed: Feed) -> None:
        self.port, self.opener, self.feed = port, opener, feed

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
        return await self.request("GET", path, **headers)

    async def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        return await asyncio.to_thread(self._request, method, path, body, headers)

    async def json(self, path: str) -> Any:
        status, _, body = await self.get(path)
        assert status == 200, body
        return json.loads(body)

    def websocket(self, **options: Any) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/ws", **({"origin": f"http://127.0.0.1:{self.port}"} | options))

    def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read().decode()
        finally:
            connection.close()


@asynccontextmanager
async def run_clinic(
    store: Store, engine: Engine, clinic: Clinic, scope: Scope = EVERY_SUBJECT
) -> AsyncIterator[RunningClinic]:
    """Run a clinic whose viewers all have this scope."""
    feed = Feed(engine)
    opener = clinic.opener(store, engine)
    opener.check_databases()
    app = create_app(store, engine, feed)
    app.dependency_overrides[choose_scope] = lambda: scope
    server = make_page_server(app)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[listener]))
            background = [tasks.create_task(run) for run in (opener.run(feed.send_changes), feed.run())]
            yield RunningClinic(listener.getsockname()[1], opener, feed)
            server.should_exit = True
            await serving
            for task in background:
                task.cancel()


Result = TypeVar("Result")


def run_in_clinic(
    store: Store,
    engine: Engine,
    clinic: Clinic,
    test: Callable[[RunningClinic], Awaitable[Result]],
    scope: Scope = EVERY_SUBJECT,
) -> Result:
    """Run a test in a running clinic; returns what it returns."""

    async def run() -> Result:
        async with run_clinic(store, engine, clinic, scope) as running:
            return await test(running)

    return asyncio.run(run())


async def next_message(viewer: websockets.ClientConnection, kind: str) -> Json:
    while True:
        message: Json = json.loads(await viewer.recv())
        if message["type"] == kind:
            return message
