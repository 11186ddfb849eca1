"""What a transaction of the opener changed, for the live feed, and the keys that keep patients apart."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sync.records import VitalRecord, WaveformRecord
from sync.wire import Lane

MAX_LIVE_WAVEFORMS: Final = 20
"""Waveforms of one sensor in one transaction. A sensor sends about one a second: more are a backlog, not live data."""
MAX_LIVE_SAMPLES: Final = 30_000
"""Samples of all sensors in one transaction: one second of two hundred straps at 130 Hz, 200 kB for each viewer."""
MAX_LIVE_VITALS: Final = 500
"""Vital signs in one transaction: those of two hundred straps in one second, and room to spare."""
MAX_LIVE_ALERTS: Final = 20
"""Alerts in one transaction. Each comes with its strip of some 10 kB."""
MAX_LIVE_SENSORS: Final = 250
"""Sensors in one transaction."""


class SensorKey(NamedTuple):
    """Identifies a sensor: names of sensors are unique only on their hub, and a hub may go from one patient to the next."""

    subject: str
    hub: str
    sensor: str


class AlertKey(NamedTuple):
    """Identifies an alert: two hubs may use the same id."""

    subject: str
    hub: str
    id: str


class Position(NamedTuple):
    """The place of a block in its lane. Later blocks have higher positions, whatever the hub's clock says."""

    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class BlockOrigin:
    """Whose block it is, its place in its lane, and when the clinic received it (microseconds since 1970).

    `is_proven` is false for a block of format 1: no hub signed for it.
    """

    subject: str
    hub: str
    lane: Lane
    position: Position
    received_us: int
    is_proven: bool

    def sensor_key(self, sensor: str) -> SensorKey:
        return SensorKey(self.subject, self.hub, sensor)


class LiveWaveform(NamedTuple):
    """A waveform with its sensor and its block's position."""

    key: SensorKey
    position: Position
    record: WaveformRecord


class LiveVital(NamedTuple):
    """A vital sign with its sensor and its block's position."""

    key: SensorKey
    position: Position
    record: VitalRecord


@dataclass(slots=True)
class Changes:
    """What changed: `alerts` and `sensors`, each once, and the new data. A backlog has none of them, only the flag."""

    alerts: dict[AlertKey, None] = field(default_factory=dict)
    sensors: dict[SensorKey, None] = field(default_factory=dict)
    waveforms: list[LiveWaveform] = field(default_factory=list)
    vitals: list[LiveVital] = field(default_factory=list)
    blocks: int = 0
    is_backlog: bool = False

    def add(self, other: "Changes") -> None:
        """Add the changes of another block. Too much to be live data becomes a backlog, so that memory stays bounded."""
        self.blocks += other.blocks
        self.is_backlog = self.is_backlog or other.is_backlog
        if not self.is_backlog:
            self.alerts |= other.alerts
            self.sensors |= other.sensors
            self.waveforms += other.waveforms
            self.vitals += other.vitals
            self.is_backlog = self._exceeds_limits()
        if self.is_backlog:
            for held in (self.alerts, self.sensors, self.waveforms, self.vitals):
                held.clear()

    def _exceeds_limits(self) -> bool:
        waves = Counter(wave.key for wave in self.waveforms)
        return (
            max(waves.values(), default=0) > MAX_LIVE_WAVEFORMS
            or sum(len(wave.record.samples) for wave in self.waveforms) > MAX_LIVE_SAMPLES
            or len(self.vitals) > MAX_LIVE_VITALS
            or len(self.alerts) > MAX_LIVE_ALERTS
            or len(self.sensors) > MAX_LIVE_SENSORS
        )
