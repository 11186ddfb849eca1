"""The opener projects every block exactly once. Blocks that cannot be read are recorded and do not stop the others."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, func, select

from cloud import tables, work
from cloud.api import queries
from cloud.block_reader import DAMAGED, NO_KEY, UNDECODABLE
from cloud.changes import AlertKey, SensorKey
from cloud.projections_database import open_projections, reset_projections
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from sync.cbor import encode_cbor
from sync.errors import TransientError
from sync.record_codec import encode_records
from sync.records import FindingRecord, GapRecord, IntervalsRecord, QuarantinedRecord, SpotOrigin, StatusRecord, VitalRecord
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.synthetic import START_US, alert, counts, ecg_mv, find_alert, heart_rate, strip, times, waveform
from tests.databases import ON_BOTH
from tests.sync.record_vectors import change

DATABASES = ON_BOTH

STRAP = SensorKey("subject-1", "hub-1", "strap-1")


def rows(engine: Engine, table: object) -> list[dict[str, object]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]  # type: ignore[call-overload]


def all_rows(engine: Engine) -> dict[str, list[dict[str, object]]]:
    """Every row, without the numbers that the database gave them."""
    found = {table.name: rows(engine, table) for table in tables.metadata.sorted_tables}
    for table in (tables.waveforms, tables.vitals, tables.intervals, tables.beats, tables.findings):
        for row in found[table.name]:
            del row["id"]
    for row in found["changes"]:
        del row["row"]
    return found


def heart_rates(engine: Engine) -> list[float]:
    vitals = queries.read_vitals(engine, EVERY_SUBJECT, STRAP, "heart_rate", 0, 2 * START_US)["vitals"]
    return [vital["value"] for vital in vitals]


def send_one_of_each(hub: Hub, store: Store) -> None:
    samples = counts(ecg_mv([0.5], 1.0))
    hub.send(store, "wave", waveform(START_US, samples), heart_rate(START_US, 72.0))
    hub.send(store, "vital", IntervalsRecord("strap-1", "rr", times(START_US), (853, 861)))
    hub.send(store, "vital", StatusRecord("strap-1", "battery", times(START_US), 87))
    hub.send(store, "wave", GapRecord("strap-1", "ecg", START_US + 1_000_000, None, None, "the link was lost"))
    hub.send(store, "vital", FindingRecord("strap-1", "af", START_US, None, "rr_af@1", None, "too few beats"))
    hub.send(store, "vital", QuarantinedRecord("strap-1", "2a37", times(START_US), b"\x00", "too short"))
    hub.send(store, "alert", alert(strip=strip(START_US, [0.5, 1.3], 2.0)))


def test_projects_every_kind_of_record(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    send_one_of_each(hub, store)
    open_all(store, engine, clinic)
    assert [row["id"] for row in rows(engine, tables.alerts)] == [f"tachycardia-{START_US}"]
    (sensor,) = queries.list_sensors(engine, EVERY_SUBJECT)
    assert sensor["samples"] == 130
    assert sensor["battery_percent"] == 87
    assert sensor["undecodable"] == 1
    assert sensor["gap_since_us"] == START_US + 1_000_000
    assert sensor["gap_reason"] == "the link was lost"
    assert [row["ticks"] for row in rows(engine, tables.intervals)] == ["[853, 861]"]
    assert [row["inconclusive"] for row in rows(engine, tables.findings)] == ["too few beats"]
    assert queries.read_counters(engine, EVERY_SUBJECT)["blocks"] == {"opened": 7, "unopened": 0, "unopened_reasons": {}}


def test_a_second_run_changes_nothing(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    send_one_of_each(hub, store)
    open_all(store, engine, clinic)
    before = all_rows(engine)
    assert open_all(store, engine, clinic) == []
    assert all_rows(engine) == before


def test_a_rebuild_gives_the_same_projections(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    send_one_of_each(hub, store)
    open_all(store, engine, clinic)
    before = all_rows(engine)
    reset_projections(engine)
    assert rows(engine, tables.alerts) == []
    open_all(store, engine, clinic)
    after = all_rows(engine)
    assert after.pop("source")[0]["id"] != before.pop("source")[0]["id"]
    assert after == before


def test_opens_alerts_before_waves(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    for second in range(100):
        hub.send(store, "wave", waveform(START_US + second * 1_000_000, counts(ecg_mv([0.5], 1.0))))
    hub.send(store, "alert", alert())
    assert clinic.opener(store, engine).open_batch() == 1
    assert (len(rows(engine, tables.alerts)), rows(engine, tables.waveforms)) == (1, [])


def test_an_alert_update_keeps_the_first_decision_time_and_the_strip(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic
) -> None:
    first = alert(strip=strip(START_US, [0.5, 1.3], 2.0))
    hub.send(store, "alert", first)
    hub.send(store, "alert", replace(first, priority="high", end_us=START_US + 9, decided_us=first.decided_us + 5, strip=None))
    open_all(store, engine, clinic)
    found = find_alert(engine, AlertKey("subject-1", "hub-1", first.id))
    assert found is not None
    assert (found["priority"], found["end_us"], found["decided_us"]) == ("high", START_US + 9, first.decided_us)
    assert found["strip"]["beats_us"] == [START_US + 500_000, START_US + 1_300_000]
    assert found["revision"] == 2


def test_an_older_alert_record_that_arrives_late_does_not_replace_a_newer_one(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic
) -> None:
    first = alert()
    earlier = hub.seal_records("alert", first)
    hub.send(store, "alert", replace(first, end_us=START_US + 9, decided_us=first.decided_us + 5))
    hub.send_block(store, earlier)
    open_all(store, engine, clinic)
    found = find_alert(engine, AlertKey("subject-1", "hub-1", first.id))
    assert found is not None
    assert (found["end_us"], found["decided_us"]) == (START_US + 9, first.decided_us)


def test_a_closed_gap_counts_its_missing_samples(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    open_gap = GapRecord("strap-1", "ecg", START_US, None, None, "the link was lost")
    hub.send(store, "wave", open_gap)
    hub.send(store, "wave", replace(open_gap, to_us=START_US + 2_000_000, missing=260))
    hub.send(store, "wave", open_gap)  # a repeated opening record does not reopen the gap
    open_all(store, engine, clinic)
    (sensor,) = queries.list_sensors(engine, EVERY_SUBJECT)
    assert (sensor["gap_since_us"], sensor["missing_samples"], sensor["gaps"]) == (None, 260, 1)


def test_blocks_without_a_private_key_are_recorded_and_opened_when_it_is_back(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, caplog: pytest.LogCaptureFixture
) -> None:
    hub.send(store, "vital", heart_rate(START_US, 61.0))
    open_all(store, engine, clinic.without_recipients())
    (unopened,) = rows(engine, tables.unopened)
    assert (unopened["reason"], unopened["lane"], unopened["seq"]) == (NO_KEY, "vital", 1)
    assert len(caplog.records) == 1
    assert "whose private key this clinic has" in caplog.text
    clinic.opener(store, engine).retry_unopened()
    assert rows(engine, tables.unopened) == []
    assert heart_rates(engine) == [61.0]
    assert queries.read_counters(engine, EVERY_SUBJECT)["blocks"]["opened"] == 1


def test_a_damaged_block_does_not_stop_the_next_block(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    block = hub.seal_records("vital", heart_rate(START_US, 61.0))
    hub.send_block(store, block[:-1] + bytes([block[-1] ^ 1]))
    hub.send(store, "vital", heart_rate(START_US, 62.0))
    open_all(store, engine, clinic)
    assert [row["reason"] for row in rows(engine, tables.unopened)] == [DAMAGED]
    assert heart_rates(engine) == [62.0]


def spot(**changes: Any) -> VitalRecord:
    return replace(heart_rate(START_US, 60.0), origin=replace(SpotOrigin(1, "measured", is_stored=False), **changes))


INVALID_PLAINTEXTS = {
    "not CBOR": b"\xff",
    "not a map": encode_cbor("CANARY-4711"),
    "no items": encode_cbor({"type": "vital"}),
    "a critical field": encode_cbor({"CANARY-4711": 1, "crit": ["CANARY-4711"], "items": []}),
    "text instead of a number": encode_records([replace(heart_rate(START_US, 60.0), value="CANARY-4711")]),  # type: ignore[arg-type]
    "NaN": encode_records([heart_rate(START_US, float("nan"))]),
    "a time beyond 64 bits": encode_records([heart_rate(2**70, 60.0)]),
    "a rate of zero": encode_records([replace(waveform(START_US, np.zeros(3, np.int32)), rate_hz=0.0)]),
    "a rate close to zero": encode_records([replace(waveform(START_US, np.zeros(3, np.int32)), rate_hz=1e-300)]),
    "an infinite scale": encode_records([replace(waveform(START_US, np.zeros(3, np.int32)), scale=1e300)]),
    "a time near the 64-bit limit": encode_records([waveform(2**63 - 1, np.zeros(3, np.int32))]),
    "a list as type": encode_cbor({"items": [{"type": [1]}]}),
    "a value of 400 digits": encode_records([heart_rate(START_US, 10**400)]),
    "a sensor of another type": change(encode_records([heart_rate(START_US, 60.0)]), 0, sensor=["CANARY-4711"]),
    "missing samples": encode_cbor({"items": [{"type": "waveform", "sensor": "strap-1", "kind": "ecg"}]}),
    "an origin without a source of its time": encode_records([spot(time_source=None)]),
    "an origin with a date beyond 2112": encode_records([spot(local_us=2**52 + 1)]),
    "a user that is a text": encode_records([spot(user="CANARY-4711")]),
    "a list of another type, as in format 1": encode_cbor([{"type": "CANARY-4711"}]),
    "missing samples in format 1": encode_cbor([{"type": "waveform", "sensor": "strap-1", "kind": "ecg"}]),
}


@pytest.mark.parametrize("plaintext", INVALID_PLAINTEXTS.values(), ids=INVALID_PLAINTEXTS.keys())
def test_records_invalid_content_without_quoting_it(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, caplog: pytest.LogCaptureFixture, plaintext: bytes
) -> None:
    hub.send_block(store, hub.seal("vital", plaintext))
    hub.send(store, "vital", heart_rate(START_US, 62.0))
    open_all(store, engine, clinic)
    (unopened,) = rows(engine, tables.unopened)
    assert unopened["reason"] == UNDECODABLE
    assert "CANARY-4711" not in caplog.text + str(unopened)
    assert len(rows(engine, tables.vitals)) == 1


def test_opens_new_blocks_and_retries_while_the_store_is_locked(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.opener.RETRY_DELAY_S", 0.01)
    failures = iter([True, True, False])
    take_blocks = work.take_blocks

    def locked_twice(connection: Connection, limit: int) -> object:
        if next(failures, False):
            raise TransientError("locked")
        return take_blocks(connection, limit)

    monkeypatch.setattr(work, "take_blocks", locked_twice)

    async def open_one_alert() -> None:
        opener, has_opened = clinic.opener(store, engine), asyncio.Event()

        async def note() -> None:
            has_opened.set()

        running = asyncio.create_task(opener.run(note))
        hub.send(store, "alert", alert())
        opener.wake()
        async with asyncio.timeout(10):
            await has_opened.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(open_one_alert())
    assert len(rows(engine, tables.alerts)) == 1


def test_a_killed_opener_continues_where_it_stopped(tmp_path: Path, hub: Hub, clinic: Clinic) -> None:
    """After two kill -9 every block has been projected exactly once."""
    n = 300
    with closing(Store.open(tmp_path / "blocks.db")) as store:
        for second in range(n):
            hub.send(store, "wave", waveform(START_US + second * 1_000_000, counts(ecg_mv([0.5], 1.0))))
        engine = open_projections(tmp_path / "projections.db")
        for target in (1, 150):
            _open_until_killed(tmp_path, engine, target)
        open_all(store, engine, clinic)
        starts = sorted(row["start_us"] for row in rows(engine, tables.waveforms))
        assert starts == [START_US + second * 1_000_000 for second in range(n)]
        assert queries.read_counters(engine, EVERY_SUBJECT)["blocks"]["opened"] == n
        engine.dispose()


OPEN_IN_SMALL_BATCHES = """
import sys, time
from pathlib import Path
from typing import Any
from cloud import opener
from cloud.projections_database import open_projections
from cloud.store import Store
from tests.clinic_testbed import Clinic
folder = Path(sys.argv[1])
opener.BATCH_BLOCKS = 7
running = Clinic(folder).opener(Store.open(folder / "blocks.db"), open_projections(folder / "projections.db"))
while running.open_batch() is not None:
    pass
time.sleep(60)
"""


def _open_until_killed(folder: Path, engine: Engine, target: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", OPEN_IN_SMALL_BATCHES, str(folder)])
    deadline = time.monotonic() + 30
    while _count_projected(engine) < target:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def _count_projected(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(tables.waveforms)).scalar_one())


def test_damaged_projections_are_recreated(tmp_path: Path) -> None:
    path = tmp_path / "projections.db"
    path.write_bytes(b"not a database at " * 500)
    engine = open_projections(path)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM alerts").scalar_one() == 0
    engine.dispose()


def test_a_damaged_record_costs_only_itself(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    good = waveform(START_US, counts(ecg_mv([0.5], 1.0)))
    late = replace(good, times=replace(times(START_US + 1_000_000), sensor_ns=2**62 + 1))
    hub.send(store, "wave", good, late)
    open_all(store, engine, clinic)
    (sensor,) = queries.list_sensors(engine, EVERY_SUBJECT)
    assert (sensor["samples"], sensor["undecodable"]) == (130, 1)
    assert rows(engine, tables.unopened) == []
