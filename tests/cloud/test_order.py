"""The latest record in the hub's sequence counts, whatever the hub's clock showed and in whatever order the blocks arrived."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, select

from cloud import tables
from cloud.api import alert_queries, queries
from cloud.api.queries import CLOCK_AHEAD_US, LATE_US
from cloud.changes import AlertKey, SensorKey
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from sync.records import AlertRecord, GapRecord, Record, StatusRecord
from sync.wire import Lane
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.synthetic import START_US, alert, find_alert, heart_rate, strip, times, waveform
from tests.databases import ON_BOTH

DATABASES = ON_BOTH

STRAP = SensorKey("subject-1", "hub-1", "strap-1")
AHEAD_US, SET_BACK_US = START_US + 3_600_000_000, START_US
SAMPLES = np.zeros(130, np.int32)


def vt(priority: str, decided_us: int, end_us: int | None = None) -> AlertRecord:
    return alert("vt", priority, AHEAD_US - 2_000_000, decided_us=decided_us, end_us=end_us)


@pytest.fixture
def sensor_after_clock_was_set_back(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> dict[str, Any]:
    """A hub whose clock was an hour ahead and is set right; its blocks arrive at once."""
    for at_us, battery, contact, rate in ((AHEAD_US, 80, True, 61.0), (SET_BACK_US, 5, False, 180.0)):
        statuses = (
            StatusRecord("strap-1", "battery", times(at_us), battery),
            StatusRecord("strap-1", "skin_contact", times(at_us), contact),
        )
        hub.send(store, "vital", *statuses, heart_rate(at_us, rate), received_us=START_US + 1_000_000)
        hub.send(store, "wave", waveform(at_us, SAMPLES), received_us=START_US + 1_000_000)
    open_all(store, engine, clinic)
    (sensor,) = queries.list_sensors(engine, EVERY_SUBJECT)
    return sensor


def test_an_escalation_and_an_end_after_the_clock_was_set_back_are_shown(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic
) -> None:
    said = vt("medium", AHEAD_US), vt("high", SET_BACK_US), vt("high", SET_BACK_US + 5, end_us=AHEAD_US + 9)
    for record in said:
        hub.send(store, "alert", record)
    open_all(store, engine, clinic)
    (listed,) = alert_queries.list_alerts(engine, EVERY_SUBJECT, alert_queries.ListCursor(0))["alerts"]
    assert (listed["priority"], listed["end_us"], listed["decided_us"]) == ("high", AHEAD_US + 9, AHEAD_US)
    assert listed["raised_us"] == START_US, "an alert cannot have been raised after its receipt"


def test_an_alert_that_is_raised_again_is_the_newest_and_keeps_its_row(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic
) -> None:
    """A pause that becomes an asystole, after another alert of its priority; it ends and is opened again."""
    pause = alert("pause", "high", START_US, decided_us=START_US + 1, raised_us=START_US + 1)
    other = alert("vt", "high", START_US + 2, decided_us=START_US + 3, raised_us=START_US + 3)
    asystole = replace(pause, kind="asystole", decided_us=START_US + 9, raised_us=START_US + 9)
    ended = replace(asystole, decided_us=START_US + 20, end_us=START_US + 19)
    for record, received_us in ((pause, 2), (other, 4), (asystole, 10), (ended, 21), (replace(ended, end_us=None), 22)):
        hub.send(store, "alert", record, received_us=START_US + received_us)
    open_all(store, engine, clinic)
    first, second = alert_queries.list_alerts(engine, EVERY_SUBJECT, alert_queries.ListCursor(0))["alerts"]
    assert (first["id"], first["kind"], first["end_us"]) == (pause.id, "asystole", None)
    assert (first["decided_us"], first["raised_us"]) == (START_US + 9, START_US + 9)
    assert second["id"] == other.id


def test_the_latest_status_and_heart_rate_count_after_the_clock_was_set_back(
    sensor_after_clock_was_set_back: dict[str, Any],
) -> None:
    sensor = sensor_after_clock_was_set_back
    assert (sensor["battery_percent"], sensor["skin_contact"]) == (5, False)
    assert sensor["heart_rate"]["value"] == 180.0
    assert sensor["last_data_us"] == sensor["last_waveform_us"] == SET_BACK_US + 1_000_000
    assert sensor["last_received_us"] == START_US + 1_000_000
    assert sensor["clock"] is None


@pytest.mark.parametrize(
    ("offset_us", "clock"),
    [(0, None), (CLOCK_AHEAD_US, None), (CLOCK_AHEAD_US + 1, "ahead"), (-LATE_US, None), (-LATE_US - 1, "behind")],
)
def test_tells_whether_the_hubs_clock_agrees(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, offset_us: int, clock: str | None
) -> None:
    hub.send(store, "vital", heart_rate(START_US + offset_us, 60.0), received_us=START_US)
    open_all(store, engine, clinic)
    (sensor,) = queries.list_sensors(engine, EVERY_SUBJECT)
    assert (sensor["clock"], sensor["clock_offset_us"]) == (clock, offset_us)


def test_a_late_block_does_not_make_a_silent_sensor_look_alive(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    late = hub.seal_records("wave", waveform(START_US - 60_000_000, SAMPLES))
    hub.send(store, "wave", waveform(START_US, SAMPLES), received_us=START_US)
    hub.send_block(store, late, received_us=START_US + 3_600_000_000)
    open_all(store, engine, clinic)
    (sensor,) = queries.list_sensors(engine, EVERY_SUBJECT)
    assert (sensor["last_received_us"], sensor["samples"]) == (START_US, 260)


STRIPS = [strip(START_US + i, [0.5], 1.0) for i in range(2)]
SEQUENCES: dict[str, tuple[Lane, list[Record]]] = {
    "alert": (
        "alert",
        [
            replace(vt("medium", AHEAD_US), strip=STRIPS[0]),
            replace(vt("high", SET_BACK_US), strip=STRIPS[1]),
            vt("high", SET_BACK_US + 5, end_us=AHEAD_US + 9),
        ],
    ),
    "alert that is raised again": (
        "alert",
        [
            replace(vt("medium", AHEAD_US), raised_us=AHEAD_US),
            replace(vt("high", SET_BACK_US), raised_us=SET_BACK_US),
            replace(vt("high", SET_BACK_US + 5, end_us=AHEAD_US + 9), raised_us=SET_BACK_US),
        ],
    ),
    "status": ("vital", [StatusRecord("strap-1", "battery", times(at), at % 100) for at in (AHEAD_US, START_US, 7)]),
    "heart rate": ("vital", [heart_rate(at, float(at % 100)) for at in (AHEAD_US, START_US, 7)]),
    "gap": (
        "wave",
        [
            GapRecord("strap-1", "ecg", START_US, None, None, "the link was lost"),
            GapRecord("strap-1", "ecg", START_US, START_US + 9, 4, "the link was lost"),
            GapRecord("strap-1", "ecg", START_US, None, None, "the link was lost"),
        ],
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_order_of_arrival_does_not_matter(store: Store, engine: Engine, clinic: Clinic, name: str) -> None:
    """Three blocks in every order of arrival, each order from a hub of its own."""
    lane, records = SEQUENCES[name]
    results = []
    for n, order in enumerate(permutations(range(len(records)))):
        hub = clinic.add_hub(name=f"hub-{n}")
        blocks = [hub.seal_records(lane, record) for record in records]
        for i in order:
            hub.send_block(store, blocks[i])
        open_all(store, engine, clinic)
        results.append(_shown_of(engine, hub))
    assert all(result == results[0] for result in results)


def _shown_of(engine: Engine, hub: Hub) -> dict[str, Any]:
    with engine.connect() as connection:
        ids = connection.scalars(select(tables.alerts.c.id).where(tables.alerts.c.hub == hub.name)).all()
    alerts = [find_alert(engine, AlertKey(hub.subject, hub.name, id_)) for id_ in ids]
    sensors = [row for row in queries.list_sensors(engine, EVERY_SUBJECT) if row["hub"] == hub.name]
    shown: dict[str, Any] = {"alerts": alerts, "sensors": sensors}
    for item in (*shown["alerts"], *shown["sensors"]):
        del item["hub"]
        item.pop("revision", None)
    return shown
