"""The whole agent on virtual time: virtual strap, real Bluetooth stack, real buffer, ingest and store; hours in seconds."""

import asyncio
import json
from pathlib import Path

import cbor2
import numpy as np
import pytest
from bumble.core import UUID

from gateway.models import LoadedModels, load_models
from gateway.simulate import pmd
from gateway.simulate.script import expected, load_script
from gateway.simulate.strap import ADDRESS
from sync.records import (
    AlertRecord,
    GapRecord,
    QuarantinedRecord,
    StatusRecord,
    VitalRecord,
    WaveformRecord,
    pack_samples,
)
from tests.gateway.house import START_US, House, play


@pytest.fixture(scope="module")
def models() -> LoadedModels:
    return load_models()


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
