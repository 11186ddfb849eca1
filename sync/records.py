"""The records in the plaintext of a block: readings with their times, gaps, findings and alerts.

`sync.record_codec` encodes them; `docs/records.md` is the reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray


class RecordError(ValueError):
    """Bytes are not a valid list of records."""


@dataclass(frozen=True, slots=True)
class Times:
    """The time of a measurement by all available clocks.

    `at_us` is the hub's best estimate in UTC, microseconds since 1970; for a waveform, of the first sample. `arrived_us` is the
    hub's wall clock and `arrived_mono_ns` its monotonic clock when the bytes arrived. `sensor_ns` is the sensor's clock at that
    sample, in its own epoch; `offset_ns` was added to it; `drift_ppm` is how much faster it runs than the hub's clock.
    """

    at_us: int
    arrived_us: int
    arrived_mono_ns: int
    sensor_ns: int | None = None
    offset_ns: int | None = None
    drift_ppm: float | None = None


@dataclass(frozen=True, slots=True)
class SpotOrigin:
    """Where a reading that a person measured on demand comes from.

    Attributes:
        group: identifies the result among those of its sensor; the readings of one result have the same.
        time_source: how `Times.at_us` was found: `measured` by the sensor's clock, `corrected` by the known error of that
            clock, `arrival` at the hub, because that clock could not be used, or `unconfirmed` by the sensor's clock as it was
            known before, because it may have been set since.
        is_stored: whether the result comes from the sensor's memory.
        local_us: the sensor's date and time at the measurement, read as if it were UTC: microseconds since 1970.
        clock: the state of the sensor's clock (`drivers.readings.ClockState`); None where the sensor sends no time.
        record: the number of the result in the sensor's memory.
        user: the sensor's number of the person; None where it names none.
    """

    group: int
    time_source: str
    is_stored: bool
    local_us: int | None = None
    clock: str | None = None
    record: int | None = None
    user: int | None = None


@dataclass(frozen=True, slots=True)
class WaveformRecord:
    """Gap-free samples; sample i was taken at `times.at_us` + i / `rate_hz` and is `samples[i]` * `scale` units of `kind`."""

    sensor: str
    kind: str
    times: Times
    rate_hz: float
    scale: float
    samples: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class VitalRecord:
    """One measured number, in the unit of its kind. `origin` is None where the value is continuous."""

    sensor: str
    kind: str
    times: Times
    value: float
    flags: tuple[str, ...] = ()
    origin: SpotOrigin | None = None


@dataclass(frozen=True, slots=True)
class IntervalsRecord:
    """RR or PP intervals in ticks of 1/1024 s, oldest first."""

    sensor: str
    kind: str
    times: Times
    ticks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BeatsRecord:
    """The heart beats that were found in the signal from `from_us` to `to_us`; no beats: none were found there.

    `beats_ms` are the times of the R peaks in milliseconds since 1970, and `classes` their labels: indices of `BEAT_CLASSES`.
    """

    sensor: str
    kind: str
    from_us: int
    to_us: int
    beats_ms: tuple[int, ...]
    classes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StatusRecord:
    """Information that the sensor reported about itself. `origin` is set where it is about a measurement on demand."""

    sensor: str
    kind: str
    times: Times
    value: str | int | float | bool
    origin: SpotOrigin | None = None


@dataclass(frozen=True, slots=True)
class GapRecord:
    """A stretch of a signal without samples, and the reason. `missing` is the number of samples, None if it is not known.

    `to_us` is None while the gap is open; the record that closes it repeats `from_us`. The sensor times are those of the
    last sample before and the first sample after the gap, if the sensor's clock kept running.
    """

    sensor: str
    kind: str
    from_us: int
    to_us: int | None
    missing: int | None
    reason: str
    from_sensor_ns: int | None = None
    to_sensor_ns: int | None = None


@dataclass(frozen=True, slots=True)
class QuarantinedRecord:
    """A payload that no driver could decode, kept unchanged."""

    sensor: str
    characteristic: str
    times: Times
    payload: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class FindingRecord:
    """A result of a rule or model about an interval of readings. If it has no result, `inconclusive` gives the reason.

    `source` names the rule or model. `end_us` is None while the episode lasts. `measured` holds the underlying
    numbers, in the units named by their keys (`rate_bpm`, `rr_ms`, `limit_bpm`).
    """

    sensor: str
    kind: str
    onset_us: int
    end_us: int | None
    source: str
    probability: float | None = None
    inconclusive: str | None = None
    measured: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Strip:
    """The ECG evidence of an alert: `samples[i]` * `scale` mV at `start_us` + i / `rate_hz`; `beats_us` are its R peaks.

    `labels` has one letter per beat: N, S, V, F or ?. It is empty if the hub does not label beats. `part` says what of the
    episode is shown: `first`, `worst` or `last`; None: all of it. The decision rests on `mark_from_us` to `mark_to_us`.
    """

    start_us: int
    rate_hz: float
    scale: float
    samples: NDArray[np.int32]
    beats_us: tuple[int, ...]
    labels: str = ""
    part: str | None = None
    mark_from_us: int | None = None
    mark_to_us: int | None = None


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """A finding that a person must see. A record with the same `id` follows when anything about it changes.

    `priority` is high, medium or low (IEC 60601-1-8). `decided_us` is the hub's wall clock at the arrival of the notification
    that triggered the record. `reasons` are message keys; their numbers are in `measured`, and the page translates them.
    `raised_us` is the `decided_us` of the record with which the alert was last raised: its first one, or one in which its kind,
    its priority or its episodes became worse. An older hub does not state it.
    """

    id: str
    sensor: str
    kind: str
    priority: str
    onset_us: int
    end_us: int | None
    decided_us: int
    source: str
    reasons: tuple[str, ...]
    probability: float | None = None
    measured: Mapping[str, float] | None = None
    strip: Strip | None = None
    raised_us: int | None = None


EPISODES_KEY, LENGTH_KEY, LONGEST_KEY = "episodes", "episode_s", "longest_episode_s"
"""In `measured` of an alert about several episodes: their number, and the lengths of the latest and of the longest. They also
say of which episode the alert's strip is."""


