"""The readings that drivers yield. All times are on the sensor's clock; `gateway.timeline` adds the hub's times."""

from dataclasses import dataclass
from typing import Final

TICKS_PER_SECOND: Final = 1024
"""Resolution of RR intervals: Heart Rate Service 1.0, section 3.1.1.4 (1/1024 s)."""


class DecodeError(ValueError):
    """A payload violates its specification. The message names the field, the value found and what is allowed."""


@dataclass(frozen=True, slots=True)
class Vital:
    """One measured number, in the unit of its kind (`drivers.kinds`)."""

    kind: str
    value: float
    flags: tuple[str, ...] = ()


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
    """Information that the sensor reports about itself: battery level, skin contact, model number."""

    kind: str
    value: str | int | float | bool


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A payload that could not be decoded, kept unchanged."""

    characteristic: str
    payload: bytes
    reason: str


Reading = Vital | Waveform | Intervals | Status | Quarantined
