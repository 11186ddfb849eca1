"""The account of a kill storm's frames: what became of every frame that the strap sent. No wall clock counts in it.

Frames are recognised by the strap's own time and their checksum. A missing frame is explained by a gap record between whose
last sample before and first sample after it was measured.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any, Final

from gateway.simulate.journal import FrameEntry

SAME_FRAME_NS: Final = 10_000_000
"""The hub computes a frame's time from the measured sampling rate; a frame lasts 560 ms, so 10 ms cannot confuse two."""


@dataclass(frozen=True, slots=True)
class LossAccount:
    """Counts of frames and blocks. Every count from `unexplained` on must be 0.

    `before_first` are missing frames before the first that is stored: there is no gap before the first sample.
    """

    sent: int
    stored: int
    in_gaps: int
    before_first: int
    clock_steps: int
    unexplained: int
    stored_twice: int
    invented: int
    waveforms_twice: int
    blocks_twice: int
    blocks_unopened: int
    rejected: int

    @property
    def passed(self) -> bool:
        """Whether nothing was lost without a record, stored twice, invented, damaged or rejected."""
        blocks = (self.waveforms_twice, self.blocks_twice, self.blocks_unopened, self.rejected)
        return not any((self.unexplained, self.stored_twice, self.invented, *blocks))

    def counts(self) -> dict[str, int]:
        return asdict(self)


@dataclass(slots=True)
class _Gaps:
    """Finds the sensor times (last sample before, first sample after) of gaps from the records in their order.

    A gap that closes after the clocks were set names no sensor times. Then the record that opened it names the first, and the
    waveform that directly follows it the second.
    """

    spans_ns: list[tuple[float, float]] = field(default_factory=list)
    _opened_ns: dict[int, int] = field(default_factory=dict)
    _closing: Mapping[str, Any] | None = None

    def add_gap(self, record: Mapping[str, Any]) -> None:
        if record["to_us"] is None:
            self._opened_ns[record["from_us"]] = record["from_sensor_ns"]
        elif record["to_sensor_ns"] is not None:
            self.spans_ns.append((record["from_sensor_ns"], record["to_sensor_ns"]))
        else:
            self._closing = record

    def add_waveform(self, record: Mapping[str, Any]) -> None:
        gap, self._closing = self._closing, None
        if gap is None or gap["epoch"] != record["epoch"] or record["seq"] - gap["seq"] > 1:
            return
        from_ns = gap["from_sensor_ns"] or self._opened_ns.get(gap["from_us"])
        if from_ns is not None:
            self.spans_ns.append((from_ns, record["sensor_ns"]))

    def end(self, last_ns: float) -> None:
        """Note that no sample after `last_ns` is stored: a gap that opened there is open still."""
        self.spans_ns += [(from_ns, inf) for from_ns in self._opened_ns.values() if from_ns >= last_ns - SAME_FRAME_NS]

    def explain(self, frame: FrameEntry) -> bool:
        return any(from_ns < frame.last_ns < to_ns + SAME_FRAME_NS for from_ns, to_ns in self.spans_ns)


def account(frames: Sequence[FrameEntry], records: Iterable[Mapping[str, Any]]) -> LossAccount:
    """Compares the strap's journal with the records that the clinic opened (`pulsegate-cloud open --json`)."""
    frames = sorted(frames, key=lambda frame: frame.last_ns)
    copies, gaps = Counter[int](), _Gaps()
    totals: Mapping[str, Any] = {}
    invented = steps = 0
    for record in records:
        match record:
            case {"type": "waveform", "kind": "ecg"}:
                gaps.add_waveform(record)
                index = _find_frame(frames, record)
                if index is None:
                    invented += 1
                else:
                    copies[index] += 1
            case {"type": "gap", "kind": "ecg"}:
                gaps.add_gap(record)
            case {"type": "status", "kind": "clock_step_s"}:
                steps += 1
            case {"type": "account"}:
                totals = record
            case _:
                pass
    first, last = (min(copies), max(copies)) if copies else (len(frames), len(frames))
    gaps.end(frames[last].last_ns if copies else inf)
    missing = [index for index in range(first, len(frames)) if index not in copies]
    in_gaps = sum(gaps.explain(frames[index]) for index in missing)
    return LossAccount(
        sent=len(frames),
        stored=len(copies),
        in_gaps=in_gaps,
        before_first=first,
        clock_steps=steps,
        unexplained=len(missing) - in_gaps,
        stored_twice=sum(count - 1 for count in copies.values()),
        invented=invented,
        waveforms_twice=totals["duplicate_waveforms"],
        blocks_twice=totals["duplicate_blocks"],
        blocks_unopened=sum(totals["unopened"].values()),
        rejected=sum(totals[name] for name in ("quarantined", "key_conflicts", "rejected_messages")),
    )


def _find_frame(frames: Sequence[FrameEntry], record: Mapping[str, Any]) -> int | None:
    last_ns = record["sensor_ns"] + round((record["n"] - 1) / record["rate_hz"] * 1e9)
    index = bisect_left(frames, last_ns - SAME_FRAME_NS, key=lambda frame: frame.last_ns)
    while index < len(frames) and frames[index].last_ns <= last_ns + SAME_FRAME_NS:
        if (frames[index].samples_crc32, frames[index].n) == (record["samples_crc32"], record["n"]):
            return index
        index += 1
    return None
