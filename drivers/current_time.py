"""Current Time Service 1.1 (Bluetooth SIG): reads a sensor's clock, and sets it where it is wrong."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from drivers.codec import MeasuredTime, Reader
from drivers.conversation import Context, Effect, Moment, Procedure, Read, RefusedError, Value, Write, do_nothing
from drivers.device import Quirk
from drivers.readings import DecodeError, Quarantined, Reading, Status
from drivers.spec import Characteristic, DriverSpec, uuid16

CURRENT_TIME: Final = uuid16(0x2A2B)
LOCAL_TIME_INFORMATION: Final = uuid16(0x2A0F)

MAX_OFFSET_S: Final = 60.0
"""A clock that is off by more is set. Below, a rewrite would move the times of a sensor's readings for no clinical use."""

_FRACTION_AT: Final = 8
"""The position of the fraction of the second, after the date, the time and the day of the week."""
_MANUAL_UPDATE: Final = 1 << 0
_ADJUST_REASONS: Final = ("manual", "external", "time_zone", "dst")
"""Adjust reason, section 3.1.2.1, by bit."""

_TIME_SOURCES: Final = ("unknown", "network", "gps", "radio", "manual", "atomic_clock", "cellular")
_ACCURACY_STEP_S: Final = 0.125
_MAX_ACCURACY: Final = 253
_MANY: Final = 255
"""Reference Time Information, section 3.3: sources by number, unit and largest value of the accuracy, 255 days and more."""

_QUARTER_HOUR_MIN: Final = 15
_TIME_ZONES: Final = range(-48, 57)
_UNKNOWN_TIME_ZONE: Final = -128
_DST_OFFSETS_MIN: Final[Mapping[int, int | str]] = {0: 0, 2: 30, 4: 60, 8: 120, 255: "unknown"}
"""GATT Specification Supplement, "Time Zone" and "DST Offset"."""


def decode_current_time(payload: bytes) -> tuple[Reading, ...]:
    """Current Time, 0x2A2B (section 3.1): exactly 10 octets.

    Yields `sensor_time` in ISO form, "unknown" for a date of zeros, "invalid" for one that does not exist; then the fraction of
    the second, the day of the week where the sensor knows it, and the reasons of the last adjustment, if any.
    """
    reader = Reader(payload)
    time = reader.measured_time("date and time")
    weekday, fraction, reason = reader.u8("day of week"), reader.u8("fraction"), reader.u8("adjust reason")
    reader.expect_end()
    readings = [
        Status("sensor_time", time.at.isoformat() if time.at else time.clock),
        Status("sensor_time_fraction_256", fraction),
    ]
    if weekday:
        readings.append(Status("sensor_time_weekday", weekday))
    reasons = [name for bit, name in enumerate(_ADJUST_REASONS) if reason >> bit & 1]
    if reasons:
        readings.append(Status("sensor_time_adjusted", ", ".join(reasons)))
    return tuple(readings)


def decode_date_time(payload: bytes) -> tuple[Reading, ...]:
    """Decode the sensor's own date and time, local: a status in ISO 8601 form, "unknown" or "invalid"."""
    reader = Reader(payload)
    sent = reader.measured_time("date and time")
    reader.expect_end()
    return (Status("sensor_time", sent.at.isoformat() if sent.at else sent.clock),)


def decode_huami_time(payload: bytes) -> tuple[Reading, ...]:
    """Current Time of Mi Bands and Amazfit watches: the standard octets, or date and time alone; then quarter hours of zone."""
    time = payload[:-1]
    reader = Reader(payload[len(time) :])
    zone = Status("sensor_utc_offset", reader.i8("time zone") * _QUARTER_HOUR_MIN)
    return (*(decode_date_time(time) if len(time) <= _FRACTION_AT else decode_current_time(time)), zone)


def decode_local_time_information(payload: bytes) -> tuple[Reading, ...]:
    """Local Time Information, 0x2A0F (section 3.2): the time zone and the daylight saving time in minutes, or "unknown"."""
    reader = Reader(payload)
    zone, dst = reader.i8("time zone"), reader.u8("DST offset")
    reader.expect_end()
    if zone not in _TIME_ZONES and zone != _UNKNOWN_TIME_ZONE:
        raise DecodeError(f"time zone: {zone} is reserved; it is -48 to 56 quarter hours, or -128 for unknown")
    if dst not in _DST_OFFSETS_MIN:
        raise DecodeError(f"DST offset: {dst} is reserved; it is one of {sorted(_DST_OFFSETS_MIN)}")
    return (
        Status("sensor_utc_offset", "unknown" if zone == _UNKNOWN_TIME_ZONE else zone * _QUARTER_HOUR_MIN),
        Status("sensor_dst_offset", _DST_OFFSETS_MIN[dst]),
    )


