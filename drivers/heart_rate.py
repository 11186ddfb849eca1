"""Heart Rate Service 1.0 (Bluetooth SIG): rate, skin contact, energy expended, R-R intervals and body location.

Watches that serve 0x180D need nothing more. None of them was at hand; the evidence for each is:

- InfiniTime (PineTime): its source. Flags are always 0; without a signal it sends a rate of 0.
- Bangle.js (`bootgatthrm`): its source. The contact bits are constant: contact, whatever the watch's confidence.
- Garmin watches and straps: captured frames (flags 0x10). The service exists only while "broadcast heart rate" is on.
- Wear OS and Pixel Watch: reports of users only, no frame. The service exists only in "connected fitness" mode.
"""

import struct
from functools import partial
from itertools import groupby
from typing import Final

from drivers.codec import Reader
from drivers.device import Quirk
from drivers.readings import TICKS_LIMIT, TICKS_PER_SECOND, DecodeError, Intervals, Reading, Status, Vital
from drivers.spec import Characteristic, DriverSpec, uuid16

_MEASUREMENT: Final = uuid16(0x2A37)

_UINT16_RATE: Final = 1 << 0
_CONTACT_DETECTED: Final = 1 << 1
_CONTACT_SUPPORTED: Final = 1 << 2
_ENERGY: Final = 1 << 3
_INTERVALS: Final = 1 << 4

_BODY_LOCATIONS: Final = ("other", "chest", "wrist", "finger", "hand", "ear lobe", "foot")
"""Body Sensor Location, by number; the service reserves the other numbers."""

MAX_RATE: Final = 250
"""Highest plausible rate, in 1/min: the rate meters of monitors must reach 250/min for neonates (ANSI/AAMI EC13:2002), 200/min
for adults. Many sensors send 255 where they have no rate."""
SHORTEST_TICKS: Final = round(0.2 * TICKS_PER_SECOND)
"""Shortest plausible interval, 0.2 s: 300/min, as fast as the atria conduct to the ventricles."""
LONGEST_TICKS: Final = 4 * TICKS_PER_SECOND
"""Longest plausible interval, 4 s: a pause of 3 s is a finding (ACC/AHA/HRS 2018); in a longer one, beats were missed more
often than not, and the service has no ECG that shows which."""

_FILLER_TICKS: Final = 512
"""Exactly 500 ms: some sensors send this constant where they have not measured an interval."""
_FILLER_RATES: Final = range(114, 127)
"""Heart rates (1/min) that agree with intervals of 500 ms: 120/min within 5 %, because the rate is a mean over seconds."""


def decode_measurement(payload: bytes) -> tuple[Reading, ...]:
    """Heart Rate Measurement, 0x2A37 (section 3.1).

    Yields the heart rate in 1/min, then the optional fields of the frame: skin contact where the sensor detects it, energy in
    kJ, intervals in ticks of 1/1024 s, oldest first (`interval_readings`).

    Flags of the rate: `no_pulse_found` at 0, which sensors send until they find a pulse; `implausible` above `MAX_RATE`;
    `no_contact` where the sensor detects contact and has none; `rr_filler` where all intervals are the filler constant and
    contradict the rate; `zero_interval` where an interval is 0; `rr_flag_without_interval` where the flags announce intervals
    and none follow.

    Reserved flags are ignored, as the Core Specification requires. Bytes that no flag announces are an error, and so is half
    an interval: it would make a plausible value with any other byte.
    """
    return _decode_measurement(payload, TICKS_PER_SECOND)


def decode_millisecond_measurement(payload: bytes) -> tuple[Reading, ...]:
    """Heart Rate Measurement of a sensor that sends its intervals in ms instead of 1/1024 s."""
    return _decode_measurement(payload, 1000)


def decode_body_sensor_location(payload: bytes) -> tuple[Reading, ...]:
    """Body Sensor Location, 0x2A38 (section 3.2); "unknown" where its number is reserved."""
    reader = Reader(payload)
    number = reader.u8("body sensor location")
    reader.expect_end()
    return (Status("sensor_location", _BODY_LOCATIONS[number] if number < len(_BODY_LOCATIONS) else "unknown"),)


def rate_flags(rate: float) -> tuple[str, ...]:
    """The flags that a heart rate in 1/min has by its value alone."""
    if rate == 0:
        return ("no_pulse_found",)
    return () if 0 < rate <= MAX_RATE else ("implausible",)


