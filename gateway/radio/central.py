"""What all clients and scanners on one Bumble device share: the device, and the order of what it can do only once at a time."""

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

CANCEL_TIMEOUT_S: Final = 1.0
"""For the Connection Complete event that answers a Create Connection Cancel; a controller sends it within milliseconds."""


class Central:
    """One Bumble device in the central role. `lost` is set when its controller has gone."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.keys = device.keystore or MemoryKeyStore()
        self.lost = asyncio.Event()
        device.once(device.EVENT_FLUSH, self.lost.set)
        self._connecting = asyncio.Lock()
        self._switching_scan = asyncio.Lock()
        self._scans = 0

    async def connect(self, address: hci.Address) -> Connection:
        """Wait for the peer to advertise, as long as it takes, and connect. A controller connects to one peer at a time."""
        self._check()
        async with self._connecting:
            if self.device.find_connection_by_bd_addr(address) is not None:
                raise BleakError(f"{address} already has a connection: disconnect its other client first")
            # In a task of its own: Bumble would not know a connection that comes in the moment its connect is cancelled.
            connecting = asyncio.ensure_future(self.device.connect(address, timeout=None))
            try:
                connection = await asyncio.shield(connecting)
            except asyncio.CancelledError:
                await self._cancel_connect(connecting)
                raise
            if self.device.connections.get(connection.handle) is not connection:
                raise BleakError(f"the connection to {address} was lost as soon as it was made")
            return connection

    async def _cancel_connect(self, connecting: asyncio.Future[Connection]) -> None:
        """Without this the controller goes on waiting for the peer and refuses every later connection."""
        for _attempt in range(2):  # the first may come before Bumble has asked the controller to connect
            if not connecting.done():
                with suppress(hci.HCI_Error):  # nothing is pending: too early, or the connection came first
                    await self.device.send_sync_command(hci.HCI_LE_Create_Connection_Cancel_Command())
                await asyncio.wait({connecting}, timeout=CANCEL_TIMEOUT_S)
        connecting.cancel()
        late = (await asyncio.gather(connecting, return_exceptions=True))[0]
        if isinstance(late, Connection) and self.device.connections.get(late.handle) is late:
            await late.disconnect()

    @asynccontextmanager
    async def scanning(self, on_advertisement: Callable[[Any], None]) -> AsyncIterator[None]:
        """Hear advertisements. The device scans as long as anyone listens."""
        self._check()
        with _listening(self.device, (self.device.EVENT_ADVERTISEMENT,), on_advertisement):
            async with self._switching_scan:
                if self._scans == 0:
                    # A start or stop that was cancelled may have left the scan running, and then no other can start.
                    await self.device.stop_scanning(legacy=True)
                    await self.device.start_scanning(legacy=True)
                self._scans += 1
            try:
                yield
            finally:
                async with self._switching_scan:
                    self._scans -= 1
                    if self._scans == 0 and not self.lost.is_set():
                        await self.device.stop_scanning(legacy=True)

    def _check(self) -> None:
        if self.lost.is_set():
            raise BleakError("the radio has gone: open it again")

    @contextmanager
    def bleak_errors(self, action: str) -> Iterator[None]:
        """Raise Bumble's errors as the ones bleak documents. `action` begins the message, as in "read 2a37 of C2:…"."""
        try:
            yield
        except ATT_Error as error:
            known = error.error_code in set(BleakGATTProtocolErrorCode)
            raise BleakGATTProtocolError(BleakGATTProtocolErrorCode(error.error_code) if known else error.error_code) from error
        except asyncio.CancelledError as error:
            # Bumble cancels what waits for a peer that has gone; a task that was itself cancelled must stay so.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            gone = "the radio has gone: open it again" if self.lost.is_set() else "the connection was lost"
            raise BleakError(f"{action}: {gone}") from error
        except BumbleTimeoutError as error:
            raise TimeoutError(f"{action}: no answer") from error
        except hci.HCI_Error as error:
            if error.error_code == hci.HCI_ErrorCode.PIN_OR_KEY_MISSING_ERROR:
                raise BleakError(f"{action}: the sensor has forgotten the bond (HCI 0x06): unpair and pair again") from error
            raise BleakError(f"{action}: {error}") from error
        except BaseBumbleError as error:
            raise BleakError(f"{action}: {error}") from error


@contextmanager
def _listening(device: Device, events: tuple[str, ...], handler: Callable[[Any], None]) -> Iterator[None]:
    for event in events:
        device.on(event, handler)
    try:
        yield
    finally:
        for event in events:
            device.remove_listener(event, handler)
