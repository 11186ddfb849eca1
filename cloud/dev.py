"""The whole clinic in one process: broker, ingest, store, opener and page, for development and demonstrations.

This module only assembles the parts; `cloud.folder` describes the files.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from sqlalchemy import Engine

from cloud.alert_requests import CommandSigner
from cloud.api.app import create_app
from cloud.api.feed import Feed
from cloud.audit_actors import service
from cloud.audit_log import AuditLog, service_event
from cloud.block_reader import BlockReader
from cloud.broker import embedded_broker
from cloud.clinic_keys import ClinicKeys, load_keys
from cloud.clock import now_us
from cloud.commands import CommandSender
from cloud.folder import ClinicFolder, Endpoints
from cloud.hub_watch import HubWatch
from cloud.ingest import run_ingest
from cloud.opener import Opener
from cloud.page_server import make_page_server
from cloud.projections_database import open_projections
from cloud.receipts import ReceiptQueue
from cloud.register import repeat_erasures
from cloud.registry import Registry
from cloud.retention import DEFAULT_RETENTION_DAYS, keep_retention
from cloud.schemas import OlderSchemaError
from cloud.sockets import listen_on_loopback
from cloud.store import Store
from cloud.subscribed_transport import SubscribedTransport
from config.endpoint import Endpoint
from config.process import stop_on_signals, watching_stdin
from sync.audit import Action
from sync.errors import TransientError
from sync.mqtt import MqttClient
from sync.wire import UP_TOPICS

SERVICE: Final = "clinic"
"""The name of the whole clinic in one process, in the audit log."""


async def run_dev(
    folder: ClinicFolder, port: int, mqtt_port: int, *, watch_stdin: bool, print_line: Callable[[str], None]
) -> None:
    """Run the clinic until SIGINT, SIGTERM or, with `watch_stdin`, the end of standard input.

    Raises:
        ClinicError: a port or the folder is in use, the folder cannot be written, or a key is missing.
        KeyFileError: a key file is damaged or readable by others.
        PermanentError: the store is damaged or of a newer version.
    """
    stop = asyncio.Event()
    stop_on_signals(stop)
    folder.create()
    with folder.locked(), contextlib.closing(listen_on_loopback(port, "--port")) as listener:
        folder.delete_endpoints()  # left behind by a kill: it would name the wrong broker port
        async with _run_broker(mqtt_port) as broker:
            stdin_watch = watching_stdin(stop.set) if watch_stdin else contextlib.nullcontext()
            page_url = f"http://{Endpoint(*listener.getsockname())}/"
            endpoints = Endpoints(page_url, broker)
            await asyncio.to_thread(migrate_if_needed, folder)
            with _open_databases(folder) as databases, stdin_watch:
                keys = await asyncio.to_thread(_prepare, folder, databases)
                await _run_services(folder, databases, keys, listener, endpoints, stop, print_line)


def migrate_if_needed(folder: ClinicFolder) -> None:
    """Migrate databases of an older version. This process is the only one that uses them.

    Raises:
        SyncError: a database is damaged, in use, or of a newer version.
    """
    try:
        Store.open(folder.blocks).close()
        open_projections(folder.projections).dispose()
    except OlderSchemaError:
        from cloud.migrations import migrate_all  # noqa: PLC0415  alembic takes as long to import as the database's library

        migrate_all(folder, may_contract=True)


@dataclass(frozen=True, slots=True)
class _Databases:
    """The store and the projections, opened more than once: the page must not use up the connections of the others."""

    store: Store
    projections: Engine
    page_store: Store
    page_projections: Engine
    feed_projections: Engine


@contextmanager
def _open_databases(folder: ClinicFolder) -> Iterator[_Databases]:
    with ExitStack() as stack:
        stores = [stack.enter_context(contextlib.closing(Store.open(folder.blocks))) for _ in range(2)]
        engines = [open_projections(folder.projections) for _ in range(3)]
        for engine in engines:
            stack.callback(engine.dispose)
        yield _Databases(stores[0], engines[0], stores[1], engines[1], engines[2])


def _prepare(folder: ClinicFolder, databases: _Databases) -> ClinicKeys:
    """Load the keys, and repeat erasures that a restored store does not know."""
    keys = load_keys(folder, databases.store)
    repeat_erasures(keys.recipients, databases.store, databases.projections, now_us())
    return keys


async def _run_services(
    folder: ClinicFolder,
    databases: _Databases,
    keys: ClinicKeys,
    listener: socket.socket,
    endpoints: Endpoints,
    stop: asyncio.Event,
    print_line: Callable[[str], None],
) -> None:
    feed = Feed(databases.feed_projections)
    mqtt = MqttClient(endpoints.broker, client_id="clinic", subscriptions=UP_TOPICS)
    transport = SubscribedTransport(mqtt)
    server = make_page_server(create_app(databases.page_store, databases.page_projections, feed))
    log = AuditLog(databases.store, now_us)
    services = await _make_services(folder, databases, keys, transport, feed)
    await asyncio.to_thread(log.append, service_event(SERVICE, Action.START))
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [mqtt.run(), *services, feed.run(), log.keep_signed(keys.signing.audit), _keep_retention(databases)]
            background = [tasks.create_task(service) for service in running]
            serving = tasks.create_task(server.serve(sockets=[listener]))
            await transport.subscribed.wait()
            folder.write_endpoints(endpoints)
            print_line(_start_message(endpoints))
            await stop.wait()
            server.should_exit = True
            await serving
            for task in background:
                task.cancel()
        with contextlib.suppress(TransientError):  # a database that is gone does not make a clean stop fail
            await asyncio.to_thread(log.append, service_event(SERVICE, Action.STOP))
            await asyncio.to_thread(log.sign, keys.signing.audit)
    finally:
        folder.delete_endpoints()


async def _make_services(
    folder: ClinicFolder, databases: _Databases, keys: ClinicKeys, transport: SubscribedTransport, feed: Feed
) -> list[Coroutine[Any, Any, None]]:
    """Return ingest, opener, receipts, commands and the watch over silent hubs, once the databases are seen to fit the keys."""
    store, signing = databases.store, keys.signing

    def registry() -> Registry:  # one for each thread
        return Registry(folder.hubs, time.monotonic)

    receipts = ReceiptQueue(store, signing.receipt, transport.publish)
    opener = Opener(store, databases.projections, BlockReader(store, registry(), keys.recipients), receipts.put)
    await asyncio.to_thread(opener.check_databases)
    return [
        run_ingest(
            store, registry(), signing.acknowledgement, transport, opener.wake, now_us=now_us, audit_key=signing.audit.public
        ),
        HubWatch(store, registry(), time.monotonic, now_us).run(),
        opener.run(feed.send_changes),
        receipts.run(),
        CommandSender(store, transport.publish, now_us).run(),
        CommandSigner(store, databases.projections, registry(), signing.command, now_us).run(),
    ]


async def _keep_retention(databases: _Databases) -> NoReturn:
    await keep_retention(databases.store, databases.projections, DEFAULT_RETENTION_DAYS, service(SERVICE), now_us)


def _start_message(endpoints: Endpoints) -> str:
    return f"page    {endpoints.page}\nbroker  {endpoints.broker}\nPress Ctrl-C to stop."


@asynccontextmanager
async def _run_broker(port: int) -> AsyncIterator[Endpoint]:
    """Run the embedded broker; yields where it listens."""
    with contextlib.closing(listen_on_loopback(port, "--mqtt-port")) as listener:
        async with embedded_broker(listener):
            yield Endpoint(*listener.getsockname())
