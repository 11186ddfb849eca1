"""The upload policy: what is sent of a day of ECG, and what stays on the hub."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.completeness import read_completeness
from cloud.export import ExportTotals, _add_block
from config.settings import UPLOAD_POLICIES, UploadPolicy
from gateway import app, virtual_time
from gateway.buffer_alert import BufferAlert
from gateway.models import LoadedModels
from gateway.recorder import Recorder
from gateway.upload import WaveformUpload
from sync.outbox import Outbox
from sync.record_codec import decode_records
from sync.records import AlertRecord, GapRecord, Times, VitalRecord, WaveformRecord
from sync.uplink import Uplink
from sync.wire import Lane
from tests.gateway.testbed import START_S, Testbed

HOUR_S = 3600


def wave(at_s: float, sensor: str = "strap", kind: str = "ecg") -> WaveformRecord:
    at_us = round(at_s * 1e6)
    return WaveformRecord(sensor, kind, Times(at_us, at_us, 0), 130.0, 0.001, np.zeros(73, np.int32))


def sent_seconds(policy: UploadPolicy, *, hours: int, is_live: bool = False) -> float:
    upload = WaveformUpload(policy)
    records = [wave(0.5 * HOUR_S + n * 73 / 130) for n in range(round(hours * HOUR_S * 130 / 73))]
    return sum(73 / 130 for record in records if upload.lane(record, is_live=is_live) == "wave")


def test_how_much_of_three_hours_is_sent() -> None:
    assert sent_seconds("all", hours=3) == pytest.approx(3 * HOUR_S, abs=1)
    assert sent_seconds("evidence", hours=3) == pytest.approx(4 * 12, abs=4 * 0.6)  # four hours of the clock
    assert sent_seconds("none", hours=3) == 0
    assert sent_seconds("evidence", hours=1, is_live=True) == pytest.approx(HOUR_S, abs=1)
    assert sent_seconds("none", hours=1, is_live=True) == 0


def test_each_waveform_has_its_own_strip() -> None:
    upload = WaveformUpload("evidence")
    for record in (wave(0), wave(0, kind="ppg"), wave(0, sensor="watch")):
        lanes = [upload.lane(record, is_live=False) for _ in range(40)]
        assert lanes == ["wave"] * 22 + ["archive"] * 18


class Blocks:
    """An outbox that keeps what it is given."""

    is_nearly_full = False

    def __init__(self) -> None:
        self.lanes: dict[Lane, list[object]] = {}

    def put_many(self, blocks: Iterable[tuple[Lane, bytes]], _state: Mapping[str, bytes] | None = None) -> list[object]:
        for lane, plaintext in blocks:
            self.lanes.setdefault(lane, []).extend(decode_records(plaintext))
        return []


class StoppedClock:
    def mono_ns(self) -> int:
        return 0

    def wall_us(self) -> int:
        return 0


@pytest.mark.parametrize("policy", UPLOAD_POLICIES)
def test_vital_signs_alerts_and_gaps_are_always_sent(policy: UploadPolicy) -> None:
    outbox = Blocks()

    async def call(function, *arguments):
        return function(*arguments)

    async def record() -> None:
        recorder = Recorder(outbox, call, lambda: None, BufferAlert(StoppedClock()), upload=WaveformUpload(policy))
        alert = AlertRecord("a", "strap", "af", "medium", 0, None, 0, "model", ("af.criterion",))
        gap = GapRecord("strap", "ecg", 0, 5, 3, "the link was lost")
        await recorder.add([VitalRecord("strap", "heart_rate", Times(0, 0, 0), 60.0), gap, alert], {})
        await recorder.add([wave(n) for n in range(60)], {})
        await recorder.flush()

    asyncio.run(record())
    counts = Counter({lane: len(records) for lane, records in outbox.lanes.items()})
    waves = {"all": (61, 0), "evidence": (23, 38), "none": (1, 60)}[policy]
    assert (counts["vital"], counts["alert"], counts["wave"], counts["archive"]) == (1, 1, *waves)


def test_the_clinic_gets_a_stretch_that_it_requests_and_misses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole agent and clinic, with the policy `none`."""
    uplinks: list[Uplink] = []

    def make_uplink(outbox: Outbox, *arguments: Any, **options: Any) -> Uplink:
        uplinks.append(Uplink(outbox, *arguments, **options))
        return uplinks[-1]

    monkeypatch.setattr(app, "Uplink", make_uplink)

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(60)
            assert waves(testbed) == []
            (uplink,) = uplinks
            start_s = START_S + round(asyncio.get_running_loop().time()) - 60
            released = uplink._outbox.release_archive("subject-1", start_s + 15, start_s - 35)
            assert 1 <= released < uplink._outbox._database.rows("SELECT count(*) FROM blocks_archive")[0][0]
            uplink.send_archive()
            await asyncio.sleep(5)

    testbed = Testbed(tmp_path, LoadedModels())
    testbed.settings = replace(testbed.settings, upload="none")

    async def main() -> None:
        await scenario(testbed)

    virtual_time.run(main())
    records = testbed.records()
    assert any(isinstance(record, VitalRecord) for record in records)
    assert any(isinstance(record, AlertRecord | GapRecord) for record in records)
    assert waves(testbed)
    totals = ExportTotals()
    with testbed.clinic.store.transaction() as connection:
        totals.completeness = read_completeness(connection)
    for block in testbed.clinic.store.blocks_after(None, 10**9):
        _add_block(totals, block)
    assert totals.completeness.dropped  # the blocks before the stretch
    assert (totals.completeness.missing(), totals.completeness.lost()) == ([], [])
    testbed.clinic.store.close()


def waves(testbed: Testbed) -> list[WaveformRecord]:
    return [record for record in testbed.records() if isinstance(record, WaveformRecord)]
