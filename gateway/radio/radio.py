"""A radio: the only module that creates clients of bleak."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bleak import BleakClient
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.exc import BleakError

from gateway.errors import RadioError
from gateway.radio.health import RadioHealth
from gateway.radio.pairing import Adapter, Bond, NoAdapter, PairingAnswers
from gateway.radio.scanner import SharedScanner
from gateway.radio.stale_bonds import LinkDrops, connect_client
from gateway.radio.subscriptions import PlainSubscriptions, Subscriptions

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 20.0
"""BlueZ itself gives up connecting after 20 s (ConnectionAttemptTimeout); a shorter limit leaves its attempt pending."""


@dataclass(frozen=True)
class Radio:
    """A Bluetooth stack that bleak can use.

    A backend of None means bleak's own for this platform (BlueZ on Linux). `lost` is set when the controller is gone: a
    dongle was unplugged, or the virtual radio server ended. By then every client has seen its disconnection, and a new radio
    must be opened. bleak's own backend never sets it: on Linux `bluez_adapter` does. `connecting` is held during a connect: a
    controller does one at a time. `links` are the addresses of the connected sensors. `hung` is set if the adapter was
    power-cycled before any sensor could connect.
    """

    client_backend: type[BaseBleakClient] | None
    scanner_backend: type[BaseBleakScanner] | None
    name: str
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    adapter: Adapter = field(default_factory=NoAdapter)
    subscriptions: Subscriptions = field(default_factory=PlainSubscriptions)
    drops: LinkDrops = field(default_factory=LinkDrops)
    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    hung: asyncio.Event = field(default_factory=asyncio.Event)
    links: set[str] = field(default_factory=set)
    connects: RadioHealth = field(default_factory=RadioHealth)
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

        def on_end(client: BleakClient) -> None:
            self.links.discard(address)
            on_disconnect(client)

        try:
            client = await connect_client(
                lambda on_drop: self.client(device, on_drop, timeout_s, pair=pair),
                address,
                rssi_dbm,
                self.drops,
                lambda: self.is_bonded(address),
                on_end,
                timeout_s,
            )
        except BleakError as error:
            self.connects.note_failure(error, asyncio.get_running_loop().time())
            raise
        self.connects.note_success()
        self.links.add(address)
        return client

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

    async def recover(self) -> None:
        """Power-cycle the adapter if it hangs, and say so. The radio is lost afterwards."""
        now_s = asyncio.get_running_loop().time()
        if self.lost.is_set() or not any(
            each.is_stuck(now_s, len(self.links)) for each in (self.connects, self.scanner.health)
        ):
            return
        if self.connects.successes == 0:
            self.hung.set()
        self.connects.forget_failures()
        self.scanner.health.forget_failures()
        log.warning("radio: %s refuses everything (it is busy, or not ready): it is switched off and on", self.name)
        try:
            await self.power_cycle()
        except (BleakError, RadioError, TimeoutError) as error:
            log.error(
                "radio: %s could not be switched off and on (%s): restart the hub, or replace the adapter", self.name, error
            )

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
