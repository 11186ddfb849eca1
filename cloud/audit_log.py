"""The site's audit log, as the clinic's services and commands use it: append an event, sign the log's end.

Any part that has something to log calls `AuditLog.append`. The row is durable on return.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Final, NoReturn

from cloud.audit_actors import ORIGIN, operator, service
from cloud.clock import now_us
from cloud.database_url import PostgresUrl
from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.store import Store
from cloud.store.audit import append_to_log, sign_end
from cloud.store.audit_hubs import note_hub_audit
from cloud.store.audit_refusals import Refusal, count_refusal, log_refusals
from config.egress import take_refused_endpoints
from sync.audit import Action, AuditEvent, Category, Outcome, object_id
from sync.audit_heads import HubAudit
from sync.errors import PermanentError, SyncError, TransientError
from sync.refused_endpoints import endpoint_events
from sync.signing import SigningKey, VerifyingKey

ENDPOINT_INTERVAL_S: Final = 10.0
"""How often refused endpoints are written to the log: a library that tries again and again must not fill it."""
SIGN_INTERVAL_S: Final = 10.0
"""How long a row waits for a signed head at most: a tail that nobody can prove is about so long. Signing takes 1 ms."""
_log: Final = logging.getLogger(__name__)


class AuditLog:
    """The audit log of this site in its store. Thread-safe. `now_us` is the clock: microseconds since 1970."""

    def __init__(self, store: Store, now_us: Callable[[], int]) -> None:
        self._store = store
        self._now_us = now_us

    def append(self, *events: AuditEvent) -> None:
        """Append events in one transaction, which is on the disk on return.

        Raises:
            TransientError, PermanentError: the store failed; nothing was logged, and what was to be logged must not be done.
        """
        with self._store.transaction() as connection:
            append_to_log(connection, ORIGIN, events, self._now_us())

    @contextmanager
    def logging(self, *events: AuditEvent) -> Iterator[None]:
        """Log events, then run the body. If the body fails, the same events follow as failed.

        Raises:
            TransientError, PermanentError: as `append`; the body was not run.
        """
        self.append(*events)
        try:
            yield
        except BaseException:
            self.append(*(replace(event, outcome=Outcome.FAILED) for event in events))
            raise

    def count_refusal(self, refusal: Refusal) -> None:
        """Count a request that was refused: the log gets one row for each hub, reason and hour.

        Raises:
            TransientError, PermanentError: as `append`.
        """
        with self._store.transaction() as connection:
            count_refusal(connection, refusal, self._now_us())

    def note_hub(self, key: VerifyingKey, hub: str, device: VerifyingKey, audit: HubAudit) -> None:
        """Keep the heads of a hub's status message, which its device key signed; see `note_hub_audit`.

        `key` is the site's public audit key. A contradiction is logged once.

        Raises:
            SignatureError: the hub's head or its audit key is not signed rightly. Nothing was kept.
            TransientError, PermanentError: the store failed.
        """
        with self._store.transaction() as connection:
            problem = note_hub_audit(connection, ORIGIN, key, hub, device, audit, self._now_us())
        if problem is not None:
            _log.error(
                "the audit logs of hub %s and this site contradict each other: %s; run pulsegate-cloud audit verify",
                hub,
                problem,
            )

    def sign(self, key: SigningKey) -> None:
        """Write the counts of refused messages of past hours, then sign the end of the log.

        Raises:
            ChainError: the log does not continue what was signed before.
            TransientError, PermanentError: the store failed.
        """
        with self._store.transaction() as connection:
            log_refusals(connection, ORIGIN, self._now_us())
            sign_end(connection, ORIGIN, key)

    async def keep_signed(self, key: SigningKey) -> NoReturn:
        """Sign the log's end every `SIGN_INTERVAL_S`, until cancelled. A log that was rewritten is reported, and not signed."""
        reported: str | None = None
        while True:
            try:
                await asyncio.to_thread(self.sign, key)
            except PermanentError as error:  # a `ChainError`, or a damaged head: ingest and opener notice a damaged store
                if str(error) != reported:
                    _log.error("the audit log was changed: %s; run pulsegate-cloud audit verify", error)
                reported = str(error)
            except TransientError as error:
                _log.warning("cannot sign the audit log now: %s", error)
            await asyncio.sleep(SIGN_INTERVAL_S)


@contextmanager
def logging_in(folder: ClinicFolder, *events: AuditEvent) -> Iterator[None]:
    """Log events in the clinic of this folder, then run the body; see `AuditLog.logging`."""
    with closing(Store.open(folder.blocks)) as store, AuditLog(store, now_us).logging(*events):
        yield


def log_refused_endpoint(url: PostgresUrl, endpoint: str) -> None:
    """Log that the settings name an endpoint that is not allowed. Best effort: the services do not start either way."""
    try:
        with closing(Store.open(url)) as store:
            AuditLog(store, now_us).append(*endpoint_events(operator(), {endpoint: 1}))
    except (ClinicError, SyncError) as error:
        _log.warning("cannot write to the audit log that %s was refused: %s", endpoint, error)


async def log_refused_endpoints(log: AuditLog, service_name: str, stop: asyncio.Event) -> None:
    """Log the endpoints that this process was refused, every `ENDPOINT_INTERVAL_S` and when `stop` is set, which ends it."""
    refused, is_last = dict[str, int](), False
    while not is_last:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), ENDPOINT_INTERVAL_S)
        is_last = stop.is_set()
        refused |= take_refused_endpoints()
        try:
            if refused:
                await asyncio.to_thread(log.append, *endpoint_events(service(service_name), refused))
            refused = {}
        except SyncError as error:
            _log.warning("cannot write to the audit log which endpoints were refused: %s", error)


def service_event(name: str, action: Action) -> AuditEvent:
    """The start or stop of a service of this site."""
    return AuditEvent(service(name), action, Category.SERVICE, None, (object_id("service", name),))
