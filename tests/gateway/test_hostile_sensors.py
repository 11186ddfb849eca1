"""A sensor that attacks the hub costs itself its connection, and the others nothing."""

import asyncio
import logging
from itertools import pairwise

import pytest
from bumble.att import ATT_Error
from bumble.core import UUID
from bumble.device import Connection
from bumble.gatt import Characteristic, CharacteristicValue, Service

from drivers.conversation import Consent
from drivers.readings import Status
from tests.gateway.hostile_testbed import (
    ATTACKER,
    NOTIFY,
    PROPERTIES,
    TASKS_LIMIT,
    Attacker,
    attack,
    flood,
    readable,
    stream,
    uuid16,
    wait_subscribed,
    warnings_of,
)


def test_thousands_of_attributes_cost_one_attempt_of_twenty_seconds_at_a_time() -> None:
    services = [
        Service(UUID(f"c0de{number:04x}-0000-4000-8000-000000000000"), [readable(0x2A00 + each, b"x") for each in range(10)])
        for number in range(300)
    ]
    attacker = Attacker(services)
    outcome = attack(attacker, 400, latency_s=0.015)
    outcome.assert_honest_unharmed(400)
    held_s = attacker.connections * 20
    assert held_s < 200, "the radio's connect was held for more than half of the time"
    assert outcome.tasks < TASKS_LIMIT


def test_duplicate_services_and_characteristics_are_served_once() -> None:
    heart_rates = [Service(uuid16(0x180D), [stream(0x2A37), stream(0x2A37)]) for _ in range(20)]

    async def serve(attacker: Attacker, connection: Connection) -> None:
        await wait_subscribed(attacker, connection, 0x2A37)
        while True:
            for service in heart_rates:
                for characteristic in service.characteristics:
                    await attacker.device.notify_subscriber(connection, characteristic, bytes([0, 60]))
            await asyncio.sleep(1)

    outcome = attack(Attacker(list(heart_rates), serve), 60)
    outcome.assert_honest_unharmed(60)
    assert 50 < len(outcome.attacker.notifications) <= 60
    assert outcome.attacker.states[-2:] == ["streaming", "stopped"]


async def never_answer(_connection: Connection) -> bytes:
    await asyncio.Event().wait()
    return b""


async def answer_late(_connection: Connection) -> bytes:
    await asyncio.sleep(9.9)
    return b"x" * 20


def test_slow_answers_keep_nobody_else_from_connecting() -> None:
    """Ten reads of 9.9 s are one set-up of 100 s: it holds no lock."""
    slow = CharacteristicValue(read=answer_late)
    numbers = (0x2A29, 0x2A24, 0x2A25, 0x2A27, 0x2A26, 0x2A28, 0x2A23)
    services = [
        Service(uuid16(0x180A), [readable(number, slow) for number in numbers]),
        Service(uuid16(0x180F), [readable(0x2A19, slow)]),
        Service(uuid16(0x180D), [stream(0x2A37), readable(0x2A38, slow)]),
    ]
    outcome = attack(Attacker(services), 240, honest_first=False)
    outcome.assert_honest_unharmed(240)
    assert outcome.attacker.states[:6] == ["absent", "seen", "connecting", "securing", "subscribing", "streaming"]


def test_answers_that_never_come_cost_only_what_they_answer(caplog: pytest.LogCaptureFixture) -> None:
    silent = CharacteristicValue(read=never_answer)
    services = [Service(uuid16(0x180A), [readable(0x2A29, silent)]), Service(uuid16(0x180D), [stream(0x2A37)])]
    outcome = attack(Attacker(services), 300, honest_first=False)
    outcome.assert_honest_unharmed(300)
    assert outcome.tasks < TASKS_LIMIT
    repeated = [text for text in warnings_of(caplog) if warnings_of(caplog).count(text) > 2]
    assert repeated == []


