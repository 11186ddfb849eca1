"""The readings that drivers yield. All times are on the sensor's clock; `gateway.timeline` adds the hub's times."""

import hashlib
import math
from array import array
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

TICKS_PER_SECOND: Final = 1024
"""Resolution of RR intervals: Heart Rate Service 1.0, section 3.1.1.4 (1/1024 s)."""
SENSOR_NS_LIMIT: Final = 2**62
"""A sensor's clock reads less than this: 146 years in its own epoch. The clinic refuses times from here on."""
RATE_RANGE_HZ: Final = (1.0, 1e4)
"""From one sample a second, slower than any signal worth a waveform, to ten times the rate of the fastest ECG recorders."""
MAX_SCALE: Final = 1e6
"""Largest value of one least significant bit; the clinic refuses a larger one."""
TICKS_LIMIT: Final = 2**16
"""Intervals are sent as unsigned 16-bit numbers: Heart Rate Service 1.0, section 3.1.1.4."""


class DecodeError(ValueError):
    """A payload violates its specification. The message names the field, the value found and what is allowed."""


ClockState = Literal["set", "not_set", "unknown", "invalid"]
"""Whether a sensor's date and time can be used: `not_set` where its clock still counts from the factory's date, `unknown` where
it sends a date of zeros, `invalid` where it sends a date that does not exist."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a spot reading comes from. The readings of one result, as of one blood pressure, have the same `group`.

    Attributes:
        group: identifies the result among those of its sensor; the same stored record sent again has the same (`group_of`).
        measured: the sensor's date and time at the measurement, in its local time; None where it sends none that exists.
        clock: the state of the clock that `measured` comes from; None where the sensor sends no time.
        record: the number of the result in the sensor's memory.
        user: the sensor's number of the person; None where it names none.
        is_stored: whether the result comes from the sensor's memory.
    """

    group: int
    measured: datetime | None = None
    clock: ClockState | None = None
    record: int | None = None
    user: int | None = None
    is_stored: bool = False


def group_of(payload: bytes) -> int:
    """Return the `group` of the readings in a payload: 48 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(payload).digest()[:6], "big")


@dataclass(frozen=True, slots=True)
class Vital:
    """One measured number, in the unit of its kind (`drivers.kinds`). `origin` is None where the value is continuous."""

    kind: str
    value: float
    flags: tuple[str, ...] = ()
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Waveform:
    """Consecutive samples of one signal.

    `samples` are integers as the sensor sent them; one least significant bit is `scale` units of the kind.
    `last_ns` is the sensor's clock at the **last** sample, in nanoseconds of its own epoch; None where it sends no time.
    """

    kind: str
    samples: tuple[int, ...]
    rate_hz: float
    scale: float
    last_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Intervals:
    """Beat-to-beat intervals, oldest first, in ticks of 1/1024 s."""

    kind: str
    ticks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """Information that the sensor reports about itself: battery level, skin contact, model number, a failed measurement."""

    kind: str
    value: str | int | float | bool
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A payload that could not be decoded, kept unchanged."""

    characteristic: str
    payload: bytes
    reason: str


Reading = Vital | Waveform | Intervals | Status | Quarantined


def check_reading(reading: Reading) -> None:
    """Check that a decoded reading has values which every later stage can represent, whatever they mean.

    Raises:
        DecodeError: names the field and what is allowed, never the value.
    """
    match reading:
        case Vital(kind, value) | Status(kind, float(value)):
            if not math.isfinite(value):
                raise DecodeError(f"{kind}: the value is not a finite number")
        case Waveform():
            _check_waveform(reading)
        case Intervals(kind, ticks):
            if ticks and not (min(ticks) >= 0 and max(ticks) < TICKS_LIMIT):
                raise DecodeError(f"{kind}: an interval is outside 0 to {TICKS_LIMIT - 1} ticks")
        case _:
            pass


def _check_waveform(wave: Waveform) -> None:
    low_hz, high_hz = RATE_RANGE_HZ
    if not low_hz <= wave.rate_hz <= high_hz:
        raise DecodeError(f"{wave.kind}: the sampling rate is outside {low_hz:g} to {high_hz:g} Hz")
    if not abs(wave.scale) <= MAX_SCALE:
        raise DecodeError(f"{wave.kind}: the scale is larger than {MAX_SCALE:g} or not a number")
    if wave.last_ns is not None and not 0 <= wave.last_ns < SENSOR_NS_LIMIT:
        raise DecodeError(f"{wave.kind}: the sensor's time is outside 0 to 2^62 - 1 ns")
    try:
        samples = array("i", wave.samples)
    except (OverflowError, TypeError) as error:
        raise DecodeError(f"{wave.kind}: a sample is not an integer of 32 bits") from error
    if not samples:
        raise DecodeError(f"{wave.kind}: a frame without a sample")
