"""Streams that share a characteristic: one that stops is noticed although the other goes on."""

import asyncio
import logging

import pytest
from bumble.core import UUID
from bumble.device import Connection
from bumble.gatt import Characteristic, CharacteristicValue, Service

from drivers.polar_pmd import CONTROL_POINT, DATA, SERVICE, SILENT_AFTER_S
from tests.gateway.hostile_testbed import NOTIFY, PROPERTIES, Attacker, attack

ECG_FRAME = bytes.fromhex("000094357700000000000280FF028000")
PPG_FRAME = bytes.fromhex("01009435770000000000") + bytes.fromhex("0A0000") * 4
ECG_STOPS_S = 20.0


def make_sensor(connected_at_s: list[float]) -> Attacker:
    """A sensor whose ECG stops `ECG_STOPS_S` after its first connection began, and whose PPG goes on."""

    def tell_features(_connection: Connection) -> bytes:
        return bytes.fromhex("0F03") + bytes(15)

    def on_write(_connection: Connection, value: bytes) -> None:
        parameters = (
            bytes.fromhex("0000 00013700" if value[:2] == b"\x01\x01" else "0000 00018200") if value[0] == 1 else b"\0\0"
        )
        answer = bytes((0xF0, value[0], value[1])) + parameters
        asyncio.ensure_future(sensor.device.indicate_subscribers(control, answer))  # noqa: RUF006  it ends at once

    async def serve(sensor: Attacker, connection: Connection) -> None:
        connected_at_s.append(asyncio.get_running_loop().time())
        while True:
            await asyncio.sleep(0.5)
            await sensor.device.notify_subscribers(data, PPG_FRAME)
            if len(connected_at_s) > 1 or asyncio.get_running_loop().time() < connected_at_s[0] + ECG_STOPS_S:
                await sensor.device.notify_subscribers(data, ECG_FRAME)

    control = Characteristic(
        UUID(CONTROL_POINT),
        PROPERTIES.INDICATE | PROPERTIES.READ | PROPERTIES.WRITE,
        Characteristic.READABLE | Characteristic.WRITEABLE,
        CharacteristicValue(read=tell_features, write=on_write),
    )
    data = Characteristic(UUID(DATA), NOTIFY, Characteristic.Permissions(0), b"")
    sensor = Attacker([Service(UUID(SERVICE), [control, data])], serve)
    return sensor


def test_an_ecg_that_stops_while_the_ppg_goes_on_is_noticed_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    connected_at_s: list[float] = []
    outcome = attack(make_sensor(connected_at_s), 60)
    assert "silent" in outcome.attacker.states
    assert len(connected_at_s) == 2
    assert SILENT_AFTER_S - 1 <= connected_at_s[1] - connected_at_s[0] - ECG_STOPS_S <= SILENT_AFTER_S + 5
    texts = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "attacker: connected, but its stream ECG fell silent" in texts
