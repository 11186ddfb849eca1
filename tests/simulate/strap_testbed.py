"""A virtual strap and a plain Bumble hub, over a virtual link on virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bumble.device import Connection, Device, Peer
from bumble.hci import Address

from gateway.radio.virtual import VirtualLink, make_device
from gateway.simulate import pmd, strap
from gateway.simulate.heart import from_script
from gateway.simulate.journal import Journal
from gateway.simulate.peripherals.peripheral import format_uuid
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.script import load_script

ECG = from_script(load_script("demo"))
RATE, LOCATION, BATTERY, MODEL = "2A37", "2A38", "2A19", "2A24"
START_ECG = bytes.fromhex("02 00 00 01 82 00 01 01 0e 00")
STOP_ECG = bytes.fromhex("03 00")
START_ACC, STOP_ACC = bytes.fromhex("02 02 00 01 19 00 01 01 10 00 02 01 04 00"), bytes.fromhex("03 02")
UNIX_NS = 1_764_000_000 * 10**9
LOOP_ZERO_NS = UNIX_NS - 946_684_800 * 10**9
"""The strap's time when the loop's clock shows 0."""


@dataclass
class Frame:
    """A PMD notification: when it was received, the time of its last sample, its samples."""

    received_s: float
    last_ns: int
    samples: list[int]

    @classmethod
    def parse(cls, received_s: float, payload: bytes) -> "Frame":
        assert payload[0] == 0
        assert payload[9] == 0
        triples = [payload[offset : offset + 3] for offset in range(10, len(payload), 3)]
        samples = [int.from_bytes(triple, "little", signed=True) for triple in triples]
        return cls(received_s, int.from_bytes(payload[1:9], "little"), samples)


@dataclass
class Hub:
    """A plain central, with everything that it received."""

    device: Device
    connection: Connection | None = None
    characteristics: dict[str, Any] = field(default_factory=dict)
    heart_rates: list[tuple[float, bytes]] = field(default_factory=list)
    responses: list[str] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    async def connect(self, mtu: int = 232) -> Connection:
        self.connection = await self.device.connect(Address(strap.ADDRESS))
        peer = Peer(self.connection)
        if mtu > 23:
            await peer.request_mtu(mtu)
        await peer.discover_services()
        await peer.discover_characteristics()
        found = [characteristic for service in peer.services for characteristic in service.characteristics]
        self.characteristics = {format_uuid(characteristic): characteristic for characteristic in found}
        return self.connection

    def __getitem__(self, uuid: str) -> Any:
        return self.characteristics[uuid.upper()]

    async def stream_all(self, mtu: int = 232) -> None:
        """Connect, subscribe to everything, bond, and start the ECG."""
        connection = await self.connect(mtu)
        await self[RATE].subscribe(lambda value: self.heart_rates.append((now_s(), bytes(value))))
        await connection.pair()
        await self.start_ecg()

    async def start_ecg(self) -> None:
        await self[pmd.CONTROL_POINT].subscribe(lambda value: self.responses.append(value.hex(" ")), prefer_notify=False)
        await self[pmd.DATA].subscribe(lambda value: self.frames.append(Frame.parse(now_s(), bytes(value))))
        await self.request(START_ECG)

    async def request(self, request: bytes) -> None:
        await self[pmd.CONTROL_POINT].write_value(request, with_response=True)


@dataclass
class StrapTestbed:
    link: VirtualLink
    strap: Device
    hub: Hub
    running: asyncio.Task[Any]
    sensor: strap.Strap
    journal: Path
    events: list[dict[str, Any]]


def now_s() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def run_testbed(folder: Path) -> AsyncIterator[StrapTestbed]:
    """Run a strap, with a hub in range."""
    link, events = VirtualLink(), list[dict[str, Any]]()
    device, hub = make_device(link, strap.ADDRESS, strap.NAME), make_device(link, "C2:00:00:00:00:02", "hub")
    await device.power_on()
    await hub.power_on()
    with Journal(folder / "strap.jsonl", "test") as journal:
        playback = Playback(ECG, SensorClock.set_to(UNIX_NS, now_s()), journal)
        sensor = strap.Strap(device, playback, lambda event: events.append(dict(event)))
        running = asyncio.create_task(sensor.run())
        try:
            yield StrapTestbed(link, device, Hub(hub), running, sensor, folder / "strap.jsonl", events)
        finally:
            running.cancel()
            await asyncio.wait([running])
