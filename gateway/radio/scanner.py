"""The one scanner of a radio, shared by all that look for sensors or listen to their advertisements."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from bleak import BleakScanner
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.exc import BleakBluetoothNotAvailableError, BleakError

from gateway.errors import RadioError
from gateway.radio.health import RadioHealth

OnDetection = Callable[[BLEDevice, AdvertisementData], None]
DEAD_AFTER_S: Final = 60.0
"""A scanner that reports no device of anybody for this long is restarted: bluetoothd sometimes ends a scan for good without a
word, and in a home something advertises every few seconds."""

SEEN_LIMIT: Final = 1_000
"""Devices that bleak may remember, at some 2 kB each. It forgets them only with BlueZ or a new scan, and a device can change
its address with every advertisement."""


class SharedScanner:
    """Scans while somebody listens, and gives each advertisement to all listeners.

    A second scan beside the first fails on BlueZ (`org.bluez.Error.InProgress`), so nothing else of this process may scan.
    """

    def __init__(self, backend: type[BaseBleakScanner] | None) -> None:
        self._backend = backend
        self._listeners: list[OnDetection] = []
        self._scanner: BleakScanner | None = None
        self._lock = asyncio.Lock()
        self._last_detection_s = 0.0
        self.restarts = 0
        self.health = RadioHealth()

    @asynccontextmanager
    async def listening(self, on_detection: OnDetection) -> AsyncIterator[None]:
        """Call `on_detection` for each advertisement.

        Raises:
            BleakError: scanning failed.
            RadioError: there is no Bluetooth on this machine.
        """
        self._listeners.append(on_detection)
        try:
            async with self._lock:
                await self._start()
            yield
        finally:
            self._listeners.remove(on_detection)
            async with self._lock:
                if not self._listeners:
                    await self._stop()

    async def find(self, match: Callable[[BLEDevice, AdvertisementData], bool], timeout_s: float) -> BLEDevice | None:
        """Return the first advertising device that matches, or None if there is none within `timeout_s`. Raises as above."""
        found: asyncio.Future[BLEDevice] = asyncio.get_running_loop().create_future()

        def on_detection(device: BLEDevice, advertisement: AdvertisementData) -> None:
            if not found.done() and match(device, advertisement):
                found.set_result(device)

        async with self.listening(on_detection):
            await asyncio.wait({found}, timeout=timeout_s)
        return found.result() if found.done() else None

    async def restart_if_dead(self) -> None:
        """Start the scan again if it has reported nothing for a long time. Raises as `listening` does."""
        async with self._lock:
            await self._start()

    async def _start(self) -> None:
        """Start the scan, or start it again if it is dead."""
        now_s = asyncio.get_running_loop().time()
        if self._scanner is not None and (now_s - self._last_detection_s > DEAD_AFTER_S):
            self.restarts += 1
            await self._stop()
        if self._scanner is None:
            scanner = BleakScanner(self._on_detection, backend=self._backend)
            try:
                async with converting_errors():
                    await scanner.start()
            except BleakError as error:
                self.health.note_failure(error, now_s)
                raise
            self.health.note_success()
            self._scanner, self._last_detection_s = scanner, now_s

    async def _stop(self) -> None:
        scanner, self._scanner = self._scanner, None
        if scanner is not None:
            # A scan that the stack has already ended cannot be stopped, and a new one starts all the same.
            with suppress(BleakError, RadioError, OSError, EOFError):
                async with converting_errors():
                    await scanner.stop()

    def _on_detection(self, device: BLEDevice, advertisement: AdvertisementData) -> None:
        self._last_detection_s = asyncio.get_running_loop().time()
        if self._scanner is not None and len(seen := self._scanner._backend.seen_devices) > SEEN_LIMIT:
            seen.clear()  # bleak has no public function for this, and makes the devices anew
        for listener in tuple(self._listeners):
            listener(device, advertisement)


@asynccontextmanager
async def converting_errors() -> AsyncIterator[None]:
    """Convert bleak's errors on a machine without Bluetooth, so they differ from those of a sensor that is out of range.

    Raises:
        RadioError: there is no Bluetooth service (bleak's backend cannot reach its bus), or no adapter.
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
