"""The hub's time as drivers see it: the patient's local time in summer and winter, and a clock that cannot be right."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from drivers.current_time import local_time
from gateway.sensor_link import moment_of
from gateway.timeline import Arrival


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(utc: str) -> Arrival:
    return Arrival(round(datetime.fromisoformat(utc).replace(tzinfo=UTC).timestamp() * 1e6), 0)


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("utc", "local"),
    [
        ("2026-03-29T00:59:59", "2026-03-29T01:59:59"),
        ("2026-03-29T01:00:00", "2026-03-29T03:00:00"),
        ("2026-10-25T00:59:59", "2026-10-25T02:59:59"),
        ("2026-10-25T01:00:00", "2026-10-25T02:00:00"),
        ("2026-12-31T23:30:00", "2027-01-01T00:30:00"),
    ],
)
def test_sensors_are_set_to_the_patients_local_time_of_that_moment(utc: str, local: str) -> None:
    assert local_time(moment_of(at(utc))) == datetime.fromisoformat(local)


@pytest.mark.parametrize(
    ("utc", "is_plausible"),
    [
        ("1970-01-01T00:05:00", False),
        ("2016-11-03T17:16:40", False),
        ("2024-12-31T23:59:59", False),
        ("2025-01-01T00:00:00", True),
        ("2060-01-01T00:00:00", True),
        ("2100-01-01T00:00:00", False),
    ],
)
def test_a_clock_that_was_never_set_is_not_plausible(utc: str, *, is_plausible: bool) -> None:
    assert moment_of(at(utc)).is_plausible is is_plausible