def decode_reference_time_information(payload: bytes) -> tuple[Reading, ...]:
    """Reference Time Information, 0x2A14 (section 3.3): the source of the time, its accuracy and the age of its last update.

    The text leaves out an accuracy that is unknown or worse than 31.6 s, and an age of 255 days and more.
    """
    reader = Reader(payload)
    source, accuracy = reader.u8("source"), reader.u8("accuracy")
    days, hours = reader.u8("days since the update"), reader.u8("hours since the update")
    reader.expect_end()
    parts = [f"source={_TIME_SOURCES[source] if source < len(_TIME_SOURCES) else 'unknown'}"]
    parts += [f"accuracy_s={accuracy * _ACCURACY_STEP_S:g}"] if accuracy <= _MAX_ACCURACY else []
    parts += [f"days={days} hours={hours}"] if days < _MANY else []
    return (Status("sensor_time_reference", " ".join(parts)),)


def local_time(now: Moment) -> datetime:
    """Return the patient's local time, without a time zone as sensors keep it."""
    utc = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now.utc_us, seconds=now.utc_offset_s)
    return utc.replace(tzinfo=None)


def encode_current_time(now: Moment) -> bytes:
    """Return the 10 octets that set a clock to the patient's local time. The day of the week is 1 for Monday."""
    time = local_time(now)
    fraction = time.microsecond * 256 // 1_000_000
    parts = (time.month, time.day, time.hour, time.minute, time.second, time.isoweekday(), fraction, _MANUAL_UPDATE)
    return time.year.to_bytes(2, "little") + bytes(parts)


def measure_offset_s(time: MeasuredTime, fraction_256: int, now: Moment) -> float | None:
    """Return the sensor's clock minus the patient's local time; None where the sensor has no date."""
    return (time.at - local_time(now)).total_seconds() + fraction_256 / 256 if time.at else None


class _ClockConversation:
    """Compares the sensor's clock with the hub's, and sets it where it is wrong. A sensor that refuses keeps its clock."""

    def start(self, now: Moment) -> Procedure:
        """Yields the time that the sensor has, `sensor_clock_offset_s`, and `sensor_clock_written` where it had to be set."""
        payload = yield Read(CURRENT_TIME)
        if payload is None:
            return
        try:
            yield from decode_current_time(payload)
        except DecodeError as error:
            yield Quarantined(CURRENT_TIME, payload, str(error))
            return
        if not now.is_plausible:
            return
        time = Reader(payload).measured_time("date and time")
        offset_s = measure_offset_s(time, payload[_FRACTION_AT], now)
        if offset_s is not None:
            yield Status("sensor_clock_offset_s", offset_s)
        if offset_s is None or abs(offset_s) > MAX_OFFSET_S:
            try:
                yield Write(CURRENT_TIME, encode_current_time(now))
            except RefusedError:
                yield Status("sensor_clock_written", False)
            else:
                yield Status("sensor_clock_written", True)

    def receive(self, value: Value) -> tuple[Effect, ...]:
        """Nothing: the stream has a decoder."""
        del value
        return ()

    def stop(self) -> Procedure:
        return do_nothing()


def _converse(context: Context) -> _ClockConversation:
    del context
    return _ClockConversation()


DRIVER: Final = DriverSpec(
    name="current_time",
    service=uuid16(0x1805),
    # A sensor sends its time only when it was adjusted.
    streams=(Characteristic(CURRENT_TIME, "notify", decode_current_time, is_optional=True),),
    reads=(Characteristic(LOCAL_TIME_INFORMATION, "read", decode_local_time_information),),
    others=(Characteristic(uuid16(0x2A14), "read", decode_reference_time_information),),
    quirks=(
        Quirk(
            why="adds the time zone, and may leave out what follows the time (Gadgetbridge@a0948ee1, BLETypeConversions)",
            models=("Mi Band", "Amazfit"),
            decode={CURRENT_TIME: decode_huami_time},
        ),
    ),
    converse=_converse,
    # Before everything else: before a user is chosen and before records are asked for.
    setup_rank=-100,
    sets_clock=True,
)
