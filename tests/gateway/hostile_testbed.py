"""A hub with an honest strap and a sensor that attacks it, on one virtual link and virtual time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from bumble.att import Attribute
from bumble.core import UUID, AdvertisingData
from bumble.device import Connection, Device
from bumble.gatt import Characteristic, Service

from config.settings import SensorSettings
from drivers.conversation import Consent
from drivers.registry import Registry, load_drivers
from gateway import virtual_time
from gateway.clock import VirtualClock
from gateway.link_states import LinkState
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink, make_device, open_in_process_radio
from gateway.sensor_events import EventQueue, LinkStateChange, Notification, SensorEvent
from gateway.session import SensorSession

HONEST = "C0:DE:00:00:00:02"
ATTACKER = "C0:DE:00:00:00:66"
TASKS_LIMIT = 40
"""Tasks of two sessions, the virtual radio and the sensors: some 20."""
START_US = 1_800_000_000_000_000
PROPERTIES = Characteristic.Properties
NOTIFY = PROPERTIES.NOTIFY | PROPERTIES.INDICATE
NO_ACCESS = Attribute.Permissions(0)

Serve = Callable[["Attacker", Connection], Awaitable[None]]


def uuid16(number: int) -> UUID:
    return UUID.from_16_bits(number)


def stream(number: int) -> Characteristic:
    """A characteristic that notifies and indicates."""
    return Characteristic(uuid16(number), NOTIFY, NO_ACCESS, b"")


def readable(number: int, value: Any) -> Characteristic:
    return Characteristic(uuid16(number), PROPERTIES.READ, Attribute.READABLE, value)


async def do_nothing(_attacker: "Attacker", _connection: Connection) -> None:
    """Serve a connection without an attack."""


@dataclass
class Attacker:
    """A sensor with these services; `serve` runs during each connection, a failure of it ends with the connection."""

    services: list[Service]
    serve: Serve = do_nothing
    name: bytes = b"attacker"
    link: VirtualLink = field(init=False)
    device: Device = field(init=False)
    connections: int = 0
    """Connections so far."""
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, link: VirtualLink) -> None:
        self.link, self.device = link, make_device(link, ATTACKER, "attacker")
        self.device.add_services(self.services)
        self.device.advertising_data = bytes(AdvertisingData([(AdvertisingData.COMPLETE_LOCAL_NAME, self.name)]))
        self.device.on(Device.EVENT_CONNECTION, self._on_connection)
        await self.device.power_on()
        await self.device.start_advertising(auto_restart=True)

    def _on_connection(self, connection: Connection) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._serve(connection))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        connection.on(Connection.EVENT_DISCONNECTION, lambda _reason: task.cancel())

    async def _serve(self, connection: Connection) -> None:
        await self.serve(self, connection)

    def characteristic(self, number: int) -> Characteristic:
        found: Characteristic = next(
            each for service in self.services for each in service.characteristics if each.uuid == uuid16(number)
        )
        return found


async def wait_subscribed(attacker: Attacker, connection: Connection, number: int) -> Characteristic:
    """Wait until the hub has subscribed."""
    characteristic = attacker.characteristic(number)
    while attacker.device.gatt_server.read_cccd(connection, characteristic) == bytes(2):
        await asyncio.sleep(0.05)
    return characteristic


@dataclass
class Side:
    """One sensor's session, and what came from it."""

    session: SensorSession
    events: list[SensorEvent] = field(default_factory=list)
    arrivals_s: list[float] = field(default_factory=list)
    """When each of its values arrived."""
    states: list[LinkState] = field(default_factory=list)

    def take(self, event: SensorEvent) -> bool:
        """Take an event at once, as a fast pipeline does."""
        if isinstance(event, Notification):
            self.arrivals_s.append(asyncio.get_running_loop().time())
        if isinstance(event, LinkStateChange):
            self.states.append(event.state)
        self.events.append(event)
        return True

    @property
    def notifications(self) -> list[Notification]:
        return [event for event in self.events if isinstance(event, Notification)]


@dataclass
class Outcome:
    """What the hub did with both sensors."""

    honest: Side
    attacker: Side
    tasks: int
    """Tasks at the end of the run, while both sessions ran."""
    bonds: list[str]
    """The addresses that the hub was paired with at the end."""

    def assert_honest_unharmed(self, seconds: float, *, from_s: float = 5.0) -> None:
        """The honest strap's pulse arrived every second from `from_s` on, and its session did not end."""
        assert self.honest.states.count("backing_off") == 0
        at_s = [each for each in self.honest.arrivals_s if each >= from_s]
        assert len(at_s) >= seconds - from_s - 2
        longest = max(after - before for before, after in pairwise(at_s))
        assert longest < 1.5, f"the honest strap was silent for {longest:.2f} s"


async def _beat(device: Device, rate: Characteristic) -> None:
    while True:
        await device.notify_subscribers(rate, bytes([0, 60]))
        await asyncio.sleep(1)


def _make_side(name: str, radio: Any, address: str, registry: Registry, consent: Consent | None) -> Side:
    clock = VirtualClock(asyncio.get_running_loop(), START_US)
    session = SensorSession(
        SensorSettings(name, address=address), radio, registry, clock, lambda *_: None, EventQueue(), consent=consent
    )
    side = Side(session)
    session.events.take = side.take
    return side


def attack(
    attacker: Attacker,
    seconds: float,
    *,
    latency_s: float = 0.0,
    honest_first: bool = True,
    mtu: int = 517,
    consent: Consent | None = None,
) -> Outcome:
    """Run the hub for some virtual seconds."""

    async def main() -> Outcome:
        link = VirtualLink()
        link.latency_s = latency_s
        strap = make_device(link, HONEST, "honest")
        rate = stream(0x2A37)
        strap.add_services([Service(uuid16(0x180D), [rate])])
        strap.advertising_data = bytes(AdvertisingData([(AdvertisingData.COMPLETE_LOCAL_NAME, b"honest")]))
        await strap.power_on()
        await strap.start_advertising(auto_restart=True)
        beating = asyncio.ensure_future(_beat(strap, rate))
        await attacker.start(link)
        attacker.device.gatt_server.max_mtu = mtu
        async with open_in_process_radio(link, VIRTUAL_HUB_ADDRESS) as radio:
            registry = load_drivers()
            honest, hostile = (
                _make_side(name, radio, address, registry, consent)
                for name, address in (("honest", HONEST), ("attacker", ATTACKER))
            )
            first, second = (honest, hostile) if honest_first else (hostile, honest)
            running = [asyncio.ensure_future(first.session.run())]
            await asyncio.sleep(2 if honest_first else 0)
            running.append(asyncio.ensure_future(second.session.run()))
            await asyncio.sleep(seconds)
            assert not any(task.done() for task in running), "a session ended"
            tasks = len(asyncio.all_tasks())
            bonds = [bond.address for bond in await radio.bonds()]
            for task in (*running, beating):
                task.cancel()
            await asyncio.wait(running)
        for address in (HONEST, ATTACKER):
            link.remove_device(address)
        return Outcome(honest, hostile, tasks, bonds)

    return virtual_time.run(main())


def warnings_of(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]


async def flood(attacker: Attacker, connection: Connection, number: int, payload: bytes, count: int, per_s: float) -> None:
    characteristic = await wait_subscribed(attacker, connection, number)
    for sent in range(count):
        await attacker.device.notify_subscriber(connection, characteristic, payload)
        if sent % 100 == 99:
            await asyncio.sleep(100 / per_s)
