"""The alert that the buffer is nearly full: raised once, ended once, across restarts, and what is stored meanwhile."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cloud.validate import validate_record
from gateway import virtual_time
from gateway.buffer_alert import BUFFER_CALM_S, BUFFER_STATE_KEY, BufferAlert
from gateway.clock import VirtualClock
from gateway.recorder import COMMIT_INTERVAL_S, Recorder
from sync.errors import TransientError
from sync.record_codec import decode_records, encode_records
from sync.records import AlertRecord, GapRecord, Times, VitalRecord
from sync.wire import Lane
from tests.gateway.list_outbox import ListOutbox, call_inline

START_US = 1_800_000_000_000_000
CALM_S = round(BUFFER_CALM_S)


class ManualClock:
    def __init__(self) -> None:
        self.second = 0.0
        self.wall_step_us = 0

    def mono_ns(self) -> int:
        return round(self.second * 1e9)

    def wall_us(self) -> int:
        return START_US + self.wall_step_us + round(self.second * 1e6)


def changes(fullness: Mapping[float, bool], saved: Mapping[str, Any] | None = None) -> list[tuple[float, AlertRecord]]:
    """The alerts that follow from what the buffer said at these seconds."""
    clock = ManualClock()
    alert = BufferAlert(clock, saved)
    found: list[tuple[float, AlertRecord]] = []
    for clock.second, is_nearly_full in fullness.items():
        found += [(clock.second, record) for record in alert.update(is_nearly_full=is_nearly_full)]
    return found


class TestAlert:
    def test_is_raised_once_and_ended_after_ten_minutes_with_room(self) -> None:
        fullness = {10.0 * step: 3 <= step < 9 for step in range(200)}
        (raised_s, raised), (ended_s, ended) = changes(fullness)
        assert (raised_s, ended_s) == (30, 80 + CALM_S)
        assert (raised.kind, raised.sensor, raised.priority) == ("buffer_nearly_full", "hub", "low")
        assert (raised.source, raised.reasons) == ("rule:buffer_nearly_full", ("buffer_nearly_full.criterion",))
        assert (raised.onset_us, raised.end_us) == (START_US + 30_000_000, None)
        assert (ended.id, ended.onset_us, ended.reasons) == (raised.id, raised.onset_us, raised.reasons)
        assert ended.end_us == ended.decided_us == START_US + (80 + CALM_S) * 1_000_000

    def test_a_buffer_that_swings_around_its_limit_leaves_one_alert(self) -> None:
        fullness = {5.0 * step: step % 100 == 0 for step in range(1001)}
        assert [second for second, _ in changes(fullness)] == [0]

    def test_stays_ongoing_across_a_restart(self) -> None:
        clock = ManualClock()
        before = BufferAlert(clock)
        (raised,) = before.update(is_nearly_full=True)
        saved = json.loads(json.dumps(before.state()))
        assert BufferAlert(clock, saved).is_ongoing
        assert changes({0: True, 10: True}, saved) == []
        ((ended_s, ended),) = changes({10: False, CALM_S - 1: False, CALM_S: False}, saved)
        assert (ended_s, ended.id, ended.onset_us) == (CALM_S, raised.id, raised.onset_us)

    def test_a_state_without_an_alert_restores_none(self) -> None:
        assert not BufferAlert(ManualClock(), {"alert": None}).is_ongoing
        assert not BufferAlert(ManualClock(), BufferAlert(ManualClock()).state()).is_ongoing

    def test_the_end_is_not_before_the_onset_when_the_clock_is_set_back(self) -> None:
        clock = ManualClock()
        alert = BufferAlert(clock)
        (raised,) = alert.update(is_nearly_full=True)
        clock.second, clock.wall_step_us = CALM_S, -3_600_000_000
        (ended,) = alert.update(is_nearly_full=False)
        assert ended.end_us == raised.onset_us

    def test_passes_the_validation_of_the_clinic(self) -> None:
        ((_, raised),) = changes({0: True})
        (read,) = decode_records(encode_records([raised]))
        validate_record(read)
        assert read == raised


class FillingOutbox(ListOutbox):
    """An outbox that is nearly full for some of the time, and may refuse alerts."""

    refuses_alerts = False

    def put_many(self, blocks: Iterable[tuple[Lane, bytes]], state: Mapping[str, bytes] | None = None) -> list[object]:
        blocks = list(blocks)
        if self.refuses_alerts and any(lane == "alert" for lane, _ in blocks):
            raise TransientError("disk full")
        return super().put_many(blocks, state)

    def alerts(self) -> list[AlertRecord]:
        return [record for record in self.records() if isinstance(record, AlertRecord)]


async def run_recorder(outbox: FillingOutbox, script: Mapping[float, bool], until_s: float, values_until_s: float) -> Recorder:
    """Records a heart rate every second; `script` gives from when on the buffer is nearly full or has room."""
    clock = VirtualClock(asyncio.get_running_loop(), START_US)
    saved = json.loads(outbox.states.get(BUFFER_STATE_KEY, b"null"))
    recorder = Recorder(outbox, call_inline, lambda: None, BufferAlert(clock, saved))
    running = asyncio.create_task(recorder.run())
    for second in range(round(until_s)):
        outbox.is_nearly_full = script.get(second, outbox.is_nearly_full)
        if second < values_until_s:
            at_us = clock.wall_us()
            await recorder.add((VitalRecord("strap", "heart_rate", Times(at_us, at_us, 0), 60.0),), {})
        await asyncio.sleep(1)
    running.cancel()
    await asyncio.wait([running])
    return recorder


def test_while_the_buffer_is_nearly_full_one_value_a_minute_is_stored() -> None:
    outbox = FillingOutbox()
    recorder = virtual_time.run(run_recorder(outbox, {95: True, 395: False}, 1300, 1300))
    seconds = [(record.times.at_us - START_US) / 1e6 for record in outbox.records() if isinstance(record, VitalRecord)]
    raised, ended = outbox.alerts()
    assert raised.end_us is None
    assert ended.end_us is not None
    raised_s, ended_s = (raised.onset_us - START_US) / 1e6, (ended.end_us - START_US) / 1e6
    assert 95 <= raised_s <= 95 + COMMIT_INTERVAL_S
    assert 395 + CALM_S - COMMIT_INTERVAL_S <= ended_s <= 395 + CALM_S + COMMIT_INTERVAL_S
    assert [second for second in seconds if second < raised_s] == list(range(int(raised_s)))
    thinned = [second for second in seconds if raised_s < second < ended_s]
    assert all(later - earlier == 60 for earlier, later in pairwise(thinned))
    assert len(thinned) == pytest.approx((ended_s - raised_s) / 60, abs=1.5)
    assert seconds[-100:] == list(range(1200, 1300))
    gaps = [record for record in outbox.records() if isinstance(record, GapRecord)]
    assert [gap.missing for gap in gaps] == [None] * len(thinned)
    assert recorder.counters.values_left_out == 59 * len(thinned)
    assert (recorder.counters.alerts, recorder.counters.gaps) == (1, 0)


def test_the_alert_and_its_state_are_durable_at_once_and_survive_a_restart() -> None:
    outbox = FillingOutbox()
    virtual_time.run(run_recorder(outbox, {0: True}, 2, 2))
    (raised,) = outbox.alerts()
    assert json.loads(outbox.states[BUFFER_STATE_KEY])["alert"]["id"] == raised.id
    virtual_time.run(run_recorder(outbox, {0: True}, 100, 100))
    assert outbox.alerts() == [raised]
    virtual_time.run(run_recorder(outbox, {0: False}, CALM_S + 60, CALM_S + 60))
    assert [alert.id for alert in outbox.alerts()] == [raised.id] * 2
    assert json.loads(outbox.states[BUFFER_STATE_KEY]) == {"alert": None}


def test_the_alert_ends_while_no_sensor_sends() -> None:
    outbox = FillingOutbox()
    virtual_time.run(run_recorder(outbox, {0: True, 60: False}, CALM_S + 120, values_until_s=30))
    assert len(outbox.alerts()) == 2


def test_an_alert_that_a_full_disk_refuses_is_stored_later_and_once() -> None:
    outbox = FillingOutbox()

    async def main() -> None:
        clock = VirtualClock(asyncio.get_running_loop(), START_US)
        recorder = Recorder(outbox, call_inline, lambda: None, BufferAlert(clock))
        outbox.is_nearly_full = True
        await recorder.add((VitalRecord("strap", "heart_rate", Times(1, 1, 1), 60.0),), {})
        outbox.refuses_alerts = True
        assert not await recorder.flush()
        assert outbox.alerts() == []
        outbox.refuses_alerts = False
        assert await recorder.flush()
        assert await recorder.flush()

    virtual_time.run(main())
    assert len(outbox.alerts()) == 1


def test_the_texts_name_no_limit_that_the_alert_does_not_measure() -> None:
    folder = Path(__file__).parents[2] / "cloud" / "page" / "static" / "lang"
    for language in ("en", "de", "fr", "es"):
        texts = json.loads((folder / f"{language}.json").read_text(encoding="utf-8"))
        assert "{" not in texts["reason"]["buffer_nearly_full.criterion"]