def test_identity_that_changes_at_each_read_does_not_accumulate(caplog: pytest.LogCaptureFixture) -> None:
    reads = 0

    def tell(_connection: Connection) -> bytes:
        nonlocal reads
        reads += 1
        texts = [b"\x1b[2J\x1b]0;pwned\x07" * 30, b"\xff\xfe" * 250, b"model %d " % reads + b"x" * 480, b"line\nroot: breach"]
        return texts[reads % len(texts)]

    async def serve(_attacker: Attacker, connection: Connection) -> None:
        await asyncio.sleep(3)
        await connection.disconnect()

    numbers = (0x2A29, 0x2A24, 0x2A25, 0x2A27, 0x2A26, 0x2A28)
    identity = Service(uuid16(0x180A), [readable(number, CharacteristicValue(read=tell)) for number in numbers])
    attacker = Attacker([identity, Service(uuid16(0x180D), [stream(0x2A37)])], serve, name=b"\x1b[31mH10\x00\n")
    with caplog.at_level(logging.DEBUG):
        outcome = attack(attacker, 300)
    outcome.assert_honest_unharmed(300)
    assert len(str(outcome.attacker.session.memory.state())) < 3 * 512 + 500
    assert attacker.connections > 8
    assert not [record for record in caplog.records if "pwned" in record.getMessage() or "breach" in record.getMessage()]


def test_connect_and_drop_in_a_loop_is_slowed_down_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def serve(attacker: Attacker, connection: Connection) -> None:
        await wait_subscribed(attacker, connection, 0x2A37)
        await asyncio.sleep(0.5)
        await connection.disconnect()

    attacker = Attacker([Service(uuid16(0x180D), [stream(0x2A37)])], serve)
    with caplog.at_level(logging.INFO):
        outcome = attack(attacker, 600)
    outcome.assert_honest_unharmed(600)
    assert 10 < attacker.connections < 60
    lines = [record for record in caplog.records if record.getMessage().startswith("attacker:")]
    assert len(lines) < 20


def test_refusals_worded_differently_each_time_are_said_a_few_times(caplog: pytest.LogCaptureFixture) -> None:
    refusals = 0

    def refuse(_connection: Connection, _value: bytes) -> None:
        nonlocal refusals
        refusals += 1
        raise ATT_Error(0x80 + refusals % 0x60)

    control = Characteristic(
        UUID("fb005c81-02e7-f387-1cad-8acd2d8df0c8"),
        NOTIFY | PROPERTIES.WRITE,
        Characteristic.READABLE | Characteristic.WRITEABLE,
        CharacteristicValue(read=lambda _connection: bytes.fromhex("0F05") + bytes(15), write=refuse),
    )
    data = Characteristic(UUID("fb005c82-02e7-f387-1cad-8acd2d8df0c8"), NOTIFY, Characteristic.Permissions(0), b"")
    attacker = Attacker([Service(UUID("fb005c80-02e7-f387-1cad-8acd2d8df0c8"), [control, data])])
    outcome = attack(attacker, 3_600)
    outcome.assert_honest_unharmed(3_600)
    assert refusals > 20
    assert len(warnings_of(caplog)) <= 3
    statuses = [reading for each in outcome.attacker.notifications for reading in each.readings if isinstance(reading, Status)]
    assert [status.kind for status in statuses].count("setup_failed") <= 3


