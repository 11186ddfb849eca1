"""The whole agent on virtual time: virtual strap, real Bluetooth stack, real buffer, ingest and store; hours in seconds."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import cbor2
import numpy as np
import pytest
from bumble.core import UUID
from bumble.device import Device

from cloud.ingest import take
from cloud.store import Store
from config.limits import DEFAULT_LIMITS
from config.settings import ClinicSettings, SensorSettings, Settings
from gateway import virtual_time
from gateway.app import Agent
from gateway.clock import VirtualClock
from gateway.models import LoadedModels, load_models
from gateway.radio import Radio
from gateway.radio.virtual import VirtualLink, make_device, virtual_radio
from gateway.simulate import pmd
from gateway.simulate.audit import Audit, SentFrame, audit
from gateway.simulate.heart import from_script
from gateway.simulate.journal import Journal, read_journal
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.script import expected, load_script
from gateway.simulate.strap import ADDRESS, NAME, Strap
from sync.mqtt import Connected, Event, Message
from sync.records import (
    AlertRecord,
    GapRecord,
    QuarantinedRecord,
    Record,
    StatusRecord,
    VitalRecord,
    WaveformRecord,
    decode,
    pack_samples,
)
from sync.seal import ClinicKeyPair, open_block, parse_header, unwrap_at_clinic
from sync.wire import encode_ack

START_US = 1_800_000_000_000_000
HUB_ADDRESS = "C2:00:00:00:00:01"


class Link:
    """The way to an ingest in the same process: what the broker and the network are in life."""

    def __init__(self, store: Store, carried: list[bytes]) -> None:
        self._store, self._carried = store, carried
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    async def run(self) -> NoReturn:
        self._events.put_nowait(Connected())
        await asyncio.Event().wait()
        raise AssertionError

    async def publish(self, topic: str, payload: bytes) -> None:
        self._carried.append(topic.encode() + payload)
        ack, _ = take(self._store, Message(topic, payload), 0)
        assert ack is not None
        self._events.put_nowait(Message(f"pulsegate/v1/{ack.hub}/down/ack", encode_ack(ack)))

    async def receive(self) -> Event:
        return await self._events.get()


@dataclass
class House:
    """A strap, an agent and a clinic, on one virtual link."""

    folder: Path
    models: LoadedModels
    link: VirtualLink = field(default_factory=VirtualLink)
    clinic: ClinicKeyPair = field(default_factory=ClinicKeyPair.generate)
    carried: list[bytes] = field(default_factory=list)
    """Every MQTT topic and payload."""
    device: Device | None = None
    """The strap's, while there is one."""

    def __post_init__(self) -> None:
        self.clinic.public.save(self.folder / "clinic.pub")
        self.store = Store.open(self.folder / "clinic.db")
        self.settings = Settings(
            "hub-1",
            "subject-1",
            self.folder / "agent",
            "virtual:in-process",
            ClinicSettings("127.0.0.1", 1883, self.folder / "clinic.pub"),
            (SensorSettings("strap", advertised_name="Virtual H10"),),
            DEFAULT_LIMITS.with_values({"repeat_medium": 0}),  # the script has a day's episodes within minutes
        )

    @asynccontextmanager
    async def strap(self) -> AsyncIterator[list[dict[str, Any]]]:
        """A strap in the room, telling what happens to it."""
        loop, told = asyncio.get_running_loop(), list[dict[str, Any]]()
        device = make_device(self.link, ADDRESS, NAME, self.folder / "strap-bonds.json")
        await device.power_on()
        self.device = device
        with Journal(self.folder / "strap.jsonl", f"run-{loop.time():.0f}") as journal:
            clock = SensorClock.set_to((START_US + round(loop.time() * 1e6)) * 1000, loop.time())
            playback = Playback(from_script(load_script("demo")), clock, journal)
            running = asyncio.create_task(Strap(device, playback, lambda event: told.append(dict(event))).run())
            try:
                yield told
            finally:
                running.cancel()
                await asyncio.wait([running])
                self.link.remove(ADDRESS)

    @asynccontextmanager
    async def agent(self, *, crash: bool = False) -> AsyncIterator[None]:
        """A running agent, stopped cleanly or, as `kill -9` does, in the middle of whatever it was doing."""

        @asynccontextmanager
        async def radio(_spec: str, keys: Path) -> AsyncIterator[Radio]:
            async with virtual_radio(self.link, HUB_ADDRESS, keys) as opened:
                yield opened

        clock = VirtualClock(asyncio.get_running_loop(), START_US)
        agent = Agent(self.settings, clock, radio, lambda _: Link(self.store, self.carried), self.models)
        stop = asyncio.Event()
        running = asyncio.create_task(agent.run(stop))
        try:
            yield
        finally:
            if crash:
                self.link.remove(HUB_ADDRESS)
                running.cancel()
            else:
                stop.set()
            await asyncio.wait([running])
        if not crash:
            running.result()

    def records(self) -> list[Record]:
        """Everything the clinic holds, opened."""
        found: list[Record] = []
        for row in self.store.blocks_after(0, 10**9):
            header = parse_header(row.block)
            wrapped = self.store.wrapped_key(row.hub, header.key)
            assert wrapped is not None
            key = unwrap_at_clinic(wrapped, key_id=header.key, hub=row.hub, subject=header.subject, clinic=self.clinic)
            found.extend(decode(open_block(row.block, key)[1]))
        return found

    def audit(self) -> Audit:
        """What the strap sent, against what the clinic holds."""
        frames = read_journal(self.folder / "strap.jsonl").frames
        sent = [SentFrame(frame.last_us, frame.n, frame.samples_crc32) for frame in frames]
        lines = [line for record in self.records() for line in _exported(record)]
        return audit(sent, [*lines, {"type": "account", "duplicate_blocks": 0, "missing_blocks": 0}])


