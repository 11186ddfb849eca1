"""The services of a site, each in a process of its own: ingest, opener and page (`cloud.page_service`). Several may run.

    hubs ──▶ broker ──▶ ingest ──▶ store ──▶ opener ──▶ projections ──▶ page ──▶ browsers with a staff certificate

Each opens only its own files: ingest its signing key, the opener the patients' keys, the page neither.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final, NoReturn

from cloud.alert_requests import CommandSigner
from cloud.audit_actors import service
from cloud.audit_log import AuditLog, log_refused_endpoints, service_event
from cloud.block_reader import BlockReader
from cloud.clinic_keys import check_recipients
from cloud.clock import now_us
from cloud.commands import CommandSender
from cloud.hub_watch import HubWatch
from cloud.ingest import run_ingest
from cloud.key_store import KeyStore
from cloud.opener import Opener
from cloud.projections_database import open_projections
from cloud.receipts import ReceiptQueue
from cloud.register import repeat_erasures
from cloud.registry import Registry
from cloud.retention import keep_retention
from cloud.site.mosquitto import INGEST, OPENER
from cloud.site_settings import SiteSettings
from cloud.store import Store
from cloud.subscribed_transport import SubscribedTransport
from config.endpoint import Endpoint
from config.tls import make_endpoint_context
from sync.audit import Action
from sync.errors import TransientError
from sync.mqtt import MqttClient
from sync.signing import SigningKey, Use, VerifyingKey
from sync.wire import UP_TOPICS

SHARED_TOPICS: Final = tuple(f"$share/{INGEST}/{topic}" for topic in UP_TOPICS)
"""The broker gives each message to one ingest worker (MQTT 5, 4.8.2; mosquitto does so for MQTT 3.1.1, too)."""
WORK_POLL_S: Final = 0.2
"""Time between two looks for new blocks: what an alert waits at most. A look takes 2 ms, a hundredth of a core."""

PrintLine = Callable[[str], None]


async def run_ingest_service(settings: SiteSettings, stop: asyncio.Event, print_line: PrintLine) -> None:
    """Receive, commit and acknowledge blocks until `stop` is set.

    Raises:
        ClinicError: a file or the database cannot be used.
        KeyFileError, TlsSetupError: a key or certificate is missing, damaged or accessible to other users.
        PermanentError: the store is damaged or of a newer version.
    """
    key = SigningKey.load(settings.ingest.key, Use.ACKNOWLEDGEMENT)
    audit_key = VerifyingKey.load(settings.ingest.audit_key, Use.AUDIT)
    mqtt = _make_client(settings.ingest.broker, INGEST, SHARED_TOPICS)
    with contextlib.closing(Store.open(settings.store)) as store:
        transport = SubscribedTransport(mqtt)
        registry = Registry(settings.data / "hubs", time.monotonic)

        def leave_to_the_opener() -> None:
            """It looks for work by itself."""

        ingest = run_ingest(store, registry, key, transport, leave_to_the_opener, now_us=now_us, audit_key=audit_key)
        async with logging_start_and_stop(store, INGEST):
            ready = _announce(transport.subscribed.wait(), print_line, f"ingest receives from {settings.ingest.broker}")
            await run_until(stop, mqtt.run(), ingest, ready)


async def run_opener_service(settings: SiteSettings, stop: asyncio.Event, print_line: PrintLine) -> None:
    """Open blocks, sign and send receipts and commands, watch the hubs and sign the audit log until `stop` is set.

    Raises:
        ClinicError: a file or a database cannot be used, or patients' keys are missing.
        KeyFileError, TlsSetupError, PermanentError: as `run_ingest_service`.
    """
    own = settings.opener
    receipt, audit = SigningKey.load(own.key, Use.RECEIPT), SigningKey.load(own.audit_key, Use.AUDIT)
    command = SigningKey.load(own.command_key, Use.COMMAND)
    mqtt, keys = _make_client(own.broker, OPENER, ()), KeyStore(settings.data / "keys")
    with contextlib.closing(Store.open(settings.store)) as store:
        engine = open_projections(settings.projections)
        try:
            await asyncio.to_thread(check_recipients, store, keys)
            await asyncio.to_thread(repeat_erasures, keys, store, engine, now_us())
            receipts = ReceiptQueue(store, receipt, mqtt.publish)
            reader = BlockReader(store, Registry(settings.data / "hubs", time.monotonic), keys)
            opener = Opener(store, engine, reader, receipts.put)
            await asyncio.to_thread(opener.check_databases)
            async with logging_start_and_stop(store, OPENER):
                print_line("opener opens blocks")
                log = AuditLog(store, now_us)
                watch = HubWatch(store, Registry(settings.data / "hubs", time.monotonic), time.monotonic, now_us)
                sender = CommandSender(store, mqtt.publish, now_us)
                signer = CommandSigner(store, engine, Registry(settings.data / "hubs", time.monotonic), command, now_us)
                work = (
                    watch.run(),
                    opener.run(leave_to_the_page),
                    look_for_work(opener),
                    receipts.run(),
                    sender.run(),
                    signer.run(),
                    log.keep_signed(audit),
                    keep_retention(store, engine, settings.retention_days, service(OPENER), now_us),
                )
                await run_until(stop, mqtt.run(), _pass_over_events(mqtt), *work)
        finally:
            engine.dispose()


def _make_client(broker: Endpoint, service: str, topics: Iterable[str]) -> MqttClient:
    """Return a client with a random id: a second one of the same id would cut the connection of the first.

    Raises:
        TlsSetupError: the service's certificate cannot be used.
    """
    make_endpoint_context(broker)  # fail now: the client itself would try again for ever
    return MqttClient(broker, client_id=f"{service}-{secrets.token_hex(8)}", subscriptions=tuple(topics))


@contextlib.asynccontextmanager
async def logging_start_and_stop(store: Store, service: str) -> AsyncIterator[None]:
    """Write start and stop of a service to the audit log, and meanwhile the endpoints that it was refused."""
    log = AuditLog(store, now_us)
    await asyncio.to_thread(log.append, service_event(service, Action.START))
    stopped = asyncio.Event()
    logging_endpoints = asyncio.create_task(log_refused_endpoints(log, service, stopped))
    try:
        yield
    finally:
        stopped.set()
        await logging_endpoints
    with contextlib.suppress(TransientError):  # a database that is gone does not make a clean stop fail
        await asyncio.to_thread(log.append, service_event(service, Action.STOP))


async def run_until(stop: asyncio.Event, *work: Any) -> None:
    """Run coroutines until `stop` is set or one of them fails."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(one) for one in work]
        await stop.wait()
        for one in running:
            one.cancel()


async def _announce(is_ready: Awaitable[object], print_line: PrintLine, line: str) -> None:
    await is_ready
    print_line(line)


async def look_for_work(opener: Opener) -> NoReturn:
    """Wake an opener that no ingest wakes."""
    while True:
        await asyncio.sleep(WORK_POLL_S)
        opener.wake()


async def _pass_over_events(mqtt: MqttClient) -> NoReturn:
    """Take the events of a client that only publishes."""
    while True:
        await mqtt.receive()


async def leave_to_the_page() -> None:
    """It follows the change log by itself."""
