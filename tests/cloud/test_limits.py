"""What a hub sends is limited at the clinic's door, and no query becomes slower as history grows."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, event, select

from cloud import tables
from cloud.api import alert_queries, queries
from cloud.api.alert_queries import ListCursor
from cloud.api.queries import MAX_ECG_SAMPLES
from cloud.block_reader import UNDECODABLE
from cloud.change_log import read_changes, read_end
from cloud.changes import ALERT, BACKLOG, MAX_LIVE, MAX_LIVE_SAMPLES, SENSOR, WAVEFORM, BlockOrigin, Position, SensorKey
from cloud.databases import snapshot
from cloud.projection_statements import MAX_TOTAL
from cloud.projections import MAX_SENSORS, project_records
from cloud.projections_database import reset_projections
from cloud.scope import EVERY_SUBJECT, Scope
from cloud.store import Store
from cloud.validate import MAX_NAME_CHARS, MAX_STRIP_SAMPLES, MAX_TEXT_CHARS, MAX_TIME_US, MAX_WAVEFORM_US, validate_record
from sync.packing import MAX_SAMPLES, pack_samples
from sync.record_codec import decode_records, encode_records
from sync.records import AlertRecord, GapRecord, Record, RecordError, StatusRecord
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.synthetic import RATE_HZ, SCALE, START_US, alert, heart_rate, strip, times, waveform
from tests.databases import ON_BOTH

DATABASES = ON_BOTH

STRAP = SensorKey("subject-1", "hub-1", "strap-1")
GAP = GapRecord("strap-1", "ecg", START_US, START_US + 1, 2**40, "the link was lost")
STRIP = strip(START_US, [0.5], 1.0)


def flat(n: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.zeros(n, np.int32)


AT_THE_LIMIT: dict[str, Record] = {
    "a name": heart_rate(START_US, 60.0, sensor="x" * MAX_NAME_CHARS),
    "a text": replace(GAP, reason="x" * MAX_TEXT_CHARS),
    "a time": heart_rate(MAX_TIME_US - 50_000, 60.0),
    "missing samples": GAP,
    "a long waveform": replace(waveform(START_US, flat(MAX_WAVEFORM_US // 10_000_000)), rate_hz=0.1),
    "a strip": alert(strip=replace(STRIP, samples=flat(MAX_STRIP_SAMPLES))),
    "a rate": replace(waveform(START_US, flat(3)), rate_hz=1e4),
}
BEYOND_THE_LIMIT: dict[str, Record] = {
    "a name": heart_rate(START_US, 60.0, sensor="x" * (MAX_NAME_CHARS + 1)),
    "no name": heart_rate(START_US, 60.0, sensor=""),
    "an id": alert(id="x" * (MAX_NAME_CHARS + 1)),
    "a text": replace(GAP, reason="x" * (MAX_TEXT_CHARS + 1)),
    "a status": StatusRecord("strap-1", "model", times(START_US), "x" * (MAX_TEXT_CHARS + 1)),
    "a time": heart_rate(MAX_TIME_US + 1, 60.0),
    "a time in the past": heart_rate(-MAX_TIME_US - 1, 60.0),
    "an onset": alert(onset_us=MAX_TIME_US + 1, decided_us=START_US),
    "a beat": alert(strip=replace(STRIP, beats_us=(START_US, MAX_TIME_US + 1))),
    "missing samples": replace(GAP, missing=2**62),
    "fewer than no missing samples": replace(GAP, missing=-1),
    "a long waveform": replace(waveform(START_US, flat(MAX_WAVEFORM_US // 10_000_000 + 1)), rate_hz=0.1),
    "a strip": alert(strip=replace(STRIP, samples=flat(MAX_STRIP_SAMPLES + 1))),
    "a rate": replace(waveform(START_US, flat(3)), rate_hz=1e4 + 1),
}


@pytest.mark.parametrize("record", AT_THE_LIMIT.values(), ids=AT_THE_LIMIT)
def test_opens_what_is_at_the_limit(record: Record, store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    hub.send(store, "alert" if isinstance(record, AlertRecord) else "vital", record)
    open_all(store, engine, clinic)
    blocks = queries.read_counters(engine, EVERY_SUBJECT)["blocks"]
    assert (blocks["opened"], blocks["unopened_reasons"]) == (1, {})


@pytest.mark.parametrize("record", BEYOND_THE_LIMIT.values(), ids=BEYOND_THE_LIMIT)
def test_rejects_what_is_beyond_the_limit(record: Record) -> None:
    with pytest.raises(RecordError):
        validate_record(record)


def test_a_block_of_many_samples_is_set_aside(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    """Four flat waveforms of 100,000 samples take 50 kB, and twice the limit when they are unpacked."""
    half = MAX_SAMPLES // 2
    longest = replace(waveform(START_US, flat(half)), rate_hz=1000.0)
    assert len(decode_records(encode_records([longest] * 2))) == 2
    with pytest.raises(RecordError):
        decode_records(encode_records([longest] * 2 + [waveform(START_US, flat(1))]))
    with pytest.raises(RecordError):
        decode_records(encode_records([longest, longest, alert(strip=STRIP)]))
    hub.send(store, "wave", *[longest] * 4)
    hub.send(store, "wave", waveform(START_US, flat(130)))
    open_all(store, engine, clinic)
    with engine.connect() as connection:
        assert connection.scalars(select(tables.unopened.c.reason)).all() == [UNDECODABLE]
    assert queries.read_counters(engine, EVERY_SUBJECT)["samples"] == 130


def test_the_sum_of_gaps_stays_within_what_the_page_can_read(engine: Engine) -> None:
    with engine.begin() as connection:
        for n in range(3):
            gap = replace(GAP, from_us=START_US + n, missing=2**52)
            project_records(connection, origin(n), [gap])
            project_records(connection, replace(origin(n), subject="subject-2", hub="hub-2"), [gap])
    assert [one["missing_samples"] for one in queries.list_sensors(engine, EVERY_SUBJECT)] == [MAX_TOTAL] * 2
    counters = queries.read_counters(engine, EVERY_SUBJECT)
    assert (counters["missing_samples"], counters["gaps"]) == (MAX_TOTAL, 6)


def test_a_hub_that_names_too_many_sensors_is_refused(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    hub.send(store, "vital", *(heart_rate(START_US, 60.0, sensor=f"s{n}") for n in range(MAX_SENSORS)))
    hub.send(store, "vital", heart_rate(START_US, 60.0, sensor="one more"))
    hub.send(store, "vital", heart_rate(START_US, 61.0, sensor="s0"))
    open_all(store, engine, clinic)
    assert len(queries.list_sensors(engine, EVERY_SUBJECT)) == MAX_SENSORS
    blocks = queries.read_counters(engine, EVERY_SUBJECT)["blocks"]
    assert (blocks["opened"], blocks["unopened_reasons"]) == (2, {UNDECODABLE: 1})


def test_what_a_batch_logs_for_viewers_is_limited(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    hub.send(store, "wave", *(waveform(START_US, flat(1000), sensor=f"s{n}") for n in range(MAX_LIVE_SAMPLES // 1000)))
    hub.send(store, "alert", *(alert(onset_us=START_US + n) for n in range(MAX_LIVE[ALERT])))
    open_all(store, engine, clinic)
    assert logged_kinds(engine) == {1: {ALERT: MAX_LIVE[ALERT]}, 2: {WAVEFORM: 30, SENSOR: 30}}
    hub.send(store, "wave", *(waveform(START_US, flat(1001), sensor=f"s{n}") for n in range(MAX_LIVE_SAMPLES // 1000)))
    hub.send(store, "alert", *(alert(onset_us=START_US + n) for n in range(MAX_LIVE[ALERT] + 1)))
    open_all(store, engine, clinic)
    assert [logged_kinds(engine)[batch] for batch in (3, 4)] == [{BACKLOG: 1}] * 2


def logged_kinds(engine: Engine) -> dict[int, Counter[str]]:
    """Count the entries of each kind in the change log, for each batch."""
    found: dict[int, Counter[str]] = defaultdict(Counter)
    with engine.connect() as connection:
        for batch, kind in connection.execute(select(tables.changes.c.batch, tables.changes.c.kind)):
            found[batch][kind] += 1
    return found


def test_an_answer_with_ecg_is_limited(engine: Engine) -> None:
    with engine.begin() as connection:
        for n in range(4):
            wave = replace(waveform(START_US + n * 100_000_000, flat(100_000)), rate_hz=1000.0)
            project_records(connection, origin(n), [wave])
    segments = queries.read_ecg(engine, EVERY_SUBJECT, STRAP, START_US, START_US + 10**9)
    assert sum(len(segment["mv"]) for segment in segments) == MAX_ECG_SAMPLES


def test_finds_a_long_waveform_that_began_before_the_window(engine: Engine) -> None:
    with engine.begin() as connection:
        wave = replace(waveform(START_US, flat(600)), rate_hz=1.0)
        project_records(connection, origin(1), [wave])
    (segment,) = queries.read_ecg(
        engine, EVERY_SUBJECT, STRAP, START_US + MAX_WAVEFORM_US - 2_000_000, START_US + 2 * MAX_WAVEFORM_US
    )
    assert len(segment["mv"]) == 2


def origin(seq: int) -> BlockOrigin:
    return BlockOrigin("subject-1", "hub-1", "wave", Position(1, seq), START_US, is_proven=True)


NEWEST_US = START_US + 10**12


def follow_log(engine: Engine, scope: Scope) -> object:
    with snapshot(engine) as connection:
        return read_changes(connection, scope, read_end(connection))


READS: dict[str, Callable[[Engine, Scope], object]] = {
    "ecg": lambda engine, scope: queries.read_ecg(engine, scope, STRAP, NEWEST_US - 15_000_000, NEWEST_US),
    "vitals": lambda engine, scope: queries.read_vitals(engine, scope, STRAP, "heart_rate", NEWEST_US - 15_000_000, NEWEST_US),
    "sensors": queries.list_sensors,
    "counters": queries.read_counters,
    "patients": alert_queries.list_patients,
    "alerts": lambda engine, scope: alert_queries.list_alerts(engine, scope, ListCursor(NEWEST_US)),
    "changed alerts": lambda engine, scope: alert_queries.list_changed_alerts(engine, scope, 10**6),
    "log": follow_log,
}


@pytest.mark.sqlite_only
@pytest.mark.parametrize("scope", [EVERY_SUBJECT, Scope(frozenset({"subject-1"})), Scope(frozenset({"subject-2"}))], ids=str)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_no_query_becomes_slower_with_history(engine: Engine, read: Callable[[Engine, Scope], object], scope: Scope) -> None:
    """Counted in steps of SQLite's virtual machine, so the result does not depend on the machine."""
    steps = []
    for n in (2_000, 8_000):
        reset_projections(engine)
        fill_history(engine, n)
        steps.append(count_steps(engine, lambda one: read(one, scope)))
    assert steps[1] < 1.2 * steps[0] + 100


