"""The opener: every block once, whatever happens; what cannot be read is set aside and holds up nothing."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cbor2
import numpy as np
import pytest
from sqlalchemy import Engine, func, select

from cloud import tables
from cloud.api import queries
from cloud.opener import DAMAGED, NO_KEY, UNDECODABLE, Opener
from cloud.projections import Changes
from cloud.store import Store
from cloud.tables import clear, open_projections
from sync.errors import Transient
from sync.records import FindingRecord, GapRecord, IntervalsRecord, QuarantinedRecord, StatusRecord, encode
from sync.seal import ClinicKeyPair
from tests.cloud.synthetic import START_US, Hub, alert, counts, ecg_mv, heart_rate, strip, times, waveform


async def unheard(_changes: Changes) -> None:
    """Nobody watches."""


def open_all(store: Store, engine: Engine, keys: ClinicKeyPair) -> Changes:
    opener, changes = Opener(store, engine, keys, unheard), Changes()
    while (more := opener.step()) is not None:
        changes.add(more)
    return changes


def rows(engine: Engine, table: object) -> list[dict[str, object]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]  # type: ignore[call-overload]


def everything(engine: Engine) -> dict[str, list[dict[str, object]]]:
    return {table.name: rows(engine, table) for table in tables.metadata.sorted_tables}


def send_one_of_each(hub: Hub, store: Store) -> None:
    samples = counts(ecg_mv([0.5], 1.0))
    hub.send(store, "wave", waveform(START_US, samples), heart_rate(START_US, 72.0))
    hub.send(store, "vital", IntervalsRecord("strap-1", "rr", times(START_US), (853, 861)))
    hub.send(store, "vital", StatusRecord("strap-1", "battery", times(START_US), 87))
    hub.send(store, "wave", GapRecord("strap-1", "ecg", START_US + 1_000_000, None, None, "the link was lost"))
    hub.send(store, "vital", FindingRecord("strap-1", "af", START_US, None, "rr_af@1", None, "too few beats"))
    hub.send(store, "vital", QuarantinedRecord("strap-1", "2a37", times(START_US), b"\x00", "too short"))
    hub.send(store, "alert", alert(strip=strip(START_US, [0.5, 1.3], 2.0)))


def test_every_kind_of_record_is_projected(store: Store, engine: Engine, hub: Hub, clinic_keys: ClinicKeyPair) -> None:
    send_one_of_each(hub, store)
    changes = open_all(store, engine, clinic_keys)
    assert list(changes.alerts) == [("hub-1", f"tachycardia-{START_US}")]
    (sensor,) = queries.sensors(engine)
    assert sensor["samples"] == 130
    assert sensor["battery_percent"] == 87
    assert sensor["undecodable"] == 1
    assert sensor["gap_since_us"] == START_US + 1_000_000
    assert sensor["gap_reason"] == "the link was lost"
    assert [row["ticks"] for row in rows(engine, tables.intervals)] == ["[853, 861]"]
    assert [row["inconclusive"] for row in rows(engine, tables.findings)] == ["too few beats"]
    assert queries.counters(engine)["blocks"] == {"opened": 7, "unopened": 0, "unopened_reasons": {}}


def test_opening_again_changes_nothing(store: Store, engine: Engine, hub: Hub, clinic_keys: ClinicKeyPair) -> None:
    send_one_of_each(hub, store)
    open_all(store, engine, clinic_keys)
    before = everything(engine)
    assert open_all(store, engine, clinic_keys).blocks == 0
    assert everything(engine) == before


def test_a_rebuild_gives_the_same(store: Store, engine: Engine, hub: Hub, clinic_keys: ClinicKeyPair) -> None:
    send_one_of_each(hub, store)
    open_all(store, engine, clinic_keys)
    before = everything(engine)
    clear(engine)
    assert rows(engine, tables.alerts) == []
    open_all(store, engine, clinic_keys)
    assert everything(engine) == before


def test_alerts_are_opened_before_waves(store: Store, engine: Engine, hub: Hub, clinic_keys: ClinicKeyPair) -> None:
    for second in range(100):
        hub.send(store, "wave", waveform(START_US + second * 1_000_000, counts(ecg_mv([0.5], 1.0))))
    hub.send(store, "alert", alert())
    first = Opener(store, engine, clinic_keys, unheard).step()
    assert first is not None
    assert len(first.alerts) == 1
    assert first.waves == []


def test_a_later_word_on_an_alert_keeps_its_first_decision_and_strip(
    store: Store, engine: Engine, hub: Hub, clinic_keys: ClinicKeyPair
) -> None:
    first = alert(strip=strip(START_US, [0.5, 1.3], 2.0))
    hub.send(store, "alert", first)
    hub.send(store, "alert", replace(first, priority="high", end_us=START_US + 9, decided_us=first.decided_us + 5, strip=None))
    open_all(store, engine, clinic_keys)
    told = queries.alert(engine, first.id)
    assert told is not None
    assert (told["priority"], told["end_us"], told["decided_us"]) == ("high", START_US + 9, first.decided_us)
    assert told["strip"]["beats_us"] == [START_US + 500_000, START_US + 1_300_000]
    assert told["revision"] == 2


def test_an_older_word_that_comes_late_does_not_undo_the_newer(
    store: Store, engine: Engine, hub: Hub, clinic_keys: ClinicKeyPair
) -> None:
    first = alert()
    hub.send(store, "alert", replace(first, end_us=START_US + 9, decided_us=first.decided_us + 5))
    hub.send(store, "alert", first)
    open_all(store, engine, clinic_keys)
    told = queries.alert(engine, first.id)
    assert told is not None
    assert (told["end_us"], told["decided_us"]) == (START_US + 9, first.decided_us)


def test_a_gap_closes_and_counts_what_is_missing(store: Store, engine: Engine, hub: Hub, clinic_keys: ClinicKeyPair) -> None:
    lasting = GapRecord("strap-1", "ecg", START_US, None, None, "the link was lost")
    hub.send(store, "wave", lasting)
    hub.send(store, "wave", replace(lasting, to_us=START_US + 2_000_000, missing=260))
    hub.send(store, "wave", lasting)  # a repeated opening does not open it again
    open_all(store, engine, clinic_keys)
    (sensor,) = queries.sensors(engine)
    assert (sensor["gap_since_us"], sensor["missing_samples"], sensor["gaps"]) == (None, 260, 1)


def test_another_clinics_blocks_are_set_aside_until_the_key_comes(
    store: Store, engine: Engine, hub: Hub, clinic_keys: ClinicKeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    hub.send(store, "vital", heart_rate(START_US, 61.0))
    open_all(store, engine, ClinicKeyPair.generate())
    (set_aside,) = rows(engine, tables.unopened)
    assert (set_aside["reason"], set_aside["lane"], set_aside["seq"]) == (NO_KEY, "vital", 1)
    assert len(caplog.records) == 1
    assert "another clinic key" in caplog.text
    Opener(store, engine, clinic_keys, unheard).retry_without_key()
    assert rows(engine, tables.unopened) == []
    assert queries.vitals(engine, "strap-1", "heart_rate", 0) == [{"at_us": START_US, "value": 61.0}]
    assert queries.counters(engine)["blocks"]["opened"] == 1


def test_a_damaged_block_holds_up_nothing(store: Store, engine: Engine, hub: Hub, clinic_keys: ClinicKeyPair) -> None:
    header, block = hub.seal("vital", encode([heart_rate(START_US, 61.0)]))
    hub.send_block(store, (header, block[:-1] + bytes([block[-1] ^ 1])))
    hub.send(store, "vital", heart_rate(START_US, 62.0))
    open_all(store, engine, clinic_keys)
    assert [row["reason"] for row in rows(engine, tables.unopened)] == [DAMAGED]
    assert [vital["value"] for vital in queries.vitals(engine, "strap-1", "heart_rate", 0)] == [62.0]


WRONG_FIELDS = {
    "no CBOR": b"\xff",
    "no list": cbor2.dumps({"type": "vital"}),
    "unknown type": cbor2.dumps([{"type": "CANARY-4711"}]),
    "text for a number": encode([replace(heart_rate(START_US, 60.0), value="CANARY-4711")]),  # type: ignore[arg-type]
    "not a number": encode([heart_rate(START_US, float("nan"))]),
    "a time beyond 64 bits": encode([heart_rate(2**70, 60.0)]),
    "a rate of zero": encode([replace(waveform(START_US, np.zeros(3, np.int32)), rate_hz=0.0)]),
    "a rate next to zero": encode([replace(waveform(START_US, np.zeros(3, np.int32)), rate_hz=1e-300)]),
    "an infinite scale": encode([replace(waveform(START_US, np.zeros(3, np.int32)), scale=1e300)]),
    "the end of time": encode([waveform(2**63 - 1, np.zeros(3, np.int32))]),
    "samples missing": cbor2.dumps([{"type": "waveform", "sensor": "strap-1", "kind": "ecg"}]),
}


@pytest.mark.parametrize("plaintext", WRONG_FIELDS.values(), ids=WRONG_FIELDS.keys())
def test_content_that_is_no_records_is_set_aside_whole_and_never_quoted(
    store: Store, engine: Engine, hub: Hub, clinic_keys: ClinicKeyPair, caplog: pytest.LogCaptureFixture, plaintext: bytes
) -> None:
    hub.send_block(store, hub.seal("vital", plaintext))
    hub.send(store, "vital", heart_rate(START_US, 62.0))
    open_all(store, engine, clinic_keys)
    (set_aside,) = rows(engine, tables.unopened)
    assert set_aside["reason"] == UNDECODABLE
    assert "CANARY-4711" not in caplog.text + str(set_aside)
    assert len(rows(engine, tables.vitals)) == 1


def test_the_running_opener_follows_the_store_and_survives_a_locked_database(
    store: Store, engine: Engine, hub: Hub, clinic_keys: ClinicKeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.opener.RETRY_S", 0.01)
    seen: asyncio.Queue[Changes] = asyncio.Queue(10)
    failures = iter([True, True, False])
    blocks_after = store.blocks_after

    def sometimes_locked(id_: int, limit: int) -> object:
        if next(failures, False):
            raise Transient("locked")
        return blocks_after(id_, limit)

    monkeypatch.setattr(store, "blocks_after", sometimes_locked)

    async def follow() -> Changes:
        opener = Opener(store, engine, clinic_keys, seen.put)
        running = asyncio.create_task(opener.run())
        hub.send(store, "alert", alert())
        opener.wake()
        async with asyncio.timeout(10):
            changes = await seen.get()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return changes

    assert len(asyncio.run(follow()).alerts) == 1


def test_a_killed_opener_goes_on_where_it_stood(tmp_path: Path, hub: Hub, clinic_keys: ClinicKeyPair) -> None:
    """kill -9 at two moments; in the end every block has been projected exactly once."""
    clinic_keys.save(tmp_path / "clinic.key")
    n = 300
    with closing(Store.open(tmp_path / "blocks.db")) as store:
        for second in range(n):
            hub.send(store, "wave", waveform(START_US + second * 1_000_000, counts(ecg_mv([0.5], 1.0))))
        engine = open_projections(tmp_path / "projections.db")
        for target in (1, 150):
            _open_until_killed(tmp_path, engine, target)
        open_all(store, engine, clinic_keys)
        starts = sorted(row["start_us"] for row in rows(engine, tables.waveforms))
        assert starts == [START_US + second * 1_000_000 for second in range(n)]
        assert queries.counters(engine)["blocks"]["opened"] == n
        engine.dispose()


OPEN_SLOWLY = """
import sys, time
from pathlib import Path
from cloud import opener, tables
from cloud.store import Store
from sync.seal import ClinicKeyPair
folder = Path(sys.argv[1])
opener.PASSES = tuple(opener.Pass(one.name, one.lanes, 7) for one in opener.PASSES)
running = opener.Opener(
    Store.open(folder / "blocks.db"), tables.open_projections(folder / "projections.db"),
    ClinicKeyPair.load(folder / "clinic.key"), None)
while running.step() is not None:
    pass
time.sleep(60)
"""


def _open_until_killed(folder: Path, engine: Engine, target: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", OPEN_SLOWLY, str(folder)])
    deadline = time.monotonic() + 30
    while _projected(engine) < target:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def _projected(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(tables.waveforms)).scalar_one())


def test_damaged_projections_are_made_again(tmp_path: Path) -> None:
    path = tmp_path / "projections.db"
    path.write_bytes(b"no database at all " * 500)
    engine = open_projections(path)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM alerts").scalar_one() == 0
    engine.dispose()