def _exported(record: Record) -> list[dict[str, Any]]:
    match record:
        case WaveformRecord(kind="ecg"):
            crc = zlib.crc32(record.samples.astype("<i4").tobytes())
            at = record.times.at_us
            return [{"type": "waveform", "kind": "ecg", "samples_crc32": crc, "n": len(record.samples), "at_us": at}]
        case GapRecord(kind="ecg"):
            return [{"type": "gap", "kind": "ecg", "from_us": record.from_us, "to_us": record.to_us}]
        case _:
            return []


@pytest.fixture(scope="module")
def models() -> LoadedModels:
    return load_models()


def play(house: House, scenario: Callable[[House], Awaitable[None]]) -> None:
    async def scene() -> None:
        await scenario(house)

    virtual_time.run(scene())
    house.store.close()


def test_five_minutes_of_the_script_are_stored_whole_and_every_episode_is_found(tmp_path: Path, models: LoadedModels) -> None:
    house = House(tmp_path, models)

    async def scenario(house: House) -> None:
        async with house.strap() as told, house.agent():
            await asyncio.sleep(300)
        starts = [event["script_start_us"] for event in told if event["event"] == "streaming"]
        records = house.records()
        alerts = {(record.kind, record.onset_us): record for record in records if isinstance(record, AlertRecord)}
        found = sorted((kind, (onset - starts[0]) / 1e6) for kind, onset in alerts)
        wanted = sorted((episode.kind, episode.onset_s) for episode in expected(load_script("demo"), 295))
        assert [kind for kind, _ in found] == [kind for kind, _ in wanted]
        assert np.allclose([at for _, at in found], [at for _, at in wanted], atol=15)
        audited = house.audit()
        assert audited.passed, audited
        assert audited.samples_in_gaps <= 73
        assert audited.samples_sent > 290 * 130

    play(house, scenario)


def test_link_losses_lose_nothing_without_a_gap_record(tmp_path: Path, models: LoadedModels) -> None:
    house = House(tmp_path, models)

    async def scenario(house: House) -> None:
        rng = np.random.default_rng(5)
        async with house.strap(), house.agent():
            for _ in range(8):
                await asyncio.sleep(float(rng.uniform(5, 25)))
                house.link.link_loss(ADDRESS)
            house.link.out_of_range.add(ADDRESS)
            house.link.link_loss(ADDRESS)
            await asyncio.sleep(40)
            house.link.out_of_range.clear()
            await asyncio.sleep(60)
        audited = house.audit()
        assert audited.passed, audited
        gaps = [record for record in house.records() if isinstance(record, GapRecord) and record.to_us is not None]
        assert len(gaps) == 8
        assert {gap.reason for gap in gaps} == {"the link was lost"}

    play(house, scenario)


