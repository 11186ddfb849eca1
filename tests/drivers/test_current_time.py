"""A sensor's clock: its difference from the hub's, when it is written, the octets, and every refusal."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.codec import Reader
from drivers.conversation import Context, Moment, Read, RefusedError
from drivers.current_time import CURRENT_TIME, DRIVER, encode_current_time, local_time
from drivers.readings import Quarantined, Reading, Status
from drivers.registry import load_drivers
from tests.drivers.player import START_US, Sent, connect

START: Final = local_time(Moment(START_US))
"""The patient's local time when the player starts: 2026-09-21 14:13:20."""


@dataclass
class Clock:
    """A sensor with a clock."""

    value: bytes | None
    is_read_only: bool = False
    set_to: list[bytes] = field(default_factory=list)

    def read(self, characteristic: str) -> bytes | None:
        return self.value if characteristic == CURRENT_TIME else None

    def write(self, characteristic: str, payload: bytes) -> Iterable[Sent]:
        assert characteristic == CURRENT_TIME
        if self.is_read_only:
            raise RefusedError("write not permitted (0x03)")
        self.set_to.append(payload)
        return ()


def time_of(at: datetime, fraction_256: int = 0) -> bytes:
    """A Current Time of this date and time, in the layout of the GATT Specification Supplement."""
    head = (at.year & 0xFF, at.year >> 8, at.month, at.day, at.hour, at.minute, at.second)
    return bytes((*head, at.isoweekday(), fraction_256, 0))


def readings_of(clock: Clock) -> list[Reading]:
    return connect(DRIVER, clock).readings


def statuses(readings: Iterable[Reading]) -> dict[str, object]:
    return {reading.kind: reading.value for reading in readings if isinstance(reading, Status)}


@pytest.mark.parametrize(
    ("off_by_s", "is_written"),
    [(0, False), (60, False), (-60, False), (61, True), (-61, True), (3600, True), (-9 * 365 * 86400, True)],
)
def test_a_clock_is_written_only_if_it_is_off_by_more_than_a_minute(off_by_s: int, *, is_written: bool) -> None:
    clock = Clock(time_of(START + timedelta(seconds=off_by_s)))
    reported = statuses(readings_of(clock))
    assert reported["sensor_clock_offset_s"] == off_by_s
    assert reported.get("sensor_clock_written") is (True if is_written else None)
    assert clock.set_to == ([bytes.fromhex("EA0709150E0D14010001")] if is_written else [])


def test_a_hub_whose_clock_cannot_be_right_sets_no_clock() -> None:
    assert DRIVER.converse is not None
    procedure = DRIVER.converse(Context()).start(Moment(0, is_plausible=False))
    assert next(procedure) == Read(CURRENT_TIME)
    steps = [procedure.send(time_of(START)), *procedure]
    assert [step.kind for step in steps if isinstance(step, Status)] == [
        *("sensor_time", "sensor_time_fraction_256", "sensor_time_weekday")
    ]
    assert len(steps) == 3


def test_the_offset_counts_the_fraction_of_the_second() -> None:
    assert statuses(readings_of(Clock(time_of(START, 128))))["sensor_clock_offset_s"] == 0.5


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ("00000000000000000000", "unknown"),
        ("E9070101180000010000", "invalid"),
        ("EA070000000000000000", "unknown"),
    ],
)
def test_a_clock_without_a_date_is_written_and_has_no_offset(sent: str, text: str) -> None:
    clock = Clock(bytes.fromhex(sent))
    reported = statuses(readings_of(clock))
    assert (reported["sensor_time"], reported["sensor_clock_written"]) == (text, True)
    assert "sensor_clock_offset_s" not in reported
    assert len(clock.set_to) == 1


def test_a_clock_that_cannot_be_read_is_left_alone() -> None:
    clock = Clock(None)
    assert readings_of(clock) == []
    assert clock.set_to == []


def test_a_refusal_to_be_set_is_reported_and_nothing_else() -> None:
    clock = Clock(time_of(START - timedelta(hours=2)), is_read_only=True)
    reported = statuses(readings_of(clock))
    assert (reported["sensor_clock_offset_s"], reported["sensor_clock_written"]) == (-7200, False)


@pytest.mark.parametrize("sent", ["", "E907010F0E1E2D0321", "E1070A1D001C0008", "E907010F0E1E2D03210100"])
def test_a_value_of_another_layout_is_quarantined_and_never_overwritten(sent: str) -> None:
    clock = Clock(bytes.fromhex(sent))
    (reading,) = readings_of(clock)
    assert isinstance(reading, Quarantined)
    assert (reading.characteristic, reading.payload) == (CURRENT_TIME, clock.value)
    assert clock.set_to == []


@pytest.mark.parametrize(
    ("utc", "utc_offset_s", "octets"),
    [
        # The octets that a scale was seen to be given: KristianP26/ble-scale-sync issues/168.
        (datetime(2026, 5, 12, 16, 53, 43, 66500, UTC), 7200, "EA07050C12352B021101"),
        (datetime(2025, 1, 15, 14, 30, 45, 130000, UTC), 0, "E907010F0E1E2D032101"),
        (datetime(2026, 12, 31, 23, 59, 59, 999999, UTC), 0, "EA070C1F173B3B04FF01"),
        (datetime(2026, 12, 31, 23, 30, 0, 0, UTC), 3600, "EB07010100" + "1E00050001"),
        (datetime(2024, 2, 29, 3, 0, 0, 0, UTC), -4 * 3600, "E807021C170000030001"),
        (datetime(2026, 11, 29, 12, 0, 0, 0, UTC), 0, "EA070B1D0C0000070001"),
    ],
)
def test_the_ten_octets_are_the_patients_local_time(utc: datetime, utc_offset_s: int, octets: str) -> None:
    moment = Moment((utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1), utc_offset_s)
    assert encode_current_time(moment).hex().upper() == octets


@given(utc_us=st.integers(0, 7_900_000_000_000_000), utc_offset_s=st.integers(-50_400, 50_400))
def test_a_clock_that_was_set_reads_the_same_second(utc_us: int, utc_offset_s: int) -> None:
    now = Moment(utc_us + 86_400_000_000, utc_offset_s)
    written = encode_current_time(now)
    assert len(written) == 10
    assert Reader(written).measured_time("time").at == local_time(now).replace(microsecond=0)


def test_the_clock_comes_before_every_other_set_up() -> None:
    others = [driver for driver in load_drivers().drivers if driver.name != DRIVER.name]
    assert all(DRIVER.setup_rank < driver.setup_rank for driver in others)
