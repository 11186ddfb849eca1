"""The emulated oximeter as a hub sees it, by a plain central that parses payloads itself."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import virtual_time
from gateway.radio.virtual import VirtualLink
from gateway.simulate.peripherals import record_access
from gateway.simulate.peripherals.oximeter import LOW_PERFUSION, Oximeter
from gateway.simulate.peripherals.record_access import RequestError, parse_request
from gateway.simulate.peripherals.services import follow_loop
from tests.simulate.plain_hub import START, PlainHub, att_error_of, make_sensor_device, now_s, run_sensor

SPOT, CONTINUOUS, FEATURES, RECORDS = "2A5E", "2A5F", "2A60", "2A52"
REPORT_ALL = b"\x01\x01"


def run_with_oximeter(scenario: Callable[[Oximeter, PlainHub], Awaitable[None]], operators: tuple[int, ...] = (1,)) -> None:
    async def run() -> None:
        link = VirtualLink()
        oximeter = Oximeter(make_sensor_device(link), follow_loop(START), operators=operators)
        async with run_sensor(link, oximeter) as hub:
            await scenario(oximeter, hub)

    virtual_time.run(run())


async def store_records(oximeter: Oximeter, count: int) -> None:
    for number in range(count):
        await oximeter.measure(90 + number, 60, seconds=5)


async def open_records(oximeter: Oximeter, hub: PlainHub) -> None:
    oximeter.insert_finger(99, 60)
    await hub.connect()
    await hub.subscribe(SPOT, RECORDS)


async def ask(hub: PlainHub, request: bytes, seconds: float = 2.0) -> bytes:
    """Return the control point's answer."""
    before = len(hub.values(RECORDS))
    await hub.write(RECORDS, request)
    await asyncio.sleep(seconds)
    (answer,) = hub.values(RECORDS)[before:]
    return answer


def test_continuous_values_come_every_second_and_the_spot_check_at_the_end() -> None:
    async def scenario(oximeter: Oximeter, hub: PlainHub) -> None:
        assert await hub.wait_advertisement() is None
        oximeter.insert_finger(96, 72)
        await hub.connect()
        await hub.subscribe(CONTINUOUS, indications=False)
        await hub.subscribe(SPOT)
        await asyncio.sleep(5.5)
        oximeter.insert_finger(88, 75, device_status=LOW_PERFUSION)
        await asyncio.sleep(1)
        oximeter.lose_signal()
        await asyncio.sleep(1)
        oximeter.insert_finger(95, 71)
        await oximeter.remove_finger()
        removed_s = now_s()
        await hub.wait_disconnected()
        assert now_s() - removed_s == pytest.approx(10, abs=0.5)
        *steady, low, lost = hub.values(CONTINUOUS)
        assert {value.hex() for value in steady} == {"1c6000480020000000002af0"}
        assert low.hex() == "1c58004b0020002000002af0"
        assert lost.hex() == "0cff07ff072000000800"
        times = [at_s for at_s, uuid, _ in hub.received if uuid == CONTINUOUS]
        assert [after - before for before, after in pairwise(times)] == pytest.approx([1.0] * 6)
        (spot,) = hub.values(SPOT)
        assert spot.hex() == "0f5f004700ea070b1e08000c80000000002af0"
        assert oximeter.records == {}
        assert await hub.wait_advertisement() is None

    run_with_oximeter(scenario)


def test_spot_checks_without_a_hub_are_stored_and_reported() -> None:
    async def scenario(oximeter: Oximeter, hub: PlainHub) -> None:
        oximeter.clock.reset()
        await store_records(oximeter, 3)
        await open_records(oximeter, hub)
        assert await ask(hub, b"\x04\x01") == bytes.fromhex("0500 0300")
        assert await ask(hub, REPORT_ALL) == bytes.fromhex("06000101")
        spots = hub.values(SPOT)
        assert [struct.unpack_from("<H", spot, 1)[0] for spot in spots] == [90, 91, 92]
        assert all(spot[0] == 0x1F for spot in spots)  # the clock is not set
        assert all(spot[5:9] == bytes.fromhex("e3070101") for spot in spots)
        assert all(spot[12:14] == bytes.fromhex("8002") for spot in spots)  # validated, from storage
        last_spot_s, answered_s = hub.received[-2][0], hub.received[-1][0]
        assert last_spot_s <= answered_s
        assert len(await hub.read(FEATURES)) == 7
        assert len(oximeter.records) == 3

    run_with_oximeter(scenario)


@pytest.mark.parametrize(
    ("request_hex", "answer_hex"),
    [
        ("0101", "06000106"),  # no records
        ("0100", "06000103"),  # invalid operator
        ("0105", "06000104"),  # operator not supported
        ("0109", "06000104"),
        ("010100", "06000105"),  # an octet after "all"
        ("0201", "06000202"),  # deleting is not offered
        ("0300", "06000307"),  # nothing to abort
        ("0700", "06000702"),
        ("0400", "06000403"),
    ],
)
def test_other_requests_are_refused_with_a_reason(request_hex: str, answer_hex: str) -> None:
    async def scenario(oximeter: Oximeter, hub: PlainHub) -> None:
        await open_records(oximeter, hub)
        assert (await ask(hub, bytes.fromhex(request_hex))).hex() == answer_hex

    run_with_oximeter(scenario)


