"""The upload policy: which waveforms are sent, and which stay on the hub in the lane `archive` until the clinic requests them.

Vital signs, findings, gaps, and alerts with their strips are always sent (`docs/decisions/0022-upload-policy.md`).
"""

from dataclasses import dataclass, field
from typing import Final

from config.settings import UploadPolicy
from sync.records import WaveformRecord
from sync.wire import Lane

STRIP_S: Final = 12.0
"""Length of the hourly strip: a row of an ECG page, and two seconds more."""
_HOUR_US: Final = 3_600_000_000


@dataclass(slots=True)
class _Hour:
    """An hour since 1970, and how many seconds of its strip were sent."""

    number: int
    sent_s: float = 0.0


@dataclass(slots=True)
class WaveformUpload:
    """Selects the lane of each waveform. `policy` may change at any time."""

    policy: UploadPolicy
    _hours: dict[tuple[str, str], _Hour] = field(default_factory=dict)
    """The last hour of each sensor and kind."""

    def lane(self, record: WaveformRecord, *, is_live: bool) -> Lane:
        """The lane of a waveform. `is_live`: after an alert of high priority, or while someone at the clinic watches."""
        if self.policy == "all":
            return "wave"
        if self.policy == "none":
            return "archive"
        is_of_strip = self._add_to_strip(record)
        return "wave" if is_live or is_of_strip else "archive"

    def _add_to_strip(self, record: WaveformRecord) -> bool:
        """Whether the record belongs to the first `STRIP_S` of the hour; a restart of the agent begins another strip."""
        stream, number = (record.sensor, record.kind), record.times.at_us // _HOUR_US
        hour = self._hours.get(stream)
        if hour is None or hour.number != number:
            hour = self._hours[stream] = _Hour(number)
        if hour.sent_s >= STRIP_S:
            return False
        hour.sent_s += len(record.samples) / record.rate_hz
        return True