def fill_history(engine: Engine, n: int) -> None:
    """Rows as the opener writes them: `n` of each, the newest at `NEWEST_US`, and one ongoing alert."""
    key, position = STRAP._asdict(), {"epoch": 1, "seq": 1}
    of = [NEWEST_US - i * 561_540 for i in range(1, n + 1)]
    wave = {"kind": "ecg", "rate_hz": RATE_HZ, "scale": SCALE, "n": 73, "samples": pack_samples(flat(73)), **position}
    alert_row = {
        **{name: key[name] for name in ("subject", "hub")},
        **{"sensor": "strap-1", "kind": "pause", "priority": "high", "rank": 0, "source": "", "reasons": "[]"},
        **{"epoch": 1, "seq": 1, "first_epoch": 1, "first_seq": 1, "is_proven": True},
    }
    with engine.begin() as connection:
        project_records(connection, origin(1), [heart_rate(NEWEST_US, 60.0), GAP])
        connection.execute(tables.waveforms.insert(), [key | wave | {"start_us": us, "end_us": us + 561_540} for us in of])
        vital = {"kind": "heart_rate", "value": 60.0, "flags": "[]", **position}
        connection.execute(tables.vitals.insert(), [key | vital | {"at_us": us} for us in of])
        closed = {"kind": "ecg", "missing": 1, "reason": "", **position}
        connection.execute(tables.gaps.insert(), [key | closed | {"from_us": us, "to_us": us} for us in of])
        connection.execute(tables.alerts.insert(), [alert_row | alert_times(i, us) for i, us in enumerate(of)])


def alert_times(i: int, at_us: int) -> dict[str, Any]:
    end_us = None if i == 0 else at_us + 1
    times_us = dict.fromkeys(("onset_us", "decided_us", "raised_us", "received_us"), at_us)
    return {"id": str(i), "revision": i, "end_us": end_us} | times_us


def count_steps(engine: Engine, read: Callable[[Engine], object]) -> int:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def watch(connection: Any, *_: object) -> None:
        connection.set_progress_handler(count, 1)

    read(engine)  # compiles its statements
    event.listen(engine, "checkout", watch)
    try:
        read(engine)
    finally:
        event.remove(engine, "checkout", watch)
        with engine.connect() as connection:
            connection.connection.driver_connection.set_progress_handler(None, 1)  # type: ignore[union-attr]
    return steps


def test_counting_the_stored_blocks_reads_only_the_new_ones(store: Store, hub: Hub) -> None:
    for n in (1, 2, 3):
        hub.send(store, "vital", heart_rate(START_US + n, 60.0))
        assert store.count_blocks() == n
        assert store.count_blocks() == n