def test_a_request_needs_both_subscriptions() -> None:
    async def scenario(oximeter: Oximeter, hub: PlainHub) -> None:
        oximeter.insert_finger(96, 70)
        await hub.connect()
        assert await att_error_of(hub.write(RECORDS, REPORT_ALL)) == 0xFD
        await hub.subscribe(RECORDS)
        assert await att_error_of(hub.write(RECORDS, REPORT_ALL)) == 0xFD
        await hub.subscribe(SPOT)
        assert await ask(hub, REPORT_ALL) == bytes.fromhex("06000106")

    run_with_oximeter(scenario)


def test_one_procedure_runs_at_a_time_and_can_be_aborted() -> None:
    async def scenario(oximeter: Oximeter, hub: PlainHub) -> None:
        await store_records(oximeter, 9)
        await open_records(oximeter, hub)
        await hub.write(RECORDS, REPORT_ALL)
        await asyncio.sleep(0.12)
        assert await att_error_of(hub.write(RECORDS, REPORT_ALL)) == 0xFE
        await hub.write(RECORDS, b"\x03\x00")
        await asyncio.sleep(2)
        assert hub.values(RECORDS) == [bytes.fromhex("06000301")]
        assert 0 < len(hub.values(SPOT)) < 9
        oximeter.ignores_abort = True
        await hub.write(RECORDS, REPORT_ALL)
        await asyncio.sleep(0.12)
        await hub.write(RECORDS, b"\x03\x00")
        await asyncio.sleep(2)
        assert hub.values(RECORDS)[1:] == [bytes.fromhex("06000307"), bytes.fromhex("06000101")]

    run_with_oximeter(scenario)


def test_a_report_that_fails_says_so() -> None:
    async def scenario(oximeter: Oximeter, hub: PlainHub) -> None:
        await store_records(oximeter, 3)
        oximeter.fails_after = 2
        await open_records(oximeter, hub)
        assert await ask(hub, REPORT_ALL) == bytes.fromhex("06000108")
        assert len(hub.values(SPOT)) == 2

    run_with_oximeter(scenario)


def test_records_are_selected_by_their_number() -> None:
    async def scenario(oximeter: Oximeter, hub: PlainHub) -> None:
        await store_records(oximeter, 4)
        await open_records(oximeter, hub)
        for request, expected in [
            ("0103 01 0300", [92, 93]),
            ("0102 01 0200", [90, 91]),
            ("0104 01 0200 0300", [91, 92]),
            ("0105", [90]),
            ("0106", [93]),
        ]:
            hub.received.clear()
            assert await ask(hub, bytes.fromhex(request)) == bytes.fromhex("06000101")
            assert [spot[1] for spot in hub.values(SPOT)] == expected
        assert await ask(hub, bytes.fromhex("0103 01 0900")) == bytes.fromhex("06000106")
        assert await ask(hub, bytes.fromhex("0103 02 0900")) == bytes.fromhex("06000109")
        assert await ask(hub, bytes.fromhex("0104 01 0300 0200")) == bytes.fromhex("06000105")

    run_with_oximeter(scenario, operators=(1, 2, 3, 4, 5, 6))


def test_it_advertises_while_a_finger_is_in_it_and_shortly_after() -> None:
    async def scenario(oximeter: Oximeter, hub: PlainHub) -> None:
        oximeter.insert_finger(96, 72)
        await asyncio.sleep(300)
        assert await hub.wait_advertisement() is not None
        await oximeter.remove_finger()
        await asyncio.sleep(9)
        assert await hub.wait_advertisement(0.5) is not None
        await asyncio.sleep(1)
        assert await hub.wait_advertisement(60) is None

    run_with_oximeter(scenario)


def test_a_lost_spot_check_is_stored() -> None:
    async def scenario(oximeter: Oximeter, hub: PlainHub) -> None:
        oximeter.insert_finger(96, 72)
        await hub.connect()
        await hub.subscribe(SPOT)
        oximeter.indicate_then_drop()
        await oximeter.remove_finger()
        await hub.wait_disconnected()
        assert len(oximeter.records) == len(hub.values(SPOT)) == 1
        assert oximeter.sent.confirmed(SPOT) == []

    run_with_oximeter(scenario)


@given(st.binary(max_size=8))
def test_any_request_is_understood_or_refused_with_a_known_code(request: bytes) -> None:
    try:
        selected, code = parse_request(request, operators=range(7)).select(range(5)), record_access.SUCCESS
    except RequestError as error:
        selected, code = [], error.code
    assert set(selected) <= set(range(5))
    assert record_access.SUCCESS <= code <= record_access.OPERAND_NOT_SUPPORTED