def interval_readings(ticks: tuple[int, ...], *, are_filler: bool = False) -> tuple[Intervals, ...]:
    """The intervals in their order, one reading for each run of one kind.

    The kinds are `rr`; `rr_padding`, 0 ticks; `rr_implausible`, outside `SHORTEST_TICKS` to `LONGEST_TICKS`; and `rr_filler`,
    the filler constant if `are_filler`. Rhythm analysis and heart rate variability use `rr` only.
    """
    if ticks and not are_filler and min(ticks) >= SHORTEST_TICKS and max(ticks) <= LONGEST_TICKS:
        return (Intervals("rr", ticks),)
    kinds = groupby(ticks, partial(_kind_of, are_filler=are_filler))
    return tuple(Intervals(kind, tuple(run)) for kind, run in kinds)


def to_ticks(interval: int, units_per_second: int) -> int:
    """An interval in ticks of 1/1024 s, the longest that a frame can hold at most."""
    return min(round(interval * TICKS_PER_SECOND / units_per_second), TICKS_LIMIT - 1)


def _kind_of(ticks: int, *, are_filler: bool) -> str:
    if ticks == 0:
        return "rr_padding"
    if not SHORTEST_TICKS <= ticks <= LONGEST_TICKS:
        return "rr_implausible"
    return "rr_filler" if are_filler and ticks == _FILLER_TICKS else "rr"


def _decode_measurement(payload: bytes, units_per_second: int) -> tuple[Reading, ...]:
    reader = Reader(payload)
    flags = reader.u8("flags")
    rate = reader.u16("heart rate") if flags & _UINT16_RATE else reader.u8("heart rate")
    energy = reader.u16("energy expended") if flags & _ENERGY else None
    ticks = _read_intervals(reader, units_per_second) if flags & _INTERVALS else ()
    reader.expect_end()

    is_filler = _is_filler(ticks, rate)
    readings: list[Reading] = [Vital("heart_rate", rate, _measurement_flags(flags, rate, ticks, is_filler=is_filler))]
    if flags & _CONTACT_SUPPORTED:
        readings.append(Status("skin_contact", bool(flags & _CONTACT_DETECTED)))
    if energy is not None:
        readings.append(Vital("energy", energy))
    # A single filler beside a nonzero rate keeps the kind `rr`, because it may be the interval of a premature beat.
    are_filler = is_filler and (ticks.count(_FILLER_TICKS) > 1 or rate == 0)
    return (*readings, *interval_readings(ticks, are_filler=are_filler))


def _read_intervals(reader: Reader, units_per_second: int) -> tuple[int, ...]:
    """The intervals at the end of the frame, in ticks: up to 9 at the default MTU, more at a larger one."""
    count, half = divmod(reader.remaining, 2)
    if half:
        raise DecodeError(f"R-R intervals: {reader.remaining} bytes are not a whole number of 2-byte intervals")
    sent = struct.unpack(f"<{count}H", reader.read_rest())
    return sent if units_per_second == TICKS_PER_SECOND else tuple(to_ticks(interval, units_per_second) for interval in sent)


def _is_filler(ticks: tuple[int, ...], rate: int) -> bool:
    """Whether the frame has intervals other than padding, all of them the filler constant, that contradict the rate."""
    return _FILLER_TICKS in ticks and set(ticks) <= {0, _FILLER_TICKS} and rate not in _FILLER_RATES


def _measurement_flags(flags: int, rate: int, ticks: tuple[int, ...], *, is_filler: bool) -> tuple[str, ...]:
    found = rate_flags(rate)
    if flags & (_CONTACT_SUPPORTED | _CONTACT_DETECTED) == _CONTACT_SUPPORTED:
        found += ("no_contact",)
    if is_filler:
        found += ("rr_filler",)
    if 0 in ticks:
        found += ("zero_interval",)
    if flags & _INTERVALS and not ticks:
        found += ("rr_flag_without_interval",)
    return found


DRIVER: Final = DriverSpec(
    name="heart_rate",
    service=uuid16(0x180D),
    # A measurement comes about once a second (section 3.1); ten missing in a row exceed any normal radio loss.
    streams=(Characteristic(_MEASUREMENT, "notify", decode_measurement, silent_after_s=10.0),),
    reads=(Characteristic(uuid16(0x2A38), "read", decode_body_sensor_location),),
    quirks=(
        Quirk(
            why="R-R intervals are in ms: 71,464 frames of a WHOOP 5, ryanbr/noop pull request 2195",
            models=("WHOOP 5",),
            decode={_MEASUREMENT: decode_millisecond_measurement},
        ),
    ),
)
