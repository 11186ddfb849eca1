"""Compares what the emulated sensors sent while they were connected with the records that the clinic holds.

Each frame, value and result must be stored once or, if it is one of a stream, lie in a gap record. Times are those of the hub's
wall clock in microseconds; the sensors' times are true, whatever their own clocks showed.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Final

from gateway.simulate.audit import SentFrame
from gateway.simulate.journal import checksum
from sync.records import GapRecord, QuarantinedRecord, Record, StatusRecord, VitalRecord, WaveformRecord

SAME_FRAME_US: Final = 5_000_000
"""Two frames with equal samples are the same if their times differ by less: the ECG repeats after minutes."""
SAME_VALUE_US: Final = 1_000
"""A value has an arrival this near to when it was sent: the virtual link delays nothing, and one that waits in the hub keeps
its arrival. What is left is rounding: both times are counted from the loop's, one of them by way of an age."""
GAP_TOLERANCE_US: Final = 300_000
"""The ends of a gap in a waveform are estimates, off by the transport delay."""
STREAM_SETTLED_US: Final = 60_000_000
"""The offset of a sensor's clock is known after a minute of its stream: six minima of the transport delay."""
MAX_STREAM_ERROR_US: Final = 20_000
"""Largest error of a settled stream's times."""
MAX_RESULT_ERROR_US: Final = 120_000_000
"""Largest error of the time of a result: what `gateway.spot_times` calls live."""
MARKED_AS_DOUBTFUL: Final = frozenset({"unconfirmed", "arrival"})
"""The sources of a result's time (`sync.records.SpotOrigin`) that say that the sensor's clock does not tell it for sure."""


@dataclass(frozen=True, slots=True)
class SentReading:
    """A value of a stream, as handed to the radio."""

    sent_us: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class SentResult:
    """A result measured on demand. `group` identifies it (`drivers.readings.Origin`).

    `is_sent` says whether it was sent at all, `is_received` whether the hub has confirmed it or must have heard it, and
    `is_excused` whether it need not be stored: its sensor keeps it and sends it again, or no hub could hear it.
    """

    group: int
    measured_us: int
    is_sent: bool
    is_received: bool
    is_excused: bool


@dataclass(slots=True)
class SensorJournal:
    """What one sensor sent while it was connected. `values` are those of its streams, by kind."""

    frames: list[SentFrame] = field(default_factory=list)
    values: dict[str, list[SentReading]] = field(default_factory=dict)
    results: list[SentResult] = field(default_factory=list)


@dataclass(slots=True)
class SensorAudit:
    """Counts of samples, values and results of one or more sensors, and the largest error of a settled stream in ms.

    `pending` are results that are not stored, but excused; all others that are not stored are unexplained.

    `doubtful_times` are wrong times of results that say so. Nothing can tell the right one: the link was lost before the hub
    could read a clock that had been set or had restarted, or a sensor only advertises, so that nobody can read its clock: its
    one result may be live, or from its memory by the clock as it was before. Where a clock was set unobserved, a stored result
    can be of before or after. `doubtful` are all results that are so marked, right or wrong. A wrong time that is not so marked
    is late, however long the sensor kept the result.
    """

    sent: int = 0
    stored: int = 0
    in_gaps: int = 0
    unexplained: int = 0
    stored_twice: int = 0
    pending: int = 0
    backwards: int = 0
    """Records of a waveform that begin before the one before ended."""
    late_times: int = 0
    """Frames of a settled stream, and results, whose time is off by more than is allowed."""
    results: int = 0
    """Results that are stored."""
    doubtful: int = 0
    doubtful_times: int = 0
    worst_ms: float = 0.0

    @property
    def passed(self) -> bool:
        return not (self.unexplained or self.stored_twice or self.backwards or self.late_times)

    def add(self, other: "SensorAudit") -> None:
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, max(mine, theirs) if each.name == "worst_ms" else mine + theirs)


def audit_sensor(journal: SensorJournal, records: Iterable[Record], characteristics: Mapping[str, str]) -> SensorAudit:
    """Compare a sensor's journal with the records of that sensor, in the order in which they were stored.

    `characteristics` are the UUIDs of the streams of values, by kind.
    """
    held, total = list(records), SensorAudit()
    gaps = _Gaps([record for record in held if isinstance(record, GapRecord)])
    waves = [record for record in held if isinstance(record, WaveformRecord) and record.kind == "ecg"]
    total.add(_audit_frames(journal.frames, waves, gaps))
    for kind, sent in journal.values.items():
        uuid = characteristics[kind].lower()
        total.add(_audit_values(sent, [record for record in held if _is_value(record, kind, uuid)], gaps.of(kind)))
    total.add(_audit_results(journal.results, held))
    return total


class _Gaps:
    """The gaps of one sensor. An open gap ends where its closing record says, else at the next stored value."""

    def __init__(self, gaps: Sequence[GapRecord]) -> None:
        ends: dict[str, dict[int, int | None]] = defaultdict(dict)
        for gap in gaps:
            known = ends[gap.kind].get(gap.from_us)
            ends[gap.kind][gap.from_us] = known if gap.to_us is None else max(gap.to_us, known or 0)
        self._ends = ends

    def of(self, kind: str) -> Mapping[int, int | None]:
        return self._ends.get(kind, {})


