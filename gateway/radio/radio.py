"""A radio: the only module that creates clients of bleak."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from bleak import BleakClient
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner

from gateway.radio.pairing import Adapter, Bond, NoAdapter, PairingAnswers
from gateway.radio.scanner import SharedScanner
from gateway.radio.stale_bonds import LinkDrops, connect_client
from gateway.radio.subscriptions import PlainSubscriptions, Subscriptions


@dataclass(frozen=True)
class Radio:
    """A Bluetooth stack that bleak can use.

    A backend of None means bleak's own for this platform (BlueZ on Linux). `lost` is set when the controller is gone: a
    dongle was unplugged, or the virtual radio server ended. By then every client has seen its disconnection, and a new radio
    must be opened. bleak's own backend never sets it: on Linux `bluez_adapter` does. `connecting` is held during a connect: a
    controller does one at a time.
    """

    client_backend: type[BaseBleakClient] | None
    scanner_backend: type[BaseBleakScanner] | None
    name: str
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    adapter: Adapter = field(default_factory=NoAdapter)
    subscriptions: Subscriptions = field(default_factory=PlainSubscriptions)
    drops: LinkDrops = field(default_factory=LinkDrops)
    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    scanner: SharedScanner = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scanner", SharedScanner(self.scanner_backend))

    def client(
        self,
        device: BLEDevice | str,
        on_disconnect: Callable[[BleakClient], None],
        timeout_s: float,
        *,
        pair: bool = False,
    ) -> BleakClient:
        """A client for one sensor, not yet connected. `timeout_s` limits the whole of `connect`, discovery included.

        With `pair`, the link is encrypted before the services are discovered.
        """
        return BleakClient(device, on_disconnect, timeout=timeout_s, pair=pair, backend=self.client_backend)

    async def connect(
        self,
        device: BLEDevice,
        on_disconnect: Callable[[BleakClient], None],
        timeout_s: float,
        rssi_dbm: int | None = None,
        *,
        pair: bool = False,
    ) -> BleakClient:
        """Connect to a sensor, and return its client. `rssi_dbm` is the strength of its last advertisement.

        Raises:
            StaleBondError: the sensor has forgotten the bond.
            BleakError, TimeoutError: the connection failed otherwise.
        """
        address = device.address
        return await connect_client(
            lambda on_drop: self.client(device, on_drop, timeout_s, pair=pair),
            address,
            rssi_dbm,
            self.drops,
            lambda: self.is_bonded(address),
            on_disconnect,
            timeout_s,
        )

    async def pair(self, device: BLEDevice, answers: PairingAnswers) -> str:
        """Pair with an advertising sensor, and return its lasting address; see `Adapter.pair`."""
        self.drops.clear(device.address)
        return await self.adapter.pair(device, answers)

    async def unpair(self, address: str) -> bool:
        """Delete the bond with a sensor. Return whether there was one."""
        self.drops.clear(address)
        return await self.adapter.unpair(address)

    async def bonds(self) -> list[Bond]:
        """Return all bonds, ordered by address."""
        return await self.adapter.bonds()

    async def is_bonded(self, address: str) -> bool:
        """Return whether this hub holds a bond with a sensor. The sensor may have forgotten it."""
        return address.upper() in {bond.address for bond in await self.adapter.bonds()}

    async def power_cycle(self) -> None:
        """Switch the adapter off and on: the last step against a controller that hangs. The radio is lost afterwards."""
        await self.adapter.power_cycle()

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
