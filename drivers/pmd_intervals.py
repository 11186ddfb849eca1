"""Pulse-to-pulse intervals of Polar's optical sensors.

Source: Polar, "Polar Measurement Data", version 1.0 (2024), section 4.2.6, and the vendor's PPIData.md.
"""

import struct
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from drivers.delta_frames import check_records
from drivers.heart_rate import rate_flags
from drivers.readings import TICKS_LIMIT, TICKS_PER_SECOND, Intervals, Reading, Status, Vital

_SAMPLE: Final = struct.Struct("<BHHB")
_BLOCKER: Final = 1 << 0
_CONTACT: Final = 1 << 1
_CONTACT_SUPPORTED: Final = 1 << 2
"""As the vendor's SDK reads it; the document says the opposite of this bit."""


def decode_ppi(body: bytes) -> tuple[Reading, ...]:
    """Pulse-to-pulse intervals, 6 bytes each: heart rate, interval and its expected error in ms, flags. They carry no time.

    Polar says (PPIData.md): the blocker marks movement, and an interval with it, or without contact, is not valid. During
    movement the heart rate stays at its last reliable value (PolarVeritySense.md).

    Yields skin contact where the sensor detects it, heart rates where they change, the intervals in runs of `pp` and `pp_void`,
    and for all of them `pp_error`. An error of 64 s and more, which ticks cannot express, becomes the largest value.

    Raises:
        DecodeError: the samples are incomplete.
    """
    check_records(body, 6)
    beats = [_Beat(*values) for values in _SAMPLE.iter_unpack(body)]
    readings: list[Reading] = []
    for contact, _ in groupby(beats, lambda beat: beat.contact):
        readings += () if contact is None else (Status("skin_contact", contact),)
    for (rate, flags), _ in groupby(beats, lambda beat: (beat.rate, beat.rate_flags)):
        readings.append(Vital("heart_rate", rate, flags))
    for is_valid, run in groupby(beats, lambda beat: beat.is_valid):
        readings.append(Intervals("pp" if is_valid else "pp_void", tuple(_to_ticks(beat.interval_ms) for beat in run)))
    return (*readings, Intervals("pp_error", tuple(min(_to_ticks(beat.error_ms), TICKS_LIMIT - 1) for beat in beats)))


@dataclass(frozen=True, slots=True)
class _Beat:
    """A sample of the pulse-to-pulse intervals."""

    rate: int
    interval_ms: int
    error_ms: int
    flags: int

    @property
    def contact(self) -> bool | None:
        """Whether the sensor touches the skin; None where it does not measure that."""
        return bool(self.flags & _CONTACT) if self.flags & _CONTACT_SUPPORTED else None

    @property
    def is_valid(self) -> bool:
        return not self.flags & _BLOCKER and self.contact is not False

    @property
    def rate_flags(self) -> tuple[str, ...]:
        moved = ("body_movement",) if self.flags & _BLOCKER else ()
        return (*rate_flags(self.rate), *moved, *(("no_contact",) if self.contact is False else ()))


def _to_ticks(milliseconds: int) -> int:
    """In 1/1024 s. Two intervals in ms never have the same ticks."""
    return round(milliseconds * TICKS_PER_SECOND / 1000)