@dataclass(frozen=True, slots=True)
class UnknownRecord:
    """A record, or a group of records, of a type that a newer hub wrote; `content` is its CBOR, unchanged.

    `name` is the name of the type. `sensor` is None if the record names no sensor.
    """

    name: str
    sensor: str | None
    content: bytes


Record = (
    WaveformRecord
    | VitalRecord
    | IntervalsRecord
    | BeatsRecord
    | StatusRecord
    | GapRecord
    | QuarantinedRecord
    | FindingRecord
    | AlertRecord
    | UnknownRecord
)

BEAT_CLASSES: Final = "NSVF?"
"""Labels of beats by their number: normal, supraventricular ectopic, ventricular ectopic, fusion, not judged."""
UNCONFIRMED_FLAG: Final = "person_unconfirmed"
"""The flag of a value that was sent before the patient said whose it is."""
TECHNICAL_KINDS: Final = frozenset({"no_signal", "models_refused", "buffer_nearly_full", "buffer_damaged", "pairing_lost"})
"""Kinds of technical alerts (IEC 60601-1-8): they end with their cause, and nobody can close them."""
CONFIRMED_KIND: Final = "person_confirmed"
"""The kind of the status that follows such a value: whether it is the patient's. It has the same `origin.group`."""
RECORD_TYPES: Final[Mapping[str, type[Record]]] = {
    "waveform": WaveformRecord,
    "vital": VitalRecord,
    "intervals": IntervalsRecord,
    "beats": BeatsRecord,
    "status": StatusRecord,
    "gap": GapRecord,
    "quarantined": QuarantinedRecord,
    "finding": FindingRecord,
    "alert": AlertRecord,
}
"""The types that this version reads, by their name on the wire."""
_NAMES: Final[Mapping[type[Record], str]] = {**{cls: name for name, cls in RECORD_TYPES.items()}, UnknownRecord: "unknown"}
SET_ASIDE: Final = "a record of the hub"
"""The `characteristic` of a record that could not be read: it is not known of which characteristic its payload was."""


def type_name(record: Record) -> str:
    """The record's name on the wire; `unknown` for a type that this version does not read."""
    return _NAMES[type(record)]


def set_aside(sensor: str, content: bytes, reason: str) -> QuarantinedRecord:
    """Return what takes the place of a record that could not be read: its CBOR and the reason."""
    return QuarantinedRecord(sensor, SET_ASIDE, Times(0, 0, 0), content, reason)


def is_set_aside(record: Record) -> bool:
    """Whether this takes the place of a record that could not be read."""
    return isinstance(record, QuarantinedRecord) and record.characteristic == SET_ASIDE
