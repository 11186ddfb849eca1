"""What the opener changed in the projections, and the keys that keep patients apart."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sync.wire import Lane

ALERT: Final = "alert"
SENSOR: Final = "sensor"
WAVEFORM: Final = "waveform"
VITAL: Final = "vital"
BACKLOG: Final = "backlog"
"""More than live data: the page has to fetch what it shows."""

MAX_LIVE_WAVEFORMS: Final = 20
"""Waveforms of one sensor at once. A sensor sends about one a second: more are a backlog, not live data."""
MAX_LIVE_SAMPLES: Final = 30_000
"""Samples of all sensors at once: one second of two hundred straps at 130 Hz, 200 kB for each viewer."""
MAX_LIVE: Final[Mapping[str, int]] = {ALERT: 20, SENSOR: 250, VITAL: 500, WAVEFORM: 5000, BACKLOG: 0}
"""Changes of each kind at once. Each alert comes with its strip of some 10 kB. Vital signs are those of two hundred straps in
one second, and room to spare. So many waveforms have 6 samples each at the most."""


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


class Change(NamedTuple):
    """A row of the projections that was added or changed.

    `name` is the id of an alert, else the name of a sensor. `row` is the number of a waveform or a vital sign, else 0, and
    `samples` the length of a waveform. A backlog names its subject only.
    """

    kind: str
    subject: str
    hub: str
    name: str
    row: int = 0
    samples: int = 0


def is_backlog(changes: Collection[Change]) -> bool:
    """Return whether these changes are more than live data, too many for the messages of the feed."""
    kinds = Counter(change.kind for change in changes)
    waves = Counter(change[1:4] for change in changes if change.kind == WAVEFORM)
    return (
        any(kinds[kind] > limit for kind, limit in MAX_LIVE.items())
        or max(waves.values(), default=0) > MAX_LIVE_WAVEFORMS
        or sum(change.samples for change in changes) > MAX_LIVE_SAMPLES
    )


@dataclass(slots=True)
class BatchChanges:
    """The changes of one batch, each once. A subject with a backlog has only the entry that says so: memory is bounded."""

    _by_subject: dict[str, dict[Change, None]] = field(default_factory=dict)

    def add(self, changes: Sequence[Change]) -> None:
        """Add the changes of a block, which are all of one subject."""
        if changes:
            subject = changes[0].subject
            held = self._by_subject.get(subject, {}) | dict.fromkeys(changes)
            self._by_subject[subject] = {Change(BACKLOG, subject, "", ""): None} if is_backlog(held) else held

    def __iter__(self) -> Iterator[Change]:
        for changes in self._by_subject.values():
            yield from changes