def test_a_link_that_is_up_and_dead_is_noticed_and_started_over(tmp_path: Path) -> None:
    house = House(tmp_path, LoadedModels())

    async def scenario(house: House) -> None:
        async with house.strap(), house.agent():
            await asyncio.sleep(20)
            house.link.zombies.add(ADDRESS)
            await asyncio.sleep(12)
            house.link.zombies.clear()
            await asyncio.sleep(30)
        states = [record.value for record in house.records() if isinstance(record, StatusRecord) and record.kind == "link"]
        assert states.index("silent") < len(states) - 1
        assert states[states.index("silent") :].count("streaming") == 1
        assert house.audit().passed

    play(house, scenario)


@pytest.mark.parametrize("moment", [3.0, 11.37, 29.81, 47.2])
def test_an_agent_killed_at_any_moment_accounts_for_every_sample_after_its_restart(tmp_path: Path, moment: float) -> None:
    house = House(tmp_path, LoadedModels())

    async def scenario(house: House) -> None:
        async with house.strap():
            async with house.agent(crash=True):
                await asyncio.sleep(moment)
            await asyncio.sleep(7)
            async with house.agent():
                await asyncio.sleep(30)
        audited = house.audit()
        assert audited.passed, audited
        assert audited.samples_stored > 25 * 130

    play(house, scenario)


def test_a_strap_that_dies_and_comes_back_is_taken_up_again(tmp_path: Path) -> None:
    house = House(tmp_path, LoadedModels())

    async def scenario(house: House) -> None:
        async with house.agent():
            for _ in range(3):
                async with house.strap():
                    await asyncio.sleep(25)
                await asyncio.sleep(6)
        audited = house.audit()
        assert audited.passed, audited
        assert audited.samples_stored > 3 * 15 * 130

    play(house, scenario)


def test_malformed_notifications_are_kept_and_counted_and_nothing_else_is_lost(tmp_path: Path) -> None:
    house = House(tmp_path, LoadedModels())
    malformed = (b"", b"\x00\x01", b"\x07" + bytes(20), b"\x00" + bytes(8) + b"\x00\x01\x02")

    async def scenario(house: House) -> None:
        async with house.strap(), house.agent():
            await asyncio.sleep(20)
            assert house.device is not None
            data = next(a for a in house.device.gatt_server.attributes if a.type == UUID(pmd.DATA))
            for payload in malformed:
                await house.device.notify_subscribers(data, payload)
            await asyncio.sleep(20)
        kept = [record for record in house.records() if isinstance(record, QuarantinedRecord)]
        assert [record.payload for record in kept] == list(malformed)
        assert {record.characteristic for record in kept} == {pmd.DATA.lower()}
        assert house.audit().passed

    play(house, scenario)
    assert json.loads((tmp_path / "agent" / "status.json").read_text())["quarantined"] == len(malformed)


def test_the_status_file_has_counters_and_no_health_value(tmp_path: Path) -> None:
    house = House(tmp_path, LoadedModels())

    async def scenario(house: House) -> None:
        async with house.strap(), house.agent():
            await asyncio.sleep(30)

    play(house, scenario)
    status = json.loads((tmp_path / "agent" / "status.json").read_text())
    assert status["blocks_pending"] == 0
    assert status["blocks_acked"] == status["blocks_stored"] > 30
    assert status["samples_received"] > 25 * 130
    assert not {"heart_rate", "value", "mv", "rr"} & set(status)


