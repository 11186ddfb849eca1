"""Reads the times of data records from the annotations of EDF+ and BDF+ (EDF+ specification, 2.2.4)."""

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.edf.records import Records, read_blocks
from captures.recording import LONGEST_S, RecordingError

_ONSET: Final = re.compile(rb"\0*([+-]?\d{1,12}(?:[.,]\d{0,12})?)(?:\x15[^\x14\0]{0,24})?\x14\x14")
"""The time of a record: an annotation list whose first text is empty."""
_TEXT: Final = re.compile(rb"(?<=\x14)[^\x14\0]+(?=\x14)")
_ROUNDING_S: Final = 1.5e-3
"""Times in whole milliseconds differ from the true ones by up to 1 ms in sum. An ECG with a gap this short needs no interruption."""
_LARGEST_OVERLAP_S: Final = 0.1
"""Jitter of a recorder's clock stays below it. Larger overlaps would move beats by more than an interval may be wrong."""
_LIST_BYTES: Final = 1 << 16
"""Bytes of annotations of one record that are looked at: the time comes first."""


@dataclass(frozen=True, slots=True)
class Times:
    """When the records start. `offset_s` is the time from the start of the header to the first record.

    `gaps` are the numbers of the records before which samples are missing, `starts_s` their times from the first record.
    """

    offset_s: float = 0.0
    gaps: tuple[int, ...] = ()
    starts_s: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


def read_times(records: Records, span: tuple[int, int], record_s: float, rate_hz: float, *, has_gaps: bool) -> Times:
    """Read the times from the bytes `start`, `width` of each record that hold the annotations.

    Without `has_gaps` the records follow each other by definition, and other times in them are only told.

    Raises:
        RecordingError: the records go back in time.
    """
    onsets, texts = _read_onsets(records, span)
    notes = (f"{texts} annotation{'s are' if texts > 1 else ' is'} not read",) if texts else ()
    known = np.flatnonzero(~np.isnan(onsets))
    if not known.size:
        return Times(notes=(*notes, _UNKNOWN) if has_gaps else notes)
    offset_s = float(onsets[known[0]] - known[0] * record_s)
    if known.size < records.count and has_gaps:
        notes += (f"{records.count - known.size} data records state no time: they are taken to follow without a gap",)
    late = np.diff(onsets[known]) - np.diff(known) * record_s
    odd = np.flatnonzero(np.abs(late) > max(0.5 / rate_hz, _ROUNDING_S))
    if not has_gaps:
        if odd.size:
            worst = float(late[odd][np.argmax(np.abs(late[odd]))])
            notes += (
                f"{odd.size} data records state times up to {abs(worst):.3f} s {'later' if worst > 0 else 'earlier'} than where"
                " they follow: the file says that it has no gaps, so these times are not used",
            )
        return Times(offset_s, notes=notes)
    gaps = _find_gaps(records, known[odd + 1], late[odd], max(0.5 / rate_hz, _ROUNDING_S))
    return Times(offset_s, gaps, tuple((onsets[list(gaps)] - offset_s).tolist()), notes)


_UNKNOWN: Final = "a discontinuous file (EDF+D) whose data records state no times: they are taken to follow without a gap"


def _find_gaps(
    records: Records, numbers: NDArray[np.int64], late: NDArray[np.float64], tolerated_s: float
) -> tuple[int, ...]:
    """The records before which samples are missing. A small overlap is made up for by the next gap."""
    gaps: list[int] = []
    ahead_s = 0.0
    for number, late_s in zip(numbers.tolist(), late.tolist(), strict=True):
        ahead_s -= late_s
        if ahead_s > _LARGEST_OVERLAP_S:
            raise RecordingError(
                f"{records.path}: data record {number + 1} starts {ahead_s:.3f} s before the one before it ends;"
                " its times cannot be right, export the file again"
            )
        if ahead_s < -tolerated_s:
            gaps.append(number)
            ahead_s = 0.0
        ahead_s = max(0.0, ahead_s)
    return tuple(gaps)


def _read_onsets(records: Records, span: tuple[int, int]) -> tuple[NDArray[np.float64], int]:
    """The time of each record in seconds, NaN where it states none, shape (records,); and the number of texts."""
    onsets = np.full(records.count, np.nan)
    texts = 0
    for block in read_blocks(records, span[0], min(span[1], _LIST_BYTES), 1):
        for i, row in enumerate(block.rows):
            raw = row.tobytes()
            match = _ONSET.match(raw)
            if match:
                onsets[block.first + i] = float(match[1].replace(b",", b"."))
            texts += len(_TEXT.findall(raw))
    onsets[np.abs(onsets) > LONGEST_S] = np.nan
    return onsets, texts
