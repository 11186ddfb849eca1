"""Leaves out continuous vital signs while the buffer is nearly full: one value a minute stays, gap records cover the others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from drivers.kinds import is_continuous
from sync.records import GapRecord, IntervalsRecord, Record, VitalRecord

THINNED_TO_US: Final = 60_000_000
"""One value a minute is stored: enough for the trend of a heart rate or an oxygen saturation over days without a link."""
THINNED_REASON: Final = "the buffer was nearly full"
"""The reason of the gap records."""


@dataclass(slots=True)
class _Minute:
    """The minute that began with a stored value; `has_gap` once a value was left out and the gap recorded."""

    from_us: int
    has_gap: bool = False


@dataclass(slots=True)
class VitalThinner:
    """Selects the records to store. It never leaves out alerts, findings, waveforms, spot readings, gaps or statuses.

    The gap record of a minute comes in place of the first value that is left out, so a crash cannot lose it. A minute that has
    begun is completed even if the buffer has room again, so the record is true. Its `missing` is None: that counts samples.

    Attributes:
        left_out: how many values were left out; each interval is one.
    """

    left_out: int = 0
    _minutes: dict[tuple[str, str], _Minute] = field(default_factory=dict)
    """The last minute of each sensor and kind."""

    def thin(self, new: Sequence[Record], *, is_nearly_full: bool) -> Sequence[Record]:
        """The records to store, in their order."""
        if not is_nearly_full and not self._minutes:
            return new
        kept: list[Record] = []
        for record in new:
            match record:
                case IntervalsRecord(ticks=ticks):
                    kept += self._thin_stream(record, len(ticks), is_nearly_full)
                case VitalRecord(kind=kind, origin=None) if is_continuous(kind):
                    kept += self._thin_stream(record, 1, is_nearly_full)
                case _:
                    kept.append(record)
        return kept

    def _thin_stream(self, record: VitalRecord | IntervalsRecord, values: int, is_nearly_full: bool) -> Sequence[Record]:
        stream, at_us = (record.sensor, record.kind), record.times.at_us
        minute = self._minutes.get(stream)
        if minute is None or not 0 <= at_us - minute.from_us < THINNED_TO_US:
            self._minutes.pop(stream, None)
            if is_nearly_full:
                self._minutes[stream] = _Minute(at_us)
            return (record,)
        self.left_out += values
        if minute.has_gap:
            return ()
        minute.has_gap = True
        to_us = minute.from_us + THINNED_TO_US
        return (GapRecord(record.sensor, record.kind, minute.from_us, to_us, None, THINNED_REASON),)
