"""The whole agent on virtual time, with a virtual strap and the real Bluetooth stack, buffer, ingest and store."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import cbor2
import numpy as np
import pytest
from bumble.core import UUID

from gateway.alerts import ORGANISED_REASON, SIGNAL_LOST_REASON
from gateway.models import LoadedModels, load_models
from gateway.recorder import COMMIT_INTERVAL_S
from gateway.simulate import pmd
from gateway.simulate.script import expected_episodes, load_script
from gateway.simulate.strap import ADDRESS
from sync.packing import pack_samples
from sync.records import AlertRecord, GapRecord, QuarantinedRecord, StatusRecord, VitalRecord, WaveformRecord
from tests.gateway.testbed import START_US, Testbed, run_scenario


@pytest.fixture(scope="module")
def models() -> LoadedModels:
    return load_models()


def test_stores_five_minutes_of_the_script_and_detects_every_episode(tmp_path: Path, models: LoadedModels) -> None:
    testbed = Testbed(tmp_path, models)

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap() as events, testbed.agent():
            await asyncio.sleep(300)
        starts = [event["script_start_us"] for event in events if event["event"] == "streaming"]
        records = testbed.records()
        alerts = {(record.kind, record.onset_us): record for record in records if isinstance(record, AlertRecord)}
        found = sorted((kind, (onset - starts[0]) / 1e6) for kind, onset in alerts)
        wanted = sorted((episode.kind, episode.onset_s) for episode in expected_episodes(load_script("demo"), 295))
        assert [kind for kind, _ in found] == [kind for kind, _ in wanted]
        assert np.allclose([at for _, at in found], [at for _, at in wanted], atol=15)
        audited = testbed.audit()
        assert audited.passed, audited
        assert audited.samples_in_gaps <= 73
        assert audited.samples_sent > 290 * 130

    run_scenario(testbed, scenario)


def test_every_link_loss_leaves_a_gap_record(tmp_path: Path, models: LoadedModels) -> None:
    testbed = Testbed(tmp_path, models)

    async def scenario(testbed: Testbed) -> None:
        rng = np.random.default_rng(5)
        async with testbed.strap(), testbed.agent():
            for _ in range(8):
                await asyncio.sleep(float(rng.uniform(5, 25)))
                testbed.link.simulate_link_loss(ADDRESS)
            testbed.link.out_of_range.add(ADDRESS)
            testbed.link.simulate_link_loss(ADDRESS)
            await asyncio.sleep(40)
            testbed.link.out_of_range.clear()
            await asyncio.sleep(60)
        audited = testbed.audit()
        assert audited.passed, audited
        gaps = [record for record in testbed.records() if isinstance(record, GapRecord) and record.to_us is not None]
        assert Counter(gap.kind for gap in gaps) == {"ecg": 8, "heart_rate": 8, "rr": 8}
        assert {gap.reason for gap in gaps} == {"the link was lost"}

    run_scenario(testbed, scenario)


def test_reconnects_a_link_that_is_up_but_dead(tmp_path: Path) -> None:
    testbed = Testbed(tmp_path, LoadedModels())

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(20)
            testbed.link.zombies.add(ADDRESS)
            await asyncio.sleep(12)
            testbed.link.zombies.clear()
            await asyncio.sleep(60)  # a connect that begins before may run into its limit of 20 s, and a pause of 15 s follows
        states = [record.value for record in testbed.records() if isinstance(record, StatusRecord) and record.kind == "link"]
        assert states.index("silent") < len(states) - 1
        assert states[states.index("silent") :].count("streaming") == 1
        assert testbed.audit().passed

    run_scenario(testbed, scenario)


@pytest.mark.parametrize("moment_s", [3.0, 11.37, 29.81, 47.2])
def test_accounts_for_every_sample_after_a_kill_at_any_moment(tmp_path: Path, moment_s: float) -> None:
    testbed = Testbed(tmp_path, LoadedModels())

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap():
            async with testbed.agent(crash=True):
                await asyncio.sleep(moment_s)
            await asyncio.sleep(7)
            async with testbed.agent():
                await asyncio.sleep(30)
        audited = testbed.audit()
        assert audited.passed, audited
        assert audited.samples_stored > 25 * 130
        assert audited.samples_in_gaps < (COMMIT_INTERVAL_S + 7 + 5) * 130  # of the kill, the pause and the new connection

    run_scenario(testbed, scenario)


def test_reconnects_a_strap_that_was_switched_off(tmp_path: Path) -> None:
    testbed = Testbed(tmp_path, LoadedModels())

    async def scenario(testbed: Testbed) -> None:
        async with testbed.agent():
            for _ in range(3):
                async with testbed.strap():
                    await asyncio.sleep(25)
                await asyncio.sleep(6)
        audited = testbed.audit()
        assert audited.passed, audited
        assert audited.samples_stored > 3 * 15 * 130

    run_scenario(testbed, scenario)


def test_stores_and_counts_malformed_notifications_and_loses_nothing_else(tmp_path: Path) -> None:
    testbed = Testbed(tmp_path, LoadedModels())
    malformed = (b"", b"\x00\x01", b"\x07" + bytes(20), b"\x00" + bytes(8) + b"\x00\x01\x02")

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(20)
            assert testbed.device is not None
            data = next(a for a in testbed.device.gatt_server.attributes if a.type == UUID(pmd.DATA))
            for payload in malformed:
                await testbed.device.notify_subscribers(data, payload)
            await asyncio.sleep(20)
        quarantined = [record for record in testbed.records() if isinstance(record, QuarantinedRecord)]
        assert [record.payload for record in quarantined] == list(malformed)
        assert {record.characteristic for record in quarantined} == {pmd.DATA.lower()}
        assert testbed.audit().passed

    run_scenario(testbed, scenario)
    assert json.loads((tmp_path / "agent" / "status.json").read_text())["quarantined"] == len(malformed)


def test_the_status_file_contains_counters_but_no_health_values(tmp_path: Path) -> None:
    testbed = Testbed(tmp_path, LoadedModels())

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(30)

    run_scenario(testbed, scenario)
    status = json.loads((tmp_path / "agent" / "status.json").read_text())
    assert status["blocks_pending"] == 0
    assert status["blocks_acked"] == status["blocks_stored"] >= 2 * 30 / COMMIT_INTERVAL_S  # in two lanes
    assert status["samples_received"] > 25 * 130
    assert not {"heart_rate", "value", "mv", "rr"} & set(status)


def test_buffer_log_and_messages_contain_no_plaintext_value_time_or_name(
    tmp_path: Path, models: LoadedModels, caplog: pytest.LogCaptureFixture
) -> None:
    """Searches for readings that the strap really sent, in every form in which they could have been written."""
    testbed = Testbed(tmp_path, models)
    for package in ("gateway", "sync", "drivers", "models", "config"):
        caplog.set_level("DEBUG", logger=package)

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(60)
            files_while_running.extend((tmp_path / "agent" / name).read_bytes() for name in ("buffer.db", "buffer.db-wal"))

    files_while_running: list[bytes] = []
    run_scenario(testbed, scenario)
    records = testbed.records()
    wave = next(record for record in records if isinstance(record, WaveformRecord))
    alert = next(record for record in records if isinstance(record, AlertRecord))
    rate = next(record for record in records if isinstance(record, VitalRecord) and record.kind == "heart_rate")
    excerpt = wave.samples[20:26]
    secrets = {
        "samples as sent": b"".join(int(value).to_bytes(3, "little", signed=True) for value in excerpt),
        "samples as int32": excerpt.astype("<i4").tobytes(),
        "samples as int16": excerpt.astype("<i2").tobytes(),
        "samples as text": ", ".join(str(value) for value in excerpt).encode(),
        "samples packed": pack_samples(wave.samples)[8:40],
        "name": b"Virtual H10",
        "record": b"heart_rate",
        "heart rate": cbor2.dumps("value") + cbor2.dumps(rate.value),
        "kind of alert": cbor2.dumps("kind") + cbor2.dumps(alert.kind),
        **{f"time {number} {order}": number.to_bytes(8, order) for number in _times(wave) for order in ("big", "little")},
        **{f"time {number} as text": str(number).encode() for number in _times(wave)},
    }
    searched = {
        "sent": b"".join(testbed.sent_messages),
        "log": caplog.text.encode(),
        "files while running": b"".join(files_while_running),
        **{path.name: path.read_bytes() for path in (tmp_path / "agent").iterdir() if path.name != "bonds.json"},
        "clinic's store": testbed.clinic.stored_bytes(),
    }
    assert len(searched["sent"]) > 20_000
    assert len(searched["files while running"]) > 20_000
    assert [(what, where) for what, secret in secrets.items() for where, data in searched.items() if secret in data] == []


def _times(wave: WaveformRecord) -> list[int]:
    assert wave.times.sensor_ns is not None
    return [wave.times.at_us, wave.times.arrived_us, wave.times.sensor_ns]


@pytest.mark.parametrize("crash", [True, False])
def test_closes_an_alert_that_was_ongoing_when_the_agent_ended(tmp_path: Path, models: LoadedModels, crash: bool) -> None:
    """The alert ends at the last stored sample. A clean stop closes it immediately; after a kill, the restart closes it."""
    testbed = Testbed(tmp_path, models)

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap():
            async with testbed.agent(crash=crash):
                await asyncio.sleep(48)
            if crash:
                await asyncio.sleep(5)
                async with testbed.agent():
                    await asyncio.sleep(4)
        records = testbed.records()
        (raised, ended) = [record for record in records if isinstance(record, AlertRecord) and record.kind == "af"]
        assert (raised.id, raised.onset_us, raised.end_us) == (ended.id, ended.onset_us, None)
        assert ended.end_us is not None
        earliest_s = 48 - 2 - (COMMIT_INTERVAL_S if crash else 0)
        assert earliest_s * 1e6 < ended.end_us - START_US < 49e6

    run_scenario(testbed, scenario)


def test_an_alert_of_high_priority_outlasts_a_kill(tmp_path: Path) -> None:
    """The agent is killed in the pause of the script, 80 s after its start; after the restart the rhythm is sinus."""
    testbed = Testbed(tmp_path, LoadedModels())

    def pauses() -> list[AlertRecord]:
        return [record for record in testbed.records() if isinstance(record, AlertRecord) and record.kind == "pause"]

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap():
            async with testbed.agent(crash=True):
                await asyncio.sleep(82)
                while not pauses():
                    await asyncio.sleep(0.2)
            await asyncio.sleep(5)
            async with testbed.agent():
                await asyncio.sleep(25)
                last = pauses()[-1]
                assert (last.end_us, last.priority, last.reasons[-1]) == (None, "high", SIGNAL_LOST_REASON)
                await asyncio.sleep(25)
        raised, lost, ended = pauses()
        assert {raised.id, lost.id, ended.id} == {raised.id}
        assert (raised.end_us, raised.reasons, ended.priority) == (None, ("pause.criterion",), "high")
        assert ended.reasons[-1] == ORGANISED_REASON
        assert ended.end_us is not None
        assert ended.end_us - lost.decided_us >= 25e6

    run_scenario(testbed, scenario)


def test_stopping_the_agent_while_frames_arrive_leaves_gap_records_for_the_loss(tmp_path: Path) -> None:
    testbed = Testbed(tmp_path, LoadedModels())

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap():
            for moment_s in (6.1, 9.7, 12.34):
                async with testbed.agent():
                    await asyncio.sleep(moment_s)
                await asyncio.sleep(1.5)
        audited = testbed.audit()
        assert audited.passed, audited
        assert audited.samples_stored > 15 * 130

    run_scenario(testbed, scenario)


def test_refused_models_are_an_ongoing_alert_until_models_run_again(tmp_path: Path) -> None:
    refused = LoadedModels(refused=("model release 5 is older than release 6.",), cause="older")
    testbed = Testbed(tmp_path, refused)

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap():
            for models in (refused, refused, LoadedModels(release=6), LoadedModels(release=6)):
                testbed.models = models
                async with testbed.agent():
                    await asyncio.sleep(8)
                await asyncio.sleep(1)
                status = json.loads((tmp_path / "agent" / "status.json").read_text())
                assert status["models"] == models.status()
        raised, ended = [record for record in testbed.records() if isinstance(record, AlertRecord)]
        assert (raised.kind, raised.reasons, raised.end_us) == (
            "models_refused",
            ("models_refused.criterion", "models_refused.older"),
            None,
        )
        assert ended.id == raised.id
        assert ended.end_us is not None
        assert 17e6 < ended.end_us - raised.onset_us < 21e6

    run_scenario(testbed, scenario)
