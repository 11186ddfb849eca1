"""What a newer hub writes and this clinic does not know: counted, shown as far as it is known, and in nobody's way."""

from typing import Any

import pytest
from sqlalchemy import Engine

from cloud.api import alert_queries, queries
from cloud.api.alert_queries import ListCursor
from cloud.block_reader import UNDECODABLE
from cloud.changes import SensorKey
from cloud.export import ExportTotals, export_records
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from cloud.validate import MAX_NAME_CHARS
from sync.cbor import decode_cbor, encode_cbor
from sync.record_codec import encode_records
from sync.records import Record
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.synthetic import START_US, alert, heart_rate


def encode_with(*items: dict[str, Any], records: tuple[Record, ...] = ()) -> bytes:
    known = decode_cbor(encode_records(records), limit_bytes=10**5)["items"]
    return encode_cbor({"items": [*items, *known]})


def test_records_of_an_unknown_type_are_counted_and_skipped(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    later = [{"type": "later", "sensor": "strap-1", "crit": ["a", "sensor"], "a": [1]}, {"type": "of the hub"}]
    hub.send_block(store, hub.seal("vital", encode_with(*later, records=(heart_rate(START_US, 61.0),))))
    hub.send_block(store, hub.seal("vital", encode_with({"type": "later", "sensor": "strap-2"})))
    open_all(store, engine, clinic)
    counters = queries.read_counters(engine, EVERY_SUBJECT)
    assert (counters["blocks"]["opened"], counters["blocks"]["unopened"], counters["unknown_records"]) == (2, 0, 3)
    assert {row["sensor"]: row["undecodable"] for row in queries.list_sensors(engine, EVERY_SUBJECT)} == {
        "strap-1": 1,
        "strap-2": 1,
    }
    exported = list(export_records(store, clinic.reader(store), ExportTotals()))
    assert [(row["type"], row.get("name"), row["sensor"], row.get("content")) for row in exported] == [
        ("unknown", "later", "strap-1", encode_cbor(later[0]).hex()),
        ("unknown", "of the hub", None, encode_cbor(later[1]).hex()),
        ("vital", None, "strap-1", None),
        ("unknown", "later", "strap-2", encode_cbor({"type": "later", "sensor": "strap-2"}).hex()),
    ]


def test_an_unknown_kind_of_alert_is_shown_with_its_name_and_priority(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic
) -> None:
    hub.send(store, "alert", alert("of a later version", "high"), alert("vf", "urgent", START_US + 1))
    open_all(store, engine, clinic)
    shown = alert_queries.list_alerts(engine, EVERY_SUBJECT, ListCursor(2 * START_US))["alerts"]
    assert {(row["kind"], row["priority"]) for row in shown} == {("of a later version", "high"), ("vf", "urgent")}


@pytest.mark.parametrize("later", [{"type": "later", "sensor": "x" * (MAX_NAME_CHARS + 1)}, {"type": "x" * 1001}])
def test_an_unknown_type_or_sensor_with_an_endless_name_sets_the_block_aside(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, later: dict[str, Any]
) -> None:
    hub.send_block(store, hub.seal("vital", encode_with(later)))
    open_all(store, engine, clinic)
    assert queries.read_counters(engine, EVERY_SUBJECT)["blocks"]["unopened_reasons"] == {UNDECODABLE: 1}


def test_an_optional_field_changes_nothing_and_a_critical_one_sets_its_record_aside(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic
) -> None:
    content = decode_cbor(encode_records([heart_rate(START_US, 61.0), alert()]), limit_bytes=10**5)
    content["items"][0]["place"] = "wrist"
    content["items"][1] |= {"retracted": True, "crit": ["retracted"]}
    hub.send_block(store, hub.seal("alert", encode_cbor(content)))
    open_all(store, engine, clinic)
    (sensor,) = queries.list_sensors(engine, EVERY_SUBJECT)
    assert sensor["undecodable"] == 1
    counters = queries.read_counters(engine, EVERY_SUBJECT)
    assert (counters["alerts"], counters["blocks"]["opened"]) == (0, 1)
    strap = SensorKey("subject-1", "hub-1", "strap-1")
    assert len(queries.read_vitals(engine, EVERY_SUBJECT, strap, "heart_rate", 0, 2 * START_US)["vitals"]) == 1
