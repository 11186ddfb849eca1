"""Heart Rate Service 1.0 (Bluetooth SIG): rate, skin contact, energy expended, R-R intervals and body location."""

from typing import Final

from drivers.codec import Reader
from drivers.readings import DecodeError, Intervals, Reading, Status, Vital
from drivers.spec import Characteristic, DriverSpec, uuid16

_UINT16_RATE: Final = 1 << 0
_CONTACT_DETECTED: Final = 1 << 1
_CONTACT_SUPPORTED: Final = 1 << 2
_ENERGY: Final = 1 << 3
_INTERVALS: Final = 1 << 4

_BODY_LOCATIONS: Final = ("other", "chest", "wrist", "finger", "hand", "ear lobe", "foot")
"""Body Sensor Location, by number."""

_FILLER_TICKS: Final = 512
"""Exactly 500 ms: some sensors send this constant where they have not measured an interval."""
_FILLER_RATES: Final = range(114, 127)
"""Heart rates (1/min) that agree with intervals of 500 ms: 120/min within 5 %, because the rate is a mean over seconds."""


def decode_measurement(payload: bytes) -> tuple[Reading, ...]:
    """Heart Rate Measurement, 0x2A37 (section 3.1).

    Yields the heart rate in 1/min, then the optional fields of the frame: skin contact where the sensor detects it, energy in
    kJ, intervals in ticks of 1/1024 s, oldest first. A rate of 0, sent until a pulse is found, has the flag `no_pulse_found`.

    Where all intervals are the filler constant and contradict the rate, the rate has the flag `rr_filler`. The intervals then
    have the kind `rr_filler`, and rhythm analysis ignores them. A single filler beside a nonzero rate keeps the kind `rr`,
    because it may be the interval of a premature beat.

    Reserved flags are ignored, as the Core Specification requires. Bytes that no flag announces are an error.
    """
    reader = Reader(payload)
    flags = reader.u8("flags")
    rate = reader.u16("heart rate") if flags & _UINT16_RATE else reader.u8("heart rate")
    energy = reader.u16("energy expended") if flags & _ENERGY else None
    ticks = _read_intervals(reader) if flags & _INTERVALS else ()
    reader.expect_end()

    is_filler = bool(ticks) and set(ticks) == {_FILLER_TICKS} and rate not in _FILLER_RATES
    readings: list[Reading] = [Vital("heart_rate", rate, _rate_flags(rate, is_filler=is_filler))]
    if flags & _CONTACT_SUPPORTED:
        readings.append(Status("skin_contact", bool(flags & _CONTACT_DETECTED)))
    if energy is not None:
        readings.append(Vital("energy", energy))
    if ticks:
        are_not_beats = is_filler and (len(ticks) > 1 or rate == 0)
        readings.append(Intervals("rr_filler" if are_not_beats else "rr", ticks))
    return tuple(readings)


def decode_body_sensor_location(payload: bytes) -> tuple[Reading, ...]:
    """Body Sensor Location, 0x2A38 (section 3.2)."""
    reader = Reader(payload)
    number = reader.u8("body sensor location")
    reader.expect_end()
    if number >= len(_BODY_LOCATIONS):
        raise DecodeError(f"body sensor location: {number} is reserved; the service defines 0 to {len(_BODY_LOCATIONS) - 1}")
    return (Status("sensor_location", _BODY_LOCATIONS[number]),)


def _read_intervals(reader: Reader) -> tuple[int, ...]:
    """The intervals at the end of the frame: up to 9 at the default MTU, more at a larger one."""
    if reader.remaining % 2:
        raise DecodeError(f"R-R intervals: {reader.remaining} bytes are not a whole number of 2-byte intervals")
    return tuple(reader.u16("R-R interval") for _ in range(reader.remaining // 2))


def _rate_flags(rate: int, *, is_filler: bool) -> tuple[str, ...]:
    return (("no_pulse_found",) if rate == 0 else ()) + (("rr_filler",) if is_filler else ())


DRIVER: Final = DriverSpec(
    name="heart_rate",
    service=uuid16(0x180D),
    # A measurement comes about once a second (section 3.1); ten missing in a row exceed any normal radio loss.
    streams=(Characteristic(uuid16(0x2A37), "notify", decode_measurement, silent_after_s=10.0),),
    reads=(Characteristic(uuid16(0x2A38), "read", decode_body_sensor_location),),
)
