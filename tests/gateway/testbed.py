"""The testbed of the whole agent: a virtual strap, an agent and a clinic on one virtual link, on virtual time."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bumble.device import Device

from benchmarks.in_process_clinic import ClinicConnection
from cloud.folder import ClinicFolder
from cloud.ingest import handle_message
from cloud.key_store import KeyStore
from cloud.register import RegistrationRequest, register_hub
from cloud.registry import Registry
from cloud.signing_keys import SigningKeys
from cloud.store import Store
from config.endpoint import Endpoint
from config.limits import DEFAULT_LIMITS
from config.settings import ClinicSettings, SensorSettings, Settings
from gateway import virtual_time
from gateway.app import Agent
from gateway.models import LoadedModels
from gateway.radio import Radio
from gateway.radio.virtual import VirtualLink, make_device, open_in_process_radio
from gateway.simulate.audit import Audit, SentFrame, audit
from gateway.simulate.heart import from_script
from gateway.simulate.journal import Journal, read_journal
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.script import load_script
from gateway.simulate.strap import ADDRESS, NAME, Strap
from gateway.startup import COMMAND_PUBLIC_FILE, DEVICE_PUBLIC_FILE, load_command_key, load_device_key
from sync.chain import block_digest
from sync.data_keys import unwrap_key
from sync.keys import HubKey
from sync.message_rows import Held
from sync.messages import Receipt, decode_envelope, encode_receipt
from sync.mqtt import Message
from sync.record_codec import decode_records
from sync.records import GapRecord, Record, WaveformRecord
from sync.registration import Registration
from sync.seal import open_block, parse_header
from sync.wire import ack_topic, receipt_topic, status_topic

START_US = 1_800_000_000_000_000
START_S = START_US // 1_000_000
HUB = "hub-1"
HUB_ADDRESS = "C2:00:00:00:00:01"


class Clinic:
    """The clinic's ingest and store, and the hub's registration. Its opener is replaced by receipts for every block."""

    def __init__(self, folder: Path) -> None:
        self._folder = ClinicFolder(folder / "clinic")
        self._registration = folder / "registration.toml"
        self._hub_key, self._command_key = (folder / "agent" / name for name in (DEVICE_PUBLIC_FILE, COMMAND_PUBLIC_FILE))
        self.register("subject-1")
        self.keys, self._signing = KeyStore(self._folder.keys), SigningKeys.load(self._folder.path)
        self.store = Store.open(self._folder.blocks)

    def register(self, subject: str, from_s: int = START_S) -> Registration:
        """Assign the hub to a subject, and bring it the new registration."""
        request = RegistrationRequest(HUB, self._hub_key, subject, from_s, 24, self._command_key)
        registration = register_hub(self._folder, request, START_S)
        registration.save(self._registration)
        self._registry = Registry(self._folder.hubs, lambda: 0.0)
        return registration

    def answer(self, message: Message) -> list[Message]:
        """Commit a message; returns the acknowledgement and the receipt, or what answers a status."""
        keys = self._signing
        payload, _, _ = handle_message(
            self.store, self._registry, keys.acknowledgement, message, START_US, audit_key=keys.audit.public
        )
        if message.topic == status_topic(HUB):
            return [] if payload is None else [Message(ack_topic(HUB), payload)]
        assert payload is not None
        envelope, identity = decode_envelope(message.payload).envelope, self.store.identity()
        headers = [(parse_header(block), block_digest(block)) for block in envelope.blocks]
        opened = [Held(row.lane, row.epoch, row.seq, (digest,)) for row, digest in headers if row.lane != "wave"]
        receipt = encode_receipt(Receipt(HUB, identity.id, identity.fence, tuple(opened)), self._signing.receipt)
        return [Message(ack_topic(HUB), payload), Message(receipt_topic(HUB), receipt)]

    def open_blocks(self) -> list[tuple[str, bytes]]:
        """The subjects and plaintexts of all stored blocks, by epoch and lane."""
        opened: list[tuple[str, bytes]] = []
        for row in self.store.blocks_after(None, 10**9):
            statement = self.store.key_statement(HUB, row.key)
            wraps = [(wrapped, self.keys.recipient(wrapped.recipient)) for wrapped in self.store.wrapped_keys(HUB, row.key)]
            assert statement is not None
            key = next(unwrap_key(wrapped, statement, hub=HUB, recipient=pair) for wrapped, pair in wraps if pair)
            opened.append((statement.subject, open_block(row.block, key)[1]))
        return opened

    def stored_bytes(self) -> bytes:
        """All bytes of the database of sealed blocks."""
        return (self._folder.path / "blocks.db").read_bytes()


class InProcessTransport(ClinicConnection):
    """Delivers messages to the clinic in the same process, and records them."""

    def __init__(self, clinic: Clinic, sent_messages: list[bytes]) -> None:
        super().__init__(clinic.answer)
        self._sent_messages = sent_messages

    async def publish(self, topic: str, payload: bytes) -> None:
        self._sent_messages.append(topic.encode() + payload)
        await super().publish(topic, payload)


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
    hub_key: HubKey | None = None
    """The hub key, where it does not lie in a plain file."""

    def __post_init__(self) -> None:
        data = self.folder / "agent"
        data.mkdir(exist_ok=True)
        load_device_key(data)
        load_command_key(data)
        self.clinic = Clinic(self.folder)
        self.settings = Settings(
            HUB,
            "subject-1",
            data,
            "virtual:in-process",
            ClinicSettings(Endpoint("127.0.0.1", 1883), self.folder / "registration.toml"),
            (SensorSettings("strap", advertised_name="Virtual H10"),),
            DEFAULT_LIMITS.with_values({"repeat_medium": 0}),  # the script has a day's episodes within minutes
            upload="all",
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
            playback = Playback(from_script(load_script("demo")), clock, journal)
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
            self.settings,
            clock,
            open_radio,
            lambda _: self.transport_type(self.clinic, self.sent_messages),
            self.models,
            hub_key=self.hub_key,
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
        opened = self.clinic.open_blocks()
        return [(subject, record) for subject, plaintext in opened for record in decode_records(plaintext)]

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
    """Runs a scenario on virtual time and closes the clinic's store."""

    async def main() -> None:
        await scenario(testbed)

    virtual_time.run(main())
    testbed.clinic.store.close()
