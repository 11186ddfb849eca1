"""The testbed of the whole agent: a virtual strap, an agent and a clinic on one virtual link, on virtual time."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from bumble.device import Device

from config.limits import DEFAULT_LIMITS
from config.settings import ClinicSettings, SensorSettings, Settings
from gateway import virtual_time
from gateway.app import Agent
from gateway.models import LoadedModels
from gateway.radio import Radio
from gateway.radio.virtual import VirtualLink, make_device, open_in_process_radio
from gateway.simulate.audit import Audit, SentFrame, audit
from gateway.simulate.journal import Journal, read_journal
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.repeating_ecg import ecg_from_script
from gateway.simulate.script import load_script
from gateway.simulate.strap import ADDRESS, NAME, Strap
from sync.mqtt import Connected, Message, MqttEvent
from sync.records import (
    GapRecord,
    Record,
    WaveformRecord,
    decode_records,
)
from sync.signing import SigningKey, Use
from sync.wire import ack_topic, receipt_topic
from tests.fake_clinic import FakeClinic

START_US = 1_800_000_000_000_000
HUB_ADDRESS = "C2:00:00:00:00:01"


class InProcessTransport:
    """Delivers messages to a clinic in the same process, in place of the broker and the network. It opens blocks at once."""

    def __init__(self, clinic: FakeClinic, sent_messages: list[bytes]) -> None:
        self._clinic, self._sent_messages = clinic, sent_messages
        self._events: asyncio.Queue[MqttEvent] = asyncio.Queue()

    async def run(self) -> NoReturn:
        self._events.put_nowait(Connected())
        await asyncio.Event().wait()
        raise AssertionError

    async def publish(self, topic: str, payload: bytes) -> None:
        self._sent_messages.append(topic.encode() + payload)
        clinic = self._clinic
        ack = clinic.encode(clinic.commit(Message(topic, payload)))
        self._events.put_nowait(Message(ack_topic(clinic.hub), ack))
        self._events.put_nowait(Message(receipt_topic(clinic.hub), clinic.encode_receipt()))

    async def receive(self) -> MqttEvent:
        return await self._events.get()


@dataclass
class AdjustableClock:
    """The event loop's time; the wall clock can be set to another time."""

    loop: asyncio.AbstractEventLoop
    testbed: "Testbed"

    def mono_ns(self) -> int:
        return round(self.loop.time() * 1e9)

    def wall_us(self) -> int:
        return START_US + round(self.loop.time() * 1e6) + self.testbed.wall_step_us


@dataclass
class Testbed:
    """A strap, an agent and a clinic on one virtual link."""

    __test__ = False  # otherwise pytest collects the class because of its name

    folder: Path
    models: LoadedModels
    link: VirtualLink = field(default_factory=VirtualLink)
    sent_messages: list[bytes] = field(default_factory=list)
    """The topic and payload of every MQTT message."""
    device: Device | None = None
    """The Bluetooth device of the strap while it is running."""
    wall_step_us: int = 0
    """By how much the hub's wall clock was set since the start."""
    transport_type: type[InProcessTransport] = InProcessTransport

    def __post_init__(self) -> None:
        data = self.folder / "agent"
        data.mkdir(exist_ok=True)
        device = SigningKey.load_or_create(data / "device.key", Use.DEVICE)
        self.clinic = FakeClinic("hub-1", device.public)
        self.clinic.registration.save(self.folder / "registration.toml")
        self.settings = Settings(
            "hub-1",
            "subject-1",
            data,
            "virtual:in-process",
            ClinicSettings("127.0.0.1", 1883, self.folder / "registration.toml"),
            (SensorSettings("strap", advertised_name="Virtual H10"),),
            DEFAULT_LIMITS.with_values({"repeat_medium": 0}),  # the script has a day's episodes within minutes
        )

    @asynccontextmanager
    async def strap(self) -> AsyncIterator[list[dict[str, Any]]]:
        """Runs a strap that plays the demo's script; yields the list of the events that it reports."""
        loop, events = asyncio.get_running_loop(), list[dict[str, Any]]()
        device = make_device(self.link, ADDRESS, NAME, self.folder / "strap-bonds.json")
        await device.power_on()
        self.device = device
        with Journal(self.folder / "strap.jsonl", f"run-{loop.time():.0f}") as journal:
            clock = SensorClock.set_to((START_US + round(loop.time() * 1e6)) * 1000, loop.time())
            playback = Playback(ecg_from_script(load_script("demo")), clock, journal)
            running = asyncio.create_task(Strap(device, playback, lambda event: events.append(dict(event))).run())
            try:
                yield events
            finally:
                running.cancel()
                await asyncio.wait([running])
                self.link.remove_device(ADDRESS)

    @asynccontextmanager
    async def agent(self, *, crash: bool = False) -> AsyncIterator[None]:
        """Runs an agent. At the end it is stopped cleanly or, with `crash`, at an arbitrary point as by `kill -9`."""

        @asynccontextmanager
        async def open_radio(_spec: str, keys: Path) -> AsyncIterator[Radio]:
            async with open_in_process_radio(self.link, HUB_ADDRESS, keys) as radio:
                yield radio

        clock = AdjustableClock(asyncio.get_running_loop(), self)
        agent = Agent(
            self.settings, clock, open_radio, lambda _: self.transport_type(self.clinic, self.sent_messages), self.models
        )
        stop = asyncio.Event()
        running = asyncio.create_task(agent.run(stop))
        try:
            yield
        finally:
            if crash:
                self.link.remove_device(HUB_ADDRESS)
                running.cancel()
            else:
                stop.set()
            await asyncio.wait([running])
        if not crash:
            running.result()

    def records(self, subject: str | None = None) -> list[Record]:
        """All records that the clinic has stored, or those of one subject, decrypted."""
        return [record for owner, record in self.records_by_subject() if subject in (None, owner)]

    def records_by_subject(self) -> list[tuple[str, Record]]:
        """All records that the clinic has stored, ordered by epoch and lane, each with the subject that it was sealed for."""
        found: list[tuple[str, Record]] = []
        for id_ in sorted(self.clinic.blocks, key=lambda id_: (id_.epoch, id_.lane, id_.seq)):
            subject, plaintext = self.clinic.open(id_)
            found += [(subject, record) for record in decode_records(plaintext)]
        return found

    def audit(self) -> Audit:
        """Compares what the strap sent with what the clinic has stored."""
        frames = read_journal(self.folder / "strap.jsonl").frames
        sent = [SentFrame(frame.last_us, frame.n, frame.samples_crc32) for frame in frames]
        lines = [line for record in self.records() for line in _export_lines(record)]
        return audit(sent, [*lines, {"type": "account", "duplicate_blocks": 0, "missing_blocks": 0}])


def _export_lines(record: Record) -> list[dict[str, Any]]:
    match record:
        case WaveformRecord(kind="ecg"):
            crc = zlib.crc32(record.samples.astype("<i4").tobytes())
            at = record.times.at_us
            return [{"type": "waveform", "kind": "ecg", "samples_crc32": crc, "n": len(record.samples), "at_us": at}]
        case GapRecord(kind="ecg"):
            return [{"type": "gap", "kind": "ecg", "from_us": record.from_us, "to_us": record.to_us}]
        case _:
            return []


def run_scenario(testbed: Testbed, scenario: Callable[[Testbed], Awaitable[None]]) -> None:
    """Runs a scenario on virtual time."""

    async def main() -> None:
        await scenario(testbed)

    virtual_time.run(main())
