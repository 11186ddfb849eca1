"""A radio: the only module that creates clients of bleak."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from bleak import BleakClient
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner

from gateway.radio.scanner import SharedScanner


@dataclass(frozen=True)
class Radio:
    """A Bluetooth stack that bleak can use.

    A backend of None means bleak's own for this platform (BlueZ on Linux). `lost` is set when the controller is gone: a
    dongle was unplugged, or the virtual radio server ended. By then every client has seen its disconnection, and a new radio
    must be opened. bleak's own backend never sets it. `connecting` is held during a connect: a controller does one at a time.
    """

    client_backend: type[BaseBleakClient] | None
    scanner_backend: type[BaseBleakScanner] | None
    name: str
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    scanner: SharedScanner = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scanner", SharedScanner(self.scanner_backend))

    def client(self, device: BLEDevice | str, on_disconnect: Callable[[BleakClient], None], timeout_s: float) -> BleakClient:
        """A client for one sensor, not yet connected. `timeout_s` limits the whole of `connect`, discovery included."""
        return BleakClient(device, on_disconnect, timeout=timeout_s, backend=self.client_backend)

    async def find(self, match: Callable[[BLEDevice, AdvertisementData], bool], timeout_s: float) -> BLEDevice | None:
        """Return the first advertising device that matches; see `SharedScanner.find`."""
        return await self.scanner.find(match, timeout_s)

    async def scan(self, seconds: float) -> list[tuple[BLEDevice, AdvertisementData]]:
        """Return every device that advertises within `seconds`, with its last advertisement.

        Raises:
            BleakError: scanning failed.
            RadioError: there is no Bluetooth on this machine.
        """
        seen: dict[str, tuple[BLEDevice, AdvertisementData]] = {}

        def on_detection(device: BLEDevice, advertisement: AdvertisementData) -> None:
            seen[device.address] = (device, advertisement)

        async with self.scanner.listening(on_detection):
            await asyncio.sleep(seconds)
        return list(seen.values())