def test_no_value_time_or_name_is_in_clear_in_the_buffer_the_log_or_what_is_sent(
    tmp_path: Path, models: LoadedModels, caplog: pytest.LogCaptureFixture
) -> None:
    """What is planted is what the strap really sent; each is looked for in every form that it could have been written in."""
    house = House(tmp_path, models)
    for package in ("gateway", "sync", "drivers", "models", "config"):
        caplog.set_level("DEBUG", logger=package)

    async def scenario(house: House) -> None:
        async with house.strap(), house.agent():
            await asyncio.sleep(60)
            in_use.extend((tmp_path / "agent" / name).read_bytes() for name in ("buffer.db", "buffer.db-wal"))

    in_use: list[bytes] = []
    play(house, scenario)
    records = house.records()
    wave = next(record for record in records if isinstance(record, WaveformRecord))
    alert = next(record for record in records if isinstance(record, AlertRecord))
    rate = next(record for record in records if isinstance(record, VitalRecord) and record.kind == "heart_rate")
    some = wave.samples[20:26]
    planted = {
        "samples as sent": b"".join(int(value).to_bytes(3, "little", signed=True) for value in some),
        "samples as int32": some.astype("<i4").tobytes(),
        "samples as int16": some.astype("<i2").tobytes(),
        "samples as text": ", ".join(str(value) for value in some).encode(),
        "samples packed": pack_samples(wave.samples)[8:40],
        "name": b"Virtual H10",
        "record": b"heart_rate",
        "heart rate": cbor2.dumps("value") + cbor2.dumps(rate.value),
        "kind of alert": cbor2.dumps("kind") + cbor2.dumps(alert.kind),
        **{f"time {number} {order}": number.to_bytes(8, order) for number in _times(wave) for order in ("big", "little")},
        **{f"time {number} as text": str(number).encode() for number in _times(wave)},
    }
    searched = {
        "sent": b"".join(house.carried),
        "log": caplog.text.encode(),
        "in use": b"".join(in_use),
        **{path.name: path.read_bytes() for path in (tmp_path / "agent").iterdir() if path.name != "bonds.json"},
        "clinic.db": (tmp_path / "clinic.db").read_bytes(),
    }
    assert len(searched["sent"]) > 20_000
    assert len(searched["in use"]) > 20_000
    assert [(what, where) for what, needle in planted.items() for where, hay in searched.items() if needle in hay] == []


def _times(wave: WaveformRecord) -> list[int]:
    assert wave.times.sensor_ns is not None
    return [wave.times.at_us, wave.times.arrived_us, wave.times.sensor_ns]


@pytest.mark.parametrize("crash", [True, False])
def test_an_alert_that_was_ongoing_when_the_agent_ended_is_closed(tmp_path: Path, models: LoadedModels, crash: bool) -> None:
    """Nobody watched any more: after a clean stop at once, after a kill at the restart, it ends with the last sample."""
    house = House(tmp_path, models)

    async def scenario(house: House) -> None:
        async with house.strap():
            async with house.agent(crash=crash):
                await asyncio.sleep(48)
            if crash:
                await asyncio.sleep(5)
                async with house.agent():
                    await asyncio.sleep(4)
        records = house.records()
        (raised, ended) = [record for record in records if isinstance(record, AlertRecord) and record.kind == "af"]
        assert (raised.id, raised.onset_us, raised.end_us) == (ended.id, ended.onset_us, None)
        assert ended.end_us is not None
        assert 46e6 < ended.end_us - START_US < 49e6

    play(house, scenario)


def test_pulling_the_radio_while_frames_come_loses_none_without_a_gap_record(tmp_path: Path) -> None:
    house = House(tmp_path, LoadedModels())

    async def scenario(house: House) -> None:
        async with house.strap():
            for moment in (6.1, 9.7, 12.34):
                async with house.agent():
                    await asyncio.sleep(moment)
                await asyncio.sleep(1.5)
        audited = house.audit()
        assert audited.passed, audited
        assert audited.samples_stored > 15 * 130

    play(house, scenario)


def test_refused_models_are_an_alert_at_the_clinic_until_they_run_again(tmp_path: Path) -> None:
    refused = LoadedModels(refused=("model release 5 is older than release 6.",), cause="older")
    house = House(tmp_path, refused)

    async def scenario(house: House) -> None:
        async with house.strap():
            for models in (refused, refused, LoadedModels(release=6), LoadedModels(release=6)):
                house.models = models
                async with house.agent():
                    await asyncio.sleep(8)
                await asyncio.sleep(1)
                status = json.loads((tmp_path / "agent" / "status.json").read_text())
                assert status["models"] == models.status()
        raised, ended = [record for record in house.records() if isinstance(record, AlertRecord)]
        assert (raised.kind, raised.reasons, raised.end_us) == (
            "models_refused",
            ("models_refused.criterion", "models_refused.older"),
            None,
        )
        assert ended.id == raised.id
        assert ended.end_us is not None
        assert 17e6 < ended.end_us - raised.onset_us < 21e6

    play(house, scenario)
