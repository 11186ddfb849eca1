"""The account of a kill storm: what became of every frame that the strap sent, independent of the hub's wall clock.

Frames are recognised by the strap's own time and their checksum. A run of missing frames is explained by a gap record that
begins at the hub's time of the last sample stored before them.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from gateway.simulate.journal import FrameEntry

SAME_FRAME_NS: Final = 10_000_000
"""The hub computes a frame's time from the measured sampling rate; a frame lasts 560 ms, so 10 ms cannot confuse two."""
SAME_TIME_US: Final = 30_000
"""A gap begins at the last sample before it; four sample periods at 130 Hz allow for a correction of the offset."""


@dataclass(frozen=True, slots=True)
class LossAccount:
    """Counts of frames and blocks. Every count from `unexplained` on must be 0."""

    sent: int
    stored: int
    in_gaps: int
    clock_steps: int
    unexplained: int
    stored_twice: int
    invented: int
    blocks_twice: int
    blocks_missing: int
    blocks_unopened: int

    @property
    def passed(self) -> bool:
        """Whether nothing was lost without a record, stored twice or invented."""
        faults = (self.unexplained, self.stored_twice, self.invented)
        return not any((*faults, self.blocks_twice, self.blocks_missing, self.blocks_unopened))

    def counts(self) -> dict[str, int]:
        return asdict(self)


def account(frames: Sequence[FrameEntry], records: Iterable[Mapping[str, Any]]) -> LossAccount:
    """Compares the strap's journal with the records that the clinic opened (`pulsegate-cloud open --json`)."""
    frames = sorted(frames, key=lambda frame: frame.last_ns)
    ends_us: dict[int, int] = {}
    copies = Counter[int]()
    gaps_us: list[int] = []
    totals: Mapping[str, Any] = {}
    invented = steps = 0
    for record in records:
        match record:
            case {"type": "waveform", "kind": "ecg"}:
                index = _find_frame(frames, record)
                if index is None:
                    invented += 1
                else:
                    copies[index] += 1
                    ends_us[index] = record["at_us"] + round((record["n"] - 1) / record["rate_hz"] * 1e6)
            case {"type": "gap", "kind": "ecg"}:
                gaps_us.append(record["from_us"])
            case {"type": "status", "kind": "clock_step_s"}:
                steps += 1
            case {"type": "account"}:
                totals = record
            case _:
                pass
    in_gaps, unexplained = _explain(len(frames), ends_us, sorted(gaps_us))
    return LossAccount(
        sent=len(frames),
        stored=len(ends_us),
        in_gaps=in_gaps,
        clock_steps=steps,
        unexplained=unexplained,
        stored_twice=sum(count - 1 for count in copies.values()),
        invented=invented,
        blocks_twice=totals["duplicate_blocks"],
        blocks_missing=totals["missing_blocks"],
        blocks_unopened=sum(totals["unopened"].values()),
    )


def _find_frame(frames: Sequence[FrameEntry], record: Mapping[str, Any]) -> int | None:
    last_ns = record["sensor_ns"] + round((record["n"] - 1) / record["rate_hz"] * 1e9)
    index = bisect_left(frames, last_ns - SAME_FRAME_NS, key=lambda frame: frame.last_ns)
    while index < len(frames) and frames[index].last_ns <= last_ns + SAME_FRAME_NS:
        if (frames[index].samples_crc32, frames[index].n) == (record["samples_crc32"], record["n"]):
            return index
        index += 1
    return None


def _explain(count: int, ends_us: Mapping[int, int], gaps_us: Sequence[int]) -> tuple[int, int]:
    """Numbers of missing frames that a gap explains, and that none does. Before the first stored sample there is no gap."""
    in_gaps = unexplained = 0
    last_end_us: int | None = None
    for index in range(count):
        if index in ends_us:
            last_end_us = ends_us[index]
        elif last_end_us is not None:
            position = bisect_left(gaps_us, last_end_us - SAME_TIME_US)
            is_explained = position < len(gaps_us) and gaps_us[position] <= last_end_us + SAME_TIME_US
            in_gaps, unexplained = in_gaps + is_explained, unexplained + (not is_explained)
    return in_gaps, unexplained
