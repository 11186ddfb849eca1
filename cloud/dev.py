"""The whole clinic in one process: broker, ingest, store, opener and page, for development and demonstrations.

folder/clinic.key, clinic.pub   key pair; the private one readable by its owner only
folder/blocks.db                sealed blocks
folder/projections.db           what was opened: plaintext, rebuilt from the blocks at will
folder/clinic.json              where everything is, while the clinic runs
"""

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI

from cloud.api.app import create_app
from cloud.api.feed import Feed, now_us
from cloud.broker import embedded_broker
from cloud.ingest import run_ingest
from cloud.opener import Opener
from cloud.store import Store
from cloud.tables import open_projections
from config.files import replacing
from config.process import watching_stdin
from sync.mqtt import Connected, MqttClient, MqttEvent
from sync.seal import ClinicKeyPair
from sync.wire import UP_TOPICS

HOST: Final = "127.0.0.1"
GOODBYE_S: Final = 1
"""For viewers to take their leave at the end; then their connections are cut."""
SOCKETS_WAITING: Final = 128


class ClinicError(Exception):
    """The clinic cannot start. One line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of one clinic."""

    path: Path

    @property
    def private_key(self) -> Path:
        return self.path / "clinic.key"

    @property
    def public_key(self) -> Path:
        return self.path / "clinic.pub"

    @property
    def blocks(self) -> Path:
        return self.path / "blocks.db"

    @property
    def projections(self) -> Path:
        return self.path / "projections.db"

    @property
    def ready(self) -> Path:
        return self.path / "clinic.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Two openers on one folder would project everything twice.

        Raises:
            ClinicError: another process has the folder.
        """
        with (self.path / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ClinicError(
                    f"{self.path} is in use by another pulsegate-cloud: stop it or choose another --data"
                ) from error
            yield


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a running clinic is found."""

    page: str
    mqtt_port: int
    public_key: Path


async def run_dev(folder: Folder, port: int, mqtt_port: int, *, watch_stdin: bool, say: Callable[[str], None]) -> None:
    """Serve until SIGINT, SIGTERM or, if watched, the end of stdin.

    Raises:
        ClinicError: a port or the folder is in use, or the folder cannot be written.
        SealError: the key file is damaged or open to others.
        Permanent: the store is damaged or of a newer version.
    """
    stop = asyncio.Event()
    _stop_on_signals(stop)
    try:
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ClinicError(f"cannot create {folder.path} ({error.strerror}): choose another --data") from error
    with folder.locked(), contextlib.closing(_listen(port, "--port")) as listener:
        folder.ready.unlink(missing_ok=True)  # left behind by a kill: it would name another broker port
        clinic = key_pair(folder)
        async with _broker(mqtt_port) as bound_mqtt_port:
            watched = watching_stdin(stop.set) if watch_stdin else contextlib.nullcontext()
            ready = Ready(f"http://{HOST}:{listener.getsockname()[1]}/", bound_mqtt_port, folder.public_key.resolve())
            with contextlib.closing(Store.open(folder.blocks)) as store, watched:
                await _serve(folder, store, clinic, listener, ready, stop, say)


async def _serve(
    folder: Folder,
    store: Store,
    clinic: ClinicKeyPair,
    listener: socket.socket,
    ready: Ready,
    stop: asyncio.Event,
    say: Callable[[str], None],
) -> None:
    engine = open_projections(folder.projections)
    feed = Feed(engine)
    opener = Opener(store, engine, clinic, feed.publish)
    mqtt = MqttClient(HOST, ready.mqtt_port, client_id="clinic", subscriptions=UP_TOPICS)
    link = _SubscribedLink(mqtt)
    server = make_server(create_app(store, engine, feed))
    try:
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(mqtt.run()),
                tasks.create_task(run_ingest(store, link, opener.wake, now_us=now_us)),
                tasks.create_task(opener.run()),
            ]
            serving = tasks.create_task(server.serve(sockets=[listener]))
            await link.subscribed.wait()
            _announce(folder.ready, ready)
            say(f"page    {ready.page}\nbroker  {HOST}:{ready.mqtt_port}\nkey     {ready.public_key}\nCtrl-C ends it.")
            await stop.wait()
            server.should_exit = True
            await serving
            for task in background:
                task.cancel()
    finally:
        folder.ready.unlink(missing_ok=True)
        engine.dispose()


def key_pair(folder: Folder) -> ClinicKeyPair:
    """The clinic's key pair, made at the first start.

    Raises:
        SealError: the private key is damaged, open to others, or cannot be written.
    """
    if not folder.private_key.exists():
        ClinicKeyPair.generate().save(folder.private_key)
    pair = ClinicKeyPair.load(folder.private_key)
    pair.public.save(folder.public_key)
    return pair


class _SubscribedLink:
    """The ingest's link, which also tells when the first subscription stands: from then on no block goes unheard."""

    def __init__(self, mqtt: MqttClient) -> None:
        self._mqtt = mqtt
        self.subscribed = asyncio.Event()

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._mqtt.publish(topic, payload)

    async def receive(self) -> MqttEvent:
        event = await self._mqtt.receive()
        if isinstance(event, Connected):
            self.subscribed.set()
        return event


class PageServer(uvicorn.Server):
    """Uvicorn without its signal handlers: `run_dev` has its own, for the whole process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: FastAPI) -> PageServer:
    """The server of the page, without logs of its own; `serve(sockets=[…])` runs it until `should_exit`."""
    return PageServer(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="websockets-sansio",
            timeout_graceful_shutdown=GOODBYE_S,
        )
    )


def _listen(port: int, option: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(SOCKETS_WAITING)
    except OSError as error:
        listener.close()
        raise _unusable(port, option, error) from error
    return listener


@asynccontextmanager
async def _broker(port: int) -> AsyncIterator[int]:
    with contextlib.closing(_listen(port, "--mqtt-port")) as listener:
        async with embedded_broker(listener):
            yield listener.getsockname()[1]


def _unusable(port: int, option: str, error: OSError) -> ClinicError:
    problem = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    return ClinicError(f"port {port} {problem}: choose another with {option}")


def _announce(path: Path, ready: Ready) -> None:
    """Whole or not at all: whoever waits for the file may read it at once."""
    content = {
        "page": ready.page,
        "mqtt": {"host": HOST, "port": ready.mqtt_port},
        "public_key": str(ready.public_key),
        "pid": os.getpid(),
    }
    with replacing(path) as draft:
        draft.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
