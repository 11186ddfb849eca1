"""Sends the hub's status to the clinic: at each new connection, and every minute while it lasts."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, NoReturn

from sync.errors import TransientError
from sync.signing import SigningKey
from sync.status import STATUS_INTERVAL_S, HubStatus, encode_status
from sync.transport import Transport, WorkerCall
from sync.wire import status_topic

log: Final = logging.getLogger(__name__)


class Heartbeat:
    """Numbers, signs and sends the statuses of one hub. Without a connection it sends nothing."""

    def __init__(self, transport: Transport, device: SigningKey, collect: Callable[[int], HubStatus], call: WorkerCall) -> None:
        """`collect` gets the number of the status; it runs on the storage thread, as the outbox belongs to that."""
        self._transport = transport
        self._device = device
        self._collect = collect
        self._call = call
        self._seq = 0
        self._connected = asyncio.Event()

    def on_connected(self) -> None:
        """Send a status at once: a connection is new."""
        self._connected.set()

    async def run(self) -> NoReturn:
        """Send statuses until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATUS_INTERVAL_S):
                    await self._connected.wait()
            self._connected.clear()
            try:
                hub, payload = await self._call(self._make)
                await self._transport.publish(status_topic(hub), payload)
            except TransientError as error:
                log.debug("no status is sent: %s", error)

    def _make(self) -> tuple[str, bytes]:
        self._seq += 1
        status = self._collect(self._seq)
        return status.hub, encode_status(status, self._device)
