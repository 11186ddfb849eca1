"""One scanner for all sessions: it scans while somebody listens, and is restarted when it seems dead."""

import asyncio
from typing import Any

from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData

from gateway import virtual_time
from gateway.radio.radio import Radio
from gateway.radio.scanner import DEAD_AFTER_S, SEEN_LIMIT

ADVERTISEMENT = AdvertisementData("strap", {}, {}, [], None, -60, ())


class SilentScanner:
    """A backend that reports what a test tells it to. `running` are those that scan now, `starts` counts all."""

    running: list["SilentScanner"]
    starts: int

    def __init__(self, detection_callback: Any, _service_uuids: Any, _mode: Any, **_arguments: Any) -> None:
        self._callback = detection_callback
        self.seen_devices: dict[str, tuple[BLEDevice, AdvertisementData]] = {}

    def register_detection_callback(self, callback: Any) -> Any:
        self._callback = callback
        return lambda: None

    async def start(self) -> None:
        type(self).starts += 1
        type(self).running.append(self)

    async def stop(self) -> None:
        type(self).running.remove(self)


def make_radio() -> tuple[Radio, type[SilentScanner]]:
    backend = type("Backend", (SilentScanner,), {"running": [], "starts": 0})
    scanner: Any = backend
    return Radio(None, scanner, "made"), backend


def advertise(radio: Radio, address: str) -> None:
    radio.scanner._on_detection(BLEDevice(address, "strap", None), ADVERTISEMENT)


def test_two_searches_share_one_scan_that_ends_with_the_last() -> None:
    async def main() -> None:
        radio, backend = make_radio()
        searches = [asyncio.create_task(radio.find(lambda device, _, a=a: device.address == a, 30)) for a in ("A", "B")]
        await asyncio.sleep(1)
        assert (len(backend.running), backend.starts) == (1, 1)
        advertise(radio, "A")
        first = await searches[0]
        assert first is not None
        assert first.address == "A"
        assert len(backend.running) == 1
        assert await searches[1] is None
        assert backend.running == []

    virtual_time.run(main())


def test_a_scan_that_reports_nothing_for_a_minute_is_started_again() -> None:
    async def main() -> None:
        radio, backend = make_radio()
        async with radio.scanner.listening(lambda *_: None):
            for _ in range(4):
                await asyncio.sleep(DEAD_AFTER_S / 2)
                advertise(radio, "of a stranger")
                await radio.scanner.restart_if_dead()
            assert backend.starts == 1
            await asyncio.sleep(DEAD_AFTER_S + 1)
            await radio.scanner.restart_if_dead()
            assert (backend.starts, len(backend.running), radio.scanner.restarts) == (2, 1, 1)

    virtual_time.run(main())


def test_a_cancelled_search_leaves_no_scan_behind() -> None:
    async def main() -> None:
        radio, backend = make_radio()
        search = asyncio.create_task(radio.find(lambda *_: False, 30))
        await asyncio.sleep(1)
        search.cancel()
        await asyncio.wait([search])
        assert backend.running == []
        again = asyncio.create_task(radio.find(lambda *_: True, 30))
        await asyncio.sleep(1)
        advertise(radio, "A")
        assert await again is not None

    virtual_time.run(main())


def test_devices_that_change_their_address_all_the_time_are_forgotten() -> None:
    async def main() -> None:
        radio, backend = make_radio()
        searching = asyncio.create_task(radio.find(lambda *_: False, 30))
        await asyncio.sleep(1)
        (scanner,) = backend.running
        for number in range(10 * SEEN_LIMIT):  # as bleak's scanners do
            address = f"address {number}"
            scanner.seen_devices[address] = (BLEDevice(address, "strap", None), ADVERTISEMENT)
            advertise(radio, address)
            assert len(scanner.seen_devices) <= SEEN_LIMIT + 1
        await searching

    virtual_time.run(main())
