"""Heart Rate Service 1.0 (Bluetooth SIG): rate, skin contact, energy expended, R-R intervals, where the sensor is worn."""

from typing import Final

from drivers.codec import Reader
from drivers.readings import DecodeError, Intervals, Reading, Status, Vital
from drivers.spec import DriverSpec, Stream, uuid16

_UINT16_RATE: Final = 1 << 0
_CONTACT_DETECTED: Final = 1 << 1
_CONTACT_SUPPORTED: Final = 1 << 2
_ENERGY: Final = 1 << 3
_INTERVALS: Final = 1 << 4

_LOCATIONS: Final = ("other", "chest", "wrist", "finger", "hand", "ear lobe", "foot")
"""Body Sensor Location, by its number."""

_FILLER_TICKS: Final = 512
"""Exactly 500 ms, which some sensors send in place of intervals that they do not measure."""
_FILLER_RATES: Final = range(114, 127)
"""Rates in 1/min at which real intervals may all last 500 ms: 120 within 5 %, the rate being an average over seconds."""


def decode_measurement(payload: bytes) -> tuple[Reading, ...]:
    """Heart Rate Measurement, 0x2A37 (section 3.1).

    Yields the heart rate in 1/min, then what else the frame has: skin contact where the sensor can tell, energy in kJ,
    intervals in ticks of 1/1024 s, oldest first. A rate of 0, sent until a pulse is found, carries the flag `no_pulse_found`.

    Intervals that are all the filler constant and contradict the rate flag it `rr_filler`. They are then of that kind too, so
    that no rhythm analysis takes them for beats; but a single one beside a pulse stays `rr`: it may be a premature beat.

    The reserved flags are ignored, as the Core Specification asks; bytes that no flag announces are not.
    """
    reader = Reader(payload)
    flags = reader.u8("flags")
    rate = reader.u16("heart rate") if flags & _UINT16_RATE else reader.u8("heart rate")
    energy = reader.u16("energy expended") if flags & _ENERGY else None
    ticks = _intervals(reader) if flags & _INTERVALS else ()
    reader.end()

    filled = bool(ticks) and set(ticks) == {_FILLER_TICKS} and rate not in _FILLER_RATES
    readings: list[Reading] = [Vital("heart_rate", rate, _rate_flags(rate, filled=filled))]
    if flags & _CONTACT_SUPPORTED:
        readings.append(Status("skin_contact", bool(flags & _CONTACT_DETECTED)))
    if energy is not None:
        readings.append(Vital("energy", energy))
    if ticks:
        no_beats = filled and (len(ticks) > 1 or rate == 0)
        readings.append(Intervals("rr_filler" if no_beats else "rr", ticks))
    return tuple(readings)


def decode_location(payload: bytes) -> tuple[Reading, ...]:
    """Body Sensor Location, 0x2A38 (section 3.2)."""
    reader = Reader(payload)
    number = reader.u8("body sensor location")
    reader.end()
    if number >= len(_LOCATIONS):
        raise DecodeError(f"body sensor location: {number} is reserved, 0 to {len(_LOCATIONS) - 1} are defined")
    return (Status("sensor_location", _LOCATIONS[number]),)


def _intervals(reader: Reader) -> tuple[int, ...]:
    """Up to 9 in a frame of the default MTU, more where the MTU is larger."""
    if reader.remaining % 2:
        raise DecodeError(f"R-R intervals: {reader.remaining} bytes are no whole number of 2-byte intervals")
    return tuple(reader.u16("R-R interval") for _ in range(reader.remaining // 2))


def _rate_flags(rate: int, *, filled: bool) -> tuple[str, ...]:
    return (("no_pulse_found",) if rate == 0 else ()) + (("rr_filler",) if filled else ())


DRIVER: Final = DriverSpec(
    name="heart_rate",
    service=uuid16(0x180D),
    # A measurement comes about once a second (section 3.1); ten missing in a row are no hiccup of the radio.
    streams=(Stream(uuid16(0x2A37), "notify", decode_measurement, silent_after_s=10.0),),
    reads=(Stream(uuid16(0x2A38), "read", decode_location),),
)
