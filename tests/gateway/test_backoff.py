"""The pauses between connections: their classes, their growth, and what ends them early."""

import asyncio
from pathlib import Path
from typing import get_args

import pytest
from bleak.exc import BleakDBusError, BleakError
from bumble.device import Connection
from bumble.gatt import Service

from gateway.backoff import BACKOFFS, FRESH_AFTER_S, JITTER, Failure, choose_pause_s, classify_failure
from gateway.sensor_limits import SensorLimitError
from tests.gateway.hostile_testbed import Attacker, attack, stream, uuid16, wait_subscribed

IN_PROGRESS = BleakDBusError("org.bluez.Error.InProgress", ["Operation already in progress"])


PAGE = Path(__file__).parents[2] / "docs" / "connections.md"


def test_the_table_in_the_docs_is_that_of_the_code() -> None:
    text = PAGE.read_text()
    for failure, backoff in BACKOFFS.items():
        pauses = ", ".join(f"{pause_s:g}" for pause_s in backoff.pauses_s)
        fresh = "yes" if backoff.ends_when_fresh else "no"
        assert f"| `{failure}` | {pauses} | {fresh} | {backoff.why} |" in text


def test_every_class_has_pauses_that_grow_to_their_last() -> None:
    assert set(BACKOFFS) == set(get_args(Failure))
    for failure, backoff in BACKOFFS.items():
        assert list(backoff.pauses_s) == sorted(backoff.pauses_s)
        low, high = JITTER
        for failures in (1, 2, 100):
            pause_s = backoff.pauses_s[min(failures, len(backoff.pauses_s)) - 1]
            drawn = [choose_pause_s(failure, failures) for _ in range(50)]
            assert all(pause_s * low <= each <= pause_s * high for each in drawn)
            assert len(set(drawn)) > 1, "without jitter, the sensors of a hub retry at once"


@pytest.mark.parametrize(
    ("error", "was_connected", "expected"),
    [
        (IN_PROGRESS, False, "radio_busy"),
        (IN_PROGRESS, True, "set_up_failed"),
        (TimeoutError(), False, "connect_timed_out"),
        (BleakError("le-connection-abort-by-local"), False, "connect_failed"),
        (KeyError("whatever a stack raises"), False, "connect_failed"),
        (BleakError("the link was lost"), True, "set_up_failed"),
        (SensorLimitError("too much"), True, "over_limits"),
    ],
)
def test_what_ended_a_connection_has_a_class(error: Exception, was_connected: bool, expected: Failure) -> None:
    assert classify_failure(error, was_connected=was_connected) == expected


def test_a_sensor_that_was_switched_off_and_on_is_connected_at_once() -> None:
    """After many failures in a row the pause is half a minute, and somebody has just pressed the button."""
    connected_at_s: list[float] = []
    off_s = FRESH_AFTER_S + 2

    async def serve(attacker: Attacker, connection: Connection) -> None:
        connected_at_s.append(asyncio.get_running_loop().time())
        await wait_subscribed(attacker, connection, 0x2A37)
        await asyncio.sleep(0.5)
        if len(connected_at_s) == 8:
            asyncio.get_running_loop().create_task(switch_off_and_on(attacker))
        if len(connected_at_s) <= 8:
            await connection.disconnect()

    async def switch_off_and_on(attacker: Attacker) -> None:
        await asyncio.sleep(0.2)
        await attacker.device.stop_advertising()
        await asyncio.sleep(off_s)
        await attacker.device.start_advertising(auto_restart=True)

    attacker = Attacker([Service(uuid16(0x180D), [stream(0x2A37)])], serve)
    attack(attacker, 300)
    assert len(connected_at_s) > 8
    assert connected_at_s[8] - connected_at_s[7] < off_s + 3
