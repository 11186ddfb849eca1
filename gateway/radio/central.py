"""Access to one Bumble device, shared by all its clients and scanners: one connect and one scan at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

from bleak.exc import BleakError, BleakGATTProtocolError, BleakGATTProtocolErrorCode
from bumble import hci
from bumble.att import ATT_Error
from bumble.core import BaseBumbleError
from bumble.core import TimeoutError as BumbleTimeoutError
from bumble.device import Connection, Device
from bumble.keys import MemoryKeyStore

from gateway.radio.bumble_subscriptions import KeepingClient
from gateway.radio.pairing import StaleBondError
from gateway.radio.subscriptions import EarlyValues

CONNECT_CANCEL_TIMEOUT_S: Final = 1.0
"""Time limit of the Connection Complete event after a Create Connection Cancel; controllers send it within milliseconds."""


class Central:
    """A Bumble device in the central role. `lost` is set when its controller is gone."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.keys = device.keystore or MemoryKeyStore()
        self.lost = asyncio.Event()
        device.once(device.EVENT_FLUSH, self.lost.set)
        self.early = EarlyValues()
        device.on(device.EVENT_CONNECTION, self._on_connection)
        self._connect_lock = asyncio.Lock()
        self._scan_lock = asyncio.Lock()
        self._open_scans = 0

    def _on_connection(self, connection: Connection) -> None:
        connection.gatt_client = KeepingClient(connection, self.early)

    async def connect(self, address: hci.Address) -> Connection:
        """Wait without a time limit for the peer to advertise, and connect. A controller connects to one peer at a time."""
        self._raise_if_lost()
        async with self._connect_lock:
            if self.device.find_connection_by_bd_addr(address) is not None:
                raise BleakError(f"{address} already has a connection: disconnect its other client first")
            # In a separate task: Bumble loses track of a connection that is established just as its connect is cancelled.
            connecting = asyncio.ensure_future(self.device.connect(address, timeout=None))
            try:
                connection = await asyncio.shield(connecting)
            except asyncio.CancelledError:
                await self._cancel_connect(connecting)
                raise
            if self.device.connections.get(connection.handle) is not connection:
                raise BleakError(f"the connection to {address} was lost as soon as it was established")
            return connection

    async def _cancel_connect(self, connecting: asyncio.Future[Connection]) -> None:
        """Cancel a connect in the controller, which would otherwise keep waiting for the peer and refuse later connections."""
        for _attempt in range(2):  # the first cancel may reach the controller before Bumble's connect command
            if not connecting.done():
                with suppress(hci.HCI_Error):  # no connect is pending: the cancel is too early, or too late
                    await self.device.send_sync_command(hci.HCI_LE_Create_Connection_Cancel_Command())
                await asyncio.wait({connecting}, timeout=CONNECT_CANCEL_TIMEOUT_S)
        connecting.cancel()
        outcome = (await asyncio.gather(connecting, return_exceptions=True))[0]
        if isinstance(outcome, Connection) and self.device.connections.get(outcome.handle) is outcome:
            await outcome.disconnect()

    @asynccontextmanager
    async def scanning(self, on_advertisement: Callable[[Any], None]) -> AsyncIterator[None]:
        """Call `on_advertisement` for each advertisement. The device scans while at least one such context is open."""
        self._raise_if_lost()
        with _listen(self.device, (self.device.EVENT_ADVERTISEMENT,), on_advertisement):
            async with self._scan_lock:
                if self._open_scans == 0:
                    # A cancelled start or stop may have left a scan running, and a second scan cannot start.
                    await self.device.stop_scanning(legacy=True)
                    await self.device.start_scanning(legacy=True)
                self._open_scans += 1
            try:
                yield
            finally:
                async with self._scan_lock:
                    self._open_scans -= 1
                    if self._open_scans == 0 and not self.lost.is_set():
                        await self.device.stop_scanning(legacy=True)

    def _raise_if_lost(self) -> None:
        if self.lost.is_set():
            raise BleakError("the radio was lost: open it again")

    @contextmanager
    def convert_errors(self, action: str, address: str = "") -> Iterator[None]:
        """Convert Bumble's errors to those that bleak documents. `action` begins the message, as in "read 2a37 of C2:…".

        `address` is that of the sensor.
        """
        try:
            yield
        except ATT_Error as error:
            known = error.error_code in set(BleakGATTProtocolErrorCode)
            raise BleakGATTProtocolError(BleakGATTProtocolErrorCode(error.error_code) if known else error.error_code) from error
        except asyncio.CancelledError as error:
            # Bumble cancels the requests to a peer that is gone. A cancellation of the task itself must not be converted.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            reason = "the radio was lost: open it again" if self.lost.is_set() else "the connection was lost"
            raise BleakError(f"{action}: {reason}") from error
        except BumbleTimeoutError as error:
            raise TimeoutError(f"{action}: the sensor does not answer") from error
        except hci.HCI_Error as error:
            if error.error_code == hci.HCI_ErrorCode.PIN_OR_KEY_MISSING_ERROR:
                raise StaleBondError(address) from error
            raise BleakError(f"{action}: {error}") from error
        except BaseBumbleError as error:
            raise BleakError(f"{action}: {error}") from error


@contextmanager
def _listen(device: Device, events: tuple[str, ...], handler: Callable[[Any], None]) -> Iterator[None]:
    for event in events:
        device.on(event, handler)
    try:
        yield
    finally:
        for event in events:
            device.remove_listener(event, handler)