def test_the_link_is_lost_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections end 20 ms later each time: in the discovery, the subscriptions, the reads, the set-ups, the streams."""
    monkeypatch.setattr("gateway.session.choose_pause_s", lambda *_: 0.1)
    latency_s = 0.01

    async def serve(attacker: Attacker, _connection: Connection) -> None:
        await asyncio.sleep(0.02 * attacker.connections)
        attacker.link.simulate_link_loss(ATTACKER)

    numbers = (0x2A29, 0x2A24, 0x2A25)
    services = [
        Service(uuid16(0x180A), [readable(number, b"x" * 20) for number in numbers]),
        Service(uuid16(0x180F), [readable(0x2A19, bytes([80]))]),
        Service(uuid16(0x180D), [stream(0x2A37), readable(0x2A38, b"\x01")]),
    ]
    attacker = Attacker(services, serve)
    outcome = attack(attacker, 120, latency_s=latency_s)
    outcome.assert_honest_unharmed(120)
    reached = {after for before, after in pairwise(outcome.attacker.states) if after != "backing_off"}
    assert {"connecting", "securing", "subscribing", "streaming"} <= reached
    ended_in = {before for before, after in pairwise(outcome.attacker.states) if after == "backing_off"}
    assert {"connecting", "subscribing", "streaming"} <= ended_in
    assert attacker.connections > 50
    assert outcome.tasks < TASKS_LIMIT


def test_a_table_that_changes_at_every_connection_is_read_anew() -> None:
    """Each time another service: what a driver knew of the last one does not harm the next."""
    numbers = (0x180D, 0x1810, 0x1822, 0x181D, 0x181B, 0x1809, 0x181C, 0x180F)

    async def serve(attacker: Attacker, connection: Connection) -> None:
        server = attacker.device.gatt_server
        await asyncio.sleep(4)
        for attribute in server.attributes[4:]:  # while the hub has subscribed
            attribute.handle += 1000
        await asyncio.sleep(1)
        await connection.disconnect()
        server.attributes = server.attributes[:4]
        server.attributes_by_handle = {each.handle: each for each in server.attributes}
        service = Service(uuid16(numbers[attacker.connections % len(numbers)]), [stream(0x2A37), stream(0x2A35)])
        attacker.device.add_service(service)

    attacker = Attacker([Service(uuid16(0x180D), [stream(0x2A37)])], serve)
    outcome = attack(attacker, 240)
    outcome.assert_honest_unharmed(240)
    assert attacker.connections > 5
    assert outcome.tasks < TASKS_LIMIT


@pytest.mark.parametrize("mtu", [23, 517])
def test_small_and_large_transfer_units_are_served(mtu: int) -> None:
    async def serve(attacker: Attacker, connection: Connection) -> None:
        await wait_subscribed(attacker, connection, 0x2A37)
        while True:
            await attacker.device.notify_subscriber(connection, attacker.characteristic(0x2A37), bytes([0, 60]) + bytes(600))
            await asyncio.sleep(1)

    attacker = Attacker([Service(uuid16(0x180D), [stream(0x2A37)])], serve)
    outcome = attack(attacker, 60, mtu=mtu)
    outcome.assert_honest_unharmed(60)
    assert {len(each.payload) for each in outcome.attacker.notifications} == {mtu - 3}


def test_a_peer_that_asks_for_a_pairing_gets_none_where_no_driver_needs_one() -> None:
    async def serve(_attacker: Attacker, connection: Connection) -> None:
        while True:
            connection.request_pairing()
            await asyncio.sleep(0.2)

    outcome = attack(Attacker([Service(uuid16(0x180D), [stream(0x2A37)])], serve), 60)
    outcome.assert_honest_unharmed(60)
    assert outcome.bonds == []
    assert outcome.tasks < TASKS_LIMIT


def test_a_consent_that_is_refused_for_ever_is_asked_for_rarely_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[bytes] = []

    def refuse(_connection: Connection, value: bytes) -> None:
        asked.append(value)
        answer = bytes((0x20, value[0], 5))
        asyncio.ensure_future(attacker.device.indicate_subscribers(control, answer))  # noqa: RUF006  it ends at once

    control = Characteristic(
        uuid16(0x2A9F),
        PROPERTIES.INDICATE | PROPERTIES.WRITE,
        Characteristic.WRITEABLE,
        CharacteristicValue(write=refuse),
    )
    attacker = Attacker([Service(uuid16(0x181C), [control]), Service(uuid16(0x181D), [stream(0x2A9D)])])
    outcome = attack(attacker, 3_600, consent=Consent(1, 4711))
    outcome.assert_honest_unharmed(3_600)
    assert 1 <= len(asked) <= 40
    assert len(warnings_of(caplog)) == 1
    assert "4711" not in caplog.text


def test_a_second_sensor_with_the_same_name_takes_nothing_from_one_that_is_known_by_its_address() -> None:
    async def serve(attacker: Attacker, connection: Connection) -> None:
        await flood(attacker, connection, 0x2A37, bytes([0, 200]), 100, 1)

    outcome = attack(Attacker([Service(uuid16(0x180D), [stream(0x2A37)])], serve, name=b"honest"), 60)
    outcome.assert_honest_unharmed(60)
    assert {each.payload for each in outcome.honest.notifications} == {bytes([0, 60])}
