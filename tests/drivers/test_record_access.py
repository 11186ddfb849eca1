"""Record access against a scripted sensor: the requests byte by byte, every answer, time-outs, late records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.conversation import Context, Effect, Moment, Procedure, Remember, Value, do_nothing
from drivers.readings import Status, Vital
from drivers.record_access import (
    ABORT,
    CONTROL_POINT,
    MAX_REQUESTS,
    OMRON_SEQUENCE_NUMBER,
    REPORT_ALL,
    REPORT_NUMBER,
    RecordTransfer,
    decode_record_access,
    is_answer,
    report_from_sequence,
    report_from_time,
)
from drivers.spec import Characteristic, DriverSpec, uuid16
from tests.drivers.player import Player, Sensor, open_connection
from tests.drivers.record_sensor import RecordSensor

RECORDS: Final = uuid16(0xFFF1)
OTHER: Final = uuid16(0xFFF2)


class Conversation:
    """The smallest driver of a sensor with records: each holds its sequence number, and the last one is remembered."""

    def __init__(self, context: Context) -> None:
        self._last = context.memory.get("last")
        self._transfer = RecordTransfer(RECORDS)

    def start(self, now: Moment) -> Procedure:
        del now
        return self._transfer.run(lambda: REPORT_ALL if self._last is None else report_from_sequence(self._last))

    def receive(self, value: Value) -> tuple[Effect, ...]:
        if value.characteristic == CONTROL_POINT:
            return decode_record_access(value.payload)
        if value.characteristic != RECORDS or self._transfer.is_aborted:
            return ()
        self._last = int.from_bytes(value.payload, "little")
        return Vital("weight", self._last), Remember({"last": self._last})

    def stop(self) -> Procedure:
        return do_nothing()


DRIVER: Final = DriverSpec(
    "records",
    uuid16(0xFFF0),
    (Characteristic(RECORDS, "notify"), Characteristic(CONTROL_POINT, "indicate")),
    converse=Conversation,
)


def record(number: int) -> bytes:
    return number.to_bytes(2, "little")


def sensor(numbers: range, **behaviour: Any) -> RecordSensor:
    return RecordSensor(RECORDS, [record(number) for number in numbers], **behaviour)


def filtering_sensor(numbers: range, **behaviour: Any) -> RecordSensor:
    """A sensor that selects by sequence number."""
    made = sensor(numbers, **behaviour)

    def select(filter_type: int, lowest: bytes) -> list[bytes]:
        assert filter_type == 1
        return [one for one in made.records if int.from_bytes(one, "little") >= int.from_bytes(lowest, "little")]

    made.select = select
    return made


def connect(device: Sensor, memory: Mapping[str, Any] | None = None) -> Player:
    return open_connection(DRIVER, device, memory).start()


def fetched(player: Player) -> list[float]:
    return [reading.value for reading in player.readings if isinstance(reading, Vital)]


def requests(player: Player) -> list[str]:
    return [payload for _, payload in player.written]


def test_requests_have_the_octets_of_the_specification() -> None:
    assert bytes.fromhex("0101") == REPORT_ALL
    assert bytes.fromhex("0401") == REPORT_NUMBER
    assert bytes.fromhex("0300") == ABORT
    assert report_from_sequence(5) == bytes.fromhex("0103010500")
    # StanfordSpezi/SpeziDevices@f6d0b16f SpeziOmronTests.swift
    assert report_from_sequence(65535, OMRON_SEQUENCE_NUMBER) == bytes.fromhex("010304FFFF")
    assert report_from_time(bytes.fromhex("E9070514081E00")) == bytes.fromhex("010302E9070514081E00")


@pytest.mark.parametrize(
    ("request_hex", "answer", "expected"),
    [
        ("0101", "06000101", True),
        ("0101", "06000108", True),
        ("0101", "06000301", False),
        ("0101", "060001", False),
        ("0101", "0500D204", False),
        ("0401", "0500D204", True),
        ("0401", "0500D2", False),
        ("0401", "06000402", True),
        ("0401", "", False),
        ("0300", "06000307", True),
        ("0300", "06000101", False),
    ],
)
def test_an_answer_is_that_of_its_own_request(request_hex: str, answer: str, *, expected: bool) -> None:
    assert is_answer(bytes.fromhex(request_hex), bytes.fromhex(answer)) is expected


def test_the_first_transfer_asks_for_all_and_the_next_from_the_last_record_on() -> None:
    device = filtering_sensor(range(1, 4))
    first = connect(device)
    assert (requests(first), fetched(first)) == (["0101"], [1, 2, 3])
    assert first.memory == {"last": 3}
    device.records += [record(4), record(5)]
    second = connect(device, first.memory)
    assert (requests(second), fetched(second)) == (["0103010300"], [3, 4, 5])


def test_no_new_record_is_a_success() -> None:
    player = connect(sensor(range(0)))
    assert requests(player) == ["0101"]
    assert player.readings == [
        Status("record_access", "op=response operator=null request=report_stored result=no_records_found")
    ]


@pytest.mark.parametrize("refusal", [3, 4, 5, 9])
def test_a_sensor_that_refuses_the_filter_is_asked_for_all(refusal: int) -> None:
    player = connect(sensor(range(1, 3), filter_refusal=refusal), {"last": 1})
    assert (requests(player), fetched(player)) == (["0103010100", "0101"], [1, 2])


@pytest.mark.parametrize("result", [2, 3, 4, 5, 7, 9, 10, 200])
def test_a_sensor_that_refuses_the_request_for_all_is_left_alone(result: int) -> None:
    assert requests(connect(sensor(range(0), report_result=result))) == ["0101"]


def test_a_refused_write_ends_the_transfer_quietly() -> None:
    assert requests(connect(sensor(range(3), refuses_write=True))) == ["0101"]


def test_an_incomplete_transfer_goes_on_from_the_last_record() -> None:
    player = connect(filtering_sensor(range(1, 8), stops_after=4))
    assert (requests(player), fetched(player)) == (["0101", "0103010400"], [1, 2, 3, 4, 4, 5, 6, 7])


def test_a_repeated_request_leaves_the_sensor_time_to_end_the_last_procedure() -> None:
    (_, first), (again_s, again) = connect(filtering_sensor(range(1, 8), stops_after=4, interval_s=1.0)).written
    assert (first, again) == ("0101", "0103010400")
    assert again_s == pytest.approx(4 * 1.0 + 0.1 + 0.5)


def test_an_incomplete_transfer_of_a_sensor_without_filter_begins_again() -> None:
    player = connect(sensor(range(1, 4), stops_after=2), {"last": 1})
    assert (requests(player), fetched(player)) == (["0103010100", "0101", "0101"], [1, 2, 1, 2, 3])


def test_a_sensor_that_never_completes_is_left_alone() -> None:
    assert len(requests(connect(sensor(range(1, 4), stops_after=2, failures=1000)))) == MAX_REQUESTS


def test_a_lost_answer_ends_in_an_abort_30_s_after_the_last_record() -> None:
    player = connect(sensor(range(1, 4), interval_s=20.0, loses_answer=True))
    assert player.written == [(0.0, "0101"), (90.0, "0300")]
    assert fetched(player) == [1, 2, 3]


def test_values_of_another_stream_do_not_prolong_the_time_out() -> None:
    player = open_connection(DRIVER, sensor(range(0), loses_answer=True))
    for second in range(100):
        player.send(OTHER, b"", second)
    assert player.start().written == [(0.0, "0101"), (30.0, "0300")]


def test_records_after_an_abort_are_dropped_and_asked_for_again() -> None:
    device = filtering_sensor(range(1, 3), loses_answer=True, late=[(0.05, record(8)), (1.0, record(9))])
    player = connect(device)
    player.play(60)
    assert fetched(player) == [1, 2]
    assert player.memory == {"last": 2}
    device.loses_answer, device.records = False, [record(number) for number in (1, 2, 3, 8, 9)]
    assert fetched(connect(device, player.memory)) == [2, 3, 8, 9]


def test_a_sensor_that_cannot_abort_is_waited_for() -> None:
    device = sensor(
        range(1, 3), loses_answer=True, cannot_abort=True, late=[(5.0, record(3)), (34.0, record(4)), (99.0, record(5))]
    )
    player = connect(device)
    assert fetched(player) == [1, 2, 3, 4]
    player.play(60)
    assert fetched(player) == [1, 2, 3, 4]


@dataclass
class AnySensor:
    """Sends what it is told to, one list of values for each write."""

    script: list[list[tuple[float, str, bytes]]] = field(default_factory=list)

    def read(self, characteristic: str) -> bytes | None:
        return None if characteristic else b""

    def write(self, characteristic: str, payload: bytes) -> list[tuple[float, str, bytes]]:
        assert characteristic == CONTROL_POINT
        assert payload[0] in (1, 3), "only reports and aborts are ever written"
        return self.script.pop(0) if self.script else []


answers = st.builds(lambda op, result: bytes((6, 0, op, result)), st.sampled_from([1, 3, 4]), st.integers(0, 12))
values = st.tuples(st.just(CONTROL_POINT), answers | st.binary(max_size=6)) | st.tuples(
    st.just(RECORDS), st.binary(min_size=2, max_size=2)
)
sent = st.builds(lambda after_s, value: (after_s, *value), st.floats(0, 100), values)


@given(script=st.lists(st.lists(sent, max_size=8), max_size=8), last=st.none() | st.integers(0, 65535))
def test_any_sensor_leads_to_an_end_and_is_never_told_to_delete(
    script: list[list[tuple[float, str, bytes]]], last: int | None
) -> None:
    player = connect(AnySensor(script), {} if last is None else {"last": last})
    assert 1 <= len([payload for payload in requests(player) if payload.startswith("01")]) <= MAX_REQUESTS
    assert len([payload for payload in requests(player) if payload == "0300"]) <= 1
    assert player.now_s <= 100 * 9 + 31 * (MAX_REQUESTS + 2)
