"""A hub gets another device key: what the one before signed until then still counts, and nothing that it signs later."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from cloud.api import alert_queries
from cloud.api.alert_queries import ListCursor
from cloud.device_keys import CLOCK_TOLERANCE_S, DeviceKey, is_signed
from cloud.errors import ClinicError
from cloud.ingest import handle_message
from cloud.register import HubPublicKeys, enrol_hub
from cloud.registry import Assignment, RegisteredHub, hub_file, load_hub, save_hub
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from sync.data_keys import DataKey, sign_statement
from sync.recipients import RecipientKeyPair
from sync.record_codec import encode_records
from sync.signing import SigningKey, Use
from tests.clinic_testbed import Clinic, Hub, open_all, put_into_store
from tests.cloud.synthetic import START_US, alert
from tests.databases import ON_BOTH

DATABASES = ON_BOTH
DAY_S = 86_400
START_S = START_US // 1_000_000
NEXT_DAY_S = (START_S // DAY_S + 1) * DAY_S


def shown_alerts(engine: Engine) -> list[str]:
    return sorted(found["id"] for found in alert_queries.list_alerts(engine, EVERY_SUBJECT, ListCursor(0))["alerts"])


def enrol_anew(hub: Hub, at_s: int = NEXT_DAY_S) -> SigningKey:
    """Give a hub another device key; returns the one before."""
    former, hub.device = hub.device, SigningKey.generate(Use.DEVICE)
    keys = HubPublicKeys(hub.device.public, RecipientKeyPair.generate().public)
    enrol_hub(hub.clinic.folder, hub.name, keys, hub.subject, at_s)
    return former


def test_what_was_signed_before_is_opened_after(store: Store, engine: Engine, clinic: Clinic, hub: Hub) -> None:
    hub.send(store, "alert", alert(id="before"))
    enrol_anew(hub)
    hub.epoch += 1
    hub.use_key(DataKey.generate())
    hub.send(store, "alert", alert(id="after"))
    open_all(store, engine, clinic)

    assert shown_alerts(engine) == ["after", "before"]


def test_what_waited_on_the_hub_is_sent_under_the_new_key(store: Store, engine: Engine, clinic: Clinic, hub: Hub) -> None:
    """The statement of its data key is by the former device key, the envelope by the present one."""
    block = hub.seal_records("alert", alert(id="waited"))
    enrol_anew(hub)
    hub.send_block(store, block)
    open_all(store, engine, clinic)

    assert shown_alerts(engine) == ["waited"]


def test_the_former_key_signs_no_new_message(store: Store, clinic: Clinic, hub: Hub) -> None:
    block = hub.seal_records("alert", alert(id="late"))
    present = enrol_anew(hub)
    hub.device, present = present, hub.device

    answered = handle_message(store, clinic.registry, clinic.signing.acknowledgement, hub.message(block), START_US)
    assert answered == (None, hub.name, 0)
    assert store.count_blocks() == 0
    hub.device = present
    hub.send_block(store, block)


def test_the_former_key_signs_for_no_later_day(store: Store, engine: Engine, clinic: Clinic, hub: Hub) -> None:
    """Neither through ingest, nor past it."""
    former = enrol_anew(hub, START_S)
    key, later = DataKey.generate(), (START_S + CLOCK_TOLERANCE_S) // DAY_S + 1
    hub.use_key(key)
    hub.statement = sign_statement(key, hub=hub.name, subject=hub.subject, day=later, device=former)
    block = hub.seal("alert", encode_records([alert(id="forged")]))
    ack, n_new = hub.receive(store, hub.message(block), START_US)
    assert [outcome.reason for outcome in ack.aside] == ["the hub did not sign its data key"]
    assert n_new == 0
    put_into_store(store, block, statement=hub.statement, wrapped=hub.wrapped)
    open_all(store, engine, clinic)

    assert shown_alerts(engine) == []


def test_a_key_is_in_use_until_its_end_and_an_hour() -> None:
    device, key = SigningKey.generate(Use.DEVICE), DataKey.generate()
    day = NEXT_DAY_S // DAY_S
    statement = sign_statement(key, hub="hub-1", subject="subject-1", day=day, device=device)
    ends = (NEXT_DAY_S - CLOCK_TOLERANCE_S - 1, NEXT_DAY_S - CLOCK_TOLERANCE_S, NEXT_DAY_S + DAY_S, None)

    signed = [is_signed(statement, "hub-1", [DeviceKey(device.public, until_s)]) for until_s in ends]

    assert signed == [False, True, True, True]
    assert not is_signed(replace_subject(statement), "hub-1", [DeviceKey(device.public)])
    assert not is_signed(statement, "hub-2", [DeviceKey(device.public)])
    assert not is_signed(statement, "hub-1", [])


def replace_subject(statement):
    return statement._replace(subject="subject-2")


@pytest.mark.sqlite_only
def test_former_keys_are_kept_in_the_hubs_file(tmp_path: Path) -> None:
    keys = [SigningKey.generate(Use.DEVICE).public for _ in range(3)]
    hub = RegisteredHub("hub-1", keys[0], (Assignment("subject-1", START_S),))
    hub = hub.with_device(keys[0], START_S + 1).with_device(keys[1], START_S + 2).with_device(keys[2], START_S + 3)
    save_hub(tmp_path, hub)

    assert load_hub(hub_file(tmp_path, "hub-1")) == hub
    assert hub.device_keys == (DeviceKey(keys[2]), DeviceKey(keys[0], START_S + 2), DeviceKey(keys[1], START_S + 3))


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("found", "changed", "says"),
    [
        ("until = 20", "till = 20", "needs the time of its end"),
        ('key = "04', 'key = "05', "not a public key"),
        ("[[former_key]]", "[former_key]", "not a list of tables"),
    ],
)
def test_a_damaged_former_key_is_refused(tmp_path: Path, found: str, changed: str, says: str) -> None:
    hub = RegisteredHub("hub-1", SigningKey.generate(Use.DEVICE).public, ())
    save_hub(tmp_path, hub.with_device(SigningKey.generate(Use.DEVICE).public, START_S))
    path = hub_file(tmp_path, "hub-1")
    parts = path.read_text().partition("[[former_key]]")
    path.write_text(parts[0] + (parts[1] + parts[2]).replace(found, changed))

    with pytest.raises(ClinicError, match=says):
        load_hub(path)