def _is_in_gap(at_us: int, gaps: Mapping[int, int | None], stored_us: Sequence[int]) -> bool:
    for start_us, end_us in gaps.items():
        if start_us - GAP_TOLERANCE_US > at_us:
            continue
        after = bisect_right(stored_us, start_us)
        next_us = stored_us[after] if after < len(stored_us) else at_us
        if at_us <= (next_us if end_us is None else end_us) + GAP_TOLERANCE_US:
            return True
    return False


def _audit_frames(sent: Sequence[SentFrame], waves: Sequence[WaveformRecord], gaps: _Gaps) -> SensorAudit:
    audit = SensorAudit(sent=sum(frame.samples for frame in sent))
    stored: dict[tuple[int, int], list[int]] = defaultdict(list)
    for wave in waves:
        stored[checksum(wave.samples), len(wave.samples)].append(_last_us(wave))
    expected = Counter((frame.crc32, frame.samples) for frame in sent)
    starts_us = sorted(wave.times.at_us for wave in waves)
    settled_us = min((wave.times.at_us for wave in waves), default=0) + STREAM_SETTLED_US
    for frame in sent:
        candidates = stored[frame.crc32, frame.samples]
        near = [at_us for at_us in candidates if abs(at_us - frame.last_us) < SAME_FRAME_US]
        if not near:
            in_gap = _is_in_gap(frame.last_us, gaps.of("ecg"), starts_us)
            audit.in_gaps += frame.samples if in_gap else 0
            audit.unexplained += 0 if in_gap else frame.samples
            continue
        at_us = min(near, key=lambda each: abs(each - frame.last_us))
        candidates.remove(at_us)
        audit.stored += frame.samples
        if frame.last_us > settled_us:
            _note_error(audit, at_us - frame.last_us, MAX_STREAM_ERROR_US)
    audit.stored_twice = sum(len(left) * key[1] for key, left in stored.items() if expected[key])
    ordered = sorted(waves, key=lambda wave: wave.times.arrived_us)
    audit.backwards = sum(after.times.at_us <= _last_us(before) for before, after in pairwise(ordered))
    return audit


def _last_us(wave: WaveformRecord) -> int:
    return wave.times.at_us + round((len(wave.samples) - 1) * 1e6 / wave.rate_hz)


def _note_error(audit: SensorAudit, error_us: int, limit_us: int) -> None:
    audit.late_times += abs(error_us) > limit_us
    audit.worst_ms = max(audit.worst_ms, abs(error_us) / 1000)


def _is_value(record: Record, kind: str, uuid: str) -> bool:
    """Whether a record is a value of a stream, or its payload where that could not be decoded."""
    if isinstance(record, VitalRecord):
        return record.kind == kind and record.origin is None
    return isinstance(record, QuarantinedRecord) and record.characteristic.lower() == uuid


def _audit_values(sent: Sequence[SentReading], stored: Sequence[Record], gaps: Mapping[int, int | None]) -> SensorAudit:
    """Match values with records by their times, both oldest first."""
    audit = SensorAudit(sent=len(sent))
    arrived_us = sorted(record.times.arrived_us for record in stored if isinstance(record, VitalRecord | QuarantinedRecord))
    place = 0
    for value in sorted(sent, key=lambda each: each.sent_us):
        first = bisect_left(arrived_us, value.sent_us - SAME_VALUE_US, place)
        audit.stored_twice += first - place  # records that no value accounts for
        place = first
        if place < len(arrived_us) and arrived_us[place] - value.sent_us <= SAME_VALUE_US:
            place += 1
            audit.stored += 1
        elif _is_in_gap(value.sent_us, gaps, arrived_us):
            audit.in_gaps += 1
        else:
            audit.unexplained += 1
    audit.stored_twice += len(arrived_us) - place
    return audit


def _audit_results(results: Sequence[SentResult], records: Sequence[Record]) -> SensorAudit:
    audit = SensorAudit(sent=sum(result.is_sent for result in results))
    by_group: dict[int, list[VitalRecord | StatusRecord]] = defaultdict(list)
    for record in records:
        if isinstance(record, VitalRecord | StatusRecord) and record.origin is not None:
            by_group[record.origin.group].append(record)
    for result in results:
        found = by_group.get(result.group, [])
        repeated = Counter(record.kind for record in found)
        audit.stored_twice += any(count > 1 for count in repeated.values())
        audit.stored += bool(found)
        is_pending = not (result.is_received or found) and result.is_excused
        audit.pending += is_pending
        audit.unexplained += not (found or is_pending)
        if found:
            _audit_time(audit, found[0], result.measured_us)
    return audit


def _audit_time(audit: SensorAudit, record: VitalRecord | StatusRecord, measured_us: int) -> None:
    """Count a result by its time: wrong, doubtful, both or neither."""
    assert record.origin is not None
    is_doubtful = record.origin.time_source in MARKED_AS_DOUBTFUL
    is_wrong = abs(record.times.at_us - measured_us) > MAX_RESULT_ERROR_US
    audit.results += 1
    audit.doubtful += is_doubtful
    audit.doubtful_times += is_wrong and is_doubtful
    audit.late_times += is_wrong and not is_doubtful
