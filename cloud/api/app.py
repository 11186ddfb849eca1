"""The clinic's HTTP and WebSocket interface: the page, its REST routes and its live feed."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final

from fastapi import FastAPI, HTTPException, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy import Engine

from cloud.api import queries
from cloud.api.counters import read_counters
from cloud.api.feed import Feed, now_us
from cloud.api.queries import SILENT_AFTER_US, Json
from cloud.api.security import SecurityMiddleware
from cloud.store import Store
from reporting import assets

STATIC: Final = Path(__file__).parents[1] / "page" / "static"
LANGUAGES: Final = ("en", "de", "fr", "es")

TimeUs = Annotated[int, Query(ge=0, lt=2**53)]
Name = Annotated[str, Query(min_length=1, max_length=200)]


def create_app(store: Store, engine: Engine, feed: Feed) -> FastAPI:
    """Return the application that serves the sealed store, the projections and the live feed."""
    # FastAPI's documentation pages load scripts from other sites, so they are switched off.
    app = FastAPI(title="pulsegate clinic", docs_url=None, redoc_url=None, openapi_url=None)
    _add_page(app)
    _add_rest_routes(app, store, engine)
    _add_websocket(app, feed)
    app.add_middleware(SecurityMiddleware)
    return app


def select_language(accept: str) -> str:
    """Return the page language that an Accept-Language header (RFC 9110, section 12.5.4) weights highest, else English."""
    ranked: list[tuple[float, str]] = []
    for part in accept.split(","):
        match = re.fullmatch(r"\s*([a-zA-Z]{1,8})(?:-[\w-]+)?\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*", part)
        if match and match[1].lower() in LANGUAGES:
            ranked.append((float(match[2] or 1), match[1].lower()))
    best = max((weight for weight, _ in ranked), default=0.0)
    return next((language for weight, language in ranked if weight == best > 0), "en")


def _add_page(app: FastAPI) -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")

    @app.get("/")
    async def index(request: Request) -> Response:
        language = select_language(request.headers.get("accept-language", ""))
        headers = {"cache-control": "no-cache", "vary": "accept-language"}
        return HTMLResponse(page.replace('<html lang="en">', f'<html lang="{language}">', 1), headers=headers)

    app.mount("/static/reporting", StaticFiles(directory=assets.SHARED), name="reporting")
    app.mount("/static", StaticFiles(directory=STATIC), name="static")


def _add_rest_routes(app: FastAPI, store: Store, engine: Engine) -> None:
    """Add the REST routes. They are not coroutines: FastAPI runs them on worker threads, which may wait for the database."""

    @app.get("/api/alerts")
    def alerts(after_revision: Annotated[int, Query(ge=0, lt=2**63)] = 0) -> Json:
        return queries.find_alerts_after(engine, after_revision)

    @app.get("/api/alerts/{id_}")
    def alert(id_: str) -> Json:
        found = queries.find_alert(engine, id_)
        if found is None:
            raise HTTPException(404, "no alert with this id")
        return found

    @app.get("/api/sensors")
    def sensors() -> Json:
        return {"now_us": now_us(), "silent_after_us": SILENT_AFTER_US, "sensors": queries.list_sensors(engine)}

    @app.get("/api/ecg")
    def ecg(sensor: Name, from_us: TimeUs, to_us: TimeUs) -> Json:
        return {"sensor": sensor, "segments": queries.read_ecg(engine, sensor, from_us, to_us)}

    @app.get("/api/vitals")
    def vitals(sensor: Name, kind: Name, from_us: TimeUs = 0) -> Json:
        return {"sensor": sensor, "kind": kind, "vitals": queries.read_vitals(engine, sensor, kind, from_us)}

    @app.get("/api/counters")
    def counters() -> Json:
        return read_counters(store, engine)


def _add_websocket(app: FastAPI, feed: Feed) -> None:
    @app.websocket("/ws")
    async def live(socket: WebSocket) -> None:
        with feed.register_viewer() as viewer:
            await socket.accept()
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(_send_messages(socket, lambda: feed.next_message(viewer)))
                await _wait_closed(socket)
                sending.cancel()


async def _send_messages(socket: WebSocket, next_message: Callable[[], Awaitable[str]]) -> None:
    try:
        while True:
            await socket.send_text(await next_message())
    except (WebSocketDisconnect, RuntimeError):
        return  # the viewer has disconnected; `_wait_closed` returns too


async def _wait_closed(socket: WebSocket) -> None:
    """Return when the client disconnects; ignore all messages from it, since the page sends none."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
