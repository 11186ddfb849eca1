"""The one place that chooses a Bluetooth stack and calls bleak with it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bleak import BleakClient, BleakScanner
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.exc import BleakBluetoothNotAvailableError

VIRTUAL_HUB_ADDRESS: Final = "C2:00:00:00:00:01"
"""The hub's static random address on the virtual radio. It is always the same, so that bonds outlive a restart."""


class RadioError(Exception):
    """The Bluetooth stack can't be used. The message says why and what to do."""


@dataclass(frozen=True)
class Radio:
    """A Bluetooth stack that bleak can use.

    A backend of None means bleak's own for this platform (BlueZ on Linux). `lost` is set when the controller has gone (a
    pulled dongle, the end of a virtual radio): every client has then seen its disconnection, and only a newly opened radio
    works again. bleak's own backend never sets it.
    """

    client_backend: type[BaseBleakClient] | None
    scanner_backend: type[BaseBleakScanner] | None
    name: str
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    def client(self, device: BLEDevice | str, on_disconnect: Callable[[BleakClient], None], timeout_s: float) -> BleakClient:
        """A client for one sensor, not yet connected. `timeout_s` limits the whole of `connect`, discovery included."""
        return BleakClient(device, on_disconnect, timeout=timeout_s, backend=self.client_backend)

    async def find(self, match: Callable[[BLEDevice, AdvertisementData], bool], timeout_s: float) -> BLEDevice | None:
        """The first advertising device that matches, or None when there was none in `timeout_s`. Raises BleakError."""
        found: asyncio.Future[BLEDevice] = asyncio.get_running_loop().create_future()

        def detected(device: BLEDevice, advertisement: AdvertisementData) -> None:
            if not found.done() and match(device, advertisement):
                found.set_result(device)

        async with _bluetooth(), BleakScanner(detected, backend=self.scanner_backend):
            await asyncio.wait({found}, timeout=timeout_s)
        return found.result() if found.done() else None

    async def scan(self, seconds: float) -> list[tuple[BLEDevice, AdvertisementData]]:
        """Every device that advertises within `seconds`, with its last advertisement. Raises BleakError."""
        async with _bluetooth(), BleakScanner(backend=self.scanner_backend) as scanner:
            await asyncio.sleep(seconds)
        return list(scanner.discovered_devices_and_advertisement_data.values())


@asynccontextmanager
async def _bluetooth() -> AsyncIterator[None]:
    """Tells a machine without Bluetooth from a sensor that is not there.

    Raises:
        RadioError: there is no Bluetooth service (bleak's backend does not reach its bus), or no adapter.
    """
    try:
        yield
    except BleakBluetoothNotAvailableError as error:
        raise RadioError(f"Bluetooth cannot be used ({error}): plug in or switch on an adapter") from error
    except TimeoutError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise RadioError(
            f"no Bluetooth service answers ({reason}): install and start bluez (systemctl start bluetooth)"
        ) from error


def bleak_radio() -> Radio:
    """The Bluetooth adapter of this machine."""
    return Radio(None, None, "bluetooth")


@asynccontextmanager
async def open_radio(spec: str, keys: Path | None = None) -> AsyncIterator[Radio]:
    """Open `bluetooth`, the adapter of this machine, or `virtual:PATH`, the virtual radio at that socket.

    The operating system keeps the bonds of the adapter; those of the virtual radio lie in the file `keys`, or in memory.
    Raises RadioError.
    """
    kind, _, path = spec.partition(":")
    if spec == "bluetooth":
        yield bleak_radio()
    elif kind == "virtual" and path:
        async with _virtual_radio(Path(path), spec, keys) as radio:
            yield radio
    else:
        raise RadioError(f"unknown radio {spec!r}: use 'bluetooth' or 'virtual:PATH'")


@asynccontextmanager
async def _virtual_radio(socket: Path, name: str, keys: Path | None) -> AsyncIterator[Radio]:
    try:
        from gateway.radio.air import open_device  # noqa: PLC0415  a patient's hub has no Bumble
        from gateway.radio.bumble_backend import radio_on  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise RadioError(f"the virtual radio needs {error.name}: pip install 'pulsegate[sim]'") from error
    async with open_device(socket, VIRTUAL_HUB_ADDRESS, "pulsegate", keys) as device:
        yield radio_on(device, name)
